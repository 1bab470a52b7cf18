"""Means with 95 % intervals, and paired differences between two models.

    interval([1, 1, 0, 1])                   # Score(value=0.75, low=0.30, high=0.95, n=4)
    paired_interval([0, 1, 1, 0, -1])        # Score(value=0.2, low=-0.44, high=0.70, n=5)
    paired_p_value([0, 1, 1, 0, -1])         # 1.0

The same scores give the same numbers on every machine; random streams depend on `n` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
RESAMPLES = 4000
FLIPS = 20_000
"""Random sign flips; the smallest p-value they can show is 1 / 20,001."""
_HALVINGS = 60


@dataclass(frozen=True)
class Score:
    """A mean with its 95 % interval over `n` tasks; all None where n is 0."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


UNMEASURED = Score(None, None, None, 0)


def interval(scores: Sequence[float]) -> Score:
    """Mean and interval of scores in [0, 1].

    Wilson's formula where each is 0 or 1 or all are equal, else the bootstrap. The interval covers
    other tasks drawn like these, not other samples for the same tasks.
    """
    if not scores:
        return UNMEASURED
    assert all(0.0 <= score <= 1.0 for score in scores), "scores must lie in [0, 1]"
    if len(set(scores)) == 1 or set(scores) <= {0, 1}:
        return wilson(math.fsum(scores), len(scores))
    return bootstrap(scores)


def wilson(successes: float, n: int) -> Score:
    """Wilson's score interval for a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    `successes` may be a fractional sum: a score in [0, 1] has at most the variance of a coin with
    the same mean, so the interval is then wider than needed.
    """
    if n == 0:
        return UNMEASURED
    share, square = successes / n, Z95 * Z95
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Score(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)), n)


def bootstrap(scores: Sequence[float]) -> Score:
    """The mean with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    A resample is a multinomial draw over the distinct scores, rounded to a thousandth.
    """
    rounded = np.round(np.asarray(scores, dtype=np.float64), 3)
    values, counts = np.unique(rounded, return_counts=True)
    n = int(counts.sum())
    stream = np.random.Generator(np.random.Philox(n))
    means = np.sort(stream.multinomial(n, counts / n, size=RESAMPLES) @ values / n)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = math.fsum(scores) / n
    return Score(mean, float(min(low, mean)), float(max(high, mean)), n)


def paired_interval(differences: Sequence[float]) -> Score:
    """The mean of differences in [-1, 1] (tuned minus base) with its 95 % interval.

    Tango's where each is -1, 0 or 1 or all are equal, else the bootstrap over whole pairs, which is
    too narrow for 0/1 scores (docs/compare.md has the figures).
    """
    if not differences:
        return UNMEASURED
    if not set(differences) <= {-1, 0, 1} and len(set(differences)) > 1:
        return bootstrap(differences)
    n = len(differences)
    gained = math.fsum(d for d in differences if d > 0)
    lost = -math.fsum(d for d in differences if d < 0)
    return Score((gained - lost) / n, *tango(gained, lost, n), n)


def tango(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Tango's score interval for a paired difference of proportions (1998, Stat. Med. 17:891).

    Of `n` tasks, `gained` are correct only in the second model, `lost` only in the first;
    fractional sums are allowed. It has width where nothing changed and never leaves [-1, 1].
    """
    observed = (gained - lost) / n
    low = _find_root(lambda d: _tango_score(gained, lost, n, d) > Z95, -1.0, observed)
    high = _find_root(lambda d: _tango_score(gained, lost, n, d) > -Z95, observed, 1.0)
    return min(low, observed), max(high, observed)


def _tango_score(gained: float, lost: float, n: int, difference: float) -> float:
    """Standard errors between the observed and a supposed difference; falls as that rises.

    The variance is that of the likeliest loss rate which fits the supposed difference.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * loss + difference * (1 - difference))
    gap = gained - lost - n * difference
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)


def _find_root(is_before: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_before(middle) else (low, middle)
    return (low + high) / 2


def paired_p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value of "there is no difference" by random sign flips (Fisher 1935, section 21).

    For differences of -1, 0 and 1 this is McNemar's exact test. The observed flip counts too, so
    that p is never 0 (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    if set(differences) <= {-1, 0, 1}:
        return mcnemar(sum(d > 0 for d in differences), sum(d < 0 for d in differences))
    units = np.round(np.asarray(differences, dtype=np.float64) * 1000).astype(np.int64)
    sizes, counts = np.unique(np.abs(units[units != 0]), return_counts=True)
    stream = np.random.Generator(np.random.Philox(len(differences)))
    sums = np.zeros(FLIPS, dtype=np.int64)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * stream.binomial(count, 0.5, FLIPS) - count)
    return (1 + int((np.abs(sums) >= abs(int(units.sum()))).sum())) / (1 + FLIPS)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided test (McNemar 1947, Psychometrika 12:153-157)."""
    changed = gained + lost
    term = total = 1
    for k in range(1, min(gained, lost) + 1):
        term = term * (changed - k + 1) // k
        total += term
    return float(min(1.0, total / 2 ** max(changed - 1, 0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being read together (Holm 1979, Scand. J. Stat. 6:65-70), in order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    stepwise = np.minimum(1.0, factors * np.asarray(p_values, dtype=np.float64)[order])
    corrected[order] = np.maximum.accumulate(stepwise)
    return [float(p) for p in corrected]
