"""ToolBench's answer and instruction files: what becomes a conversation, and what is counted
instead.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, is_right
from toolhone.data.task_files import gives_only_tasks, tasks_from_any
from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.formats import open_source
from toolhone.sources.toolbench import CATEGORY, ONCE, tool_of_api

TOOLBENCH = SHARED / "datasets" / "toolbench"
TRACK = {
    "name": "track_for_parcels",
    "description": "Tracks a parcel.",
    "parameters": {
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "", "example_value": "AB1"},
            "days": {"type": "integer", "description": "", "example_value": "3"},
        },
        "required": ["code"],
        "optional": ["days"],
    },
}
FINISH = {
    "name": "Finish",
    "description": "Ends.",
    "parameters": {"type": "object", "properties": {}, "required": []},
}


def called(name: str, arguments: Any, content: str | None = None) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "role": "assistant",
        "content": content,
        "function_call": {"name": name, "arguments": text},
    }


def result(content: str = "delivered") -> dict[str, Any]:
    return {"role": "function", "name": "track_for_parcels", "content": content}


START: list[dict[str, Any]] = [
    {"role": "system", "content": "You are AutoGPT. ALWAYS call Finish."},
    {"role": "user", "content": "\nWhere is parcel AB1?\nBegin!\n"},
]
END = called("Finish", {"return_type": "give_answer", "final_answer": "It was delivered."})


def answer(*turns: dict[str, Any], win: bool = True, **generation: Any) -> dict[str, Any]:
    path = [*START, *turns]
    made = {
        "function": [TRACK, FINISH],
        "train_messages": [path[:3], path],
        "finish_type": "give_answer",
        "valid_data": win,
    }
    return {"win": win, "tree": {}, "answer_generation": {**made, **generation}}


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(value, indent=1).encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def reason_of(folder: Path, record: dict[str, Any]) -> str:
    loaded = open_source(write(folder, "one.json", record), "toolbench")
    assert (loaded.read, len(loaded.conversations)) == (1, 0)
    return next(iter(loaded.skipped))


def test_a_path_becomes_calls_results_and_a_final_answer(tmp_path: Path) -> None:
    path = write(
        tmp_path, "7_DFS.json", answer(called("track_for_parcels", {"code": "AB1"}), result(), END)
    )
    loaded = open_source(path)
    (conversation,) = loaded.conversations
    assert [message.role for message in conversation.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert conversation.messages[0].content == "Where is parcel AB1?"
    assert conversation.messages[1].tool_calls[0].arguments == {"code": "AB1"}
    assert conversation.messages[2].content == "delivered"
    assert conversation.messages[3].content == "It was delivered."
    assert [tool.name for tool in conversation.tools] == ["track_for_parcels"], "Finish is no tool"
    assert conversation.tools[0].parameters["properties"]["code"] == {
        "type": "string",
        "description": "",
        "examples": ["AB1"],
    }
    assert loaded.repaired == {"the system prompt of the search left out": 1}
    assert check(loaded.conversations, loaded.places).findings == []
    assert [task.category for task in loaded.tasks] == ["one_call"]


def test_what_belongs_to_the_search_is_left_out_and_counted(tmp_path: Path) -> None:
    again = {
        "role": "user",
        "content": "This is not the first time you try this task",
        "valid": False,
    }
    turns = (
        called("track_for_parcels", {"code": "X"}),
        result("none"),
        again,
        called("track_for_parcels", {"code": "AB1"}, "I see"),
    )
    loaded = open_source(write(tmp_path, "a.json", answer(*turns, result(), END)))
    (conversation,) = loaded.conversations
    assert [message.role for message in conversation.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert not any(
        "first time" in str(message.content) or message.content == "I see"
        for message in conversation.messages
    )
    assert loaded.repaired == {
        "the system prompt of the search left out": 1,
        "a prompt of the search for another action left out": 1,
        "a thought beside a call left out": 1,
    }


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (answer(END, win=False, finish_type="give_up"), "a search that gave up"),
        (answer(called("Finish", {"return_type": "give_up_and_restart"})), "a search that gave up"),
        (answer(END, win=False), "a search without a path to an answer"),
        (answer(END, train_messages=[]), "a search without a path to an answer"),
        (
            answer(called("track_for_parcels", {"code": "AB1"}), result()),
            "a search without a path to an answer",
        ),
        (answer(result(), END), "a search without a path to an answer"),
        (
            answer(
                called("track_for_parcels", {"code": "A"}),
                called("track_for_parcels", {"code": "B"}),
                result(),
                END,
            ),
            "a search without a path to an answer",
        ),
        (
            answer({"role": "assistant", "content": "Well."}, END),
            "a search without a path to an answer",
        ),
        (
            answer(called("track_for_parcels", "{broken"), result(), END),
            "a call whose arguments are not a JSON object",
        ),
        (
            answer(called("trace_for_parcels", {"code": "AB1"}), result(), END),
            "a call of a tool that is not on offer",
        ),
        (
            answer(called("track_for_parcels", {"code": 1}), result(), END),
            "arguments that break the tool's schema",
        ),
        (
            answer(called("track_for_parcels", {"code": "A", "colour": "red"}), result(), END),
            "arguments that break the tool's schema",
        ),
        (answer(END, function=[{"description": "no name"}]), "not a ToolBench row"),
        ({"win": True, "answer_generation": None, "tree": {}}, "not a ToolBench row"),
    ],
)
def test_a_row_that_teaches_nothing_right_is_skipped_with_its_reason(
    tmp_path: Path, record: Any, reason: str
) -> None:
    assert reason_of(tmp_path, record) == reason


def api(name: str, *required: str, tool: str = "Parcels", **fields: Any) -> dict[str, Any]:
    given = [
        {"name": parameter, "type": "STRING", "description": "", "default": ""}
        for parameter in required
    ]
    return {
        "tool_name": tool,
        "api_name": name,
        "required_parameters": given,
        "optional_parameters": [],
        **fields,
    }


def query(*relevant: Any, apis: Any = None, **fields: Any) -> dict[str, Any]:
    listed = (
        [api("track", "code"), api("Price"), api("track", tool="Ships")] if apis is None else apis
    )
    return {
        "api_list": listed,
        "query": " Where is it? ",
        "relevant APIs": list(relevant),
        "query_id": 3,
        **fields,
    }


TRACKED, PRICED = ["Parcels", "track"], ["Parcels", "Price"]


def test_a_query_expects_its_right_apis_once_each_with_any_arguments(tmp_path: Path) -> None:
    loaded = open_source(write(tmp_path, "G1_query.json", [query(TRACKED, PRICED, TRACKED)]))
    assert (loaded.read, loaded.only_tasks, loaded.conversations, loaded.noted) == (
        1,
        1,
        [],
        {ONCE: 1},
    )
    (task,) = loaded.tasks
    assert (task.id, task.category, task.messages) == (
        "toolbench-G1_query-1",
        CATEGORY,
        (Message("user", "Where is it?"),),
    )
    assert [tool.name for tool in task.tools] == [
        "track_for_parcels",
        "price_for_parcels",
        "track_for_ships",
    ]
    wanted = [
        ExpectedCall(name, any_arguments=True)
        for name in ("track_for_parcels", "price_for_parcels")
    ]
    assert task.expect == Expect(tuple(wanted))
    assert Task.from_dict(task.to_dict()) == task
    price = ToolCall("price_for_parcels")
    assert is_right(task, price, ToolCall("track_for_parcels", {"code": "AB1"}))
    assert not is_right(task, price, ToolCall("track_for_parcels"))
    assert not is_right(task, price, ToolCall("track_for_ships", {}))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (query(), "a query that does not say which APIs are right"),
        ({"query": "And now?", "query_id": 4}, "a query that does not say which APIs are right"),
        (query(TRACKED, query=" "), "a query that is no text, or without a list of APIs"),
        (query(TRACKED, apis={}), "a query that is no text, or without a list of APIs"),
        (query(TRACKED, apis=[{"tool_name": "x"}]), "an API that cannot be read"),
        (query("track"), "an API that cannot be read"),
        (query(["Parcels", "lose"]), "a right API that is not on offer"),
        (
            query(TRACKED, apis=[api("track", "code"), api("Track", "number")]),
            "two different APIs of one name",
        ),
    ],
)
def test_a_query_that_cannot_be_used_is_counted_by_reason(
    tmp_path: Path, record: Any, reason: str
) -> None:
    loaded = open_source(write(tmp_path, "q.json", [record]), "toolbench")
    assert (loaded.skipped, loaded.tasks) == ({reason: 1}, [])


def test_queries_are_tasks_to_play_and_searches_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "G1_query.json", [query(TRACKED), query(PRICED)])
    assert gives_only_tasks(path)
    assert [task.expect.wanted[0].name for task in tasks_from_any(path)] == [
        "track_for_parcels",
        "price_for_parcels",
    ]
    search = write(
        tmp_path, "answer.json", answer(called("track_for_parcels", {"code": "AB1"}), result(), END)
    )
    assert not gives_only_tasks(search)


def test_a_folder_is_read_recursively_and_every_record_is_counted(tmp_path: Path) -> None:
    good = answer(called("track_for_parcels", {"code": "AB1"}), result(), END)
    write(tmp_path, "answer/G1/1.json", good)
    write(tmp_path, "answer/G2/1.json.gz", good)
    write(
        tmp_path,
        "instruction/G1_query.json",
        [{"query": "a", "query_id": 1}, {"query": "b", "query_id": 2}],
    )
    write(tmp_path, "other/notes.json", [{"text": "x"}])
    (tmp_path / "readme.txt").write_text("not read")
    loaded = open_source(tmp_path)
    assert (loaded.read, len(loaded.conversations)) == (5, 2)
    assert loaded.skipped == {
        "a query that does not say which APIs are right": 2,
        "not a ToolBench row": 1,
    }
    assert {conversation.id for conversation in loaded.conversations} == {
        "toolbench-answer/G1/1",
        "toolbench-answer/G2/1",
    }


def test_a_folder_without_files_and_a_damaged_file_stop_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no file of a known format"):
        open_source(tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('{\n "answer_generation": ')
    with pytest.raises(DataError, match="not JSON"):
        open_source(broken)
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(json.dumps(answer(END)).encode())[:60])
    with pytest.raises(DataError, match=r"cut\.json\.gz"):
        open_source(tmp_path / "cut.json.gz", "toolbench")


def test_an_object_over_many_lines_that_is_no_answer_is_not_taken_for_toolbench(
    tmp_path: Path,
) -> None:
    loaded = open_source(write(tmp_path, "config.json", {"messages": []}))
    assert loaded.kept == 0
    assert "'messages' must be a non-empty list" in loaded.refused[0].detail


def test_tools_come_from_the_list_of_apis_where_the_answer_holds_none(tmp_path: Path) -> None:
    latest = {
        "tool_name": "suivi-colis",
        "api_name": "/Latest:state",
        "api_description": " The last state. ",
        "required_parameters": [
            {"name": "colisId", "type": "STRING", "description": "", "default": "CA1"}
        ],
        "optional_parameters": [
            {"name": "id", "type": "NUMBER", "description": "which", "default": ""},
            {"name": "day", "type": "DATE (YYYY-MM-DD)", "description": "", "default": ""},
            {"name": "2nd", "type": "BOOLEAN", "description": "", "default": ""},
        ],
    }
    turns = (called("latest_state_for_suivi_colis", {"colisid": "CA1", "is_id": 2}), result(), END)
    record = {**answer(*turns, function=None), "api_list": [latest]}
    loaded = open_source(write(tmp_path, "a.json", record))
    (tool,) = loaded.conversations[0].tools
    assert (tool.name, tool.description) == ("latest_state_for_suivi_colis", "The last state.")
    assert tool.parameters["required"] == ["colisid"]
    assert tool.parameters["properties"] == {
        "colisid": {"type": "string", "description": "", "examples": ["CA1"]},
        "is_id": {"type": "number", "description": "which"},
        "day": {"type": "string", "description": "", "format": "date"},
        "get_2nd": {"type": "boolean", "description": ""},
    }
    assert Tool.of(tool.to_dict()) == tool
    assert (
        reason_of(tmp_path, {**record, "api_list": [{"tool_name": "x"}]})
        == "an API that cannot be read"
    )
    assert (
        reason_of(tmp_path, {**record, "api_list": [{**latest, "required_parameters": ["x"]}]})
        == "an API that cannot be read"
    )


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no option 'distractors'; it has none"):
        open_source(write(tmp_path, "a.json", answer(END)), "toolbench", distractors=2)


@pytest.mark.real
@pytest.mark.skipif(not TOOLBENCH.is_dir(), reason="the ToolBench samples are not here")
def test_every_file_of_the_samples_is_read_and_counted() -> None:
    files = sorted(TOOLBENCH.rglob("*.json*"))
    each = [open_source(file) for file in files]
    whole = open_source(TOOLBENCH)
    assert whole.read == sum(loaded.read for loaded in each) == 495
    assert whole.kept + whole.skipped.total() == whole.read
    assert whole.skipped == sum((loaded.skipped for loaded in each), Counter())
    assert (len(whole.conversations), whole.only_tasks) == (5, 482)
    assert whole.skipped["a query that does not say which APIs are right"] == 2
    assert all_score([task for task in whole.tasks if task.category == CATEGORY])
    assert check(whole.conversations, whole.places).findings == []
    assert all(conversation.messages[-1].content for conversation in whole.conversations)


@pytest.mark.real
@pytest.mark.skipif(not TOOLBENCH.is_dir(), reason="the ToolBench samples are not here")
def test_the_apis_of_the_samples_make_tools_with_the_names_that_the_answers_use() -> None:
    made: dict[str, Tool] = {}
    for file in sorted(TOOLBENCH.glob("*instruction/*.json*")):
        raw = file.read_bytes()
        for row in json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw):
            tools = [tool_of_api(api) for api in row.get("api_list", [])]
            made |= {tool.name: tool for tool in tools}
    assert len(made) > 1000
    assert all(Tool.of(tool.to_dict()) == tool for tool in list(made.values())[:200])
    answers = {
        tool.name
        for conversation in open_source(TOOLBENCH).conversations
        for tool in conversation.tools
    }
    assert len(answers & made.keys()) > 10, "names are made as ToolBench makes them"
