"""`Forest`: rows as a trie of token nodes, so that what rows begin with alike runs once.

    forest = Forest.of([row.tokens for row in rows])
    forest.tokens, forest.positions      # int64 [n]: every token once; its depth in the trie
    forest.places[r]                     # int64 [len(row r)]: where the tokens of row r are

`attention.py` runs it. `split` makes micro-batches of rows, budgeted by distinct tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from toolhone.rows import Row

SHORTEST = 8
"""Tokens that rows must have in common, beyond their parent node, to become a node."""
BATCH_COST = 64
"""What one more micro-batch costs, in tokens that run twice."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """Tokens `start` to `end` of a forest; those up to `stop` are its descendants."""

    start: int
    end: int
    stop: int


@dataclass(frozen=True)
class Forest:
    """Nodes in depth-first order, so that the descendants of a node follow it at once."""

    tokens: Ids
    positions: Ids
    nodes: list[Node]
    places: list[Ids]

    @staticmethod
    def of(rows: Sequence[Ids], share: bool = True) -> Forest:
        """The forest of these rows; with `share` False every row is a tree of its own."""
        order, shared, equal = prefix_order(rows)
        if not share:
            shared, equal = np.zeros_like(shared), np.zeros_like(equal)
        tokens: list[Ids] = []
        positions: list[Ids] = []
        spans: list[tuple[int, int, int | None]] = []
        places = [np.zeros(len(row), np.int64) for row in rows]
        size = 0

        def parts(low: int, high: int, depth: int, parent: int | None) -> None:
            """Queue the rows from `low` to `high`, cut where fewer than `SHORTEST` are shared."""
            inner = slice(low + 1, high)
            cuts = low + 1 + np.flatnonzero((shared[inner] < depth + SHORTEST) & ~equal[inner])
            bounds = [low, *cuts.tolist(), high]
            cut = [(a, b, depth, parent) for a, b in pairwise(bounds)]
            waiting.extend(reversed(cut))

        waiting: list[tuple[int, int, int, int | None]] = []
        if rows:
            parts(0, len(rows), 0, None)
        while waiting:
            low, high, depth, parent = waiting.pop()
            row = rows[order[low]]
            common = len(row) if high == low + 1 else int(shared[low + 1 : high].min())
            if common > depth:
                tokens.append(row[depth:common])
                positions.append(np.arange(depth, common))
                for member in order[low:high]:
                    places[member][depth:common] = np.arange(size, size + common - depth)
                spans.append((size, size + common - depth, parent))
                size += common - depth
            if common < len(rows[order[high - 1]]):
                parts(low, high, common, len(spans) - 1)
        none = [np.zeros(0, np.int64)]
        nodes = _closed(spans)
        return Forest(
            np.concatenate(tokens or none), np.concatenate(positions or none), nodes, places
        )


def _closed(spans: Sequence[tuple[int, int, int | None]]) -> list[Node]:
    """Nodes of (start, end, index of the parent), with the end of their descendants."""
    stops = [end for _, end, _ in spans]
    for index in reversed(range(len(spans))):
        parent = spans[index][2]
        if parent is not None:
            stops[parent] = max(stops[parent], stops[index])
    return [Node(start, end, stop) for (start, end, _), stop in zip(spans, stops, strict=True)]


def inputs_of(row: Row) -> Ids:
    """The tokens that a model reads for a row: those before its last target."""
    targets = np.flatnonzero(row.mask)
    return row.tokens[: targets[-1]] if len(targets) else row.tokens[:0]


def prefix_order(rows: Sequence[Ids]) -> tuple[Ids, Ids, NDArray[np.bool_]]:
    """Rows in lexicographic order; how many tokens each begins with as the one before does, and
    whether it equals that."""
    keys = [row.astype(">u4").tobytes() for row in rows]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    shared = [0] * len(rows)
    for place in range(1, len(rows)):
        shared[place] = common_prefix(rows[order[place - 1]], rows[order[place]])
    equal = [
        place > 0 and keys[order[place]] == keys[order[place - 1]] for place in range(len(rows))
    ]
    return np.array(order, np.int64), np.array(shared, np.int64), np.array(equal, bool)


def common_prefix(first: Ids, second: Ids) -> int:
    """How many tokens two rows begin with alike."""
    length = min(len(first), len(second))
    differ = first[:length] != second[:length]
    return int(differ.argmax()) if differ.any() else length


def split(
    rows: Sequence[Ids], limit: float, groups: Sequence[str | None], share: bool = True
) -> list[list[int]]:
    """Split rows into micro-batches of at most `limit` distinct tokens; returns row indices.

    Rows are cut, in prefix order, where the fewest tokens run twice. Rows of one group (None: of
    their own) are never split, and neighbours in their order; a group above the limit is one batch.
    """
    order, shared, equal = prefix_order(rows)
    units: dict[object, list[int]] = {}
    for index in order.tolist():
        units.setdefault(index if groups[index] is None else groups[index], []).append(index)
    parts = list(units.values())
    if any(len(part) > 1 for part in parts):
        placed = [rows[index] for part in parts for index in part]
        shared = np.array([0, *map(common_prefix, placed, placed[1:])], np.int64)
        equal = np.zeros(len(rows), bool)
    # A trie may cut up to SHORTEST - 1 tokens before two rows differ.
    sure = np.where(equal, shared, np.maximum(shared - SHORTEST + 1, 0))
    common = sure.tolist() if share else [0] * len(rows)
    saved, fresh, at = [], [], 0  # of each unit: tokens in common with the one before, the others
    for part in parts:
        saved.append(common[at])
        size = sum(len(rows[index]) for index in part)
        fresh.append(size - sum(common[at : at + len(part)]))
        at += len(part)
    return [
        [index for part in sorted(map(sorted, parts[low:high])) for index in part]
        for low, high in _cuts(saved, fresh, limit)
    ]


def _cuts(saved: Sequence[int], fresh: Sequence[int], limit: float) -> list[tuple[int, int]]:
    """Ranges of units within the limit, for which the least runs twice (dynamic programming)."""
    best, origin = [0.0], [0]
    for high in range(1, len(fresh) + 1):
        costs, size = [], 0
        for low in reversed(range(high)):
            size += fresh[low]
            if size > limit and low < high - 1:
                break
            if size + saved[low] <= limit or low == high - 1:
                costs.append((best[low] + saved[low] + BATCH_COST, low))
        cost, low = min(costs)
        best.append(cost)
        origin.append(low)
    ranges, high = [], len(fresh)
    while high:
        ranges.append((origin[high], high))
        high = origin[high]
    return ranges[::-1]
