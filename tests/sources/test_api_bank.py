"""API-Bank: dialogues with calls and results in one line, one file each; and folders of files in
general.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.errors import DataError
from toolhone.schema import ExpectedCall, Task
from toolhone.sources.api_bank import read_table
from toolhone.sources.formats import detect, detect_format, open_source

API_BANK = SHARED / "datasets" / "api_bank"
INFO = """description = "Rings at a time."
input_parameters = {
    'time': {'type': 'str', 'description': 'When.'},
    'days': {'type': 'List[str]', 'description': 'On which days.'},
}
output_parameters = None"""
APIS = [("SetBell", "(token: str, time: str, days: List[str])", INFO), ("Odd", "(x: int)", ".")]


def user(text: str) -> Any:
    return {"role": "User", "text": text}


def says(text: str) -> Any:
    return {"role": "AI", "text": text}


def api(
    name: str, given: Any, output: Any = "done", received: Any = None, exception: Any = None
) -> Any:
    result = {
        "api_name": name,
        "input": given if received is None else received,
        "output": output,
        "exception": exception,
    }
    return {"role": "API", "api_name": name, "param_dict": given, "result": result}


RING = {"token": "t1", "time": "7:00", "days": "['Mo', 'Tu']"}
BELL = api("SetBell", RING, received={**RING, "days": ["Mo", "Tu"]})
TALK = [
    user("Ring at 7."),
    says("On which days?"),
    user("Mo, Tu."),
    says("One moment."),
    BELL,
    says("It is set."),
]


def bank(folder: Path, *dialogues: Any, apis: Any = APIS) -> Path:
    with (folder / "all_apis.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("id", "类名", "input_parameters", "api_info"), *((1, *entry) for entry in apis)]
        )
    for number, turns in enumerate(dialogues, start=1):
        file = folder / "level-1" / f"d{number}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    return folder


def called(task: Task) -> ExpectedCall:
    assert task.expect.calls is not None
    (call,) = task.expect.calls
    return call


# --- dialogues


def test_a_dialogue_gives_the_tasks_of_its_turns_and_no_conversation(tmp_path: Path) -> None:
    path = bank(tmp_path, TALK) / "level-1" / "d1.jsonl"
    loaded = open_source(path)
    assert (detect_format(path), loaded.conversations, loaded.read, loaded.only_tasks) == (
        "api_bank",
        [],
        1,
        1,
    )
    ask, ring = loaded.tasks
    assert (ask.id, ask.expect.no_call) == ("d1#1", True)
    assert called(ring) == ExpectedCall(
        "SetBell", {"token": "t1", "time": "7:00", "days": ["Mo", "Tu"]}
    )
    assert [message.role for message in ring.messages] == ["user", "assistant", "user"]
    assert loaded.repaired == {"arguments of another type": 1}, "the days as the API received them"


def test_a_call_and_its_result_become_two_messages_beside_the_words_before(tmp_path: Path) -> None:
    turns = [
        *TALK[:-1],
        api("SetBell", RING, exception="no such token"),
        says("Sorry."),
        user("Again."),
        BELL,
    ]
    *_, last = open_source(bank(tmp_path, turns)).tasks
    words, result, second, failed, sorry, again = last.messages[3:]
    assert (words.content, words.tool_calls[0].name) == ("One moment.", "SetBell")
    assert (result.role, result.content, result.tool_call_id) == (
        "tool",
        "done",
        words.tool_calls[0].id,
    )
    assert (second.content, second.tool_calls[0].name) == (None, "SetBell")
    assert (failed.content, sorry.content, again.content) == (
        '{"exception": "no such token"}',
        "Sorry.",
        "Again.",
    )


def test_a_folder_is_read_as_one_with_a_dialogue_for_a_row(tmp_path: Path) -> None:
    loaded = open_source(bank(tmp_path, TALK, [*TALK, user("Thanks.")], [says("Hello.")]))
    assert (loaded.read, loaded.only_tasks, loaded.skipped) == (
        3,
        2,
        {"a turn that does not go on from the one before": 1},
    )
    assert {task.id for task in loaded.tasks} == {
        f"level-1/d{number}#{turn}" for number in (1, 2) for turn in (1, 3)
    }
    assert str(loaded.refused[0].line).endswith("d3.jsonl, line 1")


def test_the_signature_and_the_description_of_the_table_are_put_together(tmp_path: Path) -> None:
    table = read_table(bank(tmp_path) / "all_apis.csv")
    assert table["SetBell"].description == "Rings at a time."
    assert table["SetBell"].properties == {
        "token": {"type": "string"},
        "time": {"type": "string", "description": "When."},
        "days": {"type": "array", "items": {"type": "string"}, "description": "On which days."},
    }
    assert (table["Odd"].description, table["Odd"].properties) == ("", {"x": {"type": "integer"}})


def test_an_api_that_is_called_otherwise_than_described_is_described_by_its_calls(
    tmp_path: Path,
) -> None:
    other = [
        user("Ring."),
        api("SetBell", {"time": "7:00", "tone": "2"}, received={"time": "7:00", "tone": 2}),
        says("Done."),
    ]
    loaded = open_source(bank(tmp_path, other, TALK))
    assert (
        loaded.repaired["an API that is called otherwise than described, described by its calls"]
        == 2
    )
    parameters = loaded.tasks[0].tools[0].parameters
    assert list(parameters["properties"]) == ["time", "tone", "token", "days"]
    assert parameters["properties"]["tone"] == {"type": "integer"}
    assert parameters["properties"]["time"] == {"type": "string", "description": "When."}
    assert parameters["required"] == ["time"], "what every call gives"


def test_a_value_that_breaks_its_described_type_gives_the_type_that_it_has(tmp_path: Path) -> None:
    given = api("Odd", {"x": "[1]"}, received={"x": [1]})
    loaded = open_source(bank(tmp_path, [user("Do."), given, says("Done.")]))
    assert loaded.tasks[0].tools[0].parameters["properties"] == {"x": {"type": "array"}}
    assert loaded.repaired == {
        "an API that is called otherwise than described, described by its calls": 1,
        "arguments of another type": 1,
    }
    other = open_source(
        bank(tmp_path, [user("Do."), api("Odd", {"x": "3"}, received={"x": 4}), says("Done.")])
    )
    assert called(other.tasks[0]).arguments == {"x": 3}, "what was received is another value"
    plain = open_source(bank(tmp_path, [user("Do."), api("Odd", {"x": "3"}), says("Done.")]))
    assert called(plain.tasks[0]).arguments == {"x": 3}


def test_the_searcher_is_on_offer_where_called_and_what_it_tells_describes_apis(
    tmp_path: Path,
) -> None:
    told = {
        "name": "SetBell",
        "description": "Told.",
        "input_parameters": {"tone": {"type": "list(str)", "description": "How."}},
    }
    search = api("ToolSearcher", {"keywords": "bell"}, [told])
    turns = [
        user("Ring."),
        says("I search."),
        search,
        api("SetBell", {"tone": "['a']"}, received={"tone": ["a"]}),
        says("Done."),
    ]
    loaded = open_source(bank(tmp_path, turns))
    bell, searcher = loaded.tasks[0].tools
    assert (searcher.name, bell.description) == ("ToolSearcher", "Told.")
    assert bell.parameters["properties"]["tone"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "How.",
    }
    assert [called(task).name for task in loaded.tasks] == ["ToolSearcher", "SetBell"]
    assert (
        "an API that is called otherwise than described, described by its calls"
        not in loaded.repaired
    )


def test_dialogues_that_cannot_be_followed_are_counted_by_reason(tmp_path: Path) -> None:
    no_one = [user("Hi."), user("Hi?"), says("Yes.")]
    unknown, strange = (
        [user("Ring."), api("Ring", {}), says("Done.")],
        [user("Ring."), {"role": "AI"}],
    )
    joined = [
        user("Ring."),
        says("Yes."),
        says("Certainly."),
        user("So?"),
        BELL,
        says("It is set."),
    ]
    loaded = open_source(
        bank(tmp_path, no_one, unknown, strange, [user("Hi.")], joined), "api_bank"
    )
    assert loaded.skipped == {
        "a turn that does not go on from the one before": 1,
        "a call of an API that is not described": 1,
        "not an API-Bank dialogue": 1,
        "no assistant message": 1,
    }
    assert loaded.repaired["two replies in a row made one"] == 1
    assert loaded.tasks[1].messages[1].content == "Yes.\nCertainly."


def test_a_table_that_is_missing_or_another_stops_with_a_sentence(tmp_path: Path) -> None:
    path = bank(tmp_path, TALK) / "level-1"
    (tmp_path / "all_apis.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        DataError, match=r"all_apis\.csv, row 1: not the table of API-Bank; wanted the columns"
    ):
        open_source(path)
    (tmp_path / "all_apis.csv").unlink()
    with pytest.raises(
        DataError,
        match=(
            r"described in 'all_apis\.csv', which is not beside this file; name it with "
            r"'catalogue'"
        ),
    ):
        open_source(path)


def test_each_turn_is_of_one_format_only() -> None:
    for turn in (user("a"), says("b"), BELL):
        assert detect(turn) == "api_bank"


# --- folders of other formats


def test_a_folder_is_read_file_by_file_and_files_of_another_format_are_counted(
    tmp_path: Path,
) -> None:
    messages = {
        "messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    }
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_text(f"{json.dumps(messages)}\n{json.dumps(messages)}\n")
    (tmp_path / "b.json").write_text(json.dumps([messages]))
    (tmp_path / "c.json").write_text('[{"colour": "red"}]')
    (tmp_path / "d.jsonl").write_text("not JSON")
    (tmp_path / ".hidden.jsonl").write_text("not looked at")
    (tmp_path / "readme.md").write_text("not looked at")
    assert detect_format(tmp_path) == "messages"
    for loaded in (open_source(tmp_path), open_source(tmp_path, "messages")):
        assert (loaded.read, len(loaded.conversations), len(loaded.places)) == (5, 3, 3)
        assert loaded.skipped == {"a file that is not of the format 'messages'": 2}
        assert [str(row.line).rpartition("/")[2] for row in loaded.refused] == [
            "c.json, file 1",
            "d.jsonl, file 1",
        ]
    assert "not JSON" in loaded.refused[1].detail


def test_a_folder_without_a_known_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('[{"colour": "red"}]')
    with pytest.raises(
        DataError, match="the folder holds no file of a known format; known formats: gsm8k"
    ):
        open_source(tmp_path)


# --- the published files


@pytest.mark.real
@pytest.mark.skipif(not API_BANK.is_dir(), reason="the API-Bank samples are not here")
def test_the_api_bank_samples_are_read_and_counted() -> None:
    loaded = open_source(API_BANK)
    assert (loaded.read, loaded.only_tasks, len(loaded.tasks), loaded.skipped) == (
        158,
        158,
        564,
        {},
    )
    assert loaded.repaired == {
        "an API that is called otherwise than described, described by its calls": 55,
        "arguments of another type": 35,
        "two replies in a row made one": 3,
    }
    assert sum(task.expect.calls is not None for task in loaded.tasks) == 312, (
        "one for each API line"
    )
    task = next(
        task for task in loaded.tasks if task.id == "level-1-given-desc/AddMeeting-level-1-1#13"
    )
    assert called(task).arguments["attendees"] == ["John Smith", "Jane Doe", "Adam Lee"]
    assert task.messages[-1].content == '{"token": "a9s8d7f6g5h4j3k2l1"}'


@pytest.mark.real
@pytest.mark.skipif(not API_BANK.is_dir(), reason="the API-Bank samples are not here")
def test_every_api_bank_file_is_read_alone_too() -> None:
    each = [open_source(file) for file in sorted(API_BANK.rglob("*.jsonl"))]
    assert (len(each), {loaded.kept for loaded in each}) == (158, {1})
