"""What the generated questions are made of: intents, phrasings and fillers, in disjoint sets.

    request = Wording("train", "held_out", random.Random(0)).request(intents()[0])
    request.question, request.calls        # "could you compute 38 + 150!", [calculator("38 + 150")]

A phrasing is an opening, a core and an ending (`presets/phrasings.json`: sets `train`, `held_out` and `rl`). Slots in it are filled
from `presets/fillers.json` (sets `train` and `held_out`), from random numbers and made-up words. Of these a number n is held out
when n % 7 == 3 and a made-up word when its CRC-32 is (counts below 10 are shared). Question and calls come from the same draw, so
a label is right by construction. What is asked in which conversation, and running the tools, is up to `templates.py`.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, cast

from toolhone.schema import Json, ToolCall

PHRASING_SETS = ("train", "held_out", "rl")
_GROUPS = {"next": "multi_turn", "chat": "no_tool"}
_WHOLE_NUMBERS = ("limit",)
"""Arguments that are integers; all others are text."""

_REAL = 0.5
"""Share of words that are taken from a pool; the others are made up."""
_NAMES = ("city", "first", "last")
"""Pools of words that begin with a capital."""
_MADE_UP = re.compile(
    r"(?=[a-z]{4,9}$)[^aeiou]{0,2}([aeiou]{1,2}[^aeiou]{1,2}){1,3}([aeiou]{1,2})?"
)
"""What a made-up word looks like: four to nine letters that can be spoken."""
Slots = dict[str, str]


@dataclass(frozen=True)
class Intent:
    """One thing a user may want.

    cores: (form, text with slots) by set of phrasings. calls: name and arguments with slots in them. slots: kind of filler by name.
    after: the intents that a follow-up can follow. answers: final answers; `{result}` is what the tool gave.
    """

    name: str
    category: str
    cores: Mapping[str, Sequence[tuple[str, str]]]
    calls: Sequence[Mapping[str, Any]] = ()
    slots: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    answers: Sequence[str] = ()

    def fill(self, slots: Slots) -> tuple[ToolCall, ...]:
        """The calls with values in their slots."""
        return tuple(
            ToolCall(
                call["name"],
                {
                    name: _value(name, text.format_map(slots))
                    for name, text in call["arguments"].items()
                },
            )
            for call in self.calls
        )


@dataclass(frozen=True)
class PhrasedRequest:
    """An intent put into words: the question, the calls that it asks for, and how an answer is worded."""

    intent: Intent
    form: str
    text: str
    slots: Slots
    calls: tuple[ToolCall, ...]
    wording: str

    def answer(self, values: Sequence[Json]) -> str:
        """The final answer, given what each call returned."""
        results = [value.strip() if isinstance(value, str) else value for value in values]
        named = {
            f"result{number}" if number > 1 else "result": value
            for number, value in enumerate(results, 1)
        }
        return self.wording.format_map({**self.slots, **named})


@cache
def phrasings() -> dict[str, Any]:
    """The shipped openings and endings (`frames`) and the entries of all intents (`intents`)."""
    return cast(dict[str, Any], _preset("phrasings.json"))


@cache
def fillers() -> dict[str, dict[str, list[str]]]:
    """The shipped cities, words, names and parts of queries: set -> pool -> values."""
    return cast(dict[str, dict[str, list[str]]], _preset("fillers.json"))


@cache
def intents() -> tuple[Intent, ...]:
    """All shipped intents."""
    return tuple(_intent(name, entry) for name, entry in phrasings()["intents"].items())


def _preset(name: str) -> Json:
    return json.loads(
        (resources.files("toolhone.config.presets") / name).read_text(encoding="utf-8")
    )


def _intent(name: str, entry: Mapping[str, Any]) -> Intent:
    group = name.partition(".")[0]
    cores = {
        s: tuple((form, text) for form, texts in entry.get(s, {}).items() for text in texts)
        for s in PHRASING_SETS
    }
    calls, slots, after = entry.get("calls", ()), entry.get("slots", {}), entry.get("after", ())
    return Intent(name, _GROUPS.get(group, group), cores, calls, slots, after, entry["answers"])


def _value(name: str, text: str) -> str | int:
    return int(text) if name in _WHOLE_NUMBERS else text


def skeletons(phrasing_set: str) -> Iterator[str]:
    """Every question of a set with its slots unfilled; questions joined of two requests are left out."""
    for intent in intents():
        for form, core in intent.cores[phrasing_set]:
            frame = phrasings()["frames"][phrasing_set][form]
            yield from (
                opening + core + ending
                for opening in frame["openings"]
                for ending in frame["endings"]
            )


class Fillers:
    """Draws values for slots from one set of fillers; `rng` decides everything."""

    def __init__(self, filler_set: str, rng: random.Random) -> None:
        self._held_out = filler_set == "held_out"
        self._pools = fillers()[filler_set]
        self._rng = rng

    def draw(self, slots: Mapping[str, str]) -> Slots:
        """A value for each slot, as text. Two slots never get the same city, word or query."""
        values: Slots = {}
        for name, kind in slots.items():
            value = self._one(kind, values)
            while kind in ("city", "word", "query") and value in values.values():
                value = self._one(kind, values)
            values[name] = value
        return values

    def _one(self, kind: str, values: Slots) -> str:
        if kind.startswith("letter of "):
            return self._rng.choice(values[kind.removeprefix("letter of ")])
        makers: dict[str, Callable[[], str]] = {
            "city": lambda: self._or_made_up("city"),
            "word": lambda: self._or_made_up("word"),
            "first": lambda: self._or_made_up("first"),
            "person": lambda: f"{self._from('first')} {self._or_made_up('last')}",
            "thing": lambda: f"{self._or_made_up('adjective')} {self._or_made_up('noun')}",
            "query": self._query,
            "number": lambda: self._number(2, 10 ** self._rng.choice((2, 2, 3, 3, 4)) - 1),
            "two_digits": lambda: self._number(10, 99),
            "numbers": lambda: ", ".join(
                self._number(2, 99) for _ in range(self._rng.choice((3, 3, 4)))
            ),
            "count": lambda: str(self._rng.randint(2, 9)),
            "few": lambda: str(self._rng.randint(2, 4)),
            "unit": lambda: self._rng.choice(("celsius", "fahrenheit")),
            "operator": lambda: self._rng.choice("+-*"),
        }
        return makers[kind]() if kind in makers else self._from(kind)

    def _from(self, pool: str) -> str:
        return self._rng.choice(self._pools[pool])

    def _number(self, low: int, high: int) -> str:
        number = self._rng.randint(low, high)
        while (number % 7 == 3) != self._held_out:
            number = self._rng.randint(low, high)
        return str(number)

    def _query(self) -> str:
        draw = self._rng.random()
        if draw < 0.6:
            start = self._or_made_up("adjective")
        else:
            start = self._from("topic") if draw < 0.8 else f"{self._or_made_up('word')} of"
        return f"{start} {self._or_made_up('noun')}"

    def _or_made_up(self, pool: str) -> str:
        if self._rng.random() < _REAL:
            return self._from(pool)
        return self._made_up().capitalize() if pool in _NAMES else self._made_up()

    def _made_up(self) -> str:
        """The beginning of one real word and the end of another, of any pool, as in `lan(tern)` + `(Ma)drid` = `landrid`."""
        words = _single_words(self._held_out)
        while True:
            first, second = self._rng.choice(words), self._rng.choice(words)
            word = (
                first[: self._rng.randint(2, len(first) - 2)]
                + second[self._rng.randint(2, len(second) - 2) :]
            )
            is_held_out = zlib.crc32(word.encode()) % 7 == 3
            if (
                is_held_out == self._held_out
                and _MADE_UP.fullmatch(word)
                and word not in _real_words()
            ):
                return word


@cache
def _single_words(held_out: bool) -> list[str]:
    """The words of all pools of a set, in small letters, that are long enough to be cut."""
    pools = fillers()["held_out" if held_out else "train"]
    return sorted(
        {
            word.lower()
            for pool in pools.values()
            for word in pool
            if len(word) >= 4 and word.isalpha()
        }
    )


@cache
def _real_words() -> frozenset[str]:
    cores = " ".join(
        text for intent in intents() for cores in intent.cores.values() for _, text in cores
    )
    pools = " ".join(
        word for pools in fillers().values() for pool in pools.values() for word in pool
    )
    return frozenset(f"{cores} {pools}".lower().split())


class Wording:
    """Puts intents into words, from one set of phrasings and one of fillers."""

    def __init__(self, phrasing_set: str, filler_set: str, rng: random.Random) -> None:
        self._set = phrasing_set
        self._frames = phrasings()["frames"][phrasing_set]
        self._fillers = Fillers(filler_set, rng)
        self._rng = rng

    def pick(self, choices: Sequence[Intent], form: str | None = None) -> Intent:
        """One of the intents that this set has a phrasing for (in the form, if one is asked for)."""
        return self._rng.choice([intent for intent in choices if self._cores(intent, form)])

    def request(
        self, intent: Intent, known: Slots | None = None, form: str | None = None
    ) -> PhrasedRequest:
        """An intent in words, not framed yet; `known` are values of the turn before, which a follow-up may use."""
        slots = {**(known or {}), **self._fillers.draw(intent.slots)}
        found, core = self._rng.choice(self._cores(intent, form))
        return PhrasedRequest(
            intent,
            found,
            core.format_map(slots),
            slots,
            intent.fill(slots),
            self._rng.choice(intent.answers),
        )

    def question(self, requests: Sequence[PhrasedRequest]) -> str:
        """One question for all the requests: joined, between an opening and an ending."""
        frame = self._frames[requests[0].form]
        text = requests[0].text
        for request in requests[1:]:
            text += self._rng.choice(self._frames["joins"]) + request.text
        return f"{self._around(frame['openings'])}{text}{self._around(frame['endings'])}"

    def _around(self, choices: Sequence[str]) -> str:
        """An opening or an ending; some address somebody by name."""
        return self._rng.choice(choices).format_map(self._fillers.draw({"name": "first"}))

    def _cores(self, intent: Intent, form: str | None) -> list[tuple[str, str]]:
        return [core for core in intent.cores[self._set] if form in (None, core[0])]
