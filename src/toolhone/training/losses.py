"""The losses of the house, each written once against `Ops` and run by every backend.

    trainer.forward_backward(rows, cross_entropy())

A loss is a function `fn(ops, logp, batch) -> (sum, metrics)`; a backend differentiates it, so it needs no derivative. All arrays
have shape [rows, tokens]: entry t of `logp`, `batch.mask` and of each `batch[name]` speaks of predicting token t of that row; where
the mask is False, `logp` is 0 and nothing that is computed there reaches the model. Entry 0 is never trained.

A loss never divides by the size of what it sees: a backend splits a batch as it likes and adds up, so losses and metrics are sums,
and the numbers that normalise over the whole batch are in the rows' arrays before they come here. Rows of one group are always
in one batch. A metric goes through `stop_gradient` first.

A new loss takes ten lines. This one wants log-probabilities near those of a reference policy, in `batch["ref_logprobs"]`:

    def squared_distance(strength: float) -> Loss:
        def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
            gap = ops.where(batch.mask, logp - batch["ref_logprobs"], 0.0)
            total = strength * ops.sum(batch["weights"] * gap * gap)
            return total, {"gap": ops.sum(ops.stop_gradient(gap))}

        return Loss("squared_distance", fn, {"strength": strength})

What is not here: the normalisation itself (each algorithm's own file), advantages (`advantages.py`), the critic (`critic.py`).
"""

from __future__ import annotations

from typing import Any

from toolhone.backends.base import Batch, Loss, Ops


def cross_entropy() -> Loss:
    """Weighted negative log-likelihood, the sum over masked positions of -weights * logp: supervised training.

    Wants the array `weights` (0 where a row lacks it); with weights of 1 / (trained tokens of the whole batch) the loss is the mean
    per token. Metrics: `nll`, the unweighted sum of -logp over masked positions, in nats; `tokens`, how many those are.
    """
    return Loss("cross_entropy", _cross_entropy)


def _cross_entropy(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
    nll = ops.where(batch.mask, -logp, 0.0)
    metrics = {
        "nll": ops.sum(ops.stop_gradient(nll)),
        "tokens": ops.sum(ops.where(batch.mask, 1.0, 0.0)),
    }
    return ops.sum(batch["weights"] * nll), metrics
