"""Derive a call syntax from the texts that a template writes: `derive`.

By looking where name, argument names and values of chosen probes come out, each body
(`json_calls`, `named_json`, ...) that could have made the texts is proposed with its frame.
Which one is right is proved by trial in `probe.prove`. No form is known by a model's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.bodies import (
    JsonCalls,
    LooseObject,
    NameAsKey,
    NamedJson,
    PythonCalls,
)
from toolhone.dialects.syntax.delimited import (
    FLAG_SLOT,
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
_MARKED = f"<\n{VALUE}"
"""A text that forms with CDATA sections write in one."""
Written = Callable[[Sequence[ToolCall]], str | None]
"""The text of these calls; None where the template refuses them."""
FindNext = Callable[[str, int], int]
"""Where the next call begins in a text after this place; -1 for nowhere."""
_Places = list[tuple[int, int]]
_NAMED_ID = re.compile(r"\A:\d+(?=\D)")
"""What ends a call's id that holds the name of its tool: `functions.NAME:NUMBER`."""
_TAG_END = re.compile(r"[>\]](?=\s*[<\[])")
"""The end of a mark in front of another, which two marks may have in common."""
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
    marked: str
    """A call whose argument holds the begin of a mark."""


def derive(written: Written, lead: str = "") -> Iterator[DelimitedSyntax]:
    """Yield the syntaxes that may have made these texts, the likeliest first.

    lead: the text in front of an answer.
    """
    first, second = ToolCall(TOOL, {FIRST: VALUE}), ToolCall(OTHER, {FIRST: VALUE})
    none, one = written([ToolCall(TOOL, {})]), written([first])
    both = written([ToolCall(TOOL, {FIRST: VALUE, SECOND: VALUE_2})])
    if one is None or TOOL not in one or VALUE not in one:
        return
    twice, quoted = written([first, second]), written([ToolCall(TOOL, {FIRST: HARD})])
    marked = written([ToolCall(TOOL, {FIRST: _MARKED})])
    texts = _CallTexts(none or "", one, both or "", twice, lead, quoted or "", marked or "")
    for literal in (False, True):
        yield from _json(texts, literal)
        yield from _named_json(texts, literal)
    for propose in (_python, _loose, _parameters):
        yield from propose(texts)


def _frame(
    texts: _CallTexts, start: int, end: int, find_next: FindNext | None, middle: str = ""
) -> DelimitedFormat:
    """The frame of the call in `texts.one`, from its name or JSON to the end of its arguments.

    find_next: None where the calls of a turn are one list. Marks have slots where they hold a
    tool's name, a call's id, or count the calls: the second has the next number.
    """
    before, after, middle = map(_slots, (texts.one[:start], texts.one[end:], middle))
    between = None
    if find_next and texts.twice is not None and texts.twice[:end] == texts.one[:end]:
        begin = find_next(texts.twice, end)
        if begin > end:
            between = _slots(texts.twice[end:begin])
            for first in _NUMBER.finditer(before):
                head, tail = before[: first.start()], before[first.end() :]
                joint = f"{head}{int(first[0]) + 1}{tail}"
                if between.endswith(joint):
                    before = f"{head}{NUMBER_SLOT}{tail}"
                    between = between.removesuffix(joint) + before
                    break
    return DelimitedFormat(before, after, middle, between, texts.lead)


def _slots(mark: str) -> str:
    return _ID.sub(ID_SLOT, mark).replace(TOOL, NAME_SLOT).replace(OTHER, NAME_SLOT)


def values_in(text: str, begins: str, literal: bool) -> Iterator[tuple[int, int, Json]]:
    """The first values in the text that begin with one of these characters: start, end, value."""
    for begin in islice(re.finditer(f"[{re.escape(begins)}]", text), 40):
        found = read_value(text, begin.start(), literal)
        if found.problem is ParseProblem.NONE:
            yield begin.start(), found.end, found.value


def _json(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """One JSON value that holds name and arguments."""

    def next_object(text: str, end: int) -> int:
        objects = values_in(text[end:], "{", True)
        return next((end + start for start, _, value in objects if OTHER in str(value)), -1)

    for start, end, value in values_in(texts.one, "{[", literal):
        item = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(item, Mapping):
            continue
        body: Body | None = None
        name, arguments = _path(item, lambda inner: inner == TOOL), _path(item, _is_arguments)
        if item.get(TOOL) == {FIRST: VALUE}:
            body = NameAsKey(literal)
        elif name and arguments and name[:-1] == arguments[:-1]:
            body = JsonCalls(name, arguments, literal)
        if body is not None:
            find_next = next_object if isinstance(value, Mapping) else None
            yield DelimitedSyntax(_frame(texts, start, end, find_next), body)
            return


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


def _named_json(texts: _CallTexts, literal: bool) -> Iterator[DelimitedSyntax]:
    """The name as text, then a JSON object; or the other way about."""

    def objects(text: str) -> list[tuple[int, int]]:
        """Objects with the arguments of the first probe, or JSON strings with them."""
        found = values_in(text, '{"', literal)
        return [(start, end) for start, end, value in found if _is_arguments(value)]

    def next_object(text: str, end: int) -> int:
        return next((end + start for start, _ in objects(text[end:])), -1)

    found, size = objects(texts.one), len(TOOL)
    for place, end in found[:1]:
        start = texts.one.rfind(TOOL, 0, place)
        if start >= 0:
            middle = _NAMED_ID.sub(f":{NUMBER_SLOT}", texts.one[start + size : place])
            frame = _frame(texts, start, end, _name_before("{"), middle)
            yield DelimitedSyntax(frame, NamedJson(literal=literal))
    for start, place in found:
        name = texts.one.find(TOOL, place)
        if name >= 0:
            frame = _frame(texts, start, name + size, next_object, texts.one[place:name])
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
            read = reader.arguments()
        except LiteralError:
            continue
        if read[0] == {FIRST: VALUE} and not read[1]:
            end = reader.position
            frame = _frame(texts, found.start(), end, lambda text, at: text.find(f"{OTHER}(", at))
            quotes = [quote for quote in "'\"" if f"{quote}{HARD}{quote}" in texts.quoted]
            yield from (DelimitedSyntax(frame, PythonCalls(quote)) for quote in quotes[:1])
            yield DelimitedSyntax(frame, PythonCalls())
            return


def _loose(texts: _CallTexts) -> Iterator[DelimitedSyntax]:
    """`name{key:<mark>text<mark>}` with strings in marks of their own."""
    value = rf"(\S*?){FIRST}(\S*?)\s*:\s*(\S+?){VALUE}(.+?)"
    found = re.search(rf"{TOOL}\s*\{{\s*{value}\s*\}}", texts.one, re.DOTALL)
    if found is not None and not found[1] and not found[2]:
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
    around = [text[start - 1 : start] + text[end : end + 1] for text, (start, end) in values]
    if all(quotes in ("''", '""') for quotes in around):
        wide = [(start - 1, end + 1) for _, (start, end) in values]
        quoted = [places[0], places[1], wide[0], places[3], wide[1]]
        yield from _marks(texts, quoted, [*single[:2], wide[2]], literal=True)
    yield from _marks(texts, places, single, literal=False)


def _marks(
    texts: _CallTexts, places: _Places, single: _Places, literal: bool
) -> Iterator[DelimitedSyntax]:
    """The marks around arguments: what the probes share between names and values."""
    (_, a), (b, c), (d, e), (f, _), _ = places
    opening, separates, gap = texts.both[a:b], texts.both[c:d], texts.both[e:f]
    separates = re.sub(r'="(true|false)"', f'="{FLAG_SLOT}"', separates)
    tail = texts.one[single[2][1] :]
    opens = common_start(opening[::-1], gap[::-1])[::-1]
    begin = _TAG_END.match(opens)
    opens = opens[begin.end() :] if begin else opens
    middle = opening[: len(opening) - len(opens)]
    empty = _places(texts.none, (TOOL,))
    if empty is not None and not middle:
        # The part of the mark that also follows the name of a call without arguments.
        behind = texts.none[empty[0][1] :]
        shared = common_start(opens, behind)
        cut = max(shared.rfind(" "), shared.rfind("\n")) + 1
        cut = cut or (len(shared) if shared[-1:] in (">", "]", "}", ")") else 0)
        cut = cut if tail.endswith(behind[cut:]) else 0
        middle, opens = opens[:cut], opens[cut:]
    closing = gap[: len(gap) - len(opens)]
    closes = common_start(closing, tail)
    if separates and (closes or literal):
        start, end = single[0][0], single[2][1] + len(closes)
        frame = _frame(texts, start, end, _name_before(FIRST), middle)
        joins = closing[len(closes) :]
        cdata = f"<![CDATA[{_MARKED}]]>" in texts.marked
        body = Parameters(opens, separates, closes, joins, literal, cdata)
        yield DelimitedSyntax(frame, body)


def _places(text: str, words: Sequence[str]) -> _Places | None:
    """Where these words follow one another, the first as near to the second as it can be."""
    following = text.find(words[1], text.find(words[0])) if len(words) > 1 else len(text)
    places, position = _Places(), max(text.rfind(words[0], 0, max(following, 0)), 0)
    for word in words:
        start = text.find(word, position)
        if start < 0:
            return None
        position = start + len(word)
        places.append((start, position))
    return places
