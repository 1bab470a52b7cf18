"""A turn that is not to be learned, or only in part, in each format that has turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolhone.schema import WEIGHT_KEYS, Json
from toolhone.sources.formats import detect, open_source
from toolhone.sources.loaded import Loaded

TOOL = {
    "type": "function",
    "function": {
        "name": "track",
        "description": "Tracks.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}
SAID = [
    ("user", "Where is KX12?"),
    ("call", "WRONG"),
    ("tool", "no such parcel"),
    ("call", "KX12"),
    ("tool", "Turku"),
    ("assistant", "In Turku."),
]


def messages(first: dict[str, Json]) -> dict[str, Any]:
    turns = list[dict[str, Any]]()
    for number, (role, text) in enumerate(SAID):
        function = {"name": "track", "arguments": {"code": text}}
        call = {"id": f"c{number}", "type": "function", "function": function}
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
        answer = {"tool_call_id": f"c{number - 1}"} if role == "tool" else {}
        turns.append(turn if role == "call" else {"role": role, "content": text, **answer})
    turns[1] |= first
    return {"messages": turns, "tools": [TOOL]}


def parts(first: dict[str, Json]) -> dict[str, Any]:
    turns = list[dict[str, Any]]()
    for role, text in SAID:
        call = json.dumps({"name": "track", "arguments": {"code": text}})
        part = {"type": "text", "value": text}
        content = [{"type": "tool_call", "value": call} if role == "call" else part]
        turns.append({"role": "assistant" if role == "call" else role, "content": content})
    turns[1] |= first
    return {"messages": turns, "tools": [TOOL]}


def sharegpt(first: dict[str, Json]) -> dict[str, Any]:
    turns = list[dict[str, Any]]()
    names = {"user": "human", "call": "function_call", "tool": "observation", "assistant": "gpt"}
    for role, text in SAID:
        call = json.dumps({"name": "track", "arguments": {"code": text}})
        turns.append({"from": names[role], "value": call if role == "call" else text})
    turns[1] |= first
    return {"conversations": turns, "tools": json.dumps([TOOL["function"]])}


def hermes(first: dict[str, Json]) -> dict[str, Any]:
    system = f"Sign with <tools> </tools>. <tools> {json.dumps([TOOL])} </tools> Answer."
    turns = [{"from": "system", "value": system}]
    names = {"user": "human", "call": "gpt", "tool": "tool", "assistant": "gpt"}
    for role, text in SAID:
        call = json.dumps({"name": "track", "arguments": {"code": text}})
        value = f"<tool_call>{call}</tool_call>" if role == "call" else text
        turns.append({"from": names[role], "value": value})
    turns[2] |= first
    return {"conversations": turns}


FORMATS = (messages, parts, sharegpt, hermes)


def read(tmp_path: Path, *rows: Json, name: str | None = None) -> Loaded:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    name = name or detect(rows[0]) or "auto"
    return open_source(path, name)


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("key", WEIGHT_KEYS)
@pytest.mark.parametrize(("value", "weight"), [(False, 0), (0, 0), ("0.5", 0.5), (True, 1)])
def test_every_format_with_turns_reads_their_weights(
    tmp_path: Path, make: Any, key: str, value: Json, weight: float
) -> None:
    loaded = read(tmp_path, make({key: value}))
    (conversation,) = loaded.conversations
    turns = [one for one in conversation.messages if one.role == "assistant"]
    assert [turn.weight for turn in turns] == [weight, 1, 1]
    first = [task.expect.wanted[0].arguments["code"] for task in loaded.tasks]
    assert first == (["KX12"] if weight == 0 else ["WRONG", "KX12"])


@pytest.mark.parametrize("make", FORMATS)
def test_a_weight_that_means_nothing_is_one_bad_row(tmp_path: Path, make: Any) -> None:
    loaded = read(tmp_path, make({"train": "maybe"}), make({}))
    assert len(loaded.conversations) == 1
    (refused,) = loaded.refused
    assert refused.line.number == 1
    assert "'train' must be true, false or a number" in refused.detail


def test_joined_turns_of_different_weights_are_a_bad_row(tmp_path: Path) -> None:
    row = sharegpt({})
    row["conversations"] += [{"from": "gpt", "value": "Yes.", "weight": 0}]
    loaded = read(tmp_path, row)
    assert loaded.skipped == {"two turns of the assistant in a row with different weights": 1}


def test_the_sides_of_a_sharegpt_pair_keep_their_weights(tmp_path: Path) -> None:
    sides = {side: {"from": "gpt", "value": side} for side in ("chosen", "rejected")}
    sides["chosen"]["weight"] = "0.5"
    loaded = read(
        tmp_path, {"conversations": [{"from": "human", "value": "?"}], **sides}, name="pairs"
    )
    (pair,) = loaded.preferences
    assert (pair.chosen[0].weight, pair.rejected[0].weight) == (0.5, 1)
