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
from toolhone.schema import Conversation, Json, Message, Task, Tool
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
    cache = context.tools.setdefault(context.name, ToolCache())
    try:
        plain = cache.fill(line, _with_current_names(record))
        conversation = _at(line, plain, Conversation.from_dict)
    except DataError as error:
        detail = str(error).removeprefix(f"{line}: ")
        raise Skip("not a conversation", detail, stops=True) from None
    conversation = replace(conversation, source=conversation.source or line.path.name)
    return Converted(conversation, tasks_of(conversation))


def _with_current_names(record: Record) -> Record:
    """Replace older spellings; `schema` names what else is wrong."""
    messages = _decode_text(record.get("messages"), "messages")
    tools = _decode_text(record.get("tools") or record.get("functions"), "tools")
    if isinstance(messages, list):
        messages = [_message(index, message) for index, message in enumerate(messages)]
    if isinstance(tools, list):
        tools = [_decode_text(tool, "tools") for tool in tools]
    return {**record, "messages": messages, "tools": tools}


def _message(index: int, message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    where = f"messages[{index}]"
    if message.get("weight") == 0:
        raise DataError(
            f"{where}: 'weight' 0 (a turn not to learn) has no place here; "
            "remove the row or the weight"
        )
    result = dict(message)
    if result.get("role") == "function":
        result["role"] = "tool"
    if isinstance(result.get("tool_calls"), str):
        result["tool_calls"] = _decode_text(result["tool_calls"], f"{where}.tool_calls")
    if result.get("function_call"):
        if result.get("tool_calls"):
            raise DataError(f"{where}: both 'tool_calls' and 'function_call'; wanted one of them")
        call = _decode_text(result["function_call"], f"{where}.function_call")
        result["tool_calls"] = [call]
    return result


def _decode_text(value: Json, field: str) -> Json:
    """Return the value of a JSON string, any other value as it is."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise DataError(f"'{field}' is a string but not JSON: {value!r:.60}") from None


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
            raise DataError(
                f"{line}: the id {task.id!r} occurs already in {first}; ids must differ"
            )
        seen[task.id] = line
        tasks.append(task)
    return tasks


def _read(
    source: str | Path | RecordStream, make: Callable[[Json], T]
) -> Iterator[tuple[FileLine, T]]:
    cache = ToolCache()
    for line, record in read_records(source):
        yield line, _at(line, cache.fill(line, record), make)


def read_own(spec: str, path: Path | None) -> Loaded:
    """Read all rows that the user's function `file.py:name` yields for `path`.

    A row is a conversation or a mapping with `messages`. An error of the function keeps its
    traceback.
    """
    rows = import_callable(spec, Path.cwd(), "data.format")(path)
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise DataError(
            f"{spec}: wanted rows (conversations, or mappings with 'messages'), "
            f"got a {type(rows).__name__}"
        )
    loaded = Loaded()
    for number, row in enumerate(rows, start=1):
        line = FileLine(Path(spec), number, "row")
        conversation = _conversation(line, row)
        loaded.keep(line, Converted(conversation, tasks_of(conversation)))
    if not loaded.read:
        raise DataError(f"{spec}: it gave no row; wanted at least one conversation")
    return loaded


def _conversation(line: FileLine, row: Any) -> Conversation:
    if isinstance(row, Conversation):
        return row
    if not isinstance(row, Mapping):
        raise DataError(
            f"{line}: wanted a Conversation or a mapping with 'messages', "
            f"got a {type(row).__name__}"
        )
    try:
        return Conversation.from_dict(row)
    except DataError as error:
        raise DataError(f"{line}: {error}") from None


class ToolCache:
    """Makes each distinct tool once: rows repeat their tools, and a check takes a millisecond."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def fill(self, line: FileLine, record: Record) -> Record:
        """Return the record with its tool objects as `Tool`s."""
        tools = record.get("tools")
        if not isinstance(tools, list):
            return record
        return {**record, "tools": [_at(line, tool, self._tool) for tool in tools]}

    def _tool(self, source: Json) -> Json:
        if not isinstance(source, dict):
            return source
        key = json.dumps(source)
        if key not in self._tools:
            self._tools[key] = Tool.of(source)
        return self._tools[key]


def _at(line: FileLine, value: Json, make: Callable[[Json], T]) -> T:
    """Make a value; its error gets the place and, where a message is to blame, its number."""
    try:
        return make(value)
    except DataError as error:
        raise DataError(f"{line}: {_bad_message(value)}{error}") from None


def _bad_message(record: Json) -> str:
    """Return `messages[3]: ` for the first message that cannot be read, or nothing."""
    messages = record.get("messages") if isinstance(record, dict) else None
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        try:
            Message.from_dict(message)
        except DataError:
            return f"messages[{index}]: "
    return ""


MESSAGES = Source("messages", looks_like, convert, options={"skip_bad"})
