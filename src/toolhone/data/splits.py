"""Training and validation parts of one file, by a hash of each row.

    split = split_rows(conversations, fraction=0.1, seed=0)
    split.train, split.validation
    split = split_by_tools(conversations, fraction=0.1)      # no tool of the validation part occurs in training
    split.dropped                                            # rows that belonged to neither side

`split_rows` hashes how a row opens: its messages before the assistant first speaks. So a row's side does not depend on the other
rows (adding rows moves none), duplicates stay together, and so do two answers to one question and a conversation and the tasks made
of it. `split_by_tools` has to look at all rows at once; adding rows may move others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, TypeVar

from toolhone.errors import DataError
from toolhone.schema import Conversation, Task
from toolhone.sources.tasks import fingerprint

R = TypeVar("R", Conversation, Task)
Label = tuple[str, str]
Labels = frozenset[Label]


@dataclass(frozen=True)
class Split(Generic[R]):
    """The two parts, each in the order of the file, and the number of rows that belong to neither."""

    train: list[R]
    validation: list[R]
    dropped: int = 0


def split_rows(rows: Sequence[R], fraction: float, seed: int = 0) -> Split[R]:
    """Put each opening into validation with probability `fraction`.

    In a small file chance may leave one side without rows; the opening nearest to the border then goes there.
    """
    _check(rows, fraction)
    openings = [opening(row) for row in rows]
    places = {opening: _place(opening, seed) for opening in openings}
    chosen = {opening for opening, place in places.items() if place < fraction}
    if 0 < fraction < 1:
        chosen = chosen or {min(places, key=places.__getitem__)}
        if len(chosen) == len(places):
            chosen.remove(max(places, key=places.__getitem__))
    train = [row for row, opening in zip(rows, openings, strict=True) if opening not in chosen]
    return Split(
        train, [row for row, opening in zip(rows, openings, strict=True) if opening in chosen]
    )


def split_by_tools(rows: Sequence[R], fraction: float, seed: int = 0) -> Split[R]:
    """Put about `fraction` of the rows into validation such that no tool on offer there is on offer in training.

    Rows that share tools (or open alike) form clusters, and whole clusters go to validation where they fit. Where one cluster is
    too large for that, as with distractors out of one catalogue, those of its rows go that share their tools with the fewest
    others, and rows that share tools with both parts are dropped and counted; such a validation part leans to rare tools and to
    fewer calls.
    """
    _check(rows, fraction)
    openings = [opening(row) for row in rows]
    labels = [_labels(row, opening) for row, opening in zip(rows, openings, strict=True)]
    order = sorted(range(len(rows)), key=lambda index: (_place(openings[index], seed), index))
    target = round(fraction * len(rows))
    if 0 < fraction < 1:
        target = min(max(target, 1), len(rows) - 1)
    clusters = _clusters(labels, order)
    taken: list[int] = []
    for cluster in clusters:
        taken += cluster if len(taken) + len(cluster) <= target else []
    if len(taken) < target / 2:
        left = max((cluster for cluster in clusters if len(cluster) > target - len(taken)), key=len)
        taken += _least_entangled(labels, left, target - len(taken))
    split = _separated(rows, labels, taken)
    if 0 < fraction < 1 and not split.train:
        raise DataError(
            f"no tools can be held out: each of the {len(rows)} rows offers a tool of the {len(split.validation)} rows "
            "to be held out; split by rows, or name a validation file"
        )
    return split


def _labels(row: Conversation | Task, opening: str) -> Labels:
    return frozenset([("opening", opening), *(("tool", tool.name) for tool in row.tools)])


def _separated(rows: Sequence[R], labels: Sequence[Labels], taken: Sequence[int]) -> Split[R]:
    """Validation: rows wholly inside the labels of the taken rows. Training: rows wholly outside."""
    held = frozenset[Label]().union(*(labels[index] for index in taken))
    validation = [row for row, own in zip(rows, labels, strict=True) if own <= held]
    train = [row for row, own in zip(rows, labels, strict=True) if not own & held]
    return Split(train, validation, len(rows) - len(train) - len(validation))


def _clusters(labels: Sequence[Labels], order: Sequence[int]) -> list[list[int]]:
    """The connected components of rows by shared labels, each with its rows in `order`, sorted by their first rows."""
    members: dict[Label, list[int]] = defaultdict(list)
    for index in order:
        for label in labels[index]:
            members[label].append(index)
    rank = {index: place for place, index in enumerate(order)}
    clusters: list[list[int]] = []
    seen: set[int] = set()
    for start in order:
        if start in seen:
            continue
        seen.add(start)
        cluster = [start]
        for index in cluster:
            for label in labels[index]:
                fresh = [other for other in members.pop(label, ()) if other not in seen]
                seen.update(fresh)
                cluster += fresh
        clusters.append(sorted(cluster, key=rank.__getitem__))
    return clusters


def _least_entangled(labels: Sequence[Labels], cluster: Sequence[int], count: int) -> list[int]:
    """The `count` rows of a cluster whose labels occur least often in other rows; the order of the cluster breaks ties."""
    often = Counter(label for index in cluster for label in labels[index])
    return sorted(cluster, key=lambda index: sum(often[label] - 1 for label in labels[index]))[
        :count
    ]


def _check(rows: Sequence[R], fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise DataError(f"the validation fraction must be between 0 and 1, got {fraction}")
    if 0 < fraction < 1 and len({opening(row) for row in rows}) < 2:
        reason = (
            "they open with the same messages and stay together"
            if len(rows) > 1
            else "a split needs two"
        )
        raise DataError(f"{len(rows)} rows cannot be split: {reason}; name a validation file")


def opening(row: Conversation | Task) -> str:
    """A hash of the messages before the assistant first speaks."""
    messages = row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    return fingerprint(tuple(takewhile(lambda message: message.role != "assistant", messages)))


def _place(key: str, seed: int) -> float:
    """A number in [0, 1), uniform over keys, fixed by key and seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
