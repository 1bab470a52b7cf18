"""One talk with a person: what the user says, and everything the model then says and does until it answers.

    dialogue = Dialogue(policy, registry)
    for event in dialogue.say("What is 12 * 7?"):
        ...                                        # Turn, (ToolCall, ToolResult), ..., Turn

Tools run as the model calls them. A turn that cannot be read, or is cut off, ends the answer and is an event like any other. The
driver (`driver.play`) is for many tasks at once; this is for one person who watches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolhone.backends.base import StopReason
from toolhone.dialects.base import Problem
from toolhone.episodes.policy import Policy, Prompt, Turn, speak
from toolhone.errors import DataError
from toolhone.schema import Message, ToolCall
from toolhone.tools.registry import Registry, ToolResult

Event = Turn | tuple[ToolCall, ToolResult]


class Dialogue:
    """A talk in progress. `messages` is the whole of it, in the form a conversation has on disk."""

    def __init__(self, policy: Policy, registry: Registry, max_turns: int = 8) -> None:
        self._policy, self._registry, self._max_turns = policy, registry, max_turns
        self._prompt: Prompt | None = None
        self._last: Turn | None = None
        self._said = 0
        self.messages: list[Message] = []

    def say(self, text: str) -> Iterator[Event]:
        """Tell the model something and follow what it does, until it answers or `max_turns` have passed."""
        new = [Message("user", text)]
        for _ in range(self._max_turns):
            turn = self._answer(new)
            yield turn
            if turn.problem is not Problem.NONE or turn.stop_reason is StopReason.LENGTH or not turn.message.tool_calls:
                return
            new = []
            for call, result in zip(turn.message.tool_calls, self._registry.run_all(turn.message.tool_calls), strict=True):
                yield call, result
                new.append(Message("tool", result.content, tool_call_id=call.id, name=call.name))
            self.messages += new

    def _answer(self, new: list[Message]) -> Turn:
        if new[0].role == "user":
            self.messages += new
        if self._prompt is None or self._last is None or self._last.stop_reason is StopReason.LENGTH:
            self._prompt = self._policy.open(self.messages, self._registry.tools)
        else:
            self._prompt = self._policy.extend(self._prompt, self._last, new)
        if not self._policy.fits(self._prompt):
            raise DataError(f"the talk fills the model's context ({len(self._prompt.tokens)} tokens); start a new one")
        turn = speak(self._policy, self._prompt, self._said)
        calls = [replace(call, id=call.id or f"call{self._said:03d}{i:02d}") for i, call in enumerate(turn.message.tool_calls)]
        self._said += 1
        self._last = replace(turn, message=replace(turn.message, tool_calls=tuple(calls)))
        self.messages.append(self._last.message)
        return self._last
