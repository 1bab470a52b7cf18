"""Bodies of calls whose arguments are JSON: `JsonCalls`, `NameAsKey` and `NamedJson`.

    {"name": "f", "arguments": {...}}     JsonCalls: one object, a list, or several objects
    [{"f": {"x": 1}}, {"g": {}}]          NameAsKey: the tool's name is the key
    f[ARGS]{"x": 1}    {"x": 1} -> f      NamedJson: the name as text, `frame.middle` between

With `literal` the values are Python literals, as templates write them that print a mapping without
`tojson`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import SPACE, DelimitedFormat, FoundCalls, read_name
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.model_text import Decoded, as_call, decode
from toolhone.schema import ToolCall

_NAME_TO_END = re.compile(r"\s*+[\w.:/-]{0,256}\Z")
_NAME_END = re.compile(rf"{SPACE}(?=\{{|\"\{{)")


@dataclass(frozen=True)
class JsonCalls:
    """Objects with name and arguments at these paths, which differ in their last key only.

    Other keys are ignored. Arguments may be a JSON string.
    """

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments",)
    literal: bool = False
    kind: str = field(default="json_calls", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        found = _decode_calls(text, start, frame, self.literal)
        if found.problem is not ParseProblem.NONE:
            return FoundCalls(found.end, (), found.problem)
        calls: list[ToolCall] = []
        problem = ParseProblem.NONE if found.value != [] else ParseProblem.NOT_A_CALL
        for value in found.value if isinstance(found.value, list) else [found.value]:
            for key in self.name[:-1]:
                value = value.get(key) if isinstance(value, Mapping) else None
            check = as_call(value, self.name[-1], self.arguments[-1:])
            calls += [] if check.call is None else [check.call]
            problem = problem if problem is not ParseProblem.NONE else check.problem
        return FoundCalls(found.end, tuple(calls), problem)


@dataclass(frozen=True)
class NameAsKey:
    """Objects of the form `{name: arguments}`; one object may hold several calls."""

    literal: bool = False
    kind: str = field(default="name_as_key", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        found = _decode_calls(text, start, frame, self.literal)
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
        problem = ParseProblem.NONE if calls else ParseProblem.NOT_A_CALL
        return FoundCalls(found.end, tuple(calls), problem)


def _decode_calls(text: str, start: int, frame: DelimitedFormat, literal: bool) -> Decoded:
    if frame.weak and text[start : start + 1] not in ("{", "["):
        return Decoded(None, start, ParseProblem.NOT_A_CALL)
    return read_value(text, start, literal)


@dataclass(frozen=True)
class NamedJson:
    """Name, middle, object; or object, middle, name. The object may be a JSON string of one."""

    name_first: bool = True
    literal: bool = False
    kind: str = field(default="named_json", init=False)

    @property
    def begins(self) -> str:
        return "" if self.name_first else r"[{\"]"

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if not self.name_first:
            return self._read_object_first(text, start, frame)
        named = read_name(text, start, frame, None if frame.middle.strip() else _NAME_END)
        if named is None or (not frame.middle.strip() and len(named[0].split()) > 1):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        return self._read_object(text, named[1], named[0])

    def _read_object_first(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if text[start : start + 1] not in ("{", '"'):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        found = self._read_object(text, start, "")
        if not found.calls:
            return found
        middle = frame.name_end.match(text, found.end)
        name_start = found.end if middle is None else middle.end()
        name = None if middle is None else _last_name(frame).match(text, name_start)
        if name is None:
            cut_off = _NAME_TO_END.match(text, name_start)
            problem = ParseProblem.UNCLOSED if cut_off else ParseProblem.NOT_A_CALL
            return FoundCalls(found.end, (), problem)
        return FoundCalls(name.end(), (ToolCall(name[0], found.calls[0].arguments),))

    def _read_object(self, text: str, start: int, name: str) -> FoundCalls:
        """Read the object at `start` as the arguments of a call with this name."""
        found = read_value(text, start, self.literal)
        value = found.value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            inner = decode(value, 0)
            value = inner.value if not value[inner.end :].strip() else value
        if found.problem is not ParseProblem.NONE:
            return FoundCalls(found.end, (), found.problem)
        if not isinstance(value, Mapping):
            return FoundCalls(found.end, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(found.end, (ToolCall(name, dict(value)),))


@lru_cache(maxsize=256)
def _last_name(frame: DelimitedFormat) -> re.Pattern[str]:
    """A name, with nothing behind it but what may follow a call."""
    return re.compile(rf"[\w.:/-]{{1,256}}?(?={frame.ends})")
