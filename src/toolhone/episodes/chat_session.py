"""One talk with a person: what the user says, and everything the model then says and does until it answers.

    dialogue = Dialogue(policy, registry)
    for event in dialogue.say("What is 12 * 7?"):
        ...                                        # Turn, (ToolCall, ToolResult), ..., Turn
    dialogue.undo()                                # take the last exchange back

Tools run as the model calls them. A turn that cannot be read, or is cut off, ends the answer and is an event like any other. What
of a talk is worth training on is said in `transcript`. The driver (`driver.play`) is for many tasks at once; this is for one person
who watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.policy import Policy, Prompt, Turn, speak
from toolhone.errors import DataError
from toolhone.schema import Message, ToolCall
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
    """Not followed to its end: interrupted, or still going on."""


@dataclass(frozen=True)
class _Position:
    """Where the talk stood: enough to go on from there with the ids as they were."""

    messages: int = 0
    whole: int = 0
    prompt: Prompt | None = None
    last: Turn | None = None
    new: tuple[Message, ...] = ()


@dataclass
class Exchange:
    """What the user said and all that followed; its messages begin at index `start` of the talk's."""

    place: _Position
    turns: list[Turn] = field(default_factory=list)
    ended: ChatEnd = ChatEnd.STOPPED

    @property
    def start(self) -> int:
        return self.place.messages


class ChatSession:
    """A talk in progress.

    `messages` is all of it, in the form a conversation has on disk, and `exchanges` says which of them belong together; the first
    `whole` messages end in a turn that was not cut off and could be read. `thinking` is entered while the model writes.
    """

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        max_turns: int = 8,
        thinking: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._policy, self._registry, self._max_turns, self._thinking = (
            policy,
            registry,
            max_turns,
            thinking,
        )
        self._prompt: Prompt | None = None
        self._last: Turn | None = None
        self._new: list[Message] = []
        self._said = 0
        self.messages: list[Message] = []
        self.exchanges: list[Exchange] = []
        self.whole = 0

    def say(self, text: str) -> Iterator[Event]:
        """Tell the model something and follow what it does, until it answers or `max_turns` have passed.

        An exchange before this that was not followed to its end is taken back.
        """
        if self.exchanges and self.exchanges[-1].ended is ChatEnd.STOPPED:
            self.undo()
        place = _Position(
            len(self.messages), self.whole, self._prompt, self._last, tuple(self._new)
        )
        exchange = Exchange(place)
        self.exchanges.append(exchange)
        self._tell(Message("user", text))
        for _ in range(self._max_turns):
            turn = self._answer()
            exchange.turns.append(turn)
            ended = _ending(turn)
            exchange.ended = ended or exchange.ended
            yield turn
            if ended is not None:
                return
            for call, result in zip(
                turn.message.tool_calls,
                self._registry.run_all(turn.message.tool_calls),
                strict=True,
            ):
                self._tell(Message("tool", result.content, tool_call_id=call.id, name=call.name))
                yield call, result
        exchange.ended = ChatEnd.TOO_MANY_TURNS

    def undo(self) -> str | None:
        """Take the last exchange back and return what the user had said; None when nothing was said yet."""
        if not self.exchanges:
            return None
        place = self.exchanges.pop().place
        said = (
            self.messages[place.messages].content if len(self.messages) > place.messages else None
        )
        del self.messages[place.messages :]
        self.whole, self._prompt, self._last, self._new = (
            place.whole,
            place.prompt,
            place.last,
            list(place.new),
        )
        return said or ""

    def _tell(self, message: Message) -> None:
        """A message that the model has not answered yet."""
        self._new.append(message)
        self.messages.append(message)

    def _answer(self) -> Turn:
        if (
            self._prompt is None
            or self._last is None
            or self._last.stop_reason is StopReason.LENGTH
        ):
            prompt = self._policy.open(self.messages, self._registry.tools)
        else:
            prompt = self._policy.extend(self._prompt, self._last, self._new)
        if not self._policy.fits(prompt):
            raise DataError(
                f"the talk fills the model's context ({len(prompt.tokens)} tokens); start a new one"
            )
        with self._thinking():
            turn = speak(self._policy, prompt, self._said)
        calls = [
            replace(call, id=call.id or f"call{self._said:03d}{i:02d}")
            for i, call in enumerate(turn.message.tool_calls)
        ]
        self._said += 1
        self._prompt, self._new = prompt, []
        self._last = replace(turn, message=replace(turn.message, tool_calls=tuple(calls)))
        self.messages.append(self._last.message)
        if turn.problem is ParseProblem.NONE and turn.stop_reason is StopReason.STOP:
            self.whole = len(self.messages)
        return self._last


def _ending(turn: Turn) -> ChatEnd | None:
    """How this turn ends the exchange, or None when it has calls to run."""
    if turn.stop_reason is StopReason.LENGTH:
        return ChatEnd.CUT_OFF
    if turn.problem is not ParseProblem.NONE:
        return ChatEnd.UNREADABLE
    return None if turn.message.tool_calls else ChatEnd.ANSWERED
