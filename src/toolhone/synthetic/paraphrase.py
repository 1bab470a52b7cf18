"""Other words for the same question: openings, endings and other verbs around the values.

    form, core = core_of("Could you book a table for 4, please?", verbs)    # Form.DO, "book ..."
    Frames("train").question([(form, pieces)], rng)      # "please reserve a table for 4"
    SmallTalk(tools).draw(rng, False)                   # a question that no tool is for, its answer

Only words between values are touched, and of them only those at the very beginning.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, cast

from toolhone.config.phrasings import Fillers, Wording, intents, word_lists
from toolhone.schema import Tool
from toolhone.synthetic.slots import SlotPiece
from toolhone.tools.text_kinds import words_of

_COURTESY = re.compile(
    r"(?:(?:please|kindly|hey|hi|hello|ok|so|now)\b[,!]? |"
    r"(?:can|could|would|will) you (?:please )?|(?:i want|i need|i would like|i'd like) you to )",
    re.IGNORECASE,
)
_THANKS = re.compile(r"(?:,? (?:please|thanks|thank you|for me))*\s*[.?!]*$", re.IGNORECASE)
_ASKS = re.compile(r"\b(?:can|could|would|will) you\b", re.IGNORECASE)
_SWAPPED = 0.35
_LONGEST_COMMAND = 12
"""Words of a description's first sentence, at most, that make it a command."""
_FROM_EXAMPLES = 0.5
_BEYOND, _PLAIN = 0.4, 0.4
"""Shares of what asks for something beyond the tools, and of plain questions with full answers, of
all talk that no example shows; the rest is small talk."""
_SMALL_TALK = ("chat.greet", "chat.place", "chat.hello", "chat.bye", "chat.mood")
_REAL = 1.0
"""Share of names and words that exist."""


@cache
def plain_talk() -> dict[str, Any]:
    """Return the plain questions of each split with their answers, and the refusals."""
    file = resources.files("toolhone.synthetic") / "plain_talk.json"
    return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))


class Form(StrEnum):
    """How a question is built: what is ..., book ..., the weather in ..., or anything else."""

    ASK = "ask"
    DO = "do"
    NAME = "name"
    PLAIN = "plain"


Part = tuple[Form, Sequence[SlotPiece]]


def core_of(query: str, verbs: Collection[str]) -> tuple[Form, str]:
    """Return the form of a question, and the question without courtesies; a plain one stays."""
    bare = query
    while match := _COURTESY.match(bare):
        bare = bare[match.end() :]
    if thanks := _THANKS.search(bare):
        bare = bare[: max(1, thanks.start())]
    first = re.split(r"[\s,:]", bare, maxsplit=1)[0].lower()
    if re.search(r"[.?!;:]\s", bare) or not bare.strip():
        return Form.PLAIN, query
    if first in word_lists("manual")["asking"]:
        return Form.ASK, bare
    if first in verbs:
        return Form.DO, bare
    return (Form.NAME, bare) if first in ("the", "a", "an", "my") else (Form.PLAIN, query)


def command_of(description: str, verbs: Collection[str]) -> str:
    """Turn "Gets the weather. Uses ..." into "get the weather"; "" where it is no command."""
    sentence = re.split(r"[.:;\n(]", description.strip(), maxsplit=1)[0].strip()
    first, _, rest = sentence.partition(" ")
    verb = first.lower()
    stems = (verb, verb.removesuffix("s"), verb.removesuffix("es"))
    verb = next((stem for stem in stems if stem in verbs), "")
    return f"{verb} {rest}".strip() if verb and len(sentence.split()) <= _LONGEST_COMMAND else ""


class Frames:
    """Openings, endings, links and other verbs of one set; `protected` words stay."""

    def __init__(self, name: str, protected: Collection[str] = ()) -> None:
        lists = word_lists("manual")
        frames = {**word_lists("phrasings")["frames"][name], "plain": lists["plain"][name]}
        # A name in a frame might be taken for an argument.
        self._openings, self._endings = (
            {form: [text for text in frames[form.value][end] if "{" not in text] for form in Form}
            for end in ("openings", "endings")
        )
        self._joins: list[str] = frames["joins"]
        self._links: list[str] = lists["links"][name]
        swaps: dict[str, list[str]] = lists["swaps"][name]
        texts = {words: " ".join((words, *ways)).split() for words, ways in swaps.items()}
        self._swaps = {
            words: ways for words, ways in swaps.items() if not {*protected} & {*texts[words]}
        }

    def question(self, parts: Sequence[Part], rng: random.Random) -> list[SlotPiece]:
        """Return one question for all the parts, between an opening and an ending."""
        form = parts[0][0]
        swapped = [(other, self._swap_verb(pieces, rng)) for other, pieces in parts]
        if any(other is not form for other, _ in parts) or (len(parts) > 1 and form is Form.PLAIN):
            form, pieces = Form.PLAIN, self._link(swapped, rng)
        else:
            pieces = list(swapped[0][1])
            for _, more in swapped[1:]:
                pieces += [SlotPiece(rng.choice(self._joins)), *_lower_first(more)]
        opening = rng.choice(self._openings[form])
        said = opening + "".join(piece.text for piece in pieces)
        # One "please" is enough, and a command is no question.
        pleads, asks = "please" in said, form is not Form.DO or bool(_ASKS.search(opening))
        fitting = [
            one
            for one in self._endings[form]
            if not (pleads and "please" in one) and (asks or "?" not in one)
        ]
        ending = rng.choice(fitting)
        inner = _lower_first(pieces) if opening else pieces
        return [SlotPiece(opening), *inner, SlotPiece(ending)]

    def _link(self, parts: Sequence[Part], rng: random.Random) -> list[SlotPiece]:
        """Return sentences one after the other, each with its own end."""
        pieces: list[SlotPiece] = []
        for index, (form, own) in enumerate(parts):
            if index:
                pieces.append(SlotPiece(" " + rng.choice(self._links)))
            ended = bool(own) and own[-1].text.rstrip()[-1:] in (".", "?", "!")
            end = "" if ended else "?" if form is Form.ASK else "."
            pieces += [*(_lower_first(own) if index else own), SlotPiece(end)]
        return pieces

    def _swap_verb(self, pieces: Sequence[SlotPiece], rng: random.Random) -> Sequence[SlotPiece]:
        """Return the pieces, at times with another verb at the beginning."""
        if not pieces or pieces[0].filled or rng.random() >= _SWAPPED:
            return pieces
        first = pieces[0].text
        words = next((one for one in self._swaps if first.lower().startswith(one + " ")), None)
        if words is None:
            return pieces
        way = rng.choice(self._swaps[words])
        way = way.capitalize() if first[0].isupper() else way
        return [SlotPiece(way + first[len(words) :]), *pieces[1:]]


def _lower_first(pieces: Sequence[SlotPiece]) -> list[SlotPiece]:
    """Lower the first letter, unless it begins a value, a name in capitals or "I"."""
    first = pieces[0]
    word = re.match(r"[A-Z][a-z']*(?![A-Z\d_])", first.text)
    if first.filled or word is None or word[0] in ("I", "I'm", "I'd", "I've", "I'll"):
        return list(pieces)
    return [SlotPiece(first.text[0].lower() + first.text[1:]), *pieces[1:]]


class SmallTalk:
    """Questions that need no tool, and their answers; `examples` are form, question and answer."""

    def __init__(
        self, tools: Sequence[Tool], examples: Iterable[tuple[Form, str, str]] = ()
    ) -> None:
        self._examples = list(examples)
        verbs = word_lists("manual")["verbs"]
        self._offers = [
            command_of(tool.description, verbs) or f"use {' '.join(words_of(tool.name))}"
            for tool in tools
        ]
        texts: list[str] = []
        for tool in tools:
            texts += (tool.name, tool.description, *tool.properties)
            for schema in tool.properties.values():
                texts += (str(schema.get("description") or ""), *map(str, schema.get("enum") or ()))
        words = {word for text in texts for word in words_of(text)}
        # Also the beginnings of words, so that `rental` covers `rent`.
        offered = {word[:end] for word in words for end in range(3, len(word) + 1)} | words
        self._beyond = {
            name: [entry for entry in entries if not offered & set(entry["words"])]
            for name, entries in word_lists("manual")["beyond"].items()
        }

    def draw(self, rng: random.Random, held: bool) -> tuple[str, str, str]:
        """Return a whole question, framed; the assistant's answer; and the question's phrasing."""
        name, lists = "held_out" if held else "train", word_lists("manual")
        if self._examples and rng.random() < _FROM_EXAMPLES:
            form, text, answer = rng.choice(self._examples)
            question = _framed(text, form, name, rng)
            return question, answer or rng.choice(lists["replies"]), text
        chance = rng.random()
        if self._beyond[name] and chance < _BEYOND:
            entry = rng.choice(self._beyond[name])
            slots = {kind: kind for kind in re.findall(r"{(\w+)}", entry["text"])}
            text = entry["text"].format_map(Fillers(name, rng, _REAL).draw(slots))
            question = _framed(text, Form(entry["form"]), name, rng)
            can = " or ".join(rng.sample(self._offers, min(2, len(self._offers))))
            refusal = str(rng.choice(plain_talk()["refusals"])).format(can=can)
            return question, refusal, entry["text"]
        if chance < _BEYOND + _PLAIN:
            entry = rng.choice(plain_talk()[name])
            question = _framed(entry["text"], Form(entry["form"]), name, rng)
            return question, entry["answer"], entry["text"]
        wording = Wording(name, name, rng, _REAL)
        # Some answers name the embedded model, others fit a demo alone.
        talk = [intent for intent in intents() if intent.category == "no_tool"]
        modest = [one for one in talk if one.name in _SMALL_TALK]
        request = wording.request(wording.pick(modest))
        return wording.question([request]), request.answer([]), request.core


def _framed(text: str, form: Form, split: str, rng: random.Random) -> str:
    pieces = Frames(split).question([(form, [SlotPiece(text)])], rng)
    return "".join(piece.text for piece in pieces)
