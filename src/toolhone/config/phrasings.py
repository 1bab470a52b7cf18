"""What the generated questions are made of: intents, phrasings and fillers, in disjoint sets.

    request = Wording("train", "held_out", random.Random(0)).request(intents()[0])
    request.text, request.calls        # "compute 38 + 150", [calculator("38 + 150")]

Question and calls come from the same draw, so that a label is right by construction. A number n is
held out when n % 7 == 3, a made-up word when its CRC-32 is; counts below 10 are in both sets.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any, cast

from toolhone.schema import Json, ToolCall
from toolhone.schema.json_input import packaged_json

PHRASING_SETS = ("train", "held_out", "rl")
_GROUPS = {"next": "multi_turn", "chat": "no_tool"}
_INTEGERS = ("limit",)
"""Arguments that are integers; all others are text."""
_REAL = 0.5
"""Share of words that are taken from a pool, if not told otherwise; the others are made up."""
_CAPITALIZED = ("city", "first", "last")
"""Pools of words that begin with a capital."""
_MADE_UP = re.compile(
    r"(?=[a-z]{4,9}$)[^aeiou]{0,2}([aeiou]{1,2}[^aeiou]{1,2}){1,3}([aeiou]{1,2})?"
)
"""What a made-up word looks like: four to nine letters that can be spoken."""
Slots = dict[str, str]


@dataclass(frozen=True)
class Intent:
    """One thing a user may want.

    cores: (form, text with slots) by set of phrasings. calls: name and arguments with slots.
    slots: kind of filler by name. after: the intents that a follow-up can follow. answers: final
    answers; `{result}` is what the tool gave.
    """

    name: str
    category: str
    cores: Mapping[str, Sequence[tuple[str, str]]]
    calls: Sequence[Mapping[str, Any]] = ()
    slots: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    answers: Sequence[str] = ()


@dataclass(frozen=True)
class PhrasedRequest:
    """An intent in words: its text, the calls that it asks for, and the wording of an answer.

    core: the phrasing, whose slots `text` fills.
    """

    form: str
    core: str
    text: str
    slots: Slots
    calls: tuple[ToolCall, ...]
    wording: str

    def answer(self, values: Sequence[Json]) -> str:
        """Return the final answer, given what each call returned."""
        texts = [value.strip() if isinstance(value, str) else value for value in values]
        named = {f"result{n}" if n > 1 else "result": text for n, text in enumerate(texts, 1)}
        return self.wording.format_map({**self.slots, **named})


@cache
def word_lists(name: str) -> dict[str, Any]:
    """Return a shipped table.

    phrasings: openings and endings (`frames`), and the entries of all intents. fillers: cities,
    words, names and parts of queries, set -> pool -> values. manual: for the user's own tools.
    """
    return cast(dict[str, Any], packaged_json(f"config/presets/{name}.json"))


@cache
def intents() -> tuple[Intent, ...]:
    """Return all shipped intents."""
    found = []
    for name, entry in word_lists("phrasings")["intents"].items():
        group = name.partition(".")[0]
        cores = {
            key: tuple((form, text) for form, texts in entry.get(key, {}).items() for text in texts)
            for key in PHRASING_SETS
        }
        rest = (entry.get("calls", ()), entry.get("slots", {}), entry.get("after", ()))
        found.append(Intent(name, _GROUPS.get(group, group), cores, *rest, entry["answers"]))
    return tuple(found)


class Fillers:
    """Draws values for slots from one set of fillers; `rng` decides everything.

    real: share of words that are taken from a pool.
    """

    def __init__(self, filler_set: str, rng: random.Random, real: float = _REAL) -> None:
        self._real = real
        self._held_out = filler_set == "held_out"
        own = word_lists("manual")["pools"][filler_set]
        self._pools: dict[str, list[str]] = {**own, **word_lists("fillers")[filler_set]}
        self._rng = rng

    def draw(self, slots: Mapping[str, str]) -> Slots:
        """Draw a text for each slot; two slots never get the same city, word or query."""
        values: Slots = {}
        for name, kind in slots.items():
            value = self._value(kind, values)
            while kind in ("city", "word", "query") and value in values.values():
                value = self._value(kind, values)
            values[name] = value
        return values

    def _value(self, kind: str, values: Slots) -> str:
        rng = self._rng
        if kind.startswith("letter of "):
            return rng.choice(values[kind.removeprefix("letter of ")])
        match kind:
            case "city" | "word" | "first":
                return self._word(kind)
            case "person":
                return f"{rng.choice(self._pools['first'])} {self._word('last')}"
            case "thing":
                return f"{self._word('adjective')} {self._word('noun')}"
            case "query":
                if (draw := rng.random()) < 0.6:
                    return self._value("thing", values)
                topic = draw < 0.8
                start = rng.choice(self._pools["topic"]) if topic else f"{self._word('word')} of"
                return f"{start} {self._word('noun')}"
            case "number":
                return self._number(2, 10 ** rng.choice((2, 2, 3, 3, 4)) - 1)
            case "numbers":
                return ", ".join(self._number(2, 99) for _ in range(rng.choice((3, 3, 4))))
            case "two_digits":
                return self._number(10, 99)
            case "count" | "few" | "house":
                return str(rng.randint(2, {"count": 9, "few": 4, "house": 180}[kind]))
            case "unit" | "operator":
                return rng.choice(("celsius", "fahrenheit") if kind == "unit" else "+-*")
        form = word_lists("manual")["composed"].get(kind)
        if form is None:
            return rng.choice(self._pools[kind])
        form = form if isinstance(form, str) else rng.choice(form)
        text = re.sub(r"{(\w+)}", lambda slot: self._value(slot[1], values), form)
        return text.title() if kind == "title" else text.lower() if kind == "email" else text

    def _number(self, low: int, high: int) -> str:
        number = self._rng.randint(low, high)
        while (number % 7 == 3) != self._held_out:
            number = self._rng.randint(low, high)
        return str(number)

    def _word(self, pool: str) -> str:
        if self._rng.random() < self._real:
            return self._rng.choice(self._pools[pool])
        word = self._made_up_word()
        return word.capitalize() if pool in _CAPITALIZED else word

    def _made_up_word(self) -> str:
        """Join the beginning of one word and the end of another: `lan(tern)` + `(Ma)drid`."""
        words = _long_words(self._held_out)
        while True:
            first, second = self._rng.choice(words), self._rng.choice(words)
            start = first[: self._rng.randint(2, len(first) - 2)]
            word = start + second[self._rng.randint(2, len(second) - 2) :]
            held_out = zlib.crc32(word.encode()) % 7 == 3
            if held_out == self._held_out and _MADE_UP.fullmatch(word) and word not in _all_words():
                return word


@cache
def _long_words(held_out: bool) -> list[str]:
    """Return the words of all pools of a set that are long enough to be cut."""
    pools = word_lists("fillers")["held_out" if held_out else "train"].values()
    words = {word.lower() for pool in pools for word in pool if len(word) >= 4 and word.isalpha()}
    return sorted(words)


@cache
def _all_words() -> frozenset[str]:
    cores = [text for intent in intents() for core in intent.cores.values() for _, text in core]
    pools = [pool for pools in word_lists("fillers").values() for pool in pools.values()]
    return frozenset(" ".join(chain(cores, *pools)).lower().split())


class Wording:
    """Puts intents into words, from one set of phrasings and one of fillers."""

    def __init__(
        self, phrasing_set: str, filler_set: str, rng: random.Random, real: float = _REAL
    ) -> None:
        self._set = phrasing_set
        self._frames = word_lists("phrasings")["frames"][phrasing_set]
        self._fillers = Fillers(filler_set, rng, real)
        self._rng = rng

    def pick(self, choices: Sequence[Intent], form: str | None = None) -> Intent:
        """Pick one of the intents that have a phrasing in this set, and in this form if named."""
        return self._rng.choice([intent for intent in choices if self._cores(intent, form)])

    def request(
        self, intent: Intent, known: Slots | None = None, form: str | None = None
    ) -> PhrasedRequest:
        """Put an intent into words, not framed; `known` are values of the turn before."""
        slots = {**(known or {}), **self._fillers.draw(intent.slots)}
        found, core = self._rng.choice(self._cores(intent, form))
        answer = self._rng.choice(intent.answers)
        calls = []
        for call in intent.calls:
            texts = {name: text.format_map(slots) for name, text in call["arguments"].items()}
            arguments = {n: int(text) if n in _INTEGERS else text for n, text in texts.items()}
            calls.append(ToolCall(call["name"], arguments))
        return PhrasedRequest(found, core, core.format_map(slots), slots, tuple(calls), answer)

    def question(self, requests: Sequence[PhrasedRequest]) -> str:
        """Join the requests to one question, between an opening and an ending."""
        joins, frame = self._frames["joins"], self._frames[requests[0].form]
        rest = "".join(self._rng.choice(joins) + request.text for request in requests[1:])
        # Some openings and endings address somebody by name.
        opening, ending = (
            self._rng.choice(frame[end]).format_map(self._fillers.draw({"name": "first"}))
            for end in ("openings", "endings")
        )
        return f"{opening}{requests[0].text}{rest}{ending}"

    def _cores(self, intent: Intent, form: str | None) -> list[tuple[str, str]]:
        return [core for core in intent.cores[self._set] if form in (None, core[0])]
