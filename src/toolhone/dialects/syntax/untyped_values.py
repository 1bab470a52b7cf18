"""Values that a call form writes as text without saying their type: the schema decides.

The chain is JSON, then Python literal, then text; the first reading that the argument's schema allows is taken. A JSON or Python
*string* never counts, since these forms write strings as they are: `"x"` between marks is a text of three characters. Where no
schema speaks of the argument, or none of the readings fits and the schema has no room for a text, the first one that succeeds is
taken: a wrong value is then seen as what it is, not as a text.

Schemas that name one type are decided without a validator; others have theirs kept. Nothing is fetched, nothing raises.
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
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode
from toolhone.schema import Json, Tool, ToolCall

_SAYS_NOTHING = {
    "description",
    "title",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
}
_DEFINITIONS = ("$defs", "definitions")
_DECIDES = {"anyOf", "oneOf", "allOf", "not", "if", "enum", "const", "$ref", "$dynamicRef"}
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
    """The call with its text arguments read as the tool's schema asks."""
    parameters: Mapping[str, Json] = {} if tool is None else tool.parameters
    return ToolCall(
        call.name,
        {
            key: typed_value(value, _schema_of(key, parameters))
            for key, value in call.arguments.items()
        },
        call.id,
    )


def typed_value(text: Json, schema: Mapping[str, Json] | None) -> Json:
    """The value that this text stands for; values that are no text are left as they are."""
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
    """Whether a schema has room for some text at all. `whole` holds the definitions that it may refer to."""
    if not isinstance(schema, Mapping) or depth > 8:
        return bool(schema)
    if "enum" in schema or "const" in schema:
        listed = schema.get("enum", [schema.get("const")])
        return isinstance(listed, list) and any(isinstance(value, str) for value in listed)
    if isinstance(schema.get("$ref"), str):
        return may_be_text(_referred(schema["$ref"], whole), whole, depth + 1)
    kinds = schema.get("type")
    if kinds is not None and "string" not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    choices = [schema[word] for word in ("anyOf", "oneOf") if isinstance(schema.get(word), list)]
    return all(
        any(may_be_text(choice, whole, depth + 1) for choice in several) for several in choices
    )


def _referred(reference: str, whole: Mapping[str, Json]) -> Json:
    """The definition at a place such as `#/$defs/place`; False where there is none."""
    place: Json = whole
    for word in reference.removeprefix("#/").split("/"):
        place = place.get(word, False) if isinstance(place, Mapping) else False
    return place


def _schema_of(key: str, parameters: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The schema of an argument, with the definitions it may refer to; None when nothing is said about it."""
    properties = parameters.get("properties")
    own = properties.get(key) if isinstance(properties, Mapping) else None
    if not isinstance(own, Mapping) or not own.keys() - _SAYS_NOTHING:
        return None
    return {**{name: parameters[name] for name in _DEFINITIONS if name in parameters}, **own}


def _readings(text: str) -> Iterator[Json]:
    """JSON, Python literal, text; without readings that are strings themselves."""
    stripped = text.strip()
    found = decode(stripped, 0)
    if (
        found.problem is ParseProblem.NONE
        and found.end == len(stripped)
        and not isinstance(found.value, str)
    ):
        yield found.value
    elif stripped:
        reader = LiteralReader(stripped)
        try:
            value = reader.value()
        except LiteralError:
            value = ""
        if not isinstance(value, str) and reader.at_end():
            yield value
    yield text


@lru_cache(maxsize=4096)
def _validity(schema: str) -> Callable[[Json], bool]:
    """Whether a value is valid; what cannot be checked is not."""
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
