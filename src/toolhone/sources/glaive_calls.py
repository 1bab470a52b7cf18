"""Glaive's call syntax: `<functioncall> {"name": "f", "arguments": '{"n": 5}'}`, with all that goes wrong in it.

    read_function_calls("Let me see. <functioncall> {...}")      # words, calls, repairs; `Skip` for what cannot be read

The arguments are JSON inside single quotes, in which apostrophes are not escaped: they are decoded from the first quote on, and end
where the JSON value does. The other forms that occur (see `glaive`) are read, too, and counted as repairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode, open_at_end, skip_space
from toolhone.schema import Json
from toolhone.sources.base import Skip

OPEN = "<functioncall>"
_MARK = re.compile(r"<\s*/?\s*function[_ ]?call\s*>", re.IGNORECASE)
_NO_JSON_WORD = re.compile(r"(?<![\w\"])(?:-?Infinity|NaN)\b")


class Reason(StrEnum):
    """Why a row is skipped."""

    UNREADABLE = "a call that cannot be read"
    CUT_OFF = "a call that is cut off"
    NO_OBJECT = "arguments that are no object"
    NO_JSON_WORD = "arguments with a value that JSON has no word for"


class Repair(StrEnum):
    """How a call was mended."""

    OBJECT = "arguments as an object instead of a text"
    NULL = "arguments of null instead of none"
    PARAMETERS = "arguments under the key 'parameters'"
    BRACE = "a brace too many or too few behind the arguments"
    QUOTES = "escaped apostrophes inside the arguments"
    BEHIND = "words behind a call left out"
    MARK = "another spelling of the call mark"


@dataclass(frozen=True)
class FunctionCall:
    """A call with the name as it is written."""

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True)
class Found:
    """What a turn says before its calls (None: nothing), the calls, and how they were mended."""

    words: str | None
    calls: tuple[FunctionCall, ...]
    repairs: frozenset[str]


def read_function_calls(text: str) -> Found:
    """The words and calls of a turn of the assistant."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return Found(text.strip() or None, (), frozenset())
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    bodies = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    repairs: set[str] = {Repair.MARK} if any(mark[0] != OPEN for mark in marks) else set()
    calls = tuple(_read_call(body, repairs) for body in bodies if body or len(marks) == 1)
    return Found(text[: marks[0].start()].strip() or None, calls, frozenset(repairs))


def _read_call(text: str, repairs: set[str]) -> FunctionCall:
    """The call that begins a text."""
    reader = _Reader(text)
    try:
        call = reader.call()
    except Skip:
        if "\\'" not in text:
            raise
        reader = _Reader(text.replace("\\'", "'"))
        call = reader.call()
        reader.repairs.add(Repair.QUOTES)
    repairs |= reader.repairs
    return call


class _Reader:
    """A position in the text of a call; collects how the call was mended."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.repairs: set[str] = set()

    def call(self) -> FunctionCall:
        fields: dict[str, Json] = {}
        self._expect("{")
        while True:
            key = self._json()
            self._expect(":")
            if not isinstance(key, str) or key in fields:
                raise Skip(Reason.UNREADABLE, self._seen(0))
            fields[key] = self._quoted() if self._take("'") else self._unquoted(key)
            if not self._take(","):
                break
        if not self._take("}"):
            self.repairs.add(Repair.BRACE)
        while self._take("}"):
            self.repairs.add(Repair.BRACE)
        if self.position < len(self.text):
            self.repairs.add(Repair.BEHIND)
        return self._call_of(fields)

    def _quoted(self) -> Json:
        """A value between single quotes, the first of which was read: a JSON value, or none at all."""
        if self._take("'"):
            return {}
        value = self._json()
        while self._take("}"):
            self.repairs.add(Repair.BRACE)
        if not self._take("'"):
            raise Skip(
                Reason.CUT_OFF if self.position == len(self.text) else Reason.UNREADABLE,
                self._seen(self.position),
            )
        return value

    def _unquoted(self, key: str) -> Json:
        value = self._json()
        if isinstance(value, dict) and key in ("arguments", "parameters"):
            self.repairs.add(Repair.OBJECT)
        return value

    def _call_of(self, fields: Mapping[str, Json]) -> FunctionCall:
        name, keys = (
            fields.get("name"),
            [key for key in ("arguments", "parameters") if key in fields],
        )
        if (
            not isinstance(name, str)
            or not name
            or len(keys) > 1
            or fields.keys() - {"name", *keys}
        ):
            raise Skip(Reason.UNREADABLE, f"wanted 'name' and 'arguments', got {sorted(fields)}")
        arguments = fields[keys[0]] if keys else {}
        self.repairs |= {Repair.PARAMETERS} if keys == ["parameters"] else set()
        if isinstance(arguments, str):
            found = decode(arguments or "{}", 0)
            arguments = (
                found.value
                if found.problem is ParseProblem.NONE and not arguments[found.end :].strip()
                else arguments
            )
        if arguments is None:
            self.repairs.add(Repair.NULL)
            arguments = {}
        if not isinstance(arguments, dict):
            raise Skip(Reason.NO_OBJECT, f"{name}: {arguments!r:.60}")
        return FunctionCall(name, arguments)

    def _json(self) -> Json:
        found = decode(self.text, self.position)
        if found.problem is not ParseProblem.NONE:
            raise Skip(self._why(), self._seen(self.position))
        self.position = found.end
        return found.value

    def _why(self) -> Reason:
        if _NO_JSON_WORD.search(self.text, self.position):
            return Reason.NO_JSON_WORD
        at_end = not self.text[self.position :].strip()
        return (
            Reason.CUT_OFF if at_end or open_at_end(self.text, self.position) else Reason.UNREADABLE
        )

    def _take(self, token: str) -> bool:
        start = skip_space(self.text, self.position)
        if not self.text.startswith(token, start):
            self.position = start
            return False
        self.position = start + len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise Skip(
                Reason.CUT_OFF if self.position >= len(self.text) else Reason.UNREADABLE,
                self._seen(0),
            )

    def _seen(self, start: int) -> str:
        return f"{self.text[start : start + 80]!r}"
