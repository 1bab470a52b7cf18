"""What a hostile row holds beside what is read: each of it is read, refused or counted by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from support.source_rows import write_rows
from toolhone.errors import DataError
from toolhone.schema import Conversation, Task
from toolhone.sources.formats import open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.source import order_faults
from toolhone.sources.tool_lists import read_tool_file

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"name": "find", "parameters": SCHEMA}
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"a": "x"}}}
USER = {"role": "user", "content": "Find x."}


def row(*turns: Any, tools: Any = (TOOL,)) -> dict[str, Any]:
    """A question, turns that follow it, and an answer."""
    calls = {"role": "assistant", "content": None, "tool_calls": [copy.deepcopy(CALL)]}
    told = {"role": "tool", "content": "y", "tool_call_id": "1"}
    done = {"role": "assistant", "content": "y."}
    return {"messages": [USER, *(turns or (calls, told)), done], "tools": list(tools)}


def read(folder: Path, *rows: Any) -> Loaded:
    return open_source(write_rows(folder / "rows.jsonl", *rows))


def said(loaded: Loaded) -> str:
    counted = [*loaded.unread, *loaded.repaired]
    return "; ".join([*counted, *(f"{one.reason}: {one.detail}" for one in loaded.refused)])


@pytest.mark.parametrize(
    ("turn", "named"),
    [
        ({"role": "tool_call", "content": json.dumps(CALL["function"])}, "'tool_call'"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "a", "value": "b"}]},
            "'value'",
        ),
        ({"role": "assistant", "content": "a", "thinking": {"type": "on"}}, "'thinking'"),
        ({"role": "assistant", "content": "a", "reasoning": False}, "'reasoning'"),
        ({"role": "assistant", "content": "a", "thinking": [{"text": "b", "more": 1}]}, "'more'"),
        (
            {"role": "user", "content": "a", "train": True},
            "'train' of a message of the role 'user'",
        ),
        ({"role": "tool", "content": "a", "loss_weight": 0.5}, "'loss_weight' of a message"),
    ],
)
def test_what_a_turn_holds_twice_or_cannot_hold_is_named(
    tmp_path: Path, turn: dict[str, Any], named: str
) -> None:
    turn = {**turn, "tool_calls": [CALL]} if turn["role"] == "tool_call" else turn
    loaded = read(tmp_path, row(turn))
    assert named in said(loaded)
    for one in loaded.conversations:
        assert one.messages[1].weight == 1
        assert one.messages[1].reasoning in (None, "b")


SYSTEM = f"Tools: <tools>[{json.dumps({'type': 'function', 'function': TOOL})}]</tools>"
BLOCK = f"<tool_call>{json.dumps(CALL['function'])}</tool_call>"


@pytest.mark.parametrize(
    "given",
    [
        {
            "conversations": [
                {"from": "human", "value": "Find x.", "train": True},
                {"from": "gpt", "value": "y."},
            ]
        },
        {
            "conversations": [
                {"from": "system", "value": SYSTEM},
                {"from": "human", "value": "Find x.", "train": True},
                {"from": "gpt", "value": BLOCK},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "a"}], "train": True},
                {"role": "assistant", "content": [{"type": "text", "value": "b"}]},
            ]
        },
    ],
    ids=["sharegpt", "hermes", "parts"],
)
def test_a_turn_of_the_user_that_says_learn_me_is_counted(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    loaded = read(tmp_path, given)
    assert len(loaded.conversations) == 1, said(loaded)
    assert "'train' of a message of the role 'user'" in said(loaded)


def test_a_list_of_texts_is_the_thought_of_a_turn(tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": "a", "thinking": ["One.", {"text": "Two."}]}
    assert read(tmp_path, row(turn)).conversations[0].messages[1].reasoning == "One.\nTwo."


@pytest.mark.parametrize("key", ["call_id", "tool_call_id", "toolCallId", "tool_use_id"])
def test_results_find_their_calls_under_each_spelling_of_the_id(tmp_path: Path, key: str) -> None:
    calls = [{key: one, "name": "find", "arguments": {"a": one}} for one in "pq"]
    turns = [{"role": "tool", "content": one, key: one} for one in "qp"]
    loaded = read(tmp_path, row({"role": "assistant", "tool_calls": calls}, *turns))
    (talk,) = loaded.conversations
    assert [call.id for call in talk.messages[1].tool_calls] == ["p", "q"]
    assert [message.tool_call_id for message in talk.messages[2:4]] == ["q", "p"]
    assert not loaded.unread


@pytest.mark.parametrize("side", ["calls", "results"])
def test_results_matched_by_order_although_some_have_ids_are_counted(side: str) -> None:
    calls = [{"name": "find", "arguments": {"a": one}} for one in "pq"]
    turns = [{"role": "tool", "content": one} for one in "pq"]
    for number, (call, turn) in enumerate(zip(calls, turns, strict=True)):
        (call if side == "calls" else turn)["id" if side == "calls" else "tool_call_id"] = str(
            number
        )
    talk = Conversation.from_dict(row({"role": "assistant", "tool_calls": calls}, *turns))
    kinds = [fault.kind.value for fault in order_faults(talk.messages)]
    assert kinds == ["results matched by their order, although some have ids"]


@pytest.mark.parametrize(
    ("tool", "named", "parameters"),
    [
        ({"function": {"name": "find"}, "parameters": SCHEMA}, "'parameters'", None),
        ({"function": TOOL, "parameters": {"type": "object"}}, "'parameters' of a tool", ["a"]),
        ({"function": TOOL, "description": "Finds."}, "'description' of a tool", ["a"]),
        ({"name": "find", "arguments": SCHEMA}, "under 'arguments'", ["a"]),
        ({**TOOL, "arguments": SCHEMA}, "'arguments' of a tool", ["a"]),
        (
            {"name": "find", "parameters": {"a": {"type": "string", "minLength": 3}}},
            "'minLen",
            ["a"],
        ),
        ({**TOOL, "description": ["Finds."]}, "'description' must be text", None),
    ],
)
@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_what_a_tool_says_in_another_place_is_read_or_named(
    tmp_path: Path, tool: Any, named: str, parameters: list[str] | None, form: str
) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
    talk = {"conversations": turns, "tools": json.dumps([tool])}
    loaded = read(tmp_path, talk if form == "sharegpt" else row(USER, tools=[tool]))
    assert named in said(loaded)
    found = [[*one.tools[0].properties] for one in loaded.conversations]
    assert found == ([] if parameters is None else [parameters])


def test_a_flat_parameter_may_be_named_description(tmp_path: Path) -> None:
    flat = {"title": {"type": "string"}, "description": {"type": "string"}}
    loaded = read(tmp_path, row(USER, tools=[{"name": "find", "parameters": flat}]))
    assert [*loaded.conversations[0].tools[0].properties] == ["title", "description"]


def test_a_file_of_tools_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text('[{"name": "find", "name": "other", "parameters": {}}]')
    with pytest.raises(DataError, match="the key 'name' occurs twice"):
        read_tool_file(path)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"expect": {"answer": {"x": 1}}}, "'expect.answer' must be text or a number"),
        ({"expect": {"answer": ["x"]}}, "'expect.answer' must be text or a number"),
        ({"expect": {"calls": [{"name": "find", "optional": [1]}]}}, "'optional' must be a list"),
        ({"world": "shop"}, "'world' must be an object with a 'name'"),
        ({"turns": [], "expect": []}, "'turns' must be a list of lists"),
        ({"turns": [[USER]], "expect": [{"no_call": True}]}, "both 'messages' and 'turns'"),
    ],
)
def test_a_task_that_can_never_be_right_is_refused(changes: dict[str, Any], wrong: str) -> None:
    task = {"id": "t", "messages": [USER], "tools": [TOOL], "expect": {"no_call": True}}
    with pytest.raises(DataError, match=wrong):
        Task.from_dict({**task, **changes})


def test_further_right_values_are_read_inside_the_function_as_well() -> None:
    call = {"function": {"name": "find", "arguments": {"a": "x"}, "accept": {"a": ["y"]}}}
    expect = {"calls": [call]}
    task = Task.from_dict({"id": "t", "messages": [USER], "tools": [TOOL], "expect": expect})
    assert task.expect.calls is not None
    assert task.expect.calls[0].accept == {"a": ["y"]}


REPLY = {"choices": [{"message": {"role": "assistant", "content": "AB", "tool_calls": [CALL]}}]}
LOG = {"request": {"messages": [USER], "tools": [{"type": "function", "function": TOOL}]}}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: text.replace('"AB"', '"AB", "content": "CD"'),
        lambda text: text.replace('"x"', '"x", "a": "y"'),
        lambda text: text.replace('"x"', "NaN"),
        lambda text: text.replace('"AB"', '"\\ud83d"'),
        lambda text: f"data: {text}\n\ndata: {text[:-9]}\n\n",
    ],
)
def test_a_record_inside_a_text_is_read_strictly_or_refused(tmp_path: Path, change: Any) -> None:
    text = json.dumps(REPLY)
    loaded = read(tmp_path, {**LOG, "response": text}, {**LOG, "response": change(text)})
    assert [one.line.number for one in loaded.refused] == [2]
    assert loaded.kept == 1


def test_only_line_ends_separate_the_events_of_a_stream(tmp_path: Path) -> None:
    parts = ("one\u2028", "two\x85", "three")
    events = [{"choices": [{"delta": {"content": part}}]} for part in parts]
    lines = "\r\n\r\n".join(f"data: {json.dumps(one, ensure_ascii=False)}" for one in events)
    loaded = read(tmp_path, {**LOG, "response": lines})
    assert loaded.conversations[0].messages[-1].content == "".join(parts)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('messages,tools,messages\n"[1]","[2]","[3]"\n')
    with pytest.raises(DataError, match="two columns are named 'messages'"):
        open_source(path)


def test_an_infinite_number_of_parquet_is_one_counted_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    turns = json.dumps(row(USER)["messages"])
    table = {"messages": [turns, turns, turns], "score": [1.0, float("inf"), float("nan")]}
    parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    loaded = open_source(tmp_path / "rows.parquet")
    assert (loaded.kept, [one.line.number for one in loaded.refused]) == (2, [2])
