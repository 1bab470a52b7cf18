"""Rewards by name, and what an episode earns.

    (reward, own) = load_rewards(["tool_use", "mine.py:polite"], [1.0, 0.2])
    result = compute_reward([reward, own], task, episode)
    result.total, result.parts      # 1.3, {"tool_use.tools": 0.3, ..., "polite": 1.0}

A reward must not change the task or the episode, nor depend on time or chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, nearest
from toolhone.rewards import legacy_rewards as legacy
from toolhone.rewards import tool_use
from toolhone.rewards.episode_view import select_reference
from toolhone.schema import Json, Task

PENALTY = 0.5
"""Default penalty for each turn that an episode's rules penalise."""
RewardFunction = Callable[[Task, Episode], float | Mapping[str, float]]
"""A pure function to a finite number, or to named parts whose sum is the reward."""
_LOWEST = -2.85
"""All penalties together, and a call where none is wanted."""


class RewardOrigin(StrEnum):
    OWN = "own"
    """Toolhone's: a correct answer earns strictly most, and no attack exceeds its bound."""
    COMPATIBLE = "compatible"
    """Another system's, reproduced exactly."""


@dataclass(frozen=True)
class RewardSpec:
    """A built-in reward.

    `bounds`: lowest and highest value. `judges`: the tasks on which it means something.
    `syntax`: the call syntax it parses itself. `holes`: attacks that it pays too well, and why.
    """

    name: str
    function: RewardFunction
    kind: RewardOrigin
    formula: str
    source: str
    bounds: tuple[float, float]
    judges: Callable[[Task], bool]
    syntax: str | None = None
    holes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "formula": self.formula,
            "source": self.source,
            "bounds": list(self.bounds),
            "syntax": self.syntax,
            "holes": dict(self.holes),
        }


_OWN_FORMULAS = {
    "tool_use": "right_calls and right_answer, each half where a task asks for both",
    "right_calls": "0.3 tools + 0.4 arguments + 0.3 exact, or 1 for no call where none is wanted",
    "right_tools": "0.5 tools + 0.25 arguments + 0.25 exact, or 1 for no call where none is wanted",
    "exact_calls": "1 for exactly the wanted calls, or for no call where none is wanted",
    "working_calls": (
        "0.3 wanted calls that ran + 0.4 those of them that are right + 0.3 if all are"
    ),
    "right_answer": "1 for the expected answer in the final text, 1/k among k candidates",
}
_JUDGES = {"tool_use": tool_use.judges, "right_answer": tool_use.judges_answer_tasks}
_LEGACY_FORMULAS = {
    "tool_call_exact": "1 if the reply is the wanted text but for case and white space",
    "tool_call_function": "wanted names that occur among the called / wanted names",
    "tool_call_params": "share of wanted parameters, by position",
    "tool_call_overall": "0.4 names + 0.4 parameters + 0.2 all the same, by position",
    "tool_call_parseable": "1 if there is anything like a call",
    "json_answer": "format 1 + tool 0.5 or -0.5 + arguments 1 + length -0.2",
    "legacy_playground_format": (
        "1 for both tags + 0.5 for the words 'parameters' and 'name', else -0.5"
    ),
}
_GUIDED = ("mlx-guided-grpo (MIT), examples/tool_calling_training.md", (0.0, 1.0), "calls")
_SOURCES = {
    "json_answer": ("llm-tool-calling (Apache-2.0), README.md", (-0.7, 2.5), "json"),
    "legacy_playground_format": (
        "bagel-RL (MIT), the PPO reward of June 2025",
        (-0.5, 1.5),
        "tagged",
    ),
}


def _own_spec(name: str, formula: str) -> RewardSpec:
    return RewardSpec(
        name,
        getattr(tool_use, name),
        RewardOrigin.OWN,
        f"{formula}; less penalties",
        "Toolhone",
        (_LOWEST, 1.0),
        _JUDGES.get(name, tool_use.judges_call_tasks),
    )


def _legacy_spec(name: str, formula: str) -> RewardSpec:
    function: RewardFunction = getattr(legacy, name)

    def reward(task: Task, episode: Episode) -> float | Mapping[str, float]:
        if legacy.leaves_arguments_open(task):
            return {}
        return function(select_reference(task, episode), episode)

    source, bounds, syntax = _SOURCES.get(name, _GUIDED)
    judges, holes = legacy.knows_reference, legacy.KNOWN_EXPLOITS[name]
    return RewardSpec(
        name, reward, RewardOrigin.COMPATIBLE, formula, source, bounds, judges, syntax, holes
    )


OWN = tuple(_own_spec(*item) for item in _OWN_FORMULAS.items())
LEGACY = tuple(_legacy_spec(*item) for item in _LEGACY_FORMULAS.items())
BUILTIN: Mapping[str, RewardSpec] = {spec.name: spec for spec in (*OWN, *LEGACY)}


def warnings_for(names: Sequence[str]) -> list[str]:
    """Warn about known holes, unless one of the rewards is Toolhone's own or the user's."""
    specs = [BUILTIN[name] for name in names if name in BUILTIN]
    if any(map(USER_CODE.fullmatch, names)) or any(spec.kind is RewardOrigin.OWN for spec in specs):
        return []
    use = "used alone" if len(specs) == 1 else "used without a reward that has none"
    return [
        f"the reward {spec.name} has known holes and is {use}: {', '.join(spec.holes)} "
        "(toolhone rewards list); add tool_use, or use it instead"
        for spec in specs
        if spec.holes
    ]


def syntax_of(names: Sequence[str]) -> str | None:
    """The call syntax that all these rewards parse themselves, or None."""
    found = {BUILTIN[name].syntax if name in BUILTIN else None for name in names}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Reward:
    """A reward with its name and its weight in the total."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True)
class RewardResult:
    """What an episode earns: the weighted total, and every part, unweighted."""

    total: float
    parts: Mapping[str, float]


def load_rewards(specs: Sequence[str], weights: Sequence[float] = ()) -> list[Reward]:
    """Load rewards by name, `file.py:function` or `module:function`; default weights are 1."""
    weights = weights or [1.0] * len(specs)
    rewards = []
    for spec, weight in zip(specs, weights, strict=True):
        if spec in BUILTIN:
            rewards.append(Reward(spec, BUILTIN[spec].function, weight))
        elif USER_CODE.fullmatch(spec):
            function = import_callable(spec, Path.cwd(), "a reward")
            rewards.append(Reward(spec.rpartition(":")[2], function, weight))
        else:
            raise ConfigError(
                f"there is no reward {spec!r}{nearest(spec, BUILTIN)}; known: "
                f"{', '.join(BUILTIN)}, and your own as 'file.py:function'"
            )
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two rewards are named {name!r}, but logs identify their parts by that name; "
                "rename one function"
            )
    return rewards


def compute_reward(
    rewards: Sequence[Reward], task: Task, episode: Episode, penalty: float = PENALTY
) -> RewardResult:
    """Compute an episode's total and parts; each penalised turn costs `penalty`, a part too."""
    total, parts = 0.0, dict[str, float]()
    if episode.penalties:
        total = parts["penalty"] = -penalty * episode.penalties
    for reward in rewards:
        values = _call_reward(reward, task, episode)
        total += reward.weight * sum(values.values())
        for name, value in values.items():
            parts[f"{reward.name}.{name}" if name else reward.name] = value
    return RewardResult(total, parts)


def _call_reward(reward: Reward, task: Task, episode: Episode) -> dict[str, float]:
    """The parts of a reward; a plain number is a part with an empty name."""
    try:
        value: object = reward.function(task, episode)
    except Exception as error:
        raise ConfigError(
            f"the reward {reward.name!r} failed on the task {task.id!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    parts: Mapping[object, object] = value if isinstance(value, Mapping) else {"": value}
    numbers = {}
    for name, part in parts.items():
        number = float(part) if isinstance(part, int | float | np.number) else math.nan
        if not math.isfinite(number):
            where = f"part {str(name)!r} of " if name != "" else ""
            raise ConfigError(
                f"{where}the reward {reward.name!r} must be a finite number; "
                f"on the task {task.id!r} it is {part!r:.80}"
            )
        numbers[str(name)] = number
    return numbers
