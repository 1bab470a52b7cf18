"""ToolBench: queries for thousands of web APIs, and the paths that a search found through them.

    open_source("data/answer", "toolbench")        # a folder, read recursively, or one file; gzip-compressed or not

    answer file       {"win", "tree", "answer_generation": {"query", "function": [tool], "train_messages": [[message]], ...}}
    instruction file  [{"query", "query_id", "api_list": [{"tool_name", "api_name", "required_parameters", ...}], "relevant APIs"}]

An answer file holds one search, and gives one conversation: the longest of `train_messages`, which is its whole path. What
belongs to the search and not to the user's matter is left out and counted as a repair: the system prompt, which asks for a call
of `Finish`; the prompts that ask for another action than before; and the thoughts beside calls, which mostly speak of attempts
that the path no longer has. The call of `Finish` becomes the final answer. A search that gave up, without a path, or whose
calls break their tools' schemas is skipped.

An instruction file holds queries with the APIs that are right for each, but no arguments: such a row gives a task and no
conversation (`toolbench_apis`). Every record of every file counts as a row, also in files of a folder that are of another format.
Format: Qin et al. 2023, arXiv:2307.16789.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from itertools import islice
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.tasks import tasks_of
from toolhone.sources.toolbench_apis import ONCE, is_query, query_task, tool_of_api

NAME = "toolbench"
ABOUT = About(
    title="ToolBench (answer trees and queries)",
    link="https://github.com/OpenBMB/ToolBench",
    licence="Apache-2.0",
    rows="126,486",
    teaches="paths of several calls through thousands of web APIs; its queries measure the choice among APIs",
)
USES: frozenset[str] = frozenset()
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_GZIP = b"\x1f\x8b"
_START = 4096
_FINISH = "Finish"


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a ToolBench row"
    GAVE_UP = "a search that gave up"
    NO_PATH = "a search without a path to an answer"
    UNREADABLE = "a call whose arguments are not a JSON object"
    UNKNOWN_TOOL = "a call of a tool that is not on offer"
    BAD_ARGUMENTS = "arguments that break the tool's schema"


class Repair(StrEnum):
    """What was left out of a kept row."""

    SYSTEM = "the system prompt of the search left out"
    DIVERSITY = "a prompt of the search for another action left out"
    THOUGHT = "a thought beside a call left out"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        "answer_generation" in record or {"query", "query_id"} <= record.keys()
        for record in records
    )


def is_whole(path: Path) -> bool:
    """Whether a path is for this source alone: a folder, or one answer that fills a file (so that its lines are no rows)."""
    if not path.is_file():
        return path.is_dir()
    return _fills_file(path) and b'"answer_generation"' in _unpacked(path)


def holds_queries(path: Path) -> bool:
    """Whether the first row is a query, which is a task and nothing to learn from."""
    with closing(_records(path)) as rows:
        return any(is_query(record) for _, record in islice(rows, 1))


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001  (every source takes them)
    """Every search that found an answer, as a conversation with the tasks of its turns; every query, as a task."""
    tally = ReadStats()
    for line, record in _records(path):
        identity = _identity(path, line)
        try:
            if is_query(record):
                tally.keep_tasks([query_task(record, identity, NAME)])
                tally.note(ONCE)
                continue
            conversation, repairs = _conversation(record, identity)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep(line, conversation, tasks_of(conversation), repairs)
    return tally.loaded()


def _records(path: Path) -> Generator[tuple[FileLine, Record]]:
    if not path.is_dir():
        yield from _rows(path)
        return
    files = sorted(
        file for file in path.rglob("*") if file.is_file() and file.name.endswith(_SUFFIXES)
    )
    if not files:
        raise DataError(
            f"{path}: the folder holds no ToolBench file; wanted files named *.json (or *.json.gz)"
        )
    for file in files:
        yield from _rows(file)


def _rows(path: Path) -> Iterator[tuple[FileLine, Record]]:
    """The records of a file: one that is a single object over many lines, or rows as everywhere."""
    if path.is_file() and _fills_file(path):
        yield FileLine(path, 1), _single(path)
    else:
        yield from read_records(path)


def _fills_file(path: Path) -> bool:
    """Whether the first line holds nothing but an opening brace, so that one object goes over many lines."""
    with path.open("rb") as stream:
        start = stream.read(_START)
    if start.startswith(_GZIP):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, _START)
        except zlib.error:
            return False  # damaged: the reader of rows says so, with the place
    first, newline, _ = start.lstrip().partition(b"\n")
    return bool(newline) and first.strip() == b"{"


def _single(path: Path) -> Record:
    try:
        record = json.loads(_unpacked(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    assert isinstance(record, dict), "the text began with a brace"
    return record


def _unpacked(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be read: {error}") from None


def _identity(root: Path, line: FileLine) -> str:
    """Unlike for each row of a folder: the way to the file, and the row's number in a file with several."""
    name = line.path.relative_to(root) if root.is_dir() else Path(line.path.name)
    stem = str(name).removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl")
    return (
        f"{NAME}-{stem}"
        if line.unit == "line" and line.number == 1
        else f"{NAME}-{stem}-{line.number}"
    )


def _conversation(record: Record, identity: str) -> tuple[Conversation, list[Repair]]:
    generation = record.get("answer_generation")
    if not isinstance(generation, dict):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)[:8]}")
    if generation.get("finish_type") == "give_up":
        raise Skip(Reason.GAVE_UP)
    paths = generation.get("train_messages")
    if (
        not record.get("win")
        or not isinstance(paths, list)
        or not all(isinstance(path, list) for path in paths)
        or not paths
    ):
        raise Skip(
            Reason.NO_PATH,
            f"win {record.get('win')!r}, valid_data {generation.get('valid_data')!r}",
        )
    tools = _tools(record, generation)
    messages, repairs = _messages(max(paths, key=len), {tool.name: tool for tool in tools})
    return Conversation(tuple(messages), tools, identity, NAME), repairs


def _messages(
    path: Sequence[Json], tools: Mapping[str, Tool]
) -> tuple[list[Message], list[Repair]]:
    """The user's query, calls and results in turn, and the answer."""
    messages: list[Message] = []
    repairs: list[Repair] = []
    for said in path:
        role, content = (
            (said.get("role"), said.get("content")) if isinstance(said, dict) else (None, None)
        )
        waiting = bool(messages and messages[-1].tool_calls)
        if role == "system":
            repairs.append(Repair.SYSTEM)
        elif role == "user" and messages:
            repairs.append(Repair.DIVERSITY)
        elif role == "user":
            messages.append(Message("user", str(content).strip().removesuffix("Begin!").strip()))
        elif role == "function" and waiting:
            messages.append(
                Message(
                    "tool",
                    str(content),
                    tool_call_id=f"call{len(messages) - 1}",
                    name=str(said.get("name")),
                )
            )
        elif (
            role == "assistant"
            and messages
            and not waiting
            and isinstance(said.get("function_call"), dict)
        ):
            call = _call(said["function_call"])
            repairs += [Repair.THOUGHT] if content else []
            if call.name == _FINISH:
                return [*messages, _answer(call)], repairs
            _check(call, tools)
            messages.append(
                Message(
                    "assistant",
                    None,
                    tool_calls=(ToolCall(call.name, call.arguments, f"call{len(messages)}"),),
                )
            )
        else:
            raise Skip(
                Reason.NO_PATH, f"a turn of {role!r} that does not go on from the one before"
            )
    raise Skip(Reason.NO_PATH, "the path does not end with a call of Finish")


def _call(written: Mapping[str, Json]) -> ToolCall:
    try:
        return ToolCall.from_dict(written)
    except DataError as error:
        raise Skip(Reason.UNREADABLE, str(error)) from None


def _answer(finish: ToolCall) -> Message:
    answer = finish.arguments.get("final_answer")
    if (
        finish.arguments.get("return_type") != "give_answer"
        or not isinstance(answer, str)
        or not answer.strip()
    ):
        raise Skip(Reason.GAVE_UP, f"{finish.arguments!r:.80}")
    return Message("assistant", answer.strip())


def _check(call: ToolCall, tools: Mapping[str, Tool]) -> None:
    if call.name not in tools:
        raise Skip(Reason.UNKNOWN_TOOL, f"{call.name!r}{nearest(call.name, tools)}")
    declared = tools[call.name].parameters.get("properties") or {}
    undeclared = [name for name in call.arguments if name not in declared]
    problems = [f"no parameter {name!r}" for name in undeclared] or tools[call.name].problems(
        call.arguments
    )
    if problems:
        raise Skip(Reason.BAD_ARGUMENTS, f"{call.name}, {problems[0]:.120}")


def _tools(record: Record, generation: Record) -> tuple[Tool, ...]:
    """The functions that were on offer but for `Finish`; from the list of APIs where the answer does not hold them."""
    functions = generation.get("function")
    if isinstance(functions, list):
        made = [_tool(function) for function in functions]
    else:
        made = [tool_of_api(api) for api in record.get("api_list") or []]
    by_name = {tool.name: tool for tool in made if tool.name != _FINISH}
    return tuple(by_name.values())


def _tool(function: Json) -> Tool:
    """A tool as the search had it, without what JSON Schema does not know."""
    try:
        tool = Tool.of(function)
    except DataError as error:
        raise Skip(Reason.NOT_THIS_FORMAT, str(error)) from None
    properties = {
        name: _plain(schema) for name, schema in (tool.parameters.get("properties") or {}).items()
    }
    kept = {key: value for key, value in tool.parameters.items() if key != "optional"}
    return Tool(tool.name, tool.description, {**kept, "properties": properties})


def _plain(schema: Json) -> Json:
    if not isinstance(schema, dict) or "example_value" not in schema:
        return schema
    shown = schema["example_value"]
    kept = {key: value for key, value in schema.items() if key != "example_value"}
    return (
        {**kept, "examples": [shown]}
        if shown not in ("", None) and schema.get("type") == "string"
        else kept
    )
