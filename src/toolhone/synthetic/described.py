"""Tools without an example, put into words by their names and descriptions.

    phrase = DescribedPhrase(tool, Drawer(tool))
    phrase.draw(random.Random(0), False)     # "reserve a table: people 4", book(people=4)

The question lists the arguments under the names of their parameters, so it is stiff but never wrong; optional arguments are
sometimes left out, and then not mentioned. Training and held-out questions use different forms (`presets/manual.json`,
"described", "pairs").
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from functools import cached_property

from toolhone.schema import Json, Tool, ToolCall
from toolhone.synthetic.paraphrase import Form
from toolhone.synthetic.phrases import Draw
from toolhone.synthetic.schema_sampler import Drawer
from toolhone.synthetic.schemas import Leaf, Steps
from toolhone.synthetic.slots import SlotPiece
from toolhone.synthetic.spelling import EXACT, is_date, is_time, spellings
from toolhone.synthetic.text_kinds import material, words_of

_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
]
_LONGEST = 12
"""A description with more words than this in its first sentence is no command."""


class DescribedPhrase:
    """Questions for one tool, made of its schema."""

    def __init__(self, tool: Tool, drawer: Drawer) -> None:
        self._tool, self._drawer = tool, drawer
        self._arguments = drawer.arguments()

    @property
    def tools(self) -> tuple[str, ...]:
        return (self._tool.name,)

    def draw(self, rng: random.Random, held: bool) -> Draw:
        arguments = self._arguments(rng, held)
        name = "held_out" if held else "train"
        said = list(self._said(arguments, rng.choice(material()["pairs"][name]), rng))
        template = rng.choice(material()["described"][name])
        before, _, after = template.partition("{args}")
        if not said:
            before = re.sub(r"(:|, where|,| with| using| given| on) $", "", before)
        before = before.replace("{what}", self._command).replace("{tool}", self._called)
        pieces = [SlotPiece(before), *said] + ([SlotPiece(after)] if after else [])
        return Draw(Form.DO, tuple(pieces), (ToolCall(self._tool.name, arguments),))

    @cached_property
    def _called(self) -> str:
        return " ".join(words_of(self._tool.name)) or self._tool.name

    @cached_property
    def _command(self) -> str:
        return command_of(self._tool.description, material()["verbs"]) or f"use {self._called}"

    def _said(self, arguments: dict[str, Json], pair: str, rng: random.Random) -> list[SlotPiece]:
        leaves = [
            leaf
            for leaf in self._drawer.schemas.leaves(arguments)
            if leaf.value not in (None, [], {}, "")
        ]
        spoken = rng.random() < 0.5
        pieces: list[SlotPiece] = []
        before, _, after = pair.partition("{value}")
        for index, leaf in enumerate(leaves):
            comma = (
                ""
                if not index
                else " and "
                if index == len(leaves) - 1 and rng.random() < 0.5
                else ", "
            )
            pieces.append(SlotPiece(comma + before.replace("{name}", spoken_name(leaf.path))))
            pieces += _written(leaf, spoken, rng)
            pieces += [SlotPiece(after)] if after else []
        return pieces


def command_of(description: str, verbs: Collection[str]) -> str:
    """The first sentence of a description as a command ("Gets the weather." -> "get the weather"); "" where it is none."""
    sentence = re.split(r"[.:;\n(]", description.strip(), maxsplit=1)[0].strip()
    first, _, rest = sentence.partition(" ")
    verb = first.lower()
    verb = next(
        (way for way in (verb, verb.removesuffix("s"), verb.removesuffix("es")) if way in verbs), ""
    )
    return f"{verb} {rest}".strip() if verb and len(sentence.split()) <= _LONGEST else ""


def spoken_name(path: Steps) -> str:
    """`("guests", 1, "first_name")` -> "second guest first name"."""
    words: list[str] = []
    for step, following in zip(path, (*path[1:], ""), strict=True):
        if isinstance(step, int):
            continue
        own = words_of(step) or [step]
        if isinstance(following, int):
            nth = _ORDINALS[following] if following < len(_ORDINALS) else "next"
            own = [
                nth,
                *own[:-1],
                own[-1][:-1] if own[-1].endswith("s") and len(own[-1]) > 3 else own[-1],
            ]
        words += own
    return " ".join(words)


def _written(leaf: Leaf, spoken: bool, rng: random.Random) -> Sequence[SlotPiece]:
    if not isinstance(leaf.value, list):
        return [_one(leaf.value, spoken, "enum" in leaf.schema, rng)]
    pieces: list[SlotPiece] = []
    for index, item in enumerate(leaf.value):
        if index:
            pieces.append(SlotPiece(" and " if index == len(leaf.value) - 1 else ", "))
        pieces.append(_one(item, spoken, False, rng))
    return pieces


def _one(value: Json, spoken: bool, choice: bool, rng: random.Random) -> SlotPiece:
    """A value as it is, or as spoken: dates and times in words, a choice `window_seat` as "window seat"; long texts in quotes."""
    known = spellings(value)
    text = known[EXACT]
    if spoken and isinstance(value, bool):
        text = known["yes or no"]
    elif spoken and (is_date(value) or is_time(value) or (choice and "spaced" in known)):
        text = rng.choice(list(known.values()))
    if isinstance(value, str) and len(value.split()) > 2 and '"' not in value:
        text = f'"{value}"'
    return SlotPiece(text, True, value)
