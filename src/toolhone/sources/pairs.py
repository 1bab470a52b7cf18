"""Preference pairs: our own form, which TRL has as well, and LLaMA-Factory's.

    {"prompt": [messages], "chosen": [messages], "rejected": [messages], "tools"?}
    {"conversations": [turns], "chosen": {"from", "value"}, "rejected": {...}, "tools"?}

Turns are read as in `sharegpt`. Calls of the chosen side must fit the tools of the row; a rejected
side whose calls cannot be read is kept as raw text.
"""

from __future__ import annotations

from dataclasses import replace

from toolhone.errors import DataError
from toolhone.schema import Conversation, Message, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.files import Record
from toolhone.sources.messages import WITHOUT_TOOLS, fill_tools
from toolhone.sources.sharegpt import NO_TOOLS, TURN_KEYS, add_turns, role_and_text, turns_of
from toolhone.sources.source import Context, Converted, Skip, Source, check_places, refuse_faults
from toolhone.sources.text_calls import ConversationBuilder
from toolhone.sources.tool_specs import read_tools

NO_PAIR = "not a pair of a chosen and a rejected side"
_TURNS = ("conversations", "chosen", "rejected")
_SHAREGPT_KEYS = {"": {*_TURNS, "tools", "system"}, **dict.fromkeys(_TURNS, TURN_KEYS)}


def looks_like(record: Record) -> bool:
    return "chosen" in record and "rejected" in record


def convert(record: Record, context: Context) -> Converted:
    if not looks_like(record):
        raise Skip(NO_PAIR, f"keys {sorted(record)}")
    line = context.line
    try:
        if "conversations" in record:
            pair = _sharegpt(record, context)
        else:
            pair = Preference.from_dict(fill_tools(record, context), context.unread)
            if (offered := context.options.get("tools")) and record.get("tools") is None:
                pair = replace(pair, tools=tuple(offered))
                context.repairs.add(WITHOUT_TOOLS)
    except DataError as error:
        detail = str(error).removeprefix(f"{line}: ")
        raise Skip("a pair whose messages or tools cannot be read", detail) from None
    last = pair.prompt[-1].role
    if last not in ("user", "tool"):
        detail = f"it ends with a message of the role {last!r}"
        raise Skip("a prompt that does not end with the user or a tool", detail)
    if pair.chosen == pair.rejected:
        raise Skip("chosen and rejected say the same")
    return Converted(preference=replace(pair, id=pair.id or context.identity(record)))


def _sharegpt(record: Record, context: Context) -> Preference:
    check_places(record, _SHAREGPT_KEYS, context.unread)
    tools = read_tools(record.get("tools") or [], context)
    prompt = ConversationBuilder(record.get("system"))
    add_turns(prompt, turns_of(record), tools)
    context.unread |= prompt.unread
    chosen = _side(record, "chosen", tools, context)
    if not tools and any(message.tool_calls for message in (*prompt.messages, *chosen)):
        raise Skip(NO_TOOLS)
    identity = context.identity(record)
    refuse_faults(Conversation((*prompt.messages, *chosen), tools, identity))
    try:
        rejected, raw = _side(record, "rejected", tools, context), False
    except Skip:
        rejected, raw = (Message("assistant", _text(record, "rejected")),), True
    prompt_messages = tuple(prompt.messages)
    return Preference(prompt_messages, chosen, rejected, tools, identity, "sharegpt pairs", raw)


def _side(
    record: Record, side: str, tools: tuple[Tool, ...], context: Context
) -> tuple[Message, ...]:
    """Return the messages of one turn: what the assistant says, or calls."""
    builder, (role, _) = ConversationBuilder(), role_and_text(record[side])
    if role not in ("assistant", "call"):
        raise Skip(NO_PAIR, f"{side} is {record[side]!r:.80}")
    add_turns(builder, [(role, _text(record, side), record[side])], tools)
    context.unread |= builder.unread
    return tuple(builder.messages)


def _text(record: Record, side: str) -> str:
    _, text = role_and_text(record[side])
    if not isinstance(text, str) or not text.strip():
        raise Skip(NO_PAIR, f"{side} has no text: {record[side]!r:.80}")
    return text.strip()


PAIRS = Source("pairs", looks_like, convert, {}, options={"tools"})
