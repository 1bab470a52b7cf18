"""Calls of one decision that stand in two messages of the assistant, one right after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from toolhone.schema import Message
from toolhone.sources.base import Skip

JOINED = "calls in neighbouring messages of the assistant put into one turn"
UNEQUAL = "two turns of the assistant in a row with different weights"


def join_split_calls(messages: Sequence[Message], repairs: set[str]) -> tuple[Message, ...]:
    """Return the messages with neighbouring turns with calls as one, as their results follow it.

    No use produces a turn with calls behind one whose results are not there yet.
    """
    if not any(
        one.tool_calls and before.tool_calls for before, one in pairwise(messages)
    ) and isinstance(messages, tuple):
        return messages
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else Message("")
        if not (
            message.role == last.role == "assistant" and last.tool_calls and message.tool_calls
        ):
            joined.append(message)
            continue
        if last.weight != message.weight:
            raise Skip(UNEQUAL, f"{last.weight} and {message.weight}")
        repairs.add(JOINED)
        content, reasoning = (
            "\n\n".join(filter(None, both)) or None
            for both in ((last.content, message.content), (last.reasoning, message.reasoning))
        )
        calls = last.tool_calls + message.tool_calls
        joined[-1] = replace(last, content=content, reasoning=reasoning, tool_calls=calls)
    return tuple(joined)
