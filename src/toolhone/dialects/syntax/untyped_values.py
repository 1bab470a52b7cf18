"""Values that a call form writes as text without their type: the schema decides.

Readings are tried in the order JSON, Python literal, text; the first that the argument's schema
allows is taken. A JSON or Python string never counts, because these forms write strings as they
are: `"x"` is a text of three characters. Without a schema, or if no reading fits and the schema
allows no text, the first reading is taken, so that a wrong value shows its type. Nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import read_literal
from toolhone.dialects.syntax.model_text import decode
from toolhone.schema import Json, Tool, ToolCall
from toolhone.schema.tool import find_ref

_ANNOTATIONS = frozenset(
    [
        "description",
        "title",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
    ]
)
_DEFINITIONS = ("$defs", "definitions")
_DECIDES = frozenset(
    ["anyOf", "oneOf", "allOf", "not", "if", "enum", "const", "$ref", "$dynamicRef"]
)
_KINDS: Mapping[str, Callable[[Json], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}


def typed_call(call: ToolCall, tool: Tool | None) -> ToolCall:
    """The call with its text arguments read as the tool's schema wants them."""
    parameters: Mapping[str, Json] = {} if tool is None else tool.parameters
    arguments = {
        key: typed_value(value, _schema_of(key, parameters))
        for key, value in call.arguments.items()
    }
    return ToolCall(call.name, arguments, call.id)


def typed_value(text: Json, schema: Mapping[str, Json] | None) -> Json:
    """Read a text as the schema wants it; return other values unchanged."""
    if not isinstance(text, str):
        return text
    kind = None if schema is None or not _DECIDES.isdisjoint(schema) else schema.get("type")
    if kind == "string":
        return text
    readings = _readings(text)
    first = next(readings)
    if schema is None or first is text:
        return first
    fits = _KINDS.get(kind) if isinstance(kind, str) else None
    if fits is None:
        fits = _validity(json.dumps(schema, sort_keys=True, default=str))
    if fits(first):
        return first
    return text if fits(text) or may_be_text(schema, schema) else first


def may_be_text(schema: Json, whole: Mapping[str, Json], depth: int = 0) -> bool:
    """Whether a schema allows some text. `whole` holds its definitions."""
    if not isinstance(schema, Mapping) or depth > 8:
        return bool(schema)
    if "enum" in schema or "const" in schema:
        listed = schema.get("enum", [schema.get("const")])
        return isinstance(listed, list) and any(isinstance(value, str) for value in listed)
    if isinstance(schema.get("$ref"), str):
        return may_be_text(find_ref(dict(whole), schema["$ref"]), whole, depth + 1)
    kinds = schema.get("type")
    if kinds is not None and "string" not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    choices = [schema[word] for word in ("anyOf", "oneOf") if isinstance(schema.get(word), list)]
    return all(
        any(may_be_text(choice, whole, depth + 1) for choice in several) for several in choices
    )


def _schema_of(key: str, parameters: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The schema of an argument with the definitions it may refer to; None without one."""
    properties = parameters.get("properties")
    own = properties.get(key) if isinstance(properties, Mapping) else None
    if not isinstance(own, Mapping) or not own.keys() - _ANNOTATIONS:
        return None
    return {**{name: parameters[name] for name in _DEFINITIONS if name in parameters}, **own}


def _readings(text: str) -> Iterator[Json]:
    """The readings of a text that are no strings, then the text."""
    stripped = text.strip()
    found = decode(stripped, 0)
    if found.problem is not ParseProblem.NONE or found.end < len(stripped):
        found = read_literal(stripped)
    whole = found.problem is ParseProblem.NONE and not stripped[found.end :].strip()
    if whole and not isinstance(found.value, str):
        yield found.value
    yield text


@lru_cache(maxsize=4096)
def _validity(schema: str) -> Callable[[Json], bool]:
    """A check of values against this schema; what cannot be checked is invalid."""
    validator = jsonschema.Draft202012Validator(json.loads(schema), registry=Registry())

    def valid(value: Json) -> bool:
        try:
            return bool(validator.is_valid(value))
        except (
            ArithmeticError,
            ValueError,
            TypeError,
            RecursionError,
            re.error,
            Unresolvable,
            jsonschema.exceptions.UnknownType,
        ):
            return False

    return valid
