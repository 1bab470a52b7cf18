"""The sharegpt forms: turns with `from` and `value` (or `role` and `content`), tools beside them.

    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."},
                       {"from": "function_call", "value": "{\\"name\\", \\"arguments\\"}"},
                       {"from": "observation", "value": "..."}], "tools": "[{...}]", "system"?}

Calls may also be in the assistant's text, as `<tool_call>` blocks or `[name(key=value)]`. Where no
tools are given, calls cannot be checked: a row with calls is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolhone.schema import Conversation, Json, Tool
from toolhone.sources.base import About, Context, Skip
from toolhone.sources.files import Record
from toolhone.sources.text_calls import Talk, fitting, read_bracketed, read_listed, read_tagged
from toolhone.sources.tool_specs import read_tools

NAME = "sharegpt"
ABOUT = About(
    title="sharegpt forms (glaive for LLaMA-Factory and others)",
    link="https://github.com/hiyouga/LLaMA-Factory/tree/main/data",
    licence="as the data set; Apache-2.0 for the demonstration files",
    rows="any",
    teaches="calls and plain talk over several turns; when to ask, to call and to decline",
)
NO_TOOLS = "calls although the row gives no tools"
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), "call"),
    **dict.fromkeys(("observation", "tool", "function"), "tool"),
    **dict.fromkeys(("function_response", "tool_response"), "tool"),
}


def looks_like(record: Record) -> bool:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        return False
    return "\nAction:" not in f"{record.get('system') or ''}{_text_of(turns[0])}"  # ReAct


def _is_turn(turn: Json) -> bool:
    return isinstance(turn, dict) and _role_of(turn) in ROLES and isinstance(_text_of(turn), str)


def _role_of(turn: Record) -> str:
    return str(turn.get("from", turn.get("role")))


def _text_of(turn: Record) -> Json:
    return turn.get("value", turn.get("content"))


def convert(record: Record, context: Context) -> Conversation:
    if "chosen" in record or "rejected" in record:
        raise Skip("preference pairs", f"keys {sorted(record)}")
    tools = read_tools(record.get("tools") or [], context)
    talk = Talk()
    if isinstance(record.get("system"), str) and record["system"].strip():
        talk.say("system", record["system"].strip())
    add_turns(talk, turns_of(record), tools)
    calls = [call.name for message in talk.messages for call in message.tool_calls]
    if calls and not tools:
        raise Skip(NO_TOOLS, f"a call of {calls[0]!r}")
    context.repairs |= talk.repairs
    return Conversation(tuple(talk.messages), tools)


def turns_of(record: Record) -> Iterator[tuple[str, str]]:
    """Yield role and text of each turn."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise Skip("not a sharegpt row", f"wanted turns in 'conversations'; keys {sorted(record)}")
    for turn in turns:
        if not _is_turn(turn):
            detail = f"the turn {turn!r:.80}; known roles: {', '.join(ROLES)}"
            raise Skip("not a sharegpt row", detail)
        yield ROLES[_role_of(turn)], _text_of(turn)


def add_turns(talk: Talk, turns: Iterator[tuple[str, str]], tools: Sequence[Tool]) -> None:
    """Add turns to a conversation in the making, with calls that fit the tools where possible."""
    for role, text in turns:
        if role == "call":
            talk.assistant(fitting(read_listed(text), tools))
        elif role == "assistant":
            tagged = "<tool_call>" in text
            said = read_tagged(text) if tagged else read_bracketed(text, tools)
            talk.assistant(fitting(said, tools))
        elif role == "tool":
            talk.result(text)
        else:
            talk.say(role, text.strip())
