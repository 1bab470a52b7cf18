"""When2Call's decisions: a call, a question back, or a refusal."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, formats, write_rows
from toolhone.errors import FindingKind
from toolhone.schema import Expect, ExpectedCall, Message
from toolhone.sources.formats import ABOUT, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.scenarios import MISFIT

WHEN2CALL = SHARED / "datasets" / "when2call" / "when2call_test_llm_judge.jsonl.gz"
SEATS: dict[str, Any] = {
    "name": "book_seats",
    "description": "Books.",
    "parameters": {
        "type": "dict",
        "properties": {
            "seats": {"type": "integer", "enum": ["1", "2", "dontcare"]},
            "aisle": {"type": "boolean", "enum": ["True", "False"], "default": None},
        },
        "required": ["seats"],
    },
}


def row(decision: str, call: Any = None, **fields: Any) -> dict[str, Any]:
    made = call if call is not None else {"name": "book_seats", "arguments": {"seats": 2}}
    answers = {
        "direct": "Booked.",
        "tool_call": json.dumps(made),
        "request_for_info": "How many?",
        "cannot_answer": "I cannot.",
    }
    return {
        "uuid": f"u-{decision}",
        "question": "Book two seats.",
        "correct_answer": decision,
        "answers": answers,
        "target_tool": None,
        "tools": [json.dumps(SEATS)],
        **fields,
    }


def load(folder: Path, *rows: Any) -> Loaded:
    path = write_rows(folder / "test.jsonl", *rows)
    assert formats(path) == {("when2call",)}
    return open_source(path)


def test_a_decision_becomes_a_task_that_expects_the_call_or_none(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, row("tool_call"), row("request_for_info"), row("cannot_answer", tools=[])
    )
    call, ask, refuse = loaded.tasks
    assert (loaded.conversations, loaded.only_tasks) == ([], 3)
    assert call.expect == Expect((ExpectedCall("book_seats", {"seats": 2}),))
    assert (ask.expect, refuse.expect, refuse.tools) == (
        Expect(no_call=True),
        Expect(no_call=True),
        (),
    )
    assert [task.category for task in loaded.tasks] == [
        "tool_call",
        "request_for_info",
        "cannot_answer",
    ]
    assert (call.id, call.messages) == ("u-tool_call", (Message("user", "Book two seats."),))
    assert all_score(loaded.tasks)


def test_choices_written_as_texts_take_the_declared_type(tmp_path: Path) -> None:
    loaded = load(tmp_path, row("request_for_info"))
    properties = loaded.tasks[0].tools[0].parameters["properties"]
    assert properties == {
        "seats": {"type": "integer", "enum": [1, 2, "dontcare"]},
        "aisle": {"type": "boolean", "enum": [True, False]},
    }
    assert loaded.repaired == {
        "a tool whose types are named as JSON Schema names none": 1,
        "choices of a parameter written as values of another type": 1,
        "a default of null left out": 1,
    }


def test_a_number_written_as_text_is_repaired_and_what_breaks_the_tool_noted(
    tmp_path: Path,
) -> None:
    typed = row("tool_call", {"name": "book_seats", "arguments": {"seats": "2"}})
    wrong = row("tool_call", {"name": "book_seats", "arguments": {"seats": 3}})
    loaded = load(tmp_path, typed, wrong)
    assert loaded.repaired["arguments of another type"] == 1
    assert loaded.noted == {MISFIT: 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("direct"), "a decision that is neither a call nor none"),
        (row("tool_call", question=" "), "not a When2Call row"),
        (row("tool_call", tools=["{"]), "tools that cannot be read"),
        (row("tool_call", answers={"direct": "x"}), "an answer that cannot be read"),
        (row("tool_call", answers={"tool_call": "book_seats(2)"}), "an answer that cannot be read"),
        (row("tool_call", {"name": "walk", "arguments": {}}), FindingKind.UNKNOWN_TOOL),
    ],
)
def test_rows_that_cannot_be_used_are_counted(tmp_path: Path, bad: Any, reason: str) -> None:
    assert load(tmp_path, bad).skipped == {reason: 1}


def test_it_is_for_evaluation_only() -> None:
    assert ABOUT["when2call"].only_tasks


@pytest.mark.real
def test_the_published_rows_are_read_with_these_counts() -> None:
    if not WHEN2CALL.is_file():
        pytest.skip(f"{WHEN2CALL} is not here")
    loaded = open_source(WHEN2CALL)
    assert (detect_format(WHEN2CALL), loaded.read, loaded.only_tasks, loaded.skipped) == (
        "when2call",
        147,
        147,
        {},
    )
    assert Counter(task.category for task in loaded.tasks) == {
        "tool_call": 51,
        "request_for_info": 48,
        "cannot_answer": 48,
    }
    assert loaded.noted == {MISFIT: 1}
    assert loaded.repaired == {
        "a tool whose types are named as JSON Schema names none": 140,
        "choices of a parameter written as values of another type": 32,
        "a default of another type left out": 32,
        "a default of null left out": 31,
    }
    assert all_score(loaded.tasks)
    music = next(task for task in loaded.tasks if task.id.startswith("839407f4"))
    assert music.expect.calls == (
        ExpectedCall("Music_3_PlayMedia", {"track": "Bohemian Rhapsody", "device": "Kitchen"}),
    )
    assert len(music.tools) >= 2
