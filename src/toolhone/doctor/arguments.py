"""Calls against the schemas of the tools on offer: unknown tools, wrong or missing arguments, nulls that a merged table left.

    for kind, field, what, right in call_faults("messages[1].tool_calls[0]", call, tools): ...

A JSON Schema validator costs a millisecond a call, so what is plainly right (objects, lists and scalars of the declared types) is
accepted by hand, and everything else is left to the validator: the hand never says that something is wrong. Mending is not done
here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

from toolhone.doctor.findings import Fault, FindingKind
from toolhone.errors import nearest
from toolhone.schema import Json, Tool, ToolCall

_SHOWN = 5
_SAYS_NOTHING = frozenset(
    {"description", "title", "default", "examples", "example", "$comment", "deprecated", "format"}
)
_JUDGED = (
    frozenset({"type", "properties", "required", "items", "enum", "additionalProperties"})
    | _SAYS_NOTHING
)
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
)
_VALUE_KEYS = frozenset({"default", "const", "example", "examples"})
"""Words of JSON Schema whose value may well be null."""


def call_faults(field: str, call: ToolCall, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    """What is wrong with a call; `tools` are those on offer, by name."""
    tool = tools.get(call.name)
    if not call.name.strip():
        yield (
            FindingKind.NO_NAME,
            f"{field}.name",
            "the call has no name",
            f"wanted {_one_of(tools)}",
        )
    elif tool is None:
        what = f"calls the unknown tool {call.name!r}{nearest(call.name, tools)}"
        yield FindingKind.UNKNOWN_TOOL, f"{field}.name", what, f"wanted {_one_of(tools)}"
    else:
        yield from _argument_faults(f"{field}.arguments", call, tool)


def _argument_faults(field: str, call: ToolCall, tool: Tool) -> Iterator[Fault]:
    padding = (
        tuple(null_padding(call.arguments, tool.parameters)) if _has_null(call.arguments) else ()
    )
    arguments = without_paths(call.arguments, padding) if padding else call.arguments
    if padding:
        what = f"{call.name} is given null for {', '.join(map(repr, padding[:_SHOWN]))}, which its schema does not allow"
        yield FindingKind.NULL_PADDING, field, what, "wanted them left out"
    for problem in problems_of(tool, arguments):
        yield (
            FindingKind.BAD_ARGUMENTS,
            field,
            f"{call.name}, {problem[:200]}",
            _wanted(tool, problem),
        )
    properties = tool.parameters.get("properties") or {}
    for name in arguments if is_closed(tool) else ():
        if name not in properties:
            what = f"{call.name} declares no argument {name!r}{nearest(name, properties)}"
            right = f"wanted {_one_of(properties)}, or 'additionalProperties': true in its schema"
            yield FindingKind.UNDECLARED_ARGUMENT, field, what, right


def problems_of(tool: Tool, arguments: Mapping[str, Json]) -> list[str]:
    """`tool.problems(arguments)`, without the validator where the arguments are plainly right."""
    return [] if plainly_right(arguments, tool.parameters) else tool.problems(arguments)


def plainly_right(value: Json, schema: Json) -> bool:
    """Whether the value surely obeys the schema; False says nothing."""
    if not isinstance(schema, Mapping) or not schema.keys() <= _JUDGED:
        return False
    if "type" in schema and not _is_of_type(value, schema["type"]):
        return False
    if "enum" in schema and not _is_listed(value, schema["enum"]):
        return False
    if isinstance(value, Mapping):
        return _object_is_right(value, schema)
    if isinstance(value, list):
        return "items" not in schema or all(plainly_right(item, schema["items"]) for item in value)
    return "type" in schema or "enum" in schema


def _object_is_right(value: Mapping[str, Json], schema: Mapping[str, Json]) -> bool:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if (
        not isinstance(properties, Mapping)
        or not isinstance(required, list)
        or not all(isinstance(one, str) for one in required)
    ):
        return False
    if (
        schema.get("additionalProperties", True) is not True
        and not value.keys() <= properties.keys()
    ):
        return False
    if not all(name in value for name in required):
        return False
    return all(
        plainly_right(inner, properties[name])
        for name, inner in value.items()
        if name in properties
    )


def _is_of_type(value: Json, kind: Json) -> bool:
    if isinstance(kind, list):
        return any(_is_of_type(value, one) for one in kind)
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
    return kind == "null" and value is None


def _is_listed(value: Json, enum: Json) -> bool:
    """Whether a text, number or truth value is one of the values; 1 and true are different ones."""
    if not isinstance(enum, list) or not isinstance(value, str | int | float):
        return False
    return any(type(value) is type(one) and value == one for one in enum)


def null_padding(value: Json, schema: Json, path: str = "") -> Iterator[str]:
    """Paths of nulls that stand for nothing: the schema does not name the field, or lets it be left out and takes no null there."""
    if not isinstance(schema, Mapping):
        return
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(value, Mapping) and isinstance(properties, Mapping):
        for name, inner in value.items():
            here = f"{path}.{name}" if path else name
            if inner is None and _is_padding(name, schema, properties):
                yield here
            elif isinstance(inner, dict | list):
                yield from null_padding(inner, properties.get(name), here)
    elif isinstance(value, list) and isinstance(items, Mapping):
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from null_padding(inner, items, f"{path}[{index}]")


def _is_padding(name: str, schema: Mapping[str, Json], properties: Mapping[str, Json]) -> bool:
    if name not in properties:
        return not schema.keys() & _OPENING or schema.get("additionalProperties") is False
    return name not in (schema.get("required") or ()) and not _takes_null(properties[name])


def _takes_null(schema: Json) -> bool:
    """Whether null may be a value here; a reference is given the benefit of the doubt."""
    if (
        not isinstance(schema, Mapping)
        or schema.keys() & {"$ref", "allOf", "not", "if"}
        or schema.get("nullable") is True
    ):
        return True
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return any(_takes_null(one) for one in schema[word])
    if "enum" in schema or "const" in schema:
        return None in (schema.get("enum") or ()) or ("const" in schema and schema["const"] is None)
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def without_paths(value: Json, paths: Collection[str], path: str = "") -> Json:
    """The value without the fields that `null_padding` names."""
    if isinstance(value, Mapping):
        inner = {name: (f"{path}.{name}" if path else name, one) for name, one in value.items()}
        return {
            name: without_paths(one, paths, here)
            for name, (here, one) in inner.items()
            if here not in paths
        }
    if isinstance(value, list):
        return [without_paths(one, paths, f"{path}[{index}]") for index, one in enumerate(value)]
    return value


def _has_null(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def without_schema_nulls(schema: Json) -> Json:
    """A schema without the nulls that a merged table left: null parameters and null words of JSON Schema; a null default stays."""
    if isinstance(schema, list):
        return [without_schema_nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            kept[key] = {
                name: without_schema_nulls(one) for name, one in value.items() if one is not None
            }
        elif key in _VALUE_KEYS or (key == "enum" and value is not None):
            kept[key] = value
        elif value is not None:
            kept[key] = without_schema_nulls(value)
    return kept


def is_closed(tool: Tool) -> bool:
    """Whether the schema names all arguments: it says nothing that could let others in."""
    return "properties" in tool.parameters and not tool.parameters.keys() & _OPENING


def _one_of(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:_SHOWN]]
    if not shown:
        return "none, since none is declared"
    rest = f" or one of {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ("one of " if len(shown) > 1 else "") + ", ".join(shown) + rest


def _wanted(tool: Tool, problem: str) -> str:
    """The schema of the argument that the problem names, or the names that are required."""
    schema = (tool.parameters.get("properties") or {}).get(
        problem.partition(":")[0].partition(".")[0]
    )
    if isinstance(schema, dict):
        return (
            "wanted "
            + json.dumps({key: value for key, value in schema.items() if key != "description"})[
                :200
            ]
        )
    return f"required are {', '.join(map(repr, tool.parameters.get('required') or [])) or 'none'}"
