"""Preference pairs, from a file or made: gold or a right sample against something worse.

    pairs = pairs_of(read_preferences("pairs.jsonl"))
    turns = assistant_turns(conversations)
    batch = corrupt(turns, dialect, seed=0)            # `data.negatives`: gold against mistakes
    batch = against_samples(turns, samples)            # gold against wrong samples of the model
    batch = among_samples(tasks, samples)              # its right samples against its wrong ones

`data.pair_rows` makes rows of pairs; no model is asked here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolhone.schema import Conversation, Json, Message, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.base import tasks_of


class PairKind(StrEnum):
    """What a rejected side is: from a file, a sample, or gold with one mistake."""

    FILE = "file"
    OWN_SAMPLE = "own_sample"
    WRONG_TOOL = "wrong_tool"
    WRONG_ARGUMENT = "wrong_argument"
    MISSING_ARGUMENT = "missing_argument"
    MALFORMED = "malformed"
    NEEDLESS_CALL = "needless_call"
    MISSING_CALL = "missing_call"


@dataclass(frozen=True)
class PreferencePair:
    """A preference and its kind; `tokens` are the ids of a sampled rejected side, as sampled."""

    preference: Preference
    kind: PairKind = PairKind.FILE
    tokens: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """Return a line of a preference file, with `kind` and `tokens`."""
        return {**self.preference.to_dict(), "kind": self.kind.value, "tokens": list(self.tokens)}

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> PreferencePair:
        preference = Preference.from_dict(source)
        return PreferencePair(preference, PairKind(source["kind"]), tuple(source["tokens"]))


@dataclass(frozen=True)
class PairBatch:
    """Pairs that were made, and how many of each kind."""

    pairs: list[PreferencePair]
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AssistantTurn:
    """A turn of the assistant: the task that leads to it, and what the data have there."""

    task: Task
    gold: Message

    @property
    def uncalled_tools(self) -> list[Tool]:
        called = {call.name for call in self.gold.tool_calls}
        return [tool for tool in self.task.tools if tool.name not in called]

    @property
    def argument_places(self) -> list[tuple[int, str]]:
        """Index of a call, and name of an argument, for all arguments of gold."""
        calls = enumerate(self.gold.tool_calls)
        return [(place, name) for place, call in calls for name in call.arguments]

    def against(
        self,
        kind: PairKind,
        rejected: Sequence[Message],
        tokens: Sequence[int] = (),
        raw: bool = False,
    ) -> PreferencePair:
        """Return the pair of gold and `rejected`."""
        task, name = self.task, f"{self.task.id}/{kind.value}"
        preference = Preference(
            task.messages, (self.gold,), tuple(rejected), task.tools, name, task.source, raw=raw
        )
        return PreferencePair(preference, kind, tuple(tokens))


@dataclass(frozen=True)
class Sampled:
    """A reply of the model: ids with the stop id, text without the stop mark, and its reading."""

    tokens: tuple[int, ...]
    text: str
    right: bool
    message: Message


def assistant_turns(conversations: Iterable[Conversation]) -> list[AssistantTurn]:
    """Return each call, and each plain reply right after a user turn (`tasks_of`)."""
    return [
        AssistantTurn(task, conversation.messages[len(task.messages)])
        for conversation in conversations
        for task in tasks_of(conversation)
    ]


def pairs_of(preferences: Iterable[Preference]) -> list[PreferencePair]:
    """Return pairs of a file."""
    return [PreferencePair(preference) for preference in preferences]


def against_samples(
    turns: Sequence[AssistantTurn], samples: Sequence[Sequence[Sampled]], each: int = 1
) -> PairBatch:
    """Pair gold with at most `each` different wrong samples of a turn, the most frequent first."""
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for turn, drawn in zip(turns, samples, strict=True):
        wrong = _most_frequent(drawn, False, each)
        pairs += [_pair(turn, sample) for sample in wrong]
        if not wrong:
            any_right = any(sample.right for sample in drawn)
            without["every sample is right" if any_right else "no sample has any text"] += 1
    return PairBatch(pairs, _count(samples, without))


def among_samples(
    tasks: Sequence[Task], samples: Sequence[Sequence[Sampled]], each: int = 1
) -> PairBatch:
    """Pair the most frequent right sample of a task with at most `each` different wrong ones."""
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for task, drawn in zip(tasks, samples, strict=True):
        right, wrong = _most_frequent(drawn, True, 1), _most_frequent(drawn, False, each)
        pairs += [_pair(AssistantTurn(task, best.message), bad) for best in right for bad in wrong]
        if not drawn:
            without["the prompt leaves no room"] += 1
        elif not right:
            without["no sample is right"] += 1
        elif not wrong:
            all_right = all(sample.right for sample in drawn)
            without["every sample is right" if all_right else "no wrong sample has any text"] += 1
    return PairBatch(pairs, _count(samples, without))


def _most_frequent(drawn: Sequence[Sampled], right: bool, most: int) -> list[Sampled]:
    """Return the most frequent different samples; wrong ones need a text."""
    fitting = [one for one in drawn if one.right == right and (one.right or one.text)]
    by_tokens = {sample.tokens: sample for sample in fitting}
    counts = Counter(sample.tokens for sample in fitting)
    return [by_tokens[tokens] for tokens, _ in counts.most_common(most)]


def _pair(turn: AssistantTurn, sample: Sampled) -> PreferencePair:
    rejected = [Message("assistant", sample.text)]
    return turn.against(PairKind.OWN_SAMPLE, rejected, sample.tokens, raw=True)


def _count(samples: Sequence[Sequence[Sampled]], without: Counter[str]) -> dict[str, Any]:
    return {
        "decisions": len(samples),
        "samples": sum(map(len, samples)),
        "wrong_samples": sum(not sample.right for drawn in samples for sample in drawn),
        "without_pair": dict(without),
    }
