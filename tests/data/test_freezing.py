"""From a log to evaluation cases: what is frozen is never trained on, and repairs become tasks."""

from __future__ import annotations

from typing import Any

import pytest

from support.log_rows import SCHEMA
from toolhone.data.freezing import corrections, freeze_tasks
from toolhone.data.redact import Redactor
from toolhone.errors import DataError
from toolhone.schema import Conversation, Message, Tool, ToolCall

FIND = Tool("find", "Finds a thing.", SCHEMA)


def talk(question: str, number: int = 0) -> Conversation:
    turns = (Message("user", question), Message("assistant", None, None, (call(question),)))
    return Conversation(turns, (FIND,), f"c{number}", "log")


def call(text: str) -> ToolCall:
    return ToolCall("find", {"a": text}, "1")


LIKE = [
    "Where is parcel KX12 that I sent to my aunt in Turku last week?",
    "where is parcel KX99 that I sent to my aunt in Turku last week",
    "Where is parcel KX12 that I sent to my aunt in Turku last week, please?",
]
OTHERS = [
    "Book a table for two at seven.",
    "What does the ferry cost?",
    "Remind me to call Per.",
    "Translate 'boat' into Finnish.",
    "How deep is the harbour?",
]


@pytest.mark.parametrize("seed", range(8))
def test_a_prompt_and_its_near_duplicates_are_on_one_side(seed: int) -> None:
    rows = [talk(text, number) for number, text in enumerate([*LIKE, *OTHERS])]
    frozen = freeze_tasks(rows, 2, seed)
    trained = {row.messages[0].content for row in frozen.train}
    held = {task.messages[0].content for task in frozen.tasks}
    assert len(frozen.tasks) == 2
    assert not held & trained
    assert len({text in trained for text in LIKE}) == 1
    assert len(frozen.train) + len(held) + frozen.left_out == len(rows)


def test_freezing_all_of_a_log_is_refused() -> None:
    with pytest.raises(DataError, match="leaves no conversation to train on"):
        freeze_tasks([talk("a"), talk("b")], 5)


def test_a_call_that_was_made_again_is_a_task_and_a_pair_with_its_evidence() -> None:
    turns = (
        Message("user", "Find x."),
        Message("assistant", None, None, (call("q"),), weight=0),
        Message("tool", "Error: no thing is named q", tool_call_id="1"),
        Message("assistant", None, None, (call("x"),)),
        Message("tool", "y", tool_call_id="1"),
        Message("assistant", "It is y."),
    )
    ((task, pair),) = corrections(Conversation(turns, (FIND,), "c", "log"))
    assert task.expect.calls is not None
    assert task.expect.calls[0].arguments == {"a": "x"}
    assert task.messages == turns[:1]
    assert "no thing is named q" in task.source
    sides = pair.chosen[0].tool_calls[0].arguments, pair.rejected[0].tool_calls[0].arguments
    assert sides == ({"a": "x"}, {"a": "q"})


FOUND = {
    "Mail ann.b@corp.co.uk now": "e-mail addresses",
    "Call +47 912 34 567 today": "phone numbers",
    "or (555) 123-4567": "phone numbers",
    "key sk-proj-abcdefghij0123456789": "keys",
    "AKIAABCDEFGHIJKLMNOP": "keys",
    "card 4111 1111 1111 1111": "card numbers",
}
LEFT = ["order 4111111111111112", "at 2026-11-30T01:02:03Z", "a@b", "version 1.2.3", "+5 points"]


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_and_keys_are_replaced_alike_everywhere_and_counted(text: str) -> None:
    redactor = Redactor()
    row: Any = {"content": text, "arguments": [{"x": text}], "note": LEFT}
    changed = redactor.value(row)
    assert changed["content"] != text
    assert changed["arguments"][0]["x"] == changed["content"]
    assert changed["note"] == LEFT
    assert redactor.counts == {FOUND[text]: 2}
