"""Two models on the same tasks: how large the difference is, how sure, and whether chance alone explains it.

    spread([0, 1, 1, 0, -1])      Score(value=0.2, low=-0.44, high=0.70, n=5)     the mean difference with its 95 % interval
    chance([0, 1, 1, 0, -1])      1.0                                             the p-value of "there is no difference"
    holm([0.01, 0.04, 0.5])       [0.03, 0.08, 0.5]                               p-values of tests that are read together

A difference is tuned minus base on one task, in [-1, 1]. Differences of 0/1 scores (-1, 0, 1) have formulas, others are resampled;
the same differences give the same numbers on every machine. The interval and the test answer two questions and may disagree at the
edge: the test decides. Nothing here says that two models are equally good: no difference seen is not no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from toolhone.evaluation.statistics import UNMEASURED, Z95, Score, bootstrap

FLIPS = 20_000
"""Random flips of signs; the smallest p-value they can show is 1 / 20,001."""
_HALVINGS = 60


def spread(differences: Sequence[float]) -> Score:
    """The mean difference with its 95 % interval: Tango's where each is -1, 0 or 1 or all are equal, else the paired bootstrap.

    The bootstrap draws whole pairs. With 0/1 scores it is too sure of itself: where no task changed it has no width at all, and
    where few did it holds the truth too rarely (`docs/compare.md` has the figures).
    """
    if not differences:
        return UNMEASURED
    n = len(differences)
    if set(differences) <= {-1, 0, 1} or len(set(differences)) == 1:
        gained, lost = (
            math.fsum(d for d in differences if d > 0),
            -math.fsum(d for d in differences if d < 0),
        )
        low, high = tango(gained, lost, n)
        return Score((gained - lost) / n, low, high, n)
    return bootstrap(differences)


def tango(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Tango's score interval for a difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908).

    `gained` tasks of `n` are right only in the second, `lost` only in the first. The interval holds every difference that the score
    test would not reject; it has width where nothing changed, and never leaves [-1, 1]. Fractional sums are allowed: a difference
    in [-1, 1] has at most the variance of one that is -1, 0 or 1 with the same gains and losses.
    """
    observed = (gained - lost) / n
    low = _root(lambda d: _tango_score(gained, lost, n, d) > Z95, -1.0, observed)
    high = _root(lambda d: _tango_score(gained, lost, n, d) > -Z95, observed, 1.0)
    return min(low, observed), max(high, observed)


def _tango_score(gained: float, lost: float, n: int, difference: float) -> float:
    """How many standard errors lie between the observed difference and a supposed one; falls as the supposed one rises.

    The variance is taken at the most likely chance of a loss among those that fit the supposed difference.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * loss + difference * (1 - difference))
    gap = gained - lost - n * difference
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)


def _root(before: Callable[[float], bool], low: float, high: float) -> float:
    """Where `before` stops being true between two points, by halving."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2


def chance(differences: Sequence[float]) -> float:
    """The two-sided p-value: how often flipping the sign of each difference at random gives a sum as far from 0 as the one seen.

    If base and tuned could be exchanged on every task, each sign would be a fair coin (Fisher 1935, The Design of Experiments,
    section 21). For differences of -1, 0 and 1 this is McNemar's exact test.
    """
    if set(differences) <= {-1, 0, 1}:
        return mcnemar(sum(d > 0 for d in differences), sum(d < 0 for d in differences))
    return _flipped(differences)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's test with the exact binomial distribution (McNemar 1947, Psychometrika 12:153-157), two-sided."""
    changed, fewer = gained + lost, min(gained, lost)
    term = total = 1
    for k in range(1, fewer + 1):
        term = term * (changed - k + 1) // k
        total += term
    return float(min(1.0, total / 2 ** max(changed - 1, 0)))


def _flipped(differences: Sequence[float]) -> float:
    """The same by drawing flips: for each distinct size (to a thousandth) a binomial number of plus signs.

    The random stream depends on `n` alone. The flip that was seen is counted, so that p is never 0 (Phipson & Smyth 2010,
    doi:10.2202/1544-6115.1585).
    """
    units = np.round(np.asarray(differences, dtype=np.float64) * 1000).astype(np.int64)
    sizes, counts = np.unique(np.abs(units[units != 0]), return_counts=True)
    stream = np.random.Generator(np.random.Philox(len(differences)))
    sums = np.zeros(FLIPS, dtype=np.int64)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * stream.binomial(count, 0.5, FLIPS) - count)
    return (1 + int((np.abs(sums) >= abs(int(units.sum()))).sum())) / (1 + FLIPS)


def holm(chances: Sequence[float]) -> list[float]:
    """P-values corrected for being read together (Holm 1979, Scandinavian Journal of Statistics 6:65-70), in the same order.

    Calling those below 5 % real is wrong about even one of them in at most 5 % of cases, however the tests depend on each other.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected, least = [0.0] * len(chances), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(chances) - rank) * chances[index]))
        corrected[index] = least
    return corrected
