"""Relations between parameters: found by name, declared, and kept by what is drawn."""

from __future__ import annotations

import random
from typing import Any

import pytest

from toolhone.errors import ConfigError
from toolhone.schema import Tool
from toolhone.tools.relations import Relation, read_relation, relations_of
from toolhone.tools.schema_sampler import SchemaSampler


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["start_date", "end_date", "limit"], ("start_date", "end_date")),
        (["maxPrice", "minPrice"], ("minPrice", "maxPrice")),
        (["check_in", "check_out"], ("check_in", "check_out")),
        (["from", "to"], ("from", "to")),
        (["start", "limit"], None),
    ],
)
def test_relations_follow_from_names(names: list[str], pair: tuple[str, str] | None) -> None:
    found = [(one.first, one.second) for one in relations_of(names, [])]
    assert found == ([] if pair is None else [pair])


def draws(properties: dict[str, Any], declared: list[Relation] | None = None) -> list[Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    tool = Tool.of({"name": "look", "parameters": schema})
    make = SchemaSampler(tool, declared=declared or []).maker(schema, ())
    return [make(random.Random(seed), seed % 2 == 0) for seed in range(200)]


def test_drawn_spans_are_possible_and_dates_of_a_span_are_near_each_other() -> None:
    date = {"type": "string", "format": "date"}
    number = {"type": "number", "minimum": 0, "maximum": 500}
    for one in draws({"start": date, "end": date, "min": number, "max": number}):
        assert one["start"] < one["end"]
        assert one["min"] < one["max"]


def test_what_is_no_span_differs() -> None:
    currency = {"enum": ["EUR", "USD", "GBP"]}
    assert all(one["from"] != one["to"] for one in draws({"from": currency, "to": currency}))


def test_a_declared_relation_counts_where_no_name_tells() -> None:
    number = {"type": "integer", "minimum": 1, "maximum": 9}
    free = draws({"rows": number, "seats": number})
    assert any(one["rows"] > one["seats"] for one in free)
    declared = [read_relation("rows <= seats")]
    assert all(
        one["rows"] <= one["seats"] for one in draws({"rows": number, "seats": number}, declared)
    )


@pytest.mark.parametrize("text", ["rows > seats", "a.b < c.d", "rows", "a < a"])
def test_what_is_no_relation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="start < end"):
        read_relation(text)
