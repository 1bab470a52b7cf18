"""Who goes with whom: the pairs of rows and columns with the largest total gain, and the best pairs that do not cross.

    assign([[1, 5], [4, 6]])      [(0, 1), (1, 0)]      a total of 9; taking the 6 first would give 7
    in_order([[1, 5], [4, 6]])    [(0, 0), (1, 1)]      a total of 7 without crossing

Gains are whole numbers and not negative, so that results are exact. Used by `matching` to pair calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Gains = Sequence[Sequence[int]]
"""Gain of pairing row i with column j, shape [rows][columns]."""

OPTIMAL_UP_TO = 2_000_000
"""Above this many steps (smaller side squared times the larger) `assign` is greedy: a bound on time, about a second."""


def assign(gain: Gains) -> list[tuple[int, int]]:
    """Pairs (row, column) with the largest total gain; as many as the smaller side has, each row and column at most once.

    The Hungarian method with potentials (Kuhn 1955, doi:10.1002/nav.3800020109; Jonker & Volgenant 1987,
    doi:10.1007/BF02278710). Beyond `OPTIMAL_UP_TO` the pairs are taken greedily, the largest gain first.
    """
    rows, columns = len(gain), len(gain[0]) if gain else 0
    if rows > columns:
        return sorted(
            (row, column)
            for column, row in assign([list(line) for line in zip(*gain, strict=True)])
        )
    if rows * rows * columns > OPTIMAL_UP_TO:
        return _greedy(gain)
    return _hungarian(gain, columns)


def _greedy(gain: Gains) -> list[tuple[int, int]]:
    cells = sorted(
        (-value, row, column) for row, line in enumerate(gain) for column, value in enumerate(line)
    )
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for _, row, column in cells:
        if row not in chosen and column not in taken:
            chosen[row] = column
            taken.add(column)
    return sorted(chosen.items())


def _hungarian(gain: Gains, columns: int) -> list[tuple[int, int]]:
    """One row after the other enters at the extra column `columns` and pushes the others along the cheapest path."""
    row_price, column_price = [0.0] * len(gain), [0.0] * (columns + 1)
    owner = [-1] * (columns + 1)
    for entering in range(len(gain)):
        column, owner[columns] = columns, entering
        slack = [math.inf] * columns
        came_from = [columns] * columns
        reached = [False] * (columns + 1)
        while owner[column] >= 0:
            reached[column] = True
            row = owner[column]
            for j in range(columns):
                cost = -gain[row][j] - row_price[row] - column_price[j]
                if not reached[j] and cost < slack[j]:
                    slack[j], came_from[j] = cost, column
            step, nearest = min((slack[j], j) for j in range(columns) if not reached[j])
            for j in range(columns + 1):
                if reached[j]:
                    row_price[owner[j]] += step
                    column_price[j] -= step
                elif j < columns:
                    slack[j] -= step
            column = nearest
        while column != columns:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    return sorted((owner[j], j) for j in range(columns) if owner[j] >= 0)


def in_order(gain: Gains) -> list[tuple[int, int]]:
    """The pairs (row, column) of positive gain with the largest total that do not cross (a weighted common subsequence)."""
    rows, columns = len(gain), len(gain[0]) if gain else 0
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + gain[i][j])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if gain[i][j] and best[i][j] == best[i + 1][j + 1] + gain[i][j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs
