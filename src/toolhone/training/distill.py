"""On-policy distillation: a teacher judges every token of the student's own replies.

    status = distill(trainer, env, run, checkpoint)

The student's samples learn by the reverse KL to the teacher, estimated at the sampled tokens, as in
GKD (Agarwal et al. 2024, arXiv:2306.13649); the teacher's own replies are learned as in SFT beside.
With `training.bake` the student's prompts show less and less. docs/algorithms/distill.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from toolhone.backends.base import Metrics, Sampler, Trainer
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import ToolDetail
from toolhone.episodes.policy import KnownTools, TokenPolicy
from toolhone.rows import Row
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.training.local_teacher import LocalTeacher, TurnIds, replies_of, rows_behind
from toolhone.training.loop import Loop, TrainState, TrainStatus, resume
from toolhone.training.losses import cross_entropy, policy_loss
from toolhone.training.reference import with_old_logprobs
from toolhone.training.rl_metrics import Trend, report_rl, rollout_metrics, update_means
from toolhone.training.rollout import RLEnv, RolloutGroup, rollout, rows_of, score
from toolhone.training.update import (
    TASK_ORDER,
    optimizer_at,
    planned_rl_steps,
    seeded_batch,
    with_loss_weights,
    with_token_weights,
)


@dataclass(frozen=True)
class DistillEnv:
    """The student's episodes, the teacher, and the tools whose prompt `training.bake` shortens."""

    episodes: RLEnv
    teacher: LocalTeacher
    known: KnownTools

    def policy(self, sampler: Sampler, seed: int, detail: ToolDetail) -> TokenPolicy:
        """The student, whose prompts show the known tools in this detail."""
        return self.episodes.policy(sampler, seed).showing(replace(self.known, detail=detail))


Seen = tuple[ToolDetail, list[Task]]
"""Tasks, and what their prompt shows the student of the known tools."""


def distill(
    trainer: Trainer, env: DistillEnv, run: Run, resume_from: Path | None = None
) -> TrainStatus:
    """Train on the tasks of the environment as `run.experiment.training` plans."""
    experiment, plan = run.experiment, run.experiment.training
    total, clock = planned_rl_steps(plan, len(env.episodes.tasks)), env.episodes.clock
    state = resume(trainer, run, resume_from, TrainState())
    loop, trend = Loop(trainer, run, env.episodes.hooks, total, state), Trend(experiment)
    for step in loop:
        sampler = loop.sampler(every=plan.rl.sampler_refresh_every)
        tasks = seeded_batch(env.episodes.tasks, plan.batch_size, experiment.seed, step, TASK_ORDER)
        seen = parts_of(tasks, experiment, step / total)
        with clock.on("sample"):
            groups = play(env, sampler, seen, experiment, step) if plan.distill.samples else []
        with clock.on("teacher"):
            own = partial(
                with_old_logprobs, sampler=sampler, trainer=trainer, temperature=plan.rl.temperature
            )
            sampled, divergence = judged_rows(env.teacher, groups, plan.rl.temperature, step, own)
            answers = env.teacher.answers(tasks) if plan.distill.answers else {}
            shown = [
                row
                for detail, some in seen
                for row in answer_rows(env.policy(sampler, 0, detail), some, answers)
            ]
        with clock.on("train"):
            metrics = learn(trainer, sampled, shown, experiment, step, total)
        learned = {name: metrics[name] for name in ("answers_loss",) if name in metrics}
        metrics = update_means([metrics], loop.snapshot_age) | learned | divergence
        if groups:
            metrics |= rollout_metrics(groups) | {"prompt_tokens": prompt_tokens(groups)}
        loop.finish_step(f"reverse KL {metrics['reverse_kl']:.3f}")
        report_rl(loop, env.episodes, trend, metrics, groups)
    return loop.status


def parts_of(tasks: list[Task], plan: Experiment, done: float) -> list[Seen]:
    """The tasks of a step by what their prompt shows; `done` is the share of steps so far."""
    bake = plan.training.bake
    if bake is None:
        return [(ToolDetail.FULL, tasks)]
    kept = round(bake.keep * len(tasks))
    parts = [(ToolDetail.FULL, tasks[:kept]), (bake.detail(done), tasks[kept:])]
    return [(detail, some) for detail, some in parts if some]


def play(
    env: DistillEnv, sampler: Sampler, seen: Sequence[Seen], plan: Experiment, step: int
) -> list[RolloutGroup]:
    """The student's scored episodes of all parts."""
    groups = []
    for number, (detail, tasks) in enumerate(seen):
        policy = partial(env.policy, detail=detail)
        part = replace(env.episodes, policy=policy)
        groups += score(rollout(part, sampler, tasks, plan, 2 * step + number), part)
    return groups


def judged_rows(
    teacher: LocalTeacher,
    groups: Sequence[RolloutGroup],
    temperature: float,
    step: int,
    with_old: Callable[[Sequence[Sequence[Row]]], Sequence[Sequence[Row]]] = list,
) -> tuple[list[Row], Metrics]:
    """The rows of the student's samples; the advantage of a token is log q - log p, by the teacher
    and by the student that sampled it (`old_logprobs`, which `with_old` may set).

    The expected gradient of -(log q - log p) log p over p is that of KL(p || q) at each token.
    Metrics: `reverse_kl`, the mean of log p - log q over the sampled tokens, in nats; `beyond`,
    episodes that do not fit the teacher's context.
    """
    kept = [
        (group.task, episode)
        for group in groups
        for episode in group.without_failures().episodes
        if episode.turns
    ]
    judged = teacher.logprobs([(task, replies_of(one)) for task, one in kept], temperature)
    fits = [(pair, values) for pair, values in zip(kept, judged, strict=True) if values is not None]
    rows, gaps, beyond = list[Row](), list[np.ndarray](), len(kept) - len(fits)
    each = with_old([rows_of(episode, f"{task.id}#{step}") for (task, episode), _ in fits])
    for played, (_, values) in zip(each, fits, strict=True):
        start = 0
        for row in played:
            count, advantages = int(row.mask.sum()), np.zeros(len(row), np.float32)
            own = row.arrays["old_logprobs"][row.mask]
            advantages[row.mask] = values[start : start + count] - own
            gaps.append(-advantages[row.mask])
            start += count
            rows.append(row.with_arrays(advantages=advantages))
    mean = float(np.concatenate(gaps).mean()) if gaps else 0.0
    return rows, {"reverse_kl": mean, "beyond": float(beyond)}


def answer_rows(
    student: TokenPolicy, tasks: Sequence[Task], answers: dict[str, list[TurnIds]]
) -> list[Row]:
    """The teacher's replies behind the prompts that the student sees."""
    return [
        row
        for task in tasks
        if task.id in answers
        for row in rows_behind(student, task, answers[task.id])
    ]


def learn(
    trainer: Trainer,
    sampled: Sequence[Row],
    answers: Sequence[Row],
    experiment: Experiment,
    step: int,
    total: int,
) -> Metrics:
    """One optimizer step on the student's samples and the teacher's replies; their sums."""
    plan, own = experiment.training, experiment.training.distill
    rl, batches = plan.rl, []
    upper = rl.epsilon_high or rl.epsilon
    if sampled and own.samples:
        weighed = with_loss_weights("dapo", rl.max_completion_length, sampled)
        loss = policy_loss("dapo", rl.epsilon, upper, 0.0, rl.temperature)
        batches.append((loss, scaled(weighed, own.samples)))
    if answers and own.answers:
        batches.append((cross_entropy(), scaled(with_token_weights(answers), own.answers)))
    if not batches:
        return Metrics(updates=0.0)
    pending = [trainer.forward_backward(rows, loss) for loss, rows in batches]
    stepped = trainer.optim_step(optimizer_at(plan, step, total))
    found, whole = Metrics(updates=1.0), 0.0
    for (loss, _), one in zip(batches, pending, strict=True):
        metrics, whole = one.result(), whole + one.result()["loss"]
        tokens = max(1.0, metrics["tokens"])
        if loss.name == "cross_entropy":
            found["answers_loss"] = metrics["nll"] / tokens
        else:
            found |= metrics | {"sampler_gap": metrics.pop("behavior_gap") / tokens}
    return found | {"loss": whole} | stepped.result()


def prompt_tokens(groups: Sequence[RolloutGroup]) -> float:
    """The mean number of tokens that the student read before its first reply."""
    turns = [episode.turns[0] for group in groups for episode in group.episodes if episode.turns]
    return float(np.mean([len(turn.prompt) for turn in turns])) if turns else 0.0


def scaled(rows: Sequence[Row], factor: float) -> list[Row]:
    """The rows with their weights times a factor."""
    return [row.with_arrays(weights=row.arrays["weights"] * np.float32(factor)) for row in rows]
