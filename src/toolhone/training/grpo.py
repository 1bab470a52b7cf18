"""GRPO: play each task several times, raise the probability of what earned more than its group.

    status = grpo(trainer, env, run, checkpoint)

Shao et al. 2024, arXiv:2402.03300; the loss variants are in `losses.policy_loss`. The KL term is
part of the loss (`training.rl.beta`); there is no critic. `training.rl.reward.credit` says whether
turns have advantages of their own. docs/algorithms/grpo.md explains every logged number.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from toolhone.backends.base import Trainer
from toolhone.errors import ConfigError
from toolhone.runs.run import Run
from toolhone.training.loop import Loop, TrainState, TrainStatus, resume
from toolhone.training.losses import policy_loss, with_own_loss
from toolhone.training.reference import with_group_references, with_old_logprobs
from toolhone.training.rl_metrics import (
    Trend,
    prefill_metrics,
    report_rl,
    rollout_metrics,
    update_means,
)
from toolhone.training.rollout import RLEnv, rollout, score
from toolhone.training.update import (
    TASK_ORDER,
    planned_rl_steps,
    seeded_batch,
    update,
    with_loss_weights,
)


def grpo(trainer: Trainer, env: RLEnv, run: Run, resume_from: Path | None = None) -> TrainStatus:
    """Train on `env.tasks` as `run.experiment.training` plans."""
    experiment, plan = run.experiment, run.experiment.training
    rl, total = plan.rl, planned_rl_steps(plan, len(env.tasks))
    if rl.group_size < 2:
        raise ConfigError(
            "training.method grpo compares the episodes of a task, but training.rl.group_size "
            "is 1; use group_size 2 or more, or training.method ppo"
        )
    state = resume(trainer, run, resume_from, TrainState())
    env.restore_rewards(run, state)
    loop = Loop(trainer, run, env.hooks, total, state)
    kind, upper = rl.grpo.loss, rl.epsilon_high or rl.epsilon
    loss = policy_loss(kind, rl.epsilon, upper, rl.beta, rl.temperature)
    loss = with_own_loss(loss, plan.loss)
    weigh = partial(with_loss_weights, kind, rl.max_completion_length)
    scale = "none" if kind == "dr_grpo" else rl.grpo.scale_rewards  # Dr. GRPO only centres
    trend = Trend(experiment)
    needs_old = rl.inner_epochs > 1 or rl.mini_batch_size is not None or plan.loss is not None
    for step in loop:  # saves and validates when due, ends at `total` steps or on a signal
        sampler = loop.sampler(every=rl.sampler_refresh_every)
        with env.clock.on("sample"):
            tasks = seeded_batch(env.tasks, plan.batch_size, experiment.seed, step, TASK_ORDER)
            groups = rollout(env, sampler, tasks, experiment, step)
        groups = score(groups, env)
        played = [group.without_failures() for group in groups]
        advantages = [(group, group.advantages(scale, env.by_turn)) for group in played]
        rows = [group.rows(own, step) for group, own in advantages if group.episodes]
        with env.clock.on("reference"):
            moves = needs_old or loop.snapshot_age > 0
            rows = with_old_logprobs(rows, sampler, trainer, rl.temperature, moves)
            rows = with_group_references(rows, env.reference, rl.temperature)
        with env.clock.on("train"):
            passes = list(update(trainer, rows, loss, weigh, experiment, step, total, env.labelled))
        metrics = rollout_metrics(groups) | prefill_metrics(groups, rl, step)
        metrics |= update_means(passes, loop.snapshot_age)
        loop.finish_step(f"reward {metrics['reward']:.3f}")
        env.advance_rewards(loop.state, metrics)
        each = (turns for _, own in advantages for turns in own)
        report_rl(loop, env, trend, metrics, groups, each)
    return loop.status
