"""Hammer's prompts in sections, its dialogues, and the line to xLAM's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, formats, write_rows
from toolhone.errors import FindingKind
from toolhone.schema import Expect, ExpectedCall, Message, ToolCall
from toolhone.sources.formats import detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.scenarios import MISFIT

HAMMER = SHARED / "datasets" / "hammer"
JOINED = "two turns of the assistant in a row joined"
LAMP = {
    "name": "x7Q.a",
    "description": "Sets a lamp.",
    "parameters": {"p1": {"type": "str", "description": "Which."}, "p2": {"type": "int, optional"}},
}
CALLS = [{"name": "x7Q.a", "arguments": {"p1": "desk", "p2": 3}}]


def fenced(value: Any) -> str:
    return f"```\n{json.dumps(value)}\n```"


def prompt(
    calls: Any,
    asked: str = "[BEGIN OF QUERY]\nLight the desk.\n[END OF QUERY]\n\n",
    tools: Any = (LAMP,),
) -> dict[str, Any]:
    text = (
        "[BEGIN OF TASK INSTRUCTION]\nCall.\n[END OF TASK INSTRUCTION]\n\n[BEGIN OF "
        f"AVAILABLE TOOLS]\n{json.dumps(tools)}\n"
    )
    text += (
        "[END OF AVAILABLE TOOLS]\n\n[BEGIN OF FORMAT INSTRUCTION]\n```\n[]\n```\n[END OF "
        "FORMAT INSTRUCTION]\n\n"
    )
    return {"instruction": text + asked, "input": "", "output": fenced(calls)}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def marked(*turns: dict[str, str]) -> str:
    return "<|im_end|>\n" + "".join(
        f"<|im_start|>{said['role']}\n{said['content']}<|im_end|>\n" for said in turns
    )


def load(folder: Path, *rows: Any) -> Loaded:
    path = write_rows(folder / "rows.jsonl", *rows)
    assert formats(path) == {("hammer",)}
    return open_source(path)


def test_a_training_row_becomes_a_query_with_its_calls(tmp_path: Path) -> None:
    loaded = load(tmp_path, prompt(CALLS))
    (talk,) = loaded.conversations
    assert talk.messages[0] == Message("user", "Light the desk.")
    assert talk.messages[1].tool_calls == (ToolCall("x7Q.a", {"p1": "desk", "p2": 3}),)
    assert talk.tools[0].parameters["required"] == ["p1"]
    assert (len(loaded.tasks), loaded.repaired) == (1, {})


def test_an_empty_list_is_a_task_that_expects_no_call(tmp_path: Path) -> None:
    loaded = load(tmp_path, prompt([]))
    assert (loaded.conversations, loaded.only_tasks, loaded.tasks[0].expect) == (
        [],
        1,
        Expect(no_call=True),
    )


def test_a_prompt_with_the_turns_of_a_dialogue_is_a_test(tmp_path: Path) -> None:
    said = [
        turn("user", "Light it."),
        turn("agent", "Which lamp?"),
        turn("user", "Desk."),
        turn("agent", "One moment."),
        turn("assistant", f"```{json.dumps(CALLS)}```"),
        turn("tool", "{'done': True}"),
        turn("agent", "Done."),
        turn("user", "Again."),
        turn("agent", "I do."),
    ]
    loaded = load(tmp_path, prompt(CALLS, marked(*said)))
    assert (loaded.conversations, loaded.only_tasks) == ([], 1)
    messages = loaded.tasks[0].messages
    assert [message.role for message in messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert (messages[3].content, messages[3].tool_calls[0].name) == ("One moment.", "x7Q.a")
    assert messages[4].tool_call_id == messages[3].tool_calls[0].id
    assert loaded.repaired == {
        "words of the assistant right before the wanted calls left out": 1,
        JOINED: 1,
    }
    assert all_score(loaded.tasks)


def test_a_dialogue_as_a_list_is_a_test_too_without_its_last_line(tmp_path: Path) -> None:
    said = [turn("user", "Light the desk."), turn("agent", "I do.\nGenerate API Request:")]
    loaded = load(tmp_path, {"query": said, "tools": [LAMP], "answers": CALLS})
    assert loaded.tasks[0].messages == (Message("user", "Light the desk."),)
    assert loaded.repaired == {
        "the line that asks for a request left out": 1,
        "words of the assistant right before the wanted calls left out": 1,
    }


def test_answers_that_say_tool_and_parameters_are_read(tmp_path: Path) -> None:
    row = {
        "query": "Light the desk.",
        "tools": [LAMP],
        "answers": [{"tool": "x7Q.a", "parameters": {"p1": "desk", "p2": "3"}}],
    }
    loaded = load(tmp_path, row)
    assert loaded.tasks[0].expect.calls == (ExpectedCall("x7Q.a", {"p1": "desk", "p2": 3}),)
    assert loaded.repaired == {"arguments of another type": 1}


def test_one_query_with_name_and_arguments_is_left_to_xlam(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "rows.jsonl", {"query": "Light the desk.", "tools": [LAMP], "answers": CALLS}
    )
    assert formats(path) == {("xlam",)}


def test_answers_that_break_their_tool_are_noted_in_tests_skipped_in_training(
    tmp_path: Path,
) -> None:
    wrong = [{"name": "x7Q.a", "arguments": {"p2": 3}}]
    loaded = load(tmp_path, prompt(wrong), prompt(wrong, marked(turn("user", "Light it."))))
    assert (loaded.skipped, loaded.only_tasks, loaded.noted) == (
        {FindingKind.BAD_ARGUMENTS: 1},
        1,
        {MISFIT: 1},
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            {"label": fenced(CALLS), "predict": fenced(CALLS)},
            "a label and a prediction without a question",
        ),
        ({**prompt(CALLS), "output": "[]"}, "not a Hammer row"),
        ({**prompt(CALLS), "output": "```\n[{]\n```"}, "an answer that cannot be read"),
        ({**prompt(CALLS), "output": "```\n{}\n```"}, "an answer that cannot be read"),
        (prompt([{"arguments": {}}]), "a call that cannot be read"),
        (
            prompt(CALLS, marked(turn("agent", "Hello."))),
            "a turn of a dialogue that cannot be read",
        ),
        (
            prompt(CALLS, marked(turn("robot", "Hello."))),
            "a turn of a dialogue that cannot be read",
        ),
        (
            prompt(CALLS, marked(turn("user", "x"), turn("assistant", json.dumps(CALLS)))),
            "a turn of a dialogue that cannot be read",
        ),
        (
            prompt(CALLS, marked(turn("user", "x"), turn("tool", "done"))),
            FindingKind.RESULT_WITHOUT_CALL,
        ),
        (
            {"query": [{"role": "user"}], "tools": [LAMP], "answers": CALLS},
            "a turn of a dialogue that cannot be read",
        ),
        (
            {
                "query": [turn("user", "x")],
                "tools": [LAMP],
                "answers": [{"tool": "y", "parameters": {}}],
            },
            FindingKind.UNKNOWN_TOOL,
        ),
    ],
)
def test_rows_that_cannot_be_used_are_counted(tmp_path: Path, bad: Any, reason: str) -> None:
    assert load(tmp_path, bad).skipped == {reason: 1}


REAL = {
    "example_eval.jsonl": (7, 0, 0, {"a label and a prediction without a question": 7}, {}),
    "masking_sft_data_example.json": (
        10,
        6,
        2,
        {FindingKind.BAD_ARGUMENTS: 1, FindingKind.TOOL_TWICE: 1},
        {},
    ),
    "test_hammer2.1/apibank_l1.json": (43, 0, 43, {}, {MISFIT: 3}),
    "test_hammer2.1/apibank_l2.json": (41, 0, 40, {FindingKind.UNKNOWN_TOOL: 1}, {}),
    "test_hammer2.1/sealtool.json": (27, 0, 27, {}, {}),
    "test_original/apibank_l1.json.gz": (150, 0, 150, {}, {MISFIT: 14}),
    "test_original/apibank_l2.json": (65, 0, 64, {FindingKind.UNKNOWN_TOOL: 1}, {}),
    "test_original/sealtool.json.gz": (99, 0, 99, {}, {}),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_the_published_rows_are_read_with_these_counts(name: str) -> None:
    path = HAMMER / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    loaded = open_source(path)
    assert detect_format(path) == "hammer"
    assert (
        loaded.read,
        len(loaded.conversations),
        loaded.only_tasks,
        loaded.skipped,
        loaded.noted,
    ) == REAL[name]
    assert all_score(loaded.tasks)
    assert all(task.messages[-1].role in ("user", "tool") for task in loaded.tasks)


@pytest.mark.real
def test_a_published_dialogue_keeps_its_meaning() -> None:
    path = HAMMER / "test_original" / "apibank_l2.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    second = open_source(path).tasks[1]
    assert second.expect.calls == (ExpectedCall("QueryHistoryToday", {"date": "10-06"}),)
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1].tool_calls[0].arguments == {"keywords": "history October 6th"}
