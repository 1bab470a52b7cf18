"""Bodies of calls, that is what stands between the marks of a `DelimitedFormat`.

With `literal` JSON values are Python literals, as templates write them that print a mapping without
`tojson`. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.delimited import SPACE, DelimitedFormat, followed, read_name
from toolhone.dialects.syntax.literals import CONSTANTS, LiteralError, LiteralReader, read_value
from toolhone.dialects.syntax.model_text import Decoded, FoundCalls, as_call, decode
from toolhone.schema import Json, ToolCall
from toolhone.schema.json_input import check_keys

_NAME_TO_END = re.compile(r"\s*+[\w.:/-]{0,256}\Z")
_NAME_BEFORE_JSON = re.compile(rf"{SPACE}(?=\{{|\"\{{)")
_NAME_BEFORE_OBJECT = re.compile(rf"{SPACE}(?=\{{)")
_CONTINUES = re.compile(r"\s*+[,\]}]")
_MAX_KEY = 256
_SPACE = re.compile(r"\s*+")
_NAME = r"[^\s(){}\[\],=\"']{1,256}"
_HEAD = re.compile(rf"\s*+({_NAME})\s*+\(")
_KEY_TEXT = r"[^\s=(){}\[\],\"'][^=(){}\[\],\n]{0,255}?"
_KEY = re.compile(rf"\s*({_KEY_TEXT})\s*=(?!=)\s*")


@dataclass(frozen=True)
class JsonCalls:
    """`{"name": "f", "arguments": {...}}`: an object, a list, or several objects.

    Name and arguments are at these paths, which differ in their last key only. Another key that
    holds something is `NOT_A_CALL`. Arguments may be a JSON string.
    """

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments",)
    literal: bool = False
    kind: str = field(default="json_calls", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        found, values = _decode_calls(text, start, frame, self.literal)
        if not found.ok:
            return FoundCalls(found.end, (), found.problem)
        calls: list[ToolCall] = []
        problem = ParseProblem.NONE if values else ParseProblem.NOT_A_CALL
        for value in values:
            for key in self.name[:-1]:
                outer = value if isinstance(value, Mapping) else {}
                value = None if check_keys(outer, (key,), "a call", set()) else outer.get(key)
            check = as_call(value, self.name[-1], self.arguments[-1:])
            calls += check.calls
            problem = problem if problem is not ParseProblem.NONE else check.problem
        return FoundCalls(found.end, tuple(calls), problem)


@dataclass(frozen=True)
class NameAsKey:
    """`[{"f": {"x": 1}}, {"g": {}}]`: the name is the key; an object may hold several calls."""

    literal: bool = False
    kind: str = field(default="name_as_key", init=False)
    begins: str = field(default=r"[{\[]", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        found, values = _decode_calls(text, start, frame, self.literal)
        if not found.ok:
            return FoundCalls(found.end, (), found.problem)
        calls: list[ToolCall] = []
        for value in values:
            if not isinstance(value, Mapping) or not value:
                return FoundCalls(found.end, tuple(calls), ParseProblem.NOT_A_CALL)
            for name, arguments in value.items():
                if not isinstance(arguments, Mapping) or not name:
                    return FoundCalls(found.end, tuple(calls), ParseProblem.BAD_ARGUMENTS)
                calls.append(ToolCall(name, dict(arguments)))
        problem = ParseProblem.NONE if calls else ParseProblem.NOT_A_CALL
        return FoundCalls(found.end, tuple(calls), problem)


def _decode_calls(
    text: str, start: int, frame: DelimitedFormat, literal: bool
) -> tuple[Decoded, list[Json]]:
    """Decode what should hold calls: the value, and the entries of the list that it is."""
    if frame.weak and text[start : start + 1] not in ("{", "["):
        return Decoded(None, start, ParseProblem.NOT_A_CALL), []
    found = read_value(text, start, literal)
    return found, found.value if isinstance(found.value, list) else [found.value]


@dataclass(frozen=True)
class NamedJson:
    """`f[ARGS]{"x": 1}` or `{"x": 1} -> f`, `frame.middle` between. JSON strings are read."""

    name_first: bool = True
    literal: bool = False
    kind: str = field(default="named_json", init=False)

    @property
    def begins(self) -> str:
        return "" if self.name_first else r"[{\"]"

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if not self.name_first:
            return self._read_object_first(text, start, frame)
        has_middle = bool(frame.middle.strip())
        named = read_name(text, start, frame, None if has_middle else _NAME_BEFORE_JSON)
        if named is None or (not has_middle and len(named[0].split()) > 1):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        return self._read_object(text, named[1], named[0])

    def _read_object_first(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        if text[start : start + 1] not in ("{", '"'):
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        found = self._read_object(text, start, "")
        if not found.calls:
            return found
        middle = frame.patterns.name_end.match(text, found.end)
        name_start = found.end if middle is None else middle.end()
        last_name = re.compile(rf"[\w.:/-]{{1,256}}?(?={frame.patterns.ends})")
        name = None if middle is None else last_name.match(text, name_start)
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
        if not found.ok:
            return FoundCalls(found.end, (), found.problem)
        if not isinstance(value, Mapping):
            return FoundCalls(found.end, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(found.end, (ToolCall(name, dict(value)),))


@dataclass(frozen=True)
class PythonCalls:
    """`f(a="x", n=2), g()`: name, named arguments in round brackets.

    `raw` is the quote of a form that does not escape strings: such a string ends at a quote that
    the next argument or the end of the call follows. Argument names may hold anything but quotes at
    their start, brackets, commas and `=`.
    """

    raw: str = ""
    kind: str = field(default="python_calls", init=False)
    begins: str = field(default=rf"{_NAME}\s*+\(", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        head = _HEAD.match(text, start)
        if head is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        reader = _RawReader(text, head.end(), self, frame)
        try:
            named, placed = reader.arguments(_KEY)
        except LiteralError as error:
            return FoundCalls(reader.position, (), error.problem)
        if placed:
            return FoundCalls(reader.position, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(reader.position, (ToolCall(head[1], named),))


class _RawReader(LiteralReader):
    """Reads named arguments whose strings may be raw, until no quote ends one."""

    def __init__(self, text: str, position: int, body: PythonCalls, frame: DelimitedFormat) -> None:
        super().__init__(text, position)
        self._quote, self._opening = body.raw, frame.opening_of(body.begins)
        self._behind = re.compile(rf"\s*+,\s*+{_KEY_TEXT}\s*+=|\s*+\){frame.patterns.follows}")

    def argument(self, name: str | None) -> Json:
        quote = self._quote
        if name is None or not quote or not self.text.startswith(quote, self.position):
            return self.value()
        start, mark = self.position + len(quote), re.compile(re.escape(quote))
        end = followed(mark, self._behind, self.text, start, self._opening)
        if end is None:
            self._quote = ""
            return self.value()
        self.position = end.end()
        return self.text[start : end.start()]


@dataclass(frozen=True)
class LooseObject:
    """`f{n:1.5,o:{k:[1,true]},t:<|"|>x<|"|>}` with strings between `opening` and `closing`.

    A string ends at a closing mark behind which the object continues or ends, and a key at a colon
    behind which a value begins.
    """

    opening: str
    closing: str
    kind: str = field(default="loose_object", init=False)
    begins: str = field(default="", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        named = read_name(text, start, frame, _NAME_BEFORE_OBJECT)
        if named is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        reader = _LooseReader(text, named[1], self, frame)
        try:
            value = reader.value()
        except LiteralError as error:
            return FoundCalls(named[1], (), error.problem)
        if not isinstance(value, dict):
            return FoundCalls(reader.position, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(reader.position, (ToolCall(named[0], value),))


class _LooseReader(LiteralReader):
    """Reads values of one loose form."""

    def __init__(self, text: str, position: int, form: LooseObject, frame: DelimitedFormat) -> None:
        super().__init__(text, position)
        self.quotes, self.brackets, self.space = (form.opening,), {"[": "]"}, _SPACE
        self._next_call = frame.patterns.opening
        opening, closing = re.escape(form.opening), re.escape(form.closing)
        self._closing = re.compile(closing)
        words = "|".join(CONSTANTS)
        value = rf"(?=\s*:\s*(?:{opening}|[{{\[\d.+-]|(?:{words})\s*+[,\]}}]))"
        self._quoted_key = re.compile(rf"{opening}(.{{1,{_MAX_KEY}}}?){closing}{value}", re.DOTALL)
        self._bare_key = re.compile(rf"([^\n{{}}\[\],]{{1,{_MAX_KEY}}}?){value}")

    def string(self) -> str:
        start = self.position + len(self.quotes[0])
        found = followed(self._closing, _CONTINUES, self.text, start, self._next_call)
        found = found or self._closing.search(self.text, start)
        if found is None:
            raise LiteralError(unclosed=True)
        self.position = found.end()
        return self.text[start : found.start()]

    def key(self) -> str:
        found = self.match(self._quoted_key) or self.match(self._bare_key)
        if found is None:
            rest = self.text[self.position :]
            raise LiteralError(unclosed=len(rest) <= _MAX_KEY and ":" not in rest)
        return found[1].strip()
