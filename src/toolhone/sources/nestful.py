"""NESTFUL: one request that takes a sequence of calls, in which later calls use the results of earlier ones.

    [{"input": "...", "output": [{"name": "find", "arguments": {"text": "x"}, "label": "var1"},
                                 {"name": "show", "arguments": {"id": "$var1.id$"}, "label": "var2"},
                                 {"name": "var_result", "arguments": {"shown": "$var2$"}}]}]      in  x-data.json
    [{"name": "find", "query_parameters": {"text": {"type": "String", "required": true}}, ...}]      in  x-spec.json

Made for evaluation: a row gives a task that expects all its calls in one reply, in this order, and no conversation. References
stay what they are, texts such as `$var1.id$` as values of arguments; a system message says how they are written, the tools'
descriptions say what a result holds, and in the schemas every parameter that is no plain text takes a reference as well.
`var_result`, which names what to hand back, is no tool and is left out (counted). On offer are the called tools and, seeded for
each row, `distractors` others (four) of the specification, which lies beside the data or is named by `catalogue`.

A parameter is required only where it says so. Calls are mended where only one thing can be meant (`mending`), which is counted.
Rows that call undescribed tools, break their schemas or refer to no earlier call are counted and skipped. Format: Basu et al.
2024, arXiv:2409.03797, first release; the later one, with `gold_answer`, is another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_repair import mended
from toolhone.sources.catalogue import beside, distractors, offer
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_misfits
from toolhone.sources.references import taking_references, texts_of

NAME = "nestful"
ABOUT = About(
    title="NESTFUL (first release)",
    link="https://github.com/IBM/NESTFUL",
    licence="Apache-2.0",
    rows="300",
    teaches="measures sequences of calls in which one uses the result of another",
    only_tasks=True,
)
USES = frozenset({"distractors", "catalogue", "seed"})
DISTRACTORS = 4
SYSTEM = (
    "Answer with all calls that the request takes, in the order in which they are to be made. You will not see their results: "
    "where an argument is what an earlier call gives, write a reference in its place. $var1.name$ stands for the field 'name' of "
    "the result of the first call, $var2.name$ for that of the second, and so on; $var1$ stands for a whole result."
)
_RESULT = "var_result"
_REFERENCE = re.compile(r"\$(var\d+)")
_PARAMETERS = ("query_parameters", "path_parameters", "parameters", "arguments")
_REFERRED = r"\$var\d+.*\$"


class Reason(StrEnum):
    """Why a row is skipped; besides these, the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a NESTFUL row"
    REFERENCE = "a reference that is not to one earlier call"


class Repair(StrEnum):
    """What was mended; besides this, the repairs of `mending`."""

    RESULT = "the naming of what to hand back left out"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        isinstance(record.get("input"), str) and _are_calls(record.get("output"))
        for record in records
    )


def _are_calls(output: Json) -> bool:
    return isinstance(output, list) and all(
        isinstance(call, dict) and call.keys() >= {"name", "arguments"} for call in output
    )


def read(path: Path, options: Options) -> Loaded:
    """Every row whose calls fit the specification, as a task."""
    known = _specification(beside(path, _spec_names(path), options.catalogue))
    taking = {name: taking_references(tool, _REFERRED) for name, tool in known.items()}
    count = distractors(path, options, DISTRACTORS, known)
    tally = ReadStats()
    for line, record in read_records(path):
        try:
            request, calls, repairs = _row(record, known)
            refuse_misfits(calls, [taking[call.name] for call in calls if call.name in taking])
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = identity_of(line, record)
        tools = offer(
            [call.name for call in calls], taking, count, f"{options.seed or 0}/{identity}"
        )
        tally.keep_tasks([_task(identity, request, calls, tools)], repairs)
    return tally.loaded()


def _spec_names(path: Path) -> tuple[str, ...]:
    stem = path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl")
    return (
        (f"{stem.removesuffix('data')}spec.json", "spec.json")
        if stem.endswith("data")
        else (f"{stem}-spec.json", "spec.json")
    )


def _task(identity: str, request: str, calls: Sequence[ToolCall], tools: tuple[Tool, ...]) -> Task:
    nested = any(_REFERENCE.search(text) for call in calls for text in texts_of(call.arguments))
    category = "nested" if nested else "several_calls" if len(calls) > 1 else "one_call"
    expect = Expect(
        tuple(ExpectedCall(call.name, call.arguments) for call in calls), order="strict"
    )
    return Task(
        identity,
        (Message("system", SYSTEM), Message("user", request)),
        tools,
        expect,
        category=category,
        source=NAME,
    )


def _row(record: Record, known: Mapping[str, Tool]) -> tuple[str, tuple[ToolCall, ...], set[str]]:
    request, output = record.get("input"), record.get("output")
    if (
        not isinstance(request, str)
        or not request.strip()
        or not isinstance(output, list)
        or not _are_calls(output)
    ):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    entries = [entry for entry in output if entry["name"] != _RESULT]
    repairs: set[str] = {Repair.RESULT} if len(entries) < len(output) else set()
    if not entries or not all(isinstance(entry["arguments"], dict) for entry in entries):
        raise Skip(Reason.NOT_THIS_FORMAT, "no call with an object of arguments")
    labels = [str(entry.get("label")) for entry in entries]
    calls = []
    for index, entry in enumerate(entries):
        _check_references(entry, labels, index)
        written = ToolCall(str(entry["name"]), entry["arguments"])
        call, how = mended(
            written, [known[written.name]] if written.name in known else [], _REFERENCE
        )
        repairs |= how
        calls.append(call)
    return request.strip(), tuple(calls), repairs


def _check_references(entry: Record, labels: Sequence[str], index: int) -> None:
    """`$var2` must mean the second call, which must come before this one and alone bear that label."""
    for text in texts_of(entry["arguments"]):
        for label in _REFERENCE.findall(text):
            meant = [place for place, known in enumerate(labels) if known == label]
            if len(meant) != 1 or meant[0] >= index or label != f"var{meant[0] + 1}":
                raise Skip(
                    Reason.REFERENCE,
                    f"{text!r:.60} in call {index + 1}; labels {', '.join(labels)}",
                )


def _specification(path: Path) -> dict[str, Tool]:
    """The tools by name; one that is described twice must be described the same way."""
    known: dict[str, Tool] = {}
    offered = OfferedTools()
    for line, record in read_records(path):
        try:
            ((tool,), _) = offered.read([_plain(line, record)])
        except Skip as skip:
            raise DataError(
                f"{line}: not a tool of NESTFUL: {skip.detail or skip.reason}"
            ) from None
        if known.setdefault(tool.name, tool) != tool:
            raise DataError(
                f"{line}: the tool {tool.name!r} is described twice, in different ways; names must differ"
            )
    return known


def _plain(line: FileLine, record: Record) -> Record:
    """A described function in the flat form that `offered` reads, what it gives told in its description."""
    given = {key: record[key] for key in _PARAMETERS if isinstance(record.get(key), dict)}
    if not isinstance(record.get("name"), str) or not given:
        raise DataError(
            f"{line}: not a tool of NESTFUL; wanted 'name' and one of {', '.join(_PARAMETERS)}, got {sorted(record)}"
        )
    described = {
        name: parameter for parameters in given.values() for name, parameter in parameters.items()
    }
    required = [
        name
        for name, parameter in described.items()
        if isinstance(parameter, dict) and parameter.get("required") is True
    ]
    return {
        "name": record["name"],
        "description": _told(record),
        "parameters": {name: _parameter(parameter) for name, parameter in described.items()},
        "required": required,
    }


def _parameter(parameter: Json) -> Json:
    """A parameter with its type in words that are known, and its values where they are listed."""
    if not isinstance(parameter, dict):
        return parameter
    kind = str(parameter.get("type") or "string").partition("(")[0].strip()
    plain = {
        key: value
        for key, value in parameter.items()
        if key not in ("required", "allowed_values", "possible_values")
    }
    allowed = parameter.get("allowed_values") or parameter.get("possible_values")
    if isinstance(allowed, list):
        plain["enum"] = allowed
    if "default_value" in parameter:
        plain["default"] = parameter["default_value"]
    return {**plain, "type": "string" if kind.lower() in ("enum", "date") else kind}


def _told(record: Record) -> str:
    """What the function does, and the fields of its result."""
    told = str(record.get("description") or "").strip()
    gives = record.get("output_parameters")
    if not isinstance(gives, dict) or not gives:
        return told
    fields = [
        f"{name} ({about['description']})" if _is_told(about) else str(name)
        for name, about in gives.items()
    ]
    return f"{told}\nIts result has the fields: {'; '.join(fields)}"


def _is_told(about: Json) -> bool:
    return (
        isinstance(about, dict)
        and isinstance(about.get("description"), str)
        and bool(about["description"])
    )
