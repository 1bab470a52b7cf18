"""Tests of `schema/tool.py`: local references are followed, all others allow anything."""

from __future__ import annotations

from typing import Any

import pytest

from toolhone.schema.tool import find_ref, resolve_refs

ROOT: dict[str, Any] = {
    "$defs": {
        "place": {"type": "string"},
        "a/b~c": {"type": "integer"},
        "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        "home": {"$ref": "#/$defs/place"},
        "named": {"$anchor": "here", "type": "boolean"},
    },
    "allOf": [{"type": "object"}],
}


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("#/$defs/place", {"type": "string"}),
        ("#/$defs/a~1b~0c", {"type": "integer"}),
        ("#/allOf/0", {"type": "object"}),
        ("#here", {"type": "boolean", "$anchor": "here"}),
        ("#", ROOT),
        ("#/$defs/nowhere", None),
        ("#/allOf/x", None),
        ("#/$defs/place/type/deeper", None),
        ("other.json#/$defs/place", None),
    ],
)
def test_a_local_reference_finds_its_part_and_any_other_finds_none(
    reference: str, target: Any
) -> None:
    assert find_ref(ROOT, reference) == target


def test_references_are_replaced_through_other_references() -> None:
    value = {"properties": {"at": {"$ref": "#/$defs/home"}, "n": {"type": "null"}}}
    assert resolve_refs(value, ROOT) == {
        "properties": {"at": {"type": "string"}, "n": {"type": "null"}}
    }


def test_a_circle_and_a_reference_to_nowhere_allow_any_value() -> None:
    tree = {"type": "array", "items": {"type": "array", "items": {}}}
    assert resolve_refs({"$ref": "#/$defs/tree"}, ROOT) == tree
    assert resolve_refs([{"$ref": "#/no"}, {"$ref": "http://x/y"}], ROOT) == [{}, {}]
