"""Values that a call form writes as text without saying their type: the schema decides.

The chain is JSON, then Python literal, then text; the first reading that the argument's schema allows is taken. A JSON or Python
*string* never counts, since these forms write strings as they are: `"x"` between marks is a text of three characters. Where no
schema speaks of the argument, the first reading that succeeds is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from toolhone.dialects.base import Problem
from toolhone.dialects.json_reading import decode
from toolhone.dialects.literals import LiteralError, LiteralReader
from toolhone.schema import Json, Tool, ToolCall


def typed_call(call: ToolCall, tool: Tool | None) -> ToolCall:
    """The call with its text arguments read as the tool's schema asks."""
    schema = {} if tool is None else dict(tool.parameters)
    return ToolCall(call.name, {key: typed_value(value, _schema_of(key, schema)) for key, value in call.arguments.items()}, call.id)


def typed_value(text: Json, schema: Mapping[str, Json] | None) -> Json:
    """The value that this text stands for; values that are no text are left as they are."""
    if not isinstance(text, str):
        return text
    readings = list(_readings(text))
    for value in readings:
        if schema is None or _allows(json.dumps(schema, sort_keys=True), value):
            return value
    return text


def _schema_of(key: str, schema: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The schema of an argument, with the definitions it may refer to; None when nothing is said about it."""
    properties = schema.get("properties")
    own = properties.get(key) if isinstance(properties, Mapping) else None
    if not isinstance(own, Mapping) or not own.keys() - {"description", "title", "default", "examples"}:
        return None
    return {**{name: schema[name] for name in ("$defs", "definitions") if name in schema}, **own}


def _readings(text: str) -> Iterator[Json]:
    """JSON, Python literal, text; without readings that are strings themselves."""
    stripped = text.strip()
    found = decode(stripped, 0)
    if found.problem is Problem.NONE and found.end == len(stripped) and not isinstance(found.value, str):
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
def _validator(schema: str) -> jsonschema.protocols.Validator:
    return jsonschema.Draft202012Validator(json.loads(schema), registry=Registry())


def _allows(schema: str, value: Json) -> bool:
    try:
        return bool(_validator(schema).is_valid(value))
    except (OverflowError, ValueError, RecursionError, Unresolvable):
        return False
