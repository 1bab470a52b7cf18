"""The messages format: OpenAI's chat messages as JSON Lines, older spellings of it, and our own conversation form.

    {"messages": [{"role", "content", "tool_calls": [{"id", "function": {"name", "arguments": "<JSON>"}}]}], "tools": [...]}

Read besides: `arguments` as an object, `messages`, `tools`, single tools and `tool_calls` as JSON strings, `functions` for `tools`,
`function_call` for one call, the role `function` for `tool`. A row that is no conversation stops the reading with a sentence that
names the line, or is counted with `skip_bad`. Whether calls fit their tools is left to `data.check`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip
from toolhone.sources.files import FileLine, Record, ToolCache, conversation_at, read_records
from toolhone.sources.parts import is_row as is_in_parts
from toolhone.sources.tasks import tasks_of

NAME = "messages"
ABOUT = About(
    title="OpenAI messages, and our own form",
    link="https://platform.openai.com/docs/guides/supervised-fine-tuning",
    licence="as the data set",
    rows="any",
    teaches="whatever the conversations hold",
)
USES = frozenset({"skip_bad"})


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    return (
        "messages" in record
        and not record.keys() >= {"query", "tools", "answers"}
        and not is_in_parts(record)
    )


def read(path: Path, options: Options) -> Loaded:
    """Every row as a conversation; its tasks are those of `tasks_of`."""
    tally, cache = ReadStats(), ToolCache()
    for line, record in read_records(path):
        try:
            conversation = _conversation(line, record, cache)
        except DataError as error:
            if not options.skip_bad:
                raise
            tally.skip(line, Skip("not a conversation", str(error).removeprefix(f"{line}: ")))
        else:
            tally.keep(line, conversation, tasks_of(conversation))
    return tally.loaded()


def _conversation(line: FileLine, record: Record, cache: ToolCache) -> Conversation:
    try:
        plain = _in_house_form(record)
    except DataError as error:
        raise DataError(f"{line}: {error}") from None
    conversation = conversation_at(line, plain, cache)
    return conversation if conversation.source else replace(conversation, source=line.path.name)


def _in_house_form(record: Record) -> Record:
    """The same row with the older spellings replaced; what is wrong in other ways is left for `schema` to name."""
    result = {**record, "messages": _from_text(record.get("messages"), "messages")}
    tools = _from_text(record.get("tools") or record.get("functions"), "tools")
    result["tools"] = (
        [_from_text(tool, "tools") for tool in tools] if isinstance(tools, list) else tools
    )
    if isinstance(result["messages"], list):
        result["messages"] = [
            _message(index, message) for index, message in enumerate(result["messages"])
        ]
    return result


def _message(index: int, message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    if message.get("weight") == 0:
        raise DataError(
            f"messages[{index}]: 'weight' 0 (a turn not to learn) has no place here; remove the row or the weight"
        )
    result = dict(message)
    if result.get("role") == "function":
        result["role"] = "tool"
    if isinstance(result.get("tool_calls"), str):
        result["tool_calls"] = _from_text(result["tool_calls"], f"messages[{index}].tool_calls")
    if result.get("function_call"):
        if result.get("tool_calls"):
            raise DataError(
                f"messages[{index}]: both 'tool_calls' and 'function_call'; wanted one of them"
            )
        result["tool_calls"] = [
            _from_text(result["function_call"], f"messages[{index}].function_call")
        ]
    return result


def _from_text(value: Json, field: str) -> Json:
    """The value, or what it says when it is a JSON string."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise DataError(f"'{field}' is a string but not JSON: {value!r:.60}") from None
