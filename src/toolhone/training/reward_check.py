"""Before step 1 of an RL method: whether the right answer earns most in the format of the run.

    check_rewards(policy, schedule, tasks, thinks=rl.enforce_thinking)

The right answers of a sample of tasks are rendered by the run's dialect and template, parsed back
and scored by the rewards of every phase, and so are the attacks of `rewards/attacks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from toolhone.dialects.choose import open_syntax
from toolhone.dialects.interface import ParsedReply, ParseProblem
from toolhone.episodes.episode import Episode
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import ConfigError, DialectError
from toolhone.rewards.attacks import ATTACKS, Attack, AttackCase, CallDraft
from toolhone.rewards.reward_registry import BUILTIN, OWN, PhaseSchedule, Reward, compute_reward
from toolhone.schema import Message, Task, Tool, ToolCall

CHECKED_TASKS = 16
"""Tasks of the sample, of every kind in turn; the first `ATTACKED_TASKS` are attacked too."""
ATTACKED_TASKS = 8
ON_PURPOSE = "training.rl.reward.check=false"
_NEUTRAL = "tagged"
"""The syntax of full marks for rewards that read no text themselves."""
_SLACK = 1e-9
_HELD = tuple(spec.function for spec in OWN)
_THOUGHT = "The request is clear."


@dataclass(frozen=True)
class ReplySyntax:
    """How the format of a policy writes and reads replies to one task, thoughts included."""

    policy: TokenPolicy
    task: Task
    thinks: bool = False

    @property
    def name(self) -> str:
        return self.policy.dialect.name

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """The text that sampling this reply gives; `DialectError` where the format has none."""
        thought = _THOUGHT if self.thinks else None
        prompt = self.policy.open(self.task.messages, self.task.tools)
        ids = self.policy.encode_reply(prompt, Message("assistant", content, thought, tuple(calls)))
        return self.policy.tokenizer.decode(ids, self.policy.params.stop_ids)

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        return self.policy.dialect.parse(text, tools)

    read_body = read


class CheckedTask(NamedTuple):
    """A task in the format of the run, with its right answer as the run would read it."""

    case: AttackCase
    gold: Episode


def check_rewards(
    policy: TokenPolicy, schedule: PhaseSchedule, tasks: Sequence[Task], thinks: bool = False
) -> str | None:
    """Raise `ConfigError` where a phase pays the right answer less than it can earn, or an attack
    more. Returns a note where the format lets no right answer be written for a check.
    """
    thinks = thinks or policy.dialect.parse("x").problem is ParseProblem.UNCLOSED
    sample, played, reason = sample_tasks(tasks), list[CheckedTask](), ""
    for task in sample:
        case = AttackCase(task, ReplySyntax(policy, task, thinks))
        try:
            played.append(CheckedTask(case, case.play(case.gold)))
        except DialectError as error:
            reason = str(error)
    if not played:
        return f"the rewards are not checked: no right answer can be written ({reason:.200})"
    for number, phase in enumerate(schedule.phases, start=1):
        where = "training.rl.reward"
        where += f".phases, phase {number}" if len(schedule.phases) > 1 else ""
        rewards = [reward for reward in phase.rewards if reward.weight > 0]
        for reward in rewards:
            if found := _short_of_full_marks(reward, played, policy.dialect.name, thinks):
                raise ConfigError(f"{where}: {found}; or keep it on purpose with {ON_PURPOSE}")
        # tests/rewards/test_attacks.py proves our own rewards in every syntax
        if all(reward.function in _HELD for reward in rewards):
            continue
        if found := _better_attack(phase.rewards, played[:ATTACKED_TASKS], policy.dialect.name):
            raise ConfigError(f"{where}: {found}; or keep it on purpose with {ON_PURPOSE}")
    return None


def sample_tasks(tasks: Sequence[Task], count: int = CHECKED_TASKS) -> list[Task]:
    """Tasks of every kind in turn: by the calls they want, and by the answer they expect."""
    kinds: dict[tuple[int, bool, bool], list[Task]] = {}
    for task in tasks:
        expect = task.expect
        kinds.setdefault((len(expect.wanted), expect.no_call, expect.answer is None), []).append(
            task
        )
    rounds = zip_longest(*(tasks[:count] for tasks in kinds.values()))
    return [task for each in rounds for task in each if task is not None][:count]


def _attacks(case: AttackCase) -> Iterator[tuple[Attack, Episode]]:
    """The attacks that the format can write, played."""
    for attack in ATTACKS.values():
        try:
            replies = attack.replies(case)
        except DialectError:
            continue
        for reply in replies:
            if reply.cut or reply.texts != case.gold.texts:
                yield attack, case.play(reply)


def _short_of_full_marks(
    reward: Reward, played: Sequence[CheckedTask], form: str, thinks: bool
) -> str | None:
    """What the right answer earns of what it, or its first call, earns in the reward's syntax."""
    spec = BUILTIN.get(reward.name)
    if spec is None or spec.function is not reward.function:
        return None
    syntax, lost = open_syntax(spec.syntax or _NEUTRAL), list[tuple[float, float, str]]()
    is_foreign = spec.syntax not in (None, form)
    for format_case, gold in played:
        case = AttackCase(format_case.task, syntax)
        try:
            best = [case.play(case.gold)]
            if is_foreign and case.wanted:
                best.append(case.play(case.write(CallDraft(case.wanted[:1]))))
        except DialectError:
            continue
        earned = compute_reward([reward], case.task, gold).total
        full = max(compute_reward([reward], case.task, one).total for one in best)
        if spec.syntax == "calls" and case.wanted and spec.judges(case.task):
            full = max(full, spec.bounds[1] * reward.weight)  # its own reader may be what fails
        if earned < full - _SLACK:
            lost.append((earned / reward.weight, full / reward.weight, gold.turns[0].text))
    if not lost:
        return None
    earned, full, text = max(lost, key=lambda one: one[1] - one[0])
    remedies = []
    if is_foreign:
        remedies.append(f"model.dialect={spec.syntax}")
    if thinks:
        remedies.append("training.rl.enforce_thinking=false, or a model that does not always think")
    elif "</think>" in text:
        remedies.append("model.markup=chatml, which writes no thought in front")
    use = " and ".join(remedies) or "tasks with other answers"
    return (
        f"the reward {reward.name} cannot read the format {form!r}: the right answer of "
        f"{len(lost)} of {len(played)} sampled tasks, such as {text!r:.120}, "
        f"earns {earned:g} of {full:g}; "
        f"use {use}; or another reward, such as tool_use"
    )


def _better_attack(
    rewards: Sequence[Reward], played: Sequence[CheckedTask], form: str
) -> str | None:
    """The attack that earns most beyond the right answer."""
    found = []
    for case, gold in played:
        task, attacks = case.task, _attacks(case)
        fair = compute_reward(rewards, task, gold).total
        paid = [(compute_reward(rewards, task, one).total, attack, one) for attack, one in attacks]
        if not paid:
            continue
        pay, attack, episode = max(paid, key=lambda one: one[0])
        if pay > fair + _SLACK:
            found.append((pay - fair, pay, fair, attack, task, episode.turns[0].text))
    if not found:
        return None
    _, pay, fair, attack, task, text = max(found, key=lambda one: one[0])
    names = " + ".join(reward.name for reward in rewards)
    about = attack.about.removesuffix(" as much as the right answer")
    several = attack.name == "missing_call"
    return (
        f"in the format {form!r} the reward {names} pays {about} more than the right "
        f"answer, on {len(found)} of {len(played)} sampled tasks "
        f"({pay:g} for {text!r:.80} on {task.id}, "
        f"{fair:g} for the right answer); use "
        f"{'tasks that want one call each' if several else 'other tasks'}; "
        "or another reward, such as tool_use"
    )
