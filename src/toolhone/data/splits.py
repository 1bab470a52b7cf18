"""Training and validation parts of one file, by a hash of each row.

    split = split_rows(conversations, fraction=0.1, seed=0)
    split = split_by_tools(conversations, fraction=0.1)      # no tool is on offer in both parts
    split.train, split.validation, split.dropped

A row's side depends on how it opens, so that duplicates, two answers to one question, and a
conversation and its tasks stay together.
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
from toolhone.sources.source import fingerprint

R = TypeVar("R", Conversation, Task)
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Split(Generic[R]):
    """The two parts in the order of the file; `dropped` rows belong to neither."""

    train: list[R]
    validation: list[R]
    dropped: int = 0


def split_rows(rows: Sequence[R], fraction: float, seed: int = 0) -> Split[R]:
    """Put each opening into validation with probability `fraction`; adding rows moves none.

    Where one side would stay without rows, the opening nearest to the border goes there.
    """
    openings = _check(rows, fraction)
    places = {opening: _place(opening, seed) for opening in openings}
    chosen = {opening for opening, place in places.items() if place < fraction}
    if 0 < fraction < 1:
        chosen = chosen or {min(places, key=places.__getitem__)}
        if len(chosen) == len(places):
            chosen.remove(max(places, key=places.__getitem__))
    pairs = list(zip(rows, openings, strict=True))
    train = [row for row, opening in pairs if opening not in chosen]
    return Split(train, [row for row, opening in pairs if opening in chosen])


def split_by_tools(rows: Sequence[R], fraction: float, seed: int = 0) -> Split[R]:
    """Put about `fraction` of the rows into validation, with tools that training never offers.

    Rows that share tools, or open alike, form clusters; whole clusters go to validation where they
    fit. Of a cluster that is too large, the rows whose tools the fewest other rows offer go, and
    rows that share tools with both parts are dropped and counted. Adding rows may move others.
    """
    openings = _check(rows, fraction)
    labels = [
        Labels([("opening", first)]) | {("tool", tool.name) for tool in row.tools}
        for row, first in zip(rows, openings, strict=True)
    ]
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
        often = Counter(label for index in left for label in labels[index])
        left.sort(key=lambda index: sum(often[label] - 1 for label in labels[index]))
        taken += left[: target - len(taken)]
    held = Labels().union(*(labels[index] for index in taken))
    validation = [row for row, own in zip(rows, labels, strict=True) if own <= held]
    train = [row for row, own in zip(rows, labels, strict=True) if not own & held]
    if 0 < fraction < 1 and not train:
        raise DataError(
            f"no tools can be held out: each of the {len(rows)} rows offers a tool of the "
            f"{len(validation)} rows to be held out; split by rows, or name a validation file"
        )
    return Split(train, validation, len(rows) - len(train) - len(validation))


def _clusters(labels: Sequence[Labels], order: Sequence[int]) -> list[list[int]]:
    """Return the connected components of rows by shared labels, all in `order`."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in order:
        for label in labels[index]:
            members[label].append(index)
    rank = {index: place for place, index in enumerate(order)}
    clusters: list[list[int]] = []
    seen: set[int] = set()
    for start in order:
        cluster = [] if start in seen else [start]
        seen.add(start)
        for index in cluster:
            fresh = {other for label in labels[index] for other in members.pop(label, ())} - seen
            seen |= fresh
            cluster += fresh
        clusters += [sorted(cluster, key=rank.__getitem__)] if cluster else []
    return clusters


def _check(rows: Sequence[R], fraction: float) -> list[str]:
    """Return the openings of the rows; a split that is not possible is a `DataError`."""
    if not 0 <= fraction <= 1:
        raise DataError(f"the validation fraction must be between 0 and 1, got {fraction}")
    openings = [opening(row) for row in rows]
    if 0 < fraction < 1 and len(set(openings)) < 2:
        alike = "they open with the same messages and stay together"
        reason = alike if len(rows) > 1 else "a split needs two"
        count = f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}"
        raise DataError(f"{count} cannot be split: {reason}; name a validation file")
    return openings


def opening(row: Conversation | Task) -> str:
    """Return a hash of the messages before the assistant first speaks."""
    messages = row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    return fingerprint(tuple(takewhile(lambda message: message.role != "assistant", messages)))


def _place(key: str, seed: int) -> float:
    """Return a number in [0, 1), uniform over keys, fixed by key and seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
