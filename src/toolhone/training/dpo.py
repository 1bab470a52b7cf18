"""DPO: maximise log sigmoid(beta * (chosen log-ratio - rejected log-ratio)).

    status = dpo(trainer, rows, held_out, run, Hooks(validate, save, progress), checkpoint)

A log-ratio is log p - log p_ref summed over a reply, against the policy at step 0. Rows come in
pairs of one group, the chosen one first. Rafailov et al. 2023, arXiv:2305.18290; variants in
`training.rl.dpo`. Every logged number is explained in docs/algorithms/dpo.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolhone.backends.base import Loss, Metrics, Sampler, Trainer, train_step
from toolhone.config.sections import TrainingSection
from toolhone.errors import ConfigError
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.training.loop import (
    Hooks,
    Loop,
    MetricsAccumulator,
    TrainState,
    TrainStatus,
    Validation,
    in_parts,
    resume,
)
from toolhone.training.losses import preference_loss, reply_shares, with_own_loss
from toolhone.training.preference_pairs import report_dpo
from toolhone.training.reference import with_pair_references
from toolhone.training.update import optimizer_at, planned_steps, seeded_batch

Pair = tuple[Row, Row]
"""The chosen row and the rejected one."""


def dpo(
    trainer: Trainer,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    run: Run,
    hooks: Hooks,
    resume_from: Path | None = None,
) -> TrainStatus:
    """Train on the pairs in `rows`; rank those in `held_out` at each validation."""
    plan, seed = run.experiment.training, run.experiment.seed
    check_settings(plan)
    loss = loss_of(plan)
    trained = with_own_loss(loss, plan.loss)
    fresh = resume_from is None
    known = with_pair_references(trainer, [*rows, *held_out], run, fresh, hooks.progress)
    pairs, others = group_pairs(known[: len(rows)]), known[len(rows) :]

    def validate(sampler: Sampler) -> Validation:
        scores, samples = hooks.validate(sampler)
        return {**pair_scores(sampler, others, loss, hooks.progress), **scores}, samples

    state = resume(trainer, run, resume_from, TrainState())
    total = planned_steps(plan, len(pairs))
    loop = Loop(trainer, run, replace(hooks, validate=validate), total, state)
    sums = MetricsAccumulator(state.sums, loop.seconds)
    for step in loop:
        batch = with_pair_weights(next_pairs(pairs, plan, seed, step))
        metrics = train_step(trainer, [batch], trained, optimizer_at(plan, step, total))
        sums.add(metrics, batch)
        loop.check_skipped(1, metrics.get("skipped", 0.0))
        loop.finish_step(f"loss {metrics['loss']:.3f}")
        if loop.due(plan.log_every):
            report_dpo(loop, sums)
            sums.clear()
    return loop.status


def check_settings(plan: TrainingSection) -> None:
    """Refuse settings that have no meaning for DPO."""
    if plan.loss_on == "all":
        raise ConfigError(
            "training.loss_on is 'all', but DPO compares assistant replies to one prompt; remove it"
        )
    if plan.rl.dpo.loss_type == "ipo" and plan.rl.dpo.label_smoothing:
        raise ConfigError(
            "training.rl.dpo.label_smoothing has no meaning for the IPO loss; remove it, "
            "or use loss_type sigmoid"
        )
    if not plan.rl.beta:
        raise ConfigError("training.rl.beta is 0, with which DPO learns nothing; 0.1 is usual")


def loss_of(plan: TrainingSection) -> Loss:
    dpo = plan.rl.dpo
    return preference_loss(
        "ipo" if dpo.loss_type == "ipo" else "dpo",
        plan.rl.beta,
        dpo.label_smoothing,
        dpo.length_normalised,
        dpo.rpo_alpha,
    )


def group_pairs(rows: Sequence[Row]) -> list[Pair]:
    """Rows as pairs: neighbours of one group."""
    assert len(rows) % 2 == 0, f"rows of pairs come in twos, got {len(rows)}"
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    assert all(a.group is not None and a.group == b.group for a, b in pairs), (
        "rows of a pair are neighbours and share a group"
    )
    return pairs


def next_pairs(pairs: Sequence[Pair], plan: TrainingSection, seed: int, step: int) -> list[Row]:
    """The rows of one step's pairs, in a new seeded order in every epoch."""
    size = plan.batch_size * plan.gradient_accumulation_steps
    return [row for pair in seeded_batch(pairs, size, seed, step) for row in pair]


def with_pair_weights(rows: Sequence[Row]) -> list[Row]:
    """Add `share`, and `weights` float32 [T] that sum to 1 / (pairs of the step) over each row.

    A pair counts as much as the trained messages of its chosen side, on average over tokens.
    """
    each = np.float32(2 / max(1, len(rows)))
    return [
        row.with_arrays(share=share, weights=share * each * row.turn_weights)
        for row, share in zip(rows, reply_shares(rows), strict=True)
    ]


def pair_scores(sampler: Sampler, rows: Sequence[Row], loss: Loss, progress: Progress) -> Metrics:
    """How held-out pairs are ranked.

    `pair_accuracy`: share of pairs whose chosen side has the larger log-ratio. `pair_margin`: mean
    difference times beta. `chosen_nll`: mean negative log-likelihood per token of chosen sides.
    """
    if not rows:
        return {}
    means = bool(loss.config["length_normalised"]) or loss.name == "ipo"
    shares = reply_shares(rows) if means else [row.mask.astype(np.float32) for row in rows]
    now = in_parts(sampler.logprobs, rows, progress, "held-out pairs")
    gains = [
        float(((logp - row.arrays["ref_logprobs"]) * share).sum())
        for logp, row, share in zip(now, rows, shares, strict=True)
    ]
    margins = np.array(gains[0::2]) - np.array(gains[1::2])
    tokens = sum(int(row.mask.sum()) for row in rows[0::2])
    return {
        "pair_accuracy": float((margins > 0).mean()),
        "pair_margin": loss.config["beta"] * float(margins.mean()),
        "chosen_nll": -sum(float(logp.sum()) for logp in now[0::2]) / tokens,
    }
