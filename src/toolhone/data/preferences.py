"""Preference pairs, from a file or made, and their rows: gold against something worse.

turns = assistant_turns(conversations)
batch = corrupt(turns, dialect, seed=0)            # `data.negatives`: gold against mistakes
batch = against_samples(turns, samples)            # gold against wrong samples of the model
batch = among_samples(tasks, samples)              # its right samples against its wrong ones
rows = pair_rows(batch.pairs, dialect, tokenizer, max_length=1024)     # rows.rows, rows.report
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from toolhone.data.render import check_lengths
from toolhone.dialects.interface import Dialect
from toolhone.errors import DataError, DialectError
from toolhone.rows import Origin, Row
from toolhone.schema import Conversation, Json, Message, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.source import tasks_of
from toolhone.tokenizer import Span, TextTokenizer


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
        self, kind: PairKind, rejected: Message, tokens: tuple[int, ...] = (), raw: bool = False
    ) -> PreferencePair:
        """Return the pair of gold and `rejected`."""
        task, name = self.task, f"{self.task.id}/{kind.value}"
        sides = ((self.gold,), (rejected,))
        preference = Preference(task.messages, *sides, task.tools, name, task.source, raw=raw)
        return PreferencePair(preference, kind, tokens)

    def against_sample(self, sample: Sampled) -> PreferencePair:
        """Return the pair of gold and a sample, as sampled."""
        rejected = Message("assistant", sample.text)
        return self.against(PairKind.OWN_SAMPLE, rejected, sample.tokens, raw=True)


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


def against_samples(
    turns: Sequence[AssistantTurn], samples: Sequence[Sequence[Sampled]], each: int = 1
) -> PairBatch:
    """Pair gold with at most `each` different wrong samples of a turn, the most frequent first."""
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for turn, drawn in zip(turns, samples, strict=True):
        wrong = _most_frequent(drawn, False, each)
        pairs += [turn.against_sample(sample) for sample in wrong]
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
        turns = [AssistantTurn(task, best.message) for best in right]
        pairs += [turn.against_sample(sample) for turn in turns for sample in wrong]
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


def _count(samples: Sequence[Sequence[Sampled]], without: Counter[str]) -> dict[str, Any]:
    return {
        "decisions": len(samples),
        "samples": sum(map(len, samples)),
        "wrong_samples": sum(not sample.right for drawn in samples for sample in drawn),
        "without_pair": dict(without),
    }


@dataclass(frozen=True)
class PairRows:
    """Rows in pairs, the chosen one first, and a count of all pairs."""

    rows: list[Row]
    report: dict[str, Any]


def pair_rows(
    pairs: Iterable[PreferencePair],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    max_length: int,
    too_long: Literal["drop", "error"] = "drop",
) -> PairRows:
    """Return the rows of all pairs: two rows of one group after the same prompt.

    Turns of the assistant after the prompt are trained, with their stop marks. A `raw` side keeps
    its marks, a sampled one its ids. Pairs with equal sides, with a side whose turns all weigh 0,
    or too long ones, are dropped and counted. A rejected side that the dialect cannot write
    drops a made pair; in a file it is an error.
    """
    rows: list[Row] = []
    kinds: list[PairKind] = []
    identical = unwritable = not_learned = 0
    for number, pair in enumerate(pairs):
        sides = (pair.preference.chosen, pair.preference.rejected)
        if not all(Conversation(side).is_learned for side in sides):
            not_learned += 1
            continue
        chosen, rejected = _sides(pair, dialect, tokenizer)
        if rejected is None:
            unwritable += 1
        elif chosen.tokens.tolist() == rejected.tokens.tolist():
            identical += 1
        else:
            both = (row.with_mask(row.mask) for row in (chosen, rejected))
            rows += [replace(row, group=f"pair-{number}") for row in both]
            kinds.append(pair.kind)
    if identical and not rows:
        same = "chosen and rejected are the same once they are written; there is nothing to prefer"
        raise DataError(f"in all {identical} pairs {same}")
    lengths = check_lengths(rows, max_length, too_long, may_be_empty=True)
    left = {row.group for row in lengths.rows}
    places = zip(kinds, rows[::2], strict=True)
    kept = Counter(kind.value for kind, row in places if row.group in left)
    report = {
        "pairs": len(lengths.rows) // 2,
        "identical": identical,
        "unwritable": unwritable,
        "not_learned": not_learned,
        "too_long": lengths.dropped // 2,
        "longest_row": lengths.longest,
        "kinds": dict(sorted(kept.items())),
    }
    return PairRows(lengths.rows, report)


def _sides(
    pair: PreferencePair, dialect: Dialect, tokenizer: TextTokenizer
) -> tuple[Row, Row | None]:
    """Return the chosen row and the rejected one, or None if that is made and unwritable."""
    preference, side = pair.preference, "chosen"
    try:
        chosen = _row_of(preference, preference.chosen, dialect, tokenizer)
        side, prompt = "rejected", chosen.tokens[: int(chosen.mask.argmax())].tolist()
        sampled = pair.tokens
        if preference.raw and not sampled:  # marks in the text are marks
            stops = tokenizer.stop_ids(dialect.stop)
            text = Span(preference.rejected[0].content or "", Origin.SAMPLED, trained=True)
            spans = [Span("", Origin.SAMPLED), text]
            sampled = tuple(tokenizer.encode_spans(spans).tokens.tolist())
            if any(token in stops for token in sampled):
                marks = " or ".join(dialect.stop)
                raise DialectError(
                    f"its raw text holds the stop mark ({marks}), which ends the turn"
                )
            last = int(chosen.tokens[-1])  # stops like the chosen side
            sampled = (*sampled, last if last in stops else stops[0])
        if sampled:
            split = (len(prompt), len(sampled))
            origins = [int(Origin.PROMPT)] * split[0] + [int(Origin.SAMPLED)] * split[1]
            mask = [False] * split[0] + [True] * split[1]
            return chosen, Row.of([*prompt, *sampled], mask, origins)
        rejected = _row_of(preference, preference.rejected, dialect, tokenizer)
    except DialectError as error:
        if side == "rejected" and pair.kind is not PairKind.FILE:
            return chosen, None
        raise DialectError(f"pair {preference.id!r}, {side}: {error}") from None
    if rejected.tokens[: int(rejected.mask.argmax())].tolist() != prompt:
        raise DialectError(
            f"pair {preference.id!r}: the template writes the prompt in two ways, depending on "
            "what follows it"
        )
    return chosen, rejected


def _row_of(
    preference: Preference, side: Sequence[Message], dialect: Dialect, tokenizer: TextTokenizer
) -> Row:
    """Return the prompt and a side up to its last trained token; only the side is trained."""
    messages = (*preference.prompt, *side)
    lists = dialect.render(Conversation(messages, preference.tools, preference.id))
    turns = sum(message.role == "assistant" for message in side)
    if len(lists) > 1 and turns > 1:
        raise DialectError(
            f"it has {turns} turns of the assistant, and this model's template rewrites earlier "
            "turns, so that there is no one row for them; use model.history=kept, or pairs of one "
            "turn"
        )
    row = tokenizer.encode_spans(lists[-1])
    starts = np.flatnonzero(np.diff(row.mask.astype(np.int8), prepend=0) == 1)
    if len(starts) < turns:
        raise DialectError(
            f"it has {turns} turns of the assistant, of which the rendered text shows {len(starts)}"
        )
    mask = row.mask.copy()
    mask[: starts[len(starts) - turns]] = False
    end = int(np.flatnonzero(mask)[-1]) + 1
    origin = None if row.origin is None else row.origin[:end]
    arrays = {name: values[:end] for name, values in row.arrays.items()}
    return Row(row.tokens[:end], mask[:end], arrays, origin)
