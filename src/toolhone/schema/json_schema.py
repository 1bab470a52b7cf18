"""JSON Schemas: references and `format`s in them, changed level by level, made modern, checked.

find_ref(root, "#/$defs/Order")                                    # the part meant, or None
modern_schema({"type": "array", "items": [{"type": "string"}]})    # draft 2020-12
fits_plainly({"city": "Oslo"}, schema)                             # True: it surely fits
fits_format("2026-02-30", "date")                                  # False; None: not checked
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

Json = Any
"""A value that JSON can write."""
_DEEPEST = 20
"""References inside each other, at most."""
_CHOICES = ("anyOf", "oneOf", "allOf")


def find_ref(root: Json, reference: str) -> Json:
    """Return the part of `root` that a local reference (`#/...`, `#anchor`) names, or None."""
    if reference.startswith("#/") and (found := _at_pointer(root, reference[2:])) is not None:
        return found
    try:
        registry = Registry().with_resource("", DRAFT202012.create_resource(root))
        return registry.resolver().lookup(reference).contents
    except (Unresolvable, AttributeError, LookupError, TypeError, ValueError):
        return None


def _at_pointer(root: Json, pointer: str) -> Json:
    for part in pointer.split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if not isinstance(root, Mapping) or key not in root or "$id" in root:
            return None
        root = root[key]
    return root


def follow(schema: Json, root: Json) -> Json:
    """Return what a schema means at its top: references replaced, and its only alternative taken.

    Beside null, `anyOf` and `oneOf` have one alternative, `allOf` one part, or they stay. What
    leads nowhere, or in a circle, allows any value.
    """
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping):
            return schema
        beside = dict(schema)
        if isinstance(schema.get("$ref"), str):
            target = find_ref(root, str(beside.pop("$ref")))
        else:
            ways = {key: schema[key] for key in _CHOICES if isinstance(schema.get(key), list)}
            key = next(iter(ways), "")
            parts = [one for one in ways.get(key, ()) if one != {"type": "null"}]
            if len(ways) != 1 or len(parts) != 1:
                return schema
            target = parts[0]
            del beside[key]
        schema = {**target, **beside} if isinstance(target, Mapping) else beside
    return {}


def resolve_refs(value: Json, root: Json = None, inside: tuple[str, ...] = ()) -> Json:
    """Return `value` with its references to parts of `root` (default: `value` itself) replaced.

    A reference that leads nowhere becomes `{}`, which allows any value; so does one that is inside
    itself for the second time. What stands beside a reference stays. `inside` lists the references
    that lead here.
    """
    root = value if root is None else root
    if isinstance(value, list):
        return [resolve_refs(inner, root, inside) for inner in value]
    if not isinstance(value, Mapping):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {key: resolve_refs(inner, root, inside) for key, inner in value.items()}
    beside = {k: resolve_refs(v, root, inside) for k, v in value.items() if k != "$ref"}
    if inside.count(reference) > 1 or len(inside) >= _DEEPEST:
        return beside
    target = resolve_refs(find_ref(root, reference), root, (*inside, reference))
    return {**target, **beside} if isinstance(target, Mapping) else beside


def inline_refs(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return the schema without references and definitions; the same object where it has none.

    A schema that holds itself is written out twice, and allows any value below that.
    """
    named = ("$defs", "definitions")
    resolved = resolve_refs({key: one for key, one in schema.items() if key not in named}, schema)
    same = resolved == {key: one for key, one in schema.items() if key not in named}
    return dict(schema if same else resolved)


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


_TIME = r"\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PATTERNS = {
    "date": r"\d{4}-\d\d-\d\d",
    "time": _TIME,
    "date-time": rf"\d{{4}}-\d\d-\d\d[Tt ]{_TIME}",
    "duration": r"P(\d+W|(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)",
    "email": rf"[^\s@]+@{_LABEL}(\.{_LABEL})*",
    "hostname": rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"\\^`{|}]+",
}
_READERS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "time": lambda text: time.fromisoformat(text.upper()),
    "date-time": lambda text: datetime.fromisoformat(text.upper()),
    "uuid": UUID,
    "uri": urlsplit,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
}
TEXT_FORMATS = frozenset({*_PATTERNS, *_READERS})
NUMBER_FORMATS = frozenset({"int32", "int64", "uint32", "uint64", "float", "double", "decimal"})
"""Formats that say how a number is stored; OpenAPI's."""


def fits_format(text: str, name: str) -> bool | None:
    """Return whether a text is of a format; None where that is not checked."""
    if name not in TEXT_FORMATS:
        return None
    if not re.fullmatch(_PATTERNS.get(name, r".*"), text, re.ASCII | re.DOTALL):
        return False
    try:
        _READERS.get(name, str)(text)
    except ValueError:
        return False
    return True
