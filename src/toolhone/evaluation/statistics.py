"""Means with 95 % intervals, and paired tests between two models; SciPy does the arithmetic.

    interval([1, 1, 0, 1])                   # Score(value=0.75, low=0.30, high=0.95, n=4)
    paired_interval([0, 1, 1, 0, -1])        # Score(value=0.2, low=-0.44, high=0.70, n=5)
    paired_p_value([0, 1, 1, 0, -1])         # 1.0

The same scores give the same numbers on every machine; random streams depend on `n` alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are used

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
RESAMPLES = 4000
FLIPS = 20_000
"""Random sign flips; the smallest p-value they can show is 1 / 20,001."""
EXACT_STEPS = 50_000_000
"""Additions up to which all sign flips are counted; beyond, `FLIPS` random ones."""
STEPS = 1000
"""Scores are told apart to a thousandth."""
Clusters = Sequence[Hashable]
"""What each score shares with others (a conversation, a template); different values: nothing."""
Vector = npt.NDArray[np.float64]


class Side(StrEnum):
    """Which difference a test looks for."""

    ANY = "two-sided"
    LOSS = "less"
    GAIN = "greater"


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


def interval(scores: Sequence[float], clusters: Clusters | None = None) -> Score:
    """Mean and interval of scores in [0, 1].

    Wilson's formula where each is 0 or 1 or all are equal, else the bootstrap; with `clusters`, for
    as many scores as they are worth (`design_effect`), or over whole clusters. The interval covers
    other tasks drawn like these, not other samples for the same tasks.
    """
    if not scores:
        return UNMEASURED
    assert all(0.0 <= score <= 1.0 for score in scores), "scores must lie in [0, 1]"
    if len(set(scores)) > 1 and not set(scores) <= {0, 1}:
        return bootstrap(scores, clusters)
    n, worth = len(scores), len(scores) / design_effect(scores, clusters)
    found = wilson(math.fsum(scores) / n * worth, worth)
    return Score(math.fsum(scores) / n, found.low, found.high, n)


def wilson(successes: float, n: float) -> Score:
    """Wilson's score interval for a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    `successes` may be a fractional sum: a score in [0, 1] has at most the variance of a coin with
    the same mean, so the interval is then wider than needed.
    """
    if n == 0:
        return UNMEASURED
    share, square = successes / n, Z95 * Z95
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    low, high = max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
    return Score(share, low, high, round(n))


def bootstrap(scores: Sequence[float], clusters: Clusters | None = None) -> Score:
    """The mean with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Resampled are scores, rounded to a thousandth, or whole clusters (a multinomial draw over the
    distinct ones).
    """
    rounded = np.asarray([round(score, 3) for score in scores], dtype=np.float64)
    sums, sizes = _cluster_sums(rounded, clusters)
    pairs, counts = np.unique(np.stack([sums.round(3), sizes], 1), axis=0, return_counts=True)
    drawn = int(counts.sum())
    stream = np.random.Generator(np.random.Philox(drawn))
    draws = stream.multinomial(drawn, counts / drawn, size=RESAMPLES) @ pairs
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    mean = math.fsum(scores) / len(scores)
    return Score(mean, float(min(low, mean)), float(max(high, mean)), len(scores))


def design_effect(scores: Sequence[float], clusters: Clusters | None = None) -> float:
    """How many clustered scores are worth one independent score, at least 1 (Kish 1965).

    The variance of the mean with clusters over that without; where all scores are equal, the mean
    size of a cluster, as if each cluster answered with one voice.
    """
    if clusters is None:
        return 1.0
    values = np.asarray(scores, dtype=np.float64)
    residuals = values - values.mean()
    sums, sizes = _cluster_sums(residuals, clusters)
    simple = float((residuals**2).sum())
    if len(sums) < 2 or simple == 0.0:
        return float(sizes.mean())
    clustered = float((sums**2).sum()) * len(sums) / (len(sums) - 1)
    return max(1.0, clustered / simple * (len(values) - 1) / len(values))


def _cluster_sums(values: Vector, clusters: Clusters | None) -> tuple[Vector, Vector]:
    """Sum and number of the values of each cluster, in order of appearance."""
    if clusters is None:
        return values, np.ones(len(values))
    places: dict[Hashable, int] = {}
    index = [places.setdefault(cluster, len(places)) for cluster in clusters]
    sums = np.zeros(len(places))
    np.add.at(sums, index, values)
    return sums, np.bincount(index).astype(np.float64)


def paired_interval(differences: Sequence[float], clusters: Clusters | None = None) -> Score:
    """The mean of differences in [-1, 1] (tuned minus base) with its 95 % interval.

    Tango's where each is -1, 0 or 1 or all are equal, else the bootstrap over whole pairs, which is
    too narrow for 0/1 scores (docs/compare.md has the figures); with `clusters` as `interval`.
    """
    if not differences:
        return UNMEASURED
    if not set(differences) <= {-1, 0, 1} and len(set(differences)) > 1:
        return bootstrap(differences, clusters)
    n, effect = len(differences), design_effect(differences, clusters)
    gained = math.fsum(d for d in differences if d > 0)
    lost = -math.fsum(d for d in differences if d < 0)
    return Score((gained - lost) / n, *tango(gained / effect, lost / effect, n / effect), n)


def tango(gained: float, lost: float, n: float) -> tuple[float, float]:
    """Tango's score interval for a paired difference of proportions (1998, Stat. Med. 17:891).

    Of `n` tasks, `gained` are correct only in the second model, `lost` only in the first;
    fractional sums are allowed. It has width where nothing changed and never leaves [-1, 1].
    """
    observed = (gained - lost) / n

    def root(z: float, end: float) -> float:
        """The supposed difference, between the observed one and `end`, at this many errors."""

        def beyond(difference: float) -> float:
            return tango_score(gained, lost, n, difference) - z

        inner, outer = observed, end * (1 - 1e-12)
        if beyond(inner) * beyond(outer) >= 0:
            return end
        return float(scipy.optimize.brentq(beyond, inner, outer, xtol=1e-14, rtol=1e-13))

    return min(root(Z95, -1.0), observed), max(root(-Z95, 1.0), observed)


def tango_score(gained: float, lost: float, n: float, difference: float) -> float:
    """Standard errors between the observed and a supposed difference; falls as that rises.

    The variance is that of the likeliest loss rate which fits the supposed difference; with a
    supposed difference of 0 this is McNemar's statistic.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * loss + difference * (1 - difference))
    gap = gained - lost - n * difference
    if variance <= 0:
        return math.copysign(1e9, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def paired_p_value(
    differences: Sequence[float],
    side: Side = Side.ANY,
    margin: float = 0.0,
    mid: bool = False,
    clusters: Clusters | None = None,
) -> float:
    """P-value of "there is no such difference", of one `side` or any.

    Zeros and ones: McNemar's exact test, or with a `margin` (a loss of at most so much counts as
    none; `Side.LOSS` alone) Tango's score test. Fractions and clusters: signs of the differences
    (plus the margin), or of the sums of clusters, are flipped (Fisher 1935, section 21). mid: an
    outcome as extreme as the observed one counts half (Lancaster 1961), which is less cautious.
    """
    assert not margin or side is Side.LOSS, "a margin belongs to losses"
    binary = clusters is None and set(differences) <= {-1, 0, 1}
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if binary and not margin:
        return mcnemar(gained, lost, side, mid)
    if binary:
        return float(scipy.stats.norm.cdf(tango_score(gained, lost, len(differences), -margin)))
    values = np.round(np.asarray(differences, dtype=np.float64) + margin, 3)
    return _sign_flips(_cluster_sums(values, clusters)[0], side, mid)


def mcnemar(gained: int, lost: int, side: Side = Side.ANY, mid: bool = False) -> float:
    """McNemar's exact test (McNemar 1947, Psychometrika 12:153-157), or its mid-p version
    (Fagerland et al. 2013, doi:10.1186/1471-2288-13-91)."""
    changed = gained + lost
    fewer = {Side.ANY: min(gained, lost), Side.LOSS: gained, Side.GAIN: lost}[side]
    tail = float(scipy.stats.binom.cdf(fewer, changed, 0.5))
    half = float(scipy.stats.binom.pmf(fewer, changed, 0.5)) / 2 if mid else 0.0
    return min(1.0, 2 * (tail - half)) if side is Side.ANY else tail - half


def _sign_flips(sums: Vector, side: Side, mid: bool) -> float:
    """Share of sign flips whose total is as extreme as that of `sums`.

    All flips are counted where that is cheap, else `FLIPS` random ones, the observed one included,
    so that p is never 0 (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    units = np.rint(sums * STEPS).astype(np.int64)
    units = units[units != 0]
    if not len(units):
        return 0.5 if mid and side is not Side.ANY else 1.0
    units //= np.gcd.reduce(units)
    sizes, counts = np.unique(np.abs(units), return_counts=True)
    reach, observed = int(np.abs(units).sum()), int(units.sum())
    if len(units) * reach <= EXACT_STEPS:
        chances = np.zeros(2 * reach + 1)  # of the totals -reach, ..., reach
        chances[reach] = 1.0
        for size, count in zip(sizes, counts, strict=True):
            before, chances = chances, np.zeros(2 * reach + 1)
            for ups, chance in enumerate(scipy.stats.binom.pmf(np.arange(count + 1), count, 0.5)):
                shift = int(size * (2 * ups - count))
                target = chances[max(0, shift) : len(chances) + min(0, shift)]
                target += chance * before[max(0, -shift) : len(chances) - max(0, shift)]
        totals, weights = np.arange(-reach, reach + 1), chances
    else:
        stream = np.random.Generator(np.random.Philox(len(sums)))
        totals = np.zeros(FLIPS + 1, dtype=np.int64)
        for size, count in zip(sizes, counts, strict=True):
            totals[1:] += size * (2 * stream.binomial(count, 0.5, FLIPS) - count)
        totals[0] = observed
        weights = np.full(FLIPS + 1, 1 / (FLIPS + 1))
    if side is Side.ANY:
        totals, observed = np.abs(totals), abs(observed)
    sign = -1 if side is Side.LOSS else 1
    beyond = float(weights[sign * totals >= sign * observed].sum())
    half = float(weights[totals == observed].sum()) / 2 if mid else 0.0
    return min(1.0, beyond - half)


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """P-values corrected for being read together (Holm 1979, Scand. J. Stat. 6:65-70), in order.

    `weights` (section 3 there) share the allowed error out: a test of weight 2 gets twice as much.
    """
    p = np.asarray(p_values, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(p / w, kind="stable")
    left = np.cumsum(w[order][::-1])[::-1]  # the weight of a test and of all after it
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, (p / w)[order] * left))
    return [float(value) for value in corrected]


def detectable_loss(
    differences: Sequence[float],
    level: float = 0.05,
    power: float = 0.8,
    clusters: Clusters | None = None,
) -> float | None:
    """The smallest loss that a one-sided paired test at `level` finds with this power, on so many
    tasks of which so many change (Connor 1987, Biometrics 43:207-211); None where none is found.

    Where more must change than did, as many as are lost change.
    """
    if not differences:
        return None
    n = len(differences) / design_effect(differences, clusters)
    changed = math.fsum(d * d for d in differences) / len(differences)
    alarm, found = float(scipy.stats.norm.isf(level)), float(scipy.stats.norm.ppf(power))

    def surplus(loss: float) -> float:
        share = max(changed, loss)
        return loss * math.sqrt(n) - alarm * math.sqrt(share) - found * math.sqrt(share - loss**2)

    return float(scipy.optimize.brentq(surplus, 1e-12, 1.0)) if surplus(1.0) > 0 else None


def seed_spread(values: Mapping[int, float]) -> tuple[float, float | None]:
    """Mean over the seeds, and their standard deviation (of a sample; None for one seed)."""
    found = np.array([*values.values()], dtype=np.float64)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None


def pass_hat_k(tries: Sequence[tuple[int, int]], k: int) -> float | None:
    """The chance that `k` tries of a task all succeed, averaged over tasks (pass^k of Yao et al.
    2024, arXiv:2406.12045): the mean of C(right, k) / C(tries, k). None where no task has k tries.

    `tries` holds, for each task, how many succeeded and how many there were.
    """
    shares = [math.comb(right, k) / math.comb(all_of, k) for right, all_of in tries if all_of >= k]
    return math.fsum(shares) / len(shares) if shares else None
