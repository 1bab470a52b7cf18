"""A key that holds something is read, refused or counted by name; a bad row is a counted row."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from support.source_rows import write_rows
from toolhone.sources.base import Loaded
from toolhone.sources.formats import open_source

TOOL = {"name": "find", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}


def row() -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"a": "x"}}}
    return {
        "messages": [
            {"role": "user", "content": "Find x."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "y", "tool_call_id": "1"},
            {"role": "assistant", "content": "It is y."},
        ],
        "tools": [{"type": "function", "function": json.loads(json.dumps(TOOL))}],
    }


def read(path: Path, *rows: Any) -> Loaded:
    file = write_rows(path / "rows.jsonl", *rows)
    return open_source(file, "messages", skip_bad_lines=True, skip_bad=True)


@pytest.mark.parametrize("seed", range(12))
def test_an_unknown_key_anywhere_is_refused_or_counted_by_name(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    key = "".join(draw.choices("qxzvkjw", k=8))
    value = draw.choice([0, False, "text", [1], {"b": {"type": "string"}}, 2.5])
    for place in range(7):
        one = row()
        call, tool = one["messages"][1]["tool_calls"][0], one["tools"][0]
        places = [one, *one["messages"], call, call["function"], tool["function"]]
        places[place][key] = value
        loaded = read(tmp_path, one)
        said = [*loaded.unread, *(refused.detail for refused in loaded.refused)]
        assert any(repr(key) in text for text in said), (place, said)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '{"a": "x", "a": "y"}'])
def test_arguments_that_are_no_strict_json_are_one_refused_row(tmp_path: Path, text: str) -> None:
    bad = row()
    bad["messages"][1]["tool_calls"][0]["function"]["arguments"] = text
    loaded = read(tmp_path, row(), bad, row())
    assert (loaded.read, loaded.kept) == (3, 2)
    assert str(loaded.refused[0].line).endswith("line 2")


def test_calls_in_neighbouring_messages_are_one_turn_and_counted(tmp_path: Path) -> None:
    one = row()
    call = {"id": "2", "name": "find", "args": {"a": "z"}}
    one["messages"].insert(2, {"role": "assistant", "content": None, "tool_calls": [call]})
    one["messages"].insert(4, {"role": "tool", "content": "w", "tool_call_id": "2"})
    loaded = read(tmp_path, one)
    assert [call.arguments for call in loaded.conversations[0].messages[1].tool_calls] == [
        {"a": "x"},
        {"a": "z"},
    ]
    assert loaded.repaired.total() == 1
