"""Updates of the policy: batches in a seeded order, optimizer numbers, passes over the rows of an
RL step.

batch = seeded_batch(rows, 32, seed, step)
optimizer = optimizer_at(plan, step, total)
sums, passes = update(trainer, groups, loss, experiment, step, total)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from toolhone.backends.base import Adam, Loss, Metrics, Muon, Optimizer, Trainer, random_stream
from toolhone.backends.usage import Usage, describe
from toolhone.config.rl import PtxSection
from toolhone.config.sections import EPISODIC, Experiment, ScheduleSection, TrainingSection
from toolhone.config.small_sections import METHOD
from toolhone.rows import Row
from toolhone.training.loop import Loop, MetricsAccumulator
from toolhone.training.losses import VARIANTS, Variant, cross_entropy, reply_shares, token_weights

T = TypeVar("T")
TASK_ORDER = 7
"""Separates the order of tasks from other random streams of a seed."""


def seeded_batch(items: Sequence[T], size: int, seed: int, step: int, *path: int) -> list[T]:
    """The items of one step, in a new order in every epoch; depends on (seed, path, step) alone."""
    places = range(step * size, (step + 1) * size)
    orders = {
        epoch: random_stream(seed, *path, epoch).permutation(len(items))
        for epoch in {place // len(items) for place in places}
    }
    return [items[orders[place // len(items)][place % len(items)]] for place in places]


def learning_rate_factor(schedule: ScheduleSection, step: int, total: int) -> float:
    """The factor of the learning rate at a step (0-based): warm-up, constant, decay to 0."""
    share, warmup = schedule.warmup_ratio, schedule.warmup_steps
    warmup = warmup if share is None else math.ceil(share * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.shape == "constant":
        return 1.0
    decay = max(1.0, (total - warmup) * schedule.decay_share)
    left = min(1.0, (total - step) / decay)
    return left if schedule.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def step_values(loop: Loop, sums: MetricsAccumulator) -> Metrics:
    """What reports on labelled rows say of the steps since the last one."""
    plan, state = loop.run.experiment.training, loop.state
    return {
        "learning_rate": optimizer_at(plan, state.step - 1, loop.total).learning_rate,
        "tokens_per_second": sums.tokens_per_second(),
        "trained_tokens": sums.count("tokens"),
        "skipped_steps": sums.count("skipped"),
        "seconds": round(state.seconds, 3),
    }


def optimizer_at(plan: TrainingSection, step: int, total: int) -> Optimizer:
    """The optimizer with every number at this step."""
    factor = learning_rate_factor(plan.schedule, step, total)
    assert plan.learning_rate is not None, "an experiment fills in the learning rate"
    rate, clip = plan.learning_rate * factor, plan.max_grad_norm
    own = plan.optimizer
    adam = Adam(rate, own.beta1, own.beta2, own.epsilon, plan.weight_decay, clip)
    if own.name == "adamw":
        return adam
    muon = plan.muon
    return Muon(muon.learning_rate * factor, adam, muon.momentum, muon.weight_decay, clip)


def planned_steps(plan: TrainingSection, rows: int) -> int:
    """Optimizer steps: `training.steps`, or as many as `training.epochs` need."""
    per_step = plan.batch_size * plan.gradient_accumulation_steps
    return plan.steps or max(1, math.ceil(plan.epochs * rows / per_step))


def planned_rl_steps(plan: TrainingSection, tasks: int) -> int:
    """RL steps: `training.steps`, or as many as play every task `training.epochs` times."""
    return plan.steps or max(1, round(plan.epochs * tasks / plan.batch_size))


def expected_usage(plan: Experiment, rows: Sequence[Row], tasks: int) -> str:
    """What the steps of a plan will have a service do, in words; validations come on top.

    SFT and DPO: the mean length of `rows` in every step; DPO's loss and its reference read them
    twice more. An RL method: the most that the model may sample in one turn of every episode.
    """
    training, rl = plan.training, plan.training.rl
    if training.method in EPISODIC:
        played = planned_rl_steps(training, tasks) * training.batch_size
        if training.method == METHOD:
            played = plan.teacher.rounds * min(tasks, plan.teacher.tasks or tasks)
        episodes = played * rl.group_size
        most = episodes * rl.max_completion_length
        return f"{episodes:,} episodes, of at most {most:,} sampled tokens for each turn"
    pairs, every = int(training.method == "dpo") + 1, sum(map(len, rows))
    steps = planned_steps(training, len(rows) // pairs)
    size = pairs * training.batch_size * training.gradient_accumulation_steps
    trained = round(steps * size * every / max(1, len(rows)))
    return describe(Usage(prefilled=(pairs - 1) * (trained + every), trained=trained))


def with_token_weights(rows: Sequence[Row]) -> list[Row]:
    """Add `weights` float32 [T], 1 / (trained tokens of all rows): the loss is a mean per token.

    A token counts as much as its message: with weight 0.5 its gradient is half of what it were.
    """
    each = np.float32(1 / max(1, sum(int(row.mask.sum()) for row in rows)))
    return [row.with_arrays(weights=row.mask * row.turn_weights * each) for row in rows]


def with_loss_weights(variant: Variant, longest: int, rows: Sequence[Row]) -> list[Row]:
    """Add `weights`, which make the loss of a mini-batch a mean, and `share`, 1 / reply tokens."""
    weights, shares = token_weights(variant, rows, longest), reply_shares(rows)
    return [
        row.with_arrays(weights=own, share=share)
        for row, own, share in zip(rows, weights, shares, strict=True)
    ]


def mini_batches(
    groups: Sequence[Sequence[Row]], size: int | None, order: np.random.Generator
) -> Iterator[list[Sequence[Row]]]:
    """`size` groups at a time (None: all at once), in a drawn order."""
    places = order.permutation(len(groups)).tolist()
    size = size or max(1, len(groups))
    for start in range(0, len(places), size):
        yield [groups[place] for place in places[start : start + size]]


def weighed_with_signal(
    groups: Sequence[Sequence[Row]], weigh: Callable[[Sequence[Row]], list[Row]], loss: Loss
) -> list[Row]:
    """The rows of a mini-batch with their weights, without groups that have no gradient.

    A group has none where all its advantages are 0 and no KL term holds the policy; its tokens
    count in the weights of the others, so that leaving it out changes nothing but the time. A
    loss of the user's own keeps every group.
    """
    exact = loss.name in (*VARIANTS, "ppo") and not loss.config.get("beta")
    weighed = iter(weigh([row for group in groups for row in group]))
    each = [[next(weighed) for _ in group] for group in groups]
    return [
        row
        for group in each
        if not exact or any(row.arrays["advantages"].any() for row in group)
        for row in group
    ]


def update(
    trainer: Trainer,
    groups: Sequence[Sequence[Row]],
    loss: Loss,
    weigh: Callable[[Sequence[Row]], list[Row]],
    plan: Experiment,
    step: int,
    total: int,
    labelled: Sequence[Row] = (),
) -> Iterator[Metrics]:
    """Train on the rows of an RL step: `inner_epochs` passes in mini-batches of whole groups.

    `weigh` adds the `weights` that normalise over a mini-batch. `labelled` are the rows of PPO-ptx.
    Yields the sums of a pass with `updates`, their number; a caller may stop after any pass.
    """
    rl, seed = plan.training.rl, plan.seed
    optimizer, updates = optimizer_at(plan.training, step, total), 0
    for epoch in range(rl.inner_epochs if groups else 0):
        sums = Metrics(updates=0.0)
        for part in mini_batches(groups, rl.mini_batch_size, random_stream(seed, 11, step, epoch)):
            rows = weighed_with_signal(part, weigh, loss)
            if not rows:
                continue
            pending = [trainer.forward_backward(rows, loss)]
            if ptx := ptx_rows(labelled, rl.ptx, seed, step, updates):
                pending.append(trainer.forward_backward(ptx, cross_entropy()))
            stepped = trainer.optim_step(optimizer)
            metrics, *rest = [one.result() for one in pending]
            gap = metrics.pop("behavior_gap", None)
            if gap is not None and not updates:  # no update has moved the policy yet
                metrics["sampler_gap"] = gap / max(1.0, metrics["tokens"])
            metrics = {**metrics, **stepped.result(), "updates": 1.0}
            for labels in rest:
                metrics |= {"ptx_nll": labels["nll"], "ptx_tokens": labels["tokens"]}
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value
            updates += 1
        yield sums


def ptx_rows(
    labelled: Sequence[Row], plan: PtxSection, seed: int, step: int, update: int
) -> list[Row]:
    """The labelled rows whose gradient is added to one update: PPO-ptx, for GRPO and PPO.

    Adds `ptx.coef` times the mean loss per token of `ptx.batch_size` rows, a pure function of
    (seed, step, update), so that what supervised training taught is kept. Empty where the
    coefficient is 0. Ouyang et al. 2022, arXiv:2203.02155, equation 2, with labelled
    conversations in place of pretraining text.
    """
    if not plan.coef:
        return []
    size = min(plan.batch_size, len(labelled))
    stream = random_stream(seed, 13, step, update)
    places = stream.choice(len(labelled), size, replace=False).tolist()
    coefficient = np.float32(plan.coef)
    return [
        row.with_arrays(weights=row.arrays["weights"] * coefficient)
        for row in with_token_weights([labelled[place] for place in places])
    ]
