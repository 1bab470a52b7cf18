"""Rows for the user's own tools: one call, two, none, or a question back; checked and counted.

    templates = ManualTemplates(tools, examples, seed=0, shares={"one_call": 0.8, "no_call": 0.2})
    templates.conversations(1000)
    templates.tasks(200, "held_out")        # other phrasings, other values

Row i of a split is a pure function of the arguments, the split and i. Question and calls come from
one draw. Calls have no results yet; `synthetic/answers.py` runs them.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from toolhone.config.phrasings import word_lists
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Message, Task, Tool
from toolhone.sources.source import tasks_of
from toolhone.synthetic.described import DescribedPhrase
from toolhone.synthetic.examples import CanonicalExample, argument_values
from toolhone.synthetic.later_turns import (
    Link,
    askable,
    correction,
    ends,
    linked,
    marks,
    numbered,
    thanks,
    unsaid_request,
)
from toolhone.synthetic.paraphrase import Frames, SmallTalk, core_of
from toolhone.synthetic.phrases import (
    Draw,
    ExamplePhrase,
    IntentPhrase,
    ambiguous,
    builtin_phrases,
    example_phrases,
)
from toolhone.synthetic.slots import folded
from toolhone.tools.number_maker import Undrawable
from toolhone.tools.relations import Relation
from toolhone.tools.schema_sampler import SchemaSampler
from toolhone.tools.text_kinds import words_of

SPLITS = ("train", "held_out")
SHARES = {"one_call": 0.6, "two_calls": 0.1, "dependent": 0.05, "missing": 0.08, "no_call": 0.17}
SOURCE = "manual_templates"
_TRIES = 400
"""Draws for one row, at most."""
_FRAMINGS = 60
_MOST_TURNS = 3
_HELD_OUT = 5
"""One question in so many, by checksum, belongs to the held-out split."""


class Reject(StrEnum):
    """Why a draw was rejected."""

    SCHEMA = "arguments that break the tool's schema"
    AMBIGUOUS = "a value that occurs elsewhere in the question too"
    SAME_CALLS = "two equal calls in one row"
    OTHER_SPLIT = "a question that belongs to the other split"
    SEEN = "a task that occurs before"


Phrase = ExamplePhrase | IntentPhrase | DescribedPhrase
"""Something that can be asked in many ways."""


class Round(NamedTuple):
    """A question and what follows it; the question's phrasing, without values."""

    messages: tuple[Message, ...]
    phrasing: str


@dataclass(frozen=True)
class MadeOptions:
    """turns: how likely each further turn is. from_schema: share of the questions for a tool with
    examples that are made of its schema. relations: declared, by tool. links: see `find_links`."""

    turns: float = 0.0
    from_schema: float = 0.3
    relations: Mapping[str, Sequence[Relation]] = field(default_factory=dict)
    links: Sequence[Link] = ()


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
        options: MadeOptions | None = None,
    ) -> None:
        check_use(tools, examples, shares)
        self.tools, self._options = tuple(tools), options or MadeOptions()
        self._seeds = dict(zip(SPLITS, (seed, seed if held_out_seed is None else held_out_seed)))
        self._by_name = {tool.name: tool for tool in tools}
        self._undrawable: dict[str, str] = {}
        # Words that begin a command: the common ones, and the first words of names.
        names = [words_of(tool.name) for tool in tools]
        verbs = {*word_lists("manual")["verbs"], *(words[0] for words in names if len(words) > 1)}
        self._described: dict[str, DescribedPhrase] = {}
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
        self._links = [one for one in self._options.links if one.second in self._described]
        self._asked = [one for one in self._described.values() if askable(one.tool)]
        possible = {"dependent": bool(self._links), "missing": bool(self._asked)}
        self._shares = {n: float(shares.get(n, 0)) * possible.get(n, True) for n in SHARES}
        if not sum(self._shares.values()):
            raise DataError("no row can be made of these shares and tools; give 'one_call' a share")
        calling = self._shares["one_call"] or self._shares["two_calls"]
        if calling and not self._single and not self._several:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._undrawable.items())
            right = "give an example for one of them"
            raise DataError(f"no arguments can be drawn for any tool ({reasons}); {right}")

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """Return the first n rows of a split."""
        return [self._conversation(index, split) for index in range(n)]

    def tasks(self, n: int, split: str = "train") -> list[Task]:
        """Return the first n tasks of a split, all with different questions.

        Fewer come back where many draws find no further question. Tasks of one phrasing are a
        cluster.
        """
        rows: list[Task] = []
        seen: set[str] = set()
        for index in range(n):
            rng = self._rng("task", split, index)
            for _ in range(_TRIES):
                drawn = self._round(rng, index, split)
                question = str(drawn.messages[0].content)
                if question not in seen:
                    seen.add(question)
                    tasks = tasks_of(self._numbered(drawn.messages, index, split))
                    rows += [replace(task, cluster=drawn.phrasing) for task in tasks[:1]]
                    break
                self._counts[split].rejected[Reject.SEEN] += 1
            else:
                break
        return rows

    def report(self) -> dict[str, Any]:
        """Return what was drawn so far by split, the phrasings by tool, and what stays as it is."""
        phrases = [(name, phrase) for name, group in self._single.items() for phrase in group]
        phrases += list(self._described.items())
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
            builtin = [] if single[tool.name] else builtin_phrases(tool)
            single[tool.name] += builtin
            if not builtin and (found := self._describe(tool, samplers[tool.name])):
                self._described[tool.name] = found
        known = {name: one for name, one in single.items() if one or name in self._described}
        return known, several

    def _describe(self, tool: Tool, sampler: SchemaSampler) -> DescribedPhrase | None:
        """Return a phrase made of the schema, if some of its draws obey the schema."""
        try:
            phrase = DescribedPhrase(tool, sampler)
            draws = [phrase.draw(random.Random(seed), False) for seed in range(20)]
        except Undrawable as undrawable:
            self._undrawable[tool.name] = str(undrawable)
            return None
        problems = [tool.problems(draw.calls[0].arguments) for draw in draws]
        if all(problems):
            self._undrawable[tool.name] = f"no draw obeys the schema: {problems[0][0]:.100}"
            return None
        return phrase

    def _rng(self, kind: str, split: str, index: int) -> random.Random:
        if split not in SPLITS:
            known = f"known: {', '.join(SPLITS)}"
            raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}; {known}")
        return random.Random(f"manual {kind} {self._seeds[split]} {split} {index}")

    def _conversation(self, index: int, split: str) -> Conversation:
        messages = self._round(self._rng("conversation", split, index), index, split).messages
        if self._options.turns:
            more = self._rng("turns", split, index)
            for _ in range(_MOST_TURNS):
                if more.random() >= self._options.turns or ends(messages[-1]):
                    break
                messages += self._later(messages, more, index, split)
        return self._numbered(messages, index, split)

    def _numbered(self, messages: Sequence[Message], index: int, split: str) -> Conversation:
        name = f"{split}-{self._seeds[split]}-{index:06d}"
        return Conversation(numbered(messages), self.tools, name, SOURCE)

    def _round(self, rng: random.Random, index: int, split: str) -> Round:
        kind = rng.choices(list(self._shares), list(self._shares.values()))[0]
        counts = self._counts[split]
        for _ in range(_TRIES):
            drawn = self._draw(kind, split, rng)
            if isinstance(drawn, Reject):
                counts.rejected[drawn] += 1
                continue
            counts.kinds[kind] += 1
            counts.tools.update(call.name for one in drawn.messages for call in one.tool_calls)
            counts.questions.add(str(drawn.messages[0].content))
            return drawn
        common = counts.rejected.most_common(3)
        reasons = ", ".join(f"{reason.value} ({count})" for reason, count in common)
        raise DataError(
            f"row {index} of {split!r} could not be made in {_TRIES} draws: {reasons}; give more "
            "examples or wider schemas"
        )

    def _later(
        self, messages: tuple[Message, ...], rng: random.Random, index: int, split: str
    ) -> tuple[Message, ...]:
        """Return a further turn: a correction of the last call, thanks, talk or a request."""
        held, last = split == "held_out", messages[-1].tool_calls
        kind = rng.choices(("request", "correction", "thanks", "talk"), (40, 30, 18, 12))[0]
        described = self._described.get(last[0].name) if len(last) == 1 else None
        if kind == "correction" and described and not marks(last[0]):
            corrected = correction(described, last[0], rng, held)
            if corrected is not None:
                return corrected
        if kind == "thanks" and any(one.tool_calls for one in messages):
            return thanks(rng, held)
        if kind == "talk":
            question, answer, _ = self._talk.draw(rng, held)
            return Message("user", question), Message("assistant", answer)
        return self._round(rng, index, split).messages

    def _draw(self, kind: str, split: str, rng: random.Random) -> Round | Reject:
        held = split == "held_out"
        if kind == "no_call":
            question, answer, phrasing = self._talk.draw(rng, held)
            fits = side(question) == split
            messages = Message("user", question), Message("assistant", answer)
            return Round(messages, phrasing) if fits else Reject.OTHER_SPLIT
        if kind == "missing":
            unsaid = unsaid_request(rng.choice(self._asked), rng, held)
            framed = self._framed([unsaid.draw], split, rng)
            if isinstance(framed, Reject):
                return framed
            return Round((Message("user", framed), *unsaid.later), unsaid.draw.phrasing)
        draws = self._choose(kind, rng, held)
        framed = self._framed(draws, split, rng)
        if isinstance(framed, Reject):
            return framed
        calls = tuple(call for draw in draws for call in draw.calls)
        groups = [(call,) for call in calls] if kind == "dependent" else [calls]
        replies = (Message("assistant", None, tool_calls=group) for group in groups)
        phrasing = " + ".join(draw.phrasing for draw in draws)
        return Round((Message("user", framed), *replies), phrasing)

    def _framed(self, draws: Sequence[Draw], split: str, rng: random.Random) -> str | Reject:
        """Return the question of checked draws, between an opening and an ending of the split."""
        calls = [call for draw in draws for call in draw.calls]
        checked = [call for call in calls if not marks(call)]
        if any(self._by_name[call.name].problems(call.arguments) for call in checked):
            return Reject.SCHEMA
        if any(call in calls[:index] for index, call in enumerate(calls)):
            return Reject.SAME_CALLS
        parts = [(draw.form, draw.pieces) for draw in draws]
        for _ in range(_FRAMINGS):
            pieces = self._frames[split].question(parts, rng)
            question = "".join(piece.text for piece in pieces).strip()
            if side(question) != split:
                continue
            return Reject.AMBIGUOUS if ambiguous(pieces) else question
        return Reject.OTHER_SPLIT

    def _choose(self, kind: str, rng: random.Random, held: bool) -> Sequence[Draw]:
        """Draw one phrase, or two; an example with several calls of its own counts as two."""
        if kind == "dependent":
            link = rng.choice(self._links)
            first = self._phrase(link.first, rng).draw(rng, held)
            return [linked(first, link, self._described[link.second], rng, held)]
        two = kind == "two_calls"
        if self._several and ((two and rng.random() < 0.5) or not self._single):
            return [rng.choice(self._several).draw(rng, held)]
        names = sorted(self._single)
        return [self._phrase(rng.choice(names), rng).draw(rng, held) for _ in range(1 + two)]

    def _phrase(self, name: str, rng: random.Random) -> Phrase:
        """Choose a phrase of a tool: of its examples, or at times of its schema."""
        phrases, described = self._single[name], self._described.get(name)
        if described and (not phrases or rng.random() < self._options.from_schema):
            return described
        return rng.choice(phrases)


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
