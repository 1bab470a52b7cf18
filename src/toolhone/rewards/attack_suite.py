"""The attack suite: plays every attack on every task and says which of them a reward pays too well.

    report = attack(reward, tasks, Tagged())
    report.holes                     # the worst try of each attack that is one: what was said, what it and the right answer earn
    report.skipped                   # tasks that could not be played, by reason

A hole is an attack that earns a larger share than its bound (which is below 1) of the way from saying nothing (the best of the
empty replies) to the right answer. Shares do not depend on a reward's scale or zero. Where the right answer earns no more than
silence, silence is the hole, and so is what earns as much. A reward is attacked on the tasks that it judges. What the attacks are
is said in `attacks`, how they are played in `scene`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from toolhone.dialects.base import Syntax
from toolhone.errors import DataError, DialectError
from toolhone.rewards.attack_cases import AttackCase, ScriptedReply
from toolhone.rewards.attacks import ATTACKS, Attack
from toolhone.rewards.user_rewards import Reward, compute_reward
from toolhone.schema import Json, Task

_SLACK = 1e-9


@dataclass(frozen=True)
class Attempt:
    """One attack on one task: what it earned, what the right answer and silence earn there, and what was said."""

    attack: Attack
    task_id: str
    pay: float
    gold: float
    nothing: float
    texts: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """How far it goes from silence (0) to the right answer (1); None where the right answer earns no more than silence."""
        width = self.gold - self.nothing
        return (self.pay - self.nothing) / width if width > _SLACK else None

    @property
    def is_hole(self) -> bool:
        if self.share is None:
            return self.pay >= max(self.gold, self.nothing) - _SLACK
        return self.share > self.attack.bound + _SLACK

    @property
    def badness(self) -> tuple[bool, float]:
        """For choosing the worst of several."""
        return self.is_hole, self.pay - self.gold if self.share is None else self.share

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
    """What the suite found.

    `worst` has the worst try of every attack that applied; `tried` counts its tasks, `holed` those with a hole.
    """

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
        return [found for found in self.worst.values() if found.is_hole]

    def to_dict(self) -> dict[str, Json]:
        return {
            "reward": self.reward,
            "syntax": self.syntax,
            "tasks": self.tasks,
            "skipped": dict(self.skipped),
            "unwritable": self.unwritable,
            "attacks": [
                {
                    **found.to_dict(),
                    "tried": self.tried[name],
                    "holed": self.holed[name],
                    "held": not found.is_hole,
                }
                for name, found in self.worst.items()
            ],
            "holes": [found.to_dict() for found in self.holes],
        }


def attack_suite(
    reward: Reward,
    tasks: Sequence[Task],
    syntax: Syntax,
    judges: Callable[[Task], bool] | None = None,
) -> AttackReport:
    """Play all attacks on the tasks that the reward judges (None: on all). `DataError` where there is no such task."""
    skipped: Counter[str] = Counter()
    tries: list[Attempt] = []
    played, unwritable = 0, 0
    for task in tasks:
        reason = _unplayable(task) or (
            "" if judges is None or judges(task) else "the reward does not judge such a task"
        )
        scene = AttackCase(task, syntax)
        try:
            gold = None if reason else _paid(reward, scene, scene.gold)
        except DialectError as error:
            gold, reason = None, f"the syntax {syntax.name} cannot write the right answer: {error}"
        if gold is None:
            skipped[reason] += 1
            continue
        played += 1
        found, lost = _on(reward, scene, gold)
        tries += found
        unwritable += lost
    if not played:
        reasons = (
            "; ".join(f"{count}: {reason}" for reason, count in skipped.items()) or "there is none"
        )
        raise DataError(
            f"none of {len(tasks)} tasks can be used to attack the reward {reward.name!r} ({reasons})"
        )
    worst = {
        name: max(mine, key=lambda one: one.badness)
        for name in ATTACKS
        if (mine := _of(tries, name))
    }
    tried = {name: len({one.task_id for one in _of(tries, name)}) for name in worst}
    holed = {name: len({one.task_id for one in _of(tries, name) if one.is_hole}) for name in worst}
    return AttackReport(
        reward.name, syntax.name, played, worst, tried, holed, dict(skipped), unwritable
    )


def _on(reward: Reward, scene: AttackCase, gold: float) -> tuple[list[Attempt], int]:
    """All tries on one task, and the number of attacks that cannot be written there."""
    said: list[tuple[Attack, ScriptedReply]] = []
    unwritable = 0
    for one in ATTACKS.values():
        try:
            said += [(one, reply) for reply in one.make(scene)]
        except DialectError:
            unwritable += 1
    paid = [
        (one, reply, _paid(reward, scene, reply))
        for one, reply in said
        if reply.texts != scene.gold.texts or reply.cut
    ]
    nothing = max(value for one, _, value in paid if one.name == "empty")
    return [
        Attempt(one, scene.task.id, value, gold, nothing, reply.texts) for one, reply, value in paid
    ], unwritable


def _paid(reward: Reward, scene: AttackCase, said: ScriptedReply) -> float:
    return compute_reward([reward], scene.task, scene.play(said)).total


def _of(tries: Sequence[Attempt], name: str) -> list[Attempt]:
    return [one for one in tries if one.attack.name == name]


def _unplayable(task: Task) -> str:
    if task.turns:
        return "a task with several user turns"
    if not {"calls", "answer"} & set(task.expect.speaks_of):
        return "a task that is judged by its final state"
    return ""
