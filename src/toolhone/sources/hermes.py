"""Hermes and ToolACE: dialogues as text, with the tools in the system text.

    {"id": "h1", "conversations": [{"from": "system", "value": "... <tools> [{...}] </tools> ..."},
                                   {"from": "gpt", "value": "<tool_call> {...} </tool_call>"}, ...]}
    {"example": "SYSTEM: ... <tools>[...]</tools>\\nUSER: ...\\nASSISTANT: <tool_call>..."}

Tools and calls are JSON or Python literals. Of the system text the sentences before the first tag
are kept. Format: NousResearch, hermes-function-calling-v1.

    {"system": "... functions that you can invoke:\\n[{\\"name\\": ...}]. ...",
     "conversations": [{"from": "assistant", "value": "[Market Trends(kind=\\"A\\")]"},
                       {"from": "tool", "value": "[{\\"name\\": ..., \\"results\\": {...}}]"}, ...]}

ToolACE: names may hold spaces; what the system text says besides its tools is left out. Format: Liu
et al. 2024, arXiv:2409.00920.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from toolhone.schema import WEIGHT_KEYS, Conversation, Json
from toolhone.schema.json_input import check_flags
from toolhone.sources.files import Record
from toolhone.sources.prompt_rows import split_prompt
from toolhone.sources.sharegpt import TURN_KEYS, add_turns, turns_of
from toolhone.sources.source import Context, Skip, Source
from toolhone.sources.text_calls import ConversationBuilder, read_tagged, read_values, turn_weight
from toolhone.sources.tool_specs import BAD_TOOLS, read_tools

NOT_HERMES = "not a Hermes row"
NO_TOOLS = "a system text without a list of tools"
FORMAT = "tools and format description taken out of the system text"
_BLOCK = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_RESPONSES = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?:](?=\s|$)|\n")
_MARKER = re.compile(r"^(SYSTEM|USER|ASSISTANT|TOOL):[ \t]*", re.MULTILINE)
_ROLES = {
    **dict.fromkeys(("system", "SYSTEM"), "system"),
    **dict.fromkeys(("human", "user", "USER"), "user"),
    **dict.fromkeys(("gpt", "assistant", "ASSISTANT"), "assistant"),
    **dict.fromkeys(("tool", "observation", "TOOL"), "tool"),
}


def looks_like(record: Record) -> bool:
    if isinstance(record.get("example"), str):
        return bool(_BLOCK.search(record["example"]))
    turns = record.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    return first.get("from") == "system" and "<tools>" in str(first.get("value"))


def convert(record: Record, context: Context) -> Conversation:
    turns = _turns(record)
    system = next(turns)[1]
    block = next((found for found in _BLOCK.finditer(system) if found[1].strip()), None)
    if block is None:
        raise Skip(NO_TOOLS, repr(system[:80]))
    try:
        values = [value for value, _ in read_values(block[1])]
    except Skip as skip:
        raise Skip(BAD_TOOLS, skip.detail) from None
    before = system[: system.index("<tools>")]
    ends = [found.end() for found in _SENTENCE_END.finditer(before)]
    talk = ConversationBuilder(before[: ends[-1]].strip() if ends else "")
    listed = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    tools = read_tools(listed, context)
    for role, text, source in turns:
        if role == "assistant":
            turn = replace(read_tagged(text), weight=turn_weight(source))
            talk.add_assistant(turn, tools)
            continue
        check_flags(source, role, talk.unread)
        if role == "tool":
            for result in _RESPONSES.findall(text) or [text]:
                talk.add_result(result.strip())
        else:
            talk.add_text(role, text.strip())
    talk.tell(context)
    context.repairs.add(FORMAT)
    return Conversation(tuple(talk.messages), tools)


def _turns(record: Record) -> Iterator[tuple[str, str, Record]]:
    """Yield role and text of each turn, and the turn."""
    turns, example = record.get("conversations"), record.get("example")
    read: list[tuple[Json, Json, Record]]
    if isinstance(example, str):
        parts = _MARKER.split(example.strip().removeprefix("```").removesuffix("```").strip())
        read = [(role, said, {}) for role, said in zip(parts[1::2], parts[2::2], strict=True)]
    elif isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        read = [(turn.get("from"), turn.get("value"), turn) for turn in turns]
    else:
        raise Skip(NOT_HERMES, f"wanted 'conversations' or 'example'; keys {sorted(record)}")
    if not read or read[0][0] not in ("system", "SYSTEM"):
        raise Skip(NO_TOOLS, f"the first turn is that of {read[0][0]!r}" if read else "no turns")
    for role, text, source in read:
        if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
            raise Skip(NOT_HERMES, f"a turn of {role!r:.40} with {text!r:.40}")
        yield _ROLES[role], text, source


def is_toolace(record: Record) -> bool:
    system = record.get("system")
    in_system = isinstance(system, str) and "[{" in system and "tools" not in record
    return in_system and isinstance(record.get("conversations"), list)


def convert_toolace(record: Record, context: Context) -> Conversation:
    system = record.get("system")
    prompt = split_prompt(system) if isinstance(system, str) else None
    if prompt is None:
        raise Skip(NO_TOOLS, f"{system!r:.80}")
    builder, tools = ConversationBuilder(), read_tools(prompt.tools, context)
    add_turns(builder, turns_of(record), tools)
    builder.tell(context)
    context.repairs.add(FORMAT)
    return Conversation(tuple(builder.messages), tools)


HERMES = Source(
    "hermes",
    looks_like,
    convert,
    {"": {"conversations", "example"}, "conversations": {"from", "value", *WEIGHT_KEYS}},
)
TOOLACE = Source(
    "toolace",
    is_toolace,
    convert_toolace,
    {"": {"system", "conversations"}, "conversations": TURN_KEYS},
)
