"""Pieces of a grammar in the Lark notation that the library `llguidance` reads: quoted texts, patterns, and named rules.

    rules = Rules({"<tool_call>": 151657})
    rules.terms('<tool_call>\\n{"name": ')      ['<[151657]>', '"\\n{\\"name\\": "']
    name = rules.rule('"a" | "b"')              the name of a rule with this body

A control token in a mark is written as a reference to its id; no text, spelt in any way, can stand for it. A *terminal* is one
pattern, read greedily: what may follow it must not be a continuation of it. Knows nothing of calls (see `grammar`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT

ANY = "(?s:.*)"
"""The pattern for any text."""
_SLOTS = {ID_SLOT: "/[A-Za-z0-9_.:-]{1,40}/", NUMBER_SLOT: "/[0-9]{1,3}/"}
_SLOT_PATTERNS = {NAME_SLOT: "[^\\s<>|\"']+", ID_SLOT: "[^\\s<>|\"']*", NUMBER_SLOT: "[0-9]{1,6}"}
_SEAM = re.compile(r"\s+|(?<=[>\])}])(?=<)|(?<=>)(?=[\[({])")


class GrammarRules:
    """Named rules and terminals, each body once. `control`: the control tokens' texts and ids."""

    def __init__(self, control: Mapping[str, int]) -> None:
        self._control = dict(control)
        texts = sorted(map(re.escape, control), key=len, reverse=True)
        self._cut = re.compile("|".join([f"[{''.join(_SLOTS)}]", *texts]))
        self._names: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []

    def rule(self, body: str) -> str:
        """The name of the rule with this body."""
        return self._name("r", body)

    def terminal(self, body: str) -> str:
        """The name of the terminal with this body: patterns and quoted texts with `|`, `&`, `~`."""
        return self._name("T", body)

    def reserve(self) -> str:
        """A name for a rule that is still to be written (see `define`); it may refer to itself."""
        name = f"r{len(self._lines)}"
        self._lines.append(name)
        return name

    def define(self, name: str, body: str) -> None:
        """Write the rule of a name that was reserved."""
        self._lines[int(name[1:])] = f"{name}: {body}"

    def token(self, text: str) -> int | None:
        """The id of a control token's text."""
        return self._control.get(text)

    def parts(self, mark: str) -> list[str]:
        """The mark cut into control tokens, slots for an id or a number, and the texts between."""
        parts: list[str] = []
        position = 0
        for found in self._cut.finditer(mark):
            parts += [mark[position : found.start()], found[0]]
            position = found.end()
        return [part for part in [*parts, mark[position:]] if part]

    def terms(self, mark: str) -> list[str]:
        """The mark as terms of a rule."""
        return [self._term(part) for part in self.parts(mark)]

    def grammar(self, start: str) -> str:
        """The whole grammar; `start` is the body of its first rule. Any way to cut a text into tokens is allowed."""
        return "\n".join(['%llguidance {"no_forcing": true}', f"start: {start}", *self._lines, ""])

    def _term(self, part: str) -> str:
        index = self._control.get(part)
        return _SLOTS.get(part) or (quoted(part) if index is None else f"<[{index}]>")

    def _name(self, kind: str, body: str) -> str:
        name = self._names.get((kind, body))
        if name is None:
            name = self._names[kind, body] = f"{kind}{len(self._lines)}"
            self._lines.append(f"{name}: {body}")
        return name


def quoted(text: str) -> str:
    """A text as a term."""
    return json.dumps(text, ensure_ascii=False)


def exactly(text: str) -> str:
    """A pattern for this text; slots in it stand for what readers take in their place."""
    return "".join(
        _SLOT_PATTERNS.get(c) or (c if c.isalnum() or ord(c) > 127 else f"\\x{ord(c):02X}")
        for c in text
    )


def loosely(text: str) -> str:
    """A pattern for this mark without the white space around it, read as loosely as `framed.loose` reads it inside.

    White space alone is exact.
    """
    return r"\s*".join(map(exactly, _SEAM.split(text.strip()))) or exactly(text)


def found_in(sign: str, at_line: bool = False) -> str:
    """The pattern of the texts in which this sign is found; `at_line`: only where a line begins with it."""
    return rf"({ANY}\n)?[ \t]*({sign}){ANY}" if at_line else f"{ANY}({sign}){ANY}"


def plain(forbidden: Sequence[str], least: int = 1, most: int | None = None) -> str:
    """The body of a terminal: any text of at least one character (or of so many) that is of none of these patterns."""
    size = f"{{{least},{'' if most is None else most}}}"
    return " & ".join([f"/(?s:.){size}/", *(f"~/{pattern}/" for pattern in forbidden)])


def up_to(
    mark: str, sign: str, forbidden: Sequence[str] = (), size: str = "*", behind: int = 0
) -> str:
    """The body of a terminal: any text (of this size) up to and including the first `mark`, of none of the patterns.

    mark: a pattern with `sign` in it, and `behind` characters behind the sign; the sign is found nowhere before.
    """
    earlier = f"{ANY}({sign})(?s:.){{{behind + 1},}}"
    return " & ".join(
        [f"/(?s:.){size}{mark}/", *(f"~/{pattern}/" for pattern in (earlier, *forbidden))]
    )


def up_to_line(mark: str, forbidden: Sequence[str] = ()) -> str:
    """The same for a mark with which a line begins, and no line before."""
    twice = rf"({ANY}\n)?[ \t]*({mark}){ANY}\n[ \t]*({mark}){ANY}"
    return " & ".join(
        [rf"/({ANY}\n)?[ \t]*{mark}/", *(f"~/{pattern}/" for pattern in (twice, *forbidden))]
    )


def one_of(terms: Sequence[str]) -> str:
    """Alternatives."""
    return " | ".join(dict.fromkeys(terms))


def in_turn(*terms: str) -> str:
    """A sequence of terms; empty ones are left out."""
    return " ".join(term for term in terms if term) or '""'
