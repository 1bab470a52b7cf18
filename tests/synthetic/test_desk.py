"""The customer desk of `examples/desk`: its data covers the tools, and no row asks for nonsense."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from toolhone.config.experiment import load_experiment
from toolhone.doctor.checks import check
from toolhone.errors import FindingKind
from toolhone.schema import Conversation, Json, Tool, ToolCall
from toolhone.synthetic.coverage import coverage_of, table_of
from toolhone.training.dataset import Dataset, load_data

DESK = Path(__file__).parents[2] / "examples" / "desk" / "desk.json"


@cache
def desk() -> Dataset:
    return load_data(load_experiment(DESK, ["data.max_samples=1200"]))


def calls() -> Iterator[ToolCall]:
    for row in (*desk().train, *desk().held_out):
        for message in row.messages:
            yield from message.tool_calls


def test_choices_and_optional_arguments_are_each_in_a_hundredth_of_the_calls() -> None:
    coverage = desk().report["coverage"]
    assert coverage["warnings"] == []
    parameters = 0
    for tool in coverage["tools"].values():
        for path, one in tool["parameters"].items():
            parameters += 1
            assert one["has"] >= 0.01 * one["may"], path
            for value, count in one.get("values", {}).items():
                assert count >= 0.01 * one["has"], f"{path}: {value}"
    assert parameters == 29
    assert coverage["tools"]["create_ticket"]["parameters"]["tags"]["lengths"].keys() == {1, 2, 3}


def test_no_span_is_impossible_and_no_currency_is_converted_into_itself() -> None:
    spans = 0
    for call in calls():
        filters: Any = call.arguments.get("filters", {})
        for first, second, where in (
            ("start", "end", filters.get("placed", {})),
            ("min", "max", filters.get("total", {})),
        ):
            if first in where and second in where:
                spans += 1
                assert where[first] < where[second], where
        if call.name == "convert_currency":
            assert call.arguments["from_currency"] != call.arguments["to_currency"]
    assert spans > 50


def test_rows_go_on_to_results_answers_and_further_turns() -> None:
    rows = desk().train
    kinds = {check(rows, "desk").findings and finding.kind for finding in check(rows, "d").findings}
    assert kinds <= {FindingKind.DUPLICATE_ROW}
    last = [row.messages[-1] for row in rows]
    assert all(message.role == "assistant" for message in last)
    assert not any(message.tool_calls for message in last)
    users = [sum(message.role == "user" for message in row.messages) for row in rows]
    assert {1, 2, 3} <= {*users}
    asked = [row for row in rows if not row.messages[1].tool_calls and len(row.messages) > 2]
    answers = [str(row.messages[1].content) for row in asked]
    assert any("order id" in answer for answer in answers), "what is missing is asked for"


def test_a_dependent_call_takes_its_argument_from_the_result_before() -> None:
    linked = 0
    for row in desk().train:
        for index, message in enumerate(row.messages[:-1]):
            if message.role == "tool" and row.messages[index + 1].tool_calls:
                (call,) = row.messages[index + 1].tool_calls
                name = next(key for key in ("customer_id", "order_id") if key in call.arguments)
                assert f'"{name}": "{call.arguments[name]}"' in (message.content or "")
                linked += 1
    assert linked > 20


def test_every_question_says_the_values_of_its_calls() -> None:
    for row in desk().train:
        question = re.sub(r"[\s_]+", " ", str(row.messages[0].content)).lower()
        for call in row.messages[1].tool_calls:
            for value in texts(call.arguments):
                assert value.lower().replace("_", " ") in question, (value, question)


def texts(value: Json) -> Iterator[str]:
    """The texts of arguments, but for dates, which a question may write in words."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from texts(item)


def test_what_never_varies_is_warned_of() -> None:
    tool = Tool.of(
        {
            "name": "paint",
            "parameters": {
                "type": "object",
                "properties": {
                    "color": {"enum": ["red", "blue"]},
                    "coats": {"type": "integer"},
                    "note": {"type": "string"},
                },
                "required": ["color"],
            },
        }
    )
    row = Conversation.from_dict(
        {
            "messages": [
                {"role": "user", "content": "red, 2 coats"},
                {
                    "role": "assistant",
                    "tool_calls": [{"name": "paint", "arguments": {"color": "red", "coats": 2}}],
                },
            ],
            "tools": [tool.to_dict()],
        }
    )
    found = coverage_of([row] * 60, [tool])
    assert found["warnings"] == [
        "paint.color is never blue",
        "paint.coats is always 2",
        "paint.coats is optional, but never left out",
        "paint.note never occurs (60 calls could have it)",
    ]
    assert "  color                        100%  red 100%" in list(table_of(found))
