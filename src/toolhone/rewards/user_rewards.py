"""Rewards by name, and what an episode earns: those of the library, and the user's own from a file or module.

    (reward, own) = load_rewards(["tool_use", "mine.py:polite"], [1.0, 0.2])
    own.function(task, episode)                # {"polite": 1.0, "brief": 0.5}, or a number
    paid = pay([reward, own], task, episode)
    paid.total, paid.parts                     # 1.3, {"tool_use.tools": 0.3, ..., "polite.polite": 1.0, "polite.brief": 0.5}

A reward gives a finite number, or a mapping of named parts whose sum it is. The total is the weighted sum. What a reward may use:
the task (`schema.Task`) and everything that was said and done (`episodes.episode.Episode`). It must not change them, and must not
depend on the time or on chance. A reward that fails, or gives something else, stops with a sentence that names it and the task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolhone.config.user_code import import_callable, is_user_code
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, nearest
from toolhone.rewards.registry import LIBRARY
from toolhone.rewards.reward_spec import Function
from toolhone.schema import Task

PENALTY = 0.5
"""Off the total for each turn for which an episode's rules say `penalise`, where nothing else is said."""


@dataclass(frozen=True)
class Reward:
    """A reward with its name (that of the library, or of the function) and its weight in the total."""

    name: str
    function: Function
    weight: float = 1.0


@dataclass(frozen=True)
class RewardResult:
    """What an episode earned: the weighted total, and every part as it was given, unweighted."""

    total: float
    parts: Mapping[str, float]


def load_rewards(specs: Sequence[str], weights: Sequence[float] = ()) -> list[Reward]:
    """The rewards of these names (of the library, `file.py:function`, `package.module:function`); no weights: 1 each."""
    rewards = [
        _load(spec, weight)
        for spec, weight in zip(specs, weights or [1.0] * len(specs), strict=True)
    ]
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two rewards are named {name!r}; their parts are told apart by name, so rename one function"
            )
    return rewards


def _load(spec: str, weight: float) -> Reward:
    if spec in LIBRARY:
        return Reward(spec, LIBRARY[spec].function, weight)
    if is_user_code(spec):
        return Reward(
            spec.rpartition(":")[2], import_callable(spec, Path.cwd(), "a reward"), weight
        )
    raise ConfigError(
        f"there is no reward {spec!r}{nearest(spec, LIBRARY)}; known: {', '.join(LIBRARY)}, and your own as 'file.py:function'"
    )


def compute_reward(
    rewards: Sequence[Reward], task: Task, episode: Episode, penalty: float = PENALTY
) -> RewardResult:
    """The total and the parts of one episode. Turns that its rules penalise cost `penalty` each, as the part of that name."""
    total, parts = 0.0, dict[str, float]()
    if episode.penalties:
        total = parts["penalty"] = -penalty * episode.penalties
    for reward in rewards:
        given = _given(reward, task, episode)
        total += reward.weight * sum(given.values())
        parts |= {
            reward.name if not name else f"{reward.name}.{name}": value
            for name, value in given.items()
        }
    return RewardResult(total, parts)


def _given(reward: Reward, task: Task, episode: Episode) -> dict[str, float]:
    try:
        value: object = reward.function(task, episode)
    except Exception as error:
        raise ConfigError(
            f"the reward {reward.name!r} failed on the task {task.id!r}: {type(error).__name__}: {error}"
        ) from error
    parts: Mapping[object, object] = value if isinstance(value, Mapping) else {"": value}
    return {str(name): _number(reward, str(name), part, task) for name, part in parts.items()}


def _number(reward: Reward, name: str, part: object, task: Task) -> float:
    number = float(part) if isinstance(part, int | float | np.number) else math.nan
    if not math.isfinite(number):
        where = f"part {name!r} of " if name else ""
        raise ConfigError(
            f"{where}the reward {reward.name!r} must be a finite number; on the task {task.id!r} it is {part!r:.80}"
        )
    return number
