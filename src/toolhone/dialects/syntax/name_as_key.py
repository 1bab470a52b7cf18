"""The body of JSON calls whose key is the tool's name: `[{"f": {"x": 1}}, {"g": {}}]`, or one object with several keys.

With `literal` the values are Python's. Arguments are objects; nothing else is read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import DelimitedFormat, FoundCalls
from toolhone.dialects.syntax.literals import read_value
from toolhone.schema import ToolCall


@dataclass(frozen=True)
class NameAsKey:
    """Objects of the form `{name: arguments}`."""

    literal: bool = False
    kind: str = field(default="name_as_key", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if frame.weak and text[start : start + 1] not in ("{", "["):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        found = read_value(text, start, self.literal)
        if found.problem is not ParseProblem.NONE:
            return FoundCalls(found.end, (), found.problem)
        calls: list[ToolCall] = []
        for value in found.value if isinstance(found.value, list) else [found.value]:
            if not isinstance(value, Mapping) or not value:
                return FoundCalls(found.end, tuple(calls), ParseProblem.NOT_A_CALL)
            for name, arguments in value.items():
                if not isinstance(arguments, Mapping) or not name:
                    return FoundCalls(found.end, tuple(calls), ParseProblem.BAD_ARGUMENTS)
                calls.append(ToolCall(name, dict(arguments)))
        return FoundCalls(
            found.end, tuple(calls), ParseProblem.NONE if calls else ParseProblem.NOT_A_CALL
        )
