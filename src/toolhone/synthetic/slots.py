"""Finds the values of an example's calls in its question.

    located = locate(question, leaves, kept=frozenset())
    located.slots     # what can be replaced: where it stands, which arguments it is, how another value is written there
    located.weaves    # text arguments with numbers or quoted words of the question inside: "25 * 4" for "25 multiplied by 4"
    located.stuck     # "": the values may be replaced; else why this example must stay as it is

When in doubt nothing is replaced, since a question must never ask for other values than its calls hold:

- A value of two arguments stands for both: they stay equal. A value that stands in several places is replaced in all of them.
- A value that stands only inside another one's text (`York` in `New York`), or oftener than there are arguments for it while some
  argument was not found, stays, with all that it touches.
- An argument that is not in the question stays: a truth value, one of an enum, a default, null, or what all examples agree on. Any
  other one may follow from the values around it, so then the whole example stays as it is.
- A number inside a text argument is replaced only if the question has it exactly as often.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from toolhone.schema import Json
from toolhone.synthetic.schemas import Leaf, Schema, Steps
from toolhone.synthetic.spelling import SpelledPlace, places, written
from toolhone.synthetic.text_kinds import words_of

_SEPARATOR = re.compile(r"\s*[,;/&+]?\s*(?:\b(?:and|or|plus|then)\b)?\s*")
_TOKEN = re.compile(
    r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)|(?<=')[a-z]{2,}(?=')|(?<=\")[a-z]{2,}(?=\")"
)
_POLES = (
    ("with", "without"),
    ("true", "false"),
    ("yes", "no"),
    ("on", "off"),
    ("enabled", "disabled"),
)
_EMPTY_WORDS = frozenset(
    [
        "include",
        "includes",
        "is",
        "has",
        "with",
        "send",
        "use",
        "enable",
        "enabled",
        "allow",
        "add",
        "the",
        "a",
    ]
)


@dataclass(frozen=True)
class SlotPiece:
    """A part of a question; `filled` ones write the value, the others are words that may be varied."""

    text: str
    filled: bool = False
    value: Json = None


Write = Callable[[Json], list[SlotPiece]]


@dataclass(frozen=True)
class SlotSpan:
    """A part of the question, [start, end), that says a value, and how another value is said there."""

    start: int
    end: int
    write: Write

    def touches(self, other: SlotSpan) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Slot:
    """A value that can be replaced. `leaves` are the arguments that hold it, none for a part of a woven text (`token`)."""

    value: Json
    spans: tuple[SlotSpan, ...]
    leaves: tuple[Leaf, ...] = ()
    token: str = ""


@dataclass(frozen=True)
class Weave:
    """A text argument put together from words of its own and the values of slots (their numbers)."""

    path: Steps
    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    slots: tuple[Slot, ...] = ()
    weaves: tuple[Weave, ...] = ()
    stuck: str = ""
    found: bool = True
    """Whether everything that the calls hold was found in the question."""


@dataclass
class _Group:
    """Arguments of one value, and where that value stands."""

    value: Json
    leaves: list[Leaf] = field(default_factory=list)
    spans: list[SlotSpan] = field(default_factory=list)
    free: list[SlotSpan] = field(default_factory=list)
    entangled: bool = False


def locate(text: str, leaves: Sequence[Leaf], kept: frozenset[Steps]) -> Located:
    """What of the arguments stands in the text. `kept` are paths whose value all examples agree on."""
    groups = _claimed(_groups(text, leaves))
    slots = [
        Slot(group.value, tuple(group.free), tuple(group.leaves))
        for group in groups
        if group.free and not group.entangled
    ]
    missing = [leaf for group in groups if not group.spans for leaf in group.leaves]
    taken = [span for group in groups for span in group.free]
    tokens, weaves = _woven(
        text, [leaf for leaf in missing if isinstance(leaf.value, str)], taken, len(slots)
    )
    open_leaves = [
        leaf
        for leaf in missing
        if not _is_default(leaf) and leaf.path not in {weave.path for weave in weaves}
    ]
    if stuck := next((leaf for leaf in open_leaves if not _may_stay(leaf, kept)), None):
        return Located(stuck=".".join(map(str, stuck.path[1:])), found=False)
    if open_leaves:
        kept_slots = [slot for slot in slots if slot.token or len(slot.spans) <= len(slot.leaves)]
        if len(kept_slots) < len(slots):
            slots, weaves, tokens = kept_slots, [], []
    return Located((*slots, *tokens), tuple(weaves), found=not open_leaves)


def _groups(text: str, leaves: Sequence[Leaf]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for leaf in leaves:
        key = json.dumps(
            [leaf.value, [str(leaf.path)] if isinstance(leaf.value, bool) else []], sort_keys=True
        )
        group = groups.setdefault(key, _Group(leaf.value, spans=list(_spans(text, leaf))))
        group.leaves.append(leaf)
    return list(groups.values())


def _claimed(groups: list[_Group]) -> list[_Group]:
    """The groups with the spans that each has for itself, the longest first; those that share a place stay as they are."""
    owners: list[tuple[SlotSpan, _Group]] = []
    for group in sorted(
        groups, key=lambda group: -max((span.end - span.start for span in group.spans), default=0)
    ):
        touched = [owner for span in group.spans for other, owner in owners if span.touches(other)]
        group.free = [
            span for span in group.spans if not any(span.touches(other) for other, _ in owners)
        ]
        if group.spans and not group.free:
            for owner in touched:
                owner.entangled = True
        owners += [(span, group) for span in group.free]
    return groups


def _is_default(leaf: Leaf) -> bool:
    return (
        leaf.value in (None, [], {})
        or leaf.schema.get("default", ...) == leaf.value
        or "const" in leaf.schema
    )


def _may_stay(leaf: Leaf, kept: frozenset[Steps]) -> bool:
    return isinstance(leaf.value, bool) or "enum" in leaf.schema or leaf.path in kept


def _spans(text: str, leaf: Leaf) -> Iterator[SlotSpan]:
    if isinstance(leaf.value, bool):
        yield from _poles(text, leaf)
    elif isinstance(leaf.value, list):
        chain = chain_of(text, leaf.value)
        if chain:
            yield SlotSpan(chain[0].start, chain[-1].end, _list_writer(text, chain))
    else:
        found = places(text, leaf.value)
        if leaf.value == 1 and any(place.spelling != "words" for place in found):
            found = [place for place in found if place.spelling != "words"]
        for place in found:
            yield SlotSpan(place.start, place.end, _writer(place))


def _writer(place: SpelledPlace) -> Write:
    return lambda value: [SlotPiece(written(value, place.spelling, place.case), True, value)]


def chain_of(text: str, items: Sequence[Json]) -> list[SpelledPlace]:
    """The places of the items one after the other, with only commas and "and" between them; empty where there is no such run."""
    found = [places(text, item) for item in items]
    for start in found[0] if found else ():
        chain = [start]
        for options in found[1:]:
            following = (place for place in options if place.start >= chain[-1].end)
            after = next(
                (
                    place
                    for place in following
                    if _SEPARATOR.fullmatch(text[chain[-1].end : place.start])
                ),
                None,
            )
            if after is None or not text[chain[-1].end : after.start]:
                break
            chain.append(after)
        if len(chain) == len(items):
            return chain
    return []


def _list_writer(text: str, chain: Sequence[SpelledPlace]) -> Write:
    between = [text[one.end : other.start] for one, other in pairwise(chain)]
    last = between[-1] if between else " and "
    comma = between[0] if len(between) > 1 else ", "

    def write(values: Sequence[Json]) -> list[SlotPiece]:
        pieces: list[SlotPiece] = []
        for index, value in enumerate(values):
            if index:
                pieces.append(SlotPiece(last if index == len(values) - 1 else comma))
            pieces.append(SlotPiece(written(value, chain[0].spelling, chain[0].case), True, value))
        return pieces

    return write


def list_schema(text: str, leaf: Leaf) -> Schema:
    """The schema of a list whose items stand in the text, with a length that goes with the words around them.

    One item stays one, a number that the question names ("both", "the three") stays that number.
    """
    count = len(leaf.value)
    counted = (
        count == 1 or re.search(r"\b(both|pair)\b", text, re.IGNORECASE) or places(text, count)
    )
    limits: dict[str, Any] = {"minItems": count, "maxItems": count} if counted else {}
    return {**leaf.schema, "minItems": max(2, int(leaf.schema.get("minItems", 0))), **limits}


def _poles(text: str, leaf: Leaf) -> Iterator[SlotSpan]:
    """The word that says a truth value: `with breakfast`, `breakfast: no`. Only if the text has one such word, next to the name."""
    words = [word for word in words_of(str(leaf.path[-1])) if word not in _EMPTY_WORDS]
    found: list[SlotSpan] = []
    for word in words:
        for yes, no in _POLES:
            said = rf"\b({yes}|{no})\b"
            after = rf"\b{re.escape(word)}s?(?: is| are|:| =)? {said}"
            pattern = (
                rf"{said} (?:an? |the |any )?{re.escape(word)}s?\b" if yes == "with" else after
            )
            for match in re.finditer(pattern, text, re.IGNORECASE):
                if (match[1].lower() == yes) == leaf.value:
                    found.append(SlotSpan(match.start(1), match.end(1), _pole_writer(yes, no)))
    yield from found if len(found) == 1 else ()


def _pole_writer(yes: str, no: str) -> Write:
    return lambda value: [SlotPiece(yes if value else no, True, bool(value))]


def _woven(
    text: str, leaves: Sequence[Leaf], taken: Sequence[SlotSpan], start: int
) -> tuple[list[Slot], list[Weave]]:
    """Slots for the numbers and quoted words that question and text arguments share; `start` is the number of the first one."""
    counts: dict[str, int] = {}
    for leaf in leaves:
        for match in _TOKEN.finditer(leaf.value):
            counts[match[0]] = counts.get(match[0], 0) + 1
    slots: list[Slot] = []
    numbers: dict[str, int] = {}
    for token, count in counts.items():
        value = token if not token[0].isdigit() else float(token) if "." in token else int(token)
        spans = [SlotSpan(place.start, place.end, _writer(place)) for place in places(text, value)]
        if len(spans) == count and not any(
            span.touches(other) for span in spans for other in taken
        ):
            numbers[token] = start + len(slots)
            slots.append(Slot(value, tuple(spans), token=token))
    weaves = [Weave(leaf.path, tuple(_parts(leaf.value, numbers))) for leaf in leaves]
    return slots, [weave for weave in weaves if any(isinstance(part, int) for part in weave.parts)]


def _parts(text: str, numbers: dict[str, int]) -> Iterator[str | int]:
    end = 0
    for match in _TOKEN.finditer(text):
        if match[0] in numbers:
            yield from (text[end : match.start()], numbers[match[0]])
            end = match.end()
    yield text[end:]
