"""The messages format: OpenAI's chat messages, older spellings of it, and our own forms.

    {"messages": [{"role", "content", "tool_calls": [{"id", "function": {...}}]}], "tools"}

Read as well: `arguments` as an object; `messages`, `tools`, single tools and `tool_calls` as JSON
strings; `functions`, `function_call`, `toolInvocations`, roles such as `function` and `tool_call`;
`prompt` and `completion`. Whether calls fit their tools is left to the data check.
"""

from __future__ import annotations

import json
import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from toolhone.config.user_code import import_callable
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Task, Tool, decode_text
from toolhone.schema.json_input import MESSAGE_KEYS, SCHEMAS, check_keys, first_value, is_empty
from toolhone.schema.json_schema import without_schema_nulls
from toolhone.schema.preference import Preference
from toolhone.schema.tool import is_schema
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, open_records
from toolhone.sources.loaded import Loaded
from toolhone.sources.sharegpt import ROLES
from toolhone.sources.source import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.tool_specs import BAD_TOOLS, drop_bad_keywords, make_tool, tidy_tool

JOINED = "calls in neighbouring messages of the assistant put into one turn"
UNEQUAL = "two turns of the assistant in a row with different weights"


def join_split_calls(messages: Sequence[Message], repairs: set[str]) -> tuple[Message, ...]:
    """Return the messages with neighbouring turns with calls as one, as their results follow it.

    No use produces a turn with calls behind one whose results are not there yet.
    """
    if not any(
        one.tool_calls and before.tool_calls for before, one in pairwise(messages)
    ) and isinstance(messages, tuple):
        return messages
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else Message("")
        if not (
            message.role == last.role == "assistant" and last.tool_calls and message.tool_calls
        ):
            joined.append(message)
            continue
        if last.weight != message.weight:
            raise Skip(UNEQUAL, f"{last.weight} and {message.weight}")
        repairs.add(JOINED)
        content, reasoning = (
            "\n\n".join(filter(None, both)) or None
            for both in ((last.content, message.content), (last.reasoning, message.reasoning))
        )
        calls = last.tool_calls + message.tool_calls
        joined[-1] = replace(last, content=content, reasoning=reasoning, tool_calls=calls)
    return tuple(joined)


T = TypeVar("T")
_TOOLS = ("tools", "functions", "tool_defs", "available_tools")
"""Spellings of the tools of a row."""
WITHOUT_TOOLS = "rows without tools, which take the experiment's"
_OWN_KEYS = frozenset({"id", "messages", "tools", "source"})


def looks_like(record: Record) -> bool:
    return "messages" in record or _is_completion(record)


def _is_completion(record: Record) -> bool:
    """Return whether a row has a prompt and a completion, both lists of messages, as TRL has."""
    return all(
        isinstance(side := record.get(key), list) and side and isinstance(side[0], dict)
        for key in ("prompt", "completion")
    )


def is_own_form(record: Record) -> bool:
    """Return whether a row is a conversation as `Conversation.to_dict` writes it."""
    messages = record.get("messages")
    return (
        record.keys() <= _OWN_KEYS
        and isinstance(messages, list)
        and all(isinstance(one, dict) and one.keys() <= MESSAGE_KEYS for one in messages)
        and all(isinstance(one.get("content"), str | None) for one in messages)
    )


def convert(record: Record, context: Context) -> Converted:
    line, given = context.line, record.get("messages")
    last = given[-1] if isinstance(given, list) and given else None
    answered = isinstance(last, dict) and last.get("role") == "assistant"
    if record.get("expect") is not None and not answered:  # a task in our own form
        return Converted(tasks=[_task(record, context)])
    try:
        row = {key: value for key, value in record.items() if key not in _TOOLS}
        row["tools"] = decode_text(first_value(record, _TOOLS, "the row"), "'tools'")
        turns = decode_text(given, "'messages'")
        if "messages" not in record and _is_completion(record):
            turns = [*row.pop("prompt"), *row.pop("completion")]
        row["messages"] = turns
        if isinstance(turns, list):
            named = [(f"messages[{index}]", turn) for index, turn in enumerate(turns)]
            row["messages"] = [new for where, turn in named for new in _current_turns(where, turn)]
        plain = fill_tools(row, context)
        conversation = _at(line, plain, Conversation.from_dict, context.unread)
    except DataError as error:
        detail = str(error).removeprefix(f"{line}: ")
        raise Skip("not a conversation", detail) from None
    offered = context.options.get("tools")
    if offered and all(record.get(name) is None for name in _TOOLS):
        conversation = replace(conversation, tools=tuple(offered))
        context.repairs.add(WITHOUT_TOOLS)
    messages = join_split_calls(conversation.messages, context.repairs)
    source = conversation.source or line.path.name
    if messages is not conversation.messages or source != conversation.source:
        conversation = replace(conversation, messages=messages, source=source)
    return Converted(conversation, tasks_of(conversation))


def _task(record: Record, context: Context) -> Task:
    try:
        task = _at(context.line, fill_tools(record, context), Task.from_dict, context.unread)
    except DataError as error:
        raise Skip("not a task", str(error).removeprefix(f"{context.line}: ")) from None
    offered = context.options.get("tools")
    if offered and record.get("tools") is None:
        context.repairs.add(WITHOUT_TOOLS)
        return replace(task, tools=tuple(offered))
    return task


def _current_turns(where: str, turn: Json) -> list[Json]:
    """Return the messages that a turn is: one, or several for `toolInvocations`."""
    if not isinstance(turn, dict):
        return [turn]
    message, kind = dict(turn), ROLES.get(str(turn.get("role")))
    if isinstance(turn.get("tool_calls"), str):
        message["tool_calls"] = decode_text(turn["tool_calls"], f"'{where}.tool_calls'")
    if old := message.pop("function_call", None):
        if message.get("tool_calls"):
            both = "both 'tool_calls' and 'function_call'"
            raise DataError(f"{where}: {both}; wanted one of them")
        message["tool_calls"] = [decode_text(old, f"'{where}.function_call'")]
    if kind == "tool":
        message["role"] = "tool"
        if isinstance(message.get("tool_name"), str) and message.get("name") is None:
            message["name"] = message.pop("tool_name")
    elif kind == "call":
        if message.get("tool_calls"):
            raise DataError(f"{where}: both 'tool_calls' and the role {turn['role']!r}")
        found = decode_text(message.pop("content", None), f"'{where}.content'")
        message |= {
            "role": "assistant",
            "tool_calls": found if isinstance(found, list) else [found],
        }
    used = message.pop("toolInvocations", None)
    return [message] if is_empty(used) else [*_invoked(where, message, used), message]


def _invoked(where: str, message: Record, used: Json) -> list[Json]:
    """Return the turn with the calls of `toolInvocations`, and their results."""
    where = f"{where}.toolInvocations"
    if message.get("tool_calls") or not isinstance(used, list):
        raise DataError(f"{where}: wanted a list of calls and no 'tool_calls', got {used!r:.60}")
    calls, results = list[Json](), list[Json]()
    for one in used:
        if not isinstance(one, dict):
            raise DataError(f"{where}: wanted objects, got {one!r:.60}")
        known = {"state", "step", "toolCallId", "toolName", "args", "result"}
        check_keys(one, known, where, None)
        call = {"id": one.get("toolCallId"), "name": one.get("toolName"), "args": one.get("args")}
        calls.append(call)
        if "result" in one:
            text = one["result"]
            text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            results.append({"role": "tool", "content": text, "tool_call_id": call["id"]})
    return [{"role": "assistant", "tool_calls": calls}, *results]


def read_conversations(path: str | Path) -> list[Conversation]:
    """Read a file of conversations in our own form."""
    return [conversation for _, conversation in _read(path, Conversation.from_dict)]


def read_preferences(path: str | Path) -> list[Preference]:
    """Read a file of pairs in our own form; the format `pairs` reads others as well."""
    return [pair for _, pair in _read(path, Preference.from_dict)]


def read_tasks(
    source: str | Path | RecordStream,
    unread: Counter[str] | None = None,
    tools: Sequence[Tool] = (),
    report: Callable[[str], None] | None = None,
    skipped: list[str] | None = None,
) -> list[Task]:
    """Read a file of tasks in our own form; ids must differ: predictions are joined on them.

    unread: counts the keys that hold something and are not read; without it they are an error.
    tools: for tasks without the key `tools`. report: gets a sentence on these, and on rows that are
    no tasks, which are skipped (and told one by one in `skipped`); without it the first of them is
    an error, and where all are.
    """
    bad = [] if skipped is None else skipped
    tasks, without = list[Task](), 0
    seen: dict[str, FileLine] = {}

    def make(record: Json, keys: set[str] | None) -> Task:
        nonlocal without
        lacks = bool(tools) and isinstance(record, dict) and record.get("tools") is None
        without += lacks
        return Task.from_dict({**record, "tools": list(tools)} if lacks else record, keys)

    for line, task in _read(source, make, unread, None if report is None else bad):
        if task.id in seen:
            first = f"{seen[task.id].unit} {seen[task.id].number}"
            what = f"the id {task.id!r} occurs already in {first}"
            if report is None:
                raise DataError(f"{line}: {what}; ids must differ")
            bad.append(f"{line}: {what}")
            continue
        seen[task.id] = line
        tasks.append(task)
    if bad:
        said = f"skipped {len(bad)} of {len(tasks) + len(bad)} rows that are no tasks: "
        said += "; ".join(bad[:3])
        if not tasks or report is None:
            raise DataError(said)
        report(said)
    if without and report is not None:
        report(f"{without} of {len(tasks)} tasks have no tools, and take the experiment's")
    return tasks


def _read(
    source: str | Path | RecordStream,
    make: Callable[[Json, set[str] | None], T],
    unread: Counter[str] | None = None,
    bad: list[str] | None = None,
) -> Iterator[tuple[FileLine, T]]:
    """Yield each row; bad: gets a sentence on each that cannot be read, else it is an error."""
    cache: dict[Any, Any] = {}
    for line, record in open_records(source):
        context = Context("", line.path, {}, line, tools=cache)
        try:
            if isinstance(record, BadLine):
                raise record.error
            try:
                plain = fill_tools(record, context)
            except DataError as error:
                raise DataError(f"{line}: {error}") from None
            made = _at(line, plain, make, None if unread is None else context.unread)
        except DataError as error:
            if bad is None:
                raise
            bad.append(str(error))
            continue
        yield line, made
        if unread is not None:
            unread.update(context.unread)


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
        context = Context(spec, line.path, {}, line)
        read = row if isinstance(row, Conversation) else None
        read = read or _at(line, row, Conversation.from_dict, context.unread)
        loaded.keep(line, Converted(read, tasks_of(read)), context)
    if not loaded.read:
        raise DataError(f"{spec}: it gave no row; wanted at least one conversation")
    return loaded


def fill_tools(record: Record, context: Context) -> Record:
    """Return the record with its tool objects as `Tool`s; each distinct one is made once.

    One that `Tool.of` refuses is read as the tools of other formats are, with their repairs.
    """
    tools = decode_text(record.get("tools"), "'tools'")
    if not isinstance(tools, list):
        return {**record, "tools": tools}
    made = []
    for given in tools:
        tool = decode_text(given, "'tools'")
        if isinstance(tool, dict):
            tool = context.once(marshal.dumps(tool, 2), partial(_read_tool, tool))
        made.append(tool)
    return {**record, "tools": made}


def _read_tool(tool: Record, context: Context) -> Tool:
    """Return a tool, its schema repaired where it is broken and one thing can be meant."""
    unread, repairs = context.unread, context.repairs
    with suppress(DataError):
        return Tool.of(tool, unread)
    try:
        body = tool.get("function", tool)
        if not isinstance(body, dict):
            raise Skip(BAD_TOOLS)
        schema = first_value(body, SCHEMAS, "a tool")
        if without_schema_nulls(schema) != schema or not isinstance(schema, dict | None):
            raise Skip(BAD_TOOLS)
        tidy = tidy_tool({"parameters": schema}, repairs) if schema else {}
        if isinstance(parameters := tidy.get("parameters"), dict) and is_schema(parameters):
            tidy["parameters"] = drop_bad_keywords(parameters, repairs)
        others = {key: value for key, value in body.items() if key not in SCHEMAS}
        made = {**others, **tidy}
        return make_tool(made if body is tool else {**tool, "function": made}, repairs, unread)
    except Skip:
        return Tool.of(tool, unread)


def _at(
    line: FileLine,
    value: Json,
    make: Callable[[Json, set[str] | None], T],
    unread: set[str] | None = None,
) -> T:
    """Make a value; its error gets the place and, where a message is to blame, its number."""
    try:
        return make(value, unread)
    except DataError as error:
        turns = value.get("messages") if isinstance(value, dict) else None
        for index, turn in enumerate(turns if isinstance(turns, list) else []):
            try:
                Message.from_dict(turn, None if unread is None else set())
            except DataError:
                raise DataError(f"{line}: messages[{index}]: {error}") from None
        raise DataError(f"{line}: {error}") from None


MESSAGES = Source("messages", looks_like, convert, {}, options={"tools"})
