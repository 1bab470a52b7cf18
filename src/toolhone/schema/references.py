"""References inside a JSON Schema; nothing is fetched, one to another document leads nowhere.

find_ref(root, "#/$defs/Order")            # the part that is meant, or None
follow({"$ref": "#/$defs/Order"}, root)    # the same with what stands beside the reference
inline_refs(root)                          # the schema without references
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

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
