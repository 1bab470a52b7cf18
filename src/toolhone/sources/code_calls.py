"""Calls written as Python code, read without running it, also where an argument is no literal.

    written, repairs = read_code("hub.load('a/b', trainable=flag), other(x=1)")
    written[0].call(["handle"])          # hub.load with {"handle": "a/b", "trainable": "flag"}

Values are read as literals; one that is code (a variable, another call, a word without quotes) is kept as its text. `**{...}`
counts as named values. A value without a name gets the name of its place, or `value_2` for a second place that has none or whose
name is taken. Each such mending is a counted repair. A text that does not begin with a call is `NoCode`. For the sources whose
answers are lines of a program; what a model wrote is read more strictly, by the dialects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.schema import Json, ToolCall

_CALLED = re.compile(r"\s*([^\W\d][\w.]*)\s*\(")
_KEYWORD = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_STEP = re.compile(r"""[^'"()\[\]{},]+|'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|.""", re.DOTALL)


class NoCode(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """The text is no call in Python's way of writing."""


class CodeRepair(StrEnum):
    """How a written call was mended."""

    CODE = "an argument that is code, kept as text"
    PLACE = "a value without a name behind named ones"
    BEHIND = "text behind the call left out"


@dataclass
class Written:
    """A call as it was written: values with names, and values by their place (from 1)."""

    name: str
    named: dict[str, Json] = field(default_factory=dict)
    placed: list[tuple[int, Json]] = field(default_factory=list)

    def call(self, names: Sequence[str] = ()) -> ToolCall:
        """The call; `names` are those of the function's first parameters."""
        arguments: dict[str, Json] = {}
        for place, value in self.placed:
            known = names[place - 1] if place <= len(names) else ""
            arguments[known if known and known not in self.named else f"value_{place}"] = value
        return ToolCall(self.name, {**arguments, **self.named})


def read_code(text: str) -> tuple[list[Written], set[CodeRepair]]:
    """The calls with which a text begins, separated by commas, and how they were mended."""
    calls: list[Written] = []
    repairs: set[CodeRepair] = set()
    reader = LiteralReader(text.strip())
    while found := _CALLED.match(reader.text, reader.position):
        reader.position = found.end()
        calls.append(_arguments(reader, Written(found[1]), repairs))
        if not reader.take(","):
            break
    if not calls:
        raise NoCode(text)
    return calls, repairs if reader.at_end() else repairs | {CodeRepair.BEHIND}


def _arguments(reader: LiteralReader, written: Written, repairs: set[CodeRepair]) -> Written:
    """The arguments up to the closing bracket."""
    place = 0
    while not reader.take(")"):
        place += 1
        keyword = _KEYWORD.match(reader.text, reader.position)
        if reader.take("**"):
            _add(written, _unpacked(reader))
        elif keyword:
            reader.position = keyword.end()
            _add(written, {keyword[1]: _value(reader, repairs)})
        else:
            repairs |= {CodeRepair.PLACE} if written.named else set()
            written.placed.append((place, _value(reader, repairs)))
        if not reader.take(","):
            if not reader.take(")"):
                raise NoCode(reader.text)
            break
    return written


def _add(written: Written, pairs: dict[str, Json]) -> None:
    if written.named.keys() & pairs.keys():
        raise NoCode(f"{written.name} is given {', '.join(pairs)} twice")
    written.named |= pairs


def _unpacked(reader: LiteralReader) -> dict[str, Json]:
    try:
        value = reader.value()
    except LiteralError:
        raise NoCode(reader.text) from None
    if not isinstance(value, dict):
        raise NoCode(reader.text)
    return value


def _value(reader: LiteralReader, repairs: set[CodeRepair]) -> Json:
    """The literal that stands here, or the text of the code."""
    reader.skip_space()
    start = reader.position
    try:
        value = reader.value()
        reader.skip_space()
        if reader.text[reader.position : reader.position + 1] in (",", ")"):
            return value
    except LiteralError:
        pass  # not a literal: its text is kept, and counted
    end = _end_of_code(reader.text, start)
    reader.position = end
    repairs.add(CodeRepair.CODE)
    return reader.text[start:end].strip()


def _end_of_code(text: str, start: int) -> int:
    """Where an expression ends: at a comma or a closing bracket outside its own brackets and strings."""
    depth = 0
    for step in _STEP.finditer(text, start):
        token = step[0]
        if depth == 0 and token in (",", ")"):
            if not text[start : step.start()].strip():
                break
            return step.start()
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
    raise NoCode(text)
