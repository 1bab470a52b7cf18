"""The losses of reinforcement learning and preference learning, each written once against `Ops`.

    policy_loss("dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, temperature=1.0)
    preference_loss("dpo", beta=0.1)

As all losses they are sums (see `losses`): `weights` hold the normalisation, `advantages` what a token's episode was worth,
`behavior_logprobs` those at which it was sampled, `ref_logprobs` those of the reference policy where `beta` is not 0:

    grpo     min(r A, clip(r) A), mean over each reply, then over replies   Shao et al. 2024, arXiv:2402.03300
    dapo     the same, mean over all tokens of the batch                     Yu et al. 2025, arXiv:2503.14476
    dr_grpo  the same, by a constant length; advantages only centred         Liu et al. 2025, arXiv:2503.20783
    gspo     one ratio for each reply: exp(mean of log r)                    Zheng et al. 2025, arXiv:2507.18071
    cispo    -stop(clip(r)) A log p: clipped tokens keep their gradient      MiniMax 2025, arXiv:2506.13585

with r = p / p_sampled. `grpo`, `dapo` and `dr_grpo` differ in their weights alone (`token_weights`). The KL to the reference is k3,
exp(d) - d - 1 with d = log p_ref - log p (Schulman 2020, joschu.net/blog/kl-approx.html): never negative, and unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from toolhone.backends.base import Batch, Loss, Ops
from toolhone.rows import Array, Row

Variant = Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"]
VARIANTS: tuple[Variant, ...] = ("grpo", "dapo", "dr_grpo", "gspo", "cispo")
Preference = Literal["dpo", "ipo"]
MOST = 20.0
"""Bound on log-ratios before exp: beyond it float32 overflows, and the clip decides anyway."""


def policy_loss(
    variant: Variant, epsilon: float, epsilon_high: float, beta: float, temperature: float = 1.0
) -> Loss:
    """The loss of one variant. Wants `advantages`, `behavior_logprobs`, `weights`, and `ref_logprobs` where beta > 0.

    Metrics, all sums over trained tokens: `tokens`; `clipped`, tokens whose ratio lies beyond the side that its advantage pushes
    to; `kl_sampled`, log p_sampled - log p (the drift since sampling); `kl_reference`, k3; `entropy`, -log p.
    """
    names = {"epsilon": epsilon, "epsilon_high": epsilon_high, "beta": beta}

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        log_ratio = ops.clip(
            ops.where(batch.mask, logp - batch["behavior_logprobs"], 0.0), -MOST, MOST
        )
        if variant == "gspo":
            log_ratio = _of_replies(ops, log_ratio, batch)
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
            "kl_sampled": -ops.sum(
                ops.stop_gradient(ops.where(batch.mask, logp - batch["behavior_logprobs"], 0.0))
            ),
            "entropy": -ops.sum(ops.stop_gradient(ops.where(batch.mask, logp, 0.0))),
        }
        if beta > 0:
            divergence = k3(ops, logp, batch)
            loss = loss + beta * divergence
            metrics["kl_reference"] = ops.sum(ops.stop_gradient(divergence))
        return ops.sum(batch["weights"] * ops.where(batch.mask, loss, 0.0)), metrics

    return Loss(variant, fn, names, temperature)


def k3(ops: Ops, logp: Any, batch: Batch) -> Any:
    """The estimate k3 of the KL to the reference at each token; 0 where nothing is trained."""
    gap = ops.clip(ops.where(batch.mask, batch["ref_logprobs"] - logp, 0.0), -MOST, MOST)
    return ops.exp(gap) - gap - 1.0


def _of_replies(ops: Ops, log_ratio: Any, batch: Batch) -> Any:
    """The mean log-ratio of each reply at each of its tokens. Its value is the reply's; its gradient goes to all of its tokens."""
    mean = ops.sum(log_ratio * batch["share"], 1)[:, None]
    return mean + 0.0 * log_ratio


def token_weights(variant: Variant, rows: Sequence[Row], longest: int) -> list[Array]:
    """float32 [T] for each row: what a trained token weighs, so that the loss of the whole batch is a mean.

    `dapo` and `cispo`: 1 / trained tokens of the batch. `dr_grpo`: 1 / (rows * `longest`). `grpo` and `gspo`: 1 / (rows * trained
    tokens of the row).
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
    return [
        row.mask.astype(np.float32) * np.float32(weight)
        for row, weight in zip(rows, each, strict=True)
    ]


def reply_shares(rows: Sequence[Row]) -> list[Array]:
    """float32 [T] for each row: 1 / trained tokens of the row at those, for means over a reply."""
    return [row.mask.astype(np.float32) / np.float32(max(1, int(row.mask.sum()))) for row in rows]


def preference_loss(
    kind: Preference,
    beta: float,
    label_smoothing: float = 0.0,
    length_normalised: bool = False,
    rpo_alpha: float = 0.0,
    temperature: float = 1.0,
) -> Loss:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290) or IPO (Azar et al. 2023, arXiv:2310.12036) on pairs of rows.

    Rows come in pairs of one group, the chosen one first. Wants `ref_logprobs` (of the reference) and `weights`, of
    which the sum over the chosen row counts for the pair. label_smoothing: the chance that a label is wrong (Mitchell 2023,
    conservative DPO). length_normalised: means over tokens in place of sums (IPO always takes means, as TRL does). rpo_alpha: the
    weight of the chosen side's mean negative log-likelihood, added to either (Pang et al. 2024, arXiv:2404.19733). The last two
    and IPO want `share` (`reply_shares`).

    Metrics are sums over pairs: `pairs`, `margin` (beta times the difference of log-ratios), `accuracy`, `chosen_reward`,
    `rejected_reward`, `chosen_logp`, `rejected_logp` (sums over a side's tokens); `tokens` counts the trained ones,
    `chosen_tokens` those of the chosen sides, over which `kl_reference` is the sum of k3.
    """
    config = {
        "beta": beta,
        "label_smoothing": label_smoothing,
        "length_normalised": float(length_normalised),
    }
    config["rpo_alpha"] = rpo_alpha

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        _need_pairs(batch.groups)
        gap = ops.where(batch.mask, logp - batch["ref_logprobs"], 0.0)
        scores = ops.sum(gap * batch["share"] if length_normalised or kind == "ipo" else gap, 1)
        chosen, rejected = scores[0::2], scores[1::2]
        margin = chosen - rejected
        weights = ops.sum(batch["weights"], 1)[0::2]
        if kind == "ipo":
            losses = (margin - 1 / (2 * beta)) * (margin - 1 / (2 * beta))
        else:
            wrong, right = ops.logaddexp(beta * margin, 0.0), ops.logaddexp(-beta * margin, 0.0)
            losses = (1 - label_smoothing) * right + label_smoothing * wrong
        if rpo_alpha > 0:
            losses = (
                losses
                - rpo_alpha * ops.sum(ops.where(batch.mask, logp, 0.0) * batch["share"], 1)[0::2]
            )
        held = ops.stop_gradient(margin)
        said = ops.stop_gradient(ops.sum(ops.where(batch.mask, logp, 0.0), 1))
        metrics = {
            "tokens": ops.sum(ops.where(batch.mask, 1.0, 0.0)),
            "chosen_tokens": ops.sum(ops.where(batch.mask, 1.0, 0.0)[0::2]),
            "kl_reference": ops.sum(ops.stop_gradient(k3(ops, logp, batch))[0::2]),
            "chosen_logp": ops.sum(said[0::2]),
            "rejected_logp": ops.sum(said[1::2]),
            "pairs": ops.sum(ops.where(held > -1e30, 1.0, 0.0)),
            "margin": beta * ops.sum(held),
            "accuracy": ops.sum(ops.where(held > 0, 1.0, 0.0)),
            "chosen_reward": beta * ops.sum(ops.stop_gradient(chosen)),
            "rejected_reward": beta * ops.sum(ops.stop_gradient(rejected)),
        }
        return ops.sum(weights * losses), metrics

    return Loss(kind, fn, config, temperature)


def _need_pairs(groups: Sequence[str | None]) -> None:
    pairs = list(zip(groups[0::2], groups[1::2], strict=False))
    assert len(groups) % 2 == 0, f"rows of a preference loss come in pairs, got {len(groups)}"
    assert all(a is not None and a == b for a, b in pairs), "rows of a pair stand together"
