"""Python literals as a model writes them in calls, read and written without Python's own parser.

`LiteralReader(text)` reads strings, numbers, `True`/`False`/`None` (and JSON's `true`/`false`/`null`), lists, tuples (as lists) and
dicts with string keys. It is linear in time, bounded in depth, evaluates nothing and warns about nothing; what it cannot read
raises `LiteralError`, which stays inside this package. `read_value` reads JSON, or such a literal where a form has them. f-strings,
bytes, sets, sums and names of variables are not literals here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.json_reading import MAX_DEPTH, Decoded, decode, skip_space, write_json
from toolhone.errors import DialectError
from toolhone.schema import Json

CONSTANTS: Mapping[str, Json] = {
    "True": True,
    "False": False,
    "None": None,
    "true": True,
    "false": False,
    "null": None,
}
_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[^\W\d]\w*")
NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)(?!\w)")
_STRING = re.compile(r"""'((?:[^'\\]+|\\.)*+)'|"((?:[^"\\]+|\\.)*+)\"""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "/": "/",
}
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class LiteralError(Exception):
    """The text is no literal; `unclosed` says whether it only ends too early, `repeated` whether a name occurs twice."""

    def __init__(self, unclosed: bool = False, repeated: bool = False) -> None:
        super().__init__("not a literal")
        self.unclosed = unclosed
        self.repeated = repeated


class LiteralReader:
    """A position in a text, and what can be read there."""

    def __init__(self, text: str, position: int = 0) -> None:
        self.text = text
        self.position = position

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.position)
        self.position = self.position if found is None else found.end()

    def at_end(self) -> bool:
        self.skip_space()
        return self.position >= len(self.text)

    def take(self, token: str) -> bool:
        """Whether `token` stands here, after white space; it is read if so."""
        self.skip_space()
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise LiteralError(unclosed=self.at_end())

    def name(self) -> str | None:
        """The identifier that stands here, if any."""
        self.skip_space()
        return self._match(_NAME)

    def value(self, depth: int = 0) -> Json:
        """The literal that stands here."""
        self.skip_space()
        first = self.text[self.position : self.position + 1]
        if depth > MAX_DEPTH or not first:
            raise LiteralError(unclosed=not first)
        if first in "\"'":
            return self.string()
        if self.take("["):
            return self._items("]", depth)
        if self.take("("):
            return self._items(")", depth)
        if self.take("{"):
            return self._pairs(depth)
        number = self._match(NUMBER)
        if number is not None:
            return number_of(number)
        name = self._match(_NAME) or ""
        if name not in CONSTANTS:
            raise LiteralError(unclosed=self.at_end())
        return CONSTANTS[name]

    def string(self) -> str:
        """The string in single or double quotes that stands here."""
        found = _STRING.match(self.text, self.position)
        if found is None:
            raise LiteralError(
                unclosed=self.text[self.position : self.position + 1] in ("", '"', "'")
            )
        self.position = found.end()
        return _unescape(found[1] if found[1] is not None else found[2])

    def _items(self, closing: str, depth: int) -> list[Json]:
        items: list[Json] = []
        while not self.take(closing):
            items.append(self.value(depth + 1))
            if not self.take(","):
                self.expect(closing)
                break
        return items

    def _pairs(self, depth: int) -> dict[str, Json]:
        pairs: dict[str, Json] = {}
        while not self.take("}"):
            self.skip_space()
            key = self.string()
            if key in pairs:
                raise LiteralError(repeated=True)
            self.expect(":")
            pairs[key] = self.value(depth + 1)
            if not self.take(","):
                self.expect("}")
                break
        return pairs

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[0]


def read_value(text: str, start: int, literal: bool) -> Decoded:
    """The value that begins at `start`, after white space: JSON, or else a Python literal where those are asked for.

    Where there is none, `end` is where it would have begun.
    """
    found = decode(text, start)
    if found.problem is ParseProblem.NONE or not literal:
        return found
    reader = LiteralReader(text, skip_space(text, start))
    try:
        return Decoded(reader.value(), reader.position)
    except LiteralError as error:
        return Decoded(
            None, found.end, ParseProblem.UNCLOSED if error.unclosed else ParseProblem.NOT_JSON
        )


def write_literal(value: Json, depth: int = 0) -> str:
    """A JSON value as a Python literal in one line, strings in double quotes. `DialectError` for what JSON cannot say."""
    if depth > MAX_DEPTH:
        raise DialectError(f"a call is nested deeper than {MAX_DEPTH} brackets")
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | int | float):
        return write_json(value)
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(
                f"{write_json(str(key))}: {write_literal(inner, depth + 1)}"
                for key, inner in value.items()
            )
            + "}"
        )
    if isinstance(value, Sequence):
        return "[" + ", ".join(write_literal(inner, depth + 1) for inner in value) + "]"
    raise DialectError(f"a call cannot hold a {type(value).__name__}: {value!r:.60}")


def number_of(text: str) -> int | float:
    try:
        value = float(text) if any(mark in text for mark in ".eE") else int(text)
    except ValueError:
        raise LiteralError from None
    if isinstance(value, float) and not math.isfinite(value):
        raise LiteralError
    return value


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    joined = _ESCAPE.sub(_character, text)
    joined = _SURROGATES.sub(
        lambda found: found[0].encode("utf-16", "surrogatepass").decode("utf-16"), joined
    )
    if any("\ud800" <= character <= "\udfff" for character in joined):
        raise LiteralError
    return joined


def _character(found: re.Match[str]) -> str:
    body = found[1]
    if body in _ESCAPES:
        return _ESCAPES[body]
    if body[0] in "01234567":
        return chr(int(body, 8))
    if body[0] in "xuU" and len(body) > 1:
        code = int(body[1:], 16)
        if code > 0x10FFFF:
            raise LiteralError
        return chr(code)
    return found[0]
