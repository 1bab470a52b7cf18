"""The messages format: OpenAI's chat messages, older spellings of it, and our own forms.

    {"messages": [{"role", "content", "tool_calls": [{"id", "function": {...}}]}], "tools"}

Read as well: `arguments` as an object; `messages`, `tools`, single tools and `tool_calls` as JSON
strings; `functions`, `function_call` and the role `function`. Whether calls fit their tools is left
to the data check.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from toolhone.config.user_code import import_callable
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Task, Tool, decode_text
from toolhone.schema.preference import Preference
from toolhone.sources.base import Context, Converted, Loaded, Skip, Source, tasks_of
from toolhone.sources.files import FileLine, Record, RecordStream, read_records

T = TypeVar("T")
_OWN_KEYS = frozenset({"id", "messages", "tools", "source"})


def looks_like(record: Record) -> bool:
    return "messages" in record


def is_own_form(record: Record) -> bool:
    """Return whether a row is a conversation as `Conversation.to_dict` writes it."""
    messages = record.get("messages")
    return (
        record.keys() <= _OWN_KEYS
        and isinstance(messages, list)
        and all(isinstance(one, dict) for one in messages)
        and all(isinstance(one.get("content"), str | None) for one in messages)
    )


def convert(record: Record, context: Context) -> Converted:
    line = context.line
    try:
        plain = fill_tools(line, _with_current_names(record), context.tools)
        conversation = _at(line, plain, Conversation.from_dict)
    except DataError as error:
        detail = str(error).removeprefix(f"{line}: ")
        raise Skip("not a conversation", detail, stops=True) from None
    conversation = replace(conversation, source=conversation.source or line.path.name)
    return Converted(conversation, tasks_of(conversation))


def _with_current_names(record: Record) -> Record:
    """Replace older spellings; `schema` names what else is wrong."""
    turns = decode_text(record.get("messages"), "'messages'")
    tools = decode_text(record.get("tools") or record.get("functions"), "'tools'")
    if isinstance(tools, list):
        tools = [decode_text(tool, "'tools'") for tool in tools]
    if not isinstance(turns, list):
        return {**record, "messages": turns, "tools": tools}
    renamed = []
    for index, turn in enumerate(turns):
        where, message = f"messages[{index}]", dict(turn) if isinstance(turn, dict) else turn
        renamed.append(message)
        if not isinstance(turn, dict):
            continue
        if turn.get("role") == "function":
            message["role"] = "tool"
        if isinstance(turn.get("tool_calls"), str):
            message["tool_calls"] = decode_text(turn["tool_calls"], f"'{where}.tool_calls'")
        if turn.get("function_call"):
            if message.get("tool_calls"):
                both = "both 'tool_calls' and 'function_call'"
                raise DataError(f"{where}: {both}; wanted one of them")
            call = decode_text(turn["function_call"], f"'{where}.function_call'")
            message["tool_calls"] = [call]
    return {**record, "messages": renamed, "tools": tools}


def read_conversations(path: str | Path) -> list[Conversation]:
    """Read a file of conversations in our own form."""
    return [conversation for _, conversation in _read(path, Conversation.from_dict)]


def read_preferences(path: str | Path) -> list[Preference]:
    """Read a file of pairs in our own form; the format `pairs` reads others as well."""
    return [pair for _, pair in _read(path, Preference.from_dict)]


def read_tasks(source: str | Path | RecordStream) -> list[Task]:
    """Read a file of tasks in our own form; ids must differ: predictions are joined on them."""
    tasks = list[Task]()
    seen: dict[str, FileLine] = {}
    for line, task in _read(source, Task.from_dict):
        if task.id in seen:
            first = f"{seen[task.id].unit} {seen[task.id].number}"
            what = f"the id {task.id!r} occurs already in {first}"
            raise DataError(f"{line}: {what}; ids must differ")
        seen[task.id] = line
        tasks.append(task)
    return tasks


def _read(
    source: str | Path | RecordStream, make: Callable[[Json], T]
) -> Iterator[tuple[FileLine, T]]:
    cache: dict[str, Any] = {}
    for line, record in read_records(source):
        yield line, _at(line, fill_tools(line, record, cache), make)


def read_own(spec: str, path: Path | None) -> Loaded:
    """Read all rows that the user's function `file.py:name` yields for `path`.

    A row is a conversation or a mapping with `messages`. An error of the function keeps its
    traceback.
    """
    rows = import_callable(spec, Path.cwd(), "data.format")(path)
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        right = "rows (conversations, or mappings with 'messages')"
        raise DataError(f"{spec}: wanted {right}, got a {type(rows).__name__}")
    loaded = Loaded()
    for number, row in enumerate(rows, start=1):
        line = FileLine(Path(spec), number, "row")
        if not isinstance(row, Conversation | Mapping):
            right = f"a Conversation or a mapping with 'messages', got a {type(row).__name__}"
            raise DataError(f"{line}: wanted {right}")
        read = row if isinstance(row, Conversation) else _at(line, row, Conversation.from_dict)
        loaded.keep(line, Converted(read, tasks_of(read)))
    if not loaded.read:
        raise DataError(f"{spec}: it gave no row; wanted at least one conversation")
    return loaded


def fill_tools(line: FileLine, record: Record, cache: dict[str, Any]) -> Record:
    """Return the record with its tool objects as `Tool`s.

    cache: holds each distinct tool; rows repeat theirs, and a check takes a millisecond.
    """
    tools = record.get("tools")
    if not isinstance(tools, list):
        return record
    made = []
    for tool in tools:
        key = json.dumps(tool)
        if isinstance(tool, dict) and key not in cache:
            cache[key] = _at(line, tool, Tool.of)
        made.append(cache[key] if isinstance(tool, dict) else tool)
    return {**record, "tools": made}


def _at(line: FileLine, value: Json, make: Callable[[Json], T]) -> T:
    """Make a value; its error gets the place and, where a message is to blame, its number."""
    try:
        return make(value)
    except DataError as error:
        turns = value.get("messages") if isinstance(value, dict) else None
        for index, turn in enumerate(turns if isinstance(turns, list) else []):
            try:
                Message.from_dict(turn)
            except DataError:
                raise DataError(f"{line}: messages[{index}]: {error}") from None
        raise DataError(f"{line}: {error}") from None


MESSAGES = Source("messages", looks_like, convert, options={"skip_bad"})
