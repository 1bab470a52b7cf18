"""One played task, as a generator that yields requests and is sent the answers; it does no I/O.

    request = next(play := episode(task, policy, rules))    # SampleRequest(prompt): send a Turn
    request = play.send(turn)            # ToolRequest(calls): send one ToolResult for each

At the end, `StopIteration` carries the `Episode`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Any

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.policy import Policy, Prompt, Turn
from toolhone.schema import Json, Message, Task, Tool, ToolCall
from toolhone.tools.result import ToolResult


class EpisodeStatus(StrEnum):
    """How an episode ended."""

    ANSWERED = "answered"
    """The last turn is plain text: the final answer."""
    CALLED = "called"
    """Stopped after the first turn with calls, on purpose."""
    MALFORMED = "malformed"
    """A turn could not be read without a problem; its calls were not run."""
    BAD_CALL = "bad_call"
    """A call of an unknown tool or against its schema, where the rules end the episode for it."""
    TRUNCATED = "truncated"
    """A turn reached the limit on new tokens or the context; its calls were not run."""
    TOO_MANY_TURNS = "too_many_turns"
    """The last turn that the rules allow still called tools."""
    NO_ROOM = "no_room"
    """The prompt of the next turn leaves no room in the context."""
    FAILED = "failed"
    """The program failed, not the model; `Episode.reason` says how."""


class TurnOutcome(StrEnum):
    """What an assistant turn came to: the first of these that applies."""

    TRUNCATED = "truncated"
    """Cut off by the limit on new tokens or by the context."""
    MALFORMED = "malformed"
    """Could not be read without a problem."""
    ANSWER = "answer"
    """Plain text."""
    FINAL_CALL = "final_call"
    """A call of a stop tool: the answer is in its arguments."""
    UNKNOWN_TOOL = "unknown_tool"
    """A call of a tool that the task does not offer."""
    BAD_ARGUMENTS = "bad_arguments"
    """Arguments that break the tool's schema."""
    VALID_CALLS = "valid_calls"
    """Calls of tools on offer, with arguments that fit."""


class OnFault(StrEnum):
    """What follows a turn with a fault: try again, end the episode, or end it and pay less."""

    FEED_BACK = "feed_back"
    STOP = "stop"
    PENALISE = "penalise"


FAULTS: Mapping[TurnOutcome, OnFault] = {
    TurnOutcome.MALFORMED: OnFault.STOP,
    TurnOutcome.UNKNOWN_TOOL: OnFault.FEED_BACK,
    TurnOutcome.BAD_ARGUMENTS: OnFault.FEED_BACK,
}
"""What may be fed back, with what follows by default. A truncated turn always ends an episode; it
may cost."""

# The model reads these sentences, so a change of words changes what it samples.
_ADVICE: Mapping[ParseProblem, str] = {
    ParseProblem.NOT_JSON: "the call could not be read: its body is not well-formed",
    ParseProblem.NOT_A_CALL: "the call could not be read: it has no name, "
    "or another shape than a call",
    ParseProblem.BAD_ARGUMENTS: "the call could not be read: its arguments are no mapping",
    ParseProblem.UNCLOSED: "the call could not be read: it has no end",
    ParseProblem.STRAY_MARK: "there is a mark of a call without a call",
    ParseProblem.STRAY_TEXT: "text stands beside the call, where there is no room for it",
}


@dataclass(frozen=True)
class EpisodeRules:
    """How far to play: at most `max_turns` assistant turns, or up to the first turn with calls.

    `then`: what follows a fault, where it differs from `FAULTS`.
    `stop_tools`: tools whose call is the answer. `too_many_turns`: whether `max_turns` costs.
    `prefill`: ids that the first reply begins with, in place of the policy's own.
    """

    max_turns: int = 8
    first_call_only: bool = False
    then: Mapping[TurnOutcome, OnFault] = field(default_factory=dict)
    stop_tools: frozenset[str] = frozenset()
    too_many_turns: OnFault = OnFault.STOP
    prefill: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What an episode holds beside its turns where a program outside, an agent, played it.

    messages, tools: the conversation at its end, as the agent saw it. reward: what it posted, a
    number or named parts. breaks: requests that did not continue the last turn, by kind. ignored:
    settings of requests in place of which the policy's held. failure: how the agent failed, or "".
    """

    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    reward: float | Mapping[str, float] | None = None
    breaks: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Episode:
    """One played task; `outcomes[i]` and `results[i]` belong to `turns[i]`.

    `penalties` counts the turns that the rules penalise; `final_call` is the answer to a stop tool.
    `state` is that of the episode's world at its end, None for a world without one; `states` are
    those after each round of calls. `recording`: of an episode that an agent played.
    """

    task_id: str
    turns: tuple[Turn, ...]
    results: tuple[tuple[ToolResult, ...], ...]
    ending: EpisodeStatus
    reason: str = ""
    outcomes: tuple[TurnOutcome, ...] = ()
    penalties: int = 0
    final_call: str | None = None
    state: Mapping[str, Json] | None = None
    states: tuple[Mapping[str, Json] | None, ...] = ()
    recording: Recording | None = None

    def prefix(self, turns: int) -> Episode:
        """The episode as it was after its first turns, with the state of then."""
        if turns >= len(self.turns):
            return self
        rounds = sum(bool(results) for results in self.results[:turns])
        return replace(
            self,
            turns=self.turns[:turns],
            results=self.results[:turns],
            outcomes=self.outcomes[:turns],
            ending=EpisodeStatus.CALLED,
            penalties=0,
            final_call=None,
            state=self.states[rounds - 1] if 0 < rounds <= len(self.states) else None,
        )

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls that could be read, over all turns."""
        return tuple(call for turn in self.turns for call in turn.message.tool_calls)

    @property
    def answer(self) -> str | None:
        """The final text, when the episode ended with one."""
        if self.final_call is not None or self.ending is not EpisodeStatus.ANSWERED:
            return self.final_call
        return self.turns[-1].message.content or ""


@dataclass(frozen=True)
class SampleRequest:
    """A prompt to continue; the answer is a `Turn`."""

    prompt: Prompt
    turn: int


@dataclass(frozen=True)
class ToolRequest:
    """Calls to run; the answer is one `ToolResult` for each, in their order."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Awaited:
    """Something outside, such as the next request of an agent; the answer is its result."""

    future: Future[list[Any]]


Request = SampleRequest | ToolRequest | Awaited
Answer = Turn | Sequence[Any]
"""A turn, the results of tools, or what was awaited."""
Play = Generator[Request, Answer, Episode]


def episode(task: Task, policy: Policy, rules: EpisodeRules) -> Play:
    """Play one task; the return value of the generator is the `Episode`.

    A tool that fails does not end an episode: its result goes back to the model. Errors of the
    program once the task is under way (or that the driver throws in) end the episode as `FAILED`; a
    first prompt that cannot be written is raised.
    """
    history = PlayState()
    prompt = policy.open(task.messages, task.tools)
    prompt = replace(prompt, prefill=rules.prefill) if rules.prefill else prompt
    try:
        ending, reason = (yield from _turns(prompt, policy, rules, history)), ""
    except Exception as error:
        ending, reason = EpisodeStatus.FAILED, f"{type(error).__name__}: {error}"
    return history.episode(task.id, rules, ending, reason)


@dataclass
class PlayState:
    """The turns so far, and what they become: an `Episode`."""

    turns: list[Turn] = field(default_factory=list)
    results: list[tuple[ToolResult, ...]] = field(default_factory=list)
    outcomes: list[TurnOutcome] = field(default_factory=list)

    def add(self, turn: Turn, tools: Sequence[Tool], rules: EpisodeRules) -> TurnOutcome:
        """Append a turn, with an id on each call: the model's if it is new, else a counted one."""
        used = [call.id for earlier in self.turns for call in earlier.message.tool_calls]
        calls: list[ToolCall] = []
        for call in turn.message.tool_calls:
            if call.id is None or call.id in used:
                names = (f"call{number:05d}" for number in count(len(used)))
                call = replace(call, id=next(name for name in names if name not in used))
            calls.append(call)
            used.append(call.id)
        self.turns.append(replace(turn, message=replace(turn.message, tool_calls=tuple(calls))))
        self.results.append(())
        self.outcomes.append(outcome_of(self.turns[-1], tools, rules.stop_tools))
        return self.outcomes[-1]

    def episode(
        self, task_id: str, rules: EpisodeRules, ending: EpisodeStatus, reason: str = ""
    ) -> Episode:
        """The episode of these turns, with its final call and the penalties of the rules."""
        turns, outcomes, final_call = tuple(self.turns), tuple(self.outcomes), None
        if outcomes[-1:] == (TurnOutcome.FINAL_CALL,):
            # The answer in a call of a stop tool: its argument `answer`, its only one, or all.
            calls = turns[-1].message.tool_calls
            values = dict(next(call for call in calls if call.name in rules.stop_tools).arguments)
            only = next(iter(values.values())) if len(values) == 1 else values
            final_call = str(values.get("answer", only))
        faults, then = (*FAULTS, TurnOutcome.TRUNCATED), rules.then
        penalties = sum(one in faults and then.get(one) is OnFault.PENALISE for one in outcomes)
        too_many = ending is EpisodeStatus.TOO_MANY_TURNS
        penalties += too_many and rules.too_many_turns is OnFault.PENALISE
        results = tuple(self.results)
        return Episode(task_id, turns, results, ending, reason, outcomes, penalties, final_call)


def _turns(
    prompt: Prompt, policy: Policy, rules: EpisodeRules, history: PlayState
) -> Generator[Request, Answer, EpisodeStatus]:
    while policy.fits(prompt):
        answer = yield SampleRequest(prompt, len(history.turns))
        assert isinstance(answer, Turn), "a sample request needs a Turn"
        outcome = history.add(answer, prompt.tools, rules)
        turn = history.turns[-1]
        if (ending := ending_after(outcome, rules)) is not None:
            return ending
        if outcome is not TurnOutcome.MALFORMED:
            calls = turn.message.tool_calls
            answer = yield ToolRequest(calls)
            assert not isinstance(answer, Turn), "a tool request needs results"
            wrong = f"{len(calls)} calls need as many results, got {len(answer)}"
            assert len(answer) == len(calls), wrong
            history.results[-1] = tuple(answer)
            if rules.first_call_only:
                return EpisodeStatus.CALLED
        if len(history.turns) == rules.max_turns:
            return EpisodeStatus.TOO_MANY_TURNS
        prompt = policy.extend(prompt, turn, messages_after(turn, history.results[-1]))
    return EpisodeStatus.NO_ROOM


def ending_after(outcome: TurnOutcome, rules: EpisodeRules) -> EpisodeStatus | None:
    """How the episode ends after a turn with this outcome; None where it goes on."""
    if outcome is TurnOutcome.TRUNCATED:
        return EpisodeStatus.TRUNCATED
    if outcome in (TurnOutcome.ANSWER, TurnOutcome.FINAL_CALL):
        return EpisodeStatus.ANSWERED
    if {**FAULTS, **rules.then}.get(outcome, OnFault.FEED_BACK) is OnFault.FEED_BACK:
        return None
    malformed = outcome is TurnOutcome.MALFORMED
    return EpisodeStatus.MALFORMED if malformed else EpisodeStatus.BAD_CALL


def advice_on(problem: ParseProblem) -> str:
    """What the model is told about a turn that could not be read."""
    advice = _ADVICE.get(problem, "your message could not be read")
    return f"Error: {advice}. Write it again."


def messages_after(turn: Turn, results: Sequence[ToolResult]) -> list[Message]:
    """What the model reads after a turn: the results of its calls, or why it could not be read."""
    if turn.problem is not ParseProblem.NONE:
        return [Message("user", advice_on(turn.problem))]
    return [
        Message("tool", result.content, tool_call_id=call.id, name=call.name)
        for call, result in zip(turn.message.tool_calls, results, strict=True)
    ]


def outcome_of(
    turn: Turn, tools: Sequence[Tool], stop_tools: frozenset[str] = frozenset()
) -> TurnOutcome:
    """The outcome of a turn for a task with these tools."""
    calls = turn.message.tool_calls
    if turn.stop_reason is StopReason.LENGTH:
        return TurnOutcome.TRUNCATED
    if turn.problem is not ParseProblem.NONE:
        return TurnOutcome.MALFORMED
    if not calls:
        return TurnOutcome.ANSWER
    if any(call.name in stop_tools for call in calls):
        return TurnOutcome.FINAL_CALL
    offered = {tool.name: tool for tool in tools}
    if any(call.name not in offered for call in calls):
        return TurnOutcome.UNKNOWN_TOOL
    if any(offered[call.name].problems(call.arguments) for call in calls):
        return TurnOutcome.BAD_ARGUMENTS
    return TurnOutcome.VALID_CALLS
