"""The body of JSON calls between marks: one object, a list of objects, or objects joined by a mark.

    <tool_call>{"name": "f", "arguments": {...}}</tool_call>        [TOOL_CALLS][{"name": "f", "arguments": {...}, "id": "..."}]

`name` and `arguments` are the paths to the tool's name and its arguments inside an object (`("function", "name")`, for instance);
other keys are passed over. Arguments may be a JSON string. Bare objects without marks are read by `bare_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toolhone.dialects.base import Problem
from toolhone.dialects.framed import Found, Frame
from toolhone.dialects.json_reading import as_call, decode, open_at_end
from toolhone.schema import Json, ToolCall


@dataclass(frozen=True)
class JsonCalls:
    """Objects that hold name and arguments at these paths; both paths differ in their last key only."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments",)
    kind: str = field(default="json_calls", init=False)

    def read(self, text: str, start: int, frame: Frame) -> Found:  # noqa: ARG002
        found = decode(text, start)
        if found.problem is not Problem.NONE:
            return Found(found.end, (), Problem.UNCLOSED if open_at_end(text, found.end) else Problem.NOT_JSON)
        calls: list[ToolCall] = []
        problem = Problem.NONE
        for value in found.value if isinstance(found.value, list) else [found.value]:
            judged = as_call(_descend(value, self.name[:-1]), self.name[-1], (self.arguments[-1],))
            calls.extend([] if judged.call is None else [judged.call])
            problem = problem if problem is not Problem.NONE else judged.problem
        return Found(found.end, tuple(calls), problem)


def _descend(value: Json, path: Sequence[str]) -> Json:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
