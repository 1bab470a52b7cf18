"""From a talk to a conversation that can be trained on: good exchanges are kept whole, the others are left out and counted.

    transcript = transcript_of(dialogue, registry.tools, "chat-1")
    transcript.conversation        # None when no exchange is good
    transcript.left_out            # messages by reason

An exchange is good when the model answered, and when the data check finds nothing in it (a call of a tool that was not on offer, or
with arguments against its schema, is nothing to learn from). Nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from toolhone.doctor.checks import check
from toolhone.episodes.chat_session import ChatEnd, ChatSession
from toolhone.schema import Conversation, Message, Tool

SOURCE = "chat"
REASONS = {
    ChatEnd.UNREADABLE: "their turn was cut off or could not be read",
    ChatEnd.CUT_OFF: "their turn was cut off or could not be read",
    ChatEnd.TOO_MANY_TURNS: "the model went on calling and did not answer",
    ChatEnd.STOPPED: "their answer was stopped",
}
BAD_CALL = "a call in them does not fit its tool"


@dataclass(frozen=True)
class Transcript:
    """`conversation` holds the good exchanges; `left_out` counts the messages of the others by reason."""

    conversation: Conversation | None
    left_out: Mapping[str, int]
    at_end: bool = False
    """Whether everything left out stands after everything kept."""

    def sentences(self) -> list[str]:
        """What was left out, a sentence for each reason."""
        where = " at the end" if self.at_end else ""
        return [
            f"{count} messages{where} are not saved: {reason}"
            for reason, count in self.left_out.items()
        ]


def transcript_of(dialogue: ChatSession, tools: Sequence[Tool], name: str) -> Transcript:
    """The good exchanges of a talk as one conversation with the id `name`."""
    kept: list[Message] = []
    left_out: Counter[str] = Counter()
    at_end = True
    places = [*(exchange.start for exchange in dialogue.exchanges), len(dialogue.messages)]
    for exchange, (start, end) in zip(dialogue.exchanges, pairwise(places), strict=True):
        messages = dialogue.messages[start:end]
        reason = REASONS.get(exchange.ended) or _fault(messages, tools)
        if reason:
            left_out[reason] += len(messages)
        else:
            at_end = at_end and not left_out
            kept += messages
    conversation = Conversation(tuple(kept), tuple(tools), name, SOURCE) if kept else None
    return Transcript(conversation, left_out, at_end)


def _fault(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """Why an answered exchange is nothing to learn from; empty when it is."""
    findings = check([Conversation(tuple(messages), tuple(tools))], SOURCE)
    calls = any(message.tool_calls for message in messages)
    return "" if not findings.findings else BAD_CALL if calls else "they say nothing"
