"""Gorilla: APIBench, a wish and the line of Python that loads the right model for it; OpenFunctions
v1, its test set, a question, a function, and the call as Python code.

    {"code": "###Instruction: I need ...\\n###Output: ...", "api_call": "hub.load('a/b')",
     "provider": "...", "api_data": {...}}
    {"question": "...", "function": {"name": "Weather", "api_call": "weather.now", ...},
     "model_answer": "weather.now(city='Oslo')"}

APIBench: on offer is the called function; its parameters are those that the calls of the whole file
give it. Arguments that are code are kept as text. OpenFunctions: `api_call` is the name under which
the function is called; a row gives a task that expects the call. Formats: Patil et al. 2023,
arXiv:2305.15334.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from toolhone.schema import Conversation, Json, Message, Task, Tool, ToolCall
from toolhone.sources.catalogue import repair_call
from toolhone.sources.files import Record
from toolhone.sources.scenarios import json_types, of_types
from toolhone.sources.source import Context, Skip, Source, expect_calls, has_keys, refuse_misfits
from toolhone.sources.text_calls import NoCode, read_code
from toolhone.sources.tool_specs import BAD_ANSWER, read_tools

_WISH = re.compile(
    r"\s*(?:\{'Instruction':|#{2,}\s?Instruction:)(.*?)(?:,\s*'Output':|#{2,}\s?Output:|\Z)",
    re.DOTALL,
)
_PLACES: Mapping[str, Sequence[str]] = {
    "torch.hub.load": ("repo_or_dir", "model"),
    "hub.load": ("handle",),
    "hub.KerasLayer": ("handle",),
    "pipeline": ("task", "model"),
}
"""The names of the first parameters, for values without a name."""


def prepare_apibench(records: Sequence[Record], _context: Context) -> dict[str, Tool]:
    """Return one tool for each called function, with the parameters that its calls give it."""
    calls: dict[str, list[ToolCall]] = {}
    providers: dict[str, dict[str, None]] = {}
    for record in records:
        with suppress(Skip):
            for call in _read(record)[1]:
                calls.setdefault(call.name, []).append(call)
                providers.setdefault(call.name, {})[str(record.get("provider") or "")] = None
    tools = {}
    for name, made in calls.items():
        given: dict[str, list[Json]] = {}
        for call in made:
            for key, value in call.arguments.items():
                given.setdefault(key, []).append(value)
        properties = {key: of_types(json_types(values)) for key, values in given.items()}
        required = [key for key, values in given.items() if len(values) == len(made)]
        schema = {"type": "object", "properties": properties, "required": required}
        library = ", ".join(filter(None, providers[name]))
        tools[name] = Tool(name, f"A Python function{f' of {library}' if library else ''}.", schema)
    return tools


def convert_apibench(record: Record, context: Context) -> Conversation:
    wish, calls, repairs = _read(record)
    context.repairs |= repairs
    tools = tuple(context.prepared[name] for name in dict.fromkeys(call.name for call in calls))
    return Conversation((Message("user", wish), Message("assistant", tool_calls=calls)), tools)


def _read(record: Record) -> tuple[str, tuple[ToolCall, ...], set[str]]:
    """Return the wish, its calls, and how they were repaired."""
    code, target = record.get("code"), record.get("api_call")
    if not isinstance(code, str) or not isinstance(target, str):
        raise Skip("not an APIBench row", f"keys {sorted(record)}")
    found = _WISH.match(code)
    asked, _, given = (part.strip() for part in (found[1] if found else "").partition("###Input:"))
    wish = asked if given.strip('"') in asked else f"{asked}\n{given}"
    if not wish:
        raise Skip("a row without an instruction", repr(code[:60]))
    try:
        written, repairs = read_code(target)
    except NoCode:
        raise Skip("a target that is no Python call", repr(target[:80])) from None
    calls = []
    for call in written:
        of_model = call.name.endswith(".from_pretrained")
        places = ("pretrained_model_name_or_path",) if of_model else _PLACES.get(call.name, ())
        calls.append(call.call(places))
    return wish, tuple(calls), set(repairs)


def is_openfunctions(record: Record) -> bool:
    return {"question", "function"} <= record.keys() and isinstance(record.get("model_answer"), str)


def convert_openfunctions(record: Record, context: Context) -> Task:
    question, functions, answer = map(record.get, ("question", "function", "model_answer"))
    if not isinstance(question, str) or not question.strip():
        raise Skip("not an OpenFunctions row", f"keys {sorted(record)}")
    listed = []
    for function in functions if isinstance(functions, list) else [functions]:
        listed.append(function)
        if isinstance(function, dict) and function.get("api_call"):
            texts = map(str, filter(None, map(function.get, ("name", "description"))))
            others = {key: value for key, value in function.items() if key != "api_call"}
            named = {"name": function["api_call"], "description": ": ".join(texts)}
            listed[-1] = {**others, **named}
    tools = read_tools(listed, context)
    try:
        written, repairs = read_code(answer if isinstance(answer, str) else "")
    except NoCode:
        raise Skip(BAD_ANSWER, f"{answer!r:.80}") from None
    context.repairs |= repairs
    calls = []
    for each in written:
        names = next((list(tool.properties) for tool in tools if tool.name == each.name), ())
        call, found = repair_call(each.call(names), tools)
        context.repairs |= found
        calls.append(call)
    refuse_misfits(calls, tools)
    return Task("", (Message("user", question),), tools, expect_calls(calls))


APIBENCH = Source(
    "apibench",
    has_keys("code", "api_call", "provider", "api_data"),
    convert_apibench,
    {"": {"code", "api_call", "provider", "api_data"}},
    prepare_apibench,
)
OPENFUNCTIONS = Source(
    "openfunctions",
    is_openfunctions,
    convert_openfunctions,
    {"": {"question", "function", "model_answer"}},
)
