"""Seal-Tools: a query and the calls that answer it, in one or several fields, against a catalogue of 4,076 tools.

    {"id", "query", "calling": [{"api", "parameters", "responses": ["API_call_0"]}]}     and beside it  tool.jsonl(.gz)

A row becomes a user message and one assistant turn with all its calls. On offer are the called tools and, seeded for each row,
distractors: tools of the same field first, then of the same branch, then any. Values of the wrong type are mended where only one
value can be meant ("10" for an int). A row in which a call uses another call's result (`API_call_0`) gives a task alone, since the
data hold no results that a later turn could use: it expects all calls in one reply, in their order, with the references as texts.
A system message says how these are counted, the tools' descriptions say what each call gives, and every parameter takes a
reference as well. Format: Wu et al. 2024, arXiv:2405.08355.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import typed
from toolhone.sources.references import taking_references, texts_of

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
SYSTEM = (
    "Answer with all calls that the request takes, in the order in which they are to be made. You will not see their results: "
    "where an argument is what an earlier call gives, write a reference in its place. The results of all calls are counted from 0, "
    "in the order of the calls and of what each tool says that it gives: API_call_0 stands for the first result, API_call_1 for "
    "the second."
)
_REFERENCE = re.compile(r"\bAPI_call_\d+\b")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a Seal-Tools row"
    REFERENCE = "a reference that is not to a result of an earlier call"
    UNKNOWN_TOOL = "a call of a tool that the catalogue lacks"
    BAD_ARGUMENTS = "arguments that break the tool's schema"


def sniff(records: Sequence[Record]) -> bool:
    return all("query" in record and "calling" in record for record in records)


def read(path: Path, options: Options) -> Loaded:
    """Every row whose calls fit, with one task that expects them: in any order, or in theirs where one uses another's result."""
    catalogue = Catalogue.read(options.catalogue or _beside(path))
    count = DISTRACTORS if options.distractors is None else options.distractors
    if not 0 <= count < len(catalogue.tools):
        raise DataError(
            f"{path}: 'distractors' must be between 0 and {len(catalogue.tools) - 1} for this catalogue, got {count}"
        )
    tally = ReadStats()
    for line, record in read_records(path):
        try:
            query, calls, mended = read_calls(record, catalogue)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = str(record.get("id") or f"{path.name}-{line.number}")
        tools = catalogue.offer(
            [call.name for call in calls], count, random.Random(f"{options.seed or 0}/{identity}")
        )
        conversation = Conversation(
            (Message("user", query), Message("assistant", tool_calls=calls)), tools, identity, NAME
        )
        keep(tally, line, conversation, catalogue, ["arguments of another type"] if mended else [])
    return tally.loaded()


def keep(
    tally: ReadStats,
    line: FileLine,
    conversation: Conversation,
    catalogue: Catalogue,
    repairs: Sequence[str],
) -> None:
    """Keep a row with its task; one whose calls use each other's results for its task alone."""
    user, assistant = conversation.messages
    expected = tuple(ExpectedCall(call.name, call.arguments) for call in assistant.tool_calls)
    category = "one_call" if len(expected) == 1 else "several_calls"
    task = Task(
        conversation.id,
        (user,),
        conversation.tools,
        Expect(expected),
        category=category,
        source=conversation.source,
    )
    if not any(
        _REFERENCE.search(text)
        for call in assistant.tool_calls
        for text in texts_of(call.arguments)
    ):
        tally.keep(line, conversation, [task], repairs)
        return
    tools = tuple(catalogue.telling(tool) for tool in conversation.tools)
    expect = Expect(expected, order="strict")
    tally.keep_tasks(
        [
            replace(
                task,
                messages=(Message("system", SYSTEM), user),
                tools=tools,
                expect=expect,
                category="nested",
            )
        ],
        repairs,
    )


def _beside(path: Path) -> Path:
    for name in ("tool.jsonl.gz", "tool.jsonl"):
        if (path.parent / name).exists():
            return path.parent / name
    raise DataError(
        f"{path}: the catalogue 'tool.jsonl' (or 'tool.jsonl.gz') is not beside this file; name it with 'catalogue'"
    )


def read_calls(record: Record, catalogue: Catalogue) -> tuple[str, tuple[ToolCall, ...], bool]:
    """The query, the calls, and whether an argument was mended."""
    query, calling = record.get("query"), record.get("calling")
    if (
        not isinstance(query, str)
        or not query.strip()
        or not isinstance(calling, list)
        or not calling
    ):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    calls, mended, count, results = [], False, 0, set[str]()
    for call in calling:
        if not isinstance(call, dict) or not isinstance(call.get("parameters"), dict):
            raise Skip(Reason.NOT_THIS_FORMAT, f"the call {call!r:.60}")
        name, given = str(call.get("api")), call["parameters"]
        if name not in catalogue.tools:
            raise Skip(Reason.UNKNOWN_TOOL, f"{name!r}{nearest(name, catalogue.tools)}")
        used = [label for text in texts_of(given) for label in _REFERENCE.findall(text)]
        if not results.issuperset(used):
            raise Skip(
                Reason.REFERENCE,
                f"{name}({given!r:.80}) after {', '.join(sorted(results)) or 'no result'}",
            )
        labels = [f"API_call_{count + index}" for index in range(len(catalogue.results[name]))]
        count += len(labels)
        results.update(labels if call.get("responses") == labels else ())
        arguments = _mend(catalogue.tools[name], given, bool(used))
        mended = mended or arguments != given
        calls.append(ToolCall(name, arguments))
    return query, tuple(calls), mended


def _mend(tool: Tool, given: Record, refers: bool) -> Record:
    """The arguments with types put right where that is certain; raises `Skip` when they still break the schema.

    refers: a reference may stand in place of a value.
    """
    properties = tool.parameters["properties"]
    for name in given:
        if name not in properties:
            raise Skip(
                Reason.BAD_ARGUMENTS,
                f"{tool.name} has no parameter {name!r}{nearest(name, properties)}",
            )
    arguments = {name: typed(value, properties[name]["type"]) for name, value in given.items()}
    if problems := (taking_references(tool, _REFERENCE.pattern) if refers else tool).problems(
        arguments
    ):
        raise Skip(Reason.BAD_ARGUMENTS, f"{tool.name}, {problems[0]}")
    return arguments


@dataclass(frozen=True)
class Catalogue:
    """The tools by name, their names by field ("Sports/Golf") and by branch ("Sports"), and what each of them gives."""

    tools: dict[str, Tool] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Catalogue:
        catalogue = Catalogue()
        for line, record in read_records(path):
            catalogue.add(line, record)
        return catalogue

    def add(self, line: FileLine, record: Record) -> None:
        """Take a tool in; `DataError` for what is none, or for a name that occurs already."""
        tool = read_tool(line, record)
        if tool.name in self.tools:
            raise DataError(f"{line}: the tool {tool.name!r} occurs already; names must differ")
        self.tools[tool.name], self.fields[tool.name] = tool, str(record.get("field", ""))
        self.results[tool.name] = _results(record.get("responses"))
        for group in dict.fromkeys((self.fields[tool.name], _branch(self.fields[tool.name]))):
            self.groups.setdefault(group, []).append(tool.name)

    def telling(self, tool: Tool) -> Tool:
        """The tool as calls that use results need it: it says what it gives, and takes references."""
        told = f"{tool.description}\nIt gives, in this order: {'; '.join(self.results[tool.name]) or 'nothing'}"
        return taking_references(Tool(tool.name, told.strip(), tool.parameters), _REFERENCE.pattern)

    def offer(self, called: Sequence[str], count: int, rng: random.Random) -> tuple[Tool, ...]:
        """The called tools and `count` others, shuffled."""
        names = list(dict.fromkeys(called))
        chosen = set(names)
        target = len(chosen) + count
        own = [self.fields[name] for name in names]
        near = [
            self._members(own),
            self._members([_branch(name) for name in own]),
            list(self.tools),
        ]
        for candidates in near:
            rest = [name for name in candidates if name not in chosen]
            picked = rng.sample(rest, min(target - len(chosen), len(rest)))
            chosen.update(picked)
            names += picked
        rng.shuffle(names)
        return tuple(self.tools[name] for name in names)

    def _members(self, groups: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(name for group in groups for name in self.groups[group]))


def _results(responses: Json) -> list[str]:
    """What a call gives, each result by its name and what is said of it."""
    described = responses.items() if isinstance(responses, dict) else ()
    about = (
        (name, what.get("description") if isinstance(what, dict) else "")
        for name, what in described
    )
    return [f"{name} ({what})" if what else str(name) for name, what in about]


def _branch(field_name: str) -> str:
    return field_name.partition("/")[0]


def read_tool(line: FileLine, record: Record) -> Tool:
    """A tool of the catalogue; its schema is right by the way it is made, so 4,076 of them need no slow check."""
    name, described, required = (
        record.get("api_name"),
        record.get("parameters"),
        record.get("required") or [],
    )
    if (
        not isinstance(name, str)
        or not name
        or not isinstance(described, dict)
        or not isinstance(required, list)
    ):
        raise DataError(
            f"{line}: not a tool of Seal-Tools; wanted 'api_name', 'parameters' and a list 'required'"
        )
    for parameter in required:
        if parameter not in described:
            raise DataError(
                f"{line}: tool {name!r} requires {parameter!r}, which is not among its parameters"
            )
    properties = {
        parameter: _property(line, parameter, text) for parameter, text in described.items()
    }
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(name, str(record.get("api_description") or ""), parameters)


def _property(line: FileLine, name: str, described: Json) -> Record:
    kind = described.get("type") if isinstance(described, dict) else described
    if kind not in _TYPES:
        raise DataError(
            f"{line}: parameter {name!r} has the unknown type {kind!r}; known: {', '.join(_TYPES)}"
        )
    unit = f" (in {described['unit']})" if described.get("unit") else ""
    result: Record = {
        "type": _TYPES[kind],
        "description": str(described.get("description") or "") + unit,
    }
    if isinstance(described.get("choices"), list):
        result["enum"] = described["choices"]
    if "default" in described:
        result["default"] = described["default"]
    return result
