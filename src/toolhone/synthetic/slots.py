"""How values are written in a question, where a question has them, and what can be drawn again.

    spellings(1234)                                # {"exact": "1234", "grouped": "1,234"}
    places("Two seats, 12 rows", 2)                # one place, from 0 to 3, spelled "words"
    locate(question, leaves, kept=frozenset())     # slots, weaves: what can be replaced

English only. When in doubt nothing is replaced: a question never asks for values of other calls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from toolhone.config.phrasings import word_lists
from toolhone.schema import Json
from toolhone.tools.schema_sampler import Leaf, Steps
from toolhone.tools.text_kinds import clock_kind, words_of

EXACT = "exact"
_CASELESS = "\u2e80"
"""Scripts from here on (Chinese, Japanese, Korean, ...) write words without spaces."""
_WORD, _LETTER = rf"[^\W{_CASELESS}-\U0010ffff]", rf"[^\W_{_CASELESS}-\U0010ffff]"
_UNITS = r"(?:km|kg|g|cm|mm|m|mi|lb|c|f|mb|gb|h|min|s|ms|usd|eur)(?![^\W\d_])"
_STARTS_INSIDE = re.compile(rf"{_WORD}{_LETTER}|[-−.]\d|(?<=\d)[,:/]\d")
_ENDS_INSIDE = re.compile(rf"\d[.,:/-]\d|\d(?!{_UNITS}){_WORD}|(?!\d){_LETTER}{_WORD}")
"""Two signs between which no word or number starts, or ends; a unit may follow, as in `5km`."""
_SEPARATOR = re.compile(r"\s*[,;/&+]?\s*(?:\b(?:and|or|plus|then)\b)?\s*")
_TOKEN = re.compile(
    r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)|(?<=')[a-z]{2,}(?=')|(?<=\")[a-z]{2,}(?=\")"
)


class SlotPiece(NamedTuple):
    """A part of a question; `filled` ones write a value, the others are words that may vary."""

    text: str
    filled: bool = False
    value: Json = None


class SpelledPlace(NamedTuple):
    """Where a text has a value, [start, end), and how it is written there.

    case: "", "lower" or "upper". between: what is between the items of a list, and before the last.
    poles: the words for true and false.
    """

    start: int
    end: int
    spelling: str = ""
    case: str = ""
    between: tuple[str, str] = (", ", " and ")
    poles: tuple[str, str] | None = None

    def touches(self, others: Collection[SpelledPlace]) -> bool:
        """Return whether another place has a letter of this one."""
        return any(self.start < other.end and other.start < self.end for other in others)

    def write(self, value: Json) -> list[SlotPiece]:
        """Return another value, written as this one."""
        if self.poles is not None:
            return [SlotPiece(self.poles[not value], True, bool(value))]
        pieces: list[SlotPiece] = []
        values = value if isinstance(value, list) else [value]
        for index, one in enumerate(values):
            if index:
                pieces.append(SlotPiece(self.between[index == len(values) - 1]))
            pieces.append(SlotPiece(write_value(one, self.spelling, self.case), True, one))
        return pieces


def folded(text: str) -> str:
    """Return the text in lower case, with the same length."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def spellings(value: Json) -> dict[str, str]:
    """Return name of the spelling -> text; nothing for null, lists and objects."""
    if isinstance(value, bool):
        return {EXACT: "true" if value else "false", "yes or no": "yes" if value else "no"}
    if isinstance(value, int | float):
        return _number_spellings(value)
    if not isinstance(value, str) or not value.strip():
        return {}
    match clock_kind(value):
        case "date":
            return {EXACT: value, **_date_spellings(value)}
        case "time":
            return {EXACT: value, **_time_spellings(value)}
        case "moment":
            days = {EXACT: value[:10], **_date_spellings(value[:10])}
            hours = {"24": value[11:16], **_time_spellings(value[11:])}
            joined = {
                f"{day} {word} {hour}": f"{days[day]}{' at' if word == 'at' else ','} {hours[hour]}"
                for day in days
                for hour in hours
                for word in ("at", ",")
            }
            return {EXACT: value, **joined}
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"(?<=\w)[_-](?=\w)", " ", value))
    return {EXACT: value} if spaced == value else {EXACT: value, "spaced": spaced}


def write_value(value: Json, spelling: str, case: str = "") -> str:
    """Return the value in this spelling, or as it is where it has no such spelling."""
    known = spellings(value)
    text = known.get(spelling, known[EXACT])
    return text.lower() if case == "lower" else text.upper() if case == "upper" else text


def places(text: str, value: Json) -> list[SpelledPlace]:
    """Return where the text has the value, in order; of two that overlap, the longer.

    A number inside a longer one (2 in `12`, `2.5`, `10:2`, `2025-02-01`) is not found.
    """
    small, found = folded(text), []
    for name, spelled in spellings(value).items():
        cases = {spelled.upper(): "upper", spelled.lower(): "lower", spelled: ""}
        wanted, start = folded(spelled), -1
        while (start := small.find(wanted, start + 1)) >= 0:
            end = start + len(wanted)
            inside = (start and _STARTS_INSIDE.match(small, start - 1)) or _ENDS_INSIDE.match(
                small, end - 1
            )
            if not inside:
                found.append(SpelledPlace(start, end, name, cases.get(text[start:end], "")))
    result: list[SpelledPlace] = []
    for place in sorted(found, key=lambda place: place.start - place.end):
        if not place.touches(result):
            result.append(place)
    return sorted(result, key=lambda place: place.start)


def _number_spellings(value: int | float) -> dict[str, str]:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        decimals = {"decimal": f"{value:.1f}", "cents": f"{value:.2f}"}
        return {**_number_spellings(int(value)), **decimals}
    result = {EXACT: str(value)}
    if abs(value) >= 1000:
        result["grouped"] = f"{value:,}"
    if value < 0:
        result["minus"] = f"minus {-value}"
    if isinstance(value, int) and 0 <= value <= 100:
        result["words"] = word_lists("manual")["numbers"][value]
    if isinstance(value, float) and round(value, 2) == value:
        result["cents"] = f"{value:.2f}"
    if isinstance(value, float) and 0 < value < 1 and round(value, 4) == value:
        share = f"{round(value * 100, 2):g}"
        result |= {"%": f"{share}%", "percent": f"{share} percent"}
    return result


def _date_spellings(text: str) -> dict[str, str]:
    year, month, day = map(int, text.split("-"))
    name = word_lists("manual")["months"][month - 1]
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    parts = {"month": name, "short": name[:3], "day": day, "nth": f"{day}{ending}", "year": year}
    forms = word_lists("manual")["dates"].items()
    return {spelling: form.format_map(parts) for spelling, form in forms}


def _time_spellings(text: str) -> dict[str, str]:
    hour, minute = int(text[:2]), text[3:5]
    half, twelve = ("am" if hour < 12 else "pm"), hour % 12 or 12
    short = str(twelve) if minute == "00" else f"{twelve}:{minute}"
    result = {"12": f"{short} {half}", "12 tight": f"{short}{half}"}
    result["12 full"] = f"{twelve}:{minute} {half}"
    return {**result, "24": text[:5]} if len(text) == 8 else result


@dataclass(frozen=True)
class Slot:
    """A value that can be replaced in the arguments `leaves`, or a `token` of a woven text."""

    value: Json
    spans: tuple[SpelledPlace, ...]
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

    spans: list[SpelledPlace]
    leaves: list[Leaf] = field(default_factory=list)
    free: list[SpelledPlace] = field(default_factory=list)
    entangled: bool = False


def locate(text: str, leaves: Sequence[Leaf], kept: Collection[Steps]) -> Located:
    """Find the arguments in the text; `kept` are paths whose value all examples agree on.

    Equal arguments stay equal, and a value is replaced in all its places. An argument that is not
    in the question stays if it is a truth value, one of an enum, a default, null or kept; any
    other one may follow from the values around it, so that the whole example stays as it is.
    """
    groups = _claim_spans(text, leaves)
    own = [group for group in groups if group.free and not group.entangled]
    slots = [Slot(group.leaves[0].value, tuple(group.free), tuple(group.leaves)) for group in own]
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
    once = [slot for slot in slots if len(slot.spans) <= len(slot.leaves)]
    if unexplained and len(once) < len(slots):
        return Located(tuple(once))
    return Located((*slots, *tokens), tuple(weaves))


def _claim_spans(text: str, leaves: Sequence[Leaf]) -> list[_Group]:
    """Group equal arguments; each place belongs to the group with the longest value there.

    Groups that take all places of another one are entangled with it.
    """
    groups: dict[str, _Group] = {}
    for leaf in leaves:
        apart = str(leaf.path) if isinstance(leaf.value, bool) else ""
        key = json.dumps([leaf.value, apart], sort_keys=True)
        groups.setdefault(key, _Group(list(_spans(text, leaf)))).leaves.append(leaf)

    owners: list[_Group] = []
    by_length = sorted(
        groups.values(),
        key=lambda group: -max((place.end - place.start for place in group.spans), default=0),
    )
    for group in by_length:
        taken = [span for owner in owners for span in owner.free]
        group.free = [span for span in group.spans if not span.touches(taken)]
        if group.spans and not group.free:
            for owner in owners:
                owner.entangled |= any(span.touches(owner.free) for span in group.spans)
        owners.append(group)
    return list(groups.values())


def _spans(text: str, leaf: Leaf) -> Iterator[SpelledPlace]:
    if isinstance(leaf.value, bool):
        yield from _pole_spans(text, leaf)
    elif isinstance(leaf.value, list):
        if chain := chain_of(text, leaf.value):
            between = [text[one.end : other.start] for one, other in pairwise(chain)]
            comma = between[0] if len(between) > 1 else ", "
            parts = (comma, between[-1] if between else " and ")
            yield chain[0]._replace(end=chain[-1].end, between=parts)
    else:
        found = places(text, leaf.value)
        figures = [place for place in found if place.spelling != "words"]
        yield from figures if leaf.value == 1 and figures else found


def chain_of(text: str, items: Sequence[Json]) -> list[SpelledPlace]:
    """Return the places of the items in a row, with only commas and "and" between them, or []."""
    found = [places(text, item) for item in items]
    for start in found[0] if found else ():
        chain = [start]
        for options in found[1:]:
            end = chain[-1].end
            following = (place for place in options if place.start > end)
            fitting = (one for one in following if _SEPARATOR.fullmatch(text[end : one.start]))
            chain += [after] if (after := next(fitting, None)) else []
        if len(chain) == len(items):
            return chain
    return []


def _pole_spans(text: str, leaf: Leaf) -> Iterator[SpelledPlace]:
    """Yield the word beside the name that says a truth value, if the text has only one."""
    lists = word_lists("manual")
    words = [word for word in words_of(str(leaf.path[-1])) if word not in lists["empty"]]
    found: list[SpelledPlace] = []
    for word in words:
        for yes, no in lists["poles"]:
            pole, name = rf"\b({yes}|{no})\b", rf"{re.escape(word)}s?"
            before = rf"{pole} (?:an? |the |any )?{name}\b"
            after = rf"\b{name}(?: is| are|:| =)? {pole}"
            for match in re.finditer(before if yes == "with" else after, text, re.IGNORECASE):
                if (match[1].lower() == yes) == leaf.value:
                    found.append(SpelledPlace(*match.span(1), poles=(yes, no)))
    yield from found if len(found) == 1 else ()


def _weave(
    text: str, leaves: Sequence[Leaf], taken: Sequence[SpelledPlace], start: int
) -> tuple[list[Slot], list[Weave]]:
    """Find the numbers and quoted words that the question has as often as the text arguments.

    start: the number of the first slot.
    """
    counts = Counter(match[0] for leaf in leaves for match in _TOKEN.finditer(leaf.value))
    slots: list[Slot] = []
    numbers: dict[str, int] = {}
    for token, count in counts.items():
        value = as_number(token) if token[0].isdigit() else token
        spans = places(text, value)
        if len(spans) == count and not any(span.touches(taken) for span in spans):
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
