"""PPO: play tasks, guess turn by turn what was to be expected, and raise the probability of what did better.

    ending = ppo(trainer, stage, run)

One step: take a snapshot of the policy (when it is due); choose tasks; play them; score the episodes, the reward at the last turn,
less a penalty at every turn for leaving the reference; let the critic guess each turn's value, take advantages over turns (GAE) and
let the critic learn; train the policy in mini-batches, pass after pass, until all are done or it has moved too far; steer the
penalty; log; evaluate and save when due. With `training.rl.ppo.critic: none` an episode's advantage is its reward less the mean of
its group, in all turns: what is left of PPO where there is no critic, as in the Tinker service's own `ppo` loss.

Schulman et al. 2017, arXiv:1707.06347; for language models Ziegler et al. 2019, arXiv:1909.08593. Every logged number is explained
in docs/algorithms/ppo.md. The loss is the clipped one of `policy_losses`, labels add what `ptx` says; a resumed run goes on with
its critic and its penalty.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.backends.base import Loss, Metrics, Sampler, Trainer, random_stream
from toolhone.config.rl import PpoSection, RlSection
from toolhone.config.sections import TrainingSection
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, RunError
from toolhone.rows import Array, Row
from toolhone.runs.run import FINAL, Run
from toolhone.training.advantages import compute_gae, has_signal, whiten
from toolhone.training.critic import Critic, TurnState, open_critic, turn_states
from toolhone.training.policy_losses import MOST, policy_loss, token_weights
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
from toolhone.training.rollout import RolloutGroup, rows_of
from toolhone.training.sft import (
    TrainState,
    TrainStatus,
    due,
    optimizer_at,
    resume,
    save,
    stop_requested,
    validate,
)

GAIN, MOST_ERROR = 0.1, 0.2
"""How an adaptive penalty is steered (Ziegler et al. 2019, section 2.2): by `GAIN` times the relative error, which is bounded."""


@dataclass
class PpoState(TrainState):
    """What a checkpoint of PPO must remember: also the critic, and the penalty's present weight."""

    beta: float = 0.0
    critic: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """One episode on its way to rows. `rewards`: one number for each turn; `kl`: nats from the reference, one for each turn.

    again: whether it is a second try, which is measured by first tries and measures none.
    """

    task: str
    rows: list[Row]
    lengths: list[int]
    rewards: list[float]
    kl: list[float]
    moments: list[TurnState]
    again: bool = False

    def with_advantages(self, advantages: Sequence[float]) -> list[Row]:
        """The rows with each turn's advantage at every token that was sampled in it."""
        each, start, rows = np.repeat(np.asarray(advantages, np.float32), self.lengths), 0, []
        for row in self.rows:
            values, count = np.zeros(len(row), np.float32), int(row.mask.sum())
            values[row.mask] = each[start : start + count]
            start += count
            rows.append(row.with_arrays(advantages=values))
        return rows


def ppo(trainer: Trainer, stage: RLEnv, run: Run, resume_from: Path | None = None) -> TrainStatus:
    """Train on `stage.tasks`. The plan is `run.experiment.training`."""
    plan, seed = run.experiment.training, run.experiment.seed
    rl, total = (
        plan.rl,
        plan.steps or max(1, round(plan.epochs * len(stage.tasks) / plan.batch_size)),
    )
    _refuse(rl, stage)
    critic = open_critic(trainer, rl.ppo)
    state = _resume(trainer, critic, run, resume_from)
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
            metrics = rollout_metrics(groups) | prefill_metrics(groups, rl, step)
            metrics |= {"staleness": float(step - taken), "beta": state.beta}
            with clock.on("reference"):
                lines = _lines(groups, stage.reference, state.beta, rl.temperature, metrics)
            if step == 0:
                metrics["sampler_gap"] = sampler_gap(
                    sampler, [row for line in lines for row in line.rows], rl.temperature
                )
            with clock.on("critic"):
                rows, learned = _judged(lines, critic, rl.ppo)
            with clock.on("train"):
                metrics |= learned | _learn(trainer, rows, stage, run, step, total)
            state.beta, state.critic = (
                adapt_kl_coef(state.beta, metrics, rl.ppo),
                {} if critic is None else critic.state(),
            )
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


def _refuse(rl: RlSection, stage: RLEnv) -> None:
    """Settings from which nothing can be learned."""
    if rl.ppo.critic == "none" and rl.group_size < 2:
        raise ConfigError(
            "training.rl.ppo.critic 'none' compares the episodes of a task, and training.rl.group_size is 1; "
            "use group_size 2 or more, or critic 'regression'"
        )
    assert (stage.reference is not None) == (rl.beta > 0), (
        "a reference is kept where, and only where, the KL to it counts"
    )


def _resume(trainer: Trainer, critic: Critic | None, run: Run, folder: Path | None) -> PpoState:
    """The state that a checkpoint noted, with weights, optimiser and critic taken; a new one without a folder."""
    plain = resume(trainer, run, folder)
    if folder is None:
        return PpoState(beta=run.experiment.training.rl.beta)
    saved = run.state(folder)
    missing = [name for name in ("beta", "critic") if name not in saved]
    if missing:
        raise RunError(
            f"{folder}/state.json lacks {', '.join(missing)}; it is no checkpoint of PPO"
        )
    if critic is not None and saved["critic"]:
        critic.load_state(saved["critic"])
    return PpoState(**vars(plain), beta=saved["beta"], critic=saved["critic"])


def _lines(
    groups: Sequence[RolloutGroup],
    reference: Sampler | None,
    beta: float,
    temperature: float,
    metrics: Metrics,
) -> list[Trajectory]:
    """The episodes that the policy can learn from, those of a task together, with their turns' rewards.

    Left out, and counted in `left_out`, are episodes that the program broke off. Adds what it finds to the metrics.
    """
    whole = [group.whole() for group in groups]
    kept = [
        (group.task, episode, paid, place >= group.firsts)
        for group in whole
        for place, (episode, paid) in enumerate(zip(group.episodes, group.paid, strict=True))
    ]
    metrics["left_out"] = float(sum(len(group.episodes) for group in groups) - len(kept))
    rows = [rows_of(episode) for _, episode, _, _ in kept]
    known = iter(with_ref_logprobs([row for own in rows for row in own], reference, temperature))
    lines = []
    for (task, episode, paid, again), own in zip(kept, rows, strict=True):
        referred = [next(known) for _ in own]
        lengths = [len(turn.tokens) for turn in episode.turns]
        kl = _by_turn(referred, lengths) if reference is not None else [0.0] * len(lengths)
        rewards = turn_rewards(episode, paid.total, kl, beta)
        lines.append(
            Trajectory(task.id, referred, lengths, rewards, kl, turn_states(task, episode), again)
        )
    if reference is not None and lines:
        metrics |= _distance(lines)
    return lines


def turn_rewards(episode: Episode, reward: float, kl: Sequence[float], beta: float) -> list[float]:
    """The reward at the last turn, less beta times each turn's KL to the reference (Ziegler et al. 2019, equation 2)."""
    last = len(episode.turns) - 1
    return [reward * (i == last) - beta * nats for i, nats in enumerate(kl)]


def _by_turn(rows: Sequence[Row], lengths: Sequence[int]) -> list[float]:
    """The sum of log p - log p_reference over the tokens sampled in each turn, in nats."""
    gaps = np.concatenate(
        [(row.arrays["behavior_logprobs"] - row.arrays["ref_logprobs"])[row.mask] for row in rows]
    ).astype(np.float64)
    ends = np.cumsum(lengths)
    return [
        float(gaps[end - length : end].sum()) for end, length in zip(ends, lengths, strict=True)
    ]


def _distance(lines: Sequence[Trajectory]) -> Metrics:
    """How far the sampling policy is from the reference: k3 per token, and the sum of log-ratios per episode."""
    kept = [row for line in lines for row in line.rows]
    gaps = np.concatenate(
        [(row.arrays["ref_logprobs"] - row.arrays["behavior_logprobs"])[row.mask] for row in kept]
    )
    return {
        "kl_reference": _k3(gaps),
        "kl_episode": float(np.mean([sum(line.kl) for line in lines])),
    }


def _k3(gaps: Array) -> float:
    """The mean of exp(d) - d - 1 over tokens (Schulman 2020, joschu.net/blog/kl-approx.html); 0 without any."""
    bounded = np.clip(gaps.astype(np.float64), -MOST, MOST)
    return float((np.exp(bounded) - bounded - 1).mean()) if len(bounded) else 0.0


def _judged(
    lines: Sequence[Trajectory], critic: Critic | None, plan: PpoSection
) -> tuple[list[list[Row]], Metrics]:
    """The rows of each task with advantages, and what the critic is worth. No rows where nothing can be told apart."""
    if critic is None:
        advantages, metrics = _within_groups(lines), Metrics()
    else:
        advantages, metrics = _over_time(lines, critic, plan)
    flat = [value for own in advantages for value in own]
    metrics["advantage_deviation"] = float(np.std(flat)) if flat else 0.0
    if critic is not None:
        firsts = [
            value
            for line, own in zip(lines, advantages, strict=True)
            if not line.again
            for value in own
        ]
        middle = float(np.mean(firsts)) if firsts else None
        fair = iter(whiten(flat, middle) if _told_apart(lines) else [0.0] * len(flat))
        advantages = [[next(fair) for _ in own] for own in advantages]
    groups: dict[str, list[Row]] = {}
    for line, own in zip(lines, advantages, strict=True):
        groups.setdefault(line.task, []).extend(line.with_advantages(own))
    return [
        rows for rows in groups.values() if any(row.arrays["advantages"].any() for row in rows)
    ], metrics


def _told_apart(lines: Sequence[Trajectory]) -> bool:
    """Whether any two episodes earned differently; where none did, whitening would only make the critic's errors large."""
    return has_signal([sum(line.rewards) for line in lines])


def _within_groups(lines: Sequence[Trajectory]) -> list[list[float]]:
    """For each turn, what its episode earned less the mean of the (first) episodes of the same task."""
    earned: dict[str, list[float]] = {}
    for line in lines:
        if not line.again:
            earned.setdefault(line.task, []).append(sum(line.rewards))
    found = []
    for line in lines:
        own, reward = earned[line.task], sum(line.rewards)
        advantage = reward - float(np.mean(own)) if has_signal([*own, reward]) else 0.0
        found.append([advantage] * len(line.rewards))
    return found


def _over_time(
    lines: Sequence[Trajectory], critic: Critic, plan: PpoSection
) -> tuple[list[list[float]], Metrics]:
    """GAE over the turns of each episode with the critic's guesses, corrected by its group; then the critic learns the returns.

    It does not learn those of second tries, from which it would expect more of the first.
    """
    moments = [moment for line in lines for moment in line.moments]
    if not moments:
        return [], {}
    guessed = critic.predict(moments)
    told = iter(guessed)
    values = [[next(told) for _ in line.rewards] for line in lines]
    advantages, seen = list[list[float]](), list[tuple[TurnState, float, float]]()
    for line, guesses, shift in zip(
        lines, values, corrections(lines, values, plan.gamma), strict=True
    ):
        own, wanted = compute_gae(
            line.rewards, [guess + shift for guess in guesses], plan.gamma, plan.lam
        )
        advantages.append(own)
        seen += [] if line.again else zip(line.moments, wanted, guesses, strict=True)
    return advantages, critic.fit(
        [moment for moment, _, _ in seen],
        [earned for _, earned, _ in seen],
        [old for _, _, old in seen],
    )


def corrections(
    lines: Sequence[Trajectory], values: Sequence[Sequence[float]], gamma: float
) -> list[float]:
    """For each episode, by how much the other first tries at the same task earned more than the critic had guessed.

    The sum of what n others show is divided by n + 1: the critic's own word counts for one episode. An episode does not correct
    itself, so this is a baseline as good as any (leave one out; Kool et al. 2019, "Buy 4 REINFORCE samples"); alone it gets 0.
    """
    surprises = [
        sum(gamma**i * reward for i, reward in enumerate(line.rewards)) - own[0]
        for line, own in zip(lines, values, strict=True)
    ]
    sums, counts = dict[str, float](), Counter(line.task for line in lines if not line.again)
    for line, surprise in zip(lines, surprises, strict=True):
        sums[line.task] = sums.get(line.task, 0.0) + surprise * (not line.again)
    return [
        (sums[line.task] - surprise * (not line.again)) / (counts[line.task] + line.again)
        for line, surprise in zip(lines, surprises, strict=True)
    ]


def clipped_loss(rl: RlSection) -> Loss:
    """PPO's: min(r A, clip(r) A), the mean over tokens. It goes by its own name, for backends that have it built in."""
    loss = policy_loss("dapo", rl.epsilon, rl.epsilon_high or rl.epsilon, 0.0, rl.temperature)
    return Loss("ppo", loss.fn, loss.config, loss.temperature)


def _learn(
    trainer: Trainer, groups: Sequence[Sequence[Row]], stage: RLEnv, run: Run, step: int, total: int
) -> Metrics:
    """Passes over the rows of a step until all are done or the policy has moved too far; means, and how many passes there were."""
    plan = run.experiment.training
    sums, updates, passes, moved = Metrics(), 0, 0, Metrics()
    for epoch in range(plan.rl.inner_epochs if groups else 0):
        order = random_stream(run.experiment.seed, 11, step, epoch)
        for rows in mini_batches(groups, plan.rl.mini_batch_size, order):
            ptx = ptx_pass(trainer, stage.labelled, plan.rl.ptx, run.experiment.seed, step, updates)
            got = ptx | _update(trainer, rows, plan, step, total)
            updates += 1
            for name, value in got.items():
                sums[name] = sums.get(name, 0.0) + value
        passes += 1
        limit = plan.rl.ppo.target_kl
        if limit is not None and passes < plan.rl.inner_epochs:
            moved = {"kl_moved": approx_kl(trainer, groups, plan.rl.temperature)}
            if moved["kl_moved"] > limit:
                break
    early = float(bool(groups) and passes < plan.rl.inner_epochs)
    return update_means(sums, updates) | moved | {"passes": float(passes), "stopped_early": early}


def _update(
    trainer: Trainer, rows: Sequence[Row], plan: TrainingSection, step: int, total: int
) -> Metrics:
    """One optimiser step."""
    weights = token_weights("dapo", rows, plan.rl.max_completion_length)
    batch = [row.with_arrays(weights=own) for row, own in zip(rows, weights, strict=True)]
    got = trainer.forward_backward(batch, clipped_loss(plan.rl)).result()
    return got | trainer.optim_step(optimizer_at(plan, step, total)).result()


def approx_kl(trainer: Trainer, groups: Sequence[Sequence[Row]], temperature: float) -> float:
    """How far the policy has moved from the one that sampled: k3 per token, in nats."""
    rows = [row for group in groups for row in group]
    now = trainer.snapshot().logprobs(rows, temperature)
    gaps = [
        (values - row.arrays["behavior_logprobs"])[row.mask]
        for row, values in zip(rows, now, strict=True)
    ]
    return _k3(np.concatenate(gaps)) if gaps else 0.0


def adapt_kl_coef(beta: float, metrics: Metrics, plan: PpoSection) -> float:
    """The penalty's weight for the next step: as it was, or moved towards `kl_target` (Ziegler et al. 2019, section 2.2)."""
    if plan.kl_penalty == "fixed" or "kl_episode" not in metrics:
        return beta
    error = (metrics["kl_episode"] - plan.kl_target) / plan.kl_target
    return beta * (1 + GAIN * min(MOST_ERROR, max(-MOST_ERROR, error)))
