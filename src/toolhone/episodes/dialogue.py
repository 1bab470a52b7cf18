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
    """A talk in progress.

    `messages` is all of it, in the form a conversation has on disk; the first `whole` of them end in a turn that was not cut off
    and could be read.
    """

    def __init__(self, policy: Policy, registry: Registry, max_turns: int = 8) -> None:
        self._policy, self._registry, self._max_turns = policy, registry, max_turns
        self._prompt: Prompt | None = None
        self._last: Turn | None = None
        self._new: list[Message] = []
        self._said = 0
        self.messages: list[Message] = []
        self.whole = 0

    def say(self, text: str) -> Iterator[Event]:
        """Tell the model something and follow what it does, until it answers or `max_turns` have passed."""
        self._tell(Message("user", text))
        for _ in range(self._max_turns):
            turn = self._answer()
            yield turn
            if turn.problem is not Problem.NONE or turn.stop_reason is StopReason.LENGTH or not turn.message.tool_calls:
                return
            for call, result in zip(turn.message.tool_calls, self._registry.run_all(turn.message.tool_calls), strict=True):
                self._tell(Message("tool", result.content, tool_call_id=call.id, name=call.name))
                yield call, result

    def _tell(self, message: Message) -> None:
        """A message that the model has not answered yet."""
        self._new.append(message)
        self.messages.append(message)

    def _answer(self) -> Turn:
        if self._prompt is None or self._last is None or self._last.stop_reason is StopReason.LENGTH:
            prompt = self._policy.open(self.messages, self._registry.tools)
        else:
            prompt = self._policy.extend(self._prompt, self._last, self._new)
        if not self._policy.fits(prompt):
            raise DataError(f"the talk fills the model's context ({len(prompt.tokens)} tokens); start a new one")
        turn = speak(self._policy, prompt, self._said)
        calls = [replace(call, id=call.id or f"call{self._said:03d}{i:02d}") for i, call in enumerate(turn.message.tool_calls)]
        self._said += 1
        self._prompt, self._new = prompt, []
        self._last = replace(turn, message=replace(turn.message, tool_calls=tuple(calls)))
        self.messages.append(self._last.message)
        if turn.problem is Problem.NONE and turn.stop_reason is StopReason.STOP:
            self.whole = len(self.messages)
        return self._last
