"""Which rewards hold when: weights as a sum or an average, and phases that follow one another.

    schedule = RewardSchedule(PhaseSchedule.of(plan.training.rl.reward))
    schedule.observe(step, {"reward/tool_call_function": 0.93})     # enters the next phase when due

A checkpoint saves `schedule.state`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolhone.config.rl import RewardSection, WeightedRewards
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, RunError, nearest
from toolhone.rewards.reward_registry import (
    PENALTY,
    Reward,
    RewardResult,
    compute_reward,
    load_rewards,
    warnings_for,
)
from toolhone.schema import Json, Task

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
