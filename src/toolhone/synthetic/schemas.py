"""A JSON Schema as the drawing of values needs it: one plain schema for each alternative.

    schemas = Schemas(tool.parameters)
    schemas.alternatives({"type": ["string", "null"]})    # [{"type": "string"}, {"type": "null"}]
    list(schemas.leaves(arguments))                       # the values that are no objects

Nothing is validated: `Tool.problems` checks every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolhone.schema import Json
from toolhone.schema.tool import find_ref

Steps = tuple[str | int, ...]
Schema = dict[str, Any]
_MAX_REFS = 20
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


@dataclass(frozen=True)
class Leaf:
    """A value inside arguments: no object, and a list only if its items are plain values."""

    path: Steps
    schema: Schema
    value: Json


class Schemas:
    """The parts of one schema, with `$ref` followed, `allOf` merged, alternatives apart."""

    def __init__(self, root: Mapping[str, Json]) -> None:
        self._root = root

    def alternatives(self, schema: Json, followed: int = 0) -> list[Schema]:
        """Return what the schema may be, each without references, combinations and type lists."""
        if not isinstance(schema, Mapping) or followed > _MAX_REFS:
            return [{}]
        own = dict(schema)
        if "$ref" in own:
            target = find_ref(self._root, str(own.pop("$ref")))
            return self.alternatives(_merge(target, own), followed + 1)
        if "allOf" in own:
            for part in own.pop("allOf"):
                own = _merge(own, part)
            return self.alternatives(own, followed + 1)
        for key in ("anyOf", "oneOf"):
            if key in own:
                branches = [_merge(own, branch) for branch in own.pop(key)]
                found = [self.alternatives(branch, followed + 1) for branch in branches]
                return [alternative for group in found for alternative in group]
        kinds = own.get("type")
        return [{**own, "type": kind} for kind in kinds] if isinstance(kinds, list) else [own]

    def fitting(self, schema: Json, value: Json) -> Schema:
        """Return the first alternative that the value belongs to, or the first of all."""
        found = self.alternatives(schema)
        return next((one for one in found if self._fits(one, value)), found[0])

    def _fits(self, schema: Schema, value: Json) -> bool:
        if "const" in schema and schema["const"] != value:
            return False
        if "enum" in schema and value not in schema["enum"]:
            return False
        if not of_type(value, schema.get("type")) or not isinstance(value, Mapping):
            return of_type(value, schema.get("type"))
        declared = schema.get("properties") or {}
        missing = set(schema.get("required") or ()) - value.keys()
        if missing or (declared and not value.keys() <= declared.keys()):
            return False
        return all(
            any(self._fits(way, item) for way in self.alternatives(declared.get(name)))
            for name, item in value.items()
        )

    def leaves(self, value: Json, schema: Json = None, path: Steps = ()) -> Iterator[Leaf]:
        """Yield the values inside objects and lists of objects, in their order."""
        plain = self.fitting(self._root if schema is None else schema, value)
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from self.leaves(item, self.property(plain, name), (*path, name))
        elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
            yield from self.items(Leaf(path, plain, value))
        else:
            yield Leaf(path, plain, value)

    def items(self, leaf: Leaf) -> Iterator[Leaf]:
        """Yield the leaves inside a list."""
        for index, item in enumerate(leaf.value):
            yield from self.leaves(item, self.item(leaf.schema, index), (*leaf.path, index))

    def property(self, schema: Schema, name: str) -> Json:
        """Return the schema of a property; an empty one where there is none."""
        declared, other = schema.get("properties") or {}, schema.get("additionalProperties")
        return declared.get(name, other if isinstance(other, Mapping) else {})

    def item(self, schema: Schema, index: int) -> Json:
        """Return the schema of an item of a list."""
        first: Sequence[Json] = schema.get("prefixItems") or ()
        rest = schema.get("items")
        return first[index] if index < len(first) else rest if isinstance(rest, Mapping) else {}


def of_type(value: Json, kind: Json) -> bool:
    """Return whether a JSON value is of this JSON Schema type; None is any type."""
    if kind in ("integer", "number"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (kind == "number" or float(value).is_integer())
    return kind is None or isinstance(value, _TYPES.get(str(kind), object))


def _merge(first: Json, second: Json) -> Schema:
    """Merge two schemas: the second counts, except that properties and requirements are united."""
    one = dict(first) if isinstance(first, Mapping) else {}
    other = dict(second) if isinstance(second, Mapping) else {}
    result = {**one, **other}
    for key in ("properties", "$defs"):
        if key in one and key in other:
            result[key] = {**one[key], **other[key]}
    if "required" in one and "required" in other:
        result["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return result
