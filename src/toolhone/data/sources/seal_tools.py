"""Seal-Tools: a query and the calls that answer it, in one or several fields, against a catalogue of 4,076 tools.

    {"id", "query", "calling": [{"api", "parameters", "responses": ["API_call_0"]}]}     and beside it  tool.jsonl(.gz)

A row becomes a user message and one assistant turn with all its calls. On offer are the called tools and, seeded for each row,
distractors: tools of the same field first, then of the same branch, then any. Values of the wrong type are mended where only one
value can be meant ("10" for an int). A row in which a call uses another call's result (`API_call_0`) is counted and skipped: the
data hold no results, so the later call could not be told. Format: Wu et al. 2024, arXiv:2405.08355.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from toolhone.data.files import Line, Record, read_records
from toolhone.data.sources.base import About, Loaded, Options, Skip, Tally
from toolhone.data.sources.offered import typed
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall

NAME = "seal_tools"
ABOUT = About(
    title="Seal-Tools",
    link="https://github.com/fairyshine/Seal-Tools",
    licence="Apache-2.0",
    rows="14,076",
    teaches="choosing one or several of 4,076 tools, among tools of the same field",
)
USES = frozenset({"distractors", "catalogue", "seed"})
DISTRACTORS = 4
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_REFERENCE = re.compile(r"\bAPI_call_\d+\b")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a Seal-Tools row"
    DEPENDENT = "a call that uses another call's result"
    UNKNOWN_TOOL = "a call of a tool that the catalogue lacks"
    BAD_ARGUMENTS = "arguments that break the tool's schema"


def sniff(records: Sequence[Record]) -> bool:
    return all("query" in record and "calling" in record for record in records)


def read(path: Path, options: Options) -> Loaded:
    """Every row whose calls can be made at once, with one task that expects these calls in any order."""
    catalogue = Catalogue.read(options.catalogue or _beside(path))
    count = DISTRACTORS if options.distractors is None else options.distractors
    if not 0 <= count < len(catalogue.tools):
        raise DataError(f"{path}: 'distractors' must be between 0 and {len(catalogue.tools) - 1} for this catalogue, got {count}")
    tally = Tally()
    for line, record in read_records(path):
        try:
            query, calls, mended = read_calls(record, catalogue)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = str(record.get("id") or f"{path.name}-{line.number}")
        tools = catalogue.offer([call.name for call in calls], count, random.Random(f"{options.seed or 0}/{identity}"))
        user = Message("user", query)
        conversation = Conversation((user, Message("assistant", tool_calls=calls)), tools, identity, NAME)
        tally.keep(line, conversation, [task_of(conversation)], ["arguments of another type"] if mended else [])
    return tally.loaded()


def task_of(conversation: Conversation) -> Task:
    user, assistant = conversation.messages
    expected = tuple(ExpectedCall(call.name, call.arguments) for call in assistant.tool_calls)
    category = "one_call" if len(expected) == 1 else "several_calls"
    return Task(conversation.id, (user,), conversation.tools, Expect(expected), category=category, source=NAME)


def _beside(path: Path) -> Path:
    for name in ("tool.jsonl.gz", "tool.jsonl"):
        if (path.parent / name).exists():
            return path.parent / name
    raise DataError(f"{path}: the catalogue 'tool.jsonl' (or 'tool.jsonl.gz') is not beside this file; name it with 'catalogue'")


def read_calls(record: Record, catalogue: Catalogue) -> tuple[str, tuple[ToolCall, ...], bool]:
    """The query, the calls, and whether an argument was mended."""
    query, calling = record.get("query"), record.get("calling")
    if not isinstance(query, str) or not query.strip() or not isinstance(calling, list) or not calling:
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    calls, mended = [], False
    for call in calling:
        if not isinstance(call, dict) or not isinstance(call.get("parameters"), dict):
            raise Skip(Reason.NOT_THIS_FORMAT, f"the call {call!r:.60}")
        name, given = str(call.get("api")), call["parameters"]
        if name not in catalogue.tools:
            raise Skip(Reason.UNKNOWN_TOOL, f"{name!r}{nearest(name, catalogue.tools)}")
        if any(_REFERENCE.search(text) for text in _texts(given)):
            raise Skip(Reason.DEPENDENT, f"{name}({given!r:.80})")
        arguments = _mend(catalogue.tools[name], given)
        mended = mended or arguments != given
        calls.append(ToolCall(name, arguments))
    return query, tuple(calls), mended


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _mend(tool: Tool, given: Record) -> Record:
    """The arguments with types put right where that is certain; raises `Skip` when they still break the schema."""
    properties = tool.parameters["properties"]
    for name in given:
        if name not in properties:
            raise Skip(Reason.BAD_ARGUMENTS, f"{tool.name} has no parameter {name!r}{nearest(name, properties)}")
    arguments = {name: typed(value, properties[name]["type"]) for name, value in given.items()}
    if problems := tool.problems(arguments):
        raise Skip(Reason.BAD_ARGUMENTS, f"{tool.name}, {problems[0]}")
    return arguments


@dataclass(frozen=True)
class Catalogue:
    """The tools by name, and their names by field ("Sports/Golf") and by branch ("Sports")."""

    tools: dict[str, Tool]
    fields: dict[str, str]
    groups: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Catalogue:
        tools: dict[str, Tool] = {}
        fields: dict[str, str] = {}
        groups: dict[str, list[str]] = {}
        for line, record in read_records(path):
            tool = read_tool(line, record)
            if tool.name in tools:
                raise DataError(f"{line}: the tool {tool.name!r} occurs already; names must differ")
            tools[tool.name], fields[tool.name] = tool, str(record.get("field", ""))
            for group in dict.fromkeys((fields[tool.name], _branch(fields[tool.name]))):
                groups.setdefault(group, []).append(tool.name)
        return Catalogue(tools, fields, groups)

    def offer(self, called: Sequence[str], count: int, rng: random.Random) -> tuple[Tool, ...]:
        """The called tools and `count` others, shuffled."""
        names = list(dict.fromkeys(called))
        chosen = set(names)
        target = len(chosen) + count
        own = [self.fields[name] for name in names]
        near = [self._members(own), self._members([_branch(name) for name in own]), list(self.tools)]
        for candidates in near:
            rest = [name for name in candidates if name not in chosen]
            picked = rng.sample(rest, min(target - len(chosen), len(rest)))
            chosen.update(picked)
            names += picked
        rng.shuffle(names)
        return tuple(self.tools[name] for name in names)

    def _members(self, groups: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(name for group in groups for name in self.groups[group]))


def _branch(field_name: str) -> str:
    return field_name.partition("/")[0]


def read_tool(line: Line, record: Record) -> Tool:
    """A tool of the catalogue; its schema is right by the way it is made, so 4,076 of them need no slow check."""
    name, described, required = record.get("api_name"), record.get("parameters"), record.get("required") or []
    if not isinstance(name, str) or not name or not isinstance(described, dict) or not isinstance(required, list):
        raise DataError(f"{line}: not a tool of Seal-Tools; wanted 'api_name', 'parameters' and a list 'required'")
    for parameter in required:
        if parameter not in described:
            raise DataError(f"{line}: tool {name!r} requires {parameter!r}, which is not among its parameters")
    properties = {parameter: _property(line, parameter, text) for parameter, text in described.items()}
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(name, str(record.get("api_description") or ""), parameters)


def _property(line: Line, name: str, described: Json) -> Record:
    kind = described.get("type") if isinstance(described, dict) else described
    if kind not in _TYPES:
        raise DataError(f"{line}: parameter {name!r} has the unknown type {kind!r}; known: {', '.join(_TYPES)}")
    unit = f" (in {described['unit']})" if described.get("unit") else ""
    result: Record = {"type": _TYPES[kind], "description": str(described.get("description") or "") + unit}
    if isinstance(described.get("choices"), list):
        result["enum"] = described["choices"]
    if "default" in described:
        result["default"] = described["default"]
    return result
