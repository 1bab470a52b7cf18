"""The body of calls whose arguments are an object with bare keys and strings in marks of their own.

    <|tool_call>call:f{n:1.5,o:{k:[1,true]},text:<|"|>say "x"<|"|>}<tool_call|>

Numbers, `true`/`True`, `null`/`None`, lists and objects are read as usual; a string ends at a closing mark behind which the object
goes on or ends, and a key at a colon behind which a value begins, whatever else is in them.
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
from toolhone.dialects.syntax.literals import CONSTANTS, NUMBER, LiteralError, number_of
from toolhone.dialects.syntax.model_text import MAX_DEPTH
from toolhone.schema import Json, ToolCall

_WORD = re.compile(r"[A-Za-z]+")
_SPACE = re.compile(r"\s*+")
_NAME_END = re.compile(rf"{SPACE}(?=\{{)")
_GOES_ON = re.compile(r"\s*+[,\]}]")
_MAX_KEY = 256


@dataclass(frozen=True)
class LooseObject:
    """Name, then `{key:value,...}` with strings between `opening` and `closing`."""

    opening: str
    closing: str
    kind: str = field(default="loose_object", init=False)
    begins: str = field(default="", init=False)

    @cached_property
    def _end(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.closing))

    @cached_property
    def _keys(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """A key in the marks of strings, and a bare one, each with its colon and a look at the value."""
        opening, closing = re.escape(self.opening), re.escape(self.closing)
        value = rf"\s*:\s*(?={opening}|[{{\[\d.+-]|(?:{'|'.join(CONSTANTS)})\s*+[,\]}}])"
        quoted = re.compile(rf"{opening}(.{{1,{_MAX_KEY}}}?){closing}{value}", re.DOTALL)
        return quoted, re.compile(rf"([^\n{{}}\[\],]{{1,{_MAX_KEY}}}?){value}")

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        named = read_name(text, start, frame, _NAME_END)
        if named is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        try:
            value, end = self._value(text, named[1], frame)
        except LiteralError as error:
            problem = (
                ParseProblem.BAD_ARGUMENTS
                if error.repeated
                else ParseProblem.UNCLOSED
                if error.unclosed
                else ParseProblem.NOT_JSON
            )
            return FoundCalls(named[1], (), problem)
        if not isinstance(value, dict):
            return FoundCalls(end, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(end, (ToolCall(named[0], value),))

    def _value(
        self, text: str, position: int, frame: DelimitedFormat, depth: int = 0
    ) -> tuple[Json, int]:
        position = _skip(text, position)
        if depth > MAX_DEPTH or position >= len(text):
            raise LiteralError(unclosed=position >= len(text))
        if text.startswith(self.opening, position):
            return self._string(text, position + len(self.opening), frame)
        if text[position] in "{[":
            return self._items(text, position, frame, depth)
        number = NUMBER.match(text, position)
        if number is not None:
            return number_of(number[0]), number.end()
        word = _WORD.match(text, position)
        if word is None or word[0] not in CONSTANTS:
            raise LiteralError(unclosed=word is not None and word.end() == len(text))
        return CONSTANTS[word[0]], word.end()

    def _string(self, text: str, start: int, frame: DelimitedFormat) -> tuple[Json, int]:
        end = followed(self._end, _GOES_ON, text, start, frame.opening) or self._end.search(
            text, start
        )
        if end is None:
            raise LiteralError(unclosed=True)
        return text[start : end.start()], end.end()

    def _items(
        self, text: str, position: int, frame: DelimitedFormat, depth: int
    ) -> tuple[Json, int]:
        """An object or a list."""
        closing = "}" if text[position] == "{" else "]"
        pairs: dict[str, Json] = {}
        items: list[Json] = []
        position = _skip(text, position + 1)
        while not text.startswith(closing, position):
            if closing == "}":
                key, position = self._key(text, position)
                if key in pairs:
                    raise LiteralError(repeated=True)
                pairs[key], position = self._value(text, position, frame, depth + 1)
            else:
                item, position = self._value(text, position, frame, depth + 1)
                items.append(item)
            position = _skip(text, position)
            if text.startswith(",", position):
                position = _skip(text, position + 1)
            elif not text.startswith(closing, position):
                raise LiteralError(unclosed=position >= len(text))
        return (pairs if closing == "}" else items), position + 1

    def _key(self, text: str, position: int) -> tuple[str, int]:
        """The key that stands here, and where its value begins."""
        quoted, bare = self._keys
        found = quoted.match(text, position) or bare.match(text, position)
        if found is None:
            raise LiteralError(
                unclosed=len(text) - position <= _MAX_KEY and ":" not in text[position:]
            )
        return found[1].strip(), found.end()


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()
