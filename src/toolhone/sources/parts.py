"""Messages in parts, as LLaMA-Factory's newer files have them: `content` is a list of texts, reasoning and calls.

    {"messages": [{"role": "user", "content": [{"type": "text", "value": "..."}]},
                  {"role": "assistant", "content": [{"type": "reasoning", "value": "..."},
                                                    {"type": "tool_call", "value": "{...}"}]},
                  {"role": "tool", "content": [{"type": "text", "value": "..."}]}], "tools": "[...]"}

`value` holds the text (OpenAI's `text` is the `messages` format). A `tool_call` part is one call as JSON or a list of them; a
tool message that lists as many results as there are open calls is taken apart. `loss_weight` may be 1 on the assistant's turns
and anything elsewhere: a turn not to learn has no place here, so such a row is counted and skipped, as is one whose calls do not
fit its tools, or whose parts are of another type (images, say).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Json, Tool
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_texts import Said, Talk, fitting, read_listed
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.tasks import tasks_of

NAME = "parts"
ABOUT = About(
    title="LLaMA-Factory messages in parts",
    link="https://github.com/hiyouga/LLaMA-Factory/tree/main/data",
    licence="Apache-2.0 for the demonstration files",
    rows="any",
    teaches="reasoning before calls, several calls at once, plain talk",
)
USES: frozenset[str] = frozenset()
_TYPES = ("text", "reasoning", "tool_call")
_ROLES = ("system", "user", "assistant", "tool")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a row of messages in parts"
    OTHER_PART = "a part that is neither text, reasoning nor a call"
    WEIGHT = "a turn of the assistant that is not to be learned in full"


def sniff(records: Sequence[Record]) -> bool:
    return all(is_row(record) for record in records)


def is_row(record: Record) -> bool:
    """Whether every message of a row has parts with `value`, at least one; the `messages` format leaves such rows to this one."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        return False
    contents = [
        message.get("content") if isinstance(message, dict) else None for message in messages
    ]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(isinstance(content, list) for content in contents) and any(
        isinstance(part, dict) and "value" in part for part in parts
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls fit its tools, with the tasks of its turns."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            talk, repairs = _conversation(line, record, offered)
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk), repairs)
    return tally.loaded()


def _conversation(
    line: FileLine, record: Record, offered: OfferedTools
) -> tuple[Conversation, set[str]]:
    if not is_row(record):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    tools, repairs = offered.read(record.get("tools") or [])
    talk = Talk()
    talk.repairs |= repairs
    for message in record["messages"]:
        _add(talk, message, tools)
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs


def _add(talk: Talk, message: Record, tools: Sequence[Tool]) -> None:
    role = message.get("role")
    if role not in _ROLES:
        raise Skip(Reason.NOT_THIS_FORMAT, f"role {role!r:.40}; known: {', '.join(_ROLES)}")
    by_type = _parts(message["content"])
    text = "".join(by_type["text"])
    if role == "assistant":
        if message.get("loss_weight", 1) != 1:
            raise Skip(Reason.WEIGHT, f"'loss_weight' {message['loss_weight']!r:.20}")
        said = [read_listed(value) for value in by_type["tool_call"]]
        calls = tuple(call for each in said for call in each.calls)
        repairs = frozenset(repair for each in said for repair in each.repairs)
        talk.assistant(
            fitting(Said(text.strip() or None, calls, repairs), tools),
            "\n".join(by_type["reasoning"]).strip() or None,
        )
    elif by_type["reasoning"] or by_type["tool_call"]:
        raise Skip(Reason.OTHER_PART, f"a turn of {role} with reasoning or a call")
    elif role == "tool":
        talk.result(text)
    else:
        talk.say(role, text)


def _parts(content: Sequence[Json]) -> dict[str, list[str]]:
    """The texts of the parts, by type."""
    found: dict[str, list[str]] = {kind: [] for kind in _TYPES}
    for part in content:
        kind, value = (
            (part.get("type"), part.get("value")) if isinstance(part, dict) else (None, None)
        )
        if not isinstance(kind, str) or kind not in found or not isinstance(value, str):
            raise Skip(Reason.OTHER_PART, f"{part!r:.80}")
        found[kind].append(value)
    return found
