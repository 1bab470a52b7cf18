"""How values are written in calls, as pieces of a grammar: JSON, Python literals, and objects with strings between marks.

A `Style` says what strings, constants and keys look like, what may stand between them, and whether a part of a schema may be handed
to the grammar library's own JSON Schema compiler (`embeds`). What is written in a style is read back by the reader of the same form
(`json_reading`, `literals`, `loose_object`): exponents have two digits, so that every number is finite, and strings hold no raw
line breaks. Schemas are turned into rules in `grammar_values`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from toolhone.dialects.lark import (
    GrammarRules,
    exactly,
    found_in,
    in_turn,
    loosely,
    plain,
    quoted,
    up_to,
)
from toolhone.dialects.syntax.literals import write_literal
from toolhone.schema import Json

INTEGER = "/-?(0|[1-9][0-9]{0,18})/"
NUMBER = r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?/"
SPACE = r"[ \t]{1,2}|\r?\n[ \t]{0,40}"
"""White space inside JSON: as templates and models indent it, but never without end."""
_IN_QUOTES = r'([^"\\\x00-\x1F\x7F]|\\["\\bfnrt])'
_IN_SINGLE_QUOTES = r"([^'\\\x00-\x1F\x7F]|\\['\\bfnrt])"


Size = tuple[int, int | None]
"""The least and the greatest number of characters."""
ANY_SIZE: Size = (0, None)
Words = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_JSON_WORDS: Words = (("true",), ("false",), ("null",))
_BOTH_WORDS: Words = (("True", "true"), ("False", "false"), ("None", "null"))


class Style(Protocol):
    """How one form writes values. All methods give terms of a rule."""

    @property
    def space(self) -> str:
        """The pattern of the white space that may stand between the parts of a value; empty when there is none."""
        ...

    @property
    def embeds(self) -> bool:
        """Whether any JSON text is a right value in this form."""
        ...

    @property
    def words(self) -> Words:
        """The words for true, for false and for null."""
        ...

    def string(self, rules: GrammarRules, size: Size = ANY_SIZE) -> str:
        """Any string of this size."""
        ...

    def key(self, name: str) -> str:
        """A declared key, with what stands between it and its value."""
        ...

    def other_key(self, rules: GrammarRules, declared: Sequence[str]) -> str:
        """Any key but the declared ones."""
        ...

    def literal(self, rules: GrammarRules, value: Json) -> list[str]:
        """The ways to write exactly this value, which is no list and no object."""
        ...


@dataclass(frozen=True)
class JsonStyle:
    """JSON. `avoid`: a pattern that no string may hold, where the form around it would end there."""

    avoid: str = ""
    space: str = SPACE
    words: Words = _JSON_WORDS

    @property
    def embeds(self) -> bool:
        return not self.avoid

    def string(self, rules: GrammarRules, size: Size = ANY_SIZE) -> str:
        limit = f" & ~/{found_in(self.avoid)}/" if self.avoid else ""
        return rules.terminal(f'/"{_IN_QUOTES}{_times(size)}"/{limit}')

    def key(self, name: str) -> str:
        return quoted(f"{json.dumps(name, ensure_ascii=False)}:")

    def other_key(self, rules: GrammarRules, declared: Sequence[str]) -> str:
        return in_turn(
            _other(
                rules,
                f'/"{_IN_QUOTES}*"/',
                [json.dumps(name, ensure_ascii=False) for name in declared],
            ),
            '":"',
        )

    def literal(self, rules: GrammarRules, value: Json) -> list[str]:  # noqa: ARG002
        return [quoted(json.dumps(value, ensure_ascii=False))]


@dataclass(frozen=True)
class PythonStyle:
    """Python literals in one line, with the words of Python or JSON."""

    space: str = " {1,2}"
    embeds: bool = True
    words: Words = _BOTH_WORDS

    def string(self, rules: GrammarRules, size: Size = ANY_SIZE) -> str:
        return rules.terminal(
            f"/\"{_IN_QUOTES}{_times(size)}\"|'{_IN_SINGLE_QUOTES}{_times(size)}'/"
        )

    def key(self, name: str) -> str:
        return "(" + " | ".join(quoted(f"{text}:") for text in _texts(name)) + ")"

    def other_key(self, rules: GrammarRules, declared: Sequence[str]) -> str:
        texts = [text for name in declared for text in _texts(name)]
        return in_turn(_other(rules, f"/\"{_IN_QUOTES}*\"|'{_IN_SINGLE_QUOTES}*'/", texts), '":"')

    def literal(self, rules: GrammarRules, value: Json) -> list[str]:  # noqa: ARG002
        return [quoted(text) for text in _texts(value)]


@dataclass(frozen=True)
class LooseStyle:
    """Bare keys, and strings as they are between two marks."""

    opening: str
    closing: str
    space: str = " {1,2}"
    embeds: bool = False
    words: Words = _BOTH_WORDS

    def string(self, rules: GrammarRules, size: Size = ANY_SIZE) -> str:
        return rules.rule(
            in_turn(*rules.terms(self.opening), text_until(rules, self.closing, size))
        )

    def key(self, name: str) -> str:
        return quoted(f"{name}:")

    def other_key(self, rules: GrammarRules, declared: Sequence[str]) -> str:
        return in_turn(_other(rules, "/[A-Za-z_][A-Za-z0-9_.-]{0,80}/", declared), '":"')

    def literal(self, rules: GrammarRules, value: Json) -> list[str]:
        text = (
            f"{self.opening}{value}{self.closing}" if isinstance(value, str) else json.dumps(value)
        )
        return [in_turn(*rules.terms(text))]


def text_until(rules: GrammarRules, mark: str, size: Size = ANY_SIZE) -> str:
    """Any text of this size that does not hold the mark, and the mark behind it."""
    sign = loosely(mark)
    first = rules.parts(mark)[0]
    low, high = size
    if rules.token(first) is not None:
        text = rules.terminal(plain([found_in(sign)], max(low, 1), high))
        return in_turn(f"{text}{'' if low else '?'}" if high != 0 else "", *rules.terms(mark))
    many, space = _times(size), len(first) - len(first.rstrip()) if first.strip() else 0
    if rules.parts(mark) == [mark]:
        return rules.terminal(up_to(exactly(mark), sign, size=many, behind=space))
    head = up_to(exactly(first), loosely(first), size=many, behind=space)
    return in_turn(rules.terminal(head), *rules.terms(mark[len(first) :]))


def _times(size: Size) -> str:
    """How often a character may stand in a text of this size."""
    return "*" if size == ANY_SIZE else f"{{{size[0]},{'' if size[1] is None else size[1]}}}"


def _texts(value: Json) -> list[str]:
    """A value as Python writes it; a string in both kinds of quotes."""
    written = write_literal(value)
    if not isinstance(value, str):
        return [written]
    inner = written[1:-1].replace('\\"', '"').replace("'", "\\'")
    return [written, f"'{inner}'"]


def _other(rules: GrammarRules, keys: str, declared: Sequence[str]) -> str:
    return rules.terminal(keys + (f" & ~/{'|'.join(map(exactly, declared))}/" if declared else ""))
