"""Rows from phrases: one call, two calls, or none; framed, checked, counted.

    made = ManualTemplates(tools, examples, seed=0, shares={"one_call": 0.7, "two_calls": 0.1, "no_call": 0.2})
    made.conversations(1000)
    made.tasks(200, "held_out")

Row i of a split is a pure function of (tools, examples, seed, split, i). Question and calls come from one draw. Before a row is
given out, each value drawn must stand in the question, and only where it was put, and each call must obey its tool's whole
schema; what fails is drawn again and counted (`report`). No question of one split can occur in the other: they are told apart
by a checksum of their words. Besides, held-out questions have other openings, endings and forms, and other values where there
is choice.

A conversation ends with the calls, or with the answer where there are none. Tools are not run.
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
from toolhone.sources.tasks import tasks_of
from toolhone.synthetic.builtin_phrases import SmallTalk, phrases_for
from toolhone.synthetic.described import DescribedPhrase
from toolhone.synthetic.examples import CanonicalExample, agreed, shown
from toolhone.synthetic.paraphrase import Frames, core_of
from toolhone.synthetic.phrases import ExamplePhrase, Phrase, ambiguous, phrases_of
from toolhone.synthetic.schema_sampler import Drawer, Undrawable
from toolhone.synthetic.spelling import folded
from toolhone.synthetic.text_kinds import material, words_of

SPLITS = ("train", "held_out")
SHARES = {"one_call": 0.7, "two_calls": 0.1, "no_call": 0.2}
SOURCE = "manual_templates"
_TRIES = 400
"""Draws for one row before that is given up."""
_FRAMINGS = 60
_HELD_OUT = 5
"""One question in so many, by checksum, belongs to the held-out split."""


class Reject(StrEnum):
    """Why a draw was thrown away."""

    SCHEMA = "arguments that break the tool's schema"
    AMBIGUOUS = "a value that stands elsewhere in the question too"
    SAME_CALLS = "two equal calls in one row"
    OTHER_SPLIT = "a question that belongs to the other split"
    SEEN = "a task that occurs before"


@dataclass
class _Counts:
    """What was made of a split so far."""

    rows: int = 0
    tools: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rejected: Counter[Reject] = field(default_factory=Counter)
    questions: set[str] = field(default_factory=set)


class ManualTemplates:
    """Makes conversations and tasks for the given tools; the same arguments give the same rows."""

    def __init__(
        self,
        tools: Sequence[Tool],
        examples: Sequence[CanonicalExample] = (),
        seed: int = 0,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        self.tools = tuple(tools)
        self._by_name = {tool.name: tool for tool in self.tools}
        if not self.tools or len(self._by_name) < len(self.tools):
            twice = [
                name
                for name, count in Counter(tool.name for tool in self.tools).items()
                if count > 1
            ]
            raise DataError(
                f"two tools are named {twice[0]!r}; give one of them another name"
                if twice
                else "wanted a tool, got none"
            )
        self._seed, self._shares = seed, _checked_shares(shares)
        self._undrawable: dict[str, str] = {}
        self._examples = list(examples)
        for name in {
            call.name for example in self._examples for call in example.calls
        } - self._by_name.keys():
            raise DataError(
                f"an example calls the unknown tool {name!r}{nearest(name, self._by_name)}; read it with `read_examples`"
            )
        self._single, self._several = self._phrases()
        self._frames = {
            name: Frames(name, _protected(self.tools, self._examples)) for name in SPLITS
        }
        talk = [
            (*core_of(example.query, _verbs(self.tools)), example.answer)
            for example in self._examples
            if not example.calls
        ]
        self._talk = SmallTalk(self.tools, talk)
        self._counts = {name: _Counts() for name in SPLITS}
        if (
            not self._single
            and not self._several
            and (self._shares["one_call"] or self._shares["two_calls"])
        ):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._undrawable.items())
            raise DataError(
                f"no arguments can be drawn for any tool ({reasons}); give an example for one of them"
            )

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """The first n rows of a split, as conversations."""
        return [
            self._conversation(self._rng("conversation", split, index), index, split)
            for index in range(n)
        ]

    def tasks(self, n: int, split: str = "train") -> list[Task]:
        """The first n tasks of a split, with questions that all differ; fewer where no further one was found in many draws."""
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
        """What was made so far: by split, rows, rows by tool and by kind, rejected draws by reason, distinct questions."""
        made = {
            name: {
                "rows": counts.rows,
                "by_kind": dict(counts.kinds),
                "by_tool": dict(counts.tools),
                "distinct_questions": len(counts.questions),
                "rejected_draws": {
                    reason.value: count for reason, count in counts.rejected.items()
                },
            }
            for name, counts in self._counts.items()
            if counts.rows
        }
        phrasings = Counter(
            name
            for phrases in (*self._single.values(), self._several)
            for phrase in phrases
            for name in phrase.tools
        )
        fixed = {example.query: reason for example, reason in self._fixed()}
        return {
            "splits": made,
            "phrasings": dict(phrasings),
            "word_for_word": fixed,
            "without_rows": dict(self._undrawable),
        }

    def _fixed(self) -> Iterator[tuple[CanonicalExample, str]]:
        for phrases in (*self._single.values(), self._several):
            for phrase in phrases:
                if isinstance(phrase, ExamplePhrase) and phrase.located.stuck:
                    yield (
                        CanonicalExample(phrase.text, phrase.calls),
                        f"{phrase.located.stuck} is not in the question",
                    )

    def _phrases(self) -> tuple[dict[str, list[Phrase]], list[Phrase]]:
        """The phrases with one call, by tool, and those with several."""
        kept = agreed(self._examples)
        drawers = {tool.name: Drawer(tool, shown(tool.name, self._examples)) for tool in self.tools}
        single: dict[str, list[Phrase]] = {tool.name: [] for tool in self.tools}
        several: list[Phrase] = []
        for example in self._examples:
            if example.calls:
                found = phrases_of(example, drawers, kept, _verbs(self.tools))
                (single[example.calls[0].name] if len(example.calls) == 1 else several).extend(
                    found
                )
        for tool in self.tools:
            single[tool.name] = (
                single[tool.name]
                or [*phrases_for(tool)]
                or self._described(tool, drawers[tool.name])
            )
        return {name: phrases for name, phrases in single.items() if phrases}, several

    def _described(self, tool: Tool, drawer: Drawer) -> list[Phrase]:
        """A phrase made of the schema, if some of its draws obey the schema."""
        try:
            phrase = DescribedPhrase(tool, drawer)
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
            raise DataError(
                f"there is no split {split!r}{nearest(split, SPLITS)}; known: {', '.join(SPLITS)}"
            )
        return random.Random(f"manual {kind} {self._seed} {split} {index}")

    def _conversation(self, rng: random.Random, index: int, split: str) -> Conversation:
        kind = rng.choices(list(self._shares), list(self._shares.values()))[0]
        counts = self._counts[split]
        for _ in range(_TRIES):
            made = (
                self._talk_row(split, rng)
                if kind == "no_call"
                else self._call_row(kind, split, rng)
            )
            if isinstance(made, Reject):
                counts.rejected[made] += 1
                continue
            question, assistant = made
            counts.rows += 1
            counts.kinds[kind] += 1
            counts.tools.update(call.name for call in assistant.tool_calls)
            counts.questions.add(question)
            return Conversation(
                (Message("user", question), assistant),
                self.tools,
                f"{split}-{self._seed}-{index:06d}",
                SOURCE,
            )
        reasons = ", ".join(
            f"{reason.value} ({count})" for reason, count in counts.rejected.most_common(3)
        )
        raise DataError(
            f"row {index} of {split!r} could not be made in {_TRIES} draws: {reasons}; give more examples or wider schemas"
        )

    def _talk_row(self, split: str, rng: random.Random) -> tuple[str, Message] | Reject:
        pieces, answer = self._talk.draw(rng, split == "held_out")
        question = "".join(piece.text for piece in pieces)
        return (
            (question, Message("assistant", answer))
            if side(question) == split
            else Reject.OTHER_SPLIT
        )

    def _call_row(self, kind: str, split: str, rng: random.Random) -> tuple[str, Message] | Reject:
        draws = [phrase.draw(rng, split == "held_out") for phrase in self._picked(kind, rng)]
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
            numbered = tuple(
                ToolCall(call.name, call.arguments, f"call{index}")
                for index, call in enumerate(calls)
            )
            return question, Message("assistant", None, tool_calls=numbered)
        return Reject.OTHER_SPLIT

    def _picked(self, kind: str, rng: random.Random) -> list[Phrase]:
        """One phrase, or two; an example with several calls of its own also counts as two."""
        if self._several and ((kind == "two_calls" and rng.random() < 0.5) or not self._single):
            return [rng.choice(self._several)]
        names = sorted(self._single)
        return [
            rng.choice(self._single[rng.choice(names)])
            for _ in range(2 if kind == "two_calls" else 1)
        ]


def side(question: str) -> str:
    """The split that a question belongs to, by its words alone: signs, spaces and capitals do not count."""
    words = "".join(letter for letter in folded(question) if letter.isalnum())
    return "held_out" if zlib.crc32(words.encode()) % _HELD_OUT == 0 else "train"


def _checked_shares(shares: Mapping[str, float]) -> dict[str, float]:
    for name, share in shares.items():
        if name not in SHARES:
            raise DataError(
                f"there is no kind of row {name!r}{nearest(name, SHARES)}; known: {', '.join(SHARES)}"
            )
        if not share >= 0:
            raise DataError(f"the share of {name!r} must be 0 or more, got {share}")
    if not sum(shares.values()):
        raise DataError("all shares are 0; at least one kind of row needs a share")
    return {name: float(shares.get(name, 0.0)) for name in SHARES}


def _verbs(tools: Sequence[Tool]) -> set[str]:
    """Words that begin a command: the common ones and those that tools' names and descriptions begin with."""
    own = {
        words[0]
        for tool in tools
        for text in (tool.name,)
        if (words := words_of(text)) and len(words) > 1
    }
    return {*material()["verbs"], *own}


def _protected(tools: Sequence[Tool], examples: Sequence[CanonicalExample]) -> set[str]:
    """Words that tell tools or values apart and must not be replaced by others."""
    names = {word for tool in tools for word in words_of(tool.name)} if len(tools) > 1 else set()
    return names | {
        word
        for example in examples
        for call in example.calls
        for word in _value_words(dict(call.arguments))
    }


def _value_words(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _value_words(item)
    elif isinstance(value, str):
        yield from words_of(value)
