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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolhone.config.phrasings import word_lists
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Message, Task, Tool, ToolCall
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
from toolhone.synthetic.slots import folded
from toolhone.tools.schema_sampler import SchemaSampler, Undrawable
from toolhone.tools.text_kinds import words_of

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


class ManualTemplates:
    """Makes conversations and tasks for the tools; the same arguments give the same rows."""

    def __init__(
        self,
        tools: Sequence[Tool],
        examples: Sequence[CanonicalExample] = (),
        seed: int = 0,
        shares: Mapping[str, float] = SHARES,
        held_out_seed: int | None = None,
    ) -> None:
        check_use(tools, examples, shares)
        self.tools = tuple(tools)
        self._seeds = dict(zip(SPLITS, (seed, seed if held_out_seed is None else held_out_seed)))
        self._shares = {name: float(shares.get(name, 0.0)) for name in SHARES}
        self._by_name = {tool.name: tool for tool in tools}
        self._undrawable: dict[str, str] = {}
        # Words that begin a command: the common ones, and the first words of names.
        names = [words_of(tool.name) for tool in tools]
        verbs = {*word_lists("manual")["verbs"], *(words[0] for words in names if len(words) > 1)}
        self._single, self._several = self._phrases(examples, verbs)
        # Words that set tools or values apart are never replaced by others.
        texts = [tool.name for tool in tools] if len(tools) > 1 else []
        for values in argument_values(examples).values():
            texts += [value for value in values if isinstance(value, str)]
        protected = {word for text in texts for word in words_of(text)}
        self._frames = {name: Frames(name, protected) for name in SPLITS}
        talk = [(*core_of(one.query, verbs), one.answer) for one in examples if not one.calls]
        self._talk = SmallTalk(tools, talk)
        self._counts = {name: _Counts() for name in SPLITS}
        calling = self._shares["one_call"] or self._shares["two_calls"]
        if calling and not self._single and not self._several:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._undrawable.items())
            right = "give an example for one of them"
            raise DataError(f"no arguments can be drawn for any tool ({reasons}); {right}")

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """Return the first n rows of a split."""
        return [self._conversation(self._rng("conversation", split, i), i, split) for i in range(n)]

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
        phrases = [(name, phrase) for name, group in self._single.items() for phrase in group]
        phrases += [(call.name, phrase) for phrase in self._several for call in phrase.calls]
        splits = {
            name: {
                "rows": own.kinds.total(),
                "by_kind": dict(own.kinds),
                "by_tool": dict(own.tools),
                "distinct_questions": len(own.questions),
                "rejected_draws": {reason.value: count for reason, count in own.rejected.items()},
            }
            for name, own in self._counts.items()
            if own.kinds
        }
        return {
            "splits": splits,
            "phrasings": dict(Counter(name for name, _ in phrases)),
            "word_for_word": {
                phrase.text: f"{phrase.located.stuck} is not in the question"
                for _, phrase in phrases
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
            own = example_phrases(example, samplers, kept, verbs) if example.calls else []
            if len(example.calls) == 1:
                single[example.calls[0].name] += own
            else:
                several += own
        for tool in self.tools:
            if not single[tool.name]:
                found = builtin_phrases(tool) or self._describe(tool, samplers[tool.name])
                single[tool.name] += found
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
        return random.Random(f"manual {kind} {self._seeds[split]} {split} {index}")

    def _conversation(self, rng: random.Random, index: int, split: str) -> Conversation:
        kind = rng.choices(list(self._shares), list(self._shares.values()))[0]
        counts = self._counts[split]
        for _ in range(_TRIES):
            drawn = self._draw(kind, split, rng)
            if isinstance(drawn, Reject):
                counts.rejected[drawn] += 1
                continue
            question, assistant = drawn
            counts.kinds[kind] += 1
            counts.tools.update(call.name for call in assistant.tool_calls)
            counts.questions.add(question)
            messages = (Message("user", question), assistant)
            name = f"{split}-{self._seeds[split]}-{index:06d}"
            return Conversation(messages, self.tools, name, SOURCE)
        common = counts.rejected.most_common(3)
        reasons = ", ".join(f"{reason.value} ({count})" for reason, count in common)
        raise DataError(
            f"row {index} of {split!r} could not be made in {_TRIES} draws: {reasons}; give more "
            "examples or wider schemas"
        )

    def _draw(self, kind: str, split: str, rng: random.Random) -> Drawn:
        held = split == "held_out"
        if kind == "no_call":
            pieces, answer = self._talk.draw(rng, held)
            question = "".join(piece.text for piece in pieces)
            fits = side(question) == split
            return (question, Message("assistant", answer)) if fits else Reject.OTHER_SPLIT
        draws = [phrase.draw(rng, held) for phrase in self._choose(kind, rng)]
        calls = [call for draw in draws for call in draw.calls]
        if any(self._by_name[call.name].problems(call.arguments) for call in calls):
            return Reject.SCHEMA
        if any(call in calls[:index] for index, call in enumerate(calls)):
            return Reject.SAME_CALLS
        parts = [(draw.form, draw.pieces) for draw in draws]
        for _ in range(_FRAMINGS):
            pieces = self._frames[split].question(parts, rng)
            question = "".join(piece.text for piece in pieces).strip()
            if side(question) != split:
                continue
            if ambiguous(pieces):
                return Reject.AMBIGUOUS
            linked = [ToolCall(one.name, one.arguments, f"call{i}") for i, one in enumerate(calls)]
            return question, Message("assistant", None, tool_calls=tuple(linked))
        return Reject.OTHER_SPLIT

    def _choose(self, kind: str, rng: random.Random) -> Sequence[Phrase]:
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


def check_use(
    tools: Sequence[Tool], examples: Sequence[CanonicalExample], shares: Mapping[str, float]
) -> None:
    """Refuse no tool, equal names, examples of unknown tools, unknown shares and no share."""
    for name, share in shares.items():
        if name not in SHARES:
            known = f"known: {', '.join(SHARES)}"
            raise DataError(f"there is no kind of row {name!r}{nearest(name, SHARES)}; {known}")
        if not share >= 0:
            raise DataError(f"the share of {name!r} must be 0 or more, got {share}")
    if not sum(shares.values()):
        raise DataError("all shares are 0; at least one kind of row needs a share")
    if not tools:
        raise DataError("wanted a tool, got none")
    names = Counter(tool.name for tool in tools)
    for name, count in names.items():
        if count > 1:
            raise DataError(f"two tools are named {name!r}; give one of them another name")
    for name in {call.name for example in examples for call in example.calls} - names.keys():
        hint = f"{nearest(name, names)}; read it with `read_examples`"
        raise DataError(f"an example calls the unknown tool {name!r}{hint}")
