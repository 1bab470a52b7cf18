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
from dataclasses import replace
from pathlib import Path

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import read_literal
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.catalogue import find_beside
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, is_table, read_records
from toolhone.sources.python_types import UnknownType, read_type
from toolhone.sources.scenarios import json_types, of_types, path_of_row
from toolhone.sources.source import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.tool_specs import TYPED, convert_type, fit_call

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


def looks_like(record: Record) -> bool:
    if record.get("role") == "API":
        return (
            isinstance(record.get("param_dict"), dict) and {"api_name", "result"} <= record.keys()
        )
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


def prepare(records: Sequence[Record], context: Context) -> tuple[dict[str, Tool], set[str]]:
    """Return the tools by name, and the names of those that their calls had to describe."""
    known = read_table(find_beside(context, ["all_apis.csv"]))
    calls: dict[str, list[Mapping[str, Json]]] = {}
    for turns in (record["turns"] for record in records):
        for turn in turns if all(map(looks_like, turns)) else ():
            if turn["role"] != "API":
                continue
            call, result = _called(turn), turn["result"]
            calls.setdefault(call.name, []).append(call.arguments)
            if call.name != SEARCHER.name:
                continue
            output = result.get("output") if isinstance(result, dict) else None
            for found in output if isinstance(output, list) else [output]:
                if isinstance(found, dict) and isinstance(found.get("name"), str):
                    name, text = found["name"], str(found.get("description") or "")
                    described = found.get("input_parameters") or {}
                    known[name] = _described_tool(f"ToolSearcher on {name}", name, text, described)
    made = {name: _make_tool(known[name], given) for name, given in calls.items() if name in known}
    tools = {name: tool for name, (tool, _) in made.items()}
    by_calls = {name for name, (_, described) in made.items() if described}
    return {**tools, SEARCHER.name: SEARCHER}, by_calls


def convert(record: Record, context: Context) -> Converted:
    turns, (known, by_calls) = record["turns"], context.prepared
    for number, turn in enumerate(turns, start=1):
        if not looks_like(turn):
            raise Skip("not an API-Bank dialogue", f"line {number}: keys {sorted(turn)}")
    names = sorted({str(turn["api_name"]) for turn in turns if turn["role"] == "API"})
    for name in names:
        if name not in known:
            detail = f"{name!r}{nearest(name, known)}"
            raise Skip("a call of an API that is not described", detail)
    tools = tuple(known[name] for name in names)
    messages = _messages(turns, tools, context.repairs)
    conversation = Conversation(tuple(messages), tools, path_of_row(context))
    tasks = tasks_of(context.complete(conversation, record))
    if not tasks:
        raise Skip("a dialogue without a turn to decide")
    if by_calls & set(names):
        repair = "an API that is called otherwise than described, described by its calls"
        context.repairs.add(repair)
    return Converted(tasks=tasks)


def _called(turn: Record) -> ToolCall:
    """Return a call; values received in another type (`"2"` as 2) are taken so."""
    written = turn["param_dict"]
    given = turn["result"].get("input") if isinstance(turn["result"], dict) else None
    got: Record = given if isinstance(given, dict) else {}
    same = {name: got[name] for name in written if name in got and str(got[name]) == written[name]}
    return ToolCall(str(turn["api_name"]), written | same)


def _messages(turns: Sequence[Record], tools: Sequence[Tool], repairs: set[str]) -> list[Message]:
    """Return the turns as messages; an API line is a call and its result."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        role, last = turn["role"], messages[-1].role if messages else ""
        said = messages[-1].content if last == "assistant" else None
        if role == "User" and last != "user":
            messages.append(Message("user", turn["text"].strip()))
        elif role == "AI" and last == "assistant":
            repairs.add("two replies in a row made one")
            messages[-1] = Message("assistant", f"{said}\n{turn['text'].strip()}")
        elif role == "AI" and last:
            messages.append(Message("assistant", turn["text"].strip()))
        elif role == "API" and last:
            call, _ = fit_call(replace(_called(turn), id=f"call{number}"), tools)
            given, result = turn["param_dict"], turn["result"]
            repairs |= {TYPED} if isinstance(given, dict) and call.arguments != given else set()
            result = result if isinstance(result, dict) else {"output": result}
            failed = result.get("exception") is not None
            value = {"exception": result["exception"]} if failed else result.get("output")
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            messages = messages[:-1] if last == "assistant" else messages
            messages.append(Message("assistant", said, tool_calls=(call,)))
            messages.append(Message("tool", text, tool_call_id=call.id, name=call.name))
        else:
            reason = "a turn that does not go on from the one before"
            raise Skip(reason, f"turn {number + 1} of {role!r}")
    return messages


def read_table(path: Path) -> dict[str, Tool]:
    """Return the APIs of `all_apis.csv` by name: a class, a signature, and a text in Python."""
    known = {}
    for line, row in read_records(path):
        if not row.keys() >= {_CLASS, _SIGNATURE, _INFO}:
            wanted = f"wanted the columns {_CLASS}, {_SIGNATURE} and {_INFO}"
            raise DataError(f"{line}: not the table of API-Bank; {wanted}")
        described = {name: {"type": kind} for name, kind in _PARAMETER.findall(row[_SIGNATURE])}
        described |= _assigned(row[_INFO], "input_parameters", {})
        description = str(_assigned(row[_INFO], "description", ""))
        known[row[_CLASS]] = _described_tool(line, row[_CLASS], description, described)
    return known


def _assigned(text: str, name: str, otherwise: Json) -> Json:
    """Return the literal that Python text assigns to a name; `otherwise` where there is none."""
    found = re.search(rf"^\s*{name}\s*=", text, re.MULTILINE)
    read = read_literal(text, found.end()) if found else None
    if read is None or read.problem is not ParseProblem.NONE:
        return otherwise
    return read.value if isinstance(read.value, type(otherwise)) else otherwise


def _described_tool(
    where: FileLine | str, name: str, description: str, described: Mapping[str, Json]
) -> Tool:
    """Return a tool whose parameters have types as Python names them."""
    properties: dict[str, Json] = {}
    for key, about in described.items():
        fields = about if isinstance(about, dict) else {}
        try:
            properties[key] = dict(read_type(str(fields.get("type", "any"))).schema)
        except UnknownType:
            kind = f"{fields.get('type')!r:.40}"
            raise DataError(f"{where}: parameter {key!r} has the unknown type {kind}") from None
        if fields.get("description"):
            properties[key]["description"] = str(fields["description"])
    return Tool(name, description, {"type": "object", "properties": properties})


def _make_tool(api: Tool, calls: Sequence[Mapping[str, Json]]) -> tuple[Tool, bool]:
    """Return the tool, and whether its parameters had to be taken from its calls.

    A described schema is kept where all values fit it. A parameter is required if every call gives
    it.
    """
    described = api.properties
    given = list(dict.fromkeys(name for arguments in calls for name in arguments))
    by_calls = any(name not in described for name in given)
    properties: dict[str, Json] = {}
    for name in given if by_calls else described:
        values = [arguments[name] for arguments in calls if name in arguments]
        schema = properties[name] = described.get(name, {})
        fitting = (convert_type(value, schema.get("type")) for value in values)
        if name not in described or any(api.problems({name: value}) for value in fitting):
            by_calls = True
            text = {"description": schema["description"]} if "description" in schema else {}
            properties[name] = of_types(json_types(values)) | text
    required = [name for name in properties if all(name in arguments for arguments in calls)]
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(api.name, api.description, parameters), by_calls


API_BANK = Source(
    "api_bank",
    looks_like,
    convert,
    {
        "": {"turns"},
        "turns": {"role", "text", "api_name", "param_dict", "result"},
        "turns.result": {"api_name", "input", "output", "exception"},
    },
    prepare,
    rows=rows,
    options={"catalogue"},
)
