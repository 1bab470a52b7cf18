"""What replies are given to begin with: a part of the wanted one, the opening of a thought, or what a failed try had said.

    groups = play_step(stage, policy, tasks, rl, step)     # the groups of a step, as `training.rl` asks for them
    metrics |= given_metrics(groups, rl, step)
    opening = thought_opening(policy)                      # what `enforce_thinking` gives; a policy takes it as `opening`

Given ids stand behind the prompt before anything is sampled, are read as a part of the reply, and are never trained. All episodes
of a group are given the same beginning: with different ones their rewards would say who was given more, not who did better. A
second try begins where a first one failed and is a further episode of its group. It is measured against the first tries, which
are compared among themselves alone: whether one was continued changes nothing in their advantages, unless all earned the same.

Turns and rows keep what was given on their own (`episodes.policy`, `rollouts`). Evaluation gives nothing and is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import islice

import numpy as np

from toolhone.backends.base import Metrics
from toolhone.config.rl import CurriculumSection, RlSection
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.outcome import EpisodeRules, TurnOutcome
from toolhone.episodes.policy import Prompt, TokenPolicy
from toolhone.errors import CapabilityError, ConfigError, DialectError
from toolhone.schema import Message, Task, Tool, ToolCall
from toolhone.training.rl_metrics import RLEnv
from toolhone.training.rollout import RolloutGroup, rollout

Ids = tuple[int, ...]

TRIED = 16
"""Tasks whose wanted reply is written before training begins, to see whether the format has a place for such replies."""
_TOOL = Tool(
    "look_up",
    "Looks up.",
    {"type": "object", "properties": {"what": {"type": "string", "description": "What."}}},
)
_ASKED = (Message("user", "question"),)
_ANSWER = Message("assistant", "answer")
_CALL = Message("assistant", tool_calls=(ToolCall(_TOOL.name, {"what": "tea"}),))


class Failure(StrEnum):
    """How the first turn of a first try failed."""

    UNFINISHED = "unfinished"
    """Cut off, or a call or a thought without an end: it goes on from where it stopped."""
    OTHERWISE = "otherwise"
    """Malformed in another way, or words where calls are wanted: nothing in it can be gone on from."""


def rollout_step(
    stage: RLEnv, policy: TokenPolicy, tasks: Sequence[Task], rl: RlSection, step: int
) -> list[RolloutGroup]:
    """Each task `group_size` times, all begun alike, and the second tries that `two_phase_samples_per_group` allows."""
    ratio = ratio_at(rl.curriculum, step)

    def rules(task: Task) -> EpisodeRules:
        return replace(stage.rules(task), given=gold_prefix(policy, task, ratio))

    groups = rollout(policy, tasks, rl.group_size, stage.registry, stage.score, rules, stage.clock)
    return retries(groups, stage, policy, rl) if rl.two_phase_samples_per_group else groups


def ratio_at(plan: CurriculumSection, step: int) -> float:
    """The share that is given at this step (from 0): from `start_ratio` in a line to `end_ratio` at step `steps`, then constant."""
    done = min(1.0, step / plan.steps)
    return (1 - done) * plan.start_ratio + done * plan.end_ratio if plan.enabled else 0.0


def gold_reply(task: Task) -> Message | None:
    """The first turn with all wanted calls. None where none is wanted or it is not known with which arguments.

    Where several answers are right it is the one that the task names first.
    """
    calls = task.expect.calls
    if not calls or any(call.any_arguments for call in calls):
        return None
    return Message(
        "assistant", tool_calls=tuple(ToolCall(call.name, call.arguments) for call in calls)
    )


def gold_prefix(policy: TokenPolicy, task: Task, ratio: float) -> Ids:
    """This share of the wanted reply's ids, its end mark not counted, so that at 1 the end mark is left to say.

    Nothing where no call is wanted, or the format has no place for the wanted ones (`prefill_metrics` counts such groups).
    """
    wanted = gold_reply(task)
    if not ratio or wanted is None:
        return ()
    try:
        ids = policy.written(policy.open(task.messages, task.tools), wanted)
    except DialectError:
        return ()
    return ids[: round(ratio * (len(ids) - 1))]


def check_curriculum(policy: TokenPolicy, tasks: Sequence[Task]) -> str:
    """How many of these tasks have something to give, as a sentence. Refused where none has, or the format has no place for it."""
    wanting = [task for task in tasks if gold_reply(task) is not None]
    if not wanting:
        raise ConfigError(
            f"training.rl.curriculum gives the beginning of the wanted calls, and none of the {len(tasks)} tasks names any; "
            "leave it out, or play tasks whose right answer is calls"
        )
    reasons = []
    for task in wanting[:TRIED]:
        try:
            policy.written(policy.open(task.messages, task.tools), gold_reply(task) or _ANSWER)
        except DialectError as error:
            reasons.append(str(error))
    if len(reasons) == len(wanting[:TRIED]):
        raise CapabilityError(
            f"training.rl.curriculum: this model's format cannot write the wanted calls ({reasons[0]:.300})"
        )
    return f"curriculum: {len(wanting)} of {len(tasks)} tasks name the wanted calls, and are given their beginning"


def thinking_prefix(policy: TokenPolicy) -> Ids:
    """The ids that a thought begins with in this model's format; none where the template's header opens one already.

    Found by writing turns that differ in their thoughts alone. `CapabilityError` where the format has no thought before calls.
    """
    if policy.dialect.parse("x").problem is ParseProblem.UNCLOSED:
        return ()
    reason = "its calls and its answers open a thought in different ways"
    try:
        prompt = policy.open(_ASKED, (_TOOL,))
        pairs = [
            [policy.written(prompt, replace(message, reasoning=why)) for why in ("Because", "no")]
            for message in (_CALL, _ANSWER)
        ]
        before_call, before_answer = (_shared(*pair) for pair in pairs)
        opened = (
            policy.dialect.parse(policy.tokenizer.decode(before_call) + "x").problem
            is ParseProblem.UNCLOSED
        )
        if before_call == before_answer and before_call and opened:
            return before_call
    except DialectError as error:
        reason = f"{error!s:.200}"
    raise CapabilityError(
        f"training.rl.enforce_thinking: this model's format has no thought before calls and answers ({reason}); use a model whose "
        "template writes thoughts, a switch that lets it (model.template_switches), model.dialect=tagged, or leave it out"
    )


def call_prefix(policy: TokenPolicy, task: Task) -> Ids:
    """The ids that any call begins with in this format; none where nothing but a name tells a call from an answer."""
    names = [call.name or tool.name for call in task.expect.wanted for tool in task.tools]
    if not names:
        return ()
    name = names[0]
    other = ("b" if name.startswith("a") else "a") + name
    calls = [Message("assistant", tool_calls=(ToolCall(called),)) for called in (name, other)]
    prompt = policy.open(task.messages, task.tools)
    try:
        first, second, answer = (policy.written(prompt, message) for message in (*calls, _ANSWER))
    except DialectError:
        return ()
    opening, decode = _shared(first, second), policy.tokenizer.decode
    return () if decode(answer).startswith(decode(opening)) else opening


def _shared(first: Ids, second: Ids) -> Ids:
    """What both begin with."""
    differs = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[: next(differs, min(len(first), len(second)))]


def failure_of(task: Task, episode: Episode) -> Failure | None:
    """How the first turn failed; None where it did not, or the program broke the episode off."""
    if not episode.turns or episode.ending is EpisodeStatus.FAILED:
        return None
    outcome = episode.outcomes[0]
    if outcome is TurnOutcome.TRUNCATED or episode.turns[0].problem is ParseProblem.UNCLOSED:
        return Failure.UNFINISHED
    words = outcome is TurnOutcome.ANSWER and all(choice.wanted for choice in task.expect.choices)
    return Failure.OTHERWISE if words or outcome is TurnOutcome.MALFORMED else None


def retry_prefix(policy: TokenPolicy, task: Task, episode: Episode, thinking: bool) -> Ids | None:
    """What a second try is given; None where there is none.

    What is unfinished is given back without its end mark. Any other failure begins anew with the opening of a call, where that says
    more than was given before, and no thought has to come first.
    """
    failure, turn = failure_of(task, episode), episode.turns[0] if episode.turns else None
    if failure is None or turn is None:
        return None
    if failure is Failure.UNFINISHED:
        ended = turn.tokens[-1:] and turn.tokens[-1] in policy.params.stop_ids
        given = (*turn.given, *(turn.tokens[:-1] if ended else turn.tokens))
    else:
        given = () if thinking else call_prefix(policy, task)
        if len(given) <= len(turn.given) or given[: len(turn.given)] != turn.given:
            return None
    return given if policy.fits(Prompt((), (), turn.prompt, given=given)) else None


def retries(
    groups: Sequence[RolloutGroup], stage: RLEnv, policy: TokenPolicy, rl: RlSection
) -> list[RolloutGroup]:
    """The groups with at most `two_phase_samples_per_group` second tries each, of the first that failed and can go on."""
    chosen: list[tuple[int, Task, Ids]] = []
    for number, group in enumerate(groups):
        begun = (
            retry_prefix(policy, group.task, episode, rl.enforce_thinking)
            for episode in group.episodes
        )
        able = (given for given in begun if given is not None)
        chosen += [
            (number, group.task, given) for given in islice(able, rl.two_phase_samples_per_group)
        ]
    tasks = [task for _, task, _ in chosen]
    rules = [replace(stage.rules(task), given=given) for _, task, given in chosen]
    first = sum(len(group.episodes) for group in groups)
    episodes = run_episodes(policy, tasks, stage.registry, rules, first=first, clock=stage.clock)
    again: dict[int, list[Episode]] = {}
    for (number, _, _), episode in zip(chosen, episodes, strict=True):
        again.setdefault(number, []).append(episode)
    with stage.clock.on("reward"):
        return [
            group.joined_by(again.get(number, []), stage.score)
            for number, group in enumerate(groups)
        ]


def prefill_metrics(groups: Sequence[RolloutGroup], rl: RlSection, step: int) -> Metrics:
    """What was given in a step, where anything is: the curriculum's share, and how many tries failed and were continued."""
    metrics, tries = (
        Metrics(),
        [(group.task, episode) for group in groups for episode in group.first_tries().episodes],
    )
    if rl.curriculum.enabled:
        given = [len(episode.turns[0].given) for _, episode in tries if episode.turns]
        nothing = [
            not any(
                turn.given for episode in group.first_tries().episodes for turn in episode.turns[:1]
            )
            for group in groups
        ]
        metrics["curriculum_ratio"] = ratio_at(rl.curriculum, step)
        metrics["given_tokens"] = float(np.mean(given)) if given else 0.0
        metrics["given_nothing"] = float(np.mean(nothing))
    if rl.two_phase_samples_per_group:
        paid = [
            one.total for group in groups for one in group.paid[len(group.paid) - group.again :]
        ]
        metrics["failed_first"] = float(
            np.mean([failure_of(task, episode) is not None for task, episode in tries])
        )
        metrics["continued"] = float(len(paid))
        metrics |= {"continued_reward": float(np.mean(paid))} if paid else {}
    return metrics
