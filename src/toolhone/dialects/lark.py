"""Pieces of a grammar in llguidance's Lark notation: texts, patterns, rules.

GrammarRules({"<tool_call>": 7}).mark('<tool_call>{"name"')     # <[7]> "{\\"name\\""

A control token in a mark becomes a reference to its id: no spelling of its text can replace it. A
terminal is one pattern, matched greedily: what may follow it must not be able to continue it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT

ANY = "(?s:.*)"
"""The pattern for any text."""
SOME = "(?s:.){1,}"
"""The pattern for any text but the empty one."""
_SLOTS = {ID_SLOT: "/[A-Za-z0-9_.:-]{1,40}/", NUMBER_SLOT: "/[0-9]{1,3}/"}
_SLOT_PATTERNS = {NAME_SLOT: "[^\\s<>|\"']+", ID_SLOT: "[^\\s<>|\"']*", NUMBER_SLOT: "[0-9]{1,6}"}
_SEAM = re.compile(r"\s+|(?<=[>\])}])(?=<)|(?<=>)(?=[\[({])")
Size = tuple[int, int | None]
"""The least and the greatest number of characters."""
ANY_SIZE: Size = (0, None)


class GrammarRules:
    """Named rules and terminals, each body once. `control`: ids by texts of control tokens."""

    def __init__(self, control: Mapping[str, int]) -> None:
        self.control = dict(control)
        self.bodies: dict[str, str] = {}
        texts = sorted(map(re.escape, control), key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join([*_SLOTS, *texts])})")
        self._names: dict[tuple[str, str], str] = {}

    def rule(self, body: str, kind: str = "r") -> str:
        """Add a rule with this body, and return its name."""
        if (kind, body) not in self._names:
            self._names[kind, body] = name = f"{kind}{len(self.bodies)}"
            self.bodies[name] = body
        return self._names[kind, body]

    def terminal(self, body: str) -> str:
        """Add a terminal of patterns and quoted texts with `|`, `&`, `~`, and return its name."""
        return self.rule(body, "T")

    def reserve(self) -> str:
        """Return a name whose body, which may refer to it, is set in `bodies` later."""
        name = f"r{len(self.bodies)}"
        self.bodies[name] = ""
        return name

    def parts(self, mark: str) -> list[str]:
        """The mark cut into control tokens, slots for an id or a number, and the texts between."""
        return [part for part in self._cut.split(mark) if part]

    def mark(self, mark: str) -> str:
        """The mark as terms of a rule."""
        return " ".join(
            f"<[{self.control[part]}]>"
            if part in self.control
            else _SLOTS.get(part) or quoted(part)
            for part in self.parts(mark)
        )

    def grammar(self, start: str) -> str:
        """The whole grammar; `start` is the body of its first rule."""
        lines = (f"{name}: {body}" for name, body in self.bodies.items())
        return "\n".join(['%llguidance {"no_forcing": true}', f"start: {start}", *lines, ""])


def quoted(text: str) -> str:
    """Write a text as a term."""
    return json.dumps(text, ensure_ascii=False)


def exactly(text: str) -> str:
    """The pattern of this text; a slot matches what readers accept in its place."""
    return "".join(
        _SLOT_PATTERNS.get(c) or (c if c.isalnum() or ord(c) > 127 else f"\\x{ord(c):02X}")
        for c in text
    )


def loosely(text: str) -> str:
    """The pattern of this mark, as loose as `delimited.loose`; white space alone is exact."""
    return r"\s*".join(map(exactly, _SEAM.split(text.strip()))) or exactly(text)


def found_in(sign: str, at_line: bool = False) -> str:
    """The pattern of texts that hold this sign; with `at_line`, of texts where it begins a line."""
    return rf"({ANY}\n)?[ \t]*({sign}){ANY}" if at_line else f"{ANY}({sign}){ANY}"


def without(pattern: str, forbidden: Iterable[str]) -> str:
    """The body of a terminal: texts that match the pattern and none of the forbidden ones."""
    return " & ".join([f"/{pattern}/", *(f"~/{other}/" for other in forbidden)])


def up_to(
    mark: str, sign: str, forbidden: Sequence[str] = (), size: str = "*", behind: int = 0
) -> str:
    """The body of a terminal: any text (of this size) through the first `mark`.

    mark: a pattern that holds `sign` with `behind` characters behind it. The text holds the sign
    nowhere else.
    """
    earlier = f"{ANY}({sign})(?s:.){{{behind + 1},}}"
    return without(f"(?s:.){size}{mark}", (earlier, *forbidden))


def times(size: Size) -> str:
    """The repetition of a pattern of one character."""
    return "*" if size == ANY_SIZE else f"{{{size[0]},{'' if size[1] is None else size[1]}}}"


def text_until(rules: GrammarRules, mark: str, size: Size = ANY_SIZE) -> str:
    """The term for any text of this size without the mark, and the mark behind it."""
    sign, first, (low, high) = loosely(mark), rules.parts(mark)[0], size
    if first in rules.control:
        text = rules.terminal(without(f"(?s:.){times((max(low, 1), high))}", [found_in(sign)]))
        return in_turn(f"{text}{'' if low else '?'}" if high != 0 else "", rules.mark(mark))
    space = len(first) - len(first.rstrip()) if first.strip() else 0
    if first == mark:
        return rules.terminal(up_to(exactly(mark), sign, size=times(size), behind=space))
    head = up_to(exactly(first), loosely(first), size=times(size), behind=space)
    return in_turn(rules.terminal(head), rules.mark(mark[len(first) :]))


def one_of(terms: Iterable[str]) -> str:
    """Alternatives, each once."""
    return " | ".join(dict.fromkeys(terms))


def in_turn(*terms: str) -> str:
    """A sequence; empty terms are left out."""
    return " ".join(term for term in terms if term) or '""'
