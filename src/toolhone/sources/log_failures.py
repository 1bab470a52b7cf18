"""Calls of a log that failed, by cause: the model's faults are not learned, others are.

A call of an unknown tool, one that breaks its tool's schema, and one that failed and that the model
then made with other arguments are the model's; a time-out, a limit or a fault of a server is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.schema.message import answered_calls
from toolhone.sources.log_parts import decode
from toolhone.sources.source import Context

UNKNOWN, MISFIT = "calls an unknown tool", "breaks the schema of its tool"
CORRECTED = "failed and was made again with other arguments"
ENVIRONMENT, UNEXPLAINED = "failed for its environment", "failed for no known reason"
_MODEL = (UNKNOWN, MISFIT, CORRECTED)
_ENVIRONMENT = re.compile(
    r"time[sd]?[ -]?out|rate.?limit|too many requests|quota|\b(429|50[0-9])\b|unavailable"
    r"|connection|overloaded|econn|network|internal server error|bad gateway",
    re.IGNORECASE,
)
_ERROR = re.compile(
    r"\s*(<error>|error\b|exception\b|traceback\b|\w*error:|failed:)", re.IGNORECASE
)
_HINT = re.compile(r"error|fail|success|\"ok\"|exception|traceback", re.IGNORECASE)
"""Where this finds nothing, no result says that its call failed."""
_ERROR_WORDS = ("error", "failed", "failure")


@dataclass(frozen=True)
class FailedCall:
    """A failed call: the place of its message, its number there, why, and the text that says so."""

    index: int
    number: int
    cause: str
    evidence: str


def weigh_failures(
    messages: Sequence[Message], tools: Sequence[Tool], failed: Sequence[Message], context: Context
) -> tuple[Message, ...]:
    """Return the messages with weight 0 for turns with a call that the model got wrong.

    failed: results that the log marks as failures. Calls are counted by cause in the context.
    """
    turns = list(messages)
    for failure in find_failures(messages, tools, failed):
        blamed = failure.cause in _MODEL
        effect = "not learned" if blamed else "learned"
        word = f"a turn with a call that {failure.cause}: {effect}"
        (context.repairs.add if blamed else context.notes.append)(word)
        if blamed:
            turns[failure.index] = replace(turns[failure.index], weight=0)
    context.notes[:] = dict.fromkeys(context.notes)
    return tuple(turns)


def find_failures(
    messages: Sequence[Message], tools: Sequence[Tool], failed: Sequence[Message] = ()
) -> Iterator[FailedCall]:
    """Yield the failed calls of a conversation, in order."""
    known = {tool.name: tool for tool in tools}
    suspects = [
        one
        for one in messages
        if one.role == "tool" and (any(one is each for each in failed) or says_error(one))
    ]
    results = dict(answered_calls(messages)) if suspects else {}
    for index, message in enumerate(messages):
        for number, call in enumerate(message.tool_calls):
            if known and call.name not in known:
                yield FailedCall(index, number, UNKNOWN, call.name)
                continue
            if known and (problems := known[call.name].problems(call.arguments)):
                yield FailedCall(index, number, MISFIT, problems[0][:200])
                continue
            result = results.get((index, number))
            if result is None or not any(result is one for one in suspects):
                continue
            text = (result.content or "")[:200]
            cause = ENVIRONMENT if _ENVIRONMENT.search(text) else UNEXPLAINED
            if cause is UNEXPLAINED and repaired_call(messages, index, number) is not None:
                cause = CORRECTED
            yield FailedCall(index, number, cause, text)


def says_error(result: Message) -> bool:
    """Return whether a result says by its form that the call failed."""
    if not _HINT.search(result.content or ""):
        return False
    value: Json = decode(result.content)
    if isinstance(value, dict):
        said = str(value.get("status", value.get("state"))).lower() in _ERROR_WORDS
        wrong = value.get("success") is False or value.get("ok") is False
        return said or wrong or bool(value.get("error")) or value.get("isError") is True
    return isinstance(value, str) and bool(_ERROR.match(value))


def repaired_call(messages: Sequence[Message], index: int, number: int) -> ToolCall | None:
    """Return the call with which the next turn tries again what failed; None where it does not."""
    wrong = messages[index].tool_calls[number]
    for message in messages[index + 1 :]:
        if message.role == "user" or (message.role == "assistant" and not message.tool_calls):
            return None
        if message.role == "assistant":
            same = [call for call in message.tool_calls if call.name == wrong.name]
            alone = len(same) == 1 and same[0].arguments != wrong.arguments
            return same[0] if alone else None
    return None
