"""Rows for the user's own tools: right by construction, whatever the schema is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from toolhone.config.phrasings import word_lists
from toolhone.doctor.checks import check
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Conversation, Json, Tool, ToolCall
from toolhone.sources.files import write_jsonl
from toolhone.synthetic import CanonicalExample, ManualTemplates, read_examples
from toolhone.synthetic.generate import MadeOptions, Reject, side
from toolhone.synthetic.phrases import ambiguous
from toolhone.synthetic.slots import SlotPiece
from toolhone.tools.registry import Registry

CALLS_ONLY = {"one_call": 1.0, "two_calls": 0.0, "no_call": 0.0}
EXAMPLES_ONLY = MadeOptions(from_schema=0.0)


def tool(
    name: str,
    properties: Mapping[str, Any],
    required: list[str] | None = None,
    description: str = "",
    **rest: Any,
) -> Tool:
    parameters = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties) if required is None else required,
    }
    return Tool.of({"name": name, "description": description, "parameters": {**parameters, **rest}})


def example(query: str, name: str, /, **arguments: Json) -> CanonicalExample:
    return CanonicalExample(query, (ToolCall(name, arguments),))


BOOK = tool(
    "book_table",
    {
        "restaurant": {"type": "string"},
        "people": {"type": "integer", "minimum": 1, "maximum": 12},
        "date": {"type": "string", "format": "date"},
        "time": {"type": "string"},
        "seat": {"enum": ["window_seat", "near the bar", "terrace"]},
    },
    ["restaurant", "people"],
)
CONVERT = tool(
    "convert",
    {"amount": {"type": "number"}, "from": {"type": "string"}, "to": {"type": "string"}},
    description="Convert money.",
)
MAIL = tool(
    "send_mail",
    {
        "to": {
            "type": "array",
            "items": {"type": "string", "format": "email"},
            "minItems": 1,
            "maxItems": 3,
            "uniqueItems": True,
        },
        "subject": {"type": "string", "minLength": 4, "maxLength": 30},
    },
)
CALCULATOR = tool("calculator", {"expression": {"type": "string"}}, description="Does arithmetic.")
NASTY = tool(
    "plan_trip",
    {
        "legs": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/Leg"}},
        "class": {"type": "string", "enum": ["first class", "second_class"]},
        "bags": {"type": "integer", "minimum": 1, "maximum": 3},
        "code": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3}$"},
        "note": {"type": ["string", "null"], "minLength": 3},
        "budget": {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
                {"type": "null"},
            ]
        },
        "café": {"type": "boolean"},
        "owner": {
            "allOf": [
                {"$ref": "#/$defs/Owner"},
                {"properties": {"age": {"type": "integer", "minimum": 18, "maximum": 99}}},
            ]
        },
        "mode": {"const": "express"},
    },
    ["legs", "class", "bags", "code", "mode"],
    "Plans a trip.",
    **{
        "additionalProperties": False,
        "$defs": {
            "Leg": {
                "type": "object",
                "properties": {
                    "from_city": {"type": "string"},
                    "to_city": {"type": "string"},
                    "on": {"type": "string", "format": "date"},
                    "stops": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
                },
                "required": ["from_city", "to_city"],
                "additionalProperties": False,
            },
            "Owner": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
            },
        },
    },
)
ALL = (BOOK, CONVERT, MAIL, CALCULATOR, NASTY)
EXAMPLES = [
    example(
        "Book a table for 4 people at Blue Door on March 1, 2025 at 7 pm.",
        "book_table",
        restaurant="Blue Door",
        people=4,
        date="2025-03-01",
        time="19:00",
    ),
    example(
        "I need a window seat for two at Golden Lion.",
        "book_table",
        restaurant="Golden Lion",
        people=2,
        seat="window_seat",
    ),
    example(
        "How much is 1,200 USD in EUR?", "convert", amount=1200, **{"from": "USD", "to": "EUR"}
    ),
    example(
        "Send a mail to a@x.org and b@x.org with the subject Team lunch",
        "send_mail",
        to=["a@x.org", "b@x.org"],
        subject="Team lunch",
    ),
    example("What is 25 multiplied by 4?", "calculator", expression="25 * 4"),
    example(
        "Plan an express trip, ticket AB-123 in second class with 2 bags: "
        "from Oslo to Rome, then from Bern to Lima on 2025-05-06",
        "plan_trip",
        legs=[
            {"from_city": "Oslo", "to_city": "Rome"},
            {"from_city": "Bern", "to_city": "Lima", "on": "2025-05-06"},
        ],
        bags=2,
        code="AB-123",
        mode="express",
        **{"class": "second_class"},
    ),
    CanonicalExample("You are doing well.", (), "Thank you."),
]


def values_in(value: Json) -> Iterator[Json]:
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from values_in(item)
    else:
        yield value


MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905


def asks_for(value: Json, question: str) -> bool:
    """An independent, generous reading: does the question say this value in some way?"""
    text = question.lower()
    ways = {str(value), str(value).replace("_", " ")}
    if isinstance(value, bool):
        ways |= {"yes", "true"} if value else {"no", "false"}
    elif isinstance(value, int | float):
        ways |= {f"{value:,}"} | (
            {WORDS[int(value)]} if 0 <= value <= 12 and value == int(value) else set()
        )
        return any(
            re.search(rf"(?<![\d.,]){re.escape(way.lower())}(?![\d]|[.,]\d)", text) for way in ways
        )
    elif re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
        year, month, day = map(int, str(value).split("-"))
        name = MONTHS[month - 1][:3]
        ways |= {"".join(f"{year}{name}{day}")}
        found = (
            rf"{name}\w* {day}(st|nd|rd|th)?,? {year}|\b{day}(st|nd|rd|th)? (of )?{name}\w* {year}"
        )
        return str(value) in text or bool(re.search(found, text, re.IGNORECASE))
    elif re.fullmatch(r"\d\d:\d\d", str(value)):
        hour, minute = int(str(value)[:2]), str(value)[3:]
        ways |= {
            f"{hour % 12 or 12}{rest}{gap}{'am' if hour < 12 else 'pm'}"
            for gap in ("", " ")
            for rest in (f":{minute}", "")
        }
    return any(way.lower() in text for way in ways)


def rows(
    tools: tuple[Tool, ...], examples: list[CanonicalExample], n: int = 300, split: str = "train"
) -> list[Conversation]:
    made = ManualTemplates(tools, examples, seed=3, shares=CALLS_ONLY, options=EXAMPLES_ONLY)
    return made.conversations(n, split)


def the_call(row: Conversation) -> ToolCall:
    (call,) = row.messages[1].tool_calls
    return call


@pytest.mark.parametrize("examples", [EXAMPLES, []], ids=["examples", "schemas only"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_argument_of_every_call_is_in_its_own_question_and_obeys_the_schema(
    examples: list[CanonicalExample], split: str
) -> None:
    tools = ALL if examples else (BOOK, CONVERT, MAIL, NASTY)
    templates = ManualTemplates(tools, examples, seed=1, shares={"one_call": 0.8, "two_calls": 0.2})
    conversations = templates.conversations(200, split)
    assert all(
        finding.kind is FindingKind.DUPLICATE_ROW
        for finding in check(conversations, "made").findings
    )
    for row in conversations:
        question = str(row.messages[0].content)
        for call in row.messages[1].tool_calls:
            assert (
                next(tool for tool in tools if tool.name == call.name).problems(call.arguments)
                == []
            )
            for value in values_in(dict(call.arguments)):
                numbers = re.findall(r"\d+", str(value)) if call.name == "calculator" else [value]
                assert all(asks_for(part, question) for part in numbers), (
                    f"{value!r} of {call} is not in: {question}"
                )


def test_a_question_read_by_hand_gives_its_arguments() -> None:
    for row in rows((BOOK,), EXAMPLES[:1]):
        question, arguments = str(row.messages[0].content), the_call(row).arguments
        people = re.search(r"table for (\w+) people at ", question)
        assert people
        assert arguments["people"] == int(people[1])
        time = re.search(r" at (\d+)(:\d\d)? (am|pm)", question)
        hour = (
            f"{int(time[1]) % 12 + 12 * (time[3] == 'pm'):02d}{time[2] or ':00'}" if time else None
        )
        assert arguments.get("time") == hour
        date = re.search(r" on (\w+) (\d+), (\d{4})", question)
        assert arguments.get("date") == (
            f"{date[3]}-{MONTHS.index(date[1]) + 1:02d}-{int(date[2]):02d}" if date else None
        )
        assert f"people at {arguments['restaurant']}" in question


def test_an_expression_has_the_numbers_of_its_question_in_their_places() -> None:
    pairs = set()
    for row in rows((CALCULATOR,), [EXAMPLES[4]]):
        a, b = re.search(r"(\d+) multiplied by (\d+)", str(row.messages[0].content)).groups()
        assert the_call(row).arguments == {"expression": f"{a} * {b}"}
        pairs.add((a, b))
    assert len(pairs) > 200


def test_optional_arguments_are_left_out_together_with_their_words() -> None:
    conversations = rows((BOOK,), EXAMPLES[:1])
    assert {frozenset(the_call(row).arguments) for row in conversations} >= {
        frozenset({"restaurant", "people", "date", "time"}),
        frozenset({"restaurant", "people", "date"}),
        frozenset({"restaurant", "people", "time"}),
    }
    assert all(
        (" pm" in row.messages[0].content or " am" in row.messages[0].content)
        == ("time" in the_call(row).arguments)
        for row in conversations
    )


def test_a_required_argument_is_never_left_out() -> None:
    weather = tool("forecast", {"town": {"type": "string"}, "days": {"type": "integer"}}, ["town"])
    templates = ManualTemplates(
        (weather,),
        [example("Forecast in Oslo for 3 days", "forecast", town="Oslo", days=3)],
        shares=CALLS_ONLY,
    )
    assert {tuple(the_call(row).arguments) for row in templates.conversations(60)} == {
        ("town", "days"),
        ("town",),
    }
    assert templates.report()["phrasings"] == {"forecast": 3}, "with and without days; schema"


def test_held_out_rows_have_held_out_values_from_examples_and_from_schemas() -> None:
    visa = tool("visa", {"country": {"type": "string"}})
    for examples in ([example("Visa for Peru", "visa", country="Peru")], []):
        for split in ("train", "held_out"):
            drawn = {
                the_call(row).arguments["country"] for row in rows((visa,), examples, 60, split)
            }
            assert drawn <= set(word_lists("manual")["pools"][split]["country"])


def test_two_parameters_of_equal_value_stay_equal() -> None:
    pair = tool("move", {"x": {"type": "integer"}, "y": {"type": "integer"}})
    conversations = rows((pair,), [example("Move to 5 and 5", "move", x=5, y=5)])
    assert all(
        the_call(row).arguments["x"] == the_call(row).arguments["y"] for row in conversations
    )
    assert len({the_call(row).arguments["x"] for row in conversations}) > 5


def test_a_range_of_three_for_three_parameters_still_gives_rows() -> None:
    small = {"type": "integer", "minimum": 1, "maximum": 3}
    conversations = rows(
        (tool("dice", {"a": small, "b": small, "c": small}),),
        [example("Roll 1, then 2, then 3", "dice", a=1, b=2, c=3)],
    )
    for row in conversations:
        numbers = [int(number) for number in re.findall(r"\d", str(row.messages[0].content))]
        assert list(the_call(row).arguments.values()) == numbers


def test_a_number_that_the_arguments_do_not_have_is_never_drawn_for_another_place() -> None:
    hotel = tool("book", {"rooms": {"type": "integer", "minimum": 1, "maximum": 9}})
    for row in rows((hotel,), [example("Book 3 rooms for our 7 guests", "book", rooms=3)]):
        assert re.findall(r"\d", str(row.messages[0].content)) == [
            str(the_call(row).arguments["rooms"]),
            "7",
        ]
        assert the_call(row).arguments["rooms"] != 7, "one could not tell which 7 is meant"


def test_an_example_whose_argument_may_follow_from_others_stays_word_for_word() -> None:
    forecast = tool("forecast", {"city": {"type": "string"}, "country": {"type": "string"}})
    templates = ManualTemplates(
        (forecast,),
        [example("Forecast for Oslo", "forecast", city="Oslo", country="Norway")],
        shares=CALLS_ONLY,
        options=EXAMPLES_ONLY,
    )
    calls = {json.dumps(the_call(row).arguments) for row in templates.conversations(60)}
    assert calls == {'{"city": "Oslo", "country": "Norway"}'}
    assert templates.report()["word_for_word"] == {
        "Forecast for Oslo": "country is not in the question"
    }


def test_an_argument_on_which_all_examples_agree_lets_the_others_be_drawn() -> None:
    forecast = tool("forecast", {"city": {"type": "string"}, "units": {"type": "string"}})
    pairs = [("Oslo", "Forecast for Oslo"), ("Rome", "How is Rome?")]
    conversations = rows(
        (forecast,),
        [example(query, "forecast", city=city, units="metric") for city, query in pairs],
        100,
    )
    assert {the_call(row).arguments["units"] for row in conversations} == {"metric"}
    assert len({the_call(row).arguments["city"] for row in conversations}) > 30


def test_values_that_share_a_place_are_not_replaced_one_without_the_other() -> None:
    search = tool("hotels", {"city": {"type": "string"}, "query": {"type": "string"}})
    conversations = rows(
        (search,),
        [example("Search for hotels in York", "hotels", city="York", query="hotels in York")],
        50,
    )
    assert {json.dumps(the_call(row).arguments) for row in conversations} == {
        '{"city": "York", "query": "hotels in York"}'
    }


def test_unicode_names_and_values_go_through() -> None:
    weather = tool("天気", {"都市": {"type": "string"}})
    examples = [
        example("東京の天気は?", "天気", 都市="東京"),
        example("大阪の天気は?", "天気", 都市="大阪"),
    ]
    conversations = rows((weather,), examples, 60)
    assert {the_call(row).arguments["都市"] for row in conversations} == {"東京", "大阪"}
    assert all(
        str(the_call(row).arguments["都市"]) in str(row.messages[0].content)
        for row in conversations
    )


def test_a_truth_value_is_drawn_only_where_a_word_beside_its_name_says_it() -> None:
    hotel = tool(
        "hotel",
        {
            "nights": {"type": "integer"},
            "breakfast": {"type": "boolean"},
            "quiet": {"type": "boolean"},
        },
    )
    conversations = rows(
        (hotel,),
        [
            example(
                "Book 3 nights with breakfast, a calm room",
                "hotel",
                nights=3,
                breakfast=True,
                quiet=True,
            )
        ],
    )
    assert {the_call(row).arguments["quiet"] for row in conversations} == {True}
    assert {the_call(row).arguments["breakfast"] for row in conversations} == {True, False}
    assert all(
        ("without breakfast" not in str(row.messages[0].content))
        == the_call(row).arguments["breakfast"]
        for row in conversations
    )


def test_splits_share_no_question_and_no_value_where_there_is_choice() -> None:
    templates = ManualTemplates(ALL, EXAMPLES, seed=5)
    train, held_out = templates.conversations(1500), templates.conversations(500, "held_out")
    questions = [{str(row.messages[0].content) for row in part} for part in (train, held_out)]
    assert not questions[0] & questions[1]
    assert all(side(question) == "train" for question in questions[0])
    restaurants = [
        {
            call.arguments["restaurant"]
            for row in part
            for call in row.messages[1].tool_calls
            if call.name == "book_table"
        }
        for part in (train, held_out)
    ]
    assert all(restaurants)
    assert not restaurants[0] & restaurants[1]
    openings = [{question.split(",")[0] for question in part} for part in questions]
    assert "hey there" in openings[1] - openings[0]


def test_row_i_depends_on_seed_split_and_i_alone() -> None:
    templates = ManualTemplates(ALL, EXAMPLES, seed=5)
    long = templates.conversations(40)
    assert ManualTemplates(ALL, EXAMPLES, seed=5).conversations(10) == long[:10]
    assert ManualTemplates(ALL, EXAMPLES, seed=6).conversations(10) != long[:10]
    assert templates.tasks(20) == ManualTemplates(ALL, EXAMPLES, seed=5).tasks(20)


def test_shares_decide_how_many_rows_call_nothing_one_or_two_tools() -> None:
    templates = ManualTemplates(ALL, EXAMPLES, seed=2)
    conversations = templates.conversations(1000)
    kinds = templates.report()["splits"]["train"]["by_kind"]
    assert sum(kinds.values()) == 1000
    assert abs(kinds["one_call"] - 632) < 60, "without dependent calls, the others share their 5 %"
    assert abs(kinds["two_calls"] - 105) < 40
    assert abs(kinds["missing"] - 84) < 40
    by_calls = [
        sum(len(row.messages[1].tool_calls) == count for row in conversations)
        for count in (0, 1, 2)
    ]
    assert by_calls == [kinds["no_call"] + kinds["missing"], kinds["one_call"], kinds["two_calls"]]
    assert all(row.messages[1].content for row in conversations if not row.messages[1].tool_calls)
    assert any(row.messages[1].content == "Thank you." for row in conversations)


def test_tasks_are_all_different_and_expect_the_calls_of_their_question() -> None:
    tasks = ManualTemplates(ALL, EXAMPLES, seed=2).tasks(200, "held_out")
    assert (
        len({str(task.messages[0].content) for task in tasks})
        == len({task.id for task in tasks})
        == 200
    )
    assert {task.category for task in tasks} == {"one_call", "several_calls", "no_call"}
    assert all(task.expect.no_call or task.expect.calls for task in tasks)


def test_tasks_of_one_phrasing_are_a_cluster_whatever_their_values_are() -> None:
    shown = [example("Book Luigi's for 4", "book_table", restaurant="Luigi's", people=4)]
    made = ManualTemplates((BOOK,), shown, shares=CALLS_ONLY, options=EXAMPLES_ONLY)
    tasks = made.tasks(40, "held_out")
    assert {task.cluster for task in tasks} == {"Book {} for {}"}
    assert len({task.messages[0].content for task in tasks}) == 40
    both = ManualTemplates(ALL, EXAMPLES, seed=2).tasks(200, "held_out")
    groups = Counter(task.cluster for task in both)
    assert "" not in groups
    assert 60 < len(groups) < 180
    for task in both:
        values = [v for call in task.expect.calls or () for v in call.arguments.values()]
        numbers = {str(v) for v in values if type(v) in (int, float)}
        assert not numbers & {*task.cluster.split()}


def test_fewer_tasks_come_back_where_no_further_question_is_found() -> None:
    stop = tool("stop", {}, description="Stops.")
    templates = ManualTemplates((stop,), [example("Stop", "stop")], shares=CALLS_ONLY)
    tasks = templates.tasks(2000)
    assert 20 < len(tasks) < 2000
    assert templates.report()["splits"]["train"]["rejected_draws"][Reject.SEEN.value] >= 400


def test_rejected_draws_are_counted_by_reason_and_no_row_is_ambiguous() -> None:
    small = tool("seats", {"rows": {"type": "integer", "minimum": 1, "maximum": 4}})
    templates = ManualTemplates(
        (small,),
        [example("Take 2 rows of the 4 there are", "seats", rows=2)],
        shares=CALLS_ONLY,
        options=EXAMPLES_ONLY,
    )
    assert {the_call(row).arguments["rows"] for row in templates.conversations(80)} == {1, 2, 3}
    report = templates.report()["splits"]["train"]
    assert report["rejected_draws"][Reject.AMBIGUOUS.value] > 5
    assert (report["rows"], report["by_tool"]) == (80, {"seats": 80})
    assert report["distinct_questions"] <= 80


def test_arguments_with_unread_keywords_are_checked_and_drawn_again() -> None:
    odd = tool(
        "odd", {"n": {"type": "integer", "minimum": 1, "maximum": 20, "not": {"multipleOf": 2}}}
    )
    templates = ManualTemplates((odd,), [example("Take 7", "odd", n=7)], shares=CALLS_ONLY)
    assert all(the_call(row).arguments["n"] % 2 for row in templates.conversations(60))
    assert templates.report()["splits"]["train"]["rejected_draws"][Reject.SCHEMA.value] > 20


def test_built_in_tools_and_their_like_are_asked_in_plain_words_without_examples() -> None:
    location = tool(
        "get_weather", {"location": {"type": "string"}}, description="Get the weather of a place."
    )
    templates = ManualTemplates(
        (*Registry(["python"]).tools, CALCULATOR, location), seed=4, shares=CALLS_ONLY
    )
    for row in templates.conversations(150):
        call, question = the_call(row), str(row.messages[0].content)
        assert "expression" not in question
        assert "location" not in question
        if call.name == "get_weather":
            assert str(call.arguments["location"]) in question
        if call.name == "calculator":
            assert set(re.findall(r"\d+", question)) <= set(
                re.findall(r"\d+", str(call.arguments["expression"]))
            )


def test_requests_beyond_the_tools_are_never_something_that_a_tool_can_do() -> None:
    translate = tool(
        "translate_text",
        {"text": {"type": "string"}},
        description="Translate a text, play music, send letters.",
    )
    templates = ManualTemplates((translate,), seed=1, shares={"no_call": 1})
    questions = [str(row.messages[0].content) for row in templates.conversations(400)]
    assert not [
        question
        for question in questions
        if "translate" in question or "music" in question or "letter" in question
    ]
    assert any("taxi" in question for question in questions)


def test_tools_without_examples_vary_dates_and_choices_and_leave_options_out() -> None:
    conversations = rows((BOOK,), [])
    dates = [row for row in conversations if "date" in the_call(row).arguments]
    assert (
        0
        < sum(str(the_call(row).arguments["date"]) in str(row.messages[0].content) for row in dates)
        < len(dates)
        < len(conversations)
    )
    windows = [
        str(row.messages[0].content)
        for row in conversations
        if the_call(row).arguments.get("seat") == "window_seat"
    ]
    assert {"window seat" in question for question in windows} == {True, False}


def test_schemas_without_a_value_are_reported_and_stop_only_when_nothing_is_left() -> None:
    impossible = tool("impossible", {"n": {"type": "integer", "minimum": 5, "maximum": 4}})
    lookahead = tool("lookahead", {"code": {"type": "string", "pattern": "^(?=A)B"}})
    templates = ManualTemplates((impossible, BOOK), shares=CALLS_ONLY)
    assert {the_call(row).name for row in templates.conversations(20)} == {"book_table"}
    assert templates.report()["without_rows"] == {"impossible": "a range without a number in it"}
    with pytest.raises(
        DataError,
        match=r"impossible: a range without .*lookahead: a pattern for which no string was found",
    ):
        ManualTemplates((impossible, lookahead))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tools": ()}, "wanted a tool, got none"),
        ({"tools": (BOOK, BOOK)}, "two tools are named 'book_table'"),
        (
            {"tools": (BOOK,), "shares": {"one_cal": 1}},
            "no kind of row 'one_cal' .did you mean 'one_call'",
        ),
        ({"tools": (BOOK,), "shares": {"one_call": -1}}, "must be 0 or more, got -1"),
        ({"tools": (BOOK,), "shares": {"one_call": 0}}, "all shares are 0"),
        (
            {"tools": (BOOK,), "examples": [example("x", "book_tabel")]},
            "unknown tool 'book_tabel' .did you mean 'book_table'",
        ),
    ],
)
def test_wrong_use_is_an_error_of_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ManualTemplates(**arguments)
    with pytest.raises(DataError, match=r"no split 'heldout'.*did you mean 'held_out'"):
        ManualTemplates((BOOK,)).conversations(1, "heldout")


def test_examples_are_read_in_three_shapes_from_lists_and_files(tmp_path: Path) -> None:
    call = {"name": "book_table", "arguments": {"restaurant": "Blue Door", "people": 4}}
    query = "A table for 4 at Blue Door"
    source_rows: list[dict[str, Any]] = [
        {"query": query, "calls": [call]},
        {
            "prompt": f"Human: {query}\nAssistant:",
            "expected_tool": "book_table",
            "expected_params": call["arguments"],
        },
        {
            "messages": [
                {"role": "user", "content": query},
                {"role": "assistant", "content": None, "tool_calls": [call]},
            ]
        },
        {"query": "Hi", "calls": [], "answer": "Hello."},
        {"prompt": "Human: Hi", "expected_tool": None},
    ]
    found = read_examples(source_rows, [BOOK])
    assert found == [CanonicalExample(query, (ToolCall(**call),))] * 3 + [
        CanonicalExample("Hi", (), "Hello."),
        CanonicalExample("Hi"),
    ]
    write_jsonl(tmp_path / "examples.jsonl", source_rows)
    assert read_examples(tmp_path / "examples.jsonl", [BOOK]) == found


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"query": "x", "calls": [{"name": "book_tabel", "arguments": {}}]},
            "example 1: calls the unknown tool 'book_tabel' .did you mean",
        ),
        (
            {
                "query": "x",
                "calls": [{"name": "book_table", "arguments": {"restaurant": "a", "people": 13}}],
            },
            "13 is greater than",
        ),
        (
            {
                "query": "x",
                "calls": [
                    {"name": "book_table", "arguments": {"restaurant": "a", "people": 1, "tip": 2}}
                ],
            },
            "no argument 'tip'",
        ),
        ({"query": " ", "calls": []}, "'query' is empty"),
        ({"query": 3, "calls": []}, "must be the user's question as text, got 3"),
        ({"query": "x", "calls": {}}, "'calls' must be a list"),
        ({"question": "x"}, "has the keys 'question'; wanted"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "c"},
                ]
            },
            "2 user turns",
        ),
    ],
)
def test_a_wrong_example_stops_with_its_place(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(
        DataError,
        match=f"example 1: .*{sentence}" if not sentence.startswith("example") else sentence,
    ):
        read_examples([row], [BOOK])


def test_a_value_that_is_ambiguous_in_its_question_is_named() -> None:
    assert (
        ambiguous(
            [
                SlotPiece("York", True, "York"),
                SlotPiece(" is not "),
                SlotPiece("New York", True, "New York"),
            ]
        )
        == "York"
    )
    assert ambiguous([SlotPiece("4", True, 4), SlotPiece(" of four "), SlotPiece("rows")]) == "4"
    assert (
        ambiguous(
            [SlotPiece("4", True, 4), SlotPiece(" of 14, on 2025-04-04, "), SlotPiece("4", True, 4)]
        )
        == ""
    )
