"""A reward of the user's own: a pure function of (task, episode), named in the experiment file or on the command line.

    reward = load_reward("mine.py:polite")
    reward.function(task, episode)             # {"polite": 1.0, "brief": 0.5}, or a number
    paid = pay([reward], task, episode)
    paid.total, paid.parts                     # 1.5, {"polite.polite": 1.0, "polite.brief": 0.5}

A reward gives a finite number, or a mapping of named parts whose sum it is. The total is the weighted sum. What a reward may use: the
task (`schema.Task`) and everything that was said and done (`episodes.episode.Episode`). It must not change them, and must not depend
on the time or on chance. A reward that fails, or gives something else, stops with a sentence that names it and the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError
from toolhone.owncode import is_own_code, load_named
from toolhone.schema import Task

Function = Callable[[Task, Episode], float | Mapping[str, float]]


@dataclass(frozen=True)
class Reward:
    """A reward with its name (that of the function) and its weight in the total."""

    name: str
    function: Function
    weight: float = 1.0


@dataclass(frozen=True)
class Paid:
    """What an episode earned: the weighted total, and every part as it was given, unweighted."""

    total: float
    parts: Mapping[str, float]


def load_reward(spec: str, weight: float = 1.0) -> Reward:
    """The reward that `file.py:function` or `package.module:function` names."""
    if not is_own_code(spec):
        raise ConfigError(f"a reward of your own is named 'file.py:function', got {spec!r}")
    return Reward(spec.rpartition(":")[2], load_named(spec, Path.cwd(), "a reward"), weight)


def pay(rewards: Sequence[Reward], task: Task, episode: Episode) -> Paid:
    """The total and the parts of one episode."""
    total, parts = 0.0, dict[str, float]()
    for reward in rewards:
        given = _given(reward, task, episode)
        total += reward.weight * sum(given.values())
        parts |= {reward.name if not name else f"{reward.name}.{name}": value for name, value in given.items()}
    return Paid(total, parts)


def _given(reward: Reward, task: Task, episode: Episode) -> dict[str, float]:
    try:
        value: object = reward.function(task, episode)
    except Exception as error:
        raise ConfigError(f"the reward {reward.name!r} failed on the task {task.id!r}: {type(error).__name__}: {error}") from error
    parts = dict(value) if isinstance(value, Mapping) else {"": value}
    for name, part in parts.items():
        if not isinstance(part, Real) or not math.isfinite(float(part)):
            where = f"part {name!r} of " if name else ""
            raise ConfigError(f"{where}the reward {reward.name!r} must be a finite number; on the task {task.id!r} it is {part!r:.80}")
    return {str(name): float(part) for name, part in parts.items()}
