"""Intervals hold as often as they say, never leave [0, 1], and are the same every time."""

import math

import numpy as np
import pytest

from toolhone.evaluation.statistics import UNMEASURED, Score, bootstrap, interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilsons_interval_has_its_published_values(successes, n, low, high):
    score = wilson(successes, n)
    assert (score.value, score.n) == (successes / n, n)
    assert (score.low, score.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_nothing_measured_is_null_and_not_zero():
    assert interval([]) == wilson(0, 0) == UNMEASURED == Score(None, None, None, 0)
    assert UNMEASURED.to_dict() == {"value": None, "low": None, "high": None, "n": 0}


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.85, 0.97])
@pytest.mark.parametrize("n", [12, 50, 300])
def test_proportions_lie_in_their_interval_about_as_often_as_promised(share, n):
    stream = np.random.default_rng(n)
    scores = [wilson(int(k), n) for k in stream.binomial(n, share, 4000)]
    covered = sum(score.low <= share <= score.high for score in scores) / len(scores)
    assert 0.90 <= covered <= 0.995


@pytest.mark.parametrize("chances", [(0.2, 0.3, 0.5), (0.3, 0.4, 0.3), (0.05, 0.15, 0.8)])
@pytest.mark.parametrize("n", [30, 120])
def test_means_of_fractions_lie_in_their_interval_about_as_often_as_promised(chances, n):
    stream = np.random.default_rng(n)
    values = np.array([0.0, 0.5, 1.0])
    mean = float(values @ chances)
    scores = [interval(stream.choice(values, n, p=chances).tolist()) for _ in range(300)]
    covered = sum(score.low <= mean <= score.high for score in scores) / len(scores)
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("scores", [[1.0] * 20, [0.0] * 20, [0.5] * 20, [1.0], [0.5]])
def test_equal_scores_do_not_pretend_to_be_certain(scores):
    score = interval(scores)
    assert score.value == scores[0]
    assert score.high - score.low > 0.1


def test_an_interval_narrows_with_the_square_root_of_the_number_of_scores():
    def width(n: int) -> float:
        score = interval([0.0, 0.5, 0.5, 1.0] * n)
        return score.high - score.low

    assert width(100) / width(400) == pytest.approx(2, rel=0.1)


def test_the_same_scores_in_any_order_give_the_same_interval():
    scores = np.random.default_rng(0).random(200).tolist()
    first = interval(scores)
    assert interval(scores) == first
    backwards = interval(scores[::-1])
    assert (backwards.low, backwards.high, backwards.value) == (first.low, first.high, first.value)


@pytest.mark.parametrize("seed", range(20))
def test_intervals_hold_their_mean_and_stay_between_zero_and_one(seed):
    stream = np.random.default_rng(seed)
    size = int(stream.integers(1, 40))
    for scores in (
        stream.random(size),
        stream.integers(0, 2, size).astype(float),
        np.round(stream.random(size) ** 9, 1),
    ):
        score = interval(scores.tolist())
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.value == pytest.approx(math.fsum(scores) / size)
        assert score.n == size


def test_zeros_and_ones_get_wilsons_interval_and_fractions_the_bootstrap():
    assert interval([1, 0, 1, 1]) == wilson(3, 4)
    assert interval([1, 0, 0.5, 1]) == bootstrap([1, 0, 0.5, 1])
    assert interval([1, 0, 0.5, 1]) != wilson(2.5, 4)


def test_scores_outside_their_range_are_our_own_mistake():
    with pytest.raises(AssertionError):
        interval([0.5, 1.2])
