"""Local `$ref`s of a JSON Schema or an OpenAPI document.

    find_ref(schema, "#/$defs/place")    # the part that the reference names, or None
    resolve_refs(document)               # the document with the parts in place of the references

Nothing is fetched: a reference to another document leads nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from toolhone.schema.tool import Json

_DEEPEST = 20
"""References inside each other, at most."""


def find_ref(root: Json, reference: str) -> Json:
    """Return the part of `root` that a local reference (`#/...`, `#anchor`) names, or None."""
    try:
        registry = Registry().with_resource("", DRAFT202012.create_resource(root))
        return registry.resolver().lookup(reference).contents
    except (Unresolvable, AttributeError, LookupError, TypeError, ValueError):
        return None


def resolve_refs(value: Json, root: Json = None, inside: tuple[str, ...] = ()) -> Json:
    """Return `value` with its references to parts of `root` (default: `value` itself) replaced.

    A reference that leads nowhere becomes `{}`, which allows any value; so does one that is inside
    itself for the second time. `inside` lists the references that lead here.
    """
    root = value if root is None else root
    if isinstance(value, list):
        return [resolve_refs(inner, root, inside) for inner in value]
    if not isinstance(value, Mapping):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {key: resolve_refs(inner, root, inside) for key, inner in value.items()}
    if inside.count(reference) > 1 or len(inside) >= _DEEPEST:
        return {}
    target = find_ref(root, reference)
    return {} if target is None else resolve_refs(target, root, (*inside, reference))
