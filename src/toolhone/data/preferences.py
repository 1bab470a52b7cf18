"""Preference pairs: after one prompt, one way to go on that is better than another.

    pairs = pairs_of(read_preferences("pairs.jsonl"))                  # from a file (`data.files`, `sources.pairs`)
    decisions = decisions_of(conversations)                            # each place where the assistant had to decide
    made = corrupted(decisions, dialect, seed=0)                       # gold against typed mistakes (`data.corruptions`)
    made = against_samples(decisions, samples)                         # gold against what the model itself got wrong
    made = among_samples(tasks, samples)                               # what it got right against what it got wrong: no gold
    made.pairs, made.report

Chosen and rejected share their prompt and tools by construction. On disk a pair is one JSON object:

    {"id", "prompt": [messages], "tools", "chosen": [messages], "rejected": [messages], "source", "raw"?: true}

With `raw`, `rejected` is one assistant message whose content is the reply as a model wrote it, its marks included: a malformed call
cannot be told in any other way. How pairs become rows is said in `data.pair_rows`; no model is asked here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolhone.schema import Conversation, Json, Message, Task
from toolhone.schema.preference import Preference
from toolhone.sources.tasks import tasks_of


class PairKind(StrEnum):
    """What a rejected side is: something from a file, a sample of the model, or gold with one mistake put in."""

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
    """A preference with what its rejected side is; `tokens` are the ids of a sampled one, exactly as sampled."""

    preference: Preference
    kind: PairKind = PairKind.FILE
    tokens: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """As `Preference.to_dict`, with `kind` and `tokens`; also a line of a preference file."""
        return {**self.preference.to_dict(), "kind": self.kind.value, "tokens": list(self.tokens)}

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> PreferencePair:
        return PreferencePair(
            Preference.from_dict(source), PairKind(source["kind"]), tuple(source["tokens"])
        )


@dataclass(frozen=True)
class PairBatch:
    """Pairs that were made, and the account of it."""

    pairs: list[PreferencePair]
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AssistantTurn:
    """A place where the assistant had to decide: the task that asks for it, and what the data says there."""

    task: Task
    gold: Message

    def against(
        self,
        kind: PairKind,
        rejected: Sequence[Message],
        tokens: Sequence[int] = (),
        raw: bool = False,
    ) -> PreferencePair:
        """The pair of gold with this."""
        task = self.task
        preference = Preference(
            task.messages,
            (self.gold,),
            tuple(rejected),
            task.tools,
            f"{task.id}/{kind.value}",
            task.source,
            raw,
        )
        return PreferencePair(preference, kind, tuple(tokens))


@dataclass(frozen=True)
class Sampled:
    """A reply of the model: its ids (stop id included), its text (without stop mark), whether it is right, and how it was read."""

    tokens: tuple[int, ...]
    text: str
    right: bool
    message: Message


def assistant_turns(conversations: Iterable[Conversation]) -> list[AssistantTurn]:
    """Each call, and each plain reply right after a user turn (`sources.tasks`): one turn of the assistant each."""
    return [
        AssistantTurn(task, conversation.messages[len(task.messages)])
        for conversation in conversations
        for task in tasks_of(conversation)
    ]


def pairs_of(preferences: Iterable[Preference]) -> list[PreferencePair]:
    """Pairs as they came from a file."""
    return [PreferencePair(preference) for preference in preferences]


def against_samples(
    decisions: Sequence[AssistantTurn], samples: Sequence[Sequence[Sampled]], each: int = 1
) -> PairBatch:
    """Gold against at most `each` different wrong samples of a decision, the most frequent first."""
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for decision, said in zip(decisions, samples, strict=True):
        wrong = _wrong(said, each)
        if not wrong:
            without[
                "every sample is right"
                if any(sample.right for sample in said)
                else "no sample has any text"
            ] += 1
        pairs += [_over(decision, sample) for sample in wrong]
    return PairBatch(pairs, _account(samples, without))


def among_samples(
    tasks: Sequence[Task], samples: Sequence[Sequence[Sampled]], each: int = 1
) -> PairBatch:
    """The most frequent right sample of a task against at most `each` different wrong ones: the model learns from itself alone."""
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for task, said in zip(tasks, samples, strict=True):
        right, wrong = _often([sample for sample in said if sample.right], 1), _wrong(said, each)
        pairs += [
            _over(AssistantTurn(task, best.message), sample) for best in right for sample in wrong
        ]
        if not said or not right or not wrong:
            without[_why_none(said, right)] += 1
    return PairBatch(pairs, _account(samples, without))


def _why_none(said: Sequence[Sampled], right: Sequence[Sampled]) -> str:
    if not said or not right:
        return "no sample is right" if said else "the prompt leaves no room"
    return (
        "every sample is right"
        if all(sample.right for sample in said)
        else "no wrong sample has any text"
    )


def _wrong(said: Sequence[Sampled], most: int) -> list[Sampled]:
    """At most so many different wrong samples that say something, the most frequent first."""
    return _often([sample for sample in said if not sample.right and sample.text], most)


def _often(said: Sequence[Sampled], most: int) -> list[Sampled]:
    """At most so many different samples, the most frequent first."""
    by_tokens = {sample.tokens: sample for sample in said}
    return [
        by_tokens[tokens]
        for tokens, _ in Counter(sample.tokens for sample in said).most_common(most)
    ]


def _over(decision: AssistantTurn, sample: Sampled) -> PreferencePair:
    """What is right in the place of a wrong sample, which keeps its ids."""
    return decision.against(
        PairKind.OWN_SAMPLE, [Message("assistant", sample.text)], sample.tokens, raw=True
    )


def _account(samples: Sequence[Sequence[Sampled]], without: Counter[str]) -> dict[str, Any]:
    return {
        "decisions": len(samples),
        "samples": sum(map(len, samples)),
        "wrong_samples": sum(not sample.right for said in samples for sample in said),
        "without_pair": dict(without),
    }
