"""Values drawn from schemas, and how they are written in a question and found there."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from toolhone.config.phrasings import word_lists
from toolhone.schema import Tool
from toolhone.synthetic.clauses import spoken_name
from toolhone.synthetic.paraphrase import Form, Frames, command_of, core_of
from toolhone.synthetic.slots import SlotPiece, chain_of, locate, places, spellings, write_value
from toolhone.tools.number_maker import Undrawable
from toolhone.tools.schema_sampler import Leaf, Schemas, SchemaSampler, pattern_maker
from toolhone.tools.text_kinds import kind_of, words_of


def draws(
    schema: dict[str, Any],
    value: Any = None,
    name: str = "x",
    held: bool = False,
    n: int = 150,
    **root: Any,
) -> list[Any]:
    tool = Tool.of(
        {"name": "t", "parameters": {"type": "object", "properties": {name: schema}, **root}}
    )
    make = SchemaSampler(tool).maker(schema, (name,), value)
    values = [make(random.Random(seed), held) for seed in range(n)]
    assert [tool.problems({name: one}) for one in values if tool.problems({name: one})] == []
    return values


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "maximum": 3},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 4},
        {"type": "integer", "minimum": -5, "maximum": 500000, "multipleOf": 5},
        {"type": "integer", "multipleOf": 2.5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.25},
        {"type": "number", "minimum": 1e6},
        {"type": "integer", "maximum": -3},
        {"type": ["null", "string"], "minLength": 3, "maxLength": 5},
        {"type": "string", "maxLength": 2},
        {"type": "string", "minLength": 60},
        {"type": "string", "pattern": r"^[A-Z]{2,3}-\d{3}(x|yz)?$", "maxLength": 8},
        {"enum": ["a b", 3, None, 2.5]},
        {"const": {"fixed": [1]}},
        {
            "type": "array",
            "items": {"enum": ["a", "b", "c"]},
            "minItems": 2,
            "maxItems": 3,
            "uniqueItems": True,
        },
        {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 2}, "minItems": 4},
        {
            "type": "array",
            "prefixItems": [{"type": "number"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
            "maxItems": 2,
        },
        {"type": "array", "maxItems": 0},
        {
            "anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": 8, "maximum": 9},
                {"type": "string", "format": "uuid"},
            ]
        },
        {"oneOf": [{"const": "only"}, {"type": "boolean"}]},
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}},
                {"required": ["a"]},
            ]
        },
        {"type": "object", "required": ["free"]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {},
    ],
    ids=str,
)
def test_a_draw_obeys_its_schema(schema: dict[str, Any]) -> None:
    assert None not in draws(schema)


def test_an_example_decides_alternative_size_and_decimals() -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}
    assert {type(one) for one in draws(either, 40)} == {int}
    assert {type(one) for one in draws(either, "old boat")} == {str}
    assert max(draws({"type": "integer"}, 4)) <= 20 < 100 < max(draws({"type": "integer"}, 900))
    assert all(re.fullmatch(r"\d+(\.\d)?", str(one)) for one in draws({"type": "number"}, 12.5))
    assert all(0 < one < 1 for one in draws({"type": "number", "exclusiveMaximum": 1}, 0.25))
    assert all(re.fullmatch(r"[A-Z]-\d{4}", one) for one in draws({"type": "string"}, "A-1234"))


def test_references_are_followed_also_when_a_schema_contains_itself() -> None:
    node = {
        "type": "object",
        "properties": {"label": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}},
        "required": ["label"],
    }
    values = draws({"$ref": "#/$defs/Node"}, n=40, **{"$defs": {"Node": node}})
    assert any("next" in one for one in values)
    endless = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node"}},
        "required": ["next"],
    }
    with pytest.raises(Undrawable, match="contains itself"):
        draws({"$ref": "#/$defs/Node"}, **{"$defs": {"Node": endless}})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "integer", "minimum": 4, "maximum": 3}, "range without a number"),
        ({"type": "string", "pattern": "^(?=a)b"}, "no string was found"),
        ({"enum": []}, "empty list of choices"),
        ({"type": "string", "minLength": 4, "maxLength": 3}, "minLength above"),
    ],
)
def test_a_schema_without_a_value_says_so(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(Undrawable, match=reason):
        SchemaSampler(Tool("t", "", {"type": "object"})).maker(schema, ("x",))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 500}, 40),
        ({"type": "string", "format": "date"}, None),
        ({"type": "string", "format": "email"}, None),
        ({"type": "string"}, "A-12345"),
        ({"type": "string"}, "Blue Door"),
    ],
    ids=str,
)
def test_held_out_values_are_never_training_values_where_there_is_choice(
    schema: dict[str, Any], value: Any
) -> None:
    train, held_out = (set(draws(schema, value, held=held, n=300)) for held in (False, True))
    assert len(train) > 20
    assert len(held_out) > 20
    assert not train & held_out


def test_pools_of_the_two_sets_share_nothing_but_endings_of_files() -> None:
    train, held_out = (word_lists("manual")["pools"][name] for name in ("train", "held_out"))
    assert train.keys() == held_out.keys()
    assert [name for name in train if set(train[name]) & set(held_out[name])] == ["ending"]
    for table in ("plain", "links", "described", "pairs", "beyond"):
        train, held_out = (word_lists("manual")[table][name] for name in ("train", "held_out"))
        both = [
            set(map(str, part["openings"] if table == "plain" else part))
            for part in (train, held_out)
        ]
        assert not both[0] & both[1], table


@pytest.mark.parametrize(
    ("name", "about", "value", "kind"),
    [
        ("departure_city", "", None, "city"),
        ("departureCity", "", None, "city"),
        ("x", "The city to look at.", None, "city"),
        ("x", "", "2025-03-01", "date"),
        ("x", "", "19:30", "time"),
        ("x", "", "2025-03-01T10:00:00Z", "moment"),
        ("x", "", "a.b@c.org", "email"),
        ("x", "", "25 * (4 + 1)", "expression"),
        ("x", "", "report.pdf", "file"),
        ("city", "", "old town", "like"),
        ("guest_name", "", None, "person"),
        ("from", "Convert money.", "USD", "currency"),
        ("from", "A flight.", "OSL", "airport"),
        ("from", "", "XYZ", "like"),
        ("order_id", "", None, "id"),
        ("order_id", "", "A-77", "like"),
    ],
)
def test_the_kind_of_a_text_follows_from_value_name_and_description(
    name: str, about: str, value: str | None, kind: str
) -> None:
    assert kind_of(words_of(name), about, value) == kind


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"^\d{3}-[a-f]+$", True),
        (r"(ab|c)?\w*", True),
        (r"^[+-]?[0-9]{1,2}\.[0-9]$", True),
        (r"^\S+$", True),
        (r"^(?!a).$", True),
        (r"^(a|b)\1$", True),
        (r"[^a]", False),
        (r"(?=a)b", False),
        (r"a**", False),
        ("(", False),
    ],
)
def test_patterns_give_matching_short_strings_or_none(pattern: str, found: bool) -> None:
    make = pattern_maker(pattern)
    assert (make is not None) == found
    for seed in range(50 if make else 0):
        text = make(random.Random(seed))
        assert re.search(pattern, text)
        assert len(text) <= 10, "an open repetition adds three at most"
        assert text == make(random.Random(seed))


def test_an_alternative_of_a_pattern_that_never_matches_is_not_drawn() -> None:
    make = pattern_maker(r"^(a|b^c|d)$")
    assert make is not None
    assert {make(random.Random(seed)) for seed in range(60)} == {"a", "d"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4, "for four people"),
        (1200, "1,200 euros"),
        (12.5, "$12.50 please"),
        (-3, "at minus 3 degrees"),
        (0.15, "a tip of 15%"),
        (5, "within 5km"),
        ("2025-03-01", "on 1st of March 2025"),
        ("2025-03-01", "March 1st, 2025"),
        ("2025-03-13", "the 13th of March 2025"),
        ("2025-03-23", "23rd March 2025"),
        ("19:30", "at 7:30 pm"),
        ("07:00", "at 7am"),
        ("00:15", "at 12:15 am"),
        ("2025-03-01T19:00:00Z", "on March 1, 2025 at 7 pm"),
        ("window_seat", "a Window Seat"),
        ("windowSeat", "a window seat"),
        ("Oslo", "in OSLO?"),
        ("東京", "東京の天気"),
        ("東京", "今日の東京は"),
    ],
)
def test_a_value_is_found_in_any_usual_spelling_and_rewritten_in_it(value: Any, text: str) -> None:
    (place,) = places(text, value)
    assert (
        write_value(value, place.spelling, place.case).lower()
        == text[place.start : place.end].lower()
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2, "12 or 2.5 or 10:2 or 2025-02-01 or 1,2 or -2 or x2 or 2nd"),
        (4, "fourteen"),
        ("York", "Yorkshire and NewYork"),
        ("2025-03-01", "March 1"),
        ("7", "7.5"),
    ],
)
def test_a_part_of_a_longer_value_is_not_that_value(value: Any, text: str) -> None:
    assert places(text, value) == []


def test_every_spelling_of_a_date_and_a_time_is_found_again() -> None:
    for value in ("2025-11-22", "2024-02-29", "12:00", "00:05", "23:45:00", 17, 1234567, 0.5, True):
        for name, text in spellings(value).items():
            assert [place.spelling for place in places(f"say {text} now", value)] != [], (
                value,
                name,
            )


def test_items_are_found_as_a_run_and_not_across_other_words() -> None:
    assert len(chain_of("add red, light blue and green to it", ["red", "light blue", "green"])) == 3
    assert chain_of("red with blue", ["red", "blue"]) == []
    assert len(chain_of("red then red, blue", ["red", "blue"])) == 2


def test_an_argument_inside_another_keeps_both_and_a_third_one_is_still_drawn() -> None:
    leaves = [
        Leaf((0, "city"), {}, "York"),
        Leaf((0, "query"), {}, "bars in York"),
        Leaf((0, "n"), {}, 5),
    ]
    located = locate("5 bars in York", leaves, frozenset())
    assert [slot.value for slot in located.slots] == [5]


def test_a_number_is_woven_into_a_text_only_if_the_question_has_it_as_often() -> None:
    def woven(question: str, expression: str) -> list[str]:
        return [
            slot.token
            for slot in locate(question, [Leaf((0, "e"), {}, expression)], frozenset()).slots
        ]

    assert woven("25 multiplied by 4", "25 * 4") == ["25", "4"]
    assert woven("2 squared plus 7", "2 * 2 + 7") == ["7"]
    assert woven("15 percent of 80", "15 / 100 * 80") == ["15", "80"]
    assert woven("100 percent of 80", "100 / 100 * 80") == ["80"]
    assert woven("reverse the word lantern", "print('lantern'[::-1])") == ["lantern"]


def test_the_alternative_that_a_value_belongs_to_is_found() -> None:
    card = {
        "type": "object",
        "properties": {"kind": {"const": "card"}, "no": {"type": "string"}},
        "required": ["kind"],
    }
    cash = {
        "type": "object",
        "properties": {"kind": {"const": "cash"}, "sum": {"type": "integer"}},
        "required": ["kind"],
    }
    schemas = Schemas({"$defs": {"Cash": cash}})
    assert (
        schemas.fitting({"oneOf": [card, {"$ref": "#/$defs/Cash"}]}, {"kind": "cash", "sum": 3})
        == cash
    )
    assert schemas.fitting({"type": ["integer", "string"]}, "x") == {"type": "string"}
    assert schemas.alternatives({"$ref": "https://example.com/x.json"}) == [{}]
    parts = [
        {"properties": {"a": {}}, "required": ["a"]},
        {"properties": {"b": {}}, "required": ["a", "b"]},
    ]
    assert schemas.alternatives({"allOf": parts}) == [
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]}
    ]


@pytest.mark.parametrize(
    ("query", "form", "core"),
    [
        ("Could you please book a table for 4, please?", Form.DO, "book a table for 4"),
        ("What is the time in Oslo?", Form.ASK, "What is the time in Oslo"),
        ("the weather in Oslo.", Form.NAME, "the weather in Oslo"),
        ("I need a table.", Form.PLAIN, "I need a table."),
        ("I am in Oslo. Book a table.", Form.PLAIN, "I am in Oslo. Book a table."),
        ("Please", Form.PLAIN, "Please"),
    ],
)
def test_the_build_of_a_question_decides_what_is_taken_off(
    query: str, form: Form, core: str
) -> None:
    assert core_of(query, {"book"}) == (form, core)


def test_protected_words_are_not_swapped() -> None:
    def starts(protected: set[str]) -> set[str]:
        frames = Frames("train", protected)
        values = [
            frames.question([(Form.DO, [SlotPiece("find a hotel")])], random.Random(seed))
            for seed in range(80)
        ]
        return {
            re.findall("(find|look for|search for) a hotel", "".join(piece.text for piece in one))[
                0
            ]
            for one in values
        }

    assert starts(set()) == {"find", "look for", "search for"}
    assert starts({"search"}) == {"find"}
    assert starts({"find"}) == {"find"}


def test_descriptions_become_commands_and_paths_become_words() -> None:
    verbs = word_lists("manual")["verbs"]
    assert (
        command_of("Gets the weather of a city. Uses a service.", verbs)
        == "get the weather of a city"
    )
    assert command_of("Searches pages", verbs) == "search pages"
    assert command_of("The weather of a city.", verbs) == ""
    assert spoken_name(("guests", 1, "firstName")) == "second guest first name"
    assert spoken_name(("café_name",)) == "café name"
