"""From a template's own writing to a syntax that reads it: `derive`.

`written(calls)` gives the text that a template writes for these calls: the turn without its end mark and without reasoning. By
looking where name, argument names and values of chosen probes come out, each body (`json_calls`, `named_json`, ...) that could have
made the texts is proposed with its frame; whether one is right is proved by trial in `probe`. No form is known by a model's name,
and marks that no model has ever used are found in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import (
    ID_SLOT,
    NAME_SLOT,
    NUMBER_SLOT,
    Body,
    DelimitedFormat,
    DelimitedSyntax,
)
from toolhone.dialects.syntax.json_bodies import JsonCalls, NameAsKey, NamedJson
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, read_value
from toolhone.dialects.syntax.loose_object import LooseObject
from toolhone.dialects.syntax.model_text import decode
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import PythonCalls
from toolhone.schema import Json, ToolCall

TOOL, OTHER = "look_up7", "book_seat7"
FIRST, SECOND = "query7", "place7"
VALUE, VALUE_2 = "Sentinel7", "Sentinel8"
HARD = 'it\'s "q" \\n'
"""A text that every form with escapes writes in another way."""
Written = Callable[[Sequence[ToolCall]], str | None]
"""The text of these calls; None where the template refuses them."""

_NONE = ToolCall(TOOL, {})
_ONE = ToolCall(TOOL, {FIRST: VALUE})
_BOTH = ToolCall(TOOL, {FIRST: VALUE, SECOND: VALUE_2})
_NEXT = ToolCall(OTHER, {FIRST: VALUE})
_QUOTED = ToolCall(TOOL, {FIRST: HARD})
_Places = list[tuple[int, int]]
_NUMBER = re.compile(r"\d+")
_ID = re.compile(r"call\d{5}")


@dataclass(frozen=True)
class _CallTexts:
    """What the template writes for the probes; `twice` is None where it refuses two calls, `quoted` holds a text with quotes."""

    none: str
    one: str
    both: str
    twice: str | None
    lead: str
    quoted: str


def derive(written: Written, lead: str = "") -> Iterator[DelimitedSyntax]:
    """The syntaxes that may have made these texts, the likeliest first. `lead`: what stands in front of an answer's text."""
    none, one, both = written([_NONE]), written([_ONE]), written([_BOTH])
    if one is None or TOOL not in one or VALUE not in one:
        return
    texts = _CallTexts(
        none or "", one, both or "", written([_ONE, _NEXT]), lead, written([_QUOTED]) or ""
    )
    for literal in (False, True):
        yield from _json(texts, literal)
        yield from _named_json(texts, literal)
        yield from _object_first(texts, literal)
    for propose in (_python, _loose, _parameters):
        yield from propose(texts)


def _frame(
    texts: _CallTexts, start: int, end: int, middle: str, between: str | None
) -> DelimitedFormat:
    """The frame of the call that stands in `texts.one` from `start` (its name or its JSON) to `end` (behind its arguments)."""
    before, after = _slots(texts.one[:start]), _slots(texts.one[end:])
    joint = None if between is None else _slots(between)
    if joint is not None:
        before, joint = _numbered(before, joint)
    return DelimitedFormat(before, after, _slots(middle), joint, texts.lead)


def _slots(mark: str) -> str:
    """The mark with slots where it holds a tool's name or a call's id."""
    return _ID.sub(ID_SLOT, mark).replace(TOOL, NAME_SLOT).replace(OTHER, NAME_SLOT)


def _numbered(before: str, between: str) -> tuple[str, str]:
    """Both marks with a slot where they count the calls: the second call's mark is the first one's with another number."""
    numbers = list(_NUMBER.finditer(before))
    for first in numbers:
        head, tail = re.escape(before[: first.start()]), re.escape(before[first.end() :])
        second = re.search(rf"{head}({int(first[0]) + 1}){tail}\Z", between)
        if second is not None:
            counted = between[: second.start(1)] + NUMBER_SLOT + between[second.end(1) :]
            return before[: first.start()] + NUMBER_SLOT + before[first.end() :], counted
    return before, between


def _between(
    texts: _CallTexts, end: int, start_of_next: Callable[[str, int], int | None]
) -> str | None:
    """What stands between two calls: from `end` in the text of two calls to where the next one begins."""
    if texts.twice is None or texts.twice[:end] != texts.one[:end]:
        return None
    start = start_of_next(texts.twice, end)
    return None if start is None or start <= end else texts.twice[end:start]


def _values(text: str, begins: str, literal: bool) -> Iterator[tuple[int, int, Json]]:
    """The first values in the text that begin with one of these characters: start, end, value."""
    for start in [found.start() for found in re.finditer(f"[{re.escape(begins)}]", text)][:40]:
        found = read_value(text, start, literal)
        if found.problem is ParseProblem.NONE:
            yield start, found.end, found.value


def _json(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """One JSON value that holds name and arguments."""
    for start, end, value in _values(texts.one, "{[", literal):
        body = _json_body(value, literal)
        if body is None:
            continue
        between = None
        if isinstance(value, Mapping) and texts.twice is not None:
            between = _between(texts, end, _next_bracket)
        yield DelimitedSyntax(_frame(texts, start, end, "", between), body)
        return


def _next_bracket(text: str, end: int) -> int | None:
    """Where the next object that holds the other tool's name begins."""
    return next(
        (end + start for start, _, value in _values(text[end:], "{", True) if OTHER in str(value)),
        None,
    )


def _json_body(value: Json, literal: bool) -> Body | None:
    item = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(item, Mapping):
        return None
    if item.get(TOOL) == {FIRST: VALUE}:
        return NameAsKey(literal)
    name, arguments = _path(item, lambda inner: inner == TOOL), _path(item, _is_arguments)
    if name is None or arguments is None or name[:-1] != arguments[:-1]:
        return None
    return JsonCalls(name, arguments, literal)


def _is_arguments(value: Json) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = decode(value, 0).value
    return isinstance(value, Mapping) and dict(value) == {FIRST: VALUE}


def _path(value: Json, fits: Callable[[Json], bool], depth: int = 0) -> tuple[str, ...] | None:
    """The keys that lead to a value that fits, through objects only."""
    if depth > 3 or not isinstance(value, Mapping):
        return None
    for key, inner in value.items():
        if fits(inner):
            return (key,)
    for key, inner in value.items():
        below = _path(inner, fits, depth + 1)
        if below is not None:
            return (key, *below)
    return None


def _name_place(text: str, name: str, before: int) -> int:
    """The last place of a tool's name in front of `before`; -1 when there is none."""
    return text.rfind(name, 0, before)


def _objects(text: str, literal: bool) -> Iterator[tuple[int, int]]:
    """Where an object with the arguments of the first probe stands, or a JSON string that holds it."""
    return (
        (start, end) for start, end, value in _values(text, '{"', literal) if _is_arguments(value)
    )


def _named_json(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """The name as text, then a JSON object."""
    for place, end in _objects(texts.one, literal):
        start = _name_place(texts.one, TOOL, place)
        if start < 0:
            return
        between = _between(texts, end, _before_object)
        yield DelimitedSyntax(
            _frame(texts, start, end, texts.one[start + len(TOOL) : place], between),
            NamedJson(literal=literal),
        )
        return


def _object_first(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """A JSON object, then the name as text."""
    for start, place in _objects(texts.one, literal):
        name = texts.one.find(TOOL, place)
        if name < 0:
            continue
        end = name + len(TOOL)
        between = _between(
            texts,
            end,
            lambda text, behind: next(
                (behind + a for a, _ in _objects(text[behind:], literal)), None
            ),
        )
        yield DelimitedSyntax(
            _frame(texts, start, end, texts.one[place:name], between),
            NamedJson(name_first=False, literal=literal),
        )
        return


def _before_object(text: str, end: int) -> int | None:
    brace = text.find("{", end)
    place = -1 if brace < 0 else _name_place(text, OTHER, brace)
    return place if place >= end else None


def _python(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """`name(key=value)`; first as texts between quotes that are not escaped, where the template writes them so."""
    for found in re.finditer(rf"{TOOL}\s*\(", texts.one):
        reader = LiteralReader(texts.one, found.end())
        try:
            named, placed = reader.arguments()
        except LiteralError:
            continue
        if named != {FIRST: VALUE} or placed:
            continue
        between = _between(
            texts, reader.position, lambda text, end: _place_or_none(text.find(f"{OTHER}(", end))
        )
        frame = _frame(texts, found.start(), reader.position, "", between)
        quote = next((mark for mark in "'\"" if f"{mark}{HARD}{mark}" in texts.quoted), "")
        yield from [DelimitedSyntax(frame, PythonCalls(quote))] if quote else []
        yield DelimitedSyntax(frame, PythonCalls())
        return


def _place_or_none(place: int) -> int | None:
    return place if place >= 0 else None


def _loose(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """`name{key:<mark>text<mark>}` with strings in marks of their own."""
    found = re.search(
        rf"{TOOL}\s*\{{\s*(\S*?){FIRST}(\S*?)\s*:\s*(\S+?){VALUE}(.+?)\s*\}}", texts.one, re.DOTALL
    )
    if found is None or found[1] != "" or found[2] != "":
        return
    end = found.end()
    between = _between(texts, end, lambda text, place: _before_object(text, place))
    yield DelimitedSyntax(
        _frame(texts, found.start(), end, "", between), LooseObject(found[3], found[4])
    )


def _parameters(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """Each argument between marks of its own, its value as text or, where the template puts texts in quotes, as a literal."""
    places = _places(texts.both, (TOOL, FIRST, VALUE, SECOND, VALUE_2))
    places = places or _places(texts.both, (TOOL, SECOND, VALUE_2, FIRST, VALUE))
    single = _places(texts.one, (TOOL, FIRST, VALUE))
    if places is None or single is None:
        return
    if all(
        text[start - 1 : start] == text[end : end + 1] in ("'", '"')
        for text, (start, end) in _value_places(texts, places, single)
    ):
        wider = [(start - 1, end + 1) for start, end in (places[2], places[4])]
        quoted = [places[0], places[1], wider[0], places[3], wider[1]]
        yield from _marks(
            texts, quoted, [*single[:2], (single[2][0] - 1, single[2][1] + 1)], literal=True
        )
    yield from _marks(texts, places, single, literal=False)


def _value_places(
    texts: _CallTexts, places: _Places, single: _Places
) -> list[tuple[str, tuple[int, int]]]:
    return [(texts.both, places[2]), (texts.both, places[4]), (texts.one, single[2])]


def _marks(
    texts: _CallTexts, places: _Places, single: _Places, literal: bool
) -> Iterator[DelimitedSyntax]:
    """The marks around arguments: what the probes have in common between the places of name, argument names and values."""
    (_, a), (b, c), (d, e), (f, _), _ = places
    opening, separates, gap = texts.both[a:b], texts.both[c:d], texts.both[e:f]
    tail = texts.one[single[2][1] :]
    opens = _common_end(opening, gap)
    middle, closing = opening[: len(opening) - len(opens)], gap[: len(gap) - len(opens)]
    empty = _places(texts.none, (TOOL,))
    if empty is not None and not middle:
        middle, opens = _split_middle(opens, texts.none[empty[0][1] :], tail)
        closing = gap[: len(gap) - len(opens)]
    closes = common_start(closing, tail)
    joins = closing[len(closes) :]
    start, end = single[0][0], single[2][1] + len(closes)
    if not separates or not (closes or literal):
        return
    between = _between(texts, end, _last_name)
    yield DelimitedSyntax(
        _frame(texts, start, end, middle, between),
        Parameters(opens, separates, closes, joins, literal),
    )


def _split_middle(opens: str, empty: str, tail: str) -> tuple[str, str]:
    """The part of an argument's opening mark that belongs to the name: it also stands behind the name of a call without any."""
    shared = common_start(opens, empty)
    shared = shared[: max(shared.rfind(" "), shared.rfind("\n"), -1) + 1] or (
        shared if shared[-1:] in ">]})" else ""
    )
    cut = len(shared) if shared and tail.endswith(empty[len(shared) :]) else 0
    return opens[:cut], opens[cut:]


def _last_name(text: str, end: int) -> int | None:
    """Where the name of the next call stands: its last occurrence in front of the first argument."""
    key = text.find(FIRST, end)
    place = -1 if key < 0 else _name_place(text, OTHER, key)
    return place if place >= end else None


def _places(text: str, words: Sequence[str]) -> _Places | None:
    """Where these words stand one behind another, the first at its last place before the second; None when they do not."""
    places: _Places = []
    position = 0
    for k, word in enumerate(words):
        start = text.find(word, position)
        if k == 0 and len(words) > 1 and start >= 0:
            following = text.find(words[1], start)
            start = text.rfind(word, 0, following) if following >= 0 else -1
        elif k == 0:
            start = text.rfind(word)
        if start < 0:
            return None
        places.append((start, start + len(word)))
        position = start + len(word)
    return places


def common_start(a: str, b: str) -> str:
    """The longest text that both begin with."""
    length = next(
        (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return a[:length]


def _common_end(a: str, b: str) -> str:
    """The longest text that both end in."""
    return common_start(a[::-1], b[::-1])[::-1]
