"""The losses: values by hand, derivatives against finite differences, sums, and the example in the
docstring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolhone.backends.base import Adam, Batch, Loss, Ops
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.toy import open_toy
from toolhone.rows import Array, Row
from toolhone.training.losses import cross_entropy

NUMPY_OPS = Ops(
    exp=np.exp,
    clip=np.clip,
    minimum=np.minimum,
    maximum=np.maximum,
    where=np.where,
    logaddexp=np.logaddexp,
    sum=np.sum,
    stop_gradient=np.asarray,
)
"""What a loss computes does not depend on whose arrays it gets."""


def a_batch(rows: int = 3, width: int = 6, seed: int = 0) -> tuple[Array, Batch]:
    """Log-probabilities float32 [rows, width] with mask, weights and reference."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, width)) < 0.6
    mask[:, 0] = False
    logp = np.where(mask, -rng.exponential(2.0, (rows, width)), 0.0).astype(np.float32)
    weights = rng.random((rows, width)).astype(np.float32)
    reference = np.where(mask, logp + rng.normal(0, 0.3, (rows, width)), 0.0).astype(np.float32)
    return logp, Batch(mask, {"weights": weights, "ref_logprobs": reference}, [None] * rows)


def slope_by_differences(loss: Loss, logp: Array, batch: Batch, step: float = 1e-5) -> np.ndarray:
    """dL/dlogp [rows, tokens] by central differences in float64."""
    wide = logp.astype(np.float64)
    slope = np.zeros_like(wide)
    for place in np.ndindex(*wide.shape):
        shift = np.zeros_like(wide)
        shift[place] = step
        above, _ = loss.fn(NUMPY_OPS, wide + shift, batch)
        below, _ = loss.fn(NUMPY_OPS, wide - shift, batch)
        slope[place] = (above - below) / (2 * step)
    return slope


def test_cross_entropy_is_the_weighted_negative_log_likelihood() -> None:
    logp = np.array([[0.0, -1.0, -2.0, 0.0]], dtype=np.float32)
    mask = np.array([[False, True, True, False]])
    weights = np.array([[9.0, 0.5, 0.25, 9.0]], dtype=np.float32)
    metrics, slope = loss_gradient(cross_entropy(), logp, Batch(mask, {"weights": weights}))
    assert metrics == {"loss": 1.0, "nll": 3.0, "tokens": 2.0}
    assert slope.tolist() == [[0.0, -0.5, -0.25, 0.0]]


def test_cross_entropy_has_the_slope_of_finite_differences() -> None:
    logp, batch = a_batch()
    _, slope = loss_gradient(cross_entropy(), logp, batch)
    assert slope == pytest.approx(slope_by_differences(cross_entropy(), logp, batch), abs=1e-5)
    assert (slope[~batch.mask] == 0).all()


def test_cross_entropy_of_parts_adds_up_to_that_of_the_whole() -> None:
    logp, batch = a_batch(rows=4)
    whole, slope = loss_gradient(cross_entropy(), logp, batch)
    halves = [slice(0, 1), slice(1, 4)]
    parts = [
        loss_gradient(
            cross_entropy(),
            logp[half],
            Batch(batch.mask[half], {"weights": batch["weights"][half]}),
        )
        for half in halves
    ]
    for name, value in whole.items():
        assert sum(metrics[name] for metrics, _ in parts) == pytest.approx(value, rel=1e-6)
    assert np.array_equal(np.concatenate([part for _, part in parts]), slope)


def test_a_row_without_weights_does_not_train_beside_rows_that_have_them() -> None:
    trainer = open_toy(8)
    weighted = Row.of([1, 2, 3], [True] * 3).with_arrays(weights=np.ones(3, dtype=np.float32))
    bare = Row.of([4, 5, 6], [True] * 3)
    alone = trainer.forward_backward([weighted], cross_entropy()).result()
    both = trainer.forward_backward([weighted, bare], cross_entropy()).result()
    assert both["loss"] == alone["loss"]
    assert (alone["tokens"], both["tokens"]) == (2.0, 4.0)


def test_the_loss_of_the_architecture_page_works_as_written() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    start = text.index("def squared_distance")
    code = text[start : text.index("```", start)]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names: dict[str, Any] = {"Any": Any, "Loss": Loss, "Ops": Ops, "Batch": Batch}
    exec(code, names)
    loss = names["squared_distance"](2.0)
    logp, batch = a_batch()
    metrics, slope = loss_gradient(loss, logp, batch)
    gap = np.where(batch.mask, logp - batch["ref_logprobs"], 0.0)
    assert metrics["loss"] == pytest.approx(2.0 * (batch["weights"] * gap**2).sum(), rel=1e-5)
    assert metrics["gap"] == pytest.approx(gap.sum(), rel=1e-5)
    assert slope == pytest.approx(slope_by_differences(loss, logp, batch), abs=1e-4)


def test_every_function_of_the_ops_table_has_the_slope_of_finite_differences() -> None:
    def everything(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        ratio = ops.exp(logp - batch["ref_logprobs"])
        surrogate = ops.minimum(ratio * 1.5, ops.clip(ratio, 0.9, 1.1) * 1.5)
        soft = ops.logaddexp(0.0, logp) + ops.maximum(logp, -2.03)
        by_row = ops.sum(ops.where(batch.mask, surrogate + soft, 0.0), axis=1)
        return ops.sum(by_row * by_row), {}

    logp, batch = a_batch(seed=3)
    loss = Loss("everything", everything)
    _, slope = loss_gradient(loss, logp, batch)
    assert slope == pytest.approx(slope_by_differences(loss, logp, batch), rel=1e-4, abs=1e-4)


def test_stop_gradient_stops_the_gradient() -> None:
    logp, batch = a_batch()
    metrics, slope = loss_gradient(
        Loss("still", lambda ops, x, _: (ops.sum(ops.stop_gradient(x) * x), {})), logp, batch
    )
    assert metrics["loss"] == pytest.approx(float((logp**2).sum()), rel=1e-6)
    assert slope == pytest.approx(logp)


def test_a_loss_that_ignores_the_policy_has_no_gradient() -> None:
    logp, batch = a_batch()
    for value in (lambda ops, _, b: (ops.sum(b["weights"]), {}), lambda *_: (1.5, {"constant": 2})):
        metrics, slope = loss_gradient(Loss("ignores", value), logp, batch)
        assert metrics["loss"] > 0
        assert slope.shape == logp.shape
        assert not slope.any()


def test_a_loss_cannot_change_the_arrays_it_is_shown() -> None:
    def vandal(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        batch["weights"].zero_()
        batch.mask.fill_(True)
        return ops.sum(logp), {}

    logp, batch = a_batch()
    before = batch["weights"].copy(), batch.mask.copy()
    loss_gradient(Loss("vandal", vandal), logp, batch)
    assert np.array_equal(batch["weights"], before[0])
    assert np.array_equal(batch.mask, before[1])


def test_cross_entropy_teaches_a_sequence() -> None:
    trainer = open_toy(8, buckets=64)
    row = Row.of([1, 5, 2, 7], [True] * 4).with_arrays(weights=np.full(4, 1 / 3, dtype=np.float32))
    for _ in range(60):
        trainer.forward_backward([row], cross_entropy()).result()
        trainer.optim_step(Adam(0.2)).result()
    assert np.exp(trainer.snapshot().logprobs([row])[0][1:]).min() > 0.95
