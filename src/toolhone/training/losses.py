"""Losses, each a function `fn(ops, logp, batch) -> (sum, metrics)` that every backend
differentiates.

Arrays have shape [rows, tokens]; entry t of `logp`, `batch.mask` and `batch[name]` belongs to the
prediction of token t; `logp` is 0 where the mask is False. A loss is a sum: the numbers that
normalise over the whole batch are arrays of the rows (`weights`), so that a backend may split a
batch anywhere between groups. Metrics are sums too and go through `stop_gradient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolhone.backends.base import Batch, Loss, Ops
from toolhone.config.user_code import import_callable
from toolhone.errors import ConfigError
from toolhone.rows import Array, Row

Variant = Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"]
VARIANTS: tuple[Variant, ...] = ("grpo", "dapo", "dr_grpo", "gspo", "cispo")
Preference = Literal["dpo", "ipo"]
MAX_LOG_RATIO = 20.0
"""Bound on log-ratios before exp: float32 overflows beyond it, and the clip decides anyway."""


def cross_entropy() -> Loss:
    """Weighted negative log-likelihood: the sum over masked positions of -weights * logp.

    Metrics: `nll`, the unweighted sum of -logp over masked positions, in nats; `tokens`, how many.
    """

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        nll = ops.where(batch.mask, -logp, 0.0)
        metrics = {
            "nll": ops.sum(ops.stop_gradient(nll)),
            "tokens": ops.sum(ops.where(batch.mask, 1.0, 0.0)),
        }
        return ops.sum(batch["weights"] * nll), metrics

    return Loss("cross_entropy", fn, dropout=True)


def policy_loss(
    variant: Variant, epsilon: float, epsilon_high: float, beta: float, temperature: float = 1.0
) -> Loss:
    """The clipped policy gradient, with r = p / p_old and A the advantage of a token:

        grpo     min(r A, clip(r) A), mean over each reply, then over replies  arXiv:2402.03300
        dapo     the same, mean over all tokens of the batch                    arXiv:2503.14476
        dr_grpo  the same, by a constant length; advantages only centred        arXiv:2503.20783
        gspo     one ratio per reply: exp(mean of log r)                        arXiv:2507.18071
        cispo    -stop(clip(r)) A log p: clipped tokens keep their gradient     arXiv:2506.13585

    `grpo`, `dapo` and `dr_grpo` differ in `token_weights` alone. Wants the arrays `advantages`,
    `weights`, for gspo `share`, and `ref_logprobs` where beta > 0; without `old_logprobs` p_old is
    p, with the gradient of p alone. Metrics, sums
    over trained tokens: `tokens`; `clipped`, tokens beyond the clip on the side of their advantage;
    `kl_sampled`, log p_old - log p; `behavior_gap`, |log p - log p_behavior|; `kl_reference`, k3;
    `entropy`, -log p.
    """
    names = {"epsilon": epsilon, "epsilon_high": epsilon_high, "beta": beta}

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        old = batch.arrays.get("old_logprobs")
        drift = logp - (ops.stop_gradient(logp) if old is None else old)
        drift = ops.where(batch.mask, drift, 0.0)
        log_ratio = ops.clip(drift, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        if variant == "gspo":  # the mean of a reply at each token; gradient reaches all of them
            log_ratio = ops.sum(log_ratio * batch["share"], 1)[:, None] + 0.0 * log_ratio
        ratio, advantages = ops.exp(log_ratio), batch["advantages"]
        clipped = ops.clip(ratio, 1 - epsilon, 1 + epsilon_high)
        if variant == "cispo":
            gain = ops.stop_gradient(clipped) * advantages * ops.where(batch.mask, logp, 0.0)
        else:
            gain = ops.minimum(ratio * advantages, clipped * advantages)
        loss = -gain
        far = ops.where(
            advantages > 0, ratio > 1 + epsilon_high, (advantages < 0) & (ratio < 1 - epsilon)
        )
        metrics = {
            "tokens": ops.sum(ops.where(batch.mask, 1.0, 0.0)),
            "clipped": ops.sum(ops.where(batch.mask & far, 1.0, 0.0)),
            "kl_sampled": -ops.sum(ops.stop_gradient(drift)),
            "entropy": -ops.sum(ops.stop_gradient(ops.where(batch.mask, logp, 0.0))),
        }
        if "behavior_logprobs" in batch.arrays:
            gap = ops.where(batch.mask, logp - batch["behavior_logprobs"], 0.0)
            metrics["behavior_gap"] = ops.sum(ops.stop_gradient(ops.maximum(gap, -gap)))
        if "ref_logprobs" in batch.arrays:
            divergence = k3(ops, logp, batch)
            loss = loss + beta * divergence if beta > 0 else loss
            metrics["kl_reference"] = ops.sum(ops.stop_gradient(divergence))
        return ops.sum(batch["weights"] * ops.where(batch.mask, loss, 0.0)), metrics

    return Loss(variant, fn, names, temperature)


def k3(ops: Ops, logp: Any, batch: Batch) -> Any:
    """The estimate k3 of the KL at each token: exp(d) - d - 1 with d = log p_ref - log p.

    Unbiased and never negative (Schulman 2020, joschu.net/blog/kl-approx.html).
    """
    gap = ops.clip(
        ops.where(batch.mask, batch["ref_logprobs"] - logp, 0.0), -MAX_LOG_RATIO, MAX_LOG_RATIO
    )
    return ops.exp(gap) - gap - 1.0


OWN = "own/"
"""Before the names of the metrics of a user's loss in the log."""


def with_own_loss(loss: Loss, spec: str | None) -> Loss:
    """The loss of a method; or in its place that of `training.loss`, with the metrics of both.

    The user's function gets (ops, logp, batch) and returns the sum, or the sum and metrics; its
    metrics are logged as `own/NAME`, the mean per trained token.
    """
    if spec is None:
        return loss
    own = import_callable(spec, Path.cwd(), "training.loss")

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        try:
            result = own(ops, logp, batch)
        except Exception as error:
            arrays = ", ".join(sorted(batch.arrays))
            wrong = f"training.loss {spec} failed: {type(error).__name__}: {error}"
            raise ConfigError(f"{wrong}; the arrays of the batch are {arrays}") from error
        total, metrics = result if isinstance(result, tuple) else (result, {})
        _, known = loss.fn(ops, logp, batch)
        named = {f"{OWN}{name}": ops.stop_gradient(value) for name, value in metrics.items()}
        return total, {**known, **named}

    return replace(loss, name=f"own loss {spec}", fn=fn)


def own_means(sums: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a user's loss per trained token."""
    tokens = max(1.0, sums.get("tokens", 0.0))
    return {name: value / tokens for name, value in sums.items() if name.startswith(OWN)}


def token_weights(variant: Variant, rows: Sequence[Row], longest: int) -> list[Array]:
    """float32 [T] for each row: the weight of a trained token that makes the batch's loss a mean.

    `dapo` and `cispo`: 1 / trained tokens of the batch. `dr_grpo`: 1 / (rows * `longest`). `grpo`
    and `gspo`: 1 / (rows * trained tokens of the row).
    """
    lengths = [max(1, int(row.mask.sum())) for row in rows]
    total, count = sum(lengths), max(1, len(rows))
    each = {
        "dapo": [1 / total] * count,
        "cispo": [1 / total] * count,
        "dr_grpo": [1 / (count * longest)] * count,
        "grpo": [1 / (count * length) for length in lengths],
        "gspo": [1 / (count * length) for length in lengths],
    }[variant]
    pairs = zip(rows, each, strict=True)
    return [row.mask.astype(np.float32) * np.float32(weight) for row, weight in pairs]


def reply_shares(rows: Sequence[Row]) -> list[Array]:
    """float32 [T] for each row: 1 / (its trained tokens) at those, for means over a reply."""
    return [row.mask.astype(np.float32) / np.float32(max(1, int(row.mask.sum()))) for row in rows]


def preference_loss(
    kind: Preference,
    beta: float,
    label_smoothing: float = 0.0,
    length_normalised: bool = False,
    rpo_alpha: float = 0.0,
    temperature: float = 1.0,
) -> Loss:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290) or IPO (Azar et al. 2023, arXiv:2310.12036).

    Rows come in pairs of one group, the chosen one first. Wants `ref_logprobs`, and `weights`,
    whose sum over the chosen row weighs the pair. label_smoothing: the probability of a wrong label
    (Mitchell 2023, conservative DPO). length_normalised: means over tokens instead of sums (always
    for IPO, as in TRL). rpo_alpha: weight of the chosen side's mean negative log-likelihood (Pang
    et al. 2024, arXiv:2404.19733). The last two and IPO want `share` (`reply_shares`).

    Metrics are sums over pairs; `margin` is beta times the difference of log-ratios. `tokens`
    counts trained tokens, `chosen_tokens` those of chosen sides, over which `kl_reference` sums k3.
    """
    config = {
        "beta": beta,
        "label_smoothing": label_smoothing,
        "length_normalised": float(length_normalised),
        "rpo_alpha": rpo_alpha,
    }

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        count, pairs = len(batch.groups), zip(batch.groups[0::2], batch.groups[1::2], strict=False)
        assert count % 2 == 0, f"rows of a preference loss come in pairs, got {count}"
        assert all(a is not None and a == b for a, b in pairs), "rows of a pair are neighbours"
        gap = ops.where(batch.mask, logp - batch["ref_logprobs"], 0.0)
        scores = ops.sum(gap * batch["share"] if length_normalised or kind == "ipo" else gap, 1)
        chosen, rejected = scores[0::2], scores[1::2]
        margin, trained = chosen - rejected, ops.where(batch.mask, 1.0, 0.0)
        weights = ops.sum(batch["weights"], 1)[0::2]
        if kind == "ipo":
            losses = (margin - 1 / (2 * beta)) * (margin - 1 / (2 * beta))
        else:
            wrong, right = ops.logaddexp(beta * margin, 0.0), ops.logaddexp(-beta * margin, 0.0)
            losses = (1 - label_smoothing) * right + label_smoothing * wrong
        if rpo_alpha > 0:
            likelihood = ops.sum(ops.where(batch.mask, logp, 0.0) * batch["share"], 1)[0::2]
            losses = losses - rpo_alpha * likelihood
        fixed, own = ops.stop_gradient(margin), ops.where(batch.mask, logp, 0.0)
        totals = ops.stop_gradient(ops.sum(own, 1))
        metrics = {
            "tokens": ops.sum(trained),
            "chosen_tokens": ops.sum(trained[0::2]),
            "kl_reference": ops.sum(ops.stop_gradient(k3(ops, logp, batch))[0::2]),
            "chosen_logp": ops.sum(totals[0::2]),
            "rejected_logp": ops.sum(totals[1::2]),
            "pairs": ops.sum(ops.where(fixed > -1e30, 1.0, 0.0)),
            "margin": beta * ops.sum(fixed),
            "accuracy": ops.sum(ops.where(fixed > 0, 1.0, 0.0)),
            "chosen_reward": beta * ops.sum(ops.stop_gradient(chosen)),
            "rejected_reward": beta * ops.sum(ops.stop_gradient(rejected)),
        }
        return ops.sum(weights * losses), metrics

    return Loss(kind, fn, config, temperature, whole_groups=True)
