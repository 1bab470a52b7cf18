"""Canonical examples as phrasings: the words stay, the values are drawn again, in the question and in the calls at once.

    phrases = phrases_of(example, drawers, kept, verbs)     # the example, and the same without one optional argument
    draw = phrases[0].draw(random.Random(0), held=False)
    draw.pieces, draw.calls                                 # from the same values
    ambiguous(pieces)                                       # "" or the value that cannot be told apart in this question

An example whose values cannot be replaced safely (see `locate`) is used word for word.
"""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from toolhone.schema import ToolCall
from toolhone.synthetic.examples import CanonicalExample
from toolhone.synthetic.paraphrase import Form, core_of
from toolhone.synthetic.schema_sampler import Drawer, Maker, Undrawable
from toolhone.synthetic.schemas import Leaf, Steps
from toolhone.synthetic.slots import Located, Slot, SlotPiece, SlotSpan, list_schema, locate
from toolhone.synthetic.spelling import EXACT, places, spellings
from toolhone.synthetic.text_kinds import maker, near

_TRIES = 10
_BEFORE = re.compile(
    r"\s(in|on|at|for|with|to|from|by|under|until|around)\s(the\s|a\s)?$", re.IGNORECASE
)
_AFTER = re.compile(
    r"(\s\w+)??(?=$|[.,?!]|\s(?:in|on|at|for|with|to|from|by|under|until|and|please)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Draw:
    """A question, not framed yet, and its calls."""

    form: Form
    pieces: tuple[SlotPiece, ...]
    calls: tuple[ToolCall, ...]


class Phrase(Protocol):
    """Something that can be asked in many ways; `tools` are the tools called, one for each call."""

    @property
    def tools(self) -> tuple[str, ...]: ...

    def draw(self, rng: random.Random, held: bool) -> Draw: ...


@dataclass(frozen=True)
class ExamplePhrase:
    """The words of an example and what of them is replaced by draws of `makers`, one for each slot."""

    form: Form
    text: str
    calls: tuple[ToolCall, ...]
    located: Located
    makers: tuple[Maker, ...]

    @property
    def tools(self) -> tuple[str, ...]:
        return tuple(call.name for call in self.calls)

    def draw(self, rng: random.Random, held: bool) -> Draw:
        values = _drawn(self.makers, rng, held)
        arguments: list[Any] = [copy.deepcopy(dict(call.arguments)) for call in self.calls]
        for slot, value in zip(self.located.slots, values, strict=True):
            for leaf in slot.leaves:
                _put(arguments, leaf.path, value)
        for weave in self.located.weaves:
            _put(
                arguments,
                weave.path,
                "".join(
                    _number(values[part]) if isinstance(part, int) else part for part in weave.parts
                ),
            )
        calls = tuple(
            ToolCall(call.name, given) for call, given in zip(self.calls, arguments, strict=True)
        )
        return Draw(self.form, tuple(self._pieces(values)), calls)

    def _pieces(self, values: Sequence[Any]) -> Iterator[SlotPiece]:
        spans = [
            (span, value)
            for slot, value in zip(self.located.slots, values, strict=True)
            for span in slot.spans
        ]
        end = 0
        for span, value in sorted(spans, key=lambda pair: pair[0].start):
            if span.start > end:
                yield SlotPiece(self.text[end : span.start])
            yield from span.write(value)
            end = span.end
        if end < len(self.text) or not self.text:
            yield SlotPiece(self.text[end:])


def _drawn(makers: Sequence[Maker], rng: random.Random, held: bool) -> list[Any]:
    """A value from each maker; where there is choice, they differ."""
    values: list[Any] = []
    for make in makers:
        value = make(rng, held)
        for _ in range(_TRIES):
            if isinstance(value, bool) or value not in values:
                break
            value = make(rng, held)
        values.append(value)
    return values


def _number(value: Any) -> str:
    return value if isinstance(value, str) else spellings(value)[EXACT]


def _put(root: Any, path: Steps, value: Any) -> None:
    for step in path[:-1]:
        root = root[step]
    root[path[-1]] = copy.deepcopy(value)


def phrases_of(
    example: CanonicalExample,
    drawers: Mapping[str, Drawer],
    kept: Collection[tuple[str, Steps]],
    verbs: Collection[str],
) -> list[ExamplePhrase]:
    """The phrase of an example and, for each optional argument whose words can go, the phrase without it."""
    form, core = core_of(example.query, verbs)
    phrase = _phrase(form, core, example.calls, drawers, kept)
    shorter = [
        _phrase(form, text, calls, drawers, kept)
        for slot in phrase.located.slots
        for text, calls in _without(phrase, slot, drawers)
    ]
    return [phrase, *(found for found in shorter if not found.located.stuck)]


def _phrase(
    form: Form,
    text: str,
    calls: tuple[ToolCall, ...],
    drawers: Mapping[str, Drawer],
    kept: Collection[tuple[str, Steps]],
) -> ExamplePhrase:
    leaves: list[Leaf] = []
    for index, call in enumerate(calls):
        schemas = drawers[call.name].schemas
        for leaf in schemas.leaves(dict(call.arguments)):
            whole = locate(text, [replace(leaf, path=(index, *leaf.path))], frozenset())
            apart = isinstance(leaf.value, list) and leaf.value and not whole.slots
            leaves += [
                replace(part, path=(index, *part.path))
                for part in (schemas.items(leaf) if apart else [leaf])
            ]
    agreed = frozenset(
        leaf.path for leaf in leaves if (calls[int(leaf.path[0])].name, leaf.path[1:]) in kept
    )
    located = locate(text, leaves, agreed)
    slots, makers = [], []
    for slot in located.slots:
        make = _maker(slot, text, calls, drawers)
        slots.append(slot)
        makers.append(make)
    return ExamplePhrase(form, text, calls, replace(located, slots=tuple(slots)), tuple(makers))


def _maker(
    slot: Slot, text: str, calls: Sequence[ToolCall], drawers: Mapping[str, Drawer]
) -> Maker:
    """What draws new values for a slot; the value itself where the schema allows no drawing."""
    if slot.token:
        if slot.token[0].isdigit():
            return lambda rng, _: _as_number(near(slot.token, rng))
        return maker("word", slot.token)
    leaf = slot.leaves[0]
    schema = list_schema(text, leaf) if isinstance(slot.value, list) else leaf.schema
    try:
        return drawers[calls[int(leaf.path[0])].name].maker(schema, leaf.path[1:], slot.value)
    except Undrawable:
        return lambda _rng, _held: slot.value


def _as_number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _without(
    phrase: ExamplePhrase, slot: Slot, drawers: Mapping[str, Drawer]
) -> Iterator[tuple[str, tuple[ToolCall, ...]]]:
    """The text and the calls without an optional argument and the words that go with it: ` at 7 pm`, ` for 3 nights`."""
    if len(slot.leaves) != 1 or len(slot.spans) != 1 or len(slot.leaves[0].path) != 2:
        return
    (index, name), span = slot.leaves[0].path, slot.spans[0]
    call = phrase.calls[int(index)]
    if name in (
        drawers[call.name]
        .schemas.fitting(drawers[call.name].root, dict(call.arguments))
        .get("required")
        or ()
    ):
        return
    before = _BEFORE.search(phrase.text[: span.start])
    after = _AFTER.match(phrase.text[span.end :])
    if before is None or after is None or (after[1] and not isinstance(slot.value, int | float)):
        return
    gone = SlotSpan(before.start(), span.end + after.end(), span.write)
    if any(
        gone.touches(other) for one in phrase.located.slots for other in one.spans if other != span
    ):
        return
    given = {key: value for key, value in call.arguments.items() if key != name}
    calls = tuple(ToolCall(call.name, given) if one is call else one for one in phrase.calls)
    yield phrase.text[: gone.start] + phrase.text[gone.end :], calls


def ambiguous(pieces: Sequence[SlotPiece]) -> str:
    """The first value that stands oftener in the question than it was put there, or not at all; "" when all can be told apart."""
    text = "".join(piece.text for piece in pieces)
    values = [piece.value for piece in pieces if piece.filled and not isinstance(piece.value, bool)]
    wanted = Counter(_number(value).lower() for value in values)
    for value in values:
        if len(places(text, value)) != wanted[_number(value).lower()]:
            return _number(value)
    return ""
