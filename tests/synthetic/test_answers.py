"""Own tools' conversations that go on from the calls: only where asked for, with real results, and
never with a failed call.
"""

import random
from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest

from toolhone.config.experiment import load_experiment
from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.synthetic import CanonicalExample, ManualTemplates
from toolhone.synthetic.answers import CallRunner, answers_of, fill_answer, with_answers
from toolhone.synthetic.described import DescribedPhrase
from toolhone.synthetic.later_turns import Link, linked
from toolhone.synthetic.paraphrase import Form
from toolhone.synthetic.phrases import Draw
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.schema_sampler import SchemaSampler
from toolhone.training.dataset import held_out_tasks, load_data


def area(width: int, height: int) -> dict[str, Any]:
    """The area of a rectangle."""
    if width > 50:
        raise ValueError("too wide")
    return {"square_metres": width * height, "unit": "m2"}


EXAMPLE = CanonicalExample(
    "How large is a room of 7 by 11?",
    (ToolCall("area", {"width": 7, "height": 11}),),
    "It has {square_metres} square metres.",
)


def rows(n: int = 60) -> list[Conversation]:
    return ManualTemplates(
        [Tool.of(area)], [EXAMPLE], shares={"one_call": 0.8, "two_calls": 0.1, "no_call": 0.1}
    ).conversations(n)


def test_a_share_of_calling_rows_goes_on_to_the_result_and_the_answer() -> None:
    continued, _ = with_answers(
        rows(200), CallRunner(Registry([area])), answers_of([EXAMPLE]), 0.5, seed=0
    )
    calling = [row for row in continued if any(message.tool_calls for message in row.messages)]
    longer = [
        row
        for row in calling
        if row.messages[-1].role == "assistant" and not row.messages[-1].tool_calls
    ]
    assert 0.25 < len(longer) / len(calling) < 0.6
    assert check(continued, "rows").counts.keys() <= {"a row that occurs before"}
    for row in longer:
        for call in row.messages[1].tool_calls:
            size = call.arguments["width"] * call.arguments["height"]
            assert f"It has {size} square metres." in (row.messages[-1].content or "")


def test_which_rows_go_on_depends_on_seed_and_id_alone() -> None:
    def chosen(continued: list[Conversation]) -> set[str]:
        return {row.id for row in continued if len(row.messages) > 2}

    every, _ = with_answers(rows(60), CallRunner(Registry([area])), {}, 0.5, seed=0)
    some, _ = with_answers(rows(30), CallRunner(Registry([area])), {}, 0.5, seed=0)
    other, _ = with_answers(rows(60), CallRunner(Registry([area])), {}, 0.5, seed=1)
    assert chosen(some) == {name for name in chosen(every) if name in {row.id for row in some}}
    assert chosen(other) != chosen(every)


def test_a_call_that_fails_leaves_the_row_as_it_was_and_is_counted() -> None:
    def row(width: int) -> Conversation:
        call = ToolCall("area", {"width": width, "height": 2}, "c0")
        return Conversation(
            (Message("user", "?"), Message("assistant", tool_calls=(call,))),
            (Tool.of(area),),
            str(width),
        )

    continued, left = with_answers([row(51), row(5)], CallRunner(Registry([area])), {}, 1.0, seed=0)
    assert [len(row.messages) for row in continued] == [2, 4]
    assert dict(left) == {"a call ended as error: too wide": 1}


def test_tools_without_an_implementation_are_counted_and_nothing_is_lost() -> None:
    schema = {"name": "area", "parameters": Tool.of(area).parameters}
    continued, left = with_answers(
        rows(20), CallRunner(Registry([Tool.of(schema)])), {}, 1.0, seed=0
    )
    assert len(continued) == 20
    assert left.total() == sum(bool(row.messages[-1].tool_calls) for row in continued)


@pytest.mark.parametrize(
    ("wording", "value", "content", "expected"),
    [
        ("", "Sunny", "Sunny", "Sunny"),
        ("", {"a": 1, "b": "x"}, '{"a": 1, "b": "x"}', "a: 1, b: x"),
        ("", [1, 2], "[1, 2]", "[1, 2]"),
        ("", {}, "{}", "{}"),
        ("Got {a}, all: {result}", {"a": [1]}, "R", "Got [1], all: R"),
        ("No place", {"a": 1}, "R", "No place"),
        ("{{a}}", {"a": 1}, "R", "{a}"),
    ],
)
def test_an_answer_is_worded_by_the_example_or_repeats_the_result(
    wording: str, value: Any, content: str, expected: str
) -> None:
    assert fill_answer(wording, value, content) == expected


@pytest.mark.parametrize(
    ("wording", "value", "expected"),
    [
        ("{b}", {"a": 1}, "asks for {b}, but the tool's result has a"),
        ("{a}", "text", "asks for {a}, but the tool's result has no fields"),
        ("{a.b}", {"a": 1}, "asks for {a.b}"),
        ("{result.__class__}", {"a": 1}, "asks for {result.__class__}"),
        ("{", {"a": 1}, "write a brace that is no place as"),
    ],
)
def test_a_wording_that_the_result_cannot_fill_is_refused(
    wording: str, value: Mapping[str, Any], expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        fill_answer(wording, value, "R")
    assert expected in str(caught.value)


def test_a_tool_that_may_change_something_runs_only_where_the_experiment_asks(
    tmp_path: Any,
) -> None:
    (tmp_path / "t.py").write_text(
        "from pathlib import Path\ndef ring(times: int) -> str:\n    'Ring the bell.'\n"
        "    Path(__file__).with_name('rang').touch()\n    return 'rang'\n"
    )
    wanted = [
        f'tools=["{tmp_path}/t.py:ring"]',
        "data.strategy=manual_templates",
        "data.max_samples=20",
    ]
    load_data(load_experiment(None, wanted))
    assert not (tmp_path / "rang").exists()
    materials = load_data(load_experiment(None, [*wanted, "data.answered=1"]))
    assert (tmp_path / "rang").exists()
    assert materials.report["not_answered"] == {}
    with pytest.raises(Exception, match=r"data\.answered are for generated rows"):
        load_experiment(None, ["data.path=rows.jsonl", "data.answered=0.5"])


def test_finding_the_tasks_of_a_trained_run_runs_no_tool(tmp_path: Any) -> None:
    (tmp_path / "t.py").write_text(
        "from pathlib import Path\ndef ring(times: int) -> str:\n    'Ring the bell.'\n"
        "    Path(__file__).with_name('rang').touch()\n    return 'rang'\n"
    )
    wanted = [
        f'tools=["{tmp_path}/t.py:ring"]',
        "data.strategy=manual_templates",
        "data.max_samples=20",
        "data.answered=1",
    ]
    plan = load_experiment(None, wanted)
    tasks = held_out_tasks(plan)
    assert not (tmp_path / "rang").exists()
    assert tasks == load_data(plan).tasks
    assert (tmp_path / "rang").exists()


def test_a_result_that_does_not_fit_the_next_call_ends_the_row_with_the_first() -> None:
    first = Tool.of(
        {
            "name": "find",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        }
    )
    number = {"type": "string", "pattern": "^R-"}
    second = Tool.of(
        {
            "name": "pay",
            "parameters": {
                "type": "object",
                "properties": {"bill_id": number},
                "required": ["bill_id"],
            },
        }
    )
    marked = linked(
        Draw(Form.DO, (), (ToolCall("find", {"name": "Ada"}),)),
        Link("find", "pay", "bill_id", ("bill_id",)),
        DescribedPhrase(second, SchemaSampler(second)),
        random.Random(0),
        False,
    )
    messages = (
        Message("user", "?"),
        *(Message("assistant", None, None, (c,)) for c in marked.calls),
    )
    row = Conversation(messages, (first, second), "r")
    for found, length in (("R-1", 6), ("B-1", 2)):
        registry = Registry([first, second])
        runner = CallRunner(registry, {"pay"})
        with mock.patch.object(registry, "run_all") as run_all:
            run_all.return_value = [ToolResult(ToolStatus.OK, "{}", {"bill_id": found})]
            (made,), left = with_answers([row], runner, {}, 1.0, seed=0)
        assert len(made.messages) == length, made.messages
        assert left.total() == (length == 2)
