"""Tools as the rows of a data set write them, and calls that fit them. For the sources whose rows carry their own tools.

    tools, repairs = OfferedTools().read(record["tools"])
    call, repairs = fitted(call, tools)
    refuse_faults(conversation)            # `Skip` where a call still does not fit

Read are OpenAI tool objects, bare `{name, description, parameters}` with a JSON Schema, and flat parameters with Python types:

    {"name": "area", "parameters": {"radius": {"description": "In metres.", "type": "float", "default": 1.0}}}

A flat parameter is required unless it has a default or is marked optional. The whole may be a JSON string, and each tool one. In a
JSON Schema, types with other names (`dict`, `float`, `List[int]`) are put right.

A table that was built from nested objects gives every tool the parameters and every call the arguments of all the others, as
null. Such nulls are taken out: in tools wherever they stand (a default of null is none), in arguments where the tool does not
declare the name, or does not require it and says that null is no value. Arguments of another type are mended where only one value
can be meant ("10" for an integer, "[1, 2]" for a list). Everything else is left to `refuse_faults`. Each kind of repair is
counted once for a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import Skip
from toolhone.sources.files import Record
from toolhone.sources.python_types import ReadType, UnknownType, json_types, may_be_null, read_type
from toolhone.sources.rules import conversation_faults

_KEPT = (
    "enum",
    "items",
    "properties",
    "additionalProperties",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "pattern",
    "format",
)
"""What a flat parameter may say in the words of JSON Schema."""
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,400})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the kinds of `data.check`."""

    BAD_TOOLS = "tools that cannot be read"
    BAD_ANSWER = "an answer that cannot be read"


class Repair(StrEnum):
    """How a row was mended."""

    NULLS = "null columns of other tools taken out"
    DEFAULT = "a default of another type left out"
    TYPES = "a tool whose types are named as JSON Schema names none"
    REQUIRED = "required names that stood beside the parameters"
    TWICE = "a tool that was listed twice"
    TYPED = "arguments of another type"


def from_text(value: Json, reason: str, what: str) -> Json:
    """The value, or what it says when it is a JSON string; `Skip` for a string that is none."""
    if not isinstance(value, str):
        return value
    found = decode(value, 0)
    if found.problem is not ParseProblem.NONE or value[found.end :].strip():
        raise Skip(reason, f"'{what}' is a string but not JSON: {value!r:.60}")
    return found.value


class OfferedTools:
    """Reads the tools of rows; each distinct tool is made once, since data sets repeat them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Tool, frozenset[Repair]]] = {}

    def read(self, value: Json) -> tuple[tuple[Tool, ...], set[Repair]]:
        """The tools of one row and how they were mended; `Skip` for what is no list of tools."""
        listed = from_text(value, Reason.BAD_TOOLS, "tools")
        if not isinstance(listed, list):
            raise Skip(Reason.BAD_TOOLS, f"wanted a list, got {listed!r:.60}")
        tools: list[Tool] = []
        repairs: set[Repair] = set()
        for entry in listed:
            tool, mended = self._one(from_text(entry, Reason.BAD_TOOLS, "tools"))
            repairs |= mended | ({Repair.TWICE} if tool in tools else set())
            tools += [] if tool in tools else [tool]
        return tuple(tools), repairs

    def _one(self, source: Json) -> tuple[Tool, frozenset[Repair]]:
        key = json.dumps(source)
        if key not in self._known:
            try:
                self._known[key] = _tool(source)
            except DataError as error:
                raise Skip(Reason.BAD_TOOLS, str(error)) from None
        return self._known[key]


def _tool(source: Json) -> tuple[Tool, frozenset[Repair]]:
    body = source.get("function", source) if isinstance(source, dict) else source
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise Skip(Reason.BAD_TOOLS, f"a tool needs a 'name', got {source!r:.80}")
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Skip(
            Reason.BAD_TOOLS,
            f"{body['name']}: 'parameters' must be an object, got {parameters!r:.60}",
        )
    plain = without_nulls(parameters)
    repairs = {Repair.NULLS} if plain != parameters else set()
    if _is_schema(plain):
        schema, mended = _mended(body, plain)
        repairs |= mended
    else:
        schema = _schema_of(body["name"], plain, body.get("required"))
    tool = Tool.of(
        {"name": body["name"], "description": body.get("description"), "parameters": schema}
    )
    tool, left_out = _with_fitting_defaults(tool)
    return tool, frozenset(repairs | ({Repair.DEFAULT} if left_out else set()))


def _mended(body: Mapping[str, Json], parameters: Record) -> tuple[Record, set[Repair]]:
    """The schema with types of JSON Schema, and with the required names that a tool has beside it."""
    try:
        schema = json_types(parameters)
    except UnknownType as error:
        raise Skip(
            Reason.BAD_TOOLS,
            f"{body['name']}: not a JSON Schema: the unknown type {str(error)!r:.60}",
        ) from None
    repairs = {Repair.TYPES} if schema != parameters else set()
    beside, properties = body.get("required"), schema.get("properties")
    if (
        isinstance(beside, list)
        and beside
        and "required" not in schema
        and isinstance(properties, Mapping)
    ):
        schema = {**schema, "required": [name for name in beside if name in properties]}
        repairs |= {Repair.REQUIRED}
    return schema, repairs


def without_nulls(value: Json) -> Json:
    """The value without keys whose value is null, at any depth of objects and lists."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _is_schema(parameters: Mapping[str, Json]) -> bool:
    """Whether this is a JSON Schema: flat parameters are objects or names of types, so none is a `type` of "object"."""
    properties = parameters.get("properties")
    listed = isinstance(properties, dict) and all(
        isinstance(inner, dict) for inner in properties.values()
    )
    return (
        parameters.get("type") == "object"
        or "$ref" in parameters
        or (listed and not isinstance(parameters.get("type"), dict))
    )


def _schema_of(tool: str, parameters: Mapping[str, Json], required: Json) -> Record:
    """The JSON Schema of flat parameters."""
    properties: Record = {}
    needed = []
    for name, given in parameters.items():
        described = {"type": given} if isinstance(given, str) else given
        if not isinstance(described, dict):
            raise Skip(
                Reason.BAD_TOOLS,
                f"{tool}: the parameter {name!r} must be an object, got {given!r:.60}",
            )
        properties[name], optional = _property(f"{tool}: the parameter {name!r}", described)
        needed += [] if optional else [name]
    if isinstance(required, list):
        needed = [name for name in properties if name in required]
    return {"type": "object", "properties": properties, "required": needed}


def _property(where: str, described: Mapping[str, Json]) -> tuple[Record, bool]:
    """The schema of a flat parameter, and whether it may be left out."""
    kind = described.get("type", "any")
    try:
        read = (
            ReadType(json_types({"type": kind}))
            if isinstance(kind, list)
            else read_type(kind if isinstance(kind, str) else "")
        )
    except UnknownType:
        raise Skip(Reason.BAD_TOOLS, f"{where} has the unknown type {kind!r:.60}") from None
    schema: Record = {**read.schema, **{key: described[key] for key in _KEPT if key in described}}
    schema |= {key: described[key] for key in ("description", "default") if key in described}
    marked = described.get("optional") is True or described.get("required") is False
    return schema, read.optional or marked or "default" in described


def _with_fitting_defaults(tool: Tool) -> tuple[Tool, bool]:
    """The tool without defaults that are no value of their own parameter, and whether there were any."""
    properties = dict(tool.parameters.get("properties") or {})
    bad = [
        name
        for name, schema in properties.items()
        if isinstance(schema, dict)
        and "default" in schema
        and Tool(
            tool.name, "", {**tool.parameters, "properties": {name: schema}, "required": []}
        ).problems({name: schema["default"]})
    ]
    for name in bad:
        properties[name] = {
            key: value for key, value in properties[name].items() if key != "default"
        }
    return (
        Tool(tool.name, tool.description, {**tool.parameters, "properties": properties})
        if bad
        else tool
    ), bool(bad)


def fitted(call: ToolCall, tools: Sequence[Tool]) -> tuple[ToolCall, set[Repair]]:
    """The call with padding taken out and types put right where that is certain; a call of an unknown tool as it is."""
    schema = next((tool.parameters for tool in tools if tool.name == call.name), None)
    if schema is None:
        return call, set()
    repairs: set[Repair] = set()
    return ToolCall(call.name, _fit(dict(call.arguments), schema, repairs), call.id), repairs


def _fit(value: Json, schema: Json, repairs: set[Repair]) -> Json:
    if not isinstance(schema, Mapping):
        return value
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(value, dict) and isinstance(properties, Mapping):
        kept = {
            name: inner
            for name, inner in value.items()
            if not (inner is None and _is_padding(name, schema, properties))
        }
        repairs |= {Repair.NULLS} if len(kept) < len(value) else set()
        return {name: _fit(inner, properties.get(name), repairs) for name, inner in kept.items()}
    if isinstance(value, list) and isinstance(items, Mapping):
        return [_fit(inner, items, repairs) for inner in value]
    mended = typed(value, schema.get("type"))
    repairs |= {Repair.TYPED} if mended is not value else set()
    return mended


def _is_padding(name: str, schema: Mapping[str, Json], properties: Mapping[str, Json]) -> bool:
    if name not in properties:
        return True
    return name not in (schema.get("required") or ()) and not may_be_null(properties[name])


def typed(value: Json, kind: Json) -> Json:
    """The value as a JSON Schema type wants it, where only one value can be meant ("10" for an integer, "[1]" for a list)."""
    if isinstance(value, str):
        if kind in ("integer", "number") and _INTEGER.fullmatch(value):
            return int(value)
        if kind == "number" and _DECIMAL.fullmatch(value):
            return float(value)
        if kind == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in ("array", "object"):
            return _nested(value, list if kind == "array" else dict)
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _nested(text: str, wanted: type) -> Json:
    """The list or object that a text writes as JSON or as a Python literal; the text itself where it is none."""
    found = decode(text, 0)
    if found.problem is ParseProblem.NONE:
        return (
            found.value
            if isinstance(found.value, wanted) and not text[found.end :].strip()
            else text
        )
    reader = LiteralReader(text)
    try:
        value = reader.value()
    except LiteralError:
        return text
    return value if isinstance(value, wanted) and reader.at_end() else text


def refuse_faults(conversation: Conversation) -> None:
    """`Skip` with the first finding of `data.check`: a call that does not fit the tools, two tools of one name, an empty reply."""
    for kind, field, what, _ in conversation_faults(conversation):
        raise Skip(kind, f"{field}: {what}")


def refuse_misfits(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> None:
    """`refuse_faults` for calls that no conversation holds, as those that a task expects."""
    refuse_faults(
        Conversation(
            (Message("assistant", tool_calls=tuple(calls)),), tuple(tools), source="a task"
        )
    )
