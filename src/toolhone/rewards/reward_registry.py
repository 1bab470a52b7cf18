"""Rewards by name, what an episode earns, and which rewards hold when: weights and phases.

    (reward, own) = load_rewards(["tool_use", "mine.py:polite"], [1.0, 0.2])
    compute_reward([reward, own], task, episode)      # .total, .parts {"tool_use.tools": 0.3, ...}
    schedule = RewardSchedule(PhaseSchedule.of(plan.training.rl.reward))    # saved by its `state`

A reward must not change the task or the episode, nor depend on time or chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from toolhone.config.rl import POSTED, RewardSection, WeightedRewards
from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.episodes.episode import Episode
from toolhone.errors import BusyError, ConfigError, RunError, nearest
from toolhone.rewards import legacy_rewards as legacy
from toolhone.rewards import tool_use
from toolhone.rewards.matching import show
from toolhone.rewards.values import scalar
from toolhone.schema import Json, Task
from toolhone.schema.json_input import packaged_json

PENALTY = 0.5
"""Default penalty for each turn that an episode's rules penalise."""
LARGEST = 1e18
"""Largest size of a part of a reward; its square is a number in float32."""
RewardFunction = Callable[[Task, Episode], float | Mapping[str, float]]
"""A pure function to a finite number (also of NumPy), or to named parts; their sum counts."""


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
    judges: Callable[[Task], bool]
    kind: RewardOrigin
    formula: str
    source: str
    bounds: tuple[float, float]
    syntax: str | None = None
    holes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Json]:
        names = ("name", "kind", "formula", "source", "bounds", "syntax", "holes")
        return {name: getattr(self, name) for name in names}


_ASPECTS = {
    "tool_use": ("calls", "answer", "state"),
    "right_answer": ("answer",),
    "right_state": ("state",),
}
"""What a task must cover for a reward of ours, where it is not the calls."""


def _read_specs() -> dict[str, RewardSpec]:
    """Read `builtin.json`: the functions of `tool_use.py`, then those of `legacy_rewards.py`."""
    specs = {}
    for name, fields in packaged_json("rewards/builtin.json").items():
        fields |= {"kind": RewardOrigin(fields["kind"]), "bounds": tuple(fields["bounds"])}
        if fields["kind"] is RewardOrigin.OWN:
            judges = partial(tool_use.judges, aspects=_ASPECTS.get(name, ("calls",)))
            specs[name] = RewardSpec(name, getattr(tool_use, name), judges, **fields)
        else:
            function = partial(_compare_with_reference, getattr(legacy, name))
            specs[name] = RewardSpec(name, function, legacy.knows_reference, **fields)
    return specs


def _compare_with_reference(
    function: RewardFunction, task: Task, episode: Episode
) -> float | Mapping[str, float]:
    """A legacy reward, against the right answer that the episode comes closest to."""
    if legacy.leaves_arguments_open(task):
        return {}
    return function(tool_use.select_reference(task, episode), episode)


BUILTIN: Mapping[str, RewardSpec] = _read_specs()
OWN, LEGACY = (
    tuple(spec for spec in BUILTIN.values() if spec.kind is kind) for kind in RewardOrigin
)


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
    """The call syntax that these rewards parse themselves; None where there is none, or several."""
    found = {BUILTIN[name].syntax for name in names if name in BUILTIN} - {None}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Reward:
    """A reward with its name and its weight in the total."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True)
class RewardResult:
    """What an episode earns: the weighted total, and every part, unweighted.

    turns: what each turn adds to the total, where that is computed.
    """

    total: float
    parts: Mapping[str, float]
    turns: tuple[float, ...] = ()


def posted_reward(task: Task, episode: Episode) -> float | Mapping[str, float]:  # noqa: ARG001
    """What the agent posted for its session; 0 where the rules ended the episode before."""
    if episode.recording is None:
        return {}
    return 0.0 if episode.recording.reward is None else episode.recording.reward


def load_rewards(specs: Sequence[str], weights: Sequence[float] = ()) -> list[Reward]:
    """Load rewards by name, `file.py:function` or `module:function`; default weights are 1."""
    weights = weights or [1.0] * len(specs)
    rewards = []
    for spec, weight in zip(specs, weights, strict=True):
        if spec == POSTED:
            rewards.append(Reward(spec, posted_reward, weight))
        elif spec in BUILTIN:
            rewards.append(Reward(spec, BUILTIN[spec].function, weight))
        elif USER_CODE.fullmatch(spec):
            function = import_callable(spec, Path.cwd(), "a reward")
            rewards.append(Reward(spec.rpartition(":")[2], function, weight))
        else:
            raise ConfigError(
                f"there is no reward {spec!r}{nearest(spec, BUILTIN)}; known: "
                f"{', '.join(BUILTIN)}, {POSTED} (agents), and your own as 'file.py:function'"
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
    if not abs(total) <= LARGEST:
        raise ConfigError(
            f"the weighted sum of the rewards must be at most {LARGEST:g}; on the task "
            f"{task.id!r} it is {total:g}"
        )
    return RewardResult(total, parts)


def _call_reward(reward: Reward, task: Task, episode: Episode) -> dict[str, float]:
    """The parts of a reward; a plain number is a part with an empty name."""
    try:
        value: object = reward.function(task, episode)
    except BusyError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the reward {reward.name!r} failed on the task {task.id!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    parts: Mapping[object, object] = value if isinstance(value, Mapping) else {"": value}
    numbers = {}
    for name, part in parts.items():
        number = scalar(part)
        if number is None or not -LARGEST <= number <= LARGEST:
            where = f"part {str(name)!r} of " if name != "" else ""
            raise ConfigError(
                f"{where}the reward {reward.name!r} must be a finite number of at most "
                f"{LARGEST:g}; on the task {task.id!r} it is {show(part)}"
            )
        numbers[str(name)] = float(number)
    return numbers


TOTAL = "reward"
"""The name of the total among the scores."""
PREFIX = "reward/"
"""The prefix of parts in logs."""


@dataclass(frozen=True)
class PhaseState:
    """The current phase (from 0) and the number of steps taken before it began."""

    phase: int = 0
    since: int = 0

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> PhaseState:
        phase, since = source.get("phase"), source.get("since")
        if type(phase) is not int or type(since) is not int or min(phase, since) < 0:
            raise RunError(
                "the state of the reward phases needs 'phase' and 'since', whole numbers; "
                f"got {dict(source)!r:.80}"
            )
        return PhaseState(phase, since)


@dataclass(frozen=True)
class Phase:
    """Rewards that hold for `steps`, or until every score in `until` reaches its threshold."""

    rewards: tuple[Reward, ...]
    steps: int | None = None
    until: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseSchedule:
    """The phases of an experiment; the last one never ends, and measures a finished model."""

    phases: tuple[Phase, ...]

    @staticmethod
    def of(section: RewardSection, scores: Collection[str] = ()) -> PhaseSchedule:
        """Build the schedule; `scores` are names that `until` may hold beside rewards."""
        average = section.combine == "average"
        if not section.phases:
            rewards = weighted_rewards(section.functions, section.weights, average)
            return PhaseSchedule((Phase(rewards),))
        phases, count = [], len(section.phases)
        for index, phase in enumerate(section.phases, start=1):
            where = f"training.rl.reward.phases: phase {index}"
            if index < count and phase.steps is None and not phase.until:
                raise ConfigError(f"{where} of {count} never ends; give it 'steps' or 'until'")
            if not phase.functions:
                raise ConfigError(f"{where} names no reward function")
            rewards = weighted_rewards(phase.functions, phase.weights, average)
            known = [TOTAL, *(reward.name for reward in rewards), *scores]
            for name in phase.until or {}:
                if name not in known and name.partition(".")[0] not in known:
                    raise ConfigError(
                        f"{where} waits for the score {name!r}, which nothing measures"
                        f"{nearest(name, known)}; known: {', '.join(known)}"
                    )
            phases.append(Phase(rewards, phase.steps, dict(phase.until or {})))
        return PhaseSchedule(tuple(phases))

    def phase(self, state: PhaseState) -> Phase:
        """The phase that holds in this state."""
        if state.phase >= len(self.phases):
            raise RunError(
                f"the run is in reward phase {state.phase + 1}, but the experiment has "
                f"{len(self.phases)}; resume with the phases of the original run"
            )
        return self.phases[state.phase]

    def after(self, state: PhaseState, step: int, scores: Mapping[str, float]) -> PhaseState:
        """The state for the next step, after `step` steps in all and with these scores."""
        phase = self.phase(state)
        is_over = phase.steps is not None and step - state.since >= phase.steps
        if not is_over and phase.until:
            until = phase.until.items()
            is_over = all(name in scores and scores[name] >= least for name, least in until)
        if not is_over or state.phase + 1 == len(self.phases):
            return state
        return PhaseState(state.phase + 1, step)


@dataclass
class RewardSchedule:
    """The rewards of the current phase. `validated`: the scores of the last validation."""

    schedule: PhaseSchedule
    state: PhaseState = PhaseState()
    penalty: float = PENALTY
    validated: Mapping[str, float] = field(default_factory=dict)

    def compute_reward(self, task: Task, episode: Episode) -> RewardResult:
        """Compute what an episode earns in the current phase."""
        return compute_reward(self.schedule.phase(self.state).rewards, task, episode, self.penalty)

    def observe(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Record a step's metrics; return a note when a phase begins or cannot end."""
        scores = {**self.validated, **reward_scores(metrics)}
        before, self.state = self.state, self.schedule.after(self.state, step, scores)
        if self.state == before:
            if step != before.since + 1:
                return None
            for name in self.schedule.phases[self.state.phase].until:
                reward, dot, _ = name.partition(".")
                if dot and name not in scores and reward in scores:
                    parts = [known for known in scores if known.startswith(f"{reward}.")]
                    return (
                        f"note: the reward phase waits for {name!r}{nearest(name, parts)}, which "
                        f"{reward} does not have; its parts: {', '.join(parts)}"
                    )
            return None
        rewards = self.schedule.phase(self.state).rewards
        names = ", ".join(f"{reward.weight:g} {reward.name}" for reward in rewards)
        phase = f"{self.state.phase + 1} of {len(self.schedule.phases)}"
        return f"step {step}: reward phase {phase} begins: {names}"


def reward_scores(metrics: Mapping[str, float]) -> dict[str, float]:
    """The total, the rewards and their parts, without `reward/`; other metrics are dropped."""
    names = [name for name in metrics if name.startswith(PREFIX)]
    scores = {name.removeprefix(PREFIX): metrics[name] for name in names}
    return scores | ({TOTAL: metrics[TOTAL]} if TOTAL in metrics else {})


def warnings_of(section: RewardSection) -> list[str]:
    """Warnings about known holes, phase by phase, each once."""
    warnings = list[str]()
    phases: Sequence[WeightedRewards] = section.phases or [section]
    for phase in phases:
        weights = phase.weights or [1.0] * len(phase.functions)
        names = [name for name, weight in zip(phase.functions, weights, strict=True) if weight]
        warnings += warnings_for(names)
    return list(dict.fromkeys(warnings))


def weighted_rewards(
    names: Sequence[str], weights: Sequence[float] = (), average: bool = False
) -> tuple[Reward, ...]:
    """Load rewards; with `average`, divide their weights by the sum of the weights."""
    rewards = load_rewards(names, weights)
    total = sum(reward.weight for reward in rewards)
    if not average or not rewards:
        return tuple(rewards)
    if total <= 0:
        raise ConfigError(
            "combine 'average' divides by the sum of the weights, which must be above 0; "
            f"it is {total:g}"
        )
    return tuple(replace(reward, weight=reward.weight / total) for reward in rewards)
