"""What can be asked in many ways: examples, tools described by their schema, built-in requests.

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
from typing import Any, NamedTuple, Protocol

from toolhone.data.phrasings import Intent, Wording, intents
from toolhone.schema import Json, Tool, ToolCall
from toolhone.synthetic.examples import CanonicalExample
from toolhone.synthetic.paraphrase import Form, core_of
from toolhone.synthetic.schema_sampler import Maker, SchemaSampler, Undrawable
from toolhone.synthetic.schemas import Leaf, Steps
from toolhone.synthetic.slots import (
    Located,
    Slot,
    SlotPiece,
    SlotSpan,
    as_number,
    list_schema,
    locate,
)
from toolhone.synthetic.spelling import EXACT, is_date, is_time, places, spellings
from toolhone.synthetic.text_kinds import material, near, text_maker, words_of

Samplers = Mapping[str, SchemaSampler]
_TRIES = 10
_BEFORE = re.compile(
    r"\s(in|on|at|for|with|to|from|by|under|until|around)\s(the\s|a\s)?$", re.IGNORECASE
)
_AFTER = re.compile(
    r"(\s\w+)??(?=$|[.,?!]|\s(?:in|on|at|for|with|to|from|by|under|until|and|please)\b)",
    re.IGNORECASE,
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_LONGEST_COMMAND = 12
"""Words of a description's first sentence, at most, that make it a command."""
_BUILTIN_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "calculator": (r"calc|arithmetic|math|comput|evaluat", ("expression",)),
    "python": (r"python", ("code",)),
    "weather": (r"weather|forecast|temperature", ("city", "location", "place")),
    "search": (r"search|look up|find", ("query", "q")),
}
"""Built-in tool -> the words of a tool of its kind, and the names of its main parameter."""


class Draw(NamedTuple):
    """A question, not framed yet, and its calls."""

    form: Form
    pieces: tuple[SlotPiece, ...]
    calls: tuple[ToolCall, ...]


class Phrase(Protocol):
    """Something that can be asked in many ways."""

    def draw(self, rng: random.Random, held: bool) -> Draw: ...


@dataclass(frozen=True)
class ExamplePhrase:
    """The words of an example, and a maker for each slot."""

    form: Form
    text: str
    calls: tuple[ToolCall, ...]
    located: Located
    makers: tuple[Maker, ...]

    def draw(self, rng: random.Random, held: bool) -> Draw:
        values: list[Any] = []
        for make in self.makers:  # where there is choice, values differ
            value = make(rng, held)
            for _ in range(_TRIES):
                if isinstance(value, bool) or value not in values:
                    break
                value = make(rng, held)
            values.append(value)
        arguments: list[Any] = [copy.deepcopy(dict(call.arguments)) for call in self.calls]
        for slot, value in zip(self.located.slots, values, strict=True):
            for leaf in slot.leaves:
                _put(arguments, leaf.path, value)
        for weave in self.located.weaves:
            parts = (
                _exact(values[part]) if isinstance(part, int) else part for part in weave.parts
            )
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
    shorter = [
        _example_phrase(form, *found, samplers, kept)
        for slot in phrase.located.slots
        if (found := _leave_out(phrase, slot, samplers))
    ]
    return [phrase, *(found for found in shorter if not found.located.stuck)]


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
                whole = locate(text, [replace(leaf, path=(index, *leaf.path))], frozenset())
                parts = [leaf] if whole.slots else list(schemas.items(leaf))
            leaves += [replace(part, path=(index, *part.path)) for part in parts]
    agreed = [
        leaf.path for leaf in leaves if (calls[int(leaf.path[0])].name, leaf.path[1:]) in kept
    ]
    located = locate(text, leaves, frozenset(agreed))
    makers = tuple(_slot_maker(slot, text, calls, samplers) for slot in located.slots)
    return ExamplePhrase(form, text, calls, located, makers)


def _slot_maker(slot: Slot, text: str, calls: Sequence[ToolCall], samplers: Samplers) -> Maker:
    """Return the maker of a slot; the value itself where the schema allows no drawing."""
    if slot.token and slot.token[0].isdigit():
        return lambda rng, _: as_number(near(slot.token, rng))
    if slot.token:
        return text_maker("word", slot.token)
    leaf = slot.leaves[0]
    schema = list_schema(text, leaf) if isinstance(slot.value, list) else leaf.schema
    sampler = samplers[calls[int(leaf.path[0])].name]
    try:
        return sampler.maker(schema, leaf.path[1:], slot.value)
    except Undrawable:
        return lambda _rng, _held: slot.value


def _leave_out(
    phrase: ExamplePhrase, slot: Slot, samplers: Samplers
) -> tuple[str, tuple[ToolCall, ...]] | None:
    """Return text and calls without an optional argument and its words, such as ` at 7 pm`."""
    if len(slot.leaves) != 1 or len(slot.spans) != 1 or len(slot.leaves[0].path) != 2:
        return None
    (index, name), span = slot.leaves[0].path, slot.spans[0]
    call = phrase.calls[int(index)]
    sampler = samplers[call.name]
    schema = sampler.schemas.fitting(sampler.root, dict(call.arguments))
    before = _BEFORE.search(phrase.text[: span.start])
    after = _AFTER.match(phrase.text[span.end :])
    if name in (schema.get("required") or ()) or before is None or after is None:
        return None
    if after[1] and not isinstance(slot.value, int | float):
        return None
    gone = SlotSpan(before.start(), span.end + after.end(), span.write)
    others = [other for one in phrase.located.slots for other in one.spans if other != span]
    if any(gone.touches(other) for other in others):
        return None
    shorter = {key: value for key, value in call.arguments.items() if key != name}
    calls = tuple(ToolCall(call.name, shorter) if one is call else one for one in phrase.calls)
    return phrase.text[: gone.start] + phrase.text[gone.end :], calls


def ambiguous(pieces: Sequence[SlotPiece]) -> str:
    """Return the first value that the question does not have exactly where it was put, or ""."""
    text = "".join(piece.text for piece in pieces)
    values = [piece.value for piece in pieces if piece.filled and not isinstance(piece.value, bool)]
    wanted = Counter(_exact(value).lower() for value in values)
    for value in values:
        if len(places(text, value)) != wanted[_exact(value).lower()]:
            return _exact(value)
    return ""


@dataclass(frozen=True)
class IntentPhrase:
    """A request of the built-in templates to a tool of the same kind; `renamed` maps parameters."""

    tool: Tool
    intent: Intent
    renamed: Mapping[str, str]

    def draw(self, rng: random.Random, held: bool) -> Draw:
        name = "held_out" if held else "train"
        request = Wording(name, name, rng).request(self.intent)
        pairs = [pair for call in request.calls for pair in call.arguments.items()]
        arguments = {self.renamed.get(key, key): value for key, value in pairs}
        pieces = (SlotPiece(request.text),)
        return Draw(Form(request.form), pieces, (ToolCall(self.tool.name, arguments),))

    @property
    def suits(self) -> bool:
        """Whether both sets have phrasings, and the calls of some draws obey the tool's schema."""
        if not self.intent.cores["train"] or not self.intent.cores["held_out"]:
            return False
        properties = self.tool.parameters.get("properties") or {}
        draws = [self.draw(random.Random(seed), False).calls[0].arguments for seed in range(5)]
        known = all(arguments.keys() <= properties.keys() for arguments in draws)
        return known and not any(map(self.tool.problems, draws))


def builtin_phrases(tool: Tool) -> list[IntentPhrase]:
    """Return the built-in requests for a tool of a known kind, by its words and parameters."""
    properties = tool.parameters.get("properties") or {}
    words = f"{' '.join(words_of(tool.name))} {tool.description}"
    for kind, (pattern, names) in _BUILTIN_KINDS.items():
        main = next((name for name in names if name in properties), None)
        if main is not None and re.search(pattern, words, re.IGNORECASE):
            fitting = [intent for intent in intents() if intent.category == kind]
            found = [IntentPhrase(tool, intent, {names[0]: main}) for intent in fitting]
            return [phrase for phrase in found if phrase.suits]
    return []


class DescribedPhrase:
    """Questions for one tool, made of its schema and description: stiff, but never wrong.

    The question lists the arguments under the names of their parameters.
    """

    def __init__(self, tool: Tool, sampler: SchemaSampler) -> None:
        self._tool, self._schemas = tool, sampler.schemas
        self._arguments = sampler.arguments()
        self._name = " ".join(words_of(tool.name)) or tool.name
        command = command_of(tool.description, material()["verbs"])
        self._command = command or f"use {self._name}"

    def draw(self, rng: random.Random, held: bool) -> Draw:
        arguments = self._arguments(rng, held)
        name = "held_out" if held else "train"
        listed = self._list_arguments(arguments, rng.choice(material()["pairs"][name]), rng)
        before, _, after = rng.choice(material()["described"][name]).partition("{args}")
        if not listed:
            before = re.sub(r"(:|, where|,| with| using| given| on) $", "", before)
        before = before.replace("{what}", self._command).replace("{tool}", self._name)
        pieces = [SlotPiece(before), *listed, *([SlotPiece(after)] if after else [])]
        return Draw(Form.DO, tuple(pieces), (ToolCall(self._tool.name, arguments),))

    def _list_arguments(
        self, arguments: dict[str, Json], pair: str, rng: random.Random
    ) -> list[SlotPiece]:
        leaves = self._schemas.leaves(arguments)
        shown = [leaf for leaf in leaves if leaf.value not in (None, [], {}, "")]
        spoken = rng.random() < 0.5
        pieces: list[SlotPiece] = []
        before, _, after = pair.partition("{value}")
        for index, leaf in enumerate(shown):
            last = index == len(shown) - 1
            comma = "" if not index else " and " if last and rng.random() < 0.5 else ", "
            pieces.append(SlotPiece(comma + before.replace("{name}", spoken_name(leaf.path))))
            items = leaf.value if isinstance(leaf.value, list) else [leaf.value]
            choice = "enum" in leaf.schema and not isinstance(leaf.value, list)
            for number, item in enumerate(items):
                if number:
                    pieces.append(SlotPiece(" and " if number == len(items) - 1 else ", "))
                pieces.append(_speak(item, spoken, choice, rng))
            if after:
                pieces.append(SlotPiece(after))
        return pieces


def command_of(description: str, verbs: Collection[str]) -> str:
    """Turn "Gets the weather. Uses ..." into "get the weather"; "" where it is no command."""
    sentence = re.split(r"[.:;\n(]", description.strip(), maxsplit=1)[0].strip()
    first, _, rest = sentence.partition(" ")
    verb = first.lower()
    stems = (verb, verb.removesuffix("s"), verb.removesuffix("es"))
    verb = next((stem for stem in stems if stem in verbs), "")
    return f"{verb} {rest}".strip() if verb and len(sentence.split()) <= _LONGEST_COMMAND else ""


def spoken_name(path: Steps) -> str:
    """`("guests", 1, "first_name")` -> "second guest first name"."""
    words: list[str] = []
    for step, following in zip(path, (*path[1:], ""), strict=True):
        if isinstance(step, int):
            continue
        own = words_of(step) or [step]
        if isinstance(following, int):
            nth = (_ORDINALS.split()[following : following + 1] or ["next"])[0]
            plural = own[-1].endswith("s") and len(own[-1]) > 3
            own = [nth, *own[:-1], own[-1][:-1] if plural else own[-1]]
        words += own
    return " ".join(words)


def _speak(value: Json, spoken: bool, choice: bool, rng: random.Random) -> SlotPiece:
    """Write a value; if `spoken`, dates, times and choices in words. Long texts are quoted."""
    known = spellings(value)
    text = known[EXACT]
    if spoken and isinstance(value, bool):
        text = known["yes or no"]
    elif spoken and (is_date(value) or is_time(value) or (choice and "spaced" in known)):
        text = rng.choice(list(known.values()))
    if isinstance(value, str) and len(value.split()) > 2 and '"' not in value:
        text = f'"{value}"'
    return SlotPiece(text, True, value)
