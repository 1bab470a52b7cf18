"""What the rules promise about nulls: only nulls that a merged table left count as padding."""

from __future__ import annotations

from typing import Any

import pytest

from toolhone.schema.tool import strip_padding


@pytest.mark.parametrize(
    ("parameters", "arguments", "paths"),
    [
        ({"properties": {"a": {"type": "string"}}}, {"a": None}, ["a"]),
        ({"properties": {"a": {"type": "string"}}}, {"a": "x", "b": None}, ["b"]),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": None}, []),
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": None}, []),
        ({"properties": {"a": {}}}, {"a": None}, []),
        ({"properties": {"a": {"enum": ["x", None]}}}, {"a": None}, []),
        ({"properties": {"a": {"enum": ["x"]}}}, {"a": None}, ["a"]),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}, {"a": None}, []),
        ({"properties": {"a": {"anyOf": [{"type": "string"}]}}}, {"a": None}, ["a"]),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, {"a": None}, []),
        ({"properties": {}, "additionalProperties": True}, {"b": None}, []),
        ({"properties": {}, "additionalProperties": False}, {"b": None}, ["b"]),
        ({"type": "object"}, {"b": None}, []),
        (
            {"properties": {"o": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            {"o": {"a": None, "z": None}},
            ["o.a", "o.z"],
        ),
        (
            {
                "properties": {
                    "l": {"type": "array", "items": {"properties": {"a": {"type": "string"}}}}
                }
            },
            {"l": [{}, {"a": None}]},
            ["l[1].a"],
        ),
    ],
)
def test_a_null_is_padding_only_where_the_schema_allows_no_null(
    parameters: Any, arguments: Any, paths: list[str]
) -> None:
    stripped, found = strip_padding(arguments, parameters)
    assert found == paths
    assert strip_padding(stripped, parameters) == (stripped, [])
