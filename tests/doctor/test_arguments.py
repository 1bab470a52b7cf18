"""What the quick look at arguments promises: it accepts only what a JSON Schema validator accepts, and finds only padding."""

from __future__ import annotations

import random
from typing import Any

import pytest

from toolhone.doctor.arguments import (
    null_padding,
    plainly_right,
    problems_of,
    without_paths,
    without_schema_nulls,
)
from toolhone.schema import Tool

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")


def schema(rng: random.Random, depth: int = 0) -> Any:
    """A random schema, some with words that the quick look must leave to the validator."""
    kind = rng.choice(TYPES if depth < 2 else TYPES[:4])
    made: dict[str, Any] = (
        {"type": rng.choice([kind, [kind, "null"]])} if rng.random() < 0.9 else {}
    )
    if kind == "object":
        names = rng.sample(["a", "b", "c"], rng.randint(0, 3))
        made["properties"] = {name: schema(rng, depth + 1) for name in names}
        made["required"] = names[: rng.randint(0, len(names))]
        made |= rng.choice(
            [
                {},
                {},
                {"additionalProperties": False},
                {"additionalProperties": {"type": "integer"}},
                {"minProperties": 1},
            ]
        )
    elif kind == "array":
        made |= rng.choice([{}, {"items": schema(rng, depth + 1)}, {"maxItems": 1}])
    elif rng.random() < 0.3:
        made["enum"] = rng.sample(["x", 1, True, None, 1.0, 0], 3)
    elif rng.random() < 0.3:
        made |= rng.choice(
            [
                {"minimum": 1},
                {"pattern": "^x"},
                {"const": 1},
                {"anyOf": [{"type": "string"}, {"minimum": 2}]},
            ]
        )
    return made


def value(rng: random.Random, depth: int = 0) -> Any:
    plain = ["x", "", 1, 0, -1, 1.0, 2.5, True, False, None]
    if depth < 2 and rng.random() < 0.4:
        if rng.random() < 0.5:
            return {
                name: value(rng, depth + 1)
                for name in rng.sample(["a", "b", "c", "d"], rng.randint(0, 3))
            }
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 2))]
    return rng.choice(plain)


def test_the_quick_look_never_accepts_what_the_validator_refuses() -> None:
    rng = random.Random(0)
    accepted = 0
    for _ in range(6000):
        parameters = {"type": "object", "properties": {"v": schema(rng)}}
        arguments = {"v": value(rng)}
        tool = Tool("f", "", parameters)
        problems = tool.problems(arguments)
        accepted += plainly_right(arguments, parameters)
        assert not (plainly_right(arguments, parameters) and problems), (parameters, arguments)
        assert problems_of(tool, arguments) == problems
    assert accepted > 500, "it must be of some use"


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
def test_a_null_is_padding_only_where_it_stands_for_nothing(
    parameters: Any, arguments: Any, paths: list[str]
) -> None:
    assert list(null_padding(arguments, parameters)) == paths
    assert list(null_padding(without_paths(arguments, paths), parameters)) == []


def test_a_null_list_of_choices_is_padding_too() -> None:
    schema = {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": None}, "size": {"enum": [1, None]}},
    }
    mended = without_schema_nulls(schema)
    assert mended["properties"] == {"unit": {"type": "string"}, "size": {"enum": [1, None]}}
