"""Intervals and paired tests: values worked out by hand, and errors as rare as promised."""

import math
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from toolhone.evaluation.statistics import (
    UNMEASURED,
    Z95,
    Score,
    Side,
    bootstrap,
    design_effect,
    detectable_loss,
    holm,
    interval,
    mcnemar,
    paired_interval,
    paired_p_value,
    pass_hat_k,
    seed_spread,
    tango,
    wilson,
)

SQUARE = Z95 * Z95


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
def test_intervals_of_fractional_means_cover_as_promised(chances, n):
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
    assert mcnemar(gained, lost) == pytest.approx(p, abs=1e-12)


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
    assert paired_interval([0.0] * n) == Score(0.0, *tango(0, 0, n), n)


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
    """A second derivation: search the likeliest loss rate on a grid instead of solving for it."""
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
    one, other = paired_interval([1.0, 0.0, 1.0, -1.0]), paired_interval([-1.0, 0.0, -1.0, 1.0])
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert paired_p_value(differences) == paired_p_value([-d for d in differences])


@pytest.mark.parametrize("seed", range(6))
def test_flipping_signs_by_chance_agrees_with_flipping_them_in_every_way(seed):
    differences = np.random.default_rng(seed).choice([-1.0, -0.5, 0.25, 0.5, 0.75, 1.0], 9)
    sums = np.abs(np.array(list(product([-1, 1], repeat=9))) @ differences)
    exact = float((sums >= abs(differences.sum()) - 1e-9).mean())
    assert paired_p_value(differences.tolist()) == pytest.approx(exact, abs=0.012)


def test_for_zeros_and_ones_flipping_signs_in_every_way_is_mcnemars_test():
    differences = [1.0] * 8 + [-1.0] * 2 + [0.0] * 5
    sums = np.abs(np.array(list(product([-1, 1], repeat=10))) @ np.array(differences[:10]))
    assert paired_p_value(differences) == mcnemar(8, 2) == (sums >= 6).mean()


def test_a_chance_is_never_zero_and_the_same_in_any_order():
    differences = [0.5] * 60 + [0.25] * 60
    assert 0 < paired_p_value(differences) < 0.001
    assert paired_p_value(differences[::-1]) == paired_p_value(differences)
    assert paired_interval(differences[::-1]) == paired_interval(differences)


def test_a_chance_counts_the_observed_outcome_among_random_flips_too():
    differences = np.random.default_rng(1).integers(100, 900, 400) / 1000
    assert paired_p_value(differences.tolist()) == pytest.approx(1 / 20_001)


def test_a_margin_shifts_fractions_towards_no_loss():
    differences = [-0.05, -0.06, -0.04, -0.07] * 5
    assert paired_p_value(differences, Side.LOSS) < 1e-5
    assert paired_p_value(differences, Side.LOSS, margin=0.1) == pytest.approx(1.0)
    shifted = [round(d + 0.05, 3) for d in differences]
    wanted = paired_p_value(shifted, Side.LOSS)
    assert paired_p_value(differences, Side.LOSS, margin=0.05) == wanted


def test_the_bootstrap_of_many_scores_is_the_normal_interval():
    scores = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], 2000)
    found = bootstrap(scores.tolist())
    half = Z95 * scores.std() / math.sqrt(2000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_nothing_measured_has_no_difference_not_a_difference_of_zero():
    assert paired_interval([]) == UNMEASURED


@pytest.mark.parametrize(("gained", "lost"), [(0.03, 0.0), (0.05, 0.01), (0.02, 0.1), (0.3, 0.1)])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_intervals_of_zero_one_differences_cover_as_promised(gained, lost, n):
    stream = np.random.default_rng(n)
    draws = stream.choice([1.0, -1.0, 0.0], (600, n), p=[gained, lost, 1 - gained - lost])
    scores = [paired_interval(draw.tolist()) for draw in draws]
    assert sum(score.low <= gained - lost <= score.high for score in scores) / 600 >= 0.925


@pytest.mark.parametrize("n", [40, 150])
def test_intervals_of_fractional_differences_cover_as_promised(n):
    stream = np.random.default_rng(n)
    values, shares = np.array([-0.5, 0.0, 0.5, 1.0]), [0.2, 0.4, 0.3, 0.1]
    scores = [paired_interval(stream.choice(values, n, p=shares).tolist()) for _ in range(300)]
    covered = sum(score.low <= float(values @ shares) <= score.high for score in scores) / 300
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("values", [[-1.0, 0.0, 1.0], [-1.0, -0.5, 0.0, 0.5, 1.0]])
def test_two_models_that_are_equally_good_are_rarely_called_different(values):
    stream = np.random.default_rng(3)
    found = [paired_p_value(stream.choice(values, 60).tolist()) < 0.05 for _ in range(300)]
    assert sum(found) / 300 <= 0.08


def test_pairs_show_a_difference_where_the_intervals_of_the_two_models_overlap():
    base = interval([1.0] * 300 + [0.0] * 100)
    tuned = interval([1.0] * 318 + [0.0] * 82)
    assert base.high > tuned.low
    assert paired_p_value([1.0] * 24 + [-1.0] * 6 + [0.0] * 370) == mcnemar(24, 6) < 0.002


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


def test_holms_weights_share_the_allowed_error_out():
    assert holm([0.01, 0.02], [3, 1]) == [pytest.approx(0.04 / 3), pytest.approx(0.02)]
    assert holm([0.02, 0.01], [1, 3]) == [pytest.approx(0.02), pytest.approx(0.04 / 3)]


@pytest.mark.parametrize("seed", range(40))
def test_exact_values_are_those_of_scipy(seed):
    stream = np.random.default_rng(seed)
    n = int(stream.integers(1, 400))
    k, gained, lost = (int(x) for x in stream.integers(0, [n + 1, 60, 60]))
    known = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx((known.low, known.high), abs=1e-9)
    for side in Side:
        exact = stats.binomtest(gained, gained + lost, alternative=side.value).pvalue
        half = stats.binom.pmf(gained, gained + lost, 0.5) / 2
        assert mcnemar(gained, lost, side) == pytest.approx(exact, abs=1e-9)
        mid = mcnemar(gained, lost, side, mid=True)
        if side is not Side.ANY:
            assert mid == pytest.approx(exact - half, abs=1e-9)
    p = stream.random(int(stream.integers(1, 12)))
    order, best = np.argsort(p), 0.0
    for rank, place in enumerate(order):
        best = max(best, min(1.0, (len(p) - rank) * p[place]))
        assert holm(p.tolist())[place] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("side", Side)
def test_sign_flips_are_scipys_permutation_test_of_paired_samples(seed, side):
    stream = np.random.default_rng(seed)
    differences = np.round(stream.uniform(-1, 1, int(stream.integers(2, 11))), 3)
    kind: dict[str, Any] = {"permutation_type": "samples", "n_resamples": np.inf}
    known = stats.permutation_test((differences,), np.sum, alternative=side.value, **kind).pvalue
    assert paired_p_value(differences.tolist(), side) == pytest.approx(known, abs=1e-9)
    groups = np.arange(len(differences)) // 2
    sums = np.array([differences[groups == group].sum() for group in set(groups)])
    if len(sums) > 1:
        known = stats.permutation_test((sums,), np.sum, alternative=side.value, **kind).pvalue
        found = paired_p_value(differences.tolist(), side, clusters=groups.tolist())
        assert found == pytest.approx(known, abs=1e-9)


def test_values_of_statsmodels_are_met():
    """proportion_confint, mcnemar, multipletests and the cluster-robust OLS of statsmodels 0.14."""
    found = wilson(37, 120)
    assert (found.low, found.high) == pytest.approx(
        (0.23272736988916298, 0.39582997723800684), abs=1e-9
    )
    assert mcnemar(13, 29) == pytest.approx(0.019520472782460274, abs=1e-9)
    assert holm([0.011, 0.2, 0.004, 0.03]) == pytest.approx([0.033, 0.2, 0.016, 0.06], abs=1e-9)
    scores = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    clusters = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert design_effect(scores, clusters) == pytest.approx(11 / 6, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.35])
def test_without_a_difference_the_test_alarms_in_five_of_a_hundred_cases(share):
    stream = np.random.default_rng(1)
    changed = stream.binomial(1000, share, 2000)
    gained = stream.binomial(changed, 0.5)
    alarms = [mcnemar(g, c - g, Side.LOSS, mid=True) < 0.05 for g, c in zip(gained, changed)]
    assert 0.035 <= sum(alarms) / 2000 <= 0.065


def test_over_many_categories_a_corrected_guard_alarms_in_few_cases():
    stream, test = np.random.default_rng(7), cache(partial(mcnemar, side=Side.LOSS, mid=True))
    changed = stream.binomial(100, 0.2, (2000, 10))
    gained = stream.binomial(changed, 0.5)
    alarms = 0
    for gains, losses in zip(gained, changed - gained):
        pairs = [(gains.sum(), losses.sum()), *zip(gains, losses)]
        p = [test(int(one), int(other)) for one, other in pairs]
        alarms += min(holm(p, [10, *[1] * 10])) < 0.05
    assert alarms / 2000 <= 0.05


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35])
def test_a_loss_of_five_points_on_a_thousand_tasks_is_found_in_most_cases(share):
    stream = np.random.default_rng(2)
    changed = stream.binomial(1000, share, 2000)
    gained = stream.binomial(changed, (share - 0.05) / (2 * share))
    alarms = [mcnemar(g, c - g, Side.LOSS, mid=True) < 0.05 for g, c in zip(gained, changed)]
    assert sum(alarms) / 2000 >= 0.8


@pytest.mark.parametrize(("n", "share"), [(100, 0.2), (400, 0.1), (1000, 0.35)])
def test_the_detectable_loss_is_found_in_eight_of_ten_cases(n, share):
    moves = [1.0] * round(n * share / 2) + [-1.0] * round(n * share / 2)
    loss = detectable_loss(moves + [0.0] * (n - len(moves)))
    stream = np.random.default_rng(3)
    changed = stream.binomial(n, max(share, loss), 4000)
    gained = stream.binomial(changed, (max(share, loss) - loss) / (2 * max(share, loss)))
    alarms = [mcnemar(g, c - g, Side.LOSS, mid=True) < 0.05 for g, c in zip(gained, changed)]
    assert sum(alarms) / 4000 == pytest.approx(0.8, abs=0.05)


def test_of_too_few_tasks_no_loss_could_be_found():
    assert detectable_loss([0.0] * 2) is None
    assert detectable_loss([]) is None
    assert detectable_loss([0.0] * 40) < detectable_loss([0.0] * 20)


@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_at_the_margin_a_loss_alarms_no_more_often_than_promised(margin):
    stream = np.random.default_rng(4)
    draws = stream.choice([1.0, -1.0, 0.0], (600, 300), p=[0.1, 0.1 + margin, 0.8 - margin])
    found = [paired_p_value(d.tolist(), Side.LOSS, margin) < 0.05 for d in draws]
    assert 0.02 <= sum(found) / 600 <= 0.07


def test_clustered_scores_are_worth_fewer_and_cover_as_promised():
    stream, covered = np.random.default_rng(5), 0
    clusters = np.repeat(np.arange(60), 5).tolist()
    for _ in range(300):
        same = stream.random(60) < 0.6
        own = np.where(
            stream.random(60)[:, None] < 0.8, same[:, None], stream.random((60, 5)) < 0.6
        )
        score = interval(own.astype(float).ravel().tolist(), clusters)
        covered += score.low <= 0.6 <= score.high
    assert covered / 300 >= 0.91
    assert design_effect([1.0, 1.0, 0.0, 0.0] * 20, np.repeat(range(40), 2).tolist()) > 1.9
    assert design_effect([1.0] * 20, [0] * 10 + [1] * 10) == 10.0
    assert interval([1.0, 0.0, 1.0], [0, 1, 2]) == interval([1.0, 0.0, 1.0])


def test_clusters_of_opposite_answers_never_narrow_an_interval():
    assert design_effect([1.0, 0.0] * 20, np.repeat(range(20), 2).tolist()) == 1.0


def test_pass_hat_k_is_the_chance_that_all_of_k_tries_succeed():
    assert pass_hat_k([(4, 4), (2, 4), (0, 4)], 1) == pytest.approx(0.5)
    assert pass_hat_k([(4, 4), (2, 4), (0, 4)], 2) == pytest.approx((1 + 1 / 6) / 3)
    assert pass_hat_k([(1, 1)], 2) is None


def test_the_spread_between_seeds_is_their_standard_deviation():
    assert seed_spread({0: 0.5, 1: 0.6, 2: 0.7}) == (pytest.approx(0.6), pytest.approx(0.1))
    assert seed_spread({0: 0.5}) == (0.5, None)
