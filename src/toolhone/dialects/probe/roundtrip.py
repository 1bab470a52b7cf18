"""Is what was written read back, and which call does a tool's result answer?

`check_reading` is applied to every assistant turn that is rendered for training: a turn that would be read as something else than
the message it came from is refused, with a sentence that names the loss. White space at the ends of texts does not count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.errors import DialectError
from toolhone.schema import Message, ToolCall


def check_reading(message: Message, reply: ParsedReply, text: str) -> None:
    """`DialectError` when `reply`, read from the `text` written for `message`, says something else."""
    wrote, read = message.tool_calls, reply.calls
    same = wrote == read and _spelled(wrote) == _spelled(read)
    if same and _said(message) == _said(reply) and reply.problem is ParseProblem.NONE:
        return
    if len(wrote) != len(read):
        what = f"{len(wrote)} calls, {len(read)} read back"
    elif not same:
        pair = next(
            (a, b)
            for a, b in zip(wrote, read, strict=True)
            if a != b or _spelled([a]) != _spelled([b])
        )
        what = f"the call {pair[0].to_dict()!r:.100}, read back as {pair[1].to_dict()!r:.100}"
    elif _said(message) != _said(reply):
        what = f"the text{' beside a call' if wrote else ''} {_said(message)!r:.100}, read back as {_said(reply)!r:.100}"
    else:
        what = f"a turn, read back as {reply.problem.value}"
    raise DialectError(
        f"a message cannot be kept in this dialect: {what}; written was {text!r:.200}"
    )


def _spelled(calls: Sequence[ToolCall]) -> str:
    """The arguments as text, so that 1, 1.0 and true, which are equal in Python, are told apart."""
    return json.dumps([call.arguments for call in calls], sort_keys=True, default=str)


def _said(message: Message | ParsedReply) -> str:
    """Reasoning and content without white space at their ends."""
    reasoning = (message.reasoning or "").strip()
    return "\n".join([*([f"({reasoning})"] if reasoning else []), (message.content or "").strip()])


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
            waiting = [
                (call.id, Link(new, call.name))
                for call, new in zip(message.tool_calls, ids, strict=True)
            ]
        if message.role != "tool":
            links.append(None)
            continue
        by_id = [
            k
            for k, (old, _) in enumerate(waiting)
            if old is not None and old == message.tool_call_id
        ]
        found = waiting.pop(by_id[0] if by_id else 0)[1] if waiting else Link("call00000", None)
        links.append(Link(found.id, message.name or found.name))
    return links
