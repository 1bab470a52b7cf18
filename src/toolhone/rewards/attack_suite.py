"""The attack suite: play every attack on every task and report which ones a reward pays too well.

    report = attack_suite(reward, PROBES, Tagged())
    report.holes, report.skipped     # the worst attempts above their bounds; tasks by reason

An attack's share runs from 0 (saying nothing) to 1 (the correct answer), on any scale of rewards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolhone.data.world_tasks import WorldTasks
from toolhone.dialects.interface import Syntax
from toolhone.errors import DataError, DialectError
from toolhone.rewards.attacks import ATTACKS, Attack, AttackCase, ScriptedReply, has_solver
from toolhone.rewards.reward_registry import Reward, compute_reward
from toolhone.schema import Json, Task
from toolhone.schema.json_input import packaged_json
from toolhone.tools.open_world import STATE_WORLDS

_SLACK = 1e-9


@dataclass(frozen=True)
class Attempt:
    """One attack on one task: what it earns, and what the correct answer and silence earn there."""

    attack: Attack
    task_id: str
    pay: float
    gold: float
    nothing: float
    texts: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """The share of the way from silence to the correct answer; None if that earns no more."""
        width = self.gold - self.nothing
        return (self.pay - self.nothing) / width if width > _SLACK else None

    @property
    def is_hole(self) -> bool:
        if self.share is None:
            return self.pay >= max(self.gold, self.nothing) - _SLACK
        return self.share > self.attack.bound + _SLACK

    def to_dict(self) -> dict[str, Json]:
        return {
            "attack": self.attack.name,
            "task": self.task_id,
            "pay": self.pay,
            "gold": self.gold,
            "nothing": self.nothing,
            "share": self.share,
            "bound": self.attack.bound,
            "texts": list(self.texts),
        }


@dataclass(frozen=True)
class AttackReport:
    """The worst attempt of each attack, and on how many tasks it was tried and is a hole."""

    reward: str
    syntax: str
    tasks: int
    worst: Mapping[str, Attempt]
    tried: Mapping[str, int]
    holed: Mapping[str, int]
    skipped: Mapping[str, int] = field(default_factory=dict)
    unwritable: int = 0
    """Attacks on a task that the syntax cannot write."""

    @property
    def holes(self) -> list[Attempt]:
        return [attempt for attempt in self.worst.values() if attempt.is_hole]

    def to_dict(self) -> dict[str, Json]:
        attacks = []
        for name, one in self.worst.items():
            counts = {"tried": self.tried[name], "holed": self.holed[name]}
            attacks.append({**one.to_dict(), **counts, "held": not one.is_hole})
        return {
            "reward": self.reward,
            "syntax": self.syntax,
            "tasks": self.tasks,
            "skipped": dict(self.skipped),
            "unwritable": self.unwritable,
            "attacks": attacks,
            "holes": [hole.to_dict() for hole in self.holes],
        }


def attack_suite(
    reward: Reward,
    tasks: Sequence[Task],
    syntax: Syntax,
    judges: Callable[[Task], bool] | None = None,
) -> AttackReport:
    """Play all attacks on the tasks that `judges` accepts. `DataError` where there is none."""
    skipped: Counter[str] = Counter()
    attempts: list[Attempt] = []
    played, unwritable = 0, 0
    for task in tasks:
        reason = ""
        if task.turns:
            reason = "a task with several user turns"
        elif task.expect.state is not None and not has_solver(task):
            reason = "a task that is judged by a final state that no solver of ours reaches"
        elif judges is not None and not judges(task):
            reason = "the reward does not judge such a task"
        else:
            try:
                found, failed = _attack_task(reward, AttackCase(task, syntax))
            except DialectError as error:
                reason = f"the syntax {syntax.name} cannot write the right answer: {error}"
        if reason:
            skipped[reason] += 1
            continue
        played += 1
        attempts += found
        unwritable += failed
    if not played:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in skipped.items())
        raise DataError(
            f"none of {len(tasks)} tasks can be used to attack the reward {reward.name!r} "
            f"({reasons or 'there is none'})"
        )
    worst, tried, holed = dict[str, Attempt](), dict[str, int](), dict[str, int]()
    for name in ATTACKS:
        if mine := [one for one in attempts if one.attack.name == name]:
            worst[name] = max(
                mine,
                key=lambda one: (
                    one.is_hole,
                    one.pay - one.gold if one.share is None else one.share,
                ),
            )
            tried[name] = len({one.task_id for one in mine})
            holed[name] = len({one.task_id for one in mine if one.is_hole})
    counts = played, worst, tried, holed, dict(skipped), unwritable
    return AttackReport(reward.name, syntax.name, *counts)


def _attack_task(reward: Reward, case: AttackCase) -> tuple[list[Attempt], int]:
    """All attempts on one task, and the number of attacks that cannot be written there."""

    def earn(reply: ScriptedReply) -> float:
        return compute_reward([reward], case.task, case.play(reply)).total

    gold, unwritable = earn(case.gold), 0  # `DialectError` where the gold reply cannot be written
    earned: list[tuple[Attack, ScriptedReply, float]] = []
    for attack in ATTACKS.values():
        try:
            replies = attack.replies(case)
        except DialectError:
            unwritable += 1
        else:
            others = [one for one in replies if one.cut or one.texts != case.gold.texts]
            earned += [(attack, reply, earn(reply)) for reply in others]
    nothing = max(pay for attack, _, pay in earned if attack.name == "empty")
    attempts = [
        Attempt(attack, case.task.id, pay, gold, nothing, reply.texts)
        for attack, reply, pay in earned
    ]
    return attempts, unwritable


def _read_probes() -> Iterator[tuple[Task, ...]]:
    source = packaged_json("rewards/probes.json")
    tools = {tool["name"]: tool for tool in source["tools"]}
    for name in ("probes", "open_probes"):
        for probe in source[name]:
            probe["messages"] = [{"role": "user", "content": probe.pop("question")}]
            probe["tools"] = [tools[offered] for offered in probe["tools"]]
        yield tuple(map(Task.from_dict, source[name]))


PROBES, OPEN_PROBES = _read_probes()
_STATE_PROBES = (
    WorldTasks(name, levels=(1 + place % 3,)).tasks(1)[0] for place, name in enumerate(STATE_WORLDS)
)
PROBES = (*PROBES, *_STATE_PROBES)
"""Tasks of every kind, so that each attack applies to some, and tasks with several correct answers
or with open arguments; nothing else uses them."""
