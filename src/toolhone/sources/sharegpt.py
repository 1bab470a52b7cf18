"""The sharegpt forms: turns with `from` and `value` (or `role` and `content`), tools beside them.

    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."},
                       {"from": "function_call", "value": "{\\"name\\", \\"arguments\\"}"},
                       {"from": "observation", "value": "..."}], "tools": "[{...}]", "system"?}

Calls may also be in the assistant's text, as `<tool_call>` blocks or `[name(key=value)]`. Where no
tools are given, calls cannot be checked: a row with calls is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from toolhone.schema import WEIGHT_KEYS, Conversation, Json, Tool
from toolhone.schema.json_input import check_flags, is_empty
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Skip, Source
from toolhone.sources.text_calls import (
    ConversationBuilder,
    read_bracketed,
    read_listed,
    read_tagged,
    turn_weight,
)
from toolhone.sources.tool_specs import read_tools

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
"""In front of the call of a turn that is else a call alone."""
NO_TOOLS = "calls although the row gives no tools"
TURN_KEYS = frozenset({"from", "role", "value", "content", *WEIGHT_KEYS})
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), "call"),
    **dict.fromkeys(("observation", "tool", "function"), "tool"),
    **dict.fromkeys(("function_response", "tool_response", "ipython"), "tool"),
}


def looks_like(record: Record) -> bool:
    turns = record.get("conversations")
    read = [role_and_text(turn) for turn in turns] if isinstance(turns, list) else []
    if not read or not all(role and isinstance(text, str) for role, text in read):
        return False
    return "\nAction:" not in f"{record.get('system') or ''}{read[0][1]}"  # ReAct


def role_and_text(turn: Json) -> tuple[str | None, Json]:
    """Return the role and the text of a turn under either keys.

    None and None where the role is unknown, or where both keys hold something and differ.
    """
    if not isinstance(turn, dict):
        return None, None
    roles = [ROLES.get(str(turn[key])) for key in ("from", "role") if key in turn]
    texts = [turn[key] for key in ("value", "content") if not is_empty(turn.get(key))]
    texts = texts or [turn.get("value", turn.get("content"))]
    clear = len(set(roles)) == 1 and all(text == texts[0] for text in texts)
    return (roles[0], texts[0]) if clear else (None, None)


def convert(record: Record, context: Context) -> Conversation:
    if "chosen" in record or "rejected" in record:
        raise Skip("preference pairs", f"keys {sorted(record)}")
    tools = read_tools(record.get("tools") or [], context)
    builder = ConversationBuilder(record.get("system"))
    add_turns(builder, turns_of(record), tools)
    calls = [call.name for message in builder.messages for call in message.tool_calls]
    if calls and not tools:
        raise Skip(NO_TOOLS, f"a call of {calls[0]!r}")
    builder.tell(context)
    return Conversation(tuple(builder.messages), tools)


def turns_of(record: Record) -> Iterator[tuple[str, str, Record]]:
    """Yield role and text of each turn, and the turn."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise Skip("not a sharegpt row", f"wanted turns in 'conversations'; keys {sorted(record)}")
    for turn in turns:
        role, text = role_and_text(turn)
        if role is None or not isinstance(text, str):
            detail = f"the turn {turn!r:.80}; known roles: {', '.join(ROLES)}"
            raise Skip("not a sharegpt row", detail)
        yield role, text, turn


def add_turns(
    builder: ConversationBuilder, turns: Iterable[tuple[str, str, Record]], tools: Sequence[Tool]
) -> None:
    """Add turns to a conversation, with calls that fit the tools where possible."""
    for role, text, source in turns:
        if role in ("call", "assistant"):
            thought = None
            if role == "call":
                found = _THOUGHT.match(text)
                thought, text = (found[1].strip(), text[found.end() :]) if found else (None, text)
                turn = read_listed(text)
            else:
                tagged = "<tool_call>" in text
                turn = read_tagged(text) if tagged else read_bracketed(text, tools)
            turn = replace(turn, weight=turn_weight(source))
            builder.add_assistant(turn, tools, thought or None)
            continue
        check_flags(source, role, builder.unread)
        if role == "tool":
            builder.add_result(text)
        else:
            builder.add_text(role, text.strip())


KEYS = {"": {"conversations", "tools", "system"}, "conversations": TURN_KEYS}
SHAREGPT = Source("sharegpt", looks_like, convert, KEYS)
