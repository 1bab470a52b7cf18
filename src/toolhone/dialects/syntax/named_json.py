"""The body of calls that write the name as text and the arguments as one JSON object.

    <function=f>{"x": 1}</function>        [TOOL_CALLS]f[ARGS]{"x": 1}        >>>f\\n{"x": 1}
    to=functions.f<|channel|>commentary json<|message|>{"x": 1}<|call|>       (the name stands in the header of the message)
    {"x": 1} -> f                                                             (`name_first=False`)

`frame.middle` stands between the two. The object may be a JSON string that holds one. With `literal` its values are Python's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import SPACE, DelimitedFormat, FoundCalls, read_name
from toolhone.dialects.syntax.json_reading import decode
from toolhone.dialects.syntax.literals import read_value
from toolhone.schema import Json, ToolCall

_NAME_TO_END = re.compile(r"\s*+[\w.:/-]{0,256}\Z")
_NAME_END = re.compile(rf"{SPACE}(?=\{{|\"\{{)")


@dataclass(frozen=True)
class NamedJson:
    """Name, middle, object; or the other way round."""

    name_first: bool = True
    literal: bool = False
    kind: str = field(default="named_json", init=False)

    @property
    def begins(self) -> str:
        return "" if self.name_first else r"[{\"]"

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if not self.name_first:
            return self._object_first(text, start, frame)
        named = (
            read_name(text, start, frame)
            if frame.middle.strip()
            else _before_object(text, start, frame)
        )
        if named is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        return _read_object(text, named[1], named[0], self.literal)

    def _object_first(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if text[start : start + 1] not in ("{", '"'):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        found = _read_object(text, start, "", self.literal)
        if not found.calls:
            return found
        middle = frame.name_end.match(text, found.end)
        name = None if middle is None else _last_name(frame).match(text, middle.end())
        if name is None:
            cut_off = _NAME_TO_END.match(text, found.end if middle is None else middle.end())
            return FoundCalls(
                found.end, (), ParseProblem.UNCLOSED if cut_off else ParseProblem.NOT_A_CALL
            )
        return FoundCalls(name.end(), (ToolCall(name[0], found.calls[0].arguments),))


def _read_object(text: str, start: int, name: str, literal: bool) -> FoundCalls:
    """The call of this name with the object that begins at `start`."""
    found = read_value(text, start, literal)
    value = _unpacked(found.value)
    if found.problem is not ParseProblem.NONE:
        return FoundCalls(found.end, (), found.problem)
    if not isinstance(value, Mapping):
        return FoundCalls(found.end, (), ParseProblem.BAD_ARGUMENTS)
    return FoundCalls(found.end, (ToolCall(name, dict(value)),))


@lru_cache(maxsize=256)
def _last_name(frame: DelimitedFormat) -> re.Pattern[str]:
    """A name with nothing but what may stand behind a call after it."""
    return re.compile(rf"[\w.:/-]{{1,256}}?(?={frame.ends})")


def _unpacked(value: Json) -> Json:
    """The value, or the object that a JSON string holds."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    inner = decode(value, 0)
    return inner.value if not value[inner.end :].strip() else value


def _before_object(text: str, start: int, frame: DelimitedFormat) -> tuple[str, int] | None:
    """The name that ends where an object begins: on the same line, or with nothing but white space between."""
    named = read_name(text, start, frame, _NAME_END)
    return None if named is None or any(character.isspace() for character in named[0]) else named
