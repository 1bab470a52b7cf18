"""A data file as the doctor sees it: every row, with its conversation or with the reason for none.

    file = read_file("train.jsonl")
    file.cases, file.conversations

The sources of a training read the rows; what it skips is a case of its own. Refused rows of chat
messages are repaired where that is certain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolhone.data.task_files import tasks_from_any
from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import read_literal
from toolhone.dialects.syntax.model_text import Decoded, decode
from toolhone.doctor.checks import REMEDIES
from toolhone.errors import Fault, FindingKind
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Json, Task
from toolhone.schema.json_input import ARGUMENTS, is_empty
from toolhone.schema.json_schema import without_schema_nulls
from toolhone.sources import messages
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, is_table
from toolhone.sources.formats import BAD_LINE, detect_format, open_source
from toolhone.sources.loaded import Refused
from toolhone.sources.source import Context, Skip

_DEEPEST = 4
"""Encodings inside each other that are decoded, at most."""


@dataclass(frozen=True)
class Case:
    """A row: its place, its conversation if it has one, what is wrong, and what was repaired."""

    place: FileLine
    conversation: Conversation | None
    faults: tuple[Fault, ...] = ()
    repairs: frozenset[str] = frozenset()

    @property
    def refused(self) -> bool:
        """Whether a training skips the row, also one that `--fix` can repair."""
        return any(REMEDIES[fault.kind].effect == "drop" for fault in self.faults)


@dataclass(frozen=True)
class DataFile:
    """All rows of a file.

    only_tasks: rows that are no case, since they give tasks only. tasks: those of a task file,
    whose prompts are held out. repaired, noted, unread: as the source counted them.
    """

    path: Path
    format: str
    cases: list[Case]
    only_tasks: int = 0
    tasks: list[Task] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        return len(self.cases) + self.only_tasks

    @property
    def trainable(self) -> int:
        """How many rows give a training a conversation."""
        return sum(case.conversation is not None and not case.refused for case in self.cases)

    @property
    def conversations(self) -> list[Conversation]:
        return [case.conversation for case in self.cases if case.conversation is not None]


def read_file(path: str | Path, format: str = "auto", progress: Progress | None = None) -> DataFile:
    """Read a file of any format; a file of none, or without data, is a `DataError`."""
    stream, progress = RecordStream(path), progress or Progress()
    path = stream.path
    first = stream.first if path.is_file() and not is_table(path) else ()
    if any("expect" in row for _, row in first if not isinstance(row, BadLine)):
        tasks = tasks_from_any(stream, report=progress.report)
        return DataFile(path, "tasks", [], len(tasks), tasks)
    name = detect_format(stream) if format == "auto" else format
    progress.start(f"reading {path.name}", total=1)
    # Faults of chat messages that their source would hide.
    faults: dict[FileLine, list[Fault]] = {}

    def find_faults(line: FileLine, row: Record | BadLine) -> None:
        # Other formats than chat messages repair theirs in their sources.
        if isinstance(row, BadLine) or "messages" not in row or path.is_dir():
            return
        if not row.keys() >= {"query", "tools", "answers"}:
            faults[line] = repair_record(row)[1]

    loaded = open_source(stream, name, on_row=find_faults)
    progress.advance()
    pairs = zip(loaded.places, loaded.conversations, strict=True)
    cases = [Case(place, one, tuple(faults.get(place, ()))) for place, one in pairs]
    cases += [_refused_case(row, name, faults.get(row.line, [])) for row in loaded.refused]
    cases.sort(key=lambda case: (str(case.place.path), case.place.number))
    counted = loaded.repaired, loaded.noted, loaded.unread
    return DataFile(path, name, cases, loaded.only_tasks, [], *counted)


def _refused_case(refused: Refused, name: str, faults: list[Fault]) -> Case:
    """Return a refused row, repaired if its faults can be repaired, else with its reason."""
    bad, is_chat = refused.reason == BAD_LINE, name == messages.MESSAGES.name
    kind = FindingKind.UNREADABLE if bad or is_chat else FindingKind.REFUSED
    parts = [refused.detail] if bad else [refused.reason, refused.detail]
    grave = [fault for fault in faults if REMEDIES[fault.kind].effect != "keep"]
    own = [fault for fault in grave if REMEDIES[fault.kind].effect == "drop"]
    if grave and is_chat and isinstance(refused.row, dict):
        context = Context(name, refused.line.path, {}, refused.line)
        with suppress(Skip):
            converted = messages.convert(repair_record(refused.row)[0], context)
            why = tuple(fault if fault in own else fault._replace(kind=kind) for fault in grave)
            repairs = frozenset(fault.kind.value for fault in grave)
            return Case(refused.line, converted.conversation, why, repairs)
    said = Fault(kind, "", ": ".join(filter(None, parts)), "")
    return Case(refused.line, None, tuple(own) or (said,))


def repair_record(record: Record) -> tuple[Record, list[Fault]]:
    """Return a record of chat messages that its source can read, and the faults it would hide.

    Arguments become objects, and tools lose their nulls. What has two readings stays as it is.
    """
    result, faults = dict(record), list[Fault]()
    tools, turns = _from_json(record.get("tools")), _from_json(record.get("messages"))
    if isinstance(tools, list):
        result["tools"] = given = [_from_json(tool) for tool in tools]
        if "null" in json.dumps(given):
            result["tools"] = [_plain_tool(tool) for tool in given]
        if result["tools"] != given:
            what = "tools have null parameters or null keywords of JSON Schema"
            faults.append(Fault(FindingKind.NULL_PADDING, "tools", what, "wanted them left out"))
    if isinstance(turns, list):
        result["messages"] = [dict(turn) if isinstance(turn, dict) else turn for turn in turns]
    for index, turn in enumerate(result["messages"] if isinstance(turns, list) else ()):
        field, message = f"messages[{index}]", turn if isinstance(turn, dict) else {}
        if isinstance(calls := _from_json(message.get("tool_calls")), list):
            named = [(f"{field}.tool_calls[{number}]", call) for number, call in enumerate(calls)]
            message["tool_calls"] = [_repair_call(place, call, faults) for place, call in named]
        if old := _from_json(message.get("function_call")):
            message["function_call"] = _repair_call(f"{field}.function_call", old, faults)
    return result, faults


def _repair_call(field: str, call: Json, faults: list[Fault]) -> Json:
    body = call.get("function", call) if isinstance(call, dict) else call
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(name, str) or not name.strip():
        what = f"an empty call: {json.dumps(call)[:80]}"
        faults.append(Fault(FindingKind.NO_NAME, field, what, "wanted a name and arguments"))
        return call
    key = next((key for key in ARGUMENTS if not is_empty(body.get(key))), ARGUMENTS[0])
    text = body.get(key)
    if not isinstance(text, str) or not text.strip():
        return call
    value, depth = _decode_nested(text)
    if not isinstance(value, dict) or depth < 0:
        kind, problem = FindingKind.ARGUMENTS_NOT_JSON, "text that holds no JSON object"
    elif depth > 1:
        kind, problem = FindingKind.ENCODED_TWICE, f"text inside text, encoded {depth} times"
    else:
        kind, problem = FindingKind.ARGUMENTS_AS_TEXT, "JSON text"
    what = f"{name}: {text[:60]!r} is {problem}"
    faults.append(Fault(kind, f"{field}.arguments", what, "wanted an object"))
    fixed = {**body, key: value if isinstance(value, dict) else text}
    return fixed if body is call else {**call, "function": fixed}


def _decode_nested(text: str) -> tuple[Json, int]:
    """Return what a text says, and how many JSON encodings it had; -1 for Python literals."""
    value: Json = text
    for depth in range(_DEEPEST):
        if not isinstance(value, str):
            return value, depth
        inner = _from_json(value)
        if inner is value:
            return _from_json(value, read_literal), -1
        value = inner
    return value, _DEEPEST


def _from_json(value: Json, read: Callable[[str, int], Decoded] = decode) -> Json:
    """Return what a JSON text says; any other value as it is."""
    if not isinstance(value, str):
        return value
    found = read(value, 0)
    whole = found.problem is ParseProblem.NONE and not value[found.end :].strip()
    return found.value if whole else value


def _plain_tool(tool: Json) -> Json:
    """Return a tool object without nulls in its parameters."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _plain_tool(tool["function"])}
    if "parameters" not in tool:
        return tool
    return {**tool, "parameters": without_schema_nulls(tool["parameters"])}
