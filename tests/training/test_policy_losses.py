"""Losses of reinforcement and preference learning: derivatives against finite differences, values
by hand, halves that add up.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from toolhone.backends.base import Batch, Loss, pad_rows
from toolhone.backends.gradient import loss_gradient
from toolhone.rows import Array, Row
from toolhone.training.losses import (
    VARIANTS,
    Preference,
    Variant,
    policy_loss,
    preference_loss,
    reply_shares,
    token_weights,
)
from training.test_losses import NUMPY_OPS, slope_by_differences


def rl_rows(count: int = 4, seed: int = 0, far: float = 0.3) -> tuple[list[Row], list[Array]]:
    """Rows with advantages, sampled and reference log-probabilities; and the policy's own, `far`
    away from them.
    """
    rng = np.random.default_rng(seed)
    rows, own = [], []
    for number in range(count):
        length = 6 + number
        mask = rng.random(length) < 0.6
        mask[0], mask[-1] = False, True
        logp = np.where(mask, -rng.exponential(1.5, length), 0.0).astype(np.float32)
        sampled = np.where(mask, logp + rng.normal(0, far, length), 0.0).astype(np.float32)
        reference = np.where(mask, logp + rng.normal(0, 0.4, length), 0.0).astype(np.float32)
        advantages = mask.astype(np.float32) * np.float32(rng.normal())
        row = Row.of([1] * length, mask).with_arrays(
            old_logprobs=sampled, ref_logprobs=reference, advantages=advantages
        )
        rows.append(replace(row, group=f"pair-{number // 2}"))
        own.append(logp)
    return rows, own


def batch_of(rows: list[Row], own: list[Array], variant: Variant = "dapo") -> tuple[Array, Batch]:
    weights, shares = token_weights(variant, rows, 12), reply_shares(rows)
    full = [
        row.with_arrays(weights=w, share=s) for row, w, s in zip(rows, weights, shares, strict=True)
    ]
    _, mask, arrays = pad_rows(full)
    logp = np.zeros(mask.shape, np.float32)
    for line, values in enumerate(own):
        logp[line, : len(values)] = values
    return logp, Batch(mask, arrays, [row.group for row in rows])


def check_gradient(loss: Loss, logp: Array, batch: Batch) -> None:
    wide = Batch(
        batch.mask,
        {name: values.astype(np.float64) for name, values in batch.arrays.items()},
        batch.groups,
    )
    _, found = loss_gradient(loss, logp.astype(np.float64), wide)
    wanted = slope_by_differences(loss, logp, wide)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert np.abs(found).max() > 0
    assert not found[~batch.mask].any()


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "cispo"])
def test_the_derivative_of_each_policy_loss_is_that_of_finite_differences(
    variant: Variant, beta: float
) -> None:
    for seed in range(3):
        logp, batch = batch_of(*rl_rows(seed=seed), variant)
        check_gradient(policy_loss(variant, 0.2, 0.28, beta), logp, batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_old_log_probabilities_a_policy_is_its_own_old_one(variant: Variant) -> None:
    logp, batch = batch_of(*rl_rows(seed=3), variant)
    loss = policy_loss(variant, 0.2, 0.28, 0.1)
    own = Batch(batch.mask, {**batch.arrays, "old_logprobs": logp}, batch.groups)
    less = {name: batch.arrays[name] for name in batch.arrays.keys() - {"old_logprobs"}}
    (told, gradient), (left_out, same) = (
        loss_gradient(loss, logp, each) for each in (own, Batch(batch.mask, less, batch.groups))
    )
    np.testing.assert_array_equal(gradient, same)
    assert told == left_out
    assert told["kl_sampled"] == 0.0


def test_the_gradient_of_cispo_is_a_weighted_likelihood_with_a_fixed_ratio() -> None:
    rows, own = rl_rows(seed=5)
    logp, batch = batch_of(rows, own, "cispo")
    _, found = loss_gradient(policy_loss("cispo", 0.2, 0.28, 0.0), logp, batch)
    ratio = np.clip(np.exp(logp - batch["old_logprobs"]), 0.8, 1.28)
    np.testing.assert_allclose(
        found,
        np.where(batch.mask, -batch["weights"] * ratio * batch["advantages"], 0.0),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_the_derivative_of_each_preference_loss_is_that_of_finite_differences(
    kind: Preference, normalised: bool, smoothing: float
) -> None:
    logp, batch = batch_of(*rl_rows(seed=3))
    for alpha in (0.0, 0.5):
        check_gradient(preference_loss(kind, 0.2, smoothing, normalised, alpha), logp, batch)


def test_dpo_is_log_two_at_the_reference_and_falls_as_the_chosen_one_gets_likelier() -> None:
    rows, own = rl_rows(2, seed=1)
    rows = [row.with_arrays(ref_logprobs=logp) for row, logp in zip(rows, own, strict=True)]
    logp, batch = batch_of(rows, own)
    weight = batch["weights"].sum(axis=1)[0]
    total, metrics = preference_loss("dpo", 0.1).fn(NUMPY_OPS, logp, batch)
    assert total == pytest.approx(weight * math.log(2), rel=1e-5)
    assert (metrics["pairs"], metrics["accuracy"]) == (1, 0)
    better = logp + np.where(batch.mask, np.array([[0.5], [-0.5]]), 0.0)
    lower, metrics = preference_loss("dpo", 0.1).fn(NUMPY_OPS, better, batch)
    assert lower < total
    assert metrics["accuracy"] == 1


def test_a_token_beyond_the_clip_has_no_gradient_and_is_counted() -> None:
    row = Row.of([1, 2, 3, 4, 5], [False, True, True, True, True]).with_arrays(
        old_logprobs=np.log([1, 0.5, 0.5, 0.5, 0.5]).astype(np.float32),
        advantages=np.array([0, 1, 1, -1, -1], np.float32),
    )
    logp, batch = batch_of([row], [np.log([1, 0.7, 0.3, 0.7, 0.3]).astype(np.float32)])
    metrics, found = loss_gradient(policy_loss("dapo", 0.2, 0.2, 0.0), logp, batch)
    assert (found[0] != 0).tolist() == [False, False, True, True, False]
    assert metrics["clipped"] == 2
    assert metrics["tokens"] == 4


def test_an_upper_clip_of_its_own_lets_rare_tokens_rise_further() -> None:
    row = Row.of([1, 2], [False, True]).with_arrays(
        old_logprobs=np.log([1, 0.5]).astype(np.float32), advantages=np.array([0, 1], np.float32)
    )
    logp, batch = batch_of([row], [np.log([1, 0.62]).astype(np.float32)])
    assert not loss_gradient(policy_loss("dapo", 0.2, 0.2, 0.0), logp, batch)[1].any()
    assert loss_gradient(policy_loss("dapo", 0.2, 0.28, 0.0), logp, batch)[1].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_of_a_batch_add_up_to_the_whole(variant: Variant) -> None:
    rows, own = rl_rows(4, seed=2)
    weights, shares = token_weights(variant, rows, 12), reply_shares(rows)
    full = [
        row.with_arrays(weights=w, share=s) for row, w, s in zip(rows, weights, shares, strict=True)
    ]
    loss = policy_loss(variant, 0.2, 0.28, 0.05)

    def value(part: slice) -> float:
        _, mask, arrays = pad_rows(full[part])
        logp = np.zeros(mask.shape, np.float32)
        for line, values in enumerate(own[part]):
            logp[line, : len(values)] = values
        return float(loss.fn(NUMPY_OPS, logp, Batch(mask, arrays))[0])

    assert value(slice(0, 2)) + value(slice(2, 4)) == pytest.approx(value(slice(0, 4)), rel=1e-5)


def test_at_the_sampling_policy_every_variant_is_minus_its_mean_advantage() -> None:
    rows, own = rl_rows(3, seed=4, far=0.0)
    lengths = [int(row.mask.sum()) for row in rows]
    worth = [float(row.arrays["advantages"].max() + row.arrays["advantages"].min()) for row in rows]
    by_tokens = -sum(n * a for n, a in zip(lengths, worth, strict=True)) / sum(lengths)
    wanted: dict[Variant, float] = {
        "dapo": by_tokens,
        "grpo": -sum(worth) / 3,
        "gspo": -sum(worth) / 3,
        "dr_grpo": -sum(n * a for n, a in zip(lengths, worth, strict=True)) / (3 * 12),
    }
    for variant, value in wanted.items():
        logp, batch = batch_of(rows, own, variant)
        assert policy_loss(variant, 0.2, 0.2, 0.0).fn(NUMPY_OPS, logp, batch)[0] == pytest.approx(
            value, rel=1e-4
        )


def test_the_kl_estimate_is_never_negative_and_zero_at_the_reference() -> None:
    rows, own = rl_rows(3, seed=6)
    logp, batch = batch_of(rows, own)
    loss = policy_loss("dapo", 0.2, 0.2, 1.0)
    assert loss.fn(NUMPY_OPS, logp, batch)[1]["kl_reference"] > 0
    same = [row.with_arrays(ref_logprobs=values) for row, values in zip(rows, own, strict=True)]
    assert loss.fn(NUMPY_OPS, *batch_of(same, own))[1]["kl_reference"] == pytest.approx(0, abs=1e-6)


def test_rows_of_a_preference_loss_must_come_in_pairs() -> None:
    rows, own = rl_rows(3)
    with pytest.raises(AssertionError, match="pairs"):
        preference_loss("dpo", 0.1).fn(NUMPY_OPS, *batch_of(rows, own))
