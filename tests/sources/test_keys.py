"""A key that holds something is read, refused or counted by name; a bad row is a counted row."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.source_rows import write_rows
from toolhone.config.sections import Experiment
from toolhone.data.importing import import_file
from toolhone.doctor.diagnose import diagnose
from toolhone.doctor.fix import clean
from toolhone.doctor.reading import read_file
from toolhone.errors import DataError
from toolhone.schema.json_input import ARGUMENTS
from toolhone.sources.formats import SOURCES, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.messages import MESSAGES
from toolhone.sources.source import Context, Skip
from toolhone.training.dataset import load_data

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
    return open_source(file, "messages")


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


BAD_TEXTS = {
    "NaN": '{"a": NaN}',
    "1e999": '{"a": 1e999}',
    "half a character": '{"a": "\\ud83d"}',
    "a key twice": '{"a": 1, "a": 2}',
    "no object": "7",
    "no JSON": "{broken",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", BAD_TEXTS)
def test_one_bad_line_or_entry_is_one_counted_row(tmp_path: Path, name: str, packed: bool) -> None:
    good, bad = json.dumps(row()), BAD_TEXTS[name]
    file = tmp_path / "rows.json"
    file.write_text(f"[{good},\n {bad}, {good}]" if packed else f"{good}\n{bad}\n{good}\n")
    if name == "no JSON" and packed:
        with pytest.raises(DataError, match="not JSON"):
            open_source(file)
        return
    loaded = open_source(file)
    assert (loaded.read, loaded.kept, loaded.skipped.total()) == (3, 2, 1)
    assert loaded.refused[0].line.number == 2


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x"), Skip("x")])
def test_a_fault_of_a_converter_is_one_counted_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(record: Any, context: Context) -> Any:
        if record["messages"][0]["content"] == "fail":
            raise error
        return MESSAGES.convert(record, context)

    bad = row()
    bad["messages"][0]["content"] = "fail"
    monkeypatch.setitem(SOURCES, "messages", replace(MESSAGES, convert=fails))
    loaded = read(tmp_path, row(), bad, row())
    assert (loaded.kept, [refused.line.number for refused in loaded.refused]) == (2, [2])


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), AttributeError("x"), Skip("x"), DataError("x")]
)
def test_a_row_that_cannot_be_prepared_is_one_counted_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def prepare(records: Any, _context: Context) -> Any:
        if any(record["messages"][0]["content"] == "fail" for record in records):
            raise error
        return len(records)

    bad = row()
    bad["messages"][0]["content"] = "fail"
    monkeypatch.setitem(SOURCES, "messages", replace(MESSAGES, prepare=prepare))
    loaded = read(tmp_path, row(), bad, row(), bad)
    assert (loaded.kept, [refused.line.number for refused in loaded.refused]) == (2, [2, 4])


def test_a_fault_of_a_reader_of_whole_files_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(stream: Any) -> Any:
        yield from list(stream)[:1]
        raise KeyError("turns")

    monkeypatch.setitem(SOURCES, "messages", replace(MESSAGES, rows=rows))
    with pytest.raises(
        DataError, match=r"rows\.jsonl: the file cannot be read as 'messages': KeyE"
    ):
        read(tmp_path, row(), row())


def test_import_train_and_doctor_skip_the_same_rows(tmp_path: Path) -> None:
    text = json.dumps(row())
    lines = [text.replace("Find x.", f"Find x for {number}.") for number in range(8)]
    lines[2] = BAD_TEXTS["NaN"]
    lines[4] = json.dumps({"messages": [{"role": "boss", "content": "x"}]})
    lines[5] = BAD_TEXTS["half a character"]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    imported = import_file(file, tmp_path / "out.jsonl").loaded
    plan = Experiment.model_validate({"data": {"path": str(file)}, "tools": []})
    report = load_data(plan).report
    found = read_file(file)
    assert imported.skipped.total() == 3
    assert report["skipped"] == imported.skipped
    assert report["examples"] == imported.examples
    assert [case.place.number for case in found.cases if case.conversation is None] == [3, 5, 6]
    assert diagnose([found]).exit_code == 0
    file.write_text(lines[2] + "\n" + lines[4])
    with pytest.raises(DataError, match=r"no row gives a conversation.*line 1: .*line 2: "):
        load_data(plan)


def test_a_file_whose_rows_must_all_be_repaired_first_is_not_to_be_trained_on(
    tmp_path: Path,
) -> None:
    twice = row()
    call = twice["messages"][1]["tool_calls"][0]["function"]
    call["arguments"] = json.dumps(json.dumps(call["arguments"]))
    file = write_rows(tmp_path / "rows.jsonl", twice)
    assert open_source(file).kept == 0
    assert diagnose([read_file(file)]).exit_code == 1
    assert clean([read_file(file)]).repaired == 1


@pytest.mark.parametrize("key", ARGUMENTS)
def test_arguments_encoded_twice_are_repaired_under_each_of_their_names(
    tmp_path: Path, key: str
) -> None:
    twice = row()
    call = twice["messages"][1]["tool_calls"][0]["function"]
    call[key] = json.dumps(json.dumps(call.pop("arguments")))
    (read_again,) = clean([read_file(write_rows(tmp_path / "rows.jsonl", twice))]).conversations
    assert read_again.messages[1].tool_calls[0].arguments == {"a": "x"}


def test_a_refusal_that_is_all_a_message_says_is_its_text(tmp_path: Path) -> None:
    one = row()
    one["messages"][3] = {"role": "assistant", "content": None, "refusal": "I cannot help."}
    assert read(tmp_path, one).conversations[0].messages[3].content == "I cannot help."


def test_messages_and_tools_may_be_cells_of_a_table(tmp_path: Path) -> None:
    with open(tmp_path / "rows.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["messages", "tools"])
        writer.writerow([json.dumps(row()[key]) for key in ("messages", "tools")])
        writer.writerow(["[{'role': 'user'}]", ""])
    loaded, whole = open_source(tmp_path / "rows.csv"), read(tmp_path, row())
    assert (loaded.kept, loaded.skipped.total()) == (1, 1)
    assert loaded.conversations[0].messages == whole.conversations[0].messages


@pytest.mark.parametrize("turn", [{"value": "a", "content": "b"}, {"role": "user", "value": "a"}])
def test_a_turn_with_two_texts_or_roles_that_differ_is_refused(
    tmp_path: Path, turn: dict[str, str]
) -> None:
    talk = [{"from": "human", "value": "x"}, {"from": "gpt", **turn}]
    same = [{"from": "human", "value": "x", "content": "x"}, {"from": "gpt", "role": "assistant"}]
    same[1]["value"] = "y"
    loaded = open_source(
        write_rows(tmp_path / "t.jsonl", {"conversations": talk}, {"conversations": same}),
        "sharegpt",
    )
    assert [str(refused.line)[-6:] for refused in loaded.refused] == ["line 1"]
    assert loaded.kept == 1


@pytest.mark.parametrize("pattern", [r"^\p{L}+$", r"(?<=a+)b", r"["])
@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_a_pattern_that_python_cannot_read_is_counted_by_name(
    tmp_path: Path, name: str, pattern: str
) -> None:
    one = row()
    one["tools"][0]["function"]["parameters"]["properties"]["a"]["pattern"] = pattern
    if name == "sharegpt":
        turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
        one = {"conversations": turns, "tools": one["tools"]}
    loaded = open_source(write_rows(tmp_path / "rows.jsonl", one), name)
    assert (loaded.kept, [text[:9] for text in loaded.unread]) == (1, ["'pattern'"])


@pytest.mark.parametrize("thought", ["<think>Look.</think>\n", " <think>\nLook.\n</think>", ""])
def test_a_thought_in_front_of_a_call_of_sharegpt_is_the_reasoning(
    tmp_path: Path, thought: str
) -> None:
    call = thought + json.dumps({"name": "find", "arguments": {"a": "x"}})
    turns = [{"from": "human", "value": "x"}, {"from": "function_call", "value": call}]
    file = write_rows(tmp_path / "rows.jsonl", {"conversations": turns, "tools": [TOOL]})
    message = open_source(file).conversations[0].messages[1]
    assert (message.content, message.reasoning) == (None, "Look." if thought else None)
    assert [call.arguments for call in message.tool_calls] == [{"a": "x"}]


def test_a_key_of_a_call_in_a_text_is_counted_and_the_row_kept(tmp_path: Path) -> None:
    call = json.dumps({"name": "find", "arguments": {"a": "x"}, "confidence": 0.9})
    turns = [{"from": "human", "value": "x"}, {"from": "function_call", "value": call}]
    talk = {"conversations": turns, "tools": [TOOL]}
    question = {"query": "x", "tools": [TOOL], "answers": f"[{call}]"}
    for one in (talk, question):
        loaded = open_source(write_rows(tmp_path / "rows.jsonl", one))
        assert (loaded.kept, dict(loaded.unread)) == (1, {"'confidence' of a call": 1})
