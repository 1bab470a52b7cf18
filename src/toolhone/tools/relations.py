"""Relations between the parameters of one object: a start before its end, two different currencies.

    relations = relations_of(["start_date", "end_date", "limit"], [])   # start_date < end_date
    relations += [read_relation("filters.min <= filters.max")]          # declared
    relate(values, relations, draw, rng, held)                          # changes the values

What is inferred follows from names (`relations` in config/presets/manual.json).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable, MutableMapping
from datetime import date, timedelta
from typing import NamedTuple

from toolhone.config.phrasings import word_lists
from toolhone.errors import ConfigError
from toolhone.schema import Json
from toolhone.tools.text_kinds import clock_kind, is_held_out, words_of

_DECLARED = re.compile(r"\s*([\w.-]+)\s*(<=|<|!=)\s*([\w.-]+)\s*")
_TRIES = 40
_LONGEST_SPAN = 45
"""Days between two dates of a span, at most."""


class Relation(NamedTuple):
    """Two properties of the object at `path`; sign: "<", "<=" or "!=", or "" by their values.

    Without a sign, dates, times and numbers are in order, and anything else differs.
    """

    first: str
    second: str
    sign: str = ""
    path: tuple[str, ...] = ()

    def holds(self, first: Json, second: Json) -> bool:
        """Return whether two values obey the relation; values of different kinds do."""
        if not self.orders(first, second):
            return bool(first != second)
        return bool(first <= second if self.sign == "<=" else first < second)

    def orders(self, first: Json, second: Json) -> bool:
        """Return whether the relation puts these two values in order."""
        if self.sign == "!=":
            return False
        kind = clock_kind(first)
        numbers = all(isinstance(one, int | float) for one in (first, second))
        return numbers or bool(kind and kind == clock_kind(second))


def read_relation(text: str) -> Relation:
    """Read `start < end`, `price.min <= price.max` or `from != to`; refuse anything else."""
    match = _DECLARED.fullmatch(text)
    right = "write 'start < end', 'price.min <= price.max' or 'from != to'"
    if match is None:
        raise ConfigError(f"data.made.relations has {text!r}; {right}")
    *path, first = match[1].split(".")
    *other, second = match[3].split(".")
    if path != other or first == second:
        raise ConfigError(f"data.made.relations has {text!r}; name two of one object: {right}")
    return Relation(first, second, match[2], tuple(path))


def relations_of(names: Collection[str], declared: Iterable[Relation]) -> list[Relation]:
    """Return the relations between these properties of an object; a declared one counts first."""
    result = [one for one in declared if {one.first, one.second} <= {*names}]
    taken = {frozenset((one.first, one.second)) for one in result}
    by_words = {tuple(words_of(name)): name for name in names}
    for words, name in by_words.items():
        for one, other in word_lists("manual")["relations"]:
            for index, word in enumerate(words):
                partner = by_words.get((*words[:index], other, *words[index + 1 :]))
                if word == one and partner and frozenset((name, partner)) not in taken:
                    taken.add(frozenset((name, partner)))
                    result.append(Relation(name, partner))
    return result


def relate(
    values: MutableMapping[str, Json],
    relations: Iterable[Relation],
    draw: Callable[[str], Json],
    rng: random.Random,
    held: bool,
) -> None:
    """Change values until they obey the relations, or after some tries leave them.

    Dates of a span are at most some weeks apart. draw: another value of a property.
    """
    for one in relations:
        if one.first not in values or one.second not in values:
            continue
        for _ in range(_TRIES):
            if one.holds(values[one.first], values[one.second]):
                break
            values[one.second] = draw(one.second)
            if one.orders(values[one.first], values[one.second]):
                pair = sorted((values[one.first], values[one.second]))
                values[one.first], values[one.second] = pair
        if clock_kind(values[one.first]) == clock_kind(values[one.second]) == "date":
            start, end = (date.fromisoformat(values[name]) for name in (one.first, one.second))
            if (end - start).days > _LONGEST_SPAN:
                days = rng.sample(range(1, _LONGEST_SPAN), _LONGEST_SPAN - 1)
                soon = [(start + timedelta(days=number)).isoformat() for number in days]
                fitting = (text for text in soon if is_held_out(text) == held)
                values[one.second] = next(fitting, soon[0])
