"""What each assistant turn came to, and what follows from it.

    outcome = outcome_of(turn, task.tools)      # VALID_CALLS, UNKNOWN_TOOL, ...
    rules.after(outcome)                        # OnFault.FEED_BACK, STOP or PENALISE

A turn has exactly one outcome: the first that applies, in the order of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.policy import Turn
from toolhone.schema import Message, Tool


class TurnOutcome(StrEnum):
    """What an assistant turn came to."""

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


FAULTS = (TurnOutcome.MALFORMED, TurnOutcome.UNKNOWN_TOOL, TurnOutcome.BAD_ARGUMENTS)
"""What may be fed back. A truncated turn always ends an episode; it may cost."""


@dataclass(frozen=True)
class EpisodeRules:
    """How far to play: at most `max_turns` assistant turns, or up to the first turn with calls.

    `then`: what follows a fault; by default a malformed turn stops, and errors of calls go back.
    `stop_tools`: tools whose call is the answer. `too_many_turns`: whether `max_turns` costs.
    `prefill`: ids that the first reply begins with, in place of the policy's own.
    """

    max_turns: int = 8
    first_call_only: bool = False
    then: Mapping[TurnOutcome, OnFault] = field(default_factory=dict)
    stop_tools: frozenset[str] = frozenset()
    too_many_turns: OnFault = OnFault.STOP
    prefill: tuple[int, ...] = ()

    def after(self, outcome: TurnOutcome) -> OnFault:
        stops = outcome in (TurnOutcome.MALFORMED, TurnOutcome.TRUNCATED)
        return self.then.get(outcome, OnFault.STOP if stops else OnFault.FEED_BACK)


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


def complaint(turn: Turn) -> Message:
    """The user message after a turn that could not be read."""
    advice = _ADVICE.get(turn.problem, "your message could not be read")
    return Message("user", f"Error: {advice}. Write it again.")


def final_answer(turn: Turn, stop_tools: frozenset[str]) -> str:
    """The answer in a call of a stop tool: its argument `answer`, its only one, or all as text."""
    call = next(call for call in turn.message.tool_calls if call.name in stop_tools)
    values = dict(call.arguments)
    answer = values.get("answer", next(iter(values.values())) if len(values) == 1 else values)
    return answer if isinstance(answer, str) else str(answer)
