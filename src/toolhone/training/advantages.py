"""Advantages: of the episodes of a group (GRPO) and of turns over time (GAE). Plain numbers only.

group_relative_advantages([1.0, 0.0, 0.0, 1.0])   # about +0.87, -0.87, -0.87, +0.87
compute_gae(rewards=[0.0, 1.0], values=[0.2, 0.5], gamma=1.0, lam=0.95)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

Scale = Literal["deviation", "none"]
MIN_SPREAD = 1e-6
"""A group whose rewards differ by less has no signal."""


def has_signal(rewards: Sequence[float]) -> bool:
    """Tell whether the rewards of a group differ."""
    return len(rewards) > 1 and max(rewards) - min(rewards) > MIN_SPREAD


def group_relative_advantages(
    rewards: Sequence[float], scale: Scale = "deviation", baseline: int | None = None
) -> list[float]:
    """Rewards of one group minus their mean (Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    scale: `deviation` divides by the sample standard deviation (n - 1) plus 1e-4; `none` does not
    (Liu et al. 2025, Dr. GRPO, arXiv:2503.20783). baseline: how many rewards, from the front, give
    mean and deviation (None: all); the others are retries. Where the first ones are all equal, the
    deviation is that of all. A group without signal, or without a baseline, gives zeros.
    """
    if not has_signal(rewards) or baseline == 0:
        return [0.0] * len(rewards)
    values = np.asarray(rewards, dtype=np.float64)
    centred = values - values[:baseline].mean()
    if scale == "deviation":
        spread = values[:baseline] if has_signal(rewards[:baseline]) else values
        centred = centred / (spread.std(ddof=1) + 1e-4)
    return [float(value) for value in centred]


def leave_one_out_by_turn(
    rewards: Sequence[Sequence[float]], scale: Scale = "none", baseline: int | None = None
) -> list[list[float]]:
    """For each turn of each episode, its return minus that of the other episodes at that turn.

    rewards[i][t] is what turn t of episode i adds; the return of a turn is the sum from it on, 0
    after the end. The baseline is the mean over the other episodes among the first `baseline`
    (None: all), which depends on nothing that episode i samples, so the estimate of the gradient is
    unbiased (leave one out, as in Kool et al. 2019, turn by turn). scale: `deviation` divides by
    that of the episodes' totals, as GRPO does, which is no longer unbiased.
    """
    longest = max(map(len, rewards), default=0)
    returns = np.zeros((len(rewards), longest))
    for row, own in zip(returns, rewards, strict=True):
        row[: len(own)] = np.cumsum(own[::-1])[::-1]
    firsts = returns[:baseline]
    spread = 1.0
    if scale == "deviation" and longest and has_signal([float(one) for one in firsts[:, 0]]):
        spread = float(firsts[:, 0].std(ddof=1)) + 1e-4
    found = []
    for place, own in enumerate(rewards):
        others = np.delete(firsts, place, axis=0) if place < len(firsts) else firsts
        centred = returns[place] - others.mean(axis=0) if len(others) else np.zeros(longest)
        found.append([float(value) for value in centred[: len(own)] / spread])
    return found


def compute_gae(
    rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float
) -> tuple[list[float], list[float]]:
    """GAE over the turns of an episode (Schulman et al. 2016, arXiv:1506.02438).

    rewards[i] is earned by turn i, values[i] is the critic's prediction before it; nothing is
    earned after the last turn. Returns advantages and returns (advantage + value).
    """
    assert len(rewards) == len(values), f"{len(rewards)} rewards and {len(values)} values"
    advantages = [0.0] * len(rewards)
    running = 0.0
    for i in reversed(range(len(rewards))):
        following = values[i + 1] if i + 1 < len(values) else 0.0
        running = rewards[i] + gamma * following - values[i] + gamma * lam * running
        advantages[i] = running
    return advantages, [a + value for a, value in zip(advantages, values, strict=True)]


def whiten(advantages: Sequence[float], mean: float | None = None) -> list[float]:
    """Advantages of a batch with mean 0 and deviation 1; without spread they are only centred.

    mean: what is subtracted instead of the mean of all.
    """
    values = np.asarray(advantages, dtype=np.float64)
    if not len(values):
        return []
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    centred = values - (values.mean() if mean is None else mean)
    return [float(one) for one in (centred / (spread + 1e-8) if spread > MIN_SPREAD else centred)]


def leave_one_out_corrections(
    tasks: Sequence[str], surprises: Sequence[float], is_retry: Sequence[bool]
) -> list[float]:
    """For each episode, by how much other first tries at its task beat the critic's prediction.

    surprises: return minus the critic's first value. The sum over n other episodes is divided by
    n + 1: the critic counts as one episode. An episode never corrects itself, so the baseline stays
    unbiased (leave one out; Kool et al. 2019, "Buy 4 REINFORCE Samples"); alone it gets 0.
    """
    sums, counts = dict[str, float](), Counter[str]()
    for task, surprise, retry in zip(tasks, surprises, is_retry, strict=True):
        sums[task] = sums.get(task, 0.0) + surprise * (not retry)
        counts[task] += not retry
    return [
        (sums[task] - surprise * (not retry)) / (counts[task] + retry)
        for task, surprise, retry in zip(tasks, surprises, is_retry, strict=True)
    ]
