"""JSON Schemas: changed level by level, made modern, and checked quickly where they are plain.

modern_schema({"type": "array", "items": [{"type": "string"}]})    # draft 2020-12
fits_plainly({"city": "Oslo"}, schema)                             # True: it surely fits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from toolhone.schema.references import Json

_NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas"}
)
_LISTED_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_SCHEMAS = frozenset(
    {
        *("items", "additionalProperties", "not", "contains", "if", "then", "else"),
        *("propertyNames", "additionalItems", "unevaluatedProperties", "unevaluatedItems"),
    }
)
_VALUE_KEYWORDS = frozenset({"default", "const", "example", "examples"})
"""Keywords whose value may be null."""
_PLAIN = frozenset({"type", "properties", "required", "description", "title", "enum", "default"})
_PLAIN |= {"minimum", "maximum"}
_NUMBERS = {"integer": (int,), "number": (int, float)}


def map_schema(schema: Json, change: Callable[[dict[str, Json]], dict[str, Json]]) -> Json:
    """Return a JSON Schema with each schema inside it changed, and then itself."""
    if not isinstance(schema, Mapping):
        return schema
    level: dict[str, Json] = {}
    for key, value in schema.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            level[key] = {name: map_schema(inner, change) for name, inner in value.items()}
        elif key in _LISTED_SCHEMAS and isinstance(value, list):
            level[key] = [map_schema(inner, change) for inner in value]
        else:
            level[key] = map_schema(value, change) if key in _SCHEMAS else value
    return change(level)


def without_schema_nulls(schema: Json) -> Json:
    """Return a JSON Schema without keywords and properties that are null."""

    def drop(level: dict[str, Json]) -> dict[str, Json]:
        kept = {key: one for key, one in level.items() if one is not None or key in _VALUE_KEYWORDS}
        if isinstance(properties := kept.get("properties"), dict):
            kept["properties"] = {k: one for k, one in properties.items() if one is not None}
        return kept

    return map_schema(schema, drop)


def modern_schema(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return a schema whose older words are those of draft 2020-12, to check values with.

    These are a list of `items`, `nullable`, bounds that are marked as exclusive, `dependencies`,
    and where `$schema` names a draft up to 7, words beside a `$ref`, which count for nothing there.
    """
    old = any(f"draft-0{number}" in str(schema.get("$schema")) for number in (3, 4, 6, 7))
    return dict(map_schema(schema, partial(_modern_level, alone=old)))


def _modern_level(level: dict[str, Json], alone: bool = False) -> dict[str, Json]:
    if alone and isinstance(level.get("$ref"), str):
        return {key: level[key] for key in ("$ref", "$defs", "definitions") if key in level}
    if isinstance(level.get("items"), list):
        level["prefixItems"] = level["items"]
        level["items"] = level.pop("additionalItems", True)
    for bound, exclusive in _BOUNDS.items():
        if isinstance(level.get(exclusive), bool):
            marked = level.pop(exclusive)
            level |= {exclusive: level.pop(bound)} if marked and bound in level else {}
    if isinstance(needs := level.get("dependencies"), Mapping):
        del level["dependencies"]
        listed = {name: one for name, one in needs.items() if isinstance(one, list)}
        level["dependentRequired"] = listed
        level["dependentSchemas"] = {k: one for k, one in needs.items() if k not in listed}
    if level.get("nullable") is True:
        level = {"anyOf": [{"type": "null"}, level]}
    return level


_BOUNDS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def fits_plainly(value: Json, schema: Json) -> bool:
    """Return whether a value surely fits a schema of plain words; other schemas, and values that
    may fit, are for the validator, which takes fifty times as long."""
    if not isinstance(schema, dict) or not schema.keys() <= _PLAIN:
        return False
    kind, choices = schema.get("type"), schema.get("enum")
    if kind == "object":
        inner, needed = schema.get("properties", {}), schema.get("required", [])
        return (
            isinstance(value, dict)
            and isinstance(inner, dict)
            and isinstance(needed, list)
            and choices is None
            and all(name in value for name in needed)
            and all(k not in inner or fits_plainly(v, inner[k]) for k, v in value.items())
        )
    if kind == "string":
        return isinstance(value, str) and (choices is None or value in choices)
    if choices is None and kind in ("integer", "number"):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        return type(value) in _NUMBERS[kind] and least <= value <= most
    return kind == "boolean" and choices is None and isinstance(value, bool)
