"""JSON Schemas as one who draws values needs them: references followed, `allOf` merged, one schema for each alternative.

    schemas = Schemas(tool.parameters)
    schemas.alternatives({"type": ["string", "null"]})    # [{"type": "string"}, {"type": "null"}]
    schemas.fitting({"anyOf": [...]}, value)              # the alternative that the value belongs to
    list(schemas.leaves(arguments))                       # the values that are no objects, each with its path and its schema

Only references inside the schema are followed. Nothing is validated here: that is `Tool.problems`, for every call that is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolhone.schema import Json

Steps = tuple[str | int, ...]
Schema = dict[str, Any]
_MAX_FOLLOWED = 20
_KINDS: dict[str, type | tuple[type, ...]] = {
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
    """Answers questions about one schema and the parts it is made of."""

    def __init__(self, root: Mapping[str, Json]) -> None:
        self._root = root

    def alternatives(self, schema: Json, followed: int = 0) -> list[Schema]:
        """What the schema may stand for, each without `$ref`, `allOf`, `anyOf`, `oneOf` and with one type. No choice: one entry."""
        if not isinstance(schema, Mapping) or followed > _MAX_FOLLOWED:
            return [{}]
        own = dict(schema)
        if "$ref" in own:
            return self.alternatives(_merged(self._target(str(own.pop("$ref"))), own), followed + 1)
        if "allOf" in own:
            for part in own.pop("allOf"):
                own = _merged(own, part)
            return self.alternatives(own, followed + 1)
        for key in ("anyOf", "oneOf"):
            if key in own:
                branches = own.pop(key)
                return [
                    found
                    for branch in branches
                    for found in self.alternatives(_merged(own, branch), followed + 1)
                ]
        kinds = own.get("type")
        return [{**own, "type": kind} for kind in kinds] if isinstance(kinds, list) else [own]

    def fitting(self, schema: Json, value: Json) -> Schema:
        """The first alternative that the value belongs to; the first of all when it belongs to none."""
        found = self.alternatives(schema)
        return next(
            (alternative for alternative in found if self._fits(alternative, value)), found[0]
        )

    def leaves(self, value: Json, schema: Json = None, path: Steps = ()) -> Iterator[Leaf]:
        """All values inside `value`, in its own order; objects and lists of objects are taken apart."""
        plain = self.fitting(self._root if schema is None else schema, value)
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from self.leaves(item, self.property(plain, name), (*path, name))
        elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
            yield from self.items(Leaf(path, plain, value))
        else:
            yield Leaf(path, plain, value)

    def items(self, leaf: Leaf) -> Iterator[Leaf]:
        """The leaves inside a list."""
        for index, item in enumerate(leaf.value):
            yield from self.leaves(item, self.item(leaf.schema, index), (*leaf.path, index))

    def property(self, schema: Schema, name: str) -> Json:
        """The schema of a property of an object; an empty one where nothing is said."""
        declared = schema.get("properties") or {}
        return declared.get(name, _or_empty(schema.get("additionalProperties")))

    def item(self, schema: Schema, index: int) -> Json:
        """The schema of an item of a list."""
        first: Sequence[Json] = schema.get("prefixItems") or ()
        return first[index] if index < len(first) else _or_empty(schema.get("items"))

    def _target(self, reference: str) -> Json:
        place: Json = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            place = place.get(step) if isinstance(place, Mapping) else None
        return place if reference.startswith("#") else {}

    def _fits(self, schema: Schema, value: Json) -> bool:
        if ("const" in schema and schema["const"] != value) or (
            "enum" in schema and value not in schema["enum"]
        ):
            return False
        if not of_type(value, schema.get("type")):
            return False
        if not isinstance(value, Mapping):
            return True
        declared = schema.get("properties") or {}
        if not set(schema.get("required") or ()) <= value.keys() or (
            declared and not value.keys() <= declared.keys()
        ):
            return False
        return all(
            any(self._fits(way, item) for way in self.alternatives(declared.get(name)))
            for name, item in value.items()
        )


def of_type(value: Json, kind: Json) -> bool:
    """Whether a JSON value is of this JSON Schema type; no type means any."""
    if kind in ("integer", "number"):
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and (kind == "number" or float(value).is_integer())
        )
    return kind is None or isinstance(value, _KINDS.get(str(kind), object))


def _or_empty(schema: Json) -> Json:
    return schema if isinstance(schema, Mapping) else {}


def _merged(first: Json, second: Json) -> Schema:
    """Both schemas in one; where they speak of the same thing the second counts, except that properties are united."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return dict(
            first if isinstance(first, Mapping) else second if isinstance(second, Mapping) else {}
        )
    result = {**first, **second}
    for key in ("properties", "$defs"):
        if key in first and key in second:
            result[key] = {**first[key], **second[key]}
    if "required" in first and "required" in second:
        result["required"] = [
            *first["required"],
            *(name for name in second["required"] if name not in first["required"]),
        ]
    return result
