"""The losses of the Tinker service by name, as `Loss` objects over the seam.

    loss = wire_loss("ppo", {"clip_high_threshold": 1.1}, seen)    # seen collects log-probabilities

Every loss is a sum over positions. Formulas: tinker-docs.thinkingmachines.ai/tinker/losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolhone.backends.base import Batch, Loss, Ops
from toolhone.errors import DataError, nearest

ROW = "row"
"""The array that holds a row's number (float32 holds integers up to 2^24 exactly)."""
Seen = list[tuple[Any, Any]]
"""For each micro-batch: `ROW` of its rows, and their log-probabilities [rows, tokens]."""
TokenLoss = Callable[[Ops, Any, Batch, Mapping[str, float]], Any]
"""Loss of each token [rows, tokens], from ops, log-probabilities, batch and config."""
CLIPS = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
"""Bounds of the ratio itself, not distances from 1."""


def _cross_entropy(ops: Ops, logp: Any, batch: Batch, _: Mapping[str, float]) -> Any:
    return -batch["weights"] * logp


def _importance_sampling(ops: Ops, logp: Any, batch: Batch, _: Mapping[str, float]) -> Any:
    return -ops.exp(logp - batch["logprobs"]) * batch["advantages"]


def _clip(ops: Ops, ratio: Any, config: Mapping[str, float]) -> Any:
    return ops.clip(ratio, config["clip_low_threshold"], config["clip_high_threshold"])


def _ppo(ops: Ops, logp: Any, batch: Batch, config: Mapping[str, float]) -> Any:
    ratio, advantages = ops.exp(logp - batch["logprobs"]), batch["advantages"]
    return -ops.minimum(ratio * advantages, _clip(ops, ratio, config) * advantages)


def _cispo(ops: Ops, logp: Any, batch: Batch, config: Mapping[str, float]) -> Any:
    ratio = _clip(ops, ops.exp(logp - batch["logprobs"]), config)
    return -ops.stop_gradient(ratio) * logp * batch["advantages"]


def _dro(ops: Ops, logp: Any, batch: Batch, config: Mapping[str, float]) -> Any:
    drift = logp - batch["logprobs"]
    return -(logp * batch["advantages"] - 0.5 * config["beta"] * drift * drift)


def _gspo(ops: Ops, logp: Any, batch: Batch, config: Mapping[str, float]) -> Any:
    """GSPO-token (arXiv:2507.18071): the ratio of the sequence, the gradient of each token."""
    counted, fixed = batch["sequence_ratio_mask"] != 0, ops.stop_gradient(logp)
    count = ops.maximum(ops.sum(ops.where(counted, 1.0, 0.0), 1), 1.0)
    drift = ops.sum(ops.where(counted, fixed - batch["logprobs"], 0.0), 1) / count
    ratio, advantages = ops.exp(drift[:, None] + logp - fixed), batch["advantages"]
    return -ops.minimum(ratio * advantages, _clip(ops, ratio, config) * advantages)


@dataclass(frozen=True)
class ServiceLoss:
    """`inputs`: the arrays it wants besides `target_tokens`. `config`: its numbers by default."""

    fn: TokenLoss
    inputs: tuple[str, ...]
    config: Mapping[str, float]


_POLICY = ("logprobs", "advantages")
LOSSES: Mapping[str, ServiceLoss] = {
    "cross_entropy": ServiceLoss(_cross_entropy, ("weights",), {}),
    "importance_sampling": ServiceLoss(_importance_sampling, _POLICY, {}),
    "ppo": ServiceLoss(_ppo, _POLICY, CLIPS),
    "cispo": ServiceLoss(_cispo, _POLICY, CLIPS),
    "dro": ServiceLoss(_dro, _POLICY, {"beta": 0.05}),
    "gspo": ServiceLoss(_gspo, (*_POLICY, "sequence_ratio_mask"), CLIPS),
}
NOT_HERE = {
    "custom": "the server runs no uploaded custom losses unless started with --custom-losses; "
    "forward_backward_custom runs yours on the client",
    "stable_reinforce": "only the Tinker service has its formula; use ppo or importance_sampling",
}


def find_loss(name: str) -> ServiceLoss:
    """Look a loss up; `DataError` names those that exist."""
    if name in LOSSES:
        return LOSSES[name]
    why = NOT_HERE.get(name, f"there are {', '.join(LOSSES)}{nearest(name, LOSSES)}")
    raise DataError(f"loss_fn {name!r} is not available here: {why}")


def wire_loss(name: str, config: Mapping[str, float | str], seen: Seen) -> Loss:
    """Return the loss with its config completed; it notes the log-probabilities in `seen`."""
    service = find_loss(name)
    for key, value in config.items():
        if key not in service.config or isinstance(value, str):
            known = ", ".join(service.config) or "none"
            raise DataError(f"loss_fn_config of {name} has the numbers {known}; got {key}={value}")
    numbers = {**service.config, **{key: float(value) for key, value in config.items()}}

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        seen.append((batch[ROW][:, 0], ops.stop_gradient(logp)))
        losses = service.fn(ops, logp, batch, numbers)
        return ops.sum(ops.where(batch.mask, losses, 0.0)), {}

    return Loss(name, fn, numbers)
