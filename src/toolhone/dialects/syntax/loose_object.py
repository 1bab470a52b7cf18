"""The body of calls whose arguments are an object with bare keys and strings in marks of their own.

    <|tool_call>call:f{n:1.5,o:{k:[1,true]},text:<|"|>say "x"<|"|>}<tool_call|>

Numbers, constants, lists and objects are read as literals. A string ends at a closing mark behind
which the object continues or ends, and a key at a colon behind which a value begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import (
    SPACE,
    DelimitedFormat,
    FoundCalls,
    followed,
    read_name,
)
from toolhone.dialects.syntax.literals import (
    CONSTANTS,
    NUMBER,
    LiteralError,
    LiteralReader,
    number_of,
)
from toolhone.dialects.syntax.model_text import MAX_DEPTH
from toolhone.schema import Json, ToolCall

_WORD = re.compile(r"[A-Za-z]+")
_SPACE = re.compile(r"\s*+")
_NAME_END = re.compile(rf"{SPACE}(?=\{{)")
_CONTINUES = re.compile(r"\s*+[,\]}]")
_MAX_KEY = 256


@dataclass(frozen=True)
class LooseObject:
    """Name, then `{key:value,...}` with strings between `opening` and `closing`."""

    opening: str
    closing: str
    kind: str = field(default="loose_object", init=False)
    begins: str = field(default="", init=False)

    @cached_property
    def end(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.closing))

    @cached_property
    def keys(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """A quoted and a bare key, each with its colon and the beginning of a value behind it."""
        opening, closing = re.escape(self.opening), re.escape(self.closing)
        value = rf"\s*:\s*(?={opening}|[{{\[\d.+-]|(?:{'|'.join(CONSTANTS)})\s*+[,\]}}])"
        quoted = re.compile(rf"{opening}(.{{1,{_MAX_KEY}}}?){closing}{value}", re.DOTALL)
        return quoted, re.compile(rf"([^\n{{}}\[\],]{{1,{_MAX_KEY}}}?){value}")

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        named = read_name(text, start, frame, _NAME_END)
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
    """Reads values of one form."""

    def __init__(self, text: str, position: int, form: LooseObject, frame: DelimitedFormat) -> None:
        super().__init__(text, position)
        self._form, self._frame = form, frame

    def skip_space(self) -> None:
        self.match(_SPACE)

    def value(self, depth: int = 0) -> Json:
        if depth > MAX_DEPTH or self.at_end():
            raise LiteralError(unclosed=self.at_end())
        if self.take(self._form.opening):
            return self._string()
        if self.take("["):
            return self._items("]", depth)
        if self.take("{"):
            return self._pairs(depth)
        if number := self.match(NUMBER):
            return number_of(number[0])
        word = self.match(_WORD)
        if word is None or word[0] not in CONSTANTS:
            raise LiteralError(unclosed=word is not None and word.end() == len(self.text))
        return CONSTANTS[word[0]]

    def _string(self) -> str:
        start, end = self.position, self._form.end
        found = followed(end, _CONTINUES, self.text, start, self._frame.opening)
        found = found or end.search(self.text, start)
        if found is None:
            raise LiteralError(unclosed=True)
        self.position = found.end()
        return self.text[start : found.start()]

    def _pairs(self, depth: int) -> dict[str, Json]:
        pairs: dict[str, Json] = {}
        quoted, bare = self._form.keys
        while not self.take("}"):
            found = self.match(quoted) or self.match(bare)
            if found is None:
                rest = self.text[self.position :]
                raise LiteralError(unclosed=len(rest) <= _MAX_KEY and ":" not in rest)
            key = found[1].strip()
            if key in pairs:
                raise LiteralError(repeated=True)
            pairs[key] = self.value(depth + 1)
            if not self.take(","):
                self.expect("}")
                break
        return pairs
