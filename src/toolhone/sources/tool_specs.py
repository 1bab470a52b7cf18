"""Tools as the rows of a data set write them, and calls that fit them.

    tools = read_tools(record["tools"], context)                # repairs go into the context
    calls = fit_calls(calls, tools, context)

Tools are OpenAI objects, bare `{name, description, parameters}` with a JSON Schema, or flat
parameters with Python types, `{"radius": {"type": "float", "default": 1.0}}`; also JSON strings.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import read_literal
from toolhone.dialects.syntax.model_text import decode
from toolhone.errors import DataError
from toolhone.schema import Json, Tool, ToolCall
from toolhone.schema.json_input import SCHEMAS, check_keys, first_value
from toolhone.schema.json_schema import follow, map_schema
from toolhone.schema.tool import (
    check_tool_keys,
    is_schema,
    schema_fault,
    strip_padding,
    unchecked_words,
)
from toolhone.sources.files import Record
from toolhone.sources.python_types import ReadType, UnknownType, json_types, read_type
from toolhone.sources.source import Context, Skip

BAD_TOOLS = "tools that cannot be read"
BAD_ANSWER = "an answer that cannot be read"
NULLS = "null columns of other tools taken out"
DEFAULT = "a default of another type left out"
TYPES = "a tool whose types are named as JSON Schema names none"
REQUIRED = "required names that stood beside the parameters"
TWICE = "a tool that was listed twice"
TYPED = "arguments of another type"
ARGUMENTS = "a tool whose schema stands under 'arguments'"
NULL_DEFAULT = "a default of null left out"
NO_TYPE = "a type without a name left out"
MARKS = "required marks inside parameters put into the tool's list"
CHOICES = "choices of a parameter written as values of another type"
PATTERN = "a pattern that is no regular expression left out"
KEYWORD = "a keyword of a tool's schema that JSON Schema does not allow left out"

_MOST_FAULTS = 50
"""Keywords that are left out of one schema, at most."""
_KEPT = ("description", "default", "enum", "items", "properties", "additionalProperties")
_LIMITS = ("minimum", "maximum", "minItems", "maxItems", "pattern", "format")
"""The words of JSON Schema that a flat parameter may use, besides `type`."""
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,400})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+")


def decode_text(value: Json, reason: str, what: str) -> Json:
    """Return the value of a JSON string, any other value as it is; `Skip` for other strings."""
    if not isinstance(value, str):
        return value
    found = decode(value, 0)
    if found.problem is not ParseProblem.NONE or value[found.end :].strip():
        raise Skip(reason, f"'{what}' is a string but not JSON: {value!r:.60}")
    return found.value


def read_tools(value: Json, context: Context, loose: bool = False) -> tuple[Tool, ...]:
    """Return the tools of one row; each distinct tool is made once for a file.

    loose: first repair schemas at any depth, as in sets made for evaluation (`tidy_tool`).
    """
    listed = decode_text(value, BAD_TOOLS, "tools")
    if not isinstance(listed, list):
        raise Skip(BAD_TOOLS, f"wanted a list, got {listed!r:.60}")
    tools: list[Tool] = []
    for entry in listed:
        source = decode_text(entry, BAD_TOOLS, "tools")

        def make(own: Context, source: Json = source) -> Tool:
            tidy = tidy_tool(source, own.repairs) if loose else source
            return make_tool(tidy, own.repairs, own.unread)

        try:
            tool = context.once(f"{loose}{json.dumps(source)}", make)
        except DataError as error:
            raise Skip(BAD_TOOLS, str(error)) from None
        except RecursionError:
            raise Skip(BAD_TOOLS, "nested too deeply") from None
        context.repairs |= {TWICE} if tool in tools else set()
        tools += [] if tool in tools else [tool]
    return tuple(tools)


def make_tool(source: Json, repairs: set[str], unread: set[str]) -> Tool:
    """Return the tool that an object describes, with repairs, and the keys that are not read."""
    body = source.get("function", source) if isinstance(source, dict) else source
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise Skip(BAD_TOOLS, f"a tool needs a 'name', got {source!r:.80}")
    name, given = body["name"], first_value(body, SCHEMAS, body["name"]) or {}
    read = list[str]()
    if not given and isinstance(body.get("arguments"), dict):
        repairs.add(ARGUMENTS)
        given, read = body["arguments"], ["arguments"]
    if not isinstance(given, dict):
        raise Skip(BAD_TOOLS, f"{name}: 'parameters' must be an object, got {given!r:.60}")
    parameters, required = without_nulls(given), body.get("required")
    repairs |= {NULLS} if parameters != given else set()
    if isinstance(required, list) and parameters.get("required", required) == required:
        read.append("required")
    check_tool_keys(source, bool(parameters), unread, read)
    if not parameters or not is_schema(parameters):
        schema = _schema_of_flat(name, parameters, required, unread)
    else:
        try:
            schema = json_types(parameters)
        except UnknownType as error:
            detail = f"not a JSON Schema: the unknown type {str(error)!r:.60}"
            raise Skip(BAD_TOOLS, f"{name}: {detail}") from None
        repairs |= {TYPES} if schema != parameters else set()
        properties = schema.get("properties")
        beside = required if isinstance(required, list) else []
        if beside and isinstance(properties, dict) and "required" not in schema:
            repairs.add(REQUIRED)
            schema = {**schema, "required": [one for one in beside if one in properties]}
    unread |= unchecked_words(schema)
    made = {"name": name, "description": body.get("description"), "parameters": schema}
    return _drop_bad_defaults(Tool.of(made), repairs)


def without_nulls(value: Json) -> Json:
    """Return the value without keys whose value is null, at any depth of objects and lists."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _schema_of_flat(tool: str, parameters: Record, required: Json, unread: set[str]) -> Record:
    """Return the JSON Schema of flat parameters; one without a default or a mark is required."""
    properties: Record = {}
    needed = []
    for name, given in parameters.items():
        described = {"type": given} if isinstance(given, str) else given
        where = f"{tool}: the parameter {name!r}"
        if not isinstance(described, dict):
            raise Skip(BAD_TOOLS, f"{where} must be an object, got {given!r:.60}")
        kind = described.get("type", "any")
        try:
            if isinstance(kind, list):
                read = ReadType(json_types({"type": kind}))
            else:
                read = read_type(kind if isinstance(kind, str) else "")
        except UnknownType:
            raise Skip(BAD_TOOLS, f"{where} has the unknown type {kind!r:.60}") from None
        kept = {key: described[key] for key in (*_KEPT, *_LIMITS) if key in described}
        check_keys(described, {*kept, "type", "required", "optional"}, "a parameter", unread)
        properties[name] = read.schema | kept
        marked = described.get("optional") is True or described.get("required") is False
        needed += [] if read.optional or marked or "default" in described else [name]
    if isinstance(required, list):
        needed = [name for name in properties if name in required]
    return {"type": "object", "properties": properties, "required": needed}


def _drop_bad_defaults(tool: Tool, repairs: set[str]) -> Tool:
    """Return the tool without defaults that their own parameter does not allow."""
    properties = dict(tool.parameters.get("properties") or {})
    for name, schema in list(properties.items()):
        if isinstance(schema, dict) and "default" in schema:
            alone = {**tool.parameters, "properties": {name: schema}, "required": []}
            if Tool(tool.name, "", alone).problems({name: schema["default"]}):
                repairs.add(DEFAULT)
                properties[name] = {k: v for k, v in schema.items() if k != "default"}
    if properties == tool.parameters.get("properties", {}):
        return tool
    return Tool(tool.name, tool.description, {**tool.parameters, "properties": properties})


def tidy_tool(entry: Json, repairs: set[str]) -> Json:
    """Move a schema from `arguments` to `parameters` and repair it at every level."""
    if not isinstance(entry, dict):
        return entry
    tool = dict(entry)
    if "parameters" not in tool and isinstance(tool.get("arguments"), dict):
        repairs.add(ARGUMENTS)
        tool["parameters"] = tool.pop("arguments")
    if isinstance(tool.get("parameters"), dict):
        tidy = partial(_tidy_level, repairs=repairs)
        tool["parameters"] = map_schema(tool["parameters"], tidy)
    return tool


def _tidy_level(schema: Record, repairs: set[str]) -> Record:
    """Repair the type, default, choices and pattern of one level of a schema, in place.

    Marks `required: true` of properties go into the list of their object.
    """
    if "default" in schema and schema["default"] is None:
        repairs.add(NULL_DEFAULT)
        del schema["default"]
    kind, pattern = schema.get("type"), schema.get("pattern")
    if isinstance(kind, str) and not kind.strip():
        repairs.add(NO_TYPE)
        del schema["type"]
    if isinstance(schema.get("enum"), list):
        try:
            wanted = read_type(kind).schema.get("type") if isinstance(kind, str) else None
        except UnknownType:
            wanted = None
        choices = [convert_type(value, wanted) for value in schema["enum"]]
        repairs |= {CHOICES} if choices != schema["enum"] else set()
        schema["enum"] = choices
    try:
        re.compile(pattern if isinstance(pattern, str) else "")
    except (re.error, RecursionError, OverflowError):
        repairs.add(PATTERN)
        del schema["pattern"]
    given = schema.get("properties")
    properties = given if isinstance(given, dict) else {}
    marks = {
        name: inner.pop("required")
        for name, inner in properties.items()
        if isinstance(inner, dict) and isinstance(inner.get("required"), bool)
    }
    if marks:
        repairs.add(MARKS)
        listed = schema["required"] if isinstance(schema.get("required"), list) else []
        marked = [name for name, needed in marks.items() if needed and name not in listed]
        schema["required"] = [*listed, *marked]
    return schema


def fit_calls(
    calls: Sequence[ToolCall], tools: Sequence[Tool], context: Context
) -> tuple[ToolCall, ...]:
    """Return the calls as `fit_call` makes them; repairs go into the context."""
    pairs = [fit_call(call, tools) for call in calls]
    context.repairs.update(*(repairs for _, repairs in pairs))
    return tuple(call for call, _ in pairs)


def fit_call(call: ToolCall, tools: Sequence[Tool]) -> tuple[ToolCall, set[str]]:
    """Return the call without null padding, with arguments of the declared types; the repairs.

    A type is changed only where one value can be meant. A call of an unknown tool stays.
    """
    schema = next((tool.parameters for tool in tools if tool.name == call.name), None)
    if schema is None:
        return call, set()
    arguments, padding = strip_padding(call.arguments, schema)
    repairs = {NULLS} if padding else set()
    return ToolCall(call.name, _fit(arguments, schema, repairs, schema), call.id), repairs


def _fit(value: Json, schema: Json, repairs: set[str], root: Json) -> Json:
    schema = follow(schema, root)
    if not isinstance(schema, Mapping):
        return value
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(value, dict) and isinstance(properties, Mapping):
        return {
            name: _fit(inner, properties.get(name), repairs, root) for name, inner in value.items()
        }
    if isinstance(value, list) and isinstance(items, Mapping):
        return [_fit(inner, items, repairs, root) for inner in value]
    fitting = convert_type(value, schema.get("type"))
    repairs |= {TYPED} if fitting is not value else set()
    return fitting


def convert_type(value: Json, kind: Json) -> Json:
    """Return the value in a JSON Schema type, where only one can be meant ("10" for 10)."""
    if isinstance(value, str):
        if kind in ("integer", "number") and _INTEGER.fullmatch(value):
            return int(value)
        if kind == "number" and _DECIMAL.fullmatch(value):
            return float(value)
        if kind == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in ("array", "object"):
            for read in (decode, read_literal):
                found = read(value, 0)
                if found.problem is ParseProblem.NONE:
                    fits = isinstance(found.value, list if kind == "array" else dict)
                    return found.value if fits and not value[found.end :].strip() else value
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def drop_bad_keywords(schema: Record, repairs: set[str]) -> Record:
    """Return a schema without the keywords whose values JSON Schema does not allow."""

    def with_known_type(level: dict[str, Json]) -> dict[str, Json]:
        try:
            json_types(level)
        except UnknownType:
            repairs.add(KEYWORD)
            return {key: value for key, value in level.items() if key != "type"}
        return level

    schema = map_schema(schema, with_known_type)
    for _ in range(_MOST_FAULTS):
        fault = schema_fault(json_types(schema))
        if fault is None or not fault[0]:
            break
        path = fault[0]
        schema = copy.deepcopy(schema)
        level: Json = schema
        for key in path[:-1]:
            level = level[key]
        if len(path) > 1 and path[-2] == "properties":
            level[path[-1]] = {}
        else:
            del level[path[-1]]
        repairs.add(KEYWORD)
    return schema


def letters_of(name: str) -> str:
    """Return what spellings of a name have in common: its letters and digits, in lower case."""
    return "".join(filter(str.isalnum, name.casefold()))
