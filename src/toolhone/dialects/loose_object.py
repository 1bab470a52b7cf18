"""The body of calls whose arguments are an object with bare keys and strings in marks of their own.

    <|tool_call>call:f{n:1.5,o:{k:[1,true]},text:<|"|>say "x"<|"|>}<tool_call|>

Numbers, `true`/`True`, `null`/`None`, lists and objects are read as usual; a string ends at its closing mark, whatever is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from toolhone.dialects.base import Problem
from toolhone.dialects.framed import Found, Frame, read_name
from toolhone.dialects.json_reading import MAX_DEPTH
from toolhone.dialects.literals import CONSTANTS, NUMBER, LiteralError, number_of
from toolhone.schema import Json, ToolCall

_KEY = re.compile(r"\s*([^:{}\[\],]{1,256}?)\s*:\s*")
_WORD = re.compile(r"[A-Za-z]+")
_SPACE = re.compile(r"\s*")
_NAME_END = re.compile(r"\s*(?=\{)")


@dataclass(frozen=True)
class LooseObject:
    """Name, then `{key:value,...}` with strings between `opening` and `closing`."""

    opening: str
    closing: str
    kind: str = field(default="loose_object", init=False)

    @cached_property
    def _keys_quoted(self) -> re.Pattern[str]:
        return re.compile(rf"\s*{re.escape(self.opening)}(.{{1,256}}?){re.escape(self.closing)}\s*:\s*", re.DOTALL)

    def read(self, text: str, start: int, frame: Frame) -> Found:
        named = read_name(text, start, frame, _NAME_END)
        if named is None:
            return Found(start, (), Problem.NOT_A_CALL)
        try:
            value, end = self._value(text, named[1], 0)
        except LiteralError as error:
            return Found(named[1], (), Problem.UNCLOSED if error.unclosed else Problem.NOT_JSON)
        if not isinstance(value, dict):
            return Found(end, (), Problem.BAD_ARGUMENTS)
        return Found(end, (ToolCall(named[0], value),))

    def _value(self, text: str, position: int, depth: int) -> tuple[Json, int]:
        position = _skip(text, position)
        if depth > MAX_DEPTH or position >= len(text):
            raise LiteralError(unclosed=position >= len(text))
        if text.startswith(self.opening, position):
            start = position + len(self.opening)
            end = text.find(self.closing, start)
            if end < 0:
                raise LiteralError(unclosed=True)
            return text[start:end], end + len(self.closing)
        if text[position] in "{[":
            return self._items(text, position, depth)
        number = NUMBER.match(text, position)
        if number is not None:
            return number_of(number[0]), number.end()
        word = _WORD.match(text, position)
        if word is None or word[0] not in CONSTANTS:
            raise LiteralError(unclosed=word is not None and word.end() == len(text))
        return CONSTANTS[word[0]], word.end()

    def _items(self, text: str, position: int, depth: int) -> tuple[Json, int]:
        """An object or a list."""
        is_object = text[position] == "{"
        closing = "}" if is_object else "]"
        pairs: dict[str, Json] = {}
        items: list[Json] = []
        position = _skip(text, position + 1)
        while not text.startswith(closing, position):
            key = ""
            if is_object:
                found = self._keys_quoted.match(text, position) or _KEY.match(text, position)
                if found is None or found[1] in pairs:
                    raise LiteralError(unclosed=position >= len(text), repeated=found is not None)
                key, position = found[1], found.end()
            value, position = self._value(text, position, depth + 1)
            items.append(value)
            pairs[key] = value
            position = _skip(text, position)
            if text.startswith(",", position):
                position = _skip(text, position + 1)
            elif not text.startswith(closing, position):
                raise LiteralError(unclosed=position >= len(text))
        return (pairs if is_object else items), position + 1


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()
