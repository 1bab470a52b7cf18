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
TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": (int, float),
    "number": (int, float),
    "string": str,
    "array": list,
    "object": Mapping,
    "null": type(None),
}
"""Type of JSON Schema -> types of Python; a truth value is no number, 2.5 no integer."""


@dataclass(frozen=True)
class Leaf:
    """A value inside arguments: no object, and a list only if its items are plain values."""

    path: Steps
    schema: Schema
    value: Json


@dataclass(frozen=True)
class Schemas:
    """The parts of one schema, with `$ref` followed, `allOf` merged, alternatives apart."""

    root: Mapping[str, Json]

    def alternatives(self, schema: Json, followed: int = 0) -> list[Schema]:
        """Return what the schema may be, each without references, combinations and type lists."""
        if not isinstance(schema, Mapping) or followed > _MAX_REFS:
            return [{}]
        own = dict(schema)
        if "$ref" in own:
            target = find_ref(self.root, str(own.pop("$ref")))
            return self.alternatives(_merge(target, own), followed + 1)
        if "allOf" in own:
            for part in own.pop("allOf"):
                own = _merge(own, part)
            return self.alternatives(own, followed + 1)
        for key in ("anyOf", "oneOf"):
            if key in own:
                ways = [_merge(own, branch) for branch in own.pop(key)]
                return [one for way in ways for one in self.alternatives(way, followed + 1)]
        kinds = own.get("type")
        return [{**own, "type": kind} for kind in kinds] if isinstance(kinds, list) else [own]

    def fitting(self, schema: Json, value: Json) -> Schema:
        """Return the first alternative that the value belongs to, or the first of all."""
        found = self.alternatives(schema)
        return next((one for one in found if self._fits(one, value)), found[0])

    def _fits(self, schema: Schema, value: Json) -> bool:
        known = schema.get("const", value) == value and value in schema.get("enum", [value])
        if not known or not of_type(value, schema.get("type")):
            return False
        if not isinstance(value, Mapping):
            return True
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
        plain = self.fitting(self.root if schema is None else schema, value)
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
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    whole = kind != "integer" or not isinstance(value, float) or value.is_integer()
    return kind is None or (whole and isinstance(value, TYPES.get(str(kind), object)))


def _merge(first: Json, second: Json) -> Schema:
    """Merge two schemas: the second counts, except that properties and requirements are united."""
    one, other = (dict(part) if isinstance(part, Mapping) else {} for part in (first, second))
    result = {**one, **other}
    for key in ("properties", "$defs"):
        if key in one and key in other:
            result[key] = {**one[key], **other[key]}
    if "required" in one and "required" in other:
        result["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return result
