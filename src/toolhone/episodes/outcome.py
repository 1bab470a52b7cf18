"""What each assistant turn came to, and what follows from it.

    outcome = outcome_of(turn, task.tools)      # VALID_CALLS, UNKNOWN_TOOL, ...
    rules.after(outcome)                        # Then.FEED_BACK, Then.STOP or Then.PENALISE

A turn has exactly one outcome: the first that applies, in the order of the list. What follows is set for each kind of fault: its
error goes back to the model and it may try again (`FEED_BACK`), the episode ends (`STOP`), or it ends and what it earned is
lessened (`PENALISE`; by how much is said where rewards are). Nothing is run here.
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
    """What follows a turn with a fault."""

    FEED_BACK = "feed_back"
    STOP = "stop"
    PENALISE = "penalise"


FAULTS = (TurnOutcome.MALFORMED, TurnOutcome.UNKNOWN_TOOL, TurnOutcome.BAD_ARGUMENTS)
"""What may be fed back. A truncated turn always ends an episode, since there is nothing to answer; it may cost."""


@dataclass(frozen=True)
class EpisodeRules:
    """How far to play: at most `max_turns` assistant turns; with `first_call_only`, not beyond the first turn with calls.

    then: what follows a fault; a malformed turn stops, and the errors of calls go back, where nothing else is said. stop_tools:
    tools whose call ends the episode as an answer. too_many_turns: whether to be stopped by `max_turns` costs. given: ids that the
    first reply begins with, in place of those that the policy gives to every reply.
    """

    max_turns: int = 8
    first_call_only: bool = False
    then: Mapping[TurnOutcome, OnFault] = field(default_factory=dict)
    stop_tools: frozenset[str] = frozenset()
    too_many_turns: OnFault = OnFault.STOP
    given: tuple[int, ...] = ()

    def after(self, outcome: TurnOutcome) -> OnFault:
        """What follows this outcome."""
        usual = (
            OnFault.STOP
            if outcome in (TurnOutcome.MALFORMED, TurnOutcome.TRUNCATED)
            else OnFault.FEED_BACK
        )
        return self.then.get(outcome, usual)


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


_ADVICE: Mapping[ParseProblem, str] = {
    ParseProblem.NOT_JSON: "the call could not be read: its body is not well-formed",
    ParseProblem.NOT_A_CALL: "the call could not be read: it has no name, or another shape than a call",
    ParseProblem.BAD_ARGUMENTS: "the call could not be read: its arguments are no mapping",
    ParseProblem.UNCLOSED: "the call could not be read: it has no end",
    ParseProblem.STRAY_MARK: "there is a mark of a call without a call",
    ParseProblem.STRAY_TEXT: "text stands beside the call, where there is no room for it",
}


def complaint(turn: Turn) -> Message:
    """What the model is told after a turn that could not be read."""
    return Message(
        "user",
        f"Error: {_ADVICE.get(turn.problem, 'your message could not be read')}. Write it again.",
    )


def final_answer(turn: Turn, stop_tools: frozenset[str]) -> str:
    """The answer in a call of a stop tool: its only argument, or the one named `answer`, else all of them as text."""
    call = next(call for call in turn.message.tool_calls if call.name in stop_tools)
    values = dict(call.arguments)
    found = (
        values["answer"]
        if "answer" in values
        else next(iter(values.values()))
        if len(values) == 1
        else values
    )
    return found if isinstance(found, str) else str(found)
