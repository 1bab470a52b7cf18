"""RoTBench: turns in the ReAct style, and several right actions at the end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, is_right
from toolhone.schema import Expect, ExpectedCall, Task, ToolCall
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.rotbench import OPEN, read_step
from toolhone.sources.source import Skip

ROTBENCH = SHARED / "datasets" / "rotbench"


def tool(name: str, *required: str, **schemas: str) -> Any:
    properties = {key: {"type": kind} for key, kind in schemas.items()}
    return {
        "name": name,
        "parameters": {"type": "object", "properties": properties, "required": list(required)},
    }


TOOLS = [
    tool("find", "text", text="string", limit="string"),
    tool("seek", "text", text="string"),
    tool("ask_to_user", "question", question="string"),
    tool("finish", "answer", answer="string"),
]


def action(name: str, given: Any, thought: str = "") -> str:
    return (
        f"Thought:{thought}\nAction: {name}\nAction Input: "
        f"{given if isinstance(given, str) else json.dumps(given)}"
    )


def row(*turns: Any, tools: Any = TOOLS, scenario: str = "RS") -> Any:
    prompt = (
        "Desired format:\nThought: <t>\nAction: <a>\nAction Input: <i>\n\nfollowing "
        f"tools:\n{json.dumps(tools)}\n\nLet's Begin!"
    )
    talk = [("system", prompt), ("user", "Find vegan blogs.\nBegin!\n"), *turns]
    return {
        "id": "Turn 1",
        "scenario": scenario,
        "conversations": [{"from": role, "value": value} for role, value in talk],
    }


def right(*actions: str) -> Any:
    return ("assistant", list(actions))


def load(folder: Path, *rows: Any) -> Loaded:
    path = folder / "a.json"
    path.write_text(json.dumps(list(rows)))
    return open_source(path, "rotbench")


def called(name: str, **arguments: Any) -> Expect:
    return Expect((ExpectedCall(name, arguments),))


def only(loaded: Loaded) -> Task:
    (task,) = loaded.tasks
    return task


def test_a_row_gives_a_task_for_its_last_turn_without_the_prompt_of_the_style(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, row(right(action("find", {"text": "vegan blogs"}))))
    assert detect_format(tmp_path / "a.json") == "rotbench"
    assert (loaded.conversations, loaded.only_tasks, loaded.repaired) == (
        [],
        1,
        {"the prompt of the ReAct style left out": 1},
    )
    task = only(loaded)
    assert [(message.role, message.content) for message in task.messages] == [
        ("user", "Find vegan blogs.")
    ]
    assert [each.name for each in task.tools] == ["find", "seek"]
    assert task.expect.calls == (ExpectedCall("find", {"text": "vegan blogs"}),)
    assert (task.category, task.id) == ("RS", "Turn 1")


def test_turns_before_become_calls_results_and_words(tmp_path: Path) -> None:
    turns = [
        ("assistant", action("find", {"text": "x"}, " Look first. ")),
        ("function", "nothing"),
        ("assistant", action("ask_to_user", {"question": "Which ones?"})),
        ("user", "The new ones."),
        right(action("finish", {"answer": "None found."})),
    ]
    loaded = load(tmp_path, row(*turns))
    task = only(loaded)
    _, call, result, asked, told = task.messages
    assert (call.content, call.reasoning, call.tool_calls) == (
        None,
        "Look first.",
        (ToolCall("find", {"text": "x"}),),
    )
    assert (result.role, result.content, result.tool_call_id) == (
        "tool",
        "nothing",
        call.tool_calls[0].id,
    )
    assert (asked.content, asked.tool_calls, told.content) == ("Which ones?", (), "The new ones.")
    assert task.expect.no_call
    assert loaded.repaired == {
        "the prompt of the ReAct style left out": 1,
        "a call of ask_to_user or finish taken as words": 1,
    }


def test_every_right_action_is_a_right_answer_and_each_counts_once(tmp_path: Path) -> None:
    actions = [
        action("find", {"text": "a", "limit": "1"}),
        action("find", {"text": "b"}),
        action("find", {"text": "b"}),
    ]
    loaded = load(tmp_path, row(right(*actions, action("seek", {"text": "a"}))))
    others = (called("find", text="b"), called("seek", text="a"))
    task = only(loaded)
    assert task.expect == replace(called("find", text="a", limit="1"), alternatives=others)
    assert (task.category, loaded.noted) == ("RS", {})
    assert all_score([task])
    assert is_right(task, ToolCall("seek", {"text": "a"}))
    assert not is_right(task, ToolCall("find", {"text": "b", "limit": "1"})), (
        "a mixture of two right actions"
    )


def test_words_are_a_right_answer_beside_calls(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        row(right(action("finish", {"answer": "a"}), action("seek", {"text": "a"}))),
        row(right(action("seek", {"text": "a"}), action("ask_to_user", {"question": "b"}))),
        row(right(action("finish", {"answer": "a"}), action("ask_to_user", {"question": "b"}))),
    )
    assert [task.expect for task in loaded.tasks] == [
        Expect(no_call=True, alternatives=(called("seek", text="a"),)),
        replace(called("seek", text="a"), alternatives=(Expect(no_call=True),)),
        Expect(no_call=True),
    ]


def test_a_right_action_that_breaks_its_tool_is_left_out_where_another_is_left(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, row(right(action("find", {}), action("seek", {"text": "a"}))))
    assert only(loaded).expect == called("seek", text="a")
    assert loaded.repaired == {
        "the prompt of the ReAct style left out": 1,
        "a right action that does not fit the tools left out, where there are others": 1,
    }


def test_a_value_that_the_data_leave_open_is_noted_in_whichever_right_action(
    tmp_path: Path,
) -> None:
    odd = action("find", {"text": "a", "limit": "None"})
    loaded = load(
        tmp_path,
        row(right(odd)),
        row(right(action("seek", {"text": "a"}), odd)),
        row(right(action("find", {"text": "a"}))),
    )
    assert loaded.noted == {OPEN: 2}


def test_a_name_in_another_spelling_and_a_second_tool_of_one_name_are_mended(
    tmp_path: Path,
) -> None:
    twice = [tool("find", "text:", **{"text:": "string"}), tool("find", other="string"), *TOOLS[1:]]
    loaded = load(tmp_path, row(right(action("find", {"text": "a"})), tools=twice))
    task = only(loaded)
    assert task.expect.calls == (ExpectedCall("find", {"text:": "a"}),)
    assert [each.name for each in task.tools] == ["find", "seek"]
    assert loaded.repaired == {
        "the prompt of the ReAct style left out": 1,
        "a second, different tool of one name left out": 1,
        "an argument's name in another spelling": 1,
    }


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            row(("function", "out of place"), right(action("find", {"text": "a"}))),
            "a turn that does not go on from the one before",
        ),
        (
            row(
                ("assistant", action("find", {"text": "a"})),
                ("user", "no result"),
                right(action("find", {})),
            ),
            "a turn that does not go on from the one before",
        ),
        (
            row(
                ("assistant", action("ask_to_user", {"question": "a"})),
                ("assistant", "b"),
                right("c"),
            ),
            "a turn that does not go on from the one before",
        ),
        (
            row(
                ("assistant", "Let me see."),
                ("function", "x"),
                right(action("find", {"text": "a"})),
            ),
            "a turn that is no thought with an action and its input",
        ),
        (
            row(
                ("assistant", action("finish", {})),
                ("user", "x"),
                right(action("find", {"text": "a"})),
            ),
            "a turn that is no thought with an action and its input",
        ),
        (
            row(right(action("find", "{text: a}"))),
            "a turn that is no thought with an action and its input",
        ),
        (row(right()), "not a RoTBench row"),
        (row(("assistant", action("find", {"text": "a"}))), "not a RoTBench row"),
        (
            row(right(action("find", {"text": "a"})), tools={}),
            "a system prompt without a list of tools",
        ),
        (row(right(action("find", {}))), "arguments that break the tool's schema"),
        (
            row(right(action("find", {"text": "a", "size": 1}))),
            "an argument that the tool does not declare",
        ),
        (row(right(action("fly", {}))), "a call of a tool that is not on offer"),
    ],
)
def test_rows_that_cannot_be_followed_are_counted_by_reason(
    tmp_path: Path, record: Any, reason: str
) -> None:
    loaded = load(tmp_path, record)
    assert (loaded.read, loaded.skipped) == (1, {reason: 1})


def test_a_step_is_read_with_or_without_its_thought_and_in_bounded_time() -> None:
    assert read_step('Action: f\nAction Input: {"a": "Action: x"}')[1] == ToolCall(
        "f", {"a": "Action: x"}
    )
    assert read_step("Thought: a\nb\nAction:  f \nAction Input:{}")[0] == "a\nb"
    with pytest.raises(Skip):
        read_step("Thought:" + "\nAction: " * 20_000)
    with pytest.raises(Skip):
        read_step("Thought:" + " " * 100_000)


def test_the_fixture_is_detected_as_its_format() -> None:
    record = row(right(action("find", {"text": "a"})))
    assert detect(record) == "rotbench"


@pytest.mark.real
@pytest.mark.skipif(not ROTBENCH.is_dir(), reason="the RoTBench samples are not here")
def test_the_rotbench_samples_are_read_and_counted() -> None:
    first = open_source(ROTBENCH / "First_Turn" / "clean.json.gz")
    assert (first.read, first.only_tasks, len(first.tasks), first.skipped) == (
        57,
        57,
        57,
        Counter(),
    )
    assert first.repaired == {
        "the prompt of the ReAct style left out": 57,
        "a call of ask_to_user or finish taken as words": 5,
        "a second, different tool of one name left out": 1,
    }
    assert first.noted == {OPEN: 6}
    assert sum(bool(task.expect.alternatives) for task in first.tasks) == 13
    assert all_score(first.tasks)
    third = open_source(ROTBENCH / "Third_Turn" / "clean.json.gz")
    assert (third.read, third.only_tasks, len(third.tasks)) == (35, 33, 33)
    assert third.skipped == {
        "arguments that break the tool's schema": 1,
        "an argument that the tool does not declare": 1,
    }
    assert third.repaired == {
        "the prompt of the ReAct style left out": 33,
        "a call of ask_to_user or finish taken as words": 20,
        "a second, different tool of one name left out": 1,
        "an argument's name in another spelling": 1,
    }
    assert third.tasks[1].expect.no_call, "what is right is the final answer"
    assert [choice.wanted[0].arguments for choice in first.tasks[3].expect.choices] == [
        {"minaccessibility": "0.8", "maxaccessibility": "1.0"},
        {"minaccessibility": "0.8", "maxaccessibility": "1"},
        {"type": "charity"},
    ]
