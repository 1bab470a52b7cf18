"""What an episode was worth: advantages of groups (GRPO and its kin) and of turns over time (GAE).

    group_advantages([1.0, 0.0, 0.0, 1.0])           # +1, -1, -1, +1 : centred, divided by the deviation
    generalised([0.0, 1.0], [0.2, 0.5], 1.0, 0.95)   # one advantage and one return for each turn

Pure functions on plain numbers; which tokens an advantage goes to is decided where rows are made (`rollouts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Scale = Literal["deviation", "none"]
LEAST_SPREAD = 1e-6
"""A group whose rewards differ by less has no signal."""


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether the rewards of a group differ: where all episodes earn the same, there is nothing to learn from."""
    return len(rewards) > 1 and max(rewards) - min(rewards) > LEAST_SPREAD


def group_relative_advantages(
    rewards: Sequence[float], scale: Scale = "deviation", firsts: int | None = None
) -> list[float]:
    """Rewards of one group less their mean (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300, section 4.1.2).

    scale: `deviation` divides by the sample's standard deviation (n - 1) plus 1e-4, `none` leaves them (Liu et al. 2025, Dr. GRPO,
    arXiv:2503.20783: dividing favours tasks that are nearly always or nearly never solved). A group without signal gives zeros.
    firsts: how many rewards, from the front, make mean and deviation (none: all); the others are second tries, and are measured by
    them. Where the first ones are all the same, the deviation is that of all.
    """
    if not has_signal(rewards):
        return [0.0] * len(rewards)
    values = np.asarray(rewards, dtype=np.float64)
    centred, spread = (
        values - values[:firsts].mean(),
        values[:firsts] if has_signal(rewards[:firsts]) else values,
    )
    return [
        float(value)
        for value in (centred / (spread.std(ddof=1) + 1e-4) if scale == "deviation" else centred)
    ]


def compute_gae(
    rewards: Sequence[float], values: Sequence[float], discount: float, trace: float
) -> tuple[list[float], list[float]]:
    """Generalised advantage estimation over the turns of one episode (Schulman et al. 2016, arXiv:1506.02438).

    rewards[i] is earned by turn i, values[i] is the critic's guess before it; after the last turn nothing more is earned. Returns
    advantages and returns (advantage + value), both as long as `rewards`. discount is gamma, trace is lambda.
    """
    assert len(rewards) == len(values), f"{len(rewards)} rewards and {len(values)} values"
    advantages = [0.0] * len(rewards)
    running = 0.0
    for i in reversed(range(len(rewards))):
        following = values[i + 1] if i + 1 < len(values) else 0.0
        running = rewards[i] + discount * following - values[i] + discount * trace * running
        advantages[i] = running
    return advantages, [
        advantage + value for advantage, value in zip(advantages, values, strict=True)
    ]


def whiten(advantages: Sequence[float], middle: float | None = None) -> list[float]:
    """Advantages of a whole batch with mean 0 and deviation 1; a batch of one, or without spread, is only centred.

    middle: what is subtracted in place of the mean of all.
    """
    values = np.asarray(advantages, dtype=np.float64)
    if not len(values):
        return []
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    centred = values - (values.mean() if middle is None else middle)
    return [
        float(value) for value in (centred / (spread + 1e-8) if spread > LEAST_SPREAD else centred)
    ]
