"""What `toolhone.data.splits` and `toolhone.sources.source` promise."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from toolhone.data.splits import split_by_tools, split_rows
from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Tool, ToolCall
from toolhone.sources.source import tasks_of


def row(
    question: str, tools: tuple[str, ...] = (), answer: str = "ok", identity: str = ""
) -> Conversation:
    return Conversation(
        (Message("user", question), Message("assistant", answer)),
        tuple(Tool(name) for name in tools),
        identity,
    )


def rows(count: int) -> list[Conversation]:
    return [row(f"question {number}") for number in range(count)]


def questions(part: list[Conversation]) -> set[str | None]:
    return {conversation.messages[0].content for conversation in part}


def tool_names(part: list[Conversation]) -> set[str]:
    return {tool.name for conversation in part for tool in conversation.tools}


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_the_fraction_is_met_in_expectation(fraction: float) -> None:
    count = 4000
    split = split_rows(rows(count), fraction)
    assert (
        abs(len(split.validation) - fraction * count)
        <= 4 * (count * fraction * (1 - fraction)) ** 0.5
    )
    assert len(split.train) + len(split.validation) == count


def test_no_row_changes_sides_when_rows_are_added_or_shuffled() -> None:
    few, many = rows(200), rows(400)
    random.Random(0).shuffle(many)
    before, after = split_rows(few, 0.2), split_rows(many, 0.2)
    assert questions(before.validation) <= questions(after.validation)
    assert questions(before.train) <= questions(after.train)


def test_each_part_keeps_the_order_of_the_file() -> None:
    data = rows(50)
    split = split_rows(data, 0.3)
    assert split.train == [item for item in data if item in split.train]
    assert split.validation == [item for item in data if item in split.validation]


def test_another_seed_gives_another_split() -> None:
    assert questions(split_rows(rows(100), 0.5, seed=0).train) != questions(
        split_rows(rows(100), 0.5, seed=1).train
    )


def test_rows_that_open_alike_stay_together() -> None:
    twice = [
        row(f"question {number % 50}", ("a",), f"answer {number}", str(number))
        for number in range(100)
    ]
    split = split_rows(twice, 0.5)
    assert not questions(split.train) & questions(split.validation)


def test_tasks_fall_on_the_side_of_their_conversation() -> None:
    data = [
        Conversation(
            (
                Message("user", f"q{n}"),
                Message("assistant", "a"),
                Message("user", "and?"),
                Message("assistant", "b"),
            ),
            id=str(n),
        )
        for n in range(60)
    ]
    split = split_rows(data, 0.5)
    of_tasks = split_rows([task for item in data for task in tasks_of(item)], 0.5)
    assert {task.id.partition("#")[0] for task in of_tasks.validation} == {
        item.id for item in split.validation
    }
    assert len(of_tasks.validation) == 2 * len(split.validation)


def test_a_tiny_file_has_a_row_on_each_side() -> None:
    for seed in range(20):
        for fraction in (0.01, 0.99):
            split = split_rows(rows(3), fraction, seed)
            assert split.train
            assert split.validation


@pytest.mark.parametrize(
    ("data", "fraction", "expected"),
    [
        (
            [row("a"), row("a", answer="no")],
            0.5,
            "2 rows cannot be split: they open with the same messages",
        ),
        ([row("a")], 0.5, "1 row cannot be split"),
        (rows(4), 1.5, "must be between 0 and 1, got 1.5"),
    ],
)
def test_a_split_that_cannot_be_is_one_sentence(
    data: list[Conversation], fraction: float, expected: str
) -> None:
    for split in (split_rows, split_by_tools):
        with pytest.raises(DataError, match=expected):
            split(data, fraction)


def test_clusters_of_tools_go_whole_and_lose_no_row() -> None:
    data = [row(f"q{n}", (f"tool{n // 4}", f"tool{n // 4}b")) for n in range(100)]
    split = split_by_tools(data, 0.2)
    assert len(split.validation) == 20
    assert split.dropped == 0
    assert not tool_names(split.train) & tool_names(split.validation)


def test_one_large_cluster_is_cut_and_the_lost_rows_are_counted() -> None:
    rng = random.Random(0)
    data = [row(f"q{n}", tuple(f"tool{t}" for t in rng.sample(range(200), 3))) for n in range(150)]
    split = split_by_tools(data, 0.1)
    assert len(split.validation) >= 15
    assert not tool_names(split.train) & tool_names(split.validation)
    assert not questions(split.train) & questions(split.validation)
    assert split.dropped > 0
    assert len(split.train) + len(split.validation) + split.dropped == 150
    assert len(split.train) > 75


def test_rows_that_open_alike_stay_together_when_tools_are_held_out() -> None:
    data = [row(f"q{n // 2}", (f"tool{n}",)) for n in range(60)]
    split = split_by_tools(data, 0.25)
    assert len(split.validation) == 14
    assert not questions(split.train) & questions(split.validation)
    assert split.dropped == 0


def test_one_tool_in_all_rows_cannot_be_held_out() -> None:
    with pytest.raises(
        DataError, match="no tools can be held out: each of the 30 rows offers a tool"
    ):
        split_by_tools([row(f"q{n}", ("calculator",)) for n in range(30)], 0.1)


@pytest.mark.parametrize(("fraction", "train", "validation"), [(0.0, 10, 0), (1.0, 0, 10)])
def test_nothing_or_all_can_be_held_out(fraction: float, train: int, validation: int) -> None:
    split = split_by_tools([row(f"q{n}", (f"t{n}",)) for n in range(10)], fraction)
    assert (len(split.train), len(split.validation)) == (train, validation)


CALL = ToolCall("weather", {"city": "Paris"}, "c1")
TOOLS = (Tool("weather"),)
SYSTEM, ASK = Message("system", "be brief"), Message("user", "weather in Paris?")
CALLING = Message("assistant", None, tool_calls=(CALL,))
RESULT = Message("tool", "22", tool_call_id="c1")
FINAL, THANKS, WELCOME = (
    Message("assistant", "22 degrees"),
    Message("user", "thanks"),
    Message("assistant", "welcome"),
)


def test_each_decision_of_the_assistant_becomes_a_task_with_its_history() -> None:
    messages = (SYSTEM, ASK, CALLING, RESULT, FINAL, THANKS, WELCOME)
    call, reply = tasks_of(Conversation(messages, TOOLS, "row", "file"))
    assert (call.id, call.messages, call.category) == ("row#2", messages[:2], "one_call")
    assert call.expect == Expect((ExpectedCall("weather", {"city": "Paris"}),))
    assert (reply.id, reply.messages, reply.category) == ("row#6", messages[:6], "no_call")
    assert reply.expect == Expect(no_call=True)
    assert (call.tools, call.source) == (TOOLS, "file")


def test_calls_after_results_and_several_calls_get_their_own_categories() -> None:
    twice = replace(CALLING, tool_calls=(CALL, CALL))
    tasks = tasks_of(
        Conversation((ASK, twice, RESULT, RESULT, CALLING, RESULT, FINAL), TOOLS, "row")
    )
    assert [task.category for task in tasks] == ["several_calls", "later_call"]
    assert len(tasks[0].expect.calls or ()) == 2


def test_a_named_category_is_kept() -> None:
    assert [
        task.category for task in tasks_of(Conversation((ASK, CALLING), TOOLS, "row"), "travel")
    ] == ["travel"]


def test_a_conversation_without_id_gives_tasks_with_stable_ids() -> None:
    first, again = (tasks_of(Conversation((ASK, CALLING), TOOLS))[0].id for _ in range(2))
    other = tasks_of(Conversation((THANKS, CALLING), TOOLS))[0].id
    assert first == again != other


def test_an_assistant_who_speaks_first_or_twice_gives_no_task() -> None:
    assert tasks_of(Conversation((SYSTEM, WELCOME, WELCOME), TOOLS)) == []
