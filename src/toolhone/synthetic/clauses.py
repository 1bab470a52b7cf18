"""Arguments in words: each in a clause that fits its name and value.

    clauses_of(leaves, relations, "train", rng)       # "since May 3, 2026", "with status shipped"
    join_clauses(clauses, rng)                        # " since May 3, 2026 with status shipped"

The wordings are in clauses.json; a rule fits by the words of the name (`any`, `last`, `all`) and by
the kind of the value (`of`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, cast

from toolhone.config.phrasings import word_lists
from toolhone.schema import Json
from toolhone.synthetic.slots import EXACT, SlotPiece, spellings
from toolhone.tools.relations import Relation
from toolhone.tools.schema_sampler import Leaf, Steps
from toolhone.tools.text_kinds import clock_kind, words_of

Pieces = list[SlotPiece]
_IN_WORDS = 0.5
_CLOCKS = ("date", "day", "time")
_END_WORDS = {"from": ("source", "start"), "to": ("target", "end")}
"""Words in place of prepositions in names: of a thing, of a date or time."""
_NAMED_NUMBERS = ("amount", "price", "total", "sum", "fee", "budget", "cost", "value")


@cache
def wordings() -> dict[str, Any]:
    """Return the table of clauses.json."""
    file = resources.files("toolhone.synthetic") / "clauses.json"
    return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))


class Clause(NamedTuple):
    """Some words of a question; place: 0 before the clauses with "with", 1 one of them, 2 last."""

    pieces: Pieces
    place: int


def spoken_name(path: Steps) -> str:
    """`("guests", 1, "first_name")` -> "second guest first name"."""
    words: list[str] = []
    for step, following in zip(path, (*path[1:], ""), strict=True):
        if isinstance(step, int):
            continue
        own = words_of(step) or [step]
        if isinstance(following, int):
            nth = (word_lists("manual")["ordinals"][following : following + 1] or ["next"])[0]
            plural = own[-1].endswith("s") and len(own[-1]) > 3
            own = [nth, *own[:-1], own[-1][:-1] if plural else own[-1]]
        words += own
    return " ".join(words)


def short_name(path: Steps) -> str:
    """Return the spoken name without words such as `filters` in front of another."""
    containers = wordings()["containers"]
    last = max((index for index, step in enumerate(path) if isinstance(step, str)), default=0)
    kept = tuple(
        step
        for index, step in enumerate(path)
        if index >= last or isinstance(path[index + 1], int) or step not in containers
    )
    first, _, rest = spoken_name(kept).partition(" ")
    return (
        f"{_END_WORDS[first][rest in _CLOCKS]} {rest}"
        if rest and first in _END_WORDS
        else (f"{first} {rest}".strip())
    )


def speak(value: Json, choice: bool, rng: random.Random) -> Pieces:
    """Write a value, half of the time dates, times and choices in words; long texts are quoted.

    choice: whether the schema lists the values. Items of a list are joined.
    """
    if isinstance(value, list):
        pieces: Pieces = []
        for index, item in enumerate(value):
            if index:
                pieces.append(SlotPiece(" and " if index == len(value) - 1 else ", "))
            pieces += speak(item, choice, rng)
        return pieces
    known = spellings(value)
    text = known[EXACT]
    in_words = clock_kind(value) in ("date", "time") or (choice and "spaced" in known)
    if in_words and rng.random() < _IN_WORDS:
        text = rng.choice(list(known.values()))
    if isinstance(value, str) and len(value.split()) > 2 and '"' not in value:
        text = f'"{value}"'
    return [SlotPiece(text, True, value)]


def clauses_of(
    leaves: Sequence[Leaf],
    related: Mapping[Steps, Relation],
    split: str,
    rng: random.Random,
    bounded: Collection[Steps] = (),
) -> list[Clause]:
    """Return a clause for each value, for two that belong together, or for an object of a list.

    related: path of a property -> the relation in which it comes first. bounded: paths of
    properties that could have a partner in such a relation.
    """
    items = {
        prefix: [one for one in leaves if _item(one) == prefix]
        for prefix in dict.fromkeys(filter(None, map(_item, leaves)))
    }
    leaves = [leaf for leaf in leaves if not _item(leaf)]
    by_path = {leaf.path: leaf for leaf in leaves}
    result: list[Clause] = []
    said = set[Steps]()
    for leaf in leaves:
        if leaf.path in said:
            continue
        relation = related.get(leaf.path)
        other = None if relation is None else by_path.get((*leaf.path[:-1], relation.second))
        currency = by_path.get((*leaf.path[:-1], "currency"))
        is_amount = (words_of(str(leaf.path[-1])) or [""])[-1] in _NAMED_NUMBERS
        if other is not None:
            said.add(other.path)
            result.append(_pair(leaf, other, split, rng))
        elif currency and is_amount and currency.path not in said:
            said.add(currency.path)
            parts = {"value": _value(leaf, rng), "currency": _value(currency, rng)}
            name, template = short_name(leaf.path), rng.choice(wordings()["money"][split])
            an = "an" if name[0] in "aeiou" else "a"
            result.append(_clause(template, {**parts, "name": name, "an": an}))
        else:
            result.append(_single(leaf, split, rng, leaf.path in bounded))
    for prefix, own in items.items():  # "first line (product tent, quantity 2)"
        pieces = [SlotPiece(f"{spoken_name(prefix)} (")]
        for index, leaf in enumerate(own):
            comma = ", " if index else ""
            pieces.append(SlotPiece(f"{comma}{spoken_name(leaf.path[len(prefix) :])} "))
            pieces += _value(leaf, rng)
        result.append(Clause([*pieces, SlotPiece(")")], 1))
    return result


def _item(leaf: Leaf) -> Steps:
    """Return the path of the object of a list that holds the leaf, or ()."""
    last = max((n for n, step in enumerate(leaf.path[:-1]) if isinstance(step, int)), default=-1)
    return leaf.path[: last + 1]


def join_clauses(clauses: Iterable[Clause], rng: random.Random) -> Pieces:
    """Return the clauses as one text that follows a command; those with "with" share the word."""
    clauses = list(clauses)
    before, shared, after = (
        [one.pieces for one in clauses if one.place == place] for place in range(3)
    )
    listed: Pieces = []
    for index, pieces in enumerate(shared):
        if index:
            listed.append(SlotPiece(" and " if index == len(shared) - 1 else ", "))
        listed += pieces
    listed = [SlotPiece(" with "), *listed] if listed else []
    first = [piece for pieces in before for piece in (SlotPiece(" "), *pieces)]
    if rng.random() < 0.5 and first:
        first = [SlotPiece("," if listed else ""), *first]
        first, listed = listed, first
    last = [piece for pieces in after for piece in (SlotPiece(" "), *pieces)]
    return [*first, *listed, *last]


def fill(template: str, parts: Mapping[str, str | Pieces]) -> Pieces:
    """Return the pieces of a template; a part is text, or the pieces of a value."""
    pieces: Pieces = []
    for index, text in enumerate(re.split(r"{(\w+)}", template)):
        part = parts[text] if index % 2 else text
        pieces += ([SlotPiece(part)] if part else []) if isinstance(part, str) else part
    return pieces


def _clause(template: str, parts: Mapping[str, str | Pieces]) -> Clause:
    body = template.removeprefix("with ")
    place = 1 if body != template else 2 if re.match(r"(and|but)\b", template) else 0
    return Clause(fill(body, parts), place)


def _value(leaf: Leaf, rng: random.Random) -> Pieces:
    items = leaf.schema.get("items")
    is_choice = "enum" in (items if isinstance(items, Mapping) else leaf.schema)
    return speak(leaf.value, is_choice, rng)


def _noun(words: Iterable[str], without: Iterable[str]) -> str:
    left = [word for word in words if word not in without and word not in wordings()["empty"]]
    return "".join(f"{word} " for word in left)


def _pair(one: Leaf, other: Leaf, split: str, rng: random.Random) -> Clause:
    """Return the clause of two values in order, or of two that differ."""
    names = [short_name(leaf.path) for leaf in (one, other)]
    words, others = names[0].split(), names[1].split()
    if isinstance(one.value, int | float):
        kind = "order_numbers"
    elif clock_kind(one.value):
        kind = "trip" if "return" in others else "order"
    else:
        kind = "differ"
    noun = _noun((word for word in words if word in others), ())
    parts: dict[str, str | Pieces] = {"a": _value(one, rng), "b": _value(other, rng), "noun": noun}
    parts |= {"first": names[0], "second": names[1]}
    return _clause(rng.choice(wordings()["pairs"][kind][split]), parts)


def _single(leaf: Leaf, split: str, rng: random.Random, bounded: bool) -> Clause:
    name = short_name(leaf.path)
    words = name.split()
    if isinstance(leaf.value, bool):
        return _flag(leaf.value, words, split, rng)
    fitting = (rule for rule in wordings()["rules"] if _fits(rule, words, leaf.value))
    rule = next((one for one in fitting if one.get("bounded", bounded) == bounded), None)
    templates = wordings()["noun"] if rule is None else rule
    template: str = rng.choice(templates[split])
    if rule is None:
        template = f"with {template}"
    noun = _noun(words, (rule or {}).get("any", ()) or words[-1:])
    value = _value(leaf, rng)
    return _clause(template, {"value": value, "name": name, "noun": noun, "last": words[-1]})


def is_bound(leaf: Leaf) -> bool:
    """Return whether a value is a least or a most, a start or an end."""
    words = short_name(leaf.path).split()
    return any("any" in rule and _fits(rule, words, leaf.value) for rule in wordings()["rules"])


def _fits(rule: Mapping[str, Any], words: Sequence[str], value: Json) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    texts = value if isinstance(value, list) else [value]
    match rule["of"]:
        case "number":
            fits = number
        case "plural":
            fits = number and value > 1
        case "clock":
            fits = bool(clock_kind(value))
        case _:
            fits = all(isinstance(one, str) and not clock_kind(one) for one in texts)
    if not fits:
        return False
    if "with" in rule and not {*rule["with"]} & {*words}:
        return False
    if {*rule.get("all_but", ())} & {*words}:
        return False
    named = {*rule.get("any", ())} & {*words} or words[-1] in rule.get("last", ())
    return bool(named) or " ".join(words) in rule.get("all", ())


def _flag(value: bool, words: Sequence[str], split: str, rng: random.Random) -> Clause:
    """Return a clause such as "including drafts", "but do not notify the customer"."""
    flags = wordings()["flags"]
    kind = "other"
    if len(words) > 1:
        kind = "part" if words[0] in flags["parts"] else kind
        kind = "verb" if words[0] in flags["verbs"] else kind
    yes, no = rng.choice(flags[kind][split])
    said = SlotPiece(yes if value else no, True, value)
    if kind == "part":
        return Clause([said, SlotPiece(" " + " ".join(words[1:]))], 2)
    if kind == "verb":
        the = "the " if len(words) == 2 and not words[1].endswith("s") else ""
        return Clause([said, SlotPiece(f" {words[0]} {the}{' '.join(words[1:])}")], 2)
    return Clause([SlotPiece(f"{' '.join(words)}: "), said], 1)
