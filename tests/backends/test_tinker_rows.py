"""`backends.tinker_rows`: the service's own loss is used where it is exactly ours."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from toolhone.backends.base import Batch, Loss, Metrics, Ops, pad_rows
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.tinker_rows import BuiltIn, LossBatch, built_in, datums, output_logprobs
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy, policy_loss, preference_loss, reply_shares


def rows_of(uniform: bool = True) -> list[Row]:
    """Three rows of an RL step; `uniform`: one weight and one advantage in each."""
    rng = np.random.default_rng(1)
    rows = []
    for number, length in enumerate((6, 9, 4)):
        row = Row.of(rng.integers(0, 50, length).tolist(), (np.arange(length) % 3 != 1).tolist())
        size = () if uniform else (length,)
        advantages = np.broadcast_to(rng.normal(size=size), length).astype(np.float32)
        weights = np.broadcast_to(rng.uniform(0.1, 1, size), length).astype(np.float32)
        (share,) = reply_shares([row])
        old = rng.normal(-2, 0.5, length).astype(np.float32)
        behavior = old + np.float32(0.1)
        row = row.with_arrays(advantages=advantages, weights=weights, share=share)
        rows.append(row.with_arrays(old_logprobs=old, behavior_logprobs=behavior, **{"n": number}))
    return rows


def logp_of(rows: list[Row]) -> np.ndarray:
    _, mask, arrays = pad_rows(rows)
    drift = np.random.default_rng(2).normal(0, 0.4, mask.shape)
    return np.where(mask, arrays["old_logprobs"] + drift, 0).astype(np.float32)


def clip(r: Any, config: dict[str, float]) -> Any:
    return r.clamp(config["clip_low_threshold"], config["clip_high_threshold"])


def _gspo(lp: Any, row: dict[str, Any], config: dict[str, float]) -> Any:
    mask, fixed = row["sequence_ratio_mask"], lp.detach()
    drift = (mask * (fixed - row["logprobs"])).sum() / mask.sum()
    r = torch.exp(drift + lp - fixed)
    return -torch.minimum(r * row["advantages"], clip(r, config) * row["advantages"])


SERVICE: dict[str, Callable[[Any, dict[str, Any], dict[str, float]], Any]] = {
    "cross_entropy": lambda lp, row, _: -row["weights"] * lp,
    "importance_sampling": lambda lp, row, _: -torch.exp(lp - row["logprobs"]) * row["advantages"],
    "ppo": lambda lp, row, c: (
        -torch.minimum(
            torch.exp(lp - row["logprobs"]) * row["advantages"],
            clip(torch.exp(lp - row["logprobs"]), c) * row["advantages"],
        )
    ),
    "cispo": lambda lp, row, c: (
        -clip(torch.exp(lp - row["logprobs"]), c).detach() * lp * row["advantages"]
    ),
    "dro": lambda lp, row, c: (
        -(lp * row["advantages"] - c["beta"] / 2 * (lp - row["logprobs"]) ** 2)
    ),
    "gspo": _gspo,
}
"""The service's losses per token, as its documentation writes them."""


def service_gradient(own: BuiltIn, logp: np.ndarray) -> tuple[float, np.ndarray]:
    """The sum of a loss of the service and its derivative; positions without weight count, too."""
    leaf = torch.tensor(logp, requires_grad=True)
    total: Any = 0.0
    for line, inputs in zip(leaf, own.inputs, strict=True):
        row = {name: torch.tensor(values[1:]) for name, values in inputs.items()}
        width = len(inputs[next(iter(inputs))])
        total = total + SERVICE[own.name](line[1:width], row, own.config).sum()
    total.backward()
    assert leaf.grad is not None
    return float(total.detach()), leaf.grad.numpy()


def _importance(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, Metrics]:
    ratio = ops.exp(ops.where(batch.mask, logp - batch["old_logprobs"], 0.0))
    gain = ops.where(batch.mask, ratio * batch["advantages"], 0.0)
    return -ops.sum(batch["weights"] * gain), {}


def _dro(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, Metrics]:
    gap = ops.where(batch.mask, logp - batch["old_logprobs"], 0.0)
    gain = ops.where(batch.mask, logp * batch["advantages"], 0.0) - 0.15 * gap * gap
    return -ops.sum(batch["weights"] * gain), {}


CLIPPED = ("grpo", "dapo", "dr_grpo", "cispo", "gspo")
OURS = [
    cross_entropy(),
    *(policy_loss(name, 0.2, 0.28, 0.0) for name in CLIPPED),
    Loss("importance_sampling", _importance),
    Loss("dro", _dro, {"beta": 0.3}),
]


@pytest.mark.parametrize("loss", OURS, ids=[loss.name for loss in OURS])
def test_a_loss_of_the_service_has_the_value_and_gradient_of_ours(loss: Loss) -> None:
    rows = rows_of()
    if loss.name == "dro":
        rows = [row.with_arrays(weights=np.full(len(row), 0.3, np.float32)) for row in rows]
    own, logp = built_in(loss, rows), logp_of(rows)
    assert own is not None
    _, mask, arrays = pad_rows(rows)
    metrics, expected = loss_gradient(loss, logp, Batch(mask, arrays))
    value, gradient = service_gradient(own, logp)
    assert value == pytest.approx(metrics["loss"], rel=1e-5)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    if loss.name in CLIPPED:
        assert own.config == pytest.approx({"clip_low_threshold": 0.8, "clip_high_threshold": 1.28})


@pytest.mark.parametrize(
    ("loss", "rows"),
    [
        (policy_loss("grpo", 0.2, 0.2, beta=0.04), rows_of()),
        (policy_loss("gspo", 0.2, 0.2, 0.0), rows_of(uniform=False)),
        (Loss("dro", _dro, {"beta": 0.3}), rows_of()),
        (preference_loss("dpo", 0.1), rows_of()),
        (
            policy_loss("dapo", 0.2, 0.2, 0.0),
            [row.with_arrays(weights=-row.arrays["weights"]) for row in rows_of()],
        ),
    ],
    ids=["kl", "uneven sequence", "uneven weights", "pairs", "negative weights"],
)
def test_a_loss_that_the_service_has_not_exactly_is_a_custom_one(
    loss: Loss, rows: list[Row]
) -> None:
    assert built_in(loss, rows) is None


def test_datums_are_shifted_and_their_outputs_shifted_back() -> None:
    sdk = pytest.importorskip("tinker")
    rows = rows_of()
    own = built_in(cross_entropy(), rows)
    assert own is not None
    for datum, row in zip(datums(sdk, rows, own.inputs), rows, strict=True):
        assert datum.model_input.to_ints() == row.tokens[:-1].tolist()
        targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
        weights = datum.loss_fn_inputs["weights"].to_numpy()
        assert targets.tolist() == row.tokens[1:].tolist()
        np.testing.assert_array_equal(weights, (row.mask * row.arrays["weights"])[1:])

    outputs = [
        {"logprobs": sdk.TensorData.from_numpy(-np.arange(1, len(row), dtype=np.float32))}
        for row in rows
    ]
    output = SimpleNamespace(loss_fn_outputs=outputs)
    for values, row in zip(output_logprobs(output, rows), rows, strict=True):
        np.testing.assert_array_equal(values, -np.arange(len(row)) * row.mask)


def test_a_custom_loss_has_our_metrics_and_gradient_and_skips_silent_rows() -> None:
    silent = Row.of([1, 2, 3], [False] * 3)
    rows = rows_of()
    rows.insert(1, silent.with_arrays(**dict.fromkeys(rows[0].arrays, 0.0)))
    loss, logp, batch = policy_loss("grpo", 0.2, 0.2, 0.0), logp_of(rows), LossBatch(rows)
    _, mask, arrays = pad_rows(rows)
    expected, gradient = loss_gradient(loss, logp, Batch(mask, arrays))
    assert batch.sent == [0, 2, 3]
    leaves = [
        torch.tensor(logp[place, 1 : len(rows[place])], requires_grad=True) for place in batch.sent
    ]
    found = Metrics()
    total, _ = batch.function(loss, found)(None, leaves)
    total.backward()
    assert found == pytest.approx(expected, abs=1e-6)
    assert batch.metrics(loss, [logp[i, : len(rows[i])] for i in batch.sent]) == found
    for place, leaf in zip(batch.sent, leaves, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(
            leaf.grad.numpy(), gradient[place, 1 : len(rows[place])], atol=1e-6
        )


def test_a_loss_that_ignores_log_probabilities_has_the_gradient_zero() -> None:
    rows, leaf = rows_of()[:1], torch.zeros(5, requires_grad=True)
    constant = Loss("constant", lambda ops, logp, batch: (torch.tensor(3.0), {}))  # noqa: ARG005
    total, _ = LossBatch(rows).function(constant, {})(None, [leaf])
    total.backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0.0] * 5
