"""Other words for the same question: openings, endings and other verbs around what must not change.

    form, core = core_of("Could you book a table for 4, please?", verbs)    # Form.DO, "book a table for 4"
    Frames("train").question([(form, pieces)], rng)      # [Piece("please "), Piece("reserve a table for "), Piece("4", ...), ...]

Only words between filled values are touched, and of them only those at the very beginning. Openings and endings of questions,
commands and noun phrases are those of `presets/phrasings.json`; sentences of any other build get the few of
`presets/manual.json`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from toolhone.data.phrasings import phrasings
from toolhone.synthetic.slots import SlotPiece
from toolhone.synthetic.text_kinds import material

_COURTESY = re.compile(
    r"(?:(?:please|kindly|hey|hi|hello|ok|so|now)\b[,!]? |"
    r"(?:can|could|would|will) you (?:please )?|(?:i want|i need|i would like|i'd like) you to )",
    re.IGNORECASE,
)
_THANKS = re.compile(r"(?:,? (?:please|thanks|thank you|for me))*\s*[.?!]*$", re.IGNORECASE)
_ASKING = frozenset(
    (
        "what",
        "what's",
        "whats",
        "which",
        "who",
        "who's",
        "whose",
        "whom",
        "when",
        "where",
        "where's",
        "how",
        "how's",
        "why",
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "am",
        "can",
        "could",
        "will",
        "would",
        "should",
        "may",
        "shall",
    )
)
_SWAPPED = 0.35


class Form(StrEnum):
    """How a question is built: what openings and endings go with it."""

    ASK = "ask"
    """A question: what is ..."""
    DO = "do"
    """A command: book ..."""
    NAME = "name"
    """A noun phrase: the weather in ..."""
    PLAIN = "plain"
    """Anything else; it keeps its own punctuation."""


def core_of(query: str, verbs: Collection[str]) -> tuple[Form, str]:
    """The build of a question, and what is left of it without courtesies at both ends (a plain one stays whole)."""
    bare = query
    while match := _COURTESY.match(bare):
        bare = bare[match.end() :]
    bare = bare[: max(1, _THANKS.search(bare).start())] if _THANKS.search(bare) else bare  # type: ignore[union-attr]
    first = re.split(r"[\s,:]", bare, maxsplit=1)[0].lower()
    if re.search(r"[.?!;:]\s", bare) or not bare.strip():
        return Form.PLAIN, query
    if first in _ASKING:
        return Form.ASK, bare
    if first in verbs:
        return Form.DO, bare
    if first in ("the", "a", "an", "my"):
        return Form.NAME, bare
    return Form.PLAIN, query


class Frames:
    """Openings, endings, links and other verbs of one set ("train" or "held_out"); `protected` are words that must stay."""

    def __init__(self, name: str, protected: Collection[str] = ()) -> None:
        frames = {**phrasings()["frames"][name], "plain": material()["plain"][name]}
        self._openings = {form: _nameless(frames[form.value]["openings"]) for form in Form}
        self._endings = {form: _nameless(frames[form.value]["endings"]) for form in Form}
        self._joins: list[str] = frames["joins"]
        self._links: list[str] = material()["links"][name]
        swaps: Mapping[str, list[str]] = material()["swaps"][name]
        kept = set(protected)
        self._swaps = {
            word: ways
            for word, ways in swaps.items()
            if not kept & set(" ".join((word, *ways)).split())
        }

    def question(
        self, parts: Sequence[tuple[Form, Sequence[SlotPiece]]], rng: random.Random
    ) -> list[SlotPiece]:
        """One question that asks for all the parts, between an opening and an ending."""
        form = parts[0][0]
        swapped = [(other, self._swapped(pieces, rng)) for other, pieces in parts]
        if any(other is not form for other, _ in parts) or (len(parts) > 1 and form is Form.PLAIN):
            form, pieces = Form.PLAIN, self._linked(swapped, rng)
        else:
            pieces = list(swapped[0][1])
            for _, more in swapped[1:]:
                pieces += [SlotPiece(rng.choice(self._joins)), *lowered(more)]
        opening, ending = rng.choice(self._openings[form]), rng.choice(self._endings[form])
        return [SlotPiece(opening), *(lowered(pieces) if opening else pieces), SlotPiece(ending)]

    def _linked(
        self, parts: Sequence[tuple[Form, Sequence[SlotPiece]]], rng: random.Random
    ) -> list[SlotPiece]:
        """Sentences one after the other, each with its own end."""
        pieces: list[SlotPiece] = []
        for index, (form, own) in enumerate(parts):
            link = [SlotPiece(" " + rng.choice(self._links))] if index else []
            pieces += [*link, *(lowered(own) if index else own), SlotPiece(_end(form, own))]
        return pieces

    def _swapped(self, pieces: Sequence[SlotPiece], rng: random.Random) -> list[SlotPiece]:
        """The pieces with another verb at the beginning, if there is one."""
        if not pieces or pieces[0].filled or rng.random() >= _SWAPPED:
            return list(pieces)
        first = pieces[0].text
        for words, ways in self._swaps.items():
            if first.lower().startswith(words + " "):
                way = rng.choice(ways)
                way = way.capitalize() if first[0].isupper() else way
                return [SlotPiece(way + first[len(words) :]), *pieces[1:]]
        return list(pieces)


def _nameless(choices: Sequence[str]) -> list[str]:
    """Those that name nobody: a name might be taken for an argument."""
    return [choice for choice in choices if "{" not in choice]


def _end(form: Form, pieces: Sequence[SlotPiece]) -> str:
    if pieces and pieces[-1].text.rstrip()[-1:] in (".", "?", "!"):
        return ""
    return "?" if form is Form.ASK else "."


def lowered(pieces: Sequence[SlotPiece]) -> list[SlotPiece]:
    """The pieces with a small letter first, unless a value, a name in capitals or "I" is there."""
    first = pieces[0]
    word = re.match(r"[A-Z][a-z']*(?![A-Z\d_])", first.text)
    if first.filled or word is None or word[0] in ("I", "I'm", "I'd", "I've", "I'll"):
        return list(pieces)
    return [SlotPiece(first.text[0].lower() + first.text[1:]), *pieces[1:]]
