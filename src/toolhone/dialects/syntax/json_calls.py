"""The body of JSON calls between marks: one object, a list of objects, or objects joined by a mark.

    <tool_call>{"name": "f", "arguments": {...}}</tool_call>        [TOOL_CALLS][{"name": "f", "arguments": {...}, "id": "..."}]

`name` and `arguments` are the paths to the tool's name and its arguments inside an object (`("function", "name")`, for instance);
other keys are passed over. Arguments may be a JSON string. With `literal` the values are Python's (`True`, `'text'`), as templates
write them that forget to make JSON of a mapping. Bare objects without marks are read by `bare_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import DelimitedFormat, FoundCalls
from toolhone.dialects.syntax.json_reading import as_call
from toolhone.dialects.syntax.literals import read_value
from toolhone.schema import Json, ToolCall


@dataclass(frozen=True)
class JsonCalls:
    """Objects that hold name and arguments at these paths; both paths differ in their last key only."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments",)
    literal: bool = False
    kind: str = field(default="json_calls", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if frame.weak and text[start : start + 1] not in ("{", "["):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        found = read_value(text, start, self.literal)
        if found.problem is not ParseProblem.NONE:
            return FoundCalls(found.end, (), found.problem)
        calls: list[ToolCall] = []
        problem = ParseProblem.NONE if found.value != [] else ParseProblem.NOT_A_CALL
        for value in found.value if isinstance(found.value, list) else [found.value]:
            judged = as_call(_descend(value, self.name[:-1]), self.name[-1], (self.arguments[-1],))
            calls.extend([] if judged.call is None else [judged.call])
            problem = problem if problem is not ParseProblem.NONE else judged.problem
        return FoundCalls(found.end, tuple(calls), problem)


def _descend(value: Json, path: Sequence[str]) -> Json:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
