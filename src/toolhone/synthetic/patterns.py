"""Strings that a simple regular expression accepts, for parameters with a `pattern`.

    make = matching(r"^[A-Z]{2}-\\d{4}$")     # None for a pattern that is not simple
    make(random.Random(0))                   # "MT-7415"

Simple are letters, escapes (`\\d`, `\\w`, `\\s`, escaped signs), classes, groups, `|`, and the repetitions `?`, `*`, `+`,
`{n}`, `{n,m}`; anchors stand at the ends. Look-around, back references and negated classes are not. Every string is checked
against the pattern before it is given out.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

Make = Callable[[random.Random], str]
_CLASSES = {"d": string.digits, "w": string.ascii_letters + string.digits, "s": " "}
_ANY = string.ascii_lowercase
_MORE = 3
"""How many more than the fewest an open repetition gives at most."""
_TRIES = 20


class _NotSimple(Exception):  # noqa: N818  (a decision, never shown)
    pass


def matching(pattern: str) -> Make | None:
    """A maker of strings that the pattern accepts, or None where the pattern is not simple."""
    try:
        compiled = re.compile(pattern)
        maker = _Reader(pattern).whole()
    except (re.error, _NotSimple, IndexError, ValueError):
        return None

    def make(rng: random.Random) -> str:
        for _ in range(_TRIES):
            made = maker(rng)
            if compiled.search(made):
                return made
        return ""

    return make if compiled.search(make(random.Random(0))) else None


class _Reader:
    """Reads a pattern from left to right into makers."""

    def __init__(self, pattern: str) -> None:
        self._text, self._at = pattern, 0

    def whole(self) -> Make:
        maker = self._choice()
        if self._at < len(self._text):
            raise _NotSimple
        return maker

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _choice(self) -> Make:
        ways = [self._sequence()]
        while self._peek() == "|":
            self._next()
            ways.append(self._sequence())
        return lambda rng: rng.choice(ways)(rng)

    def _sequence(self) -> Make:
        parts: list[Make] = []
        while self._peek() and self._peek() not in "|)":
            if self._peek() in "^$":
                self._next()
                continue
            parts.append(self._repeated(self._atom()))
        return lambda rng: "".join(part(rng) for part in parts)

    def _atom(self) -> Make:
        sign = self._next()
        if sign == "(":
            return self._group()
        if sign in "*+?{":
            raise _NotSimple
        letters = (
            self._class()
            if sign == "["
            else self._escape()
            if sign == "\\"
            else _ANY
            if sign == "."
            else sign
        )
        return lambda rng: rng.choice(letters)

    def _group(self) -> Make:
        if self._peek() == "?":
            if self._text[self._at : self._at + 2] != "?:":
                raise _NotSimple
            self._at += 2
        inner = self._choice()
        if self._next() != ")":
            raise _NotSimple
        return inner

    def _escape(self) -> str:
        sign = self._next()
        if sign in _CLASSES:
            return _CLASSES[sign]
        if sign.isalnum():
            raise _NotSimple
        return sign

    def _class(self) -> str:
        if self._peek() == "^":
            raise _NotSimple
        letters = ""
        while (sign := self._next()) != "]":
            found = self._escape() if sign == "\\" else sign
            if (
                self._peek() == "-"
                and self._text[self._at + 1 : self._at + 2] not in ("]", "")
                and len(found) == 1
            ):
                self._next()
                found = "".join(map(chr, range(ord(found), ord(self._next()) + 1)))
            letters += found
        if not letters:
            raise _NotSimple
        return letters

    def _repeated(self, atom: Make) -> Make:
        low, high = self._times()
        return lambda rng: "".join(atom(rng) for _ in range(rng.randint(low, high)))

    def _times(self) -> tuple[int, int]:
        sign = self._peek()
        if sign not in ("?", "*", "+", "{"):
            return 1, 1
        self._next()
        low, high = {"?": (0, 1), "*": (0, _MORE), "+": (1, 1 + _MORE)}.get(sign) or self._braces()
        if self._peek() in ("?", "+"):
            raise _NotSimple
        return low, high

    def _braces(self) -> tuple[int, int]:
        end = self._text.index("}", self._at)
        first, comma, second = self._text[self._at : end].partition(",")
        self._at = end + 1
        low = int(first or 0)
        return low, int(second) if second else low + _MORE if comma else low
