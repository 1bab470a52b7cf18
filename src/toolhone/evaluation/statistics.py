"""How sure a mean is: a value with its 95 % interval.

    interval([1, 1, 0, 1])          Score(value=0.75, low=0.30, high=0.95, n=4)      0 / 1 scores: Wilson
    interval([1, 0.5, 0.25, 1])     Score(value=0.69, low=0.38, high=1.0, n=4)       fractions: bootstrap
    interval([])                    Score(value=None, low=None, high=None, n=0)      nothing was measured

The interval speaks of other tasks drawn like these, not of other samples for the same tasks. The same scores give the same
numbers on every machine; there is no hidden randomness. Comparing two models is not done here: intervals of two models may
overlap although a paired comparison finds a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
RESAMPLES = 4000


@dataclass(frozen=True)
class Score:
    """A mean of scores in [0, 1] with its 95 % interval over `n` of them; all None when n is 0 (nothing was measured)."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


UNMEASURED = Score(None, None, None, 0)


def interval(scores: Sequence[float]) -> Score:
    """Mean and interval of scores in [0, 1]: by Wilson's formula when each is 0 or 1 or all are equal, else by bootstrap."""
    if not scores:
        return UNMEASURED
    assert all(0.0 <= score <= 1.0 for score in scores), "scores must lie in [0, 1]"
    if len(set(scores)) == 1 or set(scores) <= {0, 1}:
        return wilson(math.fsum(scores), len(scores))
    return bootstrap(scores)


def wilson(successes: float, n: int) -> Score:
    """Wilson's score interval for a proportion (Wilson 1927, JASA 22:209-212, doi:10.1080/01621459.1927.10502953).

    Never leaves [0, 1] and is sensible at 0 and at n, where the plain normal interval has no width. `successes` may be a fractional
    sum: a score in [0, 1] has at most the variance of a coin with the same mean, so the interval is then wider than needed.
    """
    if n == 0:
        return UNMEASURED
    share, square = successes / n, Z95 * Z95
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Score(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)), n)


def bootstrap(scores: Sequence[float], resamples: int = RESAMPLES) -> Score:
    """The mean with its percentile bootstrap interval (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    A resample is a multinomial draw over the distinct scores (to a thousandth), from a random stream that depends on `n` alone.
    """
    values, counts = np.unique(
        np.round(np.asarray(scores, dtype=np.float64), 3), return_counts=True
    )
    n = int(counts.sum())
    stream = np.random.Generator(np.random.Philox(n))
    means = np.sort(stream.multinomial(n, counts / n, size=resamples) @ values / n)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = math.fsum(scores) / n
    return Score(mean, float(min(low, mean)), float(max(high, mean)), n)
