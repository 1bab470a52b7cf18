"""Messages in parts, as LLaMA-Factory's newer files have them: texts, reasoning and calls.

    {"messages": [{"role": "user", "content": [{"type": "text", "value": "..."}]},
                  {"role": "assistant", "content": [{"type": "reasoning", "value": "..."},
                                                    {"type": "tool_call", "value": "{...}"}]}]}

A `tool_call` part is one call as JSON or a list of them.
"""

from __future__ import annotations

from toolhone.schema import WEIGHT_KEYS, Conversation
from toolhone.schema.json_input import check_flags
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Skip, Source
from toolhone.sources.text_calls import ConversationBuilder, TextTurn, read_listed, turn_weight
from toolhone.sources.tool_specs import read_tools

NOT_PARTS = "not a row of messages in parts"
OTHER_PART = "a part that is neither text, reasoning nor a call"
_ROLES = ("system", "user", "assistant", "tool")


def looks_like(record: Record) -> bool:
    """Return whether every message has a list of parts, and a part has `value` (not OpenAI's
    `text`)."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        return False
    contents = [one.get("content") if isinstance(one, dict) else None for one in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(isinstance(content, list) for content in contents) and any(
        isinstance(part, dict) and "value" in part for part in parts
    )


def convert(record: Record, context: Context) -> Conversation:
    if not looks_like(record):
        raise Skip(NOT_PARTS, f"keys {sorted(record)}")
    tools, builder = read_tools(record.get("tools") or [], context), ConversationBuilder()
    for message in record["messages"]:
        role = message.get("role")
        if role not in _ROLES:
            raise Skip(NOT_PARTS, f"role {role!r:.40}; known: {', '.join(_ROLES)}")
        texts: dict[str, list[str]] = {"text": [], "reasoning": [], "tool_call": []}
        for part in message["content"]:
            given = part if isinstance(part, dict) else {}
            kind, value = given.get("type"), given.get("value")
            if not isinstance(kind, str) or kind not in texts or not isinstance(value, str):
                raise Skip(OTHER_PART, f"{part!r:.80}")
            texts[kind].append(value)
        text = "".join(texts["text"])
        if role == "assistant":
            blocks = [read_listed(value) for value in texts["tool_call"]]
            calls = tuple(call for block in blocks for call in block.calls)
            repairs = frozenset(repair for block in blocks for repair in block.repairs)
            unread = frozenset(key for block in blocks for key in block.unread)
            reasoning = "\n".join(texts["reasoning"]).strip() or None
            turn = TextTurn(text.strip() or None, calls, repairs, turn_weight(message), unread)
            builder.add_assistant(turn, tools, reasoning)
        elif texts["reasoning"] or texts["tool_call"]:
            raise Skip(OTHER_PART, f"a turn of {role} with reasoning or a call")
        else:
            check_flags(message, role, builder.unread)
            builder.add_result(text) if role == "tool" else builder.add_text(role, text)
    builder.tell(context)
    return Conversation(tuple(builder.messages), tools)


PARTS = Source(
    "parts",
    looks_like,
    convert,
    {
        "": {"messages", "tools"},
        "messages": {"role", "content", *WEIGHT_KEYS},
        "messages.content": {"type", "value"},
    },
)
