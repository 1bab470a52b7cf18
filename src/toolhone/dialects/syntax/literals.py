"""Python literals as models write them in calls, read and written without Python's own parser.

`LiteralReader` reads strings, numbers, `True`/`False`/`None` and JSON's `true`/`false`/`null`,
lists, tuples (as lists), dicts with string keys, and the arguments of a call. It takes linear time,
bounds the depth and evaluates nothing; what it cannot read raises `LiteralError`, which stays
inside this package. f-strings, bytes, sets, sums and variables are not literals here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.model_text import MAX_DEPTH, Decoded, decode, write_json
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
NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)(?!\w)"
)
KEYWORD = re.compile(r"[ \t\r\n]*([^\W\d]\w*)[ \t\r\n]*=")
"""The name of an argument, as Python writes it."""
_NAME = re.compile(r"[^\W\d]\w*")
_STRING = re.compile(r"""'((?:[^'\\]+|\\.)*+)'|"((?:[^"\\]+|\\.)*+)\"""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = dict(zip("ntrbfav\\'\"/", "\n\t\r\b\f\a\v\\'\"/", strict=True)) | {"\n": ""}


class LiteralError(Exception):
    """The text is no literal: it ends too early (`unclosed`), or a name occurs twice."""

    def __init__(self, unclosed: bool = False, repeated: bool = False) -> None:
        super().__init__("not a literal")
        self.problem = ParseProblem.UNCLOSED if unclosed else ParseProblem.NOT_JSON
        """The problem of a call with these arguments."""
        if repeated:
            self.problem = ParseProblem.BAD_ARGUMENTS


class LiteralReader:
    """A position in a text, with methods that read there and move it."""

    quotes: tuple[str, ...] = ('"', "'")
    brackets: Mapping[str, str] = {"[": "]", "(": ")"}
    space = re.compile(r"[ \t\r\n]*")

    def __init__(self, text: str, position: int = 0) -> None:
        self.text, self.position = text, position

    def skip_space(self) -> None:
        self.match(self.space)

    def at_end(self) -> bool:
        self.skip_space()
        return self.position >= len(self.text)

    def take(self, token: str) -> bool:
        """Skip white space, then read `token` if it is next. Return whether it was."""
        self.skip_space()
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise LiteralError(unclosed=self.at_end())

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what the pattern matches here, if it does."""
        found = pattern.match(self.text, self.position)
        self.position = self.position if found is None else found.end()
        return found

    def value(self, depth: int = 0) -> Json:
        """Read a literal."""
        ended = self.at_end()
        if depth > MAX_DEPTH or ended:
            raise LiteralError(unclosed=ended)
        if self.text.startswith(self.quotes, self.position):
            return self.string()
        first = self.text[self.position]
        if first in self.brackets:
            self.position += 1
            return [self.value(depth + 1) for _ in self._items(self.brackets[first])]
        if self.take("{"):
            pairs: dict[str, Json] = {}
            for _ in self._items("}"):
                key = self.key()
                if key in pairs:
                    raise LiteralError(repeated=True)
                self.expect(":")
                pairs[key] = self.value(depth + 1)
            return pairs
        if number := self.match(NUMBER):
            return number_of(number[0])
        name = self.match(_NAME)
        if name is None or name[0] not in CONSTANTS:
            raise LiteralError(unclosed=self.at_end())
        return CONSTANTS[name[0]]

    def string(self) -> str:
        """Read a string, its quotes included."""
        found = self.match(_STRING)
        if found is None:
            first = self.text[self.position : self.position + 1]
            raise LiteralError(unclosed=first in ("", *self.quotes))
        text = found[0][1:-1]
        if "\\" not in text:
            return text
        try:
            text = _ESCAPE.sub(_character, text)
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise LiteralError from None

    def key(self) -> str:
        """Read the key of a dict, up to its colon."""
        self.skip_space()
        return self.string()

    def _items(self, closing: str) -> Iterator[None]:
        """Yield in front of each item up to the closing bracket; commas are between."""
        while not self.take(closing):
            yield
            if not self.take(","):
                self.expect(closing)
                return

    def arguments(
        self, keyword: re.Pattern[str] = KEYWORD
    ) -> tuple[dict[str, Json], dict[int, Json]]:
        """Read the arguments of a call up to its closing bracket: by name, and by place (from 1).

        keyword: what a name and its `=` look like. `**{...}` counts as named arguments.
        """
        named: dict[str, Json] = {}
        placed: dict[int, Json] = {}
        for place, _ in enumerate(self._items(")"), 1):
            pairs: Json = {}
            if self.take("**"):
                pairs = self.value()
                if not isinstance(pairs, dict):
                    raise LiteralError
            elif key := self.match(keyword):
                pairs = {key[1]: self.argument(key[1])}
            else:
                placed[place] = self.argument(None)
            if pairs.keys() & named.keys():
                raise LiteralError(repeated=True)
            named |= pairs
        return named, placed

    def argument(self, name: str | None) -> Json:  # noqa: ARG002
        """Read the value of the argument with this name, or of one without a name."""
        return self.value()


def read_value(text: str, start: int, literal: bool) -> Decoded:
    """Read the JSON value at `start`, or a Python literal if `literal` is set and it is no JSON.

    Without a value, `end` is where it would have begun.
    """
    found = decode(text, start)
    return found if found.ok or not literal else read_literal(text, found.end)


def read_literal(text: str, start: int = 0) -> Decoded:
    """Read the Python literal at `start`, or find the problem."""
    reader = LiteralReader(text, start)
    try:
        return Decoded(reader.value(), reader.position)
    except LiteralError as error:
        repeated = error.problem is ParseProblem.BAD_ARGUMENTS
        return Decoded(None, start, ParseProblem.NOT_JSON if repeated else error.problem)


def write_literal(value: Json, depth: int = 0) -> str:
    """Write a JSON value as a Python literal in one line. `DialectError` for other values."""
    if depth > MAX_DEPTH:
        raise DialectError(f"a call is nested deeper than {MAX_DEPTH} brackets")
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | int | float):
        return write_json(value)
    if isinstance(value, Mapping):
        pairs = (f"{write_json(str(k))}: {write_literal(v, depth + 1)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(write_literal(inner, depth + 1) for inner in value) + "]"
    raise DialectError(f"a call cannot hold a {type(value).__name__}: {value!r:.60}")


def number_of(text: str) -> int | float:
    """Convert what `NUMBER` matched. `LiteralError` for a number too large to hold."""
    try:
        value = float(text) if any(mark in text for mark in ".eE") else int(text)
    except ValueError:
        raise LiteralError from None
    if isinstance(value, float) and not math.isfinite(value):
        raise LiteralError
    return value


def _character(found: re.Match[str]) -> str:
    body = found[1]
    octal = body[0] in "01234567"
    if body in _ESCAPES or not (octal or len(body) > 1):
        return _ESCAPES.get(body, found[0])
    code = int(body, 8) if octal else int(body[1:], 16)
    if code > 0x10FFFF:
        raise LiteralError
    return chr(code)
