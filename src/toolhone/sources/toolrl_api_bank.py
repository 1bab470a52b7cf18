"""API-Bank as ToolRL evaluates it: numbered tools, the dialogue so far, the expected call.

    {"system": "... **Available Tools** ...", "user": "**Dialogue Records History**\\n<user> ...",
     "answer": [{"name": "f", "parameters": {...}}], "other": {...}}

A row becomes a task after the whole dialogue. API-Bank does not mark optional parameters: one that
the expected call leaves out is made optional. A row whose expected call does not fit its tools is
skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.schema import Task, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source, expect_calls, refuse_misfits
from toolhone.sources.files import Record
from toolhone.sources.text_calls import as_call
from toolhone.sources.tool_specs import fit_calls
from toolhone.sources.toolrl import add_dialogue, begin_conversation

OPTIONAL = "a parameter that the right call leaves out, made optional"
_KEYS = ("system", "user", "answer")


def looks_like(record: Record) -> bool:
    return record.keys() >= set(_KEYS) and "**Available Tools**" in str(record["system"])


def convert(record: Record, context: Context) -> Task:
    system, user, answer = (record.get(key) for key in _KEYS)
    if (
        not isinstance(system, str)
        or not isinstance(user, str)
        or not isinstance(answer, list | dict)
    ):
        raise Skip("not a row of ToolRL's API-Bank", f"keys {sorted(record)}")
    builder, tools = begin_conversation(system, context)
    add_dialogue(builder, user, tools)
    calls = [as_call(call) for call in (answer if isinstance(answer, list) else [answer])]
    if not calls:
        raise Skip("an answer without a call")
    expected = fit_calls(calls, tools, context)
    loose = tuple(_loosen(tool, expected) for tool in tools)
    refuse_misfits(expected, loose)
    context.repairs |= builder.repairs | (set() if loose == tools else {OPTIONAL})
    other = record.get("other")
    file = str(other.get("file", "")) if isinstance(other, dict) else ""
    level = file.partition("-level-")[2][:1]
    category = f"level_{level}" if level.isdigit() else "next_call"
    return Task("", tuple(builder.messages), loose, expect_calls(expected), category=category)


def _loosen(tool: Tool, expected: Sequence[ToolCall]) -> Tool:
    """Make the parameters optional that the expected calls leave out."""
    present = [call.arguments.keys() for call in expected if call.name == tool.name]
    required = list(tool.parameters.get("required") or [])
    kept = [name for name in required if all(name in keys for keys in present)]
    if kept == required:
        return tool
    return Tool(tool.name, tool.description, {**tool.parameters, "required": kept})


TOOLRL_API_BANK = Source("toolrl_api_bank", looks_like, convert)
