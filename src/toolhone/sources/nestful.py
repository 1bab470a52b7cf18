"""NESTFUL: one request that takes a sequence of calls, later ones using results of earlier ones.

    [{"input": "...", "output": [{"name": "find", "arguments": {"text": "x"}, "label": "var1"},
                                 {"name": "show", "arguments": {"id": "$var1.id$"}, ...},
                                 {"name": "var_result", "arguments": {...}}]}]          x-data.json
    [{"name": "find", "query_parameters": {"text": {"type": "String", ...}}}]     x-spec.json

A row gives a task that expects all its calls in one reply, in order; references stay texts.
`var_result` is no tool and is left out. Format: Basu et al. 2024, arXiv:2409.03797, first release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.errors import DataError
from toolhone.schema import Json, Message, Task, Tool, ToolCall, texts_in
from toolhone.sources.catalogue import (
    CATALOGUE_OPTIONS,
    accept_references,
    choose_tools,
    count_distractors,
    find_beside,
    name_results,
    repair_call,
)
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.source import Context, Skip, Source, expect_calls, refuse_misfits
from toolhone.sources.tool_specs import read_tools

DISTRACTORS = 4
SYSTEM = (
    "Answer with all calls that the request takes, in the order in which they are to be made. "
    "You will not see their results: where an argument is what an earlier call gives, write a "
    "reference in its place. $var1.name$ stands for the field 'name' of the result of the first "
    "call, $var2.name$ for that of the second, and so on; $var1$ stands for a whole result."
)
NOT_NESTFUL = "not a NESTFUL row"
_RESULT = "var_result"
_REFERENCE = re.compile(r"\$(var\d+)")
_PARAMETERS = ("query_parameters", "path_parameters", "parameters", "arguments")


def looks_like(record: Record) -> bool:
    output = record.get("output")
    are_calls = isinstance(output, list) and all(
        isinstance(call, dict) and call.keys() >= {"name", "arguments"} for call in output
    )
    return are_calls and isinstance(record.get("input"), str)


def prepare(
    _records: Sequence[Record], context: Context
) -> tuple[dict[str, Tool], dict[str, Tool], int]:
    """Return the tools as specified, the same tools with references as values, the distractors."""
    stem = context.path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl")
    own = f"{stem.removesuffix('data')}spec.json" if stem.endswith("data") else f"{stem}-spec.json"
    known: dict[str, Tool] = {}
    for line, record in read_records(find_beside(context, [own, "spec.json"])):
        try:
            (tool,) = read_tools([_plain_tool(line, record)], context)
        except Skip as skip:
            why = skip.detail or skip.reason
            raise DataError(f"{line}: not a tool of NESTFUL: {why}") from None
        if known.setdefault(tool.name, tool) != tool:
            wrong = "is described twice, in different ways; names must differ"
            raise DataError(f"{line}: the tool {tool.name!r} {wrong}")
    taking = {name: accept_references(tool, r"\$var\d+.*\$") for name, tool in known.items()}
    return known, taking, count_distractors(context, DISTRACTORS, len(known))


def convert(record: Record, context: Context) -> Task:
    known, taking, count = context.prepared
    asked = looks_like(record) and record["input"].strip()
    if not asked:
        raise Skip(NOT_NESTFUL, f"keys {sorted(record)}")
    calls = _calls(record["output"], known, context)
    refuse_misfits(calls, [taking[call.name] for call in calls if call.name in taking])
    seed = f"{context.options.get('seed') or 0}/{context.identity(record)}"
    tools = choose_tools([call.name for call in calls], taking, count, seed)
    nested = any(_REFERENCE.search(text) for call in calls for text in texts_in(call.arguments))
    messages = (Message("system", SYSTEM), Message("user", asked))
    category = "nested" if nested else ""
    return Task("", messages, tools, expect_calls(calls, "strict"), category=category)


def _calls(output: list[Record], known: Mapping[str, Tool], context: Context) -> list[ToolCall]:
    """Return the calls; `$var2` must be the second call, before the one that refers to it."""
    entries = [entry for entry in output if entry["name"] != _RESULT]
    if len(entries) < len(output):
        context.repairs.add("the naming of what to hand back left out")
    if not entries or not all(isinstance(entry["arguments"], dict) for entry in entries):
        raise Skip(NOT_NESTFUL, "no call with an object of arguments")
    labels = [str(entry.get("label")) for entry in entries]
    calls = []
    for index, entry in enumerate(entries):
        earlier = {f"var{n}" for n in range(1, index + 1) if labels[n - 1] == f"var{n}"}
        for text in texts_in(entry["arguments"]):
            if any(x not in earlier or labels.count(x) > 1 for x in _REFERENCE.findall(text)):
                detail = f"{text!r:.60} in call {index + 1}; labels {', '.join(labels)}"
                raise Skip("a reference that is not to one earlier call", detail)
        call = ToolCall(str(entry["name"]), entry["arguments"])
        tools = [known[call.name]] if call.name in known else []
        call, repairs = repair_call(call, tools, _REFERENCE)
        context.repairs |= repairs
        calls.append(call)
    return calls


def _plain_tool(line: FileLine, record: Record) -> Record:
    """Return a described function with flat parameters; its description says what it gives."""
    given = [record[key] for key in _PARAMETERS if isinstance(record.get(key), dict)]
    if not isinstance(record.get("name"), str) or not given:
        wanted = f"wanted 'name' and one of {', '.join(_PARAMETERS)}, got {sorted(record)}"
        raise DataError(f"{line}: not a tool of NESTFUL; {wanted}")
    described = {name: value for parameters in given for name, value in parameters.items()}
    objects = {name: value for name, value in described.items() if isinstance(value, dict)}
    text = str(record.get("description") or "").strip()
    if results := name_results(record.get("output_parameters")):
        text = f"{text}\nIts result has the fields: {'; '.join(results)}"
    return {
        "name": record["name"],
        "description": text,
        "parameters": {name: _parameter(value) for name, value in described.items()},
        "required": [name for name, value in objects.items() if value.get("required") is True],
    }


def _parameter(parameter: Json) -> Json:
    """Return a parameter with the type and the list of values under the names that are known."""
    if not isinstance(parameter, dict):
        return parameter
    kind = str(parameter.get("type") or "string").partition("(")[0].strip()
    dropped = ("required", "allowed_values", "possible_values")
    plain = {key: value for key, value in parameter.items() if key not in dropped}
    allowed = parameter.get("allowed_values") or parameter.get("possible_values")
    if isinstance(allowed, list):
        plain["enum"] = allowed
    if "default_value" in parameter:
        plain["default"] = parameter["default_value"]
    return {**plain, "type": "string" if kind.lower() in ("enum", "date") else kind}


NESTFUL = Source(
    "nestful",
    looks_like,
    convert,
    {"": {"input", "output"}, "output": {"name", "arguments", "label"}},
    prepare,
    options=CATALOGUE_OPTIONS,
)
