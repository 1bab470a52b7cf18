"""Turn-level PPO: reward at the last turn or turn by turn, GAE over turns, a linear critic.

    status = ppo(trainer, env, run, checkpoint)

The KL to the reference is subtracted from the reward of each turn (`training.rl.beta`), not added
to the loss. With `training.rl.ppo.critic: none` an episode's advantage is its reward minus the mean
of its group. Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593. Every
logged number is explained in docs/algorithms/ppo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from toolhone.backends.base import Loss, Metrics, Trainer
from toolhone.config.rl import PpoSection, RlSection
from toolhone.errors import ConfigError
from toolhone.runs.run import Run
from toolhone.training.critic import open_critic
from toolhone.training.loop import Loop, TrainState, TrainStatus, resume
from toolhone.training.losses import policy_loss, with_own_loss
from toolhone.training.reference import with_old_logprobs
from toolhone.training.rl_metrics import (
    Trend,
    prefill_metrics,
    report_rl,
    rollout_metrics,
    update_means,
)
from toolhone.training.rollout import RLEnv, rollout, score
from toolhone.training.trajectory import (
    approx_kl,
    rows_by_task,
    trajectories,
    trajectory_kl,
    turn_advantages,
)
from toolhone.training.update import (
    TASK_ORDER,
    planned_rl_steps,
    seeded_batch,
    update,
    with_loss_weights,
)

KL_GAIN, MAX_KL_ERROR = 0.1, 0.2
"""The adaptive KL coefficient (Ziegler et al. 2019, section 2.2) moves by gain * bounded error."""


@dataclass
class PpoState(TrainState):
    """What a checkpoint of PPO stores: also the KL coefficient and the critic."""

    beta: float = 0.0
    critic: dict[str, Any] = field(default_factory=dict)


def ppo(trainer: Trainer, env: RLEnv, run: Run, resume_from: Path | None = None) -> TrainStatus:
    """Train on `env.tasks` as `run.experiment.training` plans."""
    experiment, plan = run.experiment, run.experiment.training
    rl, total = plan.rl, planned_rl_steps(plan, len(env.tasks))
    if rl.ppo.critic == "none" and rl.group_size < 2:
        raise ConfigError(
            "training.rl.ppo.critic 'none' compares the episodes of a task, but "
            "training.rl.group_size is 1; use group_size 2 or more, or critic 'regression'"
        )
    assert env.reference is not None or not rl.beta, "a KL penalty needs a reference"
    critic, trend = open_critic(trainer, rl.ppo), Trend(experiment)
    state = resume(trainer, run, resume_from, PpoState(beta=rl.beta))
    if critic is not None and state.critic:
        critic.load_state(state.critic)
    env.restore_rewards(run, state)
    loop = Loop(trainer, run, env.hooks, total, state)
    loss = with_own_loss(clipped_loss(rl), plan.loss)
    weigh = partial(with_loss_weights, "dapo", rl.max_completion_length)
    for step in loop:
        sampler = loop.sampler(every=rl.sampler_refresh_every)
        with env.clock.on("sample"):
            tasks = seeded_batch(env.tasks, plan.batch_size, experiment.seed, step, TASK_ORDER)
            groups = rollout(env, sampler, tasks, experiment, step)
        groups = score(groups, env)
        metrics = rollout_metrics(groups) | prefill_metrics(groups, rl, step)
        metrics["beta"] = state.beta
        with env.clock.on("reference"):
            own = partial(
                with_old_logprobs, sampler=sampler, trainer=trainer, temperature=rl.temperature
            )
            paths = trajectories(groups, own, env.reference, state.beta, rl.temperature, step)
            metrics |= trajectory_kl(paths) if env.reference is not None else {}
        with env.clock.on("critic"):
            advantages, learned = turn_advantages(paths, critic, rl.ppo, env.by_turn)
            rows = rows_by_task(paths, advantages)
        passes, moved = list[Metrics](), Metrics()
        with env.clock.on("train"):
            for sums in update(trainer, rows, loss, weigh, experiment, step, total, env.labelled):
                passes.append(sums)
                if rl.ppo.target_kl is not None and len(passes) < rl.inner_epochs:
                    moved = {"kl_moved": approx_kl(trainer, rows, rl.temperature)}
                    if moved["kl_moved"] > rl.ppo.target_kl:
                        break
        stopped_early = bool(rows) and len(passes) < rl.inner_epochs
        metrics |= learned | update_means(passes, loop.snapshot_age) | moved
        metrics |= {"passes": float(len(passes)), "stopped_early": float(stopped_early)}
        state.beta = adapt_kl_coef(state.beta, metrics, rl.ppo)
        state.critic = {} if critic is None else critic.state()
        loop.finish_step(f"reward {metrics['reward']:.3f}")
        env.advance_rewards(state, metrics)
        report_rl(loop, env, trend, metrics, groups, advantages)
    return loop.status


def clipped_loss(rl: RlSection) -> Loss:
    """min(r A, clip(r) A), the mean over tokens, under the name `ppo` that services build in."""
    loss = policy_loss("dapo", rl.epsilon, rl.epsilon_high or rl.epsilon, 0.0, rl.temperature)
    return Loss("ppo", loss.fn, loss.config, loss.temperature)


def adapt_kl_coef(beta: float, metrics: Metrics, plan: PpoSection) -> float:
    """The KL coefficient of the next step: unchanged, or moved so that the KL nears `kl_target`."""
    if plan.kl_penalty == "fixed" or "kl_episode" not in metrics:
        return beta
    error = (metrics["kl_episode"] - plan.kl_target) / plan.kl_target
    return beta * (1 + KL_GAIN * min(MAX_KL_ERROR, max(-MAX_KL_ERROR, error)))
