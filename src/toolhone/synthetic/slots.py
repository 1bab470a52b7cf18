"""Finds the values of an example's calls in its question: what can be drawn again, and where.

    located = locate(question, leaves, kept=frozenset())
    located.slots     # values that can be replaced
    located.weaves    # text arguments with values inside: "25 * 4" for "25 multiplied by 4"
    located.stuck     # "", or the argument that keeps this example as it is

When in doubt nothing is replaced: a question must never ask for other values than its calls hold.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from toolhone.schema import Json
from toolhone.synthetic.schemas import Leaf, Schema, Steps
from toolhone.synthetic.spelling import SpelledPlace, places, write_value
from toolhone.synthetic.text_kinds import words_of

_SEPARATOR = re.compile(r"\s*[,;/&+]?\s*(?:\b(?:and|or|plus|then)\b)?\s*")
_TOKEN = re.compile(
    r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)|(?<=')[a-z]{2,}(?=')|(?<=\")[a-z]{2,}(?=\")"
)
_POLES = "with/without true/false yes/no on/off enabled/disabled"
_EMPTY_WORDS = "include includes is has with send use enable enabled allow add the a"


class SlotPiece(NamedTuple):
    """A part of a question; `filled` ones write a value, the others are words that may vary."""

    text: str
    filled: bool = False
    value: Json = None


Write = Callable[[Json], list[SlotPiece]]


@dataclass(frozen=True)
class SlotSpan:
    """A part of the question, [start, end), that has a value; `write` writes another one there."""

    start: int
    end: int
    write: Write

    def touches(self, other: SlotSpan) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Slot:
    """A value that can be replaced in the arguments `leaves`, or a `token` of a woven text."""

    value: Json
    spans: tuple[SlotSpan, ...]
    leaves: tuple[Leaf, ...] = ()
    token: str = ""


@dataclass(frozen=True)
class Weave:
    """A text argument made of words of its own and the values of slots (their numbers)."""

    path: Steps
    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    """What was found in a question."""

    slots: tuple[Slot, ...] = ()
    weaves: tuple[Weave, ...] = ()
    stuck: str = ""


@dataclass
class _Group:
    """The arguments of one value, all places of the value, and those that are its own."""

    value: Json
    leaves: list[Leaf] = field(default_factory=list)
    spans: list[SlotSpan] = field(default_factory=list)
    free: list[SlotSpan] = field(default_factory=list)
    entangled: bool = False


def locate(text: str, leaves: Sequence[Leaf], kept: frozenset[Steps]) -> Located:
    """Find the arguments in the text; `kept` are paths whose value all examples agree on.

    Equal arguments stay equal, and a value is replaced in all its places. An argument that is not
    in the question stays if it is a truth value, one of an enum, a default, null or kept; any
    other one may follow from the values around it, so that the whole example stays as it is.
    """
    by_value: dict[str, _Group] = {}
    for leaf in leaves:
        apart = [str(leaf.path)] if isinstance(leaf.value, bool) else []
        key = json.dumps([leaf.value, apart], sort_keys=True)
        group = by_value.setdefault(key, _Group(leaf.value, spans=list(_spans(text, leaf))))
        group.leaves.append(leaf)
    groups = list(by_value.values())
    _claim_spans(groups)
    own = [group for group in groups if group.free and not group.entangled]
    slots = [Slot(group.value, tuple(group.free), tuple(group.leaves)) for group in own]
    missing = [leaf for group in groups if not group.spans for leaf in group.leaves]
    taken = [span for group in groups for span in group.free]
    texts = [leaf for leaf in missing if isinstance(leaf.value, str)]
    tokens, weaves = _weave(text, texts, taken, len(slots))
    woven = {weave.path for weave in weaves}
    unexplained = [
        leaf
        for leaf in missing
        if leaf.path not in woven
        and leaf.value not in (None, [], {})
        and leaf.schema.get("default", ...) != leaf.value
        and "const" not in leaf.schema
    ]
    for leaf in unexplained:
        if not (isinstance(leaf.value, bool) or "enum" in leaf.schema or leaf.path in kept):
            return Located(stuck=".".join(map(str, leaf.path[1:])))
    if unexplained:
        counted = [slot for slot in slots if slot.token or len(slot.spans) <= len(slot.leaves)]
        if len(counted) < len(slots):
            slots, weaves, tokens = counted, [], []
    return Located((*slots, *tokens), tuple(weaves))


def _claim_spans(groups: Sequence[_Group]) -> None:
    """Give each place to the group with the longest value; groups that lose all are entangled."""
    owners: list[tuple[SlotSpan, _Group]] = []

    def longest(group: _Group) -> int:
        return max((span.end - span.start for span in group.spans), default=0)

    for group in sorted(groups, key=longest, reverse=True):
        touched = [owner for span in group.spans for other, owner in owners if span.touches(other)]
        group.free = [
            span for span in group.spans if not any(span.touches(other) for other, _ in owners)
        ]
        if group.spans and not group.free:
            for owner in touched:
                owner.entangled = True
        owners += [(span, group) for span in group.free]


def _spans(text: str, leaf: Leaf) -> Iterator[SlotSpan]:
    if isinstance(leaf.value, bool):
        yield from _pole_spans(text, leaf)
    elif isinstance(leaf.value, list):
        if chain := chain_of(text, leaf.value):
            yield SlotSpan(chain[0].start, chain[-1].end, _list_writer(text, chain))
    else:
        found = places(text, leaf.value)
        if leaf.value == 1 and any(place.spelling != "words" for place in found):
            found = [place for place in found if place.spelling != "words"]
        for place in found:
            yield SlotSpan(place.start, place.end, _writer(place))


def _piece(value: Json, place: SpelledPlace) -> SlotPiece:
    return SlotPiece(write_value(value, place.spelling, place.case), True, value)


def _writer(place: SpelledPlace) -> Write:
    return lambda value: [_piece(value, place)]


def chain_of(text: str, items: Sequence[Json]) -> list[SpelledPlace]:
    """Return the places of the items in a row, with only commas and "and" between them, or []."""
    found = [places(text, item) for item in items]
    for start in found[0] if found else ():
        chain = [start]
        for options in found[1:]:
            end = chain[-1].end
            following = (place for place in options if place.start >= end)
            fitting = (one for one in following if _SEPARATOR.fullmatch(text[end : one.start]))
            after = next(fitting, None)
            if after is None or after.start == end:
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
            pieces.append(_piece(value, chain[0]))
        return pieces

    return write


def list_schema(text: str, leaf: Leaf) -> Schema:
    """Return the schema of a list in the text, with a length that fits the words around it.

    One item stays one; a number that the question names ("both", "the three") stays.
    """
    count = len(leaf.value)
    pair = re.search(r"\b(both|pair)\b", text, re.IGNORECASE)
    fixed = count == 1 or pair or places(text, count)
    limits: dict[str, Any] = {"minItems": count, "maxItems": count} if fixed else {}
    return {**leaf.schema, "minItems": max(2, int(leaf.schema.get("minItems", 0))), **limits}


def _pole_spans(text: str, leaf: Leaf) -> Iterator[SlotSpan]:
    """Yield the word beside the name that says a truth value, if the text has only one."""
    words = [word for word in words_of(str(leaf.path[-1])) if word not in _EMPTY_WORDS.split()]
    found: list[SlotSpan] = []
    for word in words:
        for yes, no in (pair.split("/") for pair in _POLES.split()):
            pole, name = rf"\b({yes}|{no})\b", rf"{re.escape(word)}s?"
            before = rf"{pole} (?:an? |the |any )?{name}\b"
            after = rf"\b{name}(?: is| are|:| =)? {pole}"
            for match in re.finditer(before if yes == "with" else after, text, re.IGNORECASE):
                if (match[1].lower() == yes) == leaf.value:
                    write = partial(_write_pole, yes, no)
                    found.append(SlotSpan(match.start(1), match.end(1), write))
    yield from found if len(found) == 1 else ()


def _write_pole(yes: str, no: str, value: Json) -> list[SlotPiece]:
    return [SlotPiece(yes if value else no, True, bool(value))]


def _weave(
    text: str, leaves: Sequence[Leaf], taken: Sequence[SlotSpan], start: int
) -> tuple[list[Slot], list[Weave]]:
    """Find the numbers and quoted words that the question has as often as the text arguments.

    start: the number of the first slot.
    """
    counts = Counter(match[0] for leaf in leaves for match in _TOKEN.finditer(leaf.value))
    slots: list[Slot] = []
    numbers: dict[str, int] = {}
    for token, count in counts.items():
        value = as_number(token) if token[0].isdigit() else token
        spans = [SlotSpan(place.start, place.end, _writer(place)) for place in places(text, value)]
        free = not any(span.touches(other) for span in spans for other in taken)
        if free and len(spans) == count:
            numbers[token] = start + len(slots)
            slots.append(Slot(value, tuple(spans), token=token))
    weaves = []
    for leaf in leaves:
        parts, end = list[str | int](), 0
        for match in _TOKEN.finditer(leaf.value):
            if match[0] in numbers:
                parts += (leaf.value[end : match.start()], numbers[match[0]])
                end = match.end()
        if parts:
            weaves.append(Weave(leaf.path, (*parts, leaf.value[end:])))
    return slots, weaves


def as_number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
