"""Schemas as the world writes them: references are followed, older drafts understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.source_rows import write_rows
from toolhone.schema import Tool, ToolCall
from toolhone.schema.json_schema import find_ref, inline_refs, resolve_refs
from toolhone.schema.tool import unchecked_words
from toolhone.sources.formats import open_source
from toolhone.sources.tool_specs import KEYWORD, fit_call

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


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
ORDER = {
    "type": "object",
    "properties": {
        "sku": {"type": "string"},
        "count": {"type": "integer"},
        "gift": {"type": "boolean"},
    },
    "required": ["sku"],
    "additionalProperties": False,
}
BEHIND = {
    "a reference": {"$ref": "#/$defs/Order"},
    "a reference to a reference": {"$ref": "#/$defs/Alias"},
    "a reference beside null": {"anyOf": [{"$ref": "#/$defs/Order"}, {"type": "null"}]},
    "a part of allOf": {"allOf": [{"$ref": "#/$defs/Order"}], "description": "The order."},
    "an entry of a list": {"type": "array", "items": {"$ref": "#/$defs/Order"}},
}


@pytest.mark.parametrize("place", BEHIND)
def test_repairs_of_arguments_reach_behind_references(place: str) -> None:
    definitions = {"Order": ORDER, "Alias": {"$ref": "#/$defs/Order"}}
    schema = {"type": "object", "properties": {"order": BEHIND[place]}, "$defs": definitions}
    tool = Tool("place", "", schema)
    one, right = {"sku": "A1", "count": "2", "gift": None}, {"sku": "A1", "count": 2}
    listed = place == "an entry of a list"
    call, repairs = fit_call(ToolCall("place", {"order": [one] if listed else one}), [tool])
    assert call.arguments == {"order": [right] if listed else right}
    assert len(repairs) == 2
    assert not tool.problems(call.arguments)


def test_a_schema_that_holds_itself_is_written_out_twice() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {"type": "object", "properties": {"list": {"$ref": "#/$defs/Node"}}}
    text = json.dumps(inline_refs({**schema, "$defs": {"Node": node}}))
    assert "$" not in text
    assert text.count("next") == 2


OLD = {
    "draft-04 bounds": ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1, 2),
    "a tuple": (
        {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]},
        ["a", "b"],
        ["a", 1],
    ),
    "nullable": ({"type": "string", "nullable": True}, 1, None),
    "dependencies": ({"type": "object", "dependencies": {"a": ["b"]}}, {"a": 1}, {"a": 1, "b": 1}),
    "inside if": (
        {
            "if": {"type": "integer"},
            "then": {"type": "integer", "maximum": 3, "exclusiveMaximum": True},
        },
        *(3, 2),
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_words_of_older_drafts_are_understood(name: str) -> None:
    schema, wrong, right = OLD[name]
    tool = Tool.of({"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}})
    assert not tool.problems({"x": right})
    assert tool.problems({"x": wrong})


@pytest.mark.parametrize(
    ("draft", "counts"), [("draft-07/schema#", False), ("2020-12/schema", True)]
)
def test_the_draft_that_a_schema_names_decides_what_stands_beside_a_reference(
    draft: str, counts: bool
) -> None:
    beside = {"$ref": "#/$defs/Text", "maxLength": 1}
    schema = {"$schema": f"http://json-schema.org/{draft}", "type": "object"}
    schema |= {"properties": {"x": beside}, "$defs": {"Text": {"type": "string"}}}
    assert bool(Tool("f", "", schema).problems({"x": "abc"})) is counts


def test_a_pattern_of_other_rules_is_checked_where_its_library_is_installed() -> None:
    pytest.importorskip("regress")
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": r"^\p{L}+$"}}}
    tool = Tool("f", "", schema)
    assert not tool.problems({"x": "äb"})
    assert tool.problems({"x": "12"})
    assert not unchecked_words(schema)


def test_a_keyword_that_is_no_json_schema_is_left_out_and_counted(tmp_path: Path) -> None:
    properties = {
        "a": {"type": "string", "minLength": "3"},
        "b": {"type": "strng"},
        "c": {"enum": 3},
    }
    tool = {
        "name": "find",
        "parameters": {"type": "object", "properties": properties, "required": [1]},
    }
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    loaded = open_source(write_rows(tmp_path / "rows.jsonl", {**row, "tools": [tool]}))
    assert (loaded.kept, list(loaded.repaired)) == (1, [KEYWORD])
    assert set(loaded.conversations[0].tools[0].parameters["properties"]) == {"a", "b", "c"}
