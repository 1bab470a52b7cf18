"""Rows for the user's own tools: one call, two calls or none; framed, checked and counted.

    templates = ManualTemplates(tools, examples, seed=0, shares={"one_call": 0.8, "no_call": 0.2})
    templates.conversations(1000)
    templates.tasks(200, "held_out")        # other phrasings, other values

Row i of a split is a pure function of (tools, examples, seed, split, i). Question and calls come
from one draw. Conversations end with the calls; no tool is run.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import tasks_of
from toolhone.synthetic.examples import CanonicalExample, argument_values
from toolhone.synthetic.paraphrase import Frames, SmallTalk, core_of
from toolhone.synthetic.phrases import (
    DescribedPhrase,
    ExamplePhrase,
    Phrase,
    ambiguous,
    builtin_phrases,
    example_phrases,
)
from toolhone.synthetic.schema_sampler import SchemaSampler, Undrawable
from toolhone.synthetic.spelling import folded
from toolhone.synthetic.text_kinds import material, words_of

SPLITS = ("train", "held_out")
SHARES = {"one_call": 0.7, "two_calls": 0.1, "no_call": 0.2}
SOURCE = "manual_templates"
_TRIES = 400
"""Draws for one row, at most."""
_FRAMINGS = 60
_HELD_OUT = 5
"""One question in so many, by checksum, belongs to the held-out split."""


class Reject(StrEnum):
    """Why a draw was rejected."""

    SCHEMA = "arguments that break the tool's schema"
    AMBIGUOUS = "a value that occurs elsewhere in the question too"
    SAME_CALLS = "two equal calls in one row"
    OTHER_SPLIT = "a question that belongs to the other split"
    SEEN = "a task that occurs before"


Drawn = tuple[str, Message] | Reject
"""A question and the assistant's message, or why there is none."""


@dataclass
class _Counts:
    """What was drawn for a split so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    rejected: Counter[Reject] = field(default_factory=Counter)
    questions: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.kinds.total(),
            "by_kind": dict(self.kinds),
            "by_tool": dict(self.tools),
            "distinct_questions": len(self.questions),
            "rejected_draws": {reason.value: count for reason, count in self.rejected.items()},
        }


class ManualTemplates:
    """Makes conversations and tasks for the tools; the same arguments give the same rows."""

    def __init__(
        self,
        tools: Sequence[Tool],
        examples: Sequence[CanonicalExample] = (),
        seed: int = 0,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        self.tools, self._seed, self._shares = tuple(tools), seed, _check_shares(shares)
        self._by_name = _by_name(self.tools, examples)
        self._undrawable: dict[str, str] = {}
        # Words that begin a command: the common ones, and the first words of names.
        names = [words_of(tool.name) for tool in self.tools]
        verbs = {*material()["verbs"], *(words[0] for words in names if len(words) > 1)}
        self._single, self._several = self._phrases(examples, verbs)
        # Words that set tools or values apart are never replaced by others.
        texts = [tool.name for tool in self.tools] if len(self.tools) > 1 else []
        texts += (text for one in examples for call in one.calls for text in _texts(call.arguments))
        protected = {word for text in texts for word in words_of(text)}
        self._frames = {name: Frames(name, protected) for name in SPLITS}
        talk = [(*core_of(one.query, verbs), one.answer) for one in examples if not one.calls]
        self._talk = SmallTalk(self.tools, talk)
        self._counts = {name: _Counts() for name in SPLITS}
        calling = self._shares["one_call"] or self._shares["two_calls"]
        if calling and not self._single and not self._several:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._undrawable.items())
            raise DataError(
                f"no arguments can be drawn for any tool ({reasons}); give an example for one of "
                "them"
            )

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """Return the first n rows of a split."""
        return [
            self._conversation(self._rng("conversation", split, index), index, split)
            for index in range(n)
        ]

    def tasks(self, n: int, split: str = "train") -> list[Task]:
        """Return the first n tasks of a split, all with different questions.

        Fewer come back where many draws find no further question.
        """
        rows: list[Task] = []
        seen: set[str] = set()
        for index in range(n):
            rng = self._rng("task", split, index)
            for _ in range(_TRIES):
                row = self._conversation(rng, index, split)
                question = str(row.messages[0].content)
                if question not in seen:
                    seen.add(question)
                    rows += tasks_of(row)
                    break
                self._counts[split].rejected[Reject.SEEN] += 1
            else:
                break
        return rows

    def report(self) -> dict[str, Any]:
        """Return what was drawn so far by split, the phrasings by tool, and what stays as it is."""
        several = [(call.name, phrase) for phrase in self._several for call in phrase.calls]
        single = [(name, phrase) for name, group in self._single.items() for phrase in group]
        return {
            "splits": {name: own.to_dict() for name, own in self._counts.items() if own.kinds},
            "phrasings": dict(Counter(name for name, _ in single + several)),
            "word_for_word": {
                phrase.text: f"{phrase.located.stuck} is not in the question"
                for _, phrase in single + several
                if isinstance(phrase, ExamplePhrase) and phrase.located.stuck
            },
            "without_rows": dict(self._undrawable),
        }

    def _phrases(
        self, examples: Sequence[CanonicalExample], verbs: set[str]
    ) -> tuple[dict[str, list[Phrase]], list[ExamplePhrase]]:
        """Return the phrases with one call, by tool, and those with several."""
        values = argument_values(examples)
        # Arguments with one value in all examples that have them.
        kept = {key for key, seen in values.items() if len(seen) == seen.count(seen[0]) > 1}
        samplers = {
            tool.name: SchemaSampler(
                tool, {path: seen for (name, path), seen in values.items() if name == tool.name}
            )
            for tool in self.tools
        }
        single: dict[str, list[Phrase]] = {tool.name: [] for tool in self.tools}
        several: list[ExamplePhrase] = []
        for example in examples:
            if len(example.calls) == 1:
                own = example_phrases(example, samplers, kept, verbs)
                single[example.calls[0].name] += own
            elif example.calls:
                several += example_phrases(example, samplers, kept, verbs)
        for tool in self.tools:
            if not single[tool.name]:
                single[tool.name] += builtin_phrases(tool) or self._describe(
                    tool, samplers[tool.name]
                )
        return {name: phrases for name, phrases in single.items() if phrases}, several

    def _describe(self, tool: Tool, sampler: SchemaSampler) -> list[Phrase]:
        """Return a phrase made of the schema, if some of its draws obey the schema."""
        try:
            phrase = DescribedPhrase(tool, sampler)
            draws = [phrase.draw(random.Random(seed), False) for seed in range(20)]
        except Undrawable as undrawable:
            self._undrawable[tool.name] = str(undrawable)
            return []
        problems = [tool.problems(draw.calls[0].arguments) for draw in draws]
        if all(problems):
            self._undrawable[tool.name] = f"no draw obeys the schema: {problems[0][0]:.100}"
            return []
        return [phrase]

    def _rng(self, kind: str, split: str, index: int) -> random.Random:
        if split not in SPLITS:
            known = f"known: {', '.join(SPLITS)}"
            raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}; {known}")
        return random.Random(f"manual {kind} {self._seed} {split} {index}")

    def _conversation(self, rng: random.Random, index: int, split: str) -> Conversation:
        kind = rng.choices(list(self._shares), list(self._shares.values()))[0]
        draw = self._draw_talk if kind == "no_call" else self._draw_calls
        counts = self._counts[split]
        for _ in range(_TRIES):
            drawn = draw(kind, split, rng)
            if isinstance(drawn, Reject):
                counts.rejected[drawn] += 1
                continue
            question, assistant = drawn
            counts.kinds[kind] += 1
            counts.tools.update(call.name for call in assistant.tool_calls)
            counts.questions.add(question)
            messages = (Message("user", question), assistant)
            name = f"{split}-{self._seed}-{index:06d}"
            return Conversation(messages, self.tools, name, SOURCE)
        common = counts.rejected.most_common(3)
        reasons = ", ".join(f"{reason.value} ({count})" for reason, count in common)
        raise DataError(
            f"row {index} of {split!r} could not be made in {_TRIES} draws: {reasons}; give more "
            "examples or wider schemas"
        )

    def _draw_talk(self, _kind: str, split: str, rng: random.Random) -> Drawn:
        pieces, answer = self._talk.draw(rng, split == "held_out")
        question = "".join(piece.text for piece in pieces)
        fits = side(question) == split
        return (question, Message("assistant", answer)) if fits else Reject.OTHER_SPLIT

    def _draw_calls(self, kind: str, split: str, rng: random.Random) -> Drawn:
        draws = [phrase.draw(rng, split == "held_out") for phrase in self._choose(kind, rng)]
        calls = [call for draw in draws for call in draw.calls]
        if any(self._by_name[call.name].problems(call.arguments) for call in calls):
            return Reject.SCHEMA
        if any(call == other for index, call in enumerate(calls) for other in calls[:index]):
            return Reject.SAME_CALLS
        parts = [(draw.form, draw.pieces) for draw in draws]
        for _ in range(_FRAMINGS):
            pieces = self._frames[split].question(parts, rng)
            question = "".join(piece.text for piece in pieces).strip()
            if side(question) != split:
                continue
            if ambiguous(pieces):
                return Reject.AMBIGUOUS
            numbered = enumerate(calls)
            linked = tuple(ToolCall(one.name, one.arguments, f"call{i}") for i, one in numbered)
            return question, Message("assistant", None, tool_calls=linked)
        return Reject.OTHER_SPLIT

    def _choose(self, kind: str, rng: random.Random) -> list[Phrase]:
        """Choose one phrase, or two; an example with several calls of its own counts as two."""
        two = kind == "two_calls"
        if self._several and ((two and rng.random() < 0.5) or not self._single):
            return [rng.choice(self._several)]
        names = sorted(self._single)
        return [rng.choice(self._single[rng.choice(names)]) for _ in range(2 if two else 1)]


def side(question: str) -> str:
    """Return the split of a question, by its letters and digits without case."""
    words = "".join(letter for letter in folded(question) if letter.isalnum())
    return "held_out" if zlib.crc32(words.encode()) % _HELD_OUT == 0 else "train"


def _by_name(tools: Sequence[Tool], examples: Sequence[CanonicalExample]) -> dict[str, Tool]:
    """Return the tools by name; no tool, equal names and unknown tools of examples are errors."""
    by_name: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in by_name:
            raise DataError(f"two tools are named {tool.name!r}; give one of them another name")
        by_name[tool.name] = tool
    if not tools:
        raise DataError("wanted a tool, got none")
    for name in {call.name for example in examples for call in example.calls} - by_name.keys():
        raise DataError(
            f"an example calls the unknown tool {name!r}{nearest(name, by_name)}; read it with "
            "`read_examples`"
        )
    return by_name


def _check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    for name, share in shares.items():
        if name not in SHARES:
            known = f"known: {', '.join(SHARES)}"
            raise DataError(f"there is no kind of row {name!r}{nearest(name, SHARES)}; {known}")
        if not share >= 0:
            raise DataError(f"the share of {name!r} must be 0 or more, got {share}")
    if not sum(shares.values()):
        raise DataError("all shares are 0; at least one kind of row needs a share")
    return {name: float(shares.get(name, 0.0)) for name in SHARES}


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
