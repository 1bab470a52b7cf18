"""The body of JSON calls whose key is the tool's name: `[{"f": {"x": 1}}, {"g": {}}]`, or one object with several keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolhone.dialects.base import Problem
from toolhone.dialects.framed import Found, Frame
from toolhone.dialects.json_reading import decode, open_at_end
from toolhone.schema import ToolCall


@dataclass(frozen=True)
class NameAsKey:
    """Objects of the form `{name: arguments}`."""

    kind: str = field(default="name_as_key", init=False)

    def read(self, text: str, start: int, frame: Frame) -> Found:  # noqa: ARG002
        found = decode(text, start)
        if found.problem is not Problem.NONE:
            return Found(found.end, (), Problem.UNCLOSED if open_at_end(text, found.end) else Problem.NOT_JSON)
        calls: list[ToolCall] = []
        for value in found.value if isinstance(found.value, list) else [found.value]:
            if not isinstance(value, Mapping) or not value:
                return Found(found.end, tuple(calls), Problem.NOT_A_CALL)
            for name, arguments in value.items():
                if not isinstance(arguments, Mapping) or not name:
                    return Found(found.end, tuple(calls), Problem.BAD_ARGUMENTS)
                calls.append(ToolCall(name, dict(arguments)))
        return Found(found.end, tuple(calls))
