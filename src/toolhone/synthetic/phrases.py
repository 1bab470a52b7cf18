"""What can be asked in many ways: examples, and the built-in requests.

    phrases = example_phrases(example, samplers, kept, verbs)
    draw = phrases[0].draw(random.Random(0), held=False)
    draw.pieces, draw.calls             # the question, not framed yet, and the calls of one draw
    ambiguous(draw.pieces)              # "", or a value that the question has in another place too

An example whose values cannot be replaced safely is used word for word.
"""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from toolhone.config.phrasings import Intent, Wording, intents, word_lists
from toolhone.schema import Tool, ToolCall
from toolhone.synthetic.examples import CanonicalExample
from toolhone.synthetic.paraphrase import Form, core_of
from toolhone.synthetic.slots import (
    EXACT,
    Located,
    Slot,
    SlotPiece,
    as_number,
    locate,
    places,
    spellings,
)
from toolhone.tools.number_maker import Undrawable
from toolhone.tools.relations import Relation, relate
from toolhone.tools.schema_sampler import Leaf, Maker, SchemaSampler, Steps, constant
from toolhone.tools.text_kinds import near, text_maker, words_of

Samplers = Mapping[str, SchemaSampler]
_TRIES = 10
_REAL = 0.9
"""Share of names and words that exist, in built-in requests to own tools."""
_BEFORE = re.compile(
    r"\s(in|on|at|for|with|to|from|by|under|until|around)\s(the\s|a\s)?$", re.IGNORECASE
)
_AFTER = re.compile(
    r"(\s\w+)??(?=$|[.,?!]|\s(?:in|on|at|for|with|to|from|by|under|until|and|please)\b)",
    re.IGNORECASE,
)


class Draw(NamedTuple):
    """A question, not framed yet, and its calls. core: its phrasing, where the pieces lack it."""

    form: Form
    pieces: tuple[SlotPiece, ...]
    calls: tuple[ToolCall, ...]
    core: str = ""

    @property
    def phrasing(self) -> str:
        """The question with `{}` in place of its values."""
        return self.core or "".join("{}" if one.filled else one.text for one in self.pieces)


@dataclass(frozen=True)
class ExamplePhrase:
    """The words of an example, and a maker for each slot; relations name slots by their number."""

    form: Form
    text: str
    calls: tuple[ToolCall, ...]
    located: Located
    makers: tuple[Maker, ...]
    relations: tuple[Relation, ...] = ()

    def draw(self, rng: random.Random, held: bool) -> Draw:
        """Draw values, which differ where there is choice."""
        values: list[Any] = []
        for make in self.makers:
            value = make(rng, held)
            for _ in range(_TRIES):
                if isinstance(value, bool) or value not in values:
                    break
                value = make(rng, held)
            values.append(value)
        numbered = {str(index): value for index, value in enumerate(values)}
        relate(numbered, self.relations, lambda n: self.makers[int(n)](rng, held), rng, held)
        values = list(numbered.values())
        arguments: list[Any] = [copy.deepcopy(dict(call.arguments)) for call in self.calls]
        for slot, value in zip(self.located.slots, values, strict=True):
            for leaf in slot.leaves:
                _put(arguments, leaf.path, value)
        for weave in self.located.weaves:
            parts = [_exact(values[one]) if isinstance(one, int) else one for one in weave.parts]
            _put(arguments, weave.path, "".join(parts))
        pairs = zip(self.calls, arguments, strict=True)
        calls = tuple(ToolCall(call.name, own) for call, own in pairs)
        return Draw(self.form, tuple(self._pieces(values)), calls)

    def _pieces(self, values: Sequence[Any]) -> Iterator[SlotPiece]:
        pairs = zip(self.located.slots, values, strict=True)
        spans = [(span, value) for slot, value in pairs for span in slot.spans]
        end = 0
        for span, value in sorted(spans, key=lambda pair: pair[0].start):
            if span.start > end:
                yield SlotPiece(self.text[end : span.start])
            yield from span.write(value)
            end = span.end
        if end < len(self.text) or not self.text:
            yield SlotPiece(self.text[end:])

    def shorter(self, slot: Slot, samplers: Samplers) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Return text and calls without an optional argument and its words, such as ` at 7 pm`."""
        if len(slot.leaves) != 1 or len(slot.spans) != 1 or len(slot.leaves[0].path) != 2:
            return None
        (index, name), span = slot.leaves[0].path, slot.spans[0]
        call = self.calls[int(index)]
        schemas = samplers[call.name].schemas
        schema = schemas.fitting(schemas.root, dict(call.arguments))
        before = _BEFORE.search(self.text[: span.start])
        after = _AFTER.match(self.text[span.end :])
        if name in (schema.get("required") or ()) or before is None or after is None:
            return None
        if after[1] and not isinstance(slot.value, int | float):
            return None
        gone = span._replace(start=before.start(), end=span.end + after.end())
        others = [other for one in self.located.slots for other in one.spans if other != span]
        if gone.touches(others):
            return None
        left = {key: value for key, value in call.arguments.items() if key != name}
        calls = tuple(ToolCall(call.name, left) if one is call else one for one in self.calls)
        return self.text[: gone.start] + self.text[gone.end :], calls


def _exact(value: Any) -> str:
    return value if isinstance(value, str) else spellings(value)[EXACT]


def _put(root: Any, path: Steps, value: Any) -> None:
    for step in path[:-1]:
        root = root[step]
    root[path[-1]] = copy.deepcopy(value)


def example_phrases(
    example: CanonicalExample,
    samplers: Samplers,
    kept: Collection[tuple[str, Steps]],
    verbs: Collection[str],
) -> list[ExamplePhrase]:
    """Return the phrase of an example, and the phrases without one of its optional arguments."""
    form, core = core_of(example.query, verbs)
    phrase = _example_phrase(form, core, example.calls, samplers, kept)
    shorter = [phrase.shorter(slot, samplers) for slot in phrase.located.slots]
    others = [_example_phrase(form, *found, samplers, kept) for found in shorter if found]
    return [phrase, *(other for other in others if not other.located.stuck)]


def _example_phrase(
    form: Form,
    text: str,
    calls: tuple[ToolCall, ...],
    samplers: Samplers,
    kept: Collection[tuple[str, Steps]],
) -> ExamplePhrase:
    leaves: list[Leaf] = []
    for index, call in enumerate(calls):
        schemas = samplers[call.name].schemas
        for leaf in schemas.leaves(dict(call.arguments)):
            parts = [leaf]
            if isinstance(leaf.value, list) and leaf.value:
                whole = locate(text, [replace(leaf, path=(index, *leaf.path))], ())
                parts = [leaf] if whole.slots else list(schemas.items(leaf))
            leaves += [replace(part, path=(index, *part.path)) for part in parts]
    paths = [leaf.path for leaf in leaves]
    agreed = [path for path in paths if (calls[int(path[0])].name, path[1:]) in kept]
    located = locate(text, leaves, agreed)
    makers = tuple(_slot_maker(slot, text, calls, samplers) for slot in located.slots)
    # Slots that each fill one property of the same object keep its relations.
    places = {one.leaves[0].path: n for n, one in enumerate(located.slots) if len(one.leaves) == 1}
    relations: list[Relation] = []
    for parent in {path[:-1] for path in places}:
        names = [str(path[-1]) for path in places if path[:-1] == parent]
        for one in samplers[calls[int(parent[0])].name].relations(parent[1:], names):
            first, second = (str(places[(*parent, name)]) for name in (one.first, one.second))
            relations.append(Relation(first, second, one.sign))
    return ExamplePhrase(form, text, calls, located, makers, tuple(relations))


def _slot_maker(slot: Slot, text: str, calls: Sequence[ToolCall], samplers: Samplers) -> Maker:
    """Return the maker of a slot; the value itself where the schema allows no drawing.

    Of a list, one item stays one; a number that the question names ("both", "the three") stays.
    """
    if slot.token and slot.token[0].isdigit():
        return lambda rng, _: as_number(near(slot.token, rng))
    if slot.token:
        return text_maker("word", slot.token)
    (index, *path), schema = slot.leaves[0].path, slot.leaves[0].schema
    if isinstance(slot.value, list):
        count = len(slot.value)
        pair = re.search(r"\b(both|pair)\b", text, re.IGNORECASE)
        fixed = count == 1 or pair or places(text, count)
        schema = {**schema, "minItems": max(2, int(schema.get("minItems", 0)))}
        schema |= {"minItems": count, "maxItems": count} if fixed else {}
    try:
        return samplers[calls[int(index)].name].maker(schema, tuple(path), slot.value)
    except Undrawable:
        return constant(slot.value)


def ambiguous(pieces: Sequence[SlotPiece]) -> str:
    """Return the first value that the question does not have exactly where it was put, or ""."""
    text = "".join(piece.text for piece in pieces)
    values = [piece.value for piece in pieces if piece.filled and not isinstance(piece.value, bool)]
    wanted = Counter(_exact(value).lower() for value in values)
    wrong = (one for one in values if len(places(text, one)) != wanted[_exact(one).lower()])
    return next(map(_exact, wrong), "")


@dataclass(frozen=True)
class IntentPhrase:
    """A request of the built-in templates to a tool of the same kind; `renamed` maps parameters."""

    tool: Tool
    intent: Intent
    renamed: Mapping[str, str]

    def draw(self, rng: random.Random, held: bool) -> Draw:
        """Draw a request in words of the set, and its call under the tool's own names."""
        name = "held_out" if held else "train"
        request = Wording(name, name, rng, _REAL).request(self.intent)
        pairs = [pair for call in request.calls for pair in call.arguments.items()]
        arguments = {self.renamed.get(key, key): value for key, value in pairs}
        calls = (ToolCall(self.tool.name, arguments),)
        return Draw(Form(request.form), (SlotPiece(request.text),), calls, request.core)


def builtin_phrases(tool: Tool) -> list[IntentPhrase]:
    """Return the built-in requests for a tool of a known kind, by its words and parameters.

    Both sets have phrasings of them, and the calls of some draws obey the tool's schema.
    """
    words = f"{' '.join(words_of(tool.name))} {tool.description}"
    for category, known in word_lists("manual")["builtin"].items():
        main = next((name for name in known["main"] if name in tool.properties), None)
        if main is None or not re.search(known["words"], words, re.IGNORECASE):
            continue
        fitting = [
            IntentPhrase(tool, intent, {known["main"][0]: main})
            for intent in intents()
            if intent.category == category and intent.cores["train"] and intent.cores["held_out"]
        ]
        phrases = []
        for phrase in fitting:
            draws = [phrase.draw(random.Random(i), False).calls[0].arguments for i in range(5)]
            declared = all(arguments.keys() <= tool.properties.keys() for arguments in draws)
            phrases += [phrase] if declared and not any(map(tool.problems, draws)) else []
        return phrases
    return []
