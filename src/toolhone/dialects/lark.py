"""Pieces of a grammar in llguidance's Lark notation: texts, patterns, rules, styles of values.

    rules = GrammarRules({"<tool_call>": 151657})
    rules.terms('<tool_call>\\n{"name": ')      ['<[151657]>', '"\\n{\\"name\\": "']
    name = rules.rule('"a" | "b"')              the name of a rule with this body

A control token in a mark becomes a reference to its id, so that no spelling of its text can replace
it. A terminal is one pattern that
is matched greedily: what may follow it must not be able to continue it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT
from toolhone.dialects.syntax.literals import write_literal
from toolhone.schema import Json

ANY = "(?s:.*)"
"""The pattern for any text."""
_SLOTS = {ID_SLOT: "/[A-Za-z0-9_.:-]{1,40}/", NUMBER_SLOT: "/[0-9]{1,3}/"}
_SLOT_PATTERNS = {NAME_SLOT: "[^\\s<>|\"']+", ID_SLOT: "[^\\s<>|\"']*", NUMBER_SLOT: "[0-9]{1,6}"}
_SEAM = re.compile(r"\s+|(?<=[>\])}])(?=<)|(?<=>)(?=[\[({])")


class GrammarRules:
    """Named rules and terminals, each body once. `control`: ids by texts of control tokens."""

    def __init__(self, control: Mapping[str, int]) -> None:
        self._control = dict(control)
        texts = sorted(map(re.escape, control), key=len, reverse=True)
        self._cut = re.compile("|".join([f"[{''.join(_SLOTS)}]", *texts]))
        self._names: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []

    def rule(self, body: str, kind: str = "r") -> str:
        """Add a rule with this body, and return its name."""
        if (kind, body) not in self._names:
            self._names[kind, body] = f"{kind}{len(self._lines)}"
            self._lines.append(f"{self._names[kind, body]}: {body}")
        return self._names[kind, body]

    def terminal(self, body: str) -> str:
        """Add a terminal of patterns and quoted texts with `|`, `&`, `~`, and return its name."""
        return self.rule(body, "T")

    def reserve(self) -> str:
        """Return a name for a rule that `define` writes later; its body may refer to it."""
        name = f"r{len(self._lines)}"
        self._lines.append(name)
        return name

    def define(self, name: str, body: str) -> None:
        """Write the rule with a reserved name."""
        self._lines[int(name[1:])] = f"{name}: {body}"

    def token(self, text: str) -> int | None:
        """The id of the control token with this text."""
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
        terms = []
        for part in self.parts(mark):
            index = self.token(part)
            terms.append(_SLOTS.get(part) or (quoted(part) if index is None else f"<[{index}]>"))
        return terms

    def grammar(self, start: str) -> str:
        """The whole grammar; `start` is the body of its first rule."""
        return "\n".join(['%llguidance {"no_forcing": true}', f"start: {start}", *self._lines, ""])


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


def without(pattern: str, forbidden: Sequence[str]) -> str:
    """The body of a terminal: texts that match the pattern and none of the forbidden ones."""
    return " & ".join([f"/{pattern}/", *(f"~/{other}/" for other in forbidden)])


def plain(forbidden: Sequence[str], least: int = 1, most: int | None = None) -> str:
    """The body of a terminal: any text of this length that matches no forbidden pattern."""
    return without(f"(?s:.){{{least},{'' if most is None else most}}}", forbidden)


def up_to(
    mark: str, sign: str, forbidden: Sequence[str] = (), size: str = "*", behind: int = 0
) -> str:
    """The body of a terminal: any text (of this size) through the first `mark`.

    mark: a pattern that holds `sign` with `behind` characters behind it. The text holds the sign
    nowhere else.
    """
    earlier = f"{ANY}({sign})(?s:.){{{behind + 1},}}"
    return without(f"(?s:.){size}{mark}", (earlier, *forbidden))


def one_of(terms: Iterable[str]) -> str:
    """Alternatives, each once."""
    return " | ".join(dict.fromkeys(terms))


def in_turn(*terms: str) -> str:
    """A sequence; empty terms are left out."""
    return " ".join(term for term in terms if term) or '""'


_CHARACTER = {mark: rf"([^{mark}\\\x00-\x1F\x7F]|\\[{mark}\\bfnrt])" for mark in "\"'"}
Size = tuple[int, int | None]
"""The least and the greatest number of characters."""
ANY_SIZE: Size = (0, None)


@dataclass(frozen=True)
class Style:
    """How a form writes values.

    space: the pattern of white space between the parts of a value. marks: what stands around
    strings of a form with bare keys.
    avoid: a pattern that no string may hold, because the form around it would end there.
    """

    space: str = " {1,2}"
    python: bool = False
    marks: tuple[str, str] | None = None
    avoid: str = ""

    @property
    def embeds(self) -> bool:
        """Whether any JSON text is a correct value in this form."""
        return self.marks is None and not self.avoid

    def words(self, kind: str) -> list[str]:
        """The words for all booleans, or for null."""
        words = ["true", "false"] if kind == "boolean" else ["null"]
        python = ["True", "False"] if kind == "boolean" else ["None"]
        return [*(python if self.python or self.marks else []), *words]

    def string(self, rules: GrammarRules, size: Size = ANY_SIZE) -> str:
        """The term for any string of this size."""
        if self.marks is not None:
            text = text_until(rules, self.marks[1], size)
            return rules.rule(in_turn(*rules.terms(self.marks[0]), text))
        limit = f" & ~/{found_in(self.avoid)}/" if self.avoid else ""
        return rules.terminal(f"/{self._any_quoted(_times(size))}/{limit}")

    def _any_quoted(self, times: str) -> str:
        marks = "\"'" if self.python else '"'
        return "|".join(f"{mark}{_CHARACTER[mark]}{times}{mark}" for mark in marks)

    def key(self, name: str) -> str:
        """The term for a declared key and its colon."""
        return f"({one_of(quoted(f'{text}:') for text in self._key_texts(name))})"

    def other_key(self, rules: GrammarRules, declared: Sequence[str]) -> str:
        """The term for any key but the declared ones, and its colon."""
        keys = self._any_quoted("*") if self.marks is None else "[A-Za-z_][A-Za-z0-9_.-]{0,80}"
        texts = [exactly(text) for name in declared for text in self._key_texts(name)]
        return in_turn(
            rules.terminal(f"/{keys}/" + (f" & ~/{'|'.join(texts)}/" if texts else "")), '":"'
        )

    def _key_texts(self, name: str) -> list[str]:
        return [name] if self.marks is not None else self._texts(name)

    def literal(self, rules: GrammarRules, value: Json) -> str:
        """The term for exactly this value, which is no list and no object."""
        return one_of(
            in_turn(*rules.terms(text)) if self.marks else quoted(text)
            for text in self._texts(value)
        )

    def _texts(self, value: Json) -> list[str]:
        if self.marks is not None and isinstance(value, str):
            return [f"{self.marks[0]}{value}{self.marks[1]}"]
        if not self.python:
            return [json.dumps(value, ensure_ascii=False)]
        written = write_literal(value)
        if not isinstance(value, str):
            return [written]
        inner = written[1:-1].replace('\\"', '"').replace("'", "\\'")
        return [written, f"'{inner}'"]


JSON_STYLE = Style(r"[ \t]{1,2}|\r?\n[ \t]{0,40}")
"""White space as templates and models indent JSON, but never without end."""
PYTHON_STYLE = Style(python=True)


def text_until(rules: GrammarRules, mark: str, size: Size = ANY_SIZE) -> str:
    """The term for any text of this size without the mark, and the mark behind it."""
    sign = loosely(mark)
    first = rules.parts(mark)[0]
    low, high = size
    if rules.token(first) is not None:
        text = rules.terminal(plain([found_in(sign)], max(low, 1), high))
        return in_turn(f"{text}{'' if low else '?'}" if high != 0 else "", *rules.terms(mark))
    many, space = _times(size), len(first) - len(first.rstrip()) if first.strip() else 0
    if first == mark:
        return rules.terminal(up_to(exactly(mark), sign, size=many, behind=space))
    head = up_to(exactly(first), loosely(first), size=many, behind=space)
    return in_turn(rules.terminal(head), *rules.terms(mark[len(first) :]))


def _times(size: Size) -> str:
    return "*" if size == ANY_SIZE else f"{{{size[0]},{'' if size[1] is None else size[1]}}}"
