"""Formats of texts are checked as RFC 3339 and others say; plain schemas are checked quickly, and
as the validator checks them."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from toolhone.schema import Tool
from toolhone.schema.json_schema import TEXT_FORMATS, fits_format, fits_plainly
from toolhone.schema.tool import unchecked_words

RIGHT = {
    "date": ["2026-02-28"],
    "time": ["10:00:00", "10:00:00Z", "10:00:00.25+02:00"],
    "date-time": ["2026-02-28T10:00:00Z", "2026-02-28 10:00:00"],
    "duration": ["P1D", "PT5M", "P2W", "P1Y2M3DT4H5M6S"],
    "email": ["ann@corp.com", "a+b@x"],
    "hostname": ["example.org", "a-b"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "uri": ["https://example.org/a?b=c", "mailto:ann@corp.com"],
    "ipv4": ["127.0.0.1"],
    "ipv6": ["::1"],
}
WRONG = {
    "date": ["2026-02-30", "tomorrow", "20260228", "2026-2-8"],
    "time": ["25:00:00", "10:00", "noon"],
    "date-time": ["2026-02-28", "2026-02-30T10:00:00Z"],
    "duration": ["P", "1D", "PT"],
    "email": ["ann", "a b@x", "a@b@c"],
    "hostname": ["-a", "a..b", ""],
    "uuid": ["123e4567e89b12d3a456426614174000", "x"],
    "uri": ["example.org", "a b:c", "http://[::1"],
    "ipv4": ["300.1.1.1", "1.1.1"],
    "ipv6": ["1.1.1.1", ":::"],
}


@pytest.mark.parametrize("name", sorted(TEXT_FORMATS))
def test_a_text_is_of_a_format_or_is_not(name: str) -> None:
    assert all(fits_format(text, name) for text in RIGHT[name])
    assert [text for text in WRONG[name] if fits_format(text, name)] == []


def test_a_format_that_is_not_checked_is_named_and_refuses_nothing() -> None:
    properties = {
        "picture": {"type": "string", "format": "png"},
        "day": {"type": "string", "format": "date"},
        "size": {"type": "number", "format": "double"},
    }
    tool = Tool("f", "", {"type": "object", "properties": properties})
    assert unchecked_words(tool.parameters) == {"'format' 'png' of a tool, which is not checked"}
    assert not tool.format_problems({"picture": "x", "day": "2026-02-28", "size": 1.5})
    assert tool.format_problems({"day": "next week"}) == ["day: 'next week' is not a 'date'"]
    assert not tool.problems({"day": "next week"})


WORDS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "enum": ["a", "b"]},
    {"type": "integer", "minimum": 0, "maximum": 3},
    {"type": "number", "minimum": 0.5},
    {"type": "boolean", "default": True},
    {"type": "array", "items": {"type": "string"}},
    {"type": ["string", "null"]},
    {"type": "string", "pattern": "^a"},
    {"enum": [1, "a"]},
]
VALUES: list[Any] = ["a", "c", "", 0, 1, 4, -1, 0.5, 1.0, True, None, [], ["a"], {}, {"x": 1}]


def test_what_fits_plainly_has_no_problem_for_the_validator() -> None:
    rng, certain = random.Random(0), 0
    for _ in range(2000):
        inner = {name: rng.choice(WORDS) for name in "xyz"[: rng.randint(1, 3)]}
        schema: dict[str, Any] = {"type": "object", "properties": inner}
        schema |= {"required": rng.sample(sorted(inner), 1)} if rng.random() < 0.5 else {}
        value = {name: rng.choice(VALUES) for name in rng.sample("xyzw", rng.randint(0, 4))}
        if fits_plainly(value, schema):
            certain += 1
            assert not list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    assert certain > 100
