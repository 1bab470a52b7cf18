"""GRPO: play each task several times, and raise the probability of what earned more than the others of its group.

    ending = grpo(trainer, stage, run)

One step: take a snapshot of the policy (when it is due); choose tasks; play a group of episodes of each; score them; centre each
group and drop those without signal (they stay where the KL counts); make rows; train, one or several passes in mini-batches;
log; evaluate and save when due. The loss is one of `policy_losses` (`training.rl.loss`), the advantages are those of `advantages`.
What replies may be given to begin with is said in `given`, what labels add to the gradient in `ptx`. Episodes that the program
broke off are left out of their group and counted. A resumed run takes up tasks, seeds, reference and optimiser where they stood.

Shao et al. 2024, DeepSeekMath, arXiv:2402.03300. Every logged number is explained in docs/algorithms/grpo.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from toolhone.backends.base import Metrics, Sampler, Trainer, random_stream
from toolhone.config.rl import RlSection
from toolhone.errors import ConfigError
from toolhone.rows import Row
from toolhone.runs.run import FINAL, Run
from toolhone.training.advantages import group_relative_advantages, has_signal
from toolhone.training.policy_losses import policy_loss, reply_shares, token_weights
from toolhone.training.prefill import prefill_metrics, rollout_step
from toolhone.training.ptx import ptx_pass
from toolhone.training.rl_metrics import (
    RLEnv,
    count_skipped_steps,
    mini_batches,
    next_tasks,
    report,
    rollout_metrics,
    sampler_gap,
    timed,
    update_means,
    with_ref_logprobs,
)
from toolhone.training.rollout import RolloutGroup
from toolhone.training.sft import (
    TrainStatus,
    due,
    optimizer_at,
    resume,
    save,
    stop_requested,
    validate,
)


def grpo(trainer: Trainer, stage: RLEnv, run: Run, resume_from: Path | None = None) -> TrainStatus:
    """Train on `stage.tasks`. The plan is `run.experiment.training`."""
    plan, seed = run.experiment.training, run.experiment.seed
    rl, total = (
        plan.rl,
        plan.steps or max(1, round(plan.epochs * len(stage.tasks) / plan.batch_size)),
    )
    if rl.group_size < 2:
        raise ConfigError(
            "training.method grpo compares the episodes of a task, and training.rl.group_size is 1; "
            "use group_size 2 or more, or training.method ppo"
        )
    state = resume(trainer, run, resume_from)
    stage.restore(run, resume_from)
    started, clock, scores, in_vain = time.monotonic() - state.seconds, stage.clock, "", 0
    sampler, taken = trainer.snapshot(), state.step
    stage.hooks.progress.start("training", total, state.step)
    with stop_requested() as stopping:
        while state.step < total and not stopping():
            step = state.step
            if step - taken >= rl.sampler_refresh_every:
                sampler, taken = trainer.snapshot(), step
            with clock.on("sample"):
                tasks = next_tasks(stage.tasks, plan.batch_size, seed, step)
                policy = stage.policy(sampler, seed * 1_000_003 + step)
                groups = rollout_step(stage, policy, tasks, rl, step)
            metrics = (
                rollout_metrics(groups)
                | prefill_metrics(groups, rl, step)
                | {"staleness": float(step - taken)}
            )
            whole = [group.whole() for group in groups]
            metrics["left_out"] = float(
                sum(len(a.episodes) - len(b.episodes) for a, b in zip(groups, whole, strict=True))
            )
            learned = [
                group
                for group in whole
                if has_signal(group.rewards) or (rl.beta and group.episodes)
            ]
            with clock.on("reference"):
                rows = _rows(learned, rl, stage.reference)
            if step == 0 and rows:
                metrics["sampler_gap"] = sampler_gap(
                    sampler, [row for group in rows for row in group], rl.temperature
                )
            with clock.on("train"):
                metrics |= _learn(trainer, rows, stage, run, step, total)
            in_vain = count_skipped_steps(metrics, in_vain)
            state.step += 1
            stage.observe(state.step, metrics)
            stage.remember(state)
            state.seconds = time.monotonic() - started
            stage.hooks.progress.advance(1, f"reward {metrics['reward']:.3f}  {scores}")
            report(timed(metrics, clock), groups, state, total, run, stage)
            if due(state.step, plan.save_every, total):
                save(f"checkpoint_step_{state.step}", state, run, stage.hooks)
                taken = (
                    -rl.sampler_refresh_every
                )  # a run that goes on from here takes a fresh snapshot; so does this one
            if due(state.step, plan.validate_every, total):
                scores = validate(trainer, (), state, run, stage.hooks)
        stopped = stopping()
    if stopped and state.step < total:
        save(f"checkpoint_step_{state.step}", state, run, stage.hooks)
        return TrainStatus.INTERRUPTED
    save(FINAL, state, run, stage.hooks, optimizer=False)
    return TrainStatus.FINISHED_ON_REQUEST if stopped else TrainStatus.FINISHED


def _rows(
    groups: Sequence[RolloutGroup], rl: RlSection, reference: Sampler | None
) -> list[list[Row]]:
    """The rows of each group, with advantages and, where the KL counts, the reference's log-probabilities."""
    rows = []
    for group in groups:
        advantages = group_relative_advantages(
            group.rewards, "none" if rl.loss == "dr_grpo" else rl.scale_rewards, group.firsts
        )
        rows.append(with_ref_logprobs(group.rows(advantages), reference, rl.temperature))
    return rows


def _learn(
    trainer: Trainer, groups: Sequence[Sequence[Row]], stage: RLEnv, run: Run, step: int, total: int
) -> Metrics:
    """All passes over the rows of a step; means per token, and the last gradient norm."""
    plan = run.experiment.training
    rl, sums, updates = plan.rl, Metrics(), 0
    loss = policy_loss(rl.loss, rl.epsilon, rl.epsilon_high or rl.epsilon, rl.beta, rl.temperature)
    for epoch in range(rl.inner_epochs):
        order = random_stream(run.experiment.seed, 11, step, epoch)
        for rows in mini_batches(groups, rl.mini_batch_size, order):
            weights, shares = (
                token_weights(rl.loss, rows, rl.max_completion_length),
                reply_shares(rows),
            )
            batch = [
                row.with_arrays(weights=w, share=s)
                for row, w, s in zip(rows, weights, shares, strict=True)
            ]
            got = trainer.forward_backward(batch, loss).result()
            got |= ptx_pass(trainer, stage.labelled, rl.ptx, run.experiment.seed, step, updates)
            got |= trainer.optim_step(optimizer_at(plan, step, total)).result()
            updates += 1
            for name, value in got.items():
                sums[name] = sums.get(name, 0.0) + value
    return update_means(sums, updates)
