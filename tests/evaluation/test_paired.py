"""Paired statistics: exact values worked out by hand, a second derivation of the interval, and errors as rare as promised."""

import math
from itertools import product

import numpy as np
import pytest

from toolhone.evaluation.paired import chance, holm, mcnemar, spread, tango
from toolhone.evaluation.statistics import UNMEASURED, Z95, Score, interval

SQUARE = Z95 * Z95


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 2 / 64),
        (7, 1, 2 * (1 + 8) / 256),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (4, 3, 1.0),
    ],
)
def test_mcnemars_test_has_the_values_of_its_binomial_coefficients(gained, lost, p):
    assert mcnemar(gained, lost) == p


def test_mcnemars_test_holds_for_thousands_of_changed_tasks():
    z = (5200 - 4800) / math.sqrt(10_000)
    assert mcnemar(5200, 4800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.05)
    assert mcnemar(3000, 0) < 1e-300


def test_tangos_interval_has_its_published_value():
    assert tango(1, 7, 21) == (pytest.approx(-0.517, abs=5e-4), pytest.approx(-0.026, abs=5e-4))


@pytest.mark.parametrize("n", [1, 20, 400])
def test_where_nothing_changed_the_interval_still_has_its_width(n):
    width = SQUARE / (n + SQUARE)
    assert tango(0, 0, n) == (pytest.approx(-width, abs=1e-6), pytest.approx(width, abs=1e-6))
    assert spread([0.0] * n) == Score(0.0, *tango(0, 0, n), n)


@pytest.mark.parametrize("n", [5, 20, 400])
def test_where_everything_was_gained_the_interval_ends_at_one(n):
    assert tango(n, 0, n) == (
        pytest.approx((n - SQUARE) / (n + SQUARE), abs=1e-6),
        pytest.approx(1.0),
    )


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(3, 1, 20), (12, 30, 400), (0, 4, 50), (9, 9, 30), (1, 0, 6)]
)
def test_the_ends_of_the_interval_are_where_the_score_test_turns(gained, lost, n):
    """A second derivation: the chance of a loss that fits best is searched on a grid instead of solved for."""
    for end, z in zip(tango(gained, lost, n), (Z95, -Z95)):
        losses = np.linspace(max(0.0, -end), (1 - end) / 2, 400_001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            fit = (
                gained * np.log(losses + end)
                + lost * np.log(losses)
                + (n - gained - lost) * np.log(1 - 2 * losses - end)
            )
        loss = losses[np.nanargmax(fit)]
        score = (gained - lost - n * end) / math.sqrt(n * (2 * loss + end - end * end))
        assert score == pytest.approx(z, abs=0.01)


def test_exchanging_the_two_models_turns_everything_around():
    differences = [1.0, 0.5, -0.25, 0.0, 0.5, 1.0]
    one, other = spread([1.0, 0.0, 1.0, -1.0]), spread([-1.0, 0.0, -1.0, 1.0])
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert chance(differences) == chance([-d for d in differences])


@pytest.mark.parametrize("seed", range(6))
def test_flipping_signs_by_chance_agrees_with_flipping_them_in_every_way(seed):
    differences = np.random.default_rng(seed).choice([-1.0, -0.5, 0.25, 0.5, 0.75, 1.0], 9)
    sums = np.abs(np.array(list(product([-1, 1], repeat=9))) @ differences)
    exact = float((sums >= abs(differences.sum()) - 1e-9).mean())
    assert chance(differences.tolist()) == pytest.approx(exact, abs=0.012)


def test_for_zeros_and_ones_flipping_signs_in_every_way_is_mcnemars_test():
    differences = [1.0] * 8 + [-1.0] * 2 + [0.0] * 5
    sums = np.abs(np.array(list(product([-1, 1], repeat=10))) @ np.array(differences[:10]))
    assert chance(differences) == mcnemar(8, 2) == (sums >= 6).mean()


def test_a_chance_is_never_zero_and_the_same_in_any_order():
    differences = [0.5] * 60 + [0.25] * 60
    assert 0 < chance(differences) < 0.001
    assert chance(differences[::-1]) == chance(differences)
    assert spread(differences[::-1]) == spread(differences)


def test_nothing_measured_has_no_difference_not_a_difference_of_zero():
    assert spread([]) == UNMEASURED


@pytest.mark.parametrize(("gained", "lost"), [(0.03, 0.0), (0.05, 0.01), (0.02, 0.1), (0.3, 0.1)])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_differences_of_zeros_and_ones_lie_in_their_interval_as_often_as_promised(gained, lost, n):
    stream = np.random.default_rng(n)
    draws = stream.choice([1.0, -1.0, 0.0], (600, n), p=[gained, lost, 1 - gained - lost])
    scores = [spread(draw.tolist()) for draw in draws]
    assert sum(score.low <= gained - lost <= score.high for score in scores) / 600 >= 0.925


@pytest.mark.parametrize("n", [40, 150])
def test_differences_of_fractions_lie_in_their_interval_about_as_often_as_promised(n):
    stream = np.random.default_rng(n)
    values, shares = np.array([-0.5, 0.0, 0.5, 1.0]), [0.2, 0.4, 0.3, 0.1]
    scores = [spread(stream.choice(values, n, p=shares).tolist()) for _ in range(300)]
    covered = sum(score.low <= float(values @ shares) <= score.high for score in scores) / 300
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("values", [[-1.0, 0.0, 1.0], [-1.0, -0.5, 0.0, 0.5, 1.0]])
def test_two_models_that_are_equally_good_are_rarely_called_different(values):
    stream = np.random.default_rng(3)
    found = [chance(stream.choice(values, 60).tolist()) < 0.05 for _ in range(300)]
    assert sum(found) / 300 <= 0.08


def test_pairs_show_a_difference_where_the_intervals_of_the_two_models_overlap():
    base = interval([1.0] * 300 + [0.0] * 100)
    tuned = interval([1.0] * 318 + [0.0] * 82)
    assert base.high > tuned.low
    assert chance([1.0] * 24 + [-1.0] * 6 + [0.0] * 370) == mcnemar(24, 6) < 0.002


def test_holms_method_has_the_values_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [
        pytest.approx(0.03),
        pytest.approx(0.06),
        pytest.approx(0.06),
        pytest.approx(0.02),
    ]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_of_many_tests_without_a_difference_even_one_is_rarely_called_real():
    stream = np.random.default_rng(0)
    wrong = [min(holm(stream.random(12).tolist())) < 0.05 for _ in range(2000)]
    assert 0.03 <= sum(wrong) / 2000 <= 0.065
