"""Derive a call syntax from the texts that a template writes: `derive`.

By looking where name, argument names and values of chosen probes come out, each body
(`json_calls`, `named_json`, ...) that could have made the texts is proposed with its frame.
Which one is right is proved by trial in `probe.prove`. No form is known by a model's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.syntax.bodies import (
    JsonCalls,
    LooseObject,
    NameAsKey,
    NamedJson,
    PythonCalls,
)
from toolhone.dialects.syntax.delimited import (
    ID_SLOT,
    NAME_SLOT,
    NUMBER_SLOT,
    Body,
    DelimitedFormat,
    DelimitedSyntax,
)
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, read_value
from toolhone.dialects.syntax.model_text import decode
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.schema import Json, Tool, ToolCall

TOOL, OTHER = "look_up7", "book_seat7"
FIRST, SECOND = "query7", "place7"
VALUE, VALUE_2 = "Sentinel7", "Sentinel8"
_TEXT: Json = {"type": "string", "description": "What."}
_OPTIONS: Json = {"type": "object", "description": "How."}


PROBE_TOOLS = tuple(
    Tool(name, description, {"type": "object", "properties": properties})
    for name, description, properties in (
        (TOOL, "Looks <b>up</b> [x].", {FIRST: {"type": "string"}, SECOND: _TEXT}),
        (OTHER, "Books a seat.", {FIRST: _TEXT, "options": _OPTIONS}),
        ("zip_up7", "Zips.", {FIRST: _TEXT}),
    )
)
"""The tools that probes offer. Values of `options` may be of any form."""
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
    """What the template writes for the probes, and the text in front of an answer."""

    none: str
    """A call without arguments."""
    one: str
    both: str
    """A call with both arguments."""
    twice: str | None
    """Two calls; None where the template refuses them."""
    lead: str
    quoted: str
    """A call whose argument holds quotes."""


def derive(written: Written, lead: str = "") -> Iterator[DelimitedSyntax]:
    """Yield the syntaxes that may have made these texts, the likeliest first.

    lead: the text in front of an answer.
    """
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


FindNext = Callable[[str, int], int]
"""Where the next call begins in a text after this place; -1 for nowhere."""


def _frame(
    texts: _CallTexts, start: int, end: int, find_next: FindNext | None, middle: str = ""
) -> DelimitedFormat:
    """The frame of the call in `texts.one`, from its name or JSON to the end of its arguments.

    find_next: None where the calls of a turn are one list.
    """
    before, after = _slots(texts.one[:start]), _slots(texts.one[end:])
    between = None
    if find_next and texts.twice is not None and texts.twice[:end] == texts.one[:end]:
        begin = find_next(texts.twice, end)
        if begin > end:
            before, between = _numbered(before, _slots(texts.twice[end:begin]))
    return DelimitedFormat(before, after, _slots(middle), between, texts.lead)


def _slots(mark: str) -> str:
    """The mark with slots where it holds a tool's name or a call's id."""
    return _ID.sub(ID_SLOT, mark).replace(TOOL, NAME_SLOT).replace(OTHER, NAME_SLOT)


def _numbered(before: str, between: str) -> tuple[str, str]:
    """Both marks with a slot where they count the calls: the second has the next number."""
    for first in _NUMBER.finditer(before):
        head, tail = re.escape(before[: first.start()]), re.escape(before[first.end() :])
        second = re.search(rf"{head}({int(first[0]) + 1}){tail}\Z", between)
        if second is not None:
            counted = between[: second.start(1)] + NUMBER_SLOT + between[second.end(1) :]
            return before[: first.start()] + NUMBER_SLOT + before[first.end() :], counted
    return before, between


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
        find_next = _next_bracket if isinstance(value, Mapping) else None
        yield DelimitedSyntax(_frame(texts, start, end, find_next), body)
        return


def _next_bracket(text: str, end: int) -> int:
    """Where the next object that holds the other tool's name begins."""
    objects = _values(text[end:], "{", True)
    return next((end + start for start, _, value in objects if OTHER in str(value)), -1)


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


def _objects(text: str, literal: bool) -> Iterator[tuple[int, int]]:
    """Where objects with the arguments of the first probe are, or JSON strings with them."""
    return (
        (start, end) for start, end, value in _values(text, '{"', literal) if _is_arguments(value)
    )


def _named_json(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """The name as text, then a JSON object."""
    for place, end in _objects(texts.one, literal):
        start = texts.one.rfind(TOOL, 0, place)
        if start < 0:
            return
        middle = texts.one[start + len(TOOL) : place]
        frame = _frame(texts, start, end, _name_before("{"), middle)
        yield DelimitedSyntax(frame, NamedJson(literal=literal))
        return


def _object_first(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """A JSON object, then the name as text."""
    for start, place in _objects(texts.one, literal):
        name = texts.one.find(TOOL, place)
        if name < 0:
            continue
        end = name + len(TOOL)

        def next_object(text: str, end: int) -> int:
            return next((end + start for start, _ in _objects(text[end:], literal)), -1)

        frame = _frame(texts, start, end, next_object, texts.one[place:name])
        yield DelimitedSyntax(frame, NamedJson(name_first=False, literal=literal))
        return


def _name_before(mark: str) -> FindNext:
    """Find the next call by its name, the last one in front of this mark."""

    def find(text: str, end: int) -> int:
        place = text.find(mark, end)
        return text.rfind(OTHER, 0, place) if place >= 0 else -1

    return find


def _python(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """`name(key=value)`; first with unescaped quotes inside strings, if the template has them."""
    for found in re.finditer(rf"{TOOL}\s*\(", texts.one):
        reader = LiteralReader(texts.one, found.end())
        try:
            named, placed = reader.arguments()
        except LiteralError:
            continue
        if named != {FIRST: VALUE} or placed:
            continue

        def next_name(text: str, end: int) -> int:
            return text.find(f"{OTHER}(", end)

        frame = _frame(texts, found.start(), reader.position, next_name)
        for quote in "'\"":
            if f"{quote}{HARD}{quote}" in texts.quoted:
                yield DelimitedSyntax(frame, PythonCalls(quote))
                break
        yield DelimitedSyntax(frame, PythonCalls())
        return


def _loose(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """`name{key:<mark>text<mark>}` with strings in marks of their own."""
    found = re.search(
        rf"{TOOL}\s*\{{\s*(\S*?){FIRST}(\S*?)\s*:\s*(\S+?){VALUE}(.+?)\s*\}}", texts.one, re.DOTALL
    )
    if found is None or found[1] != "" or found[2] != "":
        return
    frame = _frame(texts, found.start(), found.end(), _name_before("{"))
    yield DelimitedSyntax(frame, LooseObject(found[3], found[4]))


def _parameters(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """Each argument between its own marks, its value as text, or as a literal inside quotes."""
    places = _places(texts.both, (TOOL, FIRST, VALUE, SECOND, VALUE_2))
    places = places or _places(texts.both, (TOOL, SECOND, VALUE_2, FIRST, VALUE))
    single = _places(texts.one, (TOOL, FIRST, VALUE))
    if places is None or single is None:
        return
    values = ((texts.both, places[2]), (texts.both, places[4]), (texts.one, single[2]))
    if all(
        text[start - 1 : start] == text[end : end + 1] in ("'", '"')
        for text, (start, end) in values
    ):
        wider = [(start - 1, end + 1) for start, end in (places[2], places[4])]
        quoted = [places[0], places[1], wider[0], places[3], wider[1]]
        yield from _marks(
            texts, quoted, [*single[:2], (single[2][0] - 1, single[2][1] + 1)], literal=True
        )
    yield from _marks(texts, places, single, literal=False)


def _marks(
    texts: _CallTexts, places: _Places, single: _Places, literal: bool
) -> Iterator[DelimitedSyntax]:
    """The marks around arguments: what the probes share between names and values."""
    (_, a), (b, c), (d, e), (f, _), _ = places
    opening, separates, gap = texts.both[a:b], texts.both[c:d], texts.both[e:f]
    tail = texts.one[single[2][1] :]
    opens = common_start(opening[::-1], gap[::-1])[::-1]
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
    frame = _frame(texts, start, end, _name_before(FIRST), middle)
    yield DelimitedSyntax(frame, Parameters(opens, separates, closes, joins, literal))


def _split_middle(opens: str, empty: str, tail: str) -> tuple[str, str]:
    """Split an opening mark: the part that also follows the name of a call without arguments."""
    shared = common_start(opens, empty)
    shared = shared[: max(shared.rfind(" "), shared.rfind("\n"), -1) + 1] or (
        shared if shared[-1:] in ">]})" else ""
    )
    cut = len(shared) if shared and tail.endswith(empty[len(shared) :]) else 0
    return opens[:cut], opens[cut:]


def _places(text: str, words: Sequence[str]) -> _Places | None:
    """Where these words follow one another, the first as near to the second as it can be."""
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
