"""The body of calls that write the name as text and the arguments as one JSON object.

    <function=f>{"x": 1}</function>        [TOOL_CALLS]f[ARGS]{"x": 1}        >>>f\\n{"x": 1}
    to=functions.f<|channel|>commentary json<|message|>{"x": 1}<|call|>       (the name stands in the header of the message)

`frame.middle` stands between name and object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolhone.dialects.base import Problem
from toolhone.dialects.framed import Found, Frame, read_name
from toolhone.dialects.json_reading import decode, open_at_end
from toolhone.schema import ToolCall


@dataclass(frozen=True)
class NamedJson:
    """Name, middle, JSON object."""

    kind: str = field(default="named_json", init=False)

    def read(self, text: str, start: int, frame: Frame) -> Found:
        named = read_name(text, start, frame) if frame.middle.strip() else _before_brace(text, start)
        if named is None:
            return Found(start, (), Problem.NOT_A_CALL)
        name, position = named
        found = decode(text, position)
        if found.problem is not Problem.NONE:
            return Found(found.end, (), Problem.UNCLOSED if open_at_end(text, found.end) else Problem.NOT_JSON)
        if not isinstance(found.value, Mapping):
            return Found(found.end, (), Problem.BAD_ARGUMENTS)
        return Found(found.end, (ToolCall(name, dict(found.value)),))


def _before_brace(text: str, start: int) -> tuple[str, int] | None:
    """The name that ends where an object begins: on the same line, or with nothing but white space between."""
    brace = text.find("{", start, start + 320)
    name = text[start:brace].strip() if brace >= 0 else ""
    return (name, brace) if name and not any(character.isspace() for character in name) else None
