"""Which rewards hold when: weights as a sum or an average, and phases that follow one another while training goes on.

    payroll = Payroll(Schedule.of(plan.training.rl.reward))
    for step in range(1, total + 1):
        paid = [payroll.compute_reward(task, episode) for ...]
        payroll.observe(step, {"reward/tool_call_function": 0.93})     # on to the next phase, when it is due
        ... payroll.state.to_dict()                                    # what a checkpoint must remember

A phase holds for its `steps`, or until every score that `until` names is at least its threshold, whichever comes first; the last
one holds to the end. `after` is pure: the state is one small value, saved in a checkpoint with `to_dict` and read with
`from_dict`, so that a resumed run stands in the same phase. Scores are means of rewards and their parts over a step, and metrics of
the last validation (`validated`, which whoever validates sets). One step's mean is noisy; wait for a validation where a threshold
should not be met by luck.

A sum adds `weight * reward`; an average divides that by the sum of the weights. Nothing is scored here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolhone.config.rl import RewardPhase, RewardSection, WeightedRewards
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, RunError, nearest
from toolhone.rewards.registry import warnings_for
from toolhone.rewards.user_rewards import (
    PENALTY,
    Reward,
    RewardResult,
    compute_reward,
    load_rewards,
)
from toolhone.schema import Json, Task

TOTAL = "reward"
"""The name of the total among the scores."""
PREFIX = "reward/"
"""Stands before the names of parts in logs."""


@dataclass(frozen=True)
class PhaseState:
    """Which phase holds (from 0), and the number of steps that had been taken when it began."""

    phase: int = 0
    since: int = 0

    def to_dict(self) -> dict[str, int]:
        return {"phase": self.phase, "since": self.since}

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> PhaseState:
        phase, since = source.get("phase"), source.get("since")
        if type(phase) is not int or type(since) is not int or min(phase, since) < 0:
            raise RunError(
                f"the state of the reward phases needs 'phase' and 'since', whole numbers; got {dict(source)!r:.80}"
            )
        return PhaseState(phase, since)


@dataclass(frozen=True)
class Phase:
    """Rewards that hold for a while. `steps` and `until` are None and empty for one that never ends."""

    rewards: tuple[Reward, ...]
    steps: int | None = None
    until: Mapping[str, float] = field(default_factory=dict)

    def is_over(self, taken: int, scores: Mapping[str, float]) -> bool:
        if self.steps is not None and taken >= self.steps:
            return True
        return bool(self.until) and all(
            name in scores and scores[name] >= least for name, least in self.until.items()
        )


@dataclass(frozen=True)
class PhaseSchedule:
    """The phases, one after the other; a single one where the experiment names none."""

    phases: tuple[Phase, ...]

    @staticmethod
    def of(section: RewardSection, scores: Collection[str] = ()) -> PhaseSchedule:
        """The schedule of an experiment. `scores` names what may stand in `until` beside rewards and their parts."""
        average = section.combine == "average"
        if not section.phases:
            return PhaseSchedule((Phase(weighted(section.functions, section.weights, average)),))
        phases = tuple(
            _phase(index, phase, average, scores) for index, phase in enumerate(section.phases)
        )
        for index, phase in enumerate(phases[:-1]):
            if phase.steps is None and not phase.until:
                raise ConfigError(
                    f"training.rl.reward.phases: phase {index + 1} of {len(phases)} never ends; give it 'steps' or 'until'"
                )
        return PhaseSchedule(phases)

    @property
    def last(self) -> PhaseState:
        """The state in which the last phase holds: what a finished model is measured by."""
        return PhaseState(len(self.phases) - 1)

    def rewards(self, state: PhaseState) -> tuple[Reward, ...]:
        return self._at(state).rewards

    def after(self, state: PhaseState, step: int, scores: Mapping[str, float]) -> PhaseState:
        """The state for the next step, when `step` steps have been taken in all and these scores were measured."""
        over = state.phase + 1 < len(self.phases) and self._at(state).is_over(
            step - state.since, scores
        )
        return replace(state, phase=state.phase + 1, since=step) if over else state

    def _at(self, state: PhaseState) -> Phase:
        if state.phase >= len(self.phases):
            raise RunError(
                f"the run stands in reward phase {state.phase + 1}, but the experiment has {len(self.phases)}; "
                "resume with the phases it was begun with"
            )
        return self.phases[state.phase]


@dataclass
class RewardSchedule:
    """The rewards that hold now. What changes is `state`, and what the last validation measured."""

    schedule: PhaseSchedule
    state: PhaseState = PhaseState()
    penalty: float = PENALTY
    validated: Mapping[str, float] = field(default_factory=dict)

    def compute_reward(self, task: Task, episode: Episode) -> RewardResult:
        """What an episode earns in the present phase."""
        return compute_reward(self.schedule.rewards(self.state), task, episode, self.penalty)

    def observe(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Take what was measured after a step; a sentence when another phase begins, or one waits for a part that is not paid."""
        scores = {**self.validated, **scores_in(metrics)}
        before, self.state = self.state, self.schedule.after(self.state, step, scores)
        if self.state == before:
            return self._waits_in_vain(scores) if step == before.since + 1 else None
        names = ", ".join(
            f"{reward.weight:g} {reward.name}" for reward in self.schedule.rewards(self.state)
        )
        return f"step {step}: reward phase {self.state.phase + 1} of {len(self.schedule.phases)} begins: {names}"

    def _waits_in_vain(self, scores: Mapping[str, float]) -> str | None:
        """Whether the phase waits for a part that its reward, which was paid, does not have."""
        for name in self.schedule.phases[self.state.phase].until:
            reward, dot, _ = name.partition(".")
            if dot and name not in scores and reward in scores:
                parts = [known for known in scores if known.startswith(f"{reward}.")]
                return f"note: the reward phase waits for {name!r}{nearest(name, parts)}, which was not paid; paid: {', '.join(parts)}"
        return None


def scores_in(metrics: Mapping[str, float]) -> dict[str, float]:
    """The total, and rewards and their parts by the names that `until` uses, without `reward/`; no other metric has a say."""
    rewards = {
        name.removeprefix(PREFIX): value
        for name, value in metrics.items()
        if name.startswith(PREFIX)
    }
    return rewards | ({TOTAL: metrics[TOTAL]} if TOTAL in metrics else {})


def warnings_of(section: RewardSection) -> list[str]:
    """What to say before training on these rewards: for each phase, holes that none of its other rewards covers; each once."""
    said = list[str]()
    phases: Sequence[WeightedRewards] = section.phases or [section]
    for phase in phases:
        weights = phase.weights or [1.0] * len(phase.functions)
        said += warnings_for(
            [name for name, weight in zip(phase.functions, weights, strict=True) if weight]
        )
    return list(dict.fromkeys(said))


def weighted(
    names: Sequence[str], weights: Sequence[float] = (), average: bool = False
) -> tuple[Reward, ...]:
    """The rewards of these names; with `average`, their weights are divided by their sum."""
    rewards = load_rewards(names, weights)
    total = sum(reward.weight for reward in rewards)
    if not average or not rewards:
        return tuple(rewards)
    if total <= 0:
        raise ConfigError(
            f"combine 'average' divides by the sum of the weights, which is {total:g}; it must be above 0"
        )
    return tuple(replace(reward, weight=reward.weight / total) for reward in rewards)


def _phase(index: int, phase: RewardPhase, average: bool, scores: Collection[str]) -> Phase:
    where = f"training.rl.reward.phases: phase {index + 1}"
    if not phase.functions:
        raise ConfigError(f"{where} names no reward function")
    rewards = weighted(phase.functions, phase.weights, average)
    known = [TOTAL, *(reward.name for reward in rewards), *scores]
    for name in phase.until or {}:
        if name not in known and name.partition(".")[0] not in known:
            raise ConfigError(
                f"{where} waits for the score {name!r}, which nobody measures{nearest(name, known)}; known: {', '.join(known)}"
            )
    return Phase(rewards, phase.steps, dict(phase.until or {}))
