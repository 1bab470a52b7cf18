"""API-Bank: dialogues between a user, an assistant and its APIs, one in each file.

    {"role": "User", "text": "..."}
    {"role": "API", "api_name": "AddAlarm", "param_dict": {...}, "result": {"input", "output", ...}}

A dialogue is one row and gives the tasks of its turns. An API is described by what `ToolSearcher`
says of it in any file, else by `all_apis.csv`; where a call gives a parameter that this lacks, by
its calls. Format: Li et al. 2023, arXiv:2304.08244.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import read_literal
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.catalogue import find_beside
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, is_table, read_records
from toolhone.sources.python_types import UnknownType, read_type
from toolhone.sources.scenarios import json_types, of_types
from toolhone.sources.tool_specs import TYPED, convert_type, fit_call

DESCRIBED = "an API that is called otherwise than described, described by its calls"
JOINED = "two replies in a row made one"
SEARCHER = Tool(
    "ToolSearcher",
    "Finds an API by keywords and tells its name, what it does and its parameters.",
    {
        "type": "object",
        "properties": {"keywords": {"type": "string", "description": "Words to search for."}},
        "required": ["keywords"],
    },
)
_CLASS, _SIGNATURE, _INFO = "类名", "input_parameters", "api_info"
_PARAMETER = re.compile(r"(\w+)\s*:\s*(\w+(?:\[[^\]]*\])?)")


@dataclass(frozen=True)
class Api:
    """An API as it is described: a schema for each parameter."""

    name: str
    description: str
    parameters: Mapping[str, Record]


@dataclass(frozen=True)
class Called:
    """A call: its arguments as written and as the API received them, and its output."""

    name: str
    written: Record
    received: Record
    output: Json = None


@dataclass(frozen=True)
class Prepared:
    """The tools by name, and the names of those that their calls had to describe."""

    tools: Mapping[str, Tool]
    by_calls: frozenset[str]


def looks_like(record: Record) -> bool:
    if record.get("role") == "API":
        return record.keys() >= {"api_name", "param_dict", "result"}
    return record.get("role") in ("User", "AI") and isinstance(record.get("text"), str)


def rows(stream: RecordStream) -> Iterator[tuple[FileLine, Record | BadLine]]:
    """Yield one row for each file: its turns under "turns", or its first bad line."""
    files = stream.files if stream.path.is_dir() else [stream]
    files = [file for file in files if not is_table(file.path)]
    if not files:
        folder = f"{stream.path}: the folder holds no API-Bank file"
        raise DataError(f"{folder}; wanted files named *.jsonl")
    for file in files:
        turns = [turn for _, turn in file]
        bad = next((turn for turn in turns if isinstance(turn, BadLine)), None)
        yield FileLine(file.path, 1), bad or {"turns": turns}


def prepare(records: Sequence[Record], context: Context) -> Prepared:
    known = read_table(find_beside(context, ["all_apis.csv"]))
    calls: dict[str, list[Called]] = {}
    for record in records:
        turns = record["turns"]
        for called in map(_called, filter(_is_call, turns)) if all(map(looks_like, turns)) else ():
            calls.setdefault(called.name, []).append(called)
    known |= _searched(calls.get(SEARCHER.name, ()))
    made = {name: _make_tool(known[name], given) for name, given in calls.items() if name in known}
    tools = {name: tool for name, (tool, _) in made.items()}
    by_calls = frozenset(name for name, (_, described) in made.items() if described)
    return Prepared({**tools, SEARCHER.name: SEARCHER}, by_calls)


def convert(record: Record, context: Context) -> Converted:
    turns, prepared = record["turns"], context.prepared
    for number, turn in enumerate(turns, start=1):
        if not looks_like(turn):
            raise Skip("not an API-Bank dialogue", f"line {number}: keys {sorted(turn)}")
    names = sorted({str(turn["api_name"]) for turn in turns if _is_call(turn)})
    for name in names:
        if name not in prepared.tools:
            detail = f"{name!r}{nearest(name, prepared.tools)}"
            raise Skip("a call of an API that is not described", detail)
    tools = tuple(prepared.tools[name] for name in names)
    messages = _messages(turns, tools, context.repairs)
    file, root = context.line.path, context.path
    name = str(file.relative_to(root)) if root.is_dir() else file.name
    identity = name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    conversation = Conversation(tuple(messages), tools, identity)
    tasks = tasks_of(context.complete(conversation, record))
    if not tasks:
        raise Skip("a dialogue without a turn to decide")
    context.repairs |= {DESCRIBED} if prepared.by_calls & set(names) else set()
    return Converted(tasks=tasks)


def _is_call(turn: Record) -> bool:
    return turn.get("role") == "API"


def _called(turn: Record) -> Called:
    """Return a call; values received in another type (`"2"` as 2) are taken so."""
    written = turn["param_dict"] if isinstance(turn["param_dict"], dict) else {}
    result = turn["result"] if isinstance(turn["result"], dict) else {}
    given = result.get("input")
    got: Record = given if isinstance(given, dict) else {}
    received = {
        name: got[name] if name in got and str(got[name]) == value else value
        for name, value in written.items()
    }
    return Called(str(turn["api_name"]), written, received, result.get("output"))


def _messages(turns: Sequence[Record], tools: Sequence[Tool], repairs: set[str]) -> list[Message]:
    """Return the turns as messages; an API line is a call and its result."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        role, last = turn["role"], messages[-1].role if messages else ""
        said = messages[-1].content if last == "assistant" else None
        if role == "User" and last != "user":
            messages.append(Message("user", turn["text"].strip()))
        elif role == "AI" and last == "assistant":
            repairs.add(JOINED)
            messages[-1] = Message("assistant", f"{said}\n{turn['text'].strip()}")
        elif role == "AI" and last:
            messages.append(Message("assistant", turn["text"].strip()))
        elif role == "API" and last:
            called = _called(turn)
            given = ToolCall(called.name, called.received, f"call{number}")
            call, _ = fit_call(given, tools)
            repairs |= {TYPED} if call.arguments != called.written else set()
            messages = messages[:-1] if last == "assistant" else messages
            result = _result_text(turn["result"])
            messages.append(Message("assistant", said, tool_calls=(call,)))
            messages.append(Message("tool", result, tool_call_id=call.id, name=call.name))
        else:
            reason = "a turn that does not go on from the one before"
            raise Skip(reason, f"turn {number + 1} of {role!r}")
    return messages


def _result_text(result: Json) -> str:
    """Return what the API gave back: its output, or its exception."""
    body = result if isinstance(result, dict) else {"output": result}
    failed = body.get("exception") is not None
    value = {"exception": body["exception"]} if failed else body.get("output")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_table(path: Path) -> dict[str, Api]:
    """Return the APIs of `all_apis.csv` by name: a class, a signature, and a text in Python."""
    known = {}
    for line, row in read_records(path):
        if not row.keys() >= {_CLASS, _SIGNATURE, _INFO}:
            raise DataError(
                f"{line}: not the table of API-Bank; "
                f"wanted the columns {_CLASS}, {_SIGNATURE} and {_INFO}"
            )
        described = {name: {"type": kind} for name, kind in _PARAMETER.findall(row[_SIGNATURE])}
        for name, about in _assigned(row[_INFO], "input_parameters", {}).items():
            described[name] = about if isinstance(about, dict) else {}
        parameters = {name: _schema(line, name, about) for name, about in described.items()}
        description = str(_assigned(row[_INFO], "description", ""))
        known[row[_CLASS]] = Api(row[_CLASS], description, parameters)
    return known


def _assigned(text: str, name: str, otherwise: Json) -> Json:
    """Return the literal that Python text assigns to a name; `otherwise` where there is none."""
    found = re.search(rf"^\s*{name}\s*=", text, re.MULTILINE)
    read = read_literal(text, found.end()) if found else None
    if read is None or read.problem is not ParseProblem.NONE:
        return otherwise
    return read.value if isinstance(read.value, type(otherwise)) else otherwise


def _schema(line: FileLine | str, name: str, about: Mapping[str, Json]) -> Record:
    try:
        schema: Record = dict(read_type(str(about.get("type", "any"))).schema)
    except UnknownType:
        kind = f"{about.get('type')!r:.40}"
        raise DataError(f"{line}: parameter {name!r} has the unknown type {kind}") from None
    text = about.get("description")
    return {**schema, "description": str(text)} if text else schema


def _searched(calls: Sequence[Called]) -> dict[str, Api]:
    """Return the APIs that `ToolSearcher` found, by name."""
    known = {}
    for called in calls:
        for found in called.output if isinstance(called.output, list) else [called.output]:
            if not isinstance(found, dict) or not isinstance(found.get("name"), str):
                continue
            name, where = found["name"], f"ToolSearcher on {found['name']}"
            described = found.get("input_parameters") or {}
            parameters = {key: _schema(where, key, about) for key, about in described.items()}
            known[name] = Api(name, str(found.get("description") or ""), parameters)
    return known


def _make_tool(api: Api, calls: Sequence[Called]) -> tuple[Tool, bool]:
    """Return the tool, and whether its parameters had to be taken from its calls.

    A parameter is required if every call gives it.
    """
    given = list(dict.fromkeys(name for called in calls for name in called.received))
    by_calls = any(name not in api.parameters for name in given)
    names = given if by_calls else list(api.parameters)
    parameters = {name: _fitting_schema(name, api.parameters.get(name), calls) for name in names}
    by_calls = by_calls or any(parameters[name] is not api.parameters[name] for name in names)
    required = [name for name in parameters if all(name in called.received for called in calls)]
    schema = {"type": "object", "properties": parameters, "required": required}
    return Tool(api.name, api.description, schema), by_calls


def _fitting_schema(name: str, described: Record | None, calls: Sequence[Called]) -> Record:
    """Return the described schema of a parameter where all values fit it, else their types."""
    values = [called.received[name] for called in calls if name in called.received]
    if described is not None:
        tool = Tool("", "", {"type": "object", "properties": {name: described}})
        kind = described.get("type")
        if not any(tool.problems({name: convert_type(value, kind)}) for value in values):
            return described
    text = (described or {}).get("description")
    return of_types(json_types(values)) | ({} if text is None else {"description": text})


API_BANK = Source("api_bank", looks_like, convert, prepare, rows=rows, options={"catalogue"})
