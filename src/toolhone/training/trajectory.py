"""Turns of an episode for PPO: rewards per turn with the KL penalty, values, advantages.

paths = trajectories(groups, with_old, reference, beta, temperature, step)
advantages, metrics = turn_advantages(paths, critic, plan)
groups = rows_by_task(paths, advantages)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from toolhone.backends.base import Metrics, Sampler, Trainer
from toolhone.config.rl import PpoSection
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Array, Row
from toolhone.training.advantages import (
    compute_gae,
    group_relative_advantages,
    has_signal,
    leave_one_out_by_turn,
    leave_one_out_corrections,
    whiten,
)
from toolhone.training.critic import Critic, TurnState, turn_states
from toolhone.training.losses import MAX_LOG_RATIO
from toolhone.training.reference import with_group_references
from toolhone.training.rollout import RolloutGroup, rows_of, with_turn_advantages


@dataclass(frozen=True)
class Trajectory:
    """One episode as turns. lengths: sampled tokens, rewards, kl in nats: one number per turn.

    is_retry: a second try, which is measured against first tries and is no baseline itself.
    """

    task: str
    rows: list[Row]
    lengths: list[int]
    rewards: list[float]
    kl: list[float]
    states: list[TurnState]
    is_retry: bool = False

    def with_advantages(self, advantages: Sequence[float]) -> list[Row]:
        """The rows with each turn's advantage at every token sampled in it."""
        return with_turn_advantages(self.rows, self.lengths, advantages)


def trajectories(
    groups: Sequence[RolloutGroup],
    with_old: Callable[[Sequence[Sequence[Row]]], list[list[Row]]],
    reference: Sampler | None,
    beta: float,
    temperature: float,
    step: int,
) -> list[Trajectory]:
    """The episodes that did not fail, task by task, with the rewards of their turns.

    with_old: adds `old_logprobs`.
    """
    kept = [
        (group.task, episode, result, place >= group.first_tries)
        for group in (group.without_failures() for group in groups)
        for place, (episode, result) in enumerate(zip(group.episodes, group.results, strict=True))
    ]
    rows = [rows_of(episode, f"{task.id}#{step}") for task, episode, _, _ in kept]
    known, found = with_group_references(with_old(rows), reference, temperature), []
    for (task, episode, result, is_retry), with_ref in zip(kept, known, strict=True):
        lengths = [len(turn.tokens) for turn in episode.turns]
        kl = _kl_by_turn(with_ref, lengths) if reference is not None else [0.0] * len(lengths)
        rewards = penalised_rewards(result, kl, beta)
        states = turn_states(task, episode)
        found.append(Trajectory(task.id, with_ref, lengths, rewards, kl, states, is_retry))
    return found


def penalised_rewards(result: RewardResult, kl: Sequence[float], beta: float) -> list[float]:
    """What each turn adds to the reward, minus beta * KL of it (Ziegler et al. 2019, eq. 2).

    Without credit by turn the last one adds all of it.
    """
    last = len(kl) - 1
    added = result.turns or [result.total * (i == last) for i in range(len(kl))]
    return [reward - beta * nats for reward, nats in zip(added, kl, strict=True)]


def _kl_by_turn(rows: Sequence[Row], lengths: Sequence[int]) -> list[float]:
    """The sum of log p - log p_ref over the tokens sampled in each turn, in nats."""
    gaps = np.concatenate(
        [(row.arrays["old_logprobs"] - row.arrays["ref_logprobs"])[row.mask] for row in rows]
    ).astype(np.float64)
    ends = np.cumsum(lengths)
    return [float(gaps[end - n : end].sum()) for end, n in zip(ends, lengths, strict=True)]


def trajectory_kl(paths: Sequence[Trajectory]) -> Metrics:
    """`kl_reference`: k3 per token of the sampling policy; `kl_episode`: log-ratios per episode."""
    if not paths:
        return {}
    rows = [row for path in paths for row in path.rows]
    gaps = [(row.arrays["ref_logprobs"] - row.arrays["old_logprobs"])[row.mask] for row in rows]
    return {
        "kl_reference": _mean_k3(np.concatenate(gaps)),
        "kl_episode": float(np.mean([sum(path.kl) for path in paths])),
    }


def approx_kl(trainer: Trainer, groups: Sequence[Sequence[Row]], temperature: float) -> float:
    """The KL of the sampling policy to the policy now: k3 per token, in nats."""
    rows = [row for group in groups for row in group]
    now = trainer.logprobs(rows, temperature).result()
    gaps = [
        (values - row.arrays["old_logprobs"])[row.mask]
        for row, values in zip(rows, now, strict=True)
    ]
    return _mean_k3(np.concatenate(gaps)) if gaps else 0.0


def _mean_k3(gaps: Array) -> float:
    """The mean of exp(d) - d - 1 (Schulman 2020, joschu.net/blog/kl-approx.html); 0 without any."""
    bounded = np.clip(gaps.astype(np.float64), -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return float((np.exp(bounded) - bounded - 1).mean()) if len(bounded) else 0.0


def turn_advantages(
    paths: Sequence[Trajectory], critic: Critic | None, plan: PpoSection, by_turn: bool = False
) -> tuple[list[list[float]], Metrics]:
    """Advantages of each turn of each path, and how good the critic was.

    With a critic: GAE, whitened around the mean of first tries; all 0 where no two episodes earned
    differently, since whitening would only amplify the critic's errors.
    """
    if critic is None:
        advantages, metrics = group_advantages_of_turns(paths, by_turn), Metrics()
    else:
        advantages, metrics = gae_of_turns(paths, critic, plan)
    flat = [value for own in advantages for value in own]
    metrics["advantage_deviation"] = float(np.std(flat)) if flat else 0.0
    if critic is not None:
        both = zip(paths, advantages, strict=True)
        firsts = [value for path, own in both if not path.is_retry for value in own]
        mean = float(np.mean(firsts)) if firsts else None
        differs = has_signal([sum(path.rewards) for path in paths])
        white = iter(whiten(flat, mean) if differs else [0.0] * len(flat))
        advantages = [[next(white) for _ in own] for own in advantages]
    return advantages, metrics


def group_advantages_of_turns(
    paths: Sequence[Trajectory], by_turn: bool = False
) -> list[list[float]]:
    """For each turn, its episode's reward minus the mean of first tries at the same task; `by_turn`
    its return minus that of the others at the same turn (`leave_one_out_by_turn`).
    """
    tasks: dict[str, list[Trajectory]] = {}
    for path in paths:
        tasks.setdefault(path.task, []).append(path)
    found: dict[int, list[float]] = {}
    for group in tasks.values():
        group.sort(key=lambda path: path.is_retry)  # a step may hold several groups of a task
        firsts = sum(not path.is_retry for path in group)
        rewards = [path.rewards for path in group]
        if by_turn:
            each = leave_one_out_by_turn(rewards, "none", firsts)
        else:
            own = group_relative_advantages([sum(one) for one in rewards], "none", firsts)
            each = [[one] * len(turns) for one, turns in zip(own, rewards, strict=True)]
        found |= {id(path): one for path, one in zip(group, each, strict=True)}
    return [found[id(path)] for path in paths]


def gae_of_turns(
    paths: Sequence[Trajectory], critic: Critic, plan: PpoSection
) -> tuple[list[list[float]], Metrics]:
    """GAE with the critic's values, corrected by the group; then the critic fits the returns.

    It does not fit those of retries, which would raise what it expects of first tries.
    """
    states = [state for path in paths for state in path.states]
    if not states:
        return [], {}
    predicted = iter(critic.predict(states))
    values = [[next(predicted) for _ in path.rewards] for path in paths]
    surprises = [
        sum(plan.gamma**i * reward for i, reward in enumerate(path.rewards)) - own[0]
        for path, own in zip(paths, values, strict=True)
    ]
    shifts = leave_one_out_corrections(
        [path.task for path in paths], surprises, [path.is_retry for path in paths]
    )
    advantages, fitted = list[list[float]](), list[tuple[TurnState, float, float]]()
    for path, own, shift in zip(paths, values, shifts, strict=True):
        shifted = [value + shift for value in own]
        gained, returns = compute_gae(path.rewards, shifted, plan.gamma, plan.lam)
        advantages.append(gained)
        if not path.is_retry:
            fitted += zip(path.states, returns, own, strict=True)
    seen, targets, old = zip(*fitted, strict=True) if fitted else ((), (), ())
    return advantages, critic.fit(seen, targets, old)


def rows_by_task(
    paths: Sequence[Trajectory], advantages: Sequence[Sequence[float]]
) -> list[list[Row]]:
    """The rows of each task with advantages; tasks whose advantages are all 0 are left out."""
    groups: dict[str, list[Row]] = {}
    for path, own in zip(paths, advantages, strict=True):
        groups.setdefault(path.task, []).extend(path.with_advantages(own))
    return [rows for rows in groups.values() if any(row.arrays["advantages"].any() for row in rows)]
