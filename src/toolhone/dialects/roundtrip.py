"""Is what was written read back, and which call does a tool's result answer?

`check_reading` is applied to every assistant turn that is rendered for training: a turn that would be read as something else than
the message it came from is refused, with a sentence that names the loss. White space at the ends of texts does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolhone.dialects.base import Problem, Reply
from toolhone.errors import DialectError
from toolhone.schema import Message


def check_reading(message: Message, reply: Reply) -> None:
    """`DialectError` when `reply`, read from the text written for `message`, says something else."""
    if tuple(message.tool_calls) != reply.calls:
        raise DialectError(_lost_calls(message, reply))
    if _text(message.content) != _text(reply.content):
        raise DialectError(
            f"the dialect does not keep the assistant's text{' beside its calls' if reply.calls else ''}: "
            f"{_text(message.content)!r:.80} is read back as {_text(reply.content)!r:.80}"
        )
    if _text(message.reasoning) != _text(reply.reasoning):
        raise DialectError(
            f"the dialect does not keep the assistant's reasoning: {_text(message.reasoning)!r:.60} is read back as "
            f"{_text(reply.reasoning)!r:.60}"
        )
    if reply.problem is not Problem.NONE:
        raise DialectError(f"the dialect cannot read back its own writing of {message.content!r:.60}: {reply.problem.value}")


def _lost_calls(message: Message, reply: Reply) -> str:
    wrote, read = len(message.tool_calls), len(reply.calls)
    if wrote != read:
        return f"the dialect does not keep the assistant's calls: {wrote} written, {read} read back ({reply.problem.value})"
    pair = next((a, b) for a, b in zip(message.tool_calls, reply.calls, strict=True) if a != b)
    return f"the dialect changes a call: {pair[0].to_dict()!r:.100} is read back as {pair[1].to_dict()!r:.100}"


def _text(text: str | None) -> str:
    return (text or "").strip()


def without_stop(text: str, stop: Sequence[str]) -> str:
    """The text without a stop mark at its end."""
    return next((text[: -len(mark)] for mark in stop if text.endswith(mark)), text)


@dataclass(frozen=True)
class Link:
    """A tool's result: the id of the call it answers, and the tool's name (None when nothing tells)."""

    id: str
    name: str | None


def call_ids(messages: Sequence[Message]) -> list[list[str]]:
    """For each message the ids of its calls, numbered through the conversation: nine letters and digits each."""
    ids: list[list[str]] = []
    count = 0
    for message in messages:
        ids.append([f"call{count + k:05d}" for k in range(len(message.tool_calls))])
        count += len(message.tool_calls)
    return ids


def link_results(messages: Sequence[Message]) -> list[Link | None]:
    """For each tool message the call it answers: by its id among the last calls, else the first that is still unanswered."""
    links: list[Link | None] = []
    waiting: list[tuple[str | None, Link]] = []
    for message, ids in zip(messages, call_ids(messages), strict=True):
        if message.role == "assistant":
            waiting = [(call.id, Link(new, call.name)) for call, new in zip(message.tool_calls, ids, strict=True)]
        if message.role != "tool":
            links.append(None)
            continue
        by_id = [k for k, (old, _) in enumerate(waiting) if old is not None and old == message.tool_call_id]
        found = waiting.pop(by_id[0] if by_id else 0)[1] if waiting else Link("call00000", None)
        links.append(Link(found.id, message.name or found.name))
    return links
