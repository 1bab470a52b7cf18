"""The block of reasoning in front of an assistant's text: `<think>`, the reasoning, `</think>`, an empty line, the text.

Every call syntax reads it in the same way. Only a block at the very start counts; the same marks further on are plain text.
Nothing here knows what follows the block. A template with other marks has its own `ReasoningBlock`, found by probing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.schema import Message

OPEN = "<think>"
CLOSE = "</think>"


@dataclass(frozen=True)
class ReasoningBlock:
    """The marks around reasoning, without white space."""

    open: str = OPEN
    close: str = CLOSE


USUAL = ReasoningBlock()


def write_reasoning(reasoning: str) -> str:
    """The block for this reasoning, the empty line after it included."""
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n"


def read_after_reasoning(
    text: str, read: Callable[[str], ParsedReply], thought: ReasoningBlock = USUAL
) -> ParsedReply:
    """What `read` finds behind the block. A block without an end is `UNCLOSED`: nothing was said yet."""
    if not text.lstrip().startswith(thought.open):
        return read(text)
    reasoning, mark, rest = text.lstrip()[len(thought.open) :].partition(thought.close)
    if not mark:
        return ParsedReply(None, (), reasoning.strip(), ParseProblem.UNCLOSED)
    return replace(read(rest.lstrip("\n")), reasoning=reasoning.strip() or None)


def split_reasoning(message: Message) -> Message:
    """The message with a block at the start of its content moved to `reasoning`, where it has none yet."""
    if (
        message.role != "assistant"
        or message.reasoning is not None
        or not (message.content or "").lstrip().startswith(OPEN)
    ):
        return message
    reply = read_after_reasoning(message.content or "", ParsedReply)
    return (
        message
        if reply.problem is not ParseProblem.NONE
        else replace(message, content=reply.content, reasoning=reply.reasoning)
    )
