"""One conversation with a person: a message of the user, and what the model does until it answers.

    session = ChatSession(policy, registry)
    for event in session.say("What is 12 * 7?"): ...    # Turn, (ToolCall, ToolResult), ..., Turn

A turn that cannot be read, or is cut off, ends the answer and is an event like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.doctor.checks import check
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import DataError
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult

Event = Turn | tuple[ToolCall, ToolResult]


class ChatEnd(StrEnum):
    """How an exchange ended."""

    ANSWERED = "answered"
    UNREADABLE = "unreadable"
    """The last turn could not be read; its calls were not run."""
    CUT_OFF = "cut_off"
    """The last turn reached the limit on new tokens; its calls were not run."""
    TOO_MANY_TURNS = "too_many_turns"
    """The last turn that was allowed still called tools."""
    STOPPED = "stopped"
    """Interrupted, or still in progress."""


REASONS = {
    ChatEnd.UNREADABLE: "their turn was cut off or could not be read",
    ChatEnd.CUT_OFF: "their turn was cut off or could not be read",
    ChatEnd.TOO_MANY_TURNS: "the model kept calling tools and did not answer",
    ChatEnd.STOPPED: "their answer was stopped",
}
"""Why the messages of an exchange are not kept."""


@dataclass(frozen=True)
class _Position:
    """What the next turn continues: the last prompt and turn, which ends `answered` messages."""

    prompt: Prompt | None = None
    last: Turn | None = None
    answered: int = 0


@dataclass
class Exchange:
    """A message of the user and all that followed, from message `start` of the conversation."""

    start: int
    position: _Position
    turns: list[Turn] = field(default_factory=list)
    ended: ChatEnd = ChatEnd.STOPPED


class ChatSession:
    """A conversation in progress: `messages` is all of it, `exchanges` its parts.

    The context `thinking` is entered while the model writes.
    """

    def __init__(
        self,
        policy: TokenPolicy,
        registry: Registry,
        max_turns: int = 8,
        thinking: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._policy, self._registry = policy, registry
        self._max_turns, self._thinking = max_turns, thinking
        self._position, self._turns = _Position(), 0
        self.messages: list[Message] = []
        self.exchanges: list[Exchange] = []

    def say(self, text: str) -> Iterator[Event]:
        """Send a message, and follow the model until it answers or `max_turns` have passed.

        A previous exchange that was not followed to its end is undone.
        """
        if self.exchanges and self.exchanges[-1].ended is ChatEnd.STOPPED:
            self.undo()
        exchange = Exchange(len(self.messages), self._position)
        self.exchanges.append(exchange)
        self.messages.append(Message("user", text))
        for _ in range(self._max_turns):
            turn = self._next_turn()
            exchange.turns.append(turn)
            calls = turn.message.tool_calls
            if turn.stop_reason is StopReason.LENGTH:
                exchange.ended = ChatEnd.CUT_OFF
            elif turn.problem is not ParseProblem.NONE:
                exchange.ended = ChatEnd.UNREADABLE
            elif not calls:
                exchange.ended = ChatEnd.ANSWERED
            yield turn
            if exchange.ended is not ChatEnd.STOPPED:
                return
            for call, result in zip(calls, self._registry.run_all(calls), strict=True):
                answer = Message("tool", result.content, tool_call_id=call.id, name=call.name)
                self.messages.append(answer)
                yield call, result
        exchange.ended = ChatEnd.TOO_MANY_TURNS

    def undo(self) -> str | None:
        """Remove the last exchange; returns the user's message, None when there is none."""
        if not self.exchanges:
            return None
        exchange = self.exchanges.pop()
        removed = self.messages[exchange.start :]
        del self.messages[exchange.start :]
        self._position = exchange.position
        return (removed[0].content if removed else None) or ""

    def _next_turn(self) -> Turn:
        before, last = self._position, self._position.last
        if before.prompt is None or last is None or last.stop_reason is StopReason.LENGTH:
            prompt = self._policy.open(self.messages, self._registry.tools)
        else:
            prompt = self._policy.extend(before.prompt, last, self.messages[before.answered :])
        if not self._policy.fits(prompt):
            raise DataError(
                f"the conversation fills the model's context ({len(prompt.tokens)} tokens); "
                "start a new one"
            )
        with self._thinking():
            turn = self._policy.complete(prompt, self._turns)
        calls = tuple(
            replace(call, id=call.id or f"call{self._turns:03d}{i:02d}")
            for i, call in enumerate(turn.message.tool_calls)
        )
        self._turns += 1
        turn = replace(turn, message=replace(turn.message, tool_calls=calls))
        self.messages.append(turn.message)
        self._position = _Position(prompt, turn, len(self.messages))
        return turn


@dataclass(frozen=True)
class Transcript:
    """`conversation` holds the good exchanges; `left_out` counts the other messages by reason."""

    conversation: Conversation | None
    left_out: Mapping[str, int]
    at_end: bool = False
    """Whether all that is left out follows all that is kept."""

    def sentences(self) -> list[str]:
        """One sentence for each reason."""
        where = " at the end" if self.at_end else ""
        counts = self.left_out.items()
        return [f"{count} messages{where} are not saved: {reason}" for reason, count in counts]


def transcript_of(session: ChatSession, tools: Sequence[Tool], name: str) -> Transcript:
    """The good exchanges as one conversation with the id `name`, for training.

    An exchange is good when the model answered and the data check finds nothing in it.
    """
    kept: list[Message] = []
    left_out: Counter[str] = Counter()
    at_end = True
    places = [*(exchange.start for exchange in session.exchanges), len(session.messages)]
    for exchange, (start, end) in zip(session.exchanges, pairwise(places), strict=True):
        messages = session.messages[start:end]
        reason = REASONS.get(exchange.ended)
        if reason is None and check([Conversation(tuple(messages), tuple(tools))], "chat").findings:
            calls = any(message.tool_calls for message in messages)
            reason = "a call in them does not fit its tool" if calls else "they are empty"
        if reason is not None:
            left_out[reason] += len(messages)
        else:
            at_end = at_end and not left_out
            kept += messages
    conversation = Conversation(tuple(kept), tuple(tools), name, "chat") if kept else None
    return Transcript(conversation, left_out, at_end)
