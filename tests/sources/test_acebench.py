"""ACEBench's dialogues in one text, and the answers beside them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, formats, is_right, write_rows
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Expect, ExpectedCall, Message, ToolCall
from toolhone.sources.acebench import BRACKETS
from toolhone.sources.formats import ABOUT, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.scenarios import MISFIT, NO_ANSWER, PLAYED

ACEBENCH = SHARED / "datasets" / "acebench"
TIDE = {
    "name": "tide_at",
    "description": "Tells the tide.",
    "parameters": {
        "type": "object",
        "properties": {
            "port": {"type": "string"},
            "hour": {"type": "integer"},
            "marks": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["port"],
    },
}
BOAT = {
    "name": "Boat.rent",
    "description": "Rents.",
    "arguments": {"type": "dict", "properties": {"crew": {"type": "integer"}}},
}


def row(
    identity: str, question: str = "user: When is high tide in Bergen?\n", **fields: Any
) -> dict[str, Any]:
    return {
        "id": identity,
        "question": question,
        "function": [TIDE, BOAT],
        "time": "Today is Monday.",
        **fields,
    }


def load(folder: Path, row: dict[str, Any], truth: Any) -> Loaded:
    path = write_rows(folder / "data_x.json", row)
    if truth is not None:
        write_rows(
            folder / "possible_answer" / "data_x.json",
            {"id": row["id"], "ground_truth": truth, "mile_stone": []},
        )
    assert formats(path) == {("acebench",)}
    return open_source(path)


def test_a_question_becomes_a_task_with_its_call_and_the_time_as_system_text(
    tmp_path: Path,
) -> None:
    loaded = load(
        tmp_path, row("normal_atom_enum_0"), {"tide_at": {"port": "Bergen", "hour": "12"}}
    )
    (task,) = loaded.tasks
    assert (loaded.conversations, loaded.only_tasks) == ([], 1)
    assert (task.id, task.category, task.source) == (
        "normal_atom_enum_0",
        "normal_atom_enum",
        "acebench",
    )
    assert task.messages == (
        Message("system", "Today is Monday."),
        Message("user", "When is high tide in Bergen?"),
    )
    assert task.expect.calls == (ExpectedCall("tide_at", {"port": "Bergen", "hour": 12}),)
    assert set(loaded.repaired) == {
        "a tool whose schema stands under 'arguments'",
        "a tool whose types are named as JSON Schema names none",
        "arguments of another type",
    }
    assert all_score(loaded.tasks)


def test_a_schema_under_arguments_is_the_tools_schema(tmp_path: Path) -> None:
    loaded = load(tmp_path, row("normal_atom_enum_0"), {"Boat.rent": {"crew": 2}})
    assert loaded.tasks[0].tools[1].parameters == {
        "type": "object",
        "properties": {"crew": {"type": "integer"}},
    }


def test_a_number_behind_the_name_means_the_same_tool_again(tmp_path: Path) -> None:
    truth = {"tide_at_1": {"port": "Bergen"}, "tide_at_2": {"port": "Oslo"}}
    loaded = load(tmp_path, row("normal_single_turn_parallel_function_3"), truth)
    assert is_right(
        loaded.tasks[0],
        ToolCall("tide_at", {"port": "Oslo"}),
        ToolCall("tide_at", {"port": "Bergen"}),
    )


def test_a_tool_that_really_ends_in_a_number_keeps_its_name(tmp_path: Path) -> None:
    tools = [TIDE, {**TIDE, "name": "tide_at_2"}]
    loaded = load(
        tmp_path, row("normal_similar_api_1", function=tools), {"tide_at_2": {"port": "Oslo"}}
    )
    assert loaded.tasks[0].expect.calls == (ExpectedCall("tide_at_2", {"port": "Oslo"}),)


@pytest.mark.parametrize(
    "kind", ["special_incomplete", "special_error_param", "special_irrelevant"]
)
def test_a_question_back_or_a_refusal_is_no_call_and_needs_no_answer(
    tmp_path: Path, kind: str
) -> None:
    loaded = load(tmp_path, row(f"{kind}_7"), None)
    assert (loaded.tasks[0].expect, loaded.tasks[0].category) == (Expect(no_call=True), kind)


def test_calls_of_the_dialogue_are_read_and_what_is_said_next_is_their_result(
    tmp_path: Path,
) -> None:
    said = (
        "user: When is high tide?\nsystem: In which port?\nuser: Bergen.\nAnd say why.\n"
        'system: [tide_at(port="Bergen", marks=["high", "it\'s"])]\nsystem: At '
        "12.\nuser: And in Oslo?\n"
    )
    loaded = load(
        tmp_path,
        row("normal_multi_turn_user_switch_0_1", said, time=""),
        {"tide_at": {"port": "Oslo"}},
    )
    user, ask, both, called, result, reply, last = loaded.tasks[0].messages
    assert (user.role, ask, both.content) == (
        "user",
        Message("assistant", "In which port?"),
        "Bergen.\nAnd say why.",
    )
    assert called.tool_calls == (
        ToolCall("tide_at", {"port": "Bergen", "marks": ["high", "it's"]}),
    )
    assert (result.role, result.content, result.tool_call_id) == (
        "tool",
        "At 12.",
        called.tool_calls[0].id,
    )
    assert (reply, last) == (Message("assistant", "At 12."), Message("user", "And in Oslo?"))
    assert (
        loaded.repaired["a result that the dialogue leaves out, taken from what is said next"] == 1
    )


def test_calls_that_cannot_be_read_stay_text_and_are_noted(tmp_path: Path) -> None:
    said = "user: Hm?\nsystem: [tide_at(port=Bergen)]\nsystem: At 12.\nuser: And in Oslo?"
    loaded = load(
        tmp_path, row("normal_similar_api_2", said, time=""), {"tide_at": {"port": "Oslo"}}
    )
    assert loaded.tasks[0].messages[1] == Message("assistant", "[tide_at(port=Bergen)]")
    assert loaded.noted == {BRACKETS: 1}


def test_the_profile_is_told(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        row("normal_preference_1", time=None, profile="{'Port': 'Oslo'}"),
        {"tide_at": {"port": "Oslo"}},
    )
    assert loaded.tasks[0].messages[0] == Message("system", "The user's profile: {'Port': 'Oslo'}")


def test_answers_that_differ_in_one_argument_are_both_accepted(tmp_path: Path) -> None:
    truth = [{"tide_at": {"port": "Bergen"}}, {"tide_at": {"port": "Port of Bergen"}}]
    (task,) = load(tmp_path, row("normal_atom_bool_11"), truth).tasks
    assert is_right(task, ToolCall("tide_at", {"port": "Port of Bergen"}))
    assert not is_right(task, ToolCall("tide_at", {"port": "Oslo"}))


@pytest.mark.parametrize(
    "truth",
    [
        [{"tide_at": {"port": "A", "hour": 1}}, {"tide_at": {"port": "B", "hour": 2}}],
        [{"tide_at": {"port": "A"}}, {"Boat.rent": {}}],
        [{"tide_at": {"port": "A", "hour": 1}}, {"tide_at": {"port": "A"}}],
    ],
)
def test_answers_that_differ_in_more_are_skipped(tmp_path: Path, truth: Any) -> None:
    assert load(tmp_path, row("normal_atom_bool_11"), truth).skipped == {
        "alternative answers that differ in more than one argument": 1
    }


def test_an_agents_task_expects_the_final_state(tmp_path: Path) -> None:
    world: dict[str, Any] = {"Harbour": {"open": False}}
    agent = {**row("agent_multi_step_2", "Open the harbour."), "initial_config": world, "path": []}
    del agent["time"]
    loaded = load(tmp_path, agent, [{"Harbour": {"open": True}}, {"Boats": {"1": "out"}}])
    (task,) = loaded.tasks
    assert task.messages == (Message("user", "Open the harbour."),)
    assert task.expect == Expect(state={"Harbour": {"open": True}, "Boats": {"1": "out"}})
    assert task.world == world
    assert PLAYED not in loaded.repaired


def test_what_a_played_user_is_told_is_counted_as_the_request(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, row("agent_multi_turn_2", "You are Ann.", initial_config={}), [{"Harbour": {}}]
    )
    assert loaded.tasks[0].messages[-1] == Message("user", "You are Ann.")
    assert loaded.repaired[PLAYED] == 1


@pytest.mark.parametrize(
    ("fields", "truth", "reason"),
    [
        (
            {"question": "When is high tide?"},
            {"tide_at": {"port": "A"}},
            "a question that is no dialogue",
        ),
        (
            {"question": "user: Hm?\nsystem: Yes?"},
            {"tide_at": {"port": "A"}},
            "a question that is no dialogue",
        ),
        ({"function": ["tide_at"]}, {"tide_at": {"port": "A"}}, "tools that cannot be read"),
        (
            {"function": [TIDE, {**TIDE, "description": "Other."}]},
            {"tide_at": {"port": "A"}},
            FindingKind.TOOL_TWICE,
        ),
        ({}, {"ebb_at": {"port": "A"}}, FindingKind.UNKNOWN_TOOL),
        ({}, "tide_at", "an answer that cannot be read"),
        ({}, [], "an answer that cannot be read"),
    ],
)
def test_rows_that_cannot_be_used_are_counted(
    tmp_path: Path, fields: Any, truth: Any, reason: str
) -> None:
    assert load(tmp_path, row("normal_atom_list_1", **fields), truth).skipped == {reason: 1}


def test_an_answer_that_its_tool_does_not_allow_is_noted(tmp_path: Path) -> None:
    loaded = load(tmp_path, row("normal_atom_list_1"), {"tide_at": {"port": ["A"]}})
    assert (loaded.only_tasks, loaded.noted) == (1, {MISFIT: 1})


def test_a_question_without_its_answer_is_counted_and_a_missing_file_stops(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data_y.json", row("normal_atom_list_1"))
    with pytest.raises(DataError, match=r"wanted them in .*possible_answer/data_y.json"):
        open_source(path)
    write_rows(
        tmp_path / "possible_answer" / "data_y.json",
        {"id": "normal_atom_list_2", "ground_truth": {}},
    )
    assert open_source(path).skipped == {NO_ANSWER: 1}


def test_it_is_for_evaluation_only() -> None:
    assert ABOUT["acebench"].only_tasks


@pytest.mark.real
def test_the_published_questions_are_read_with_these_counts() -> None:
    if not ACEBENCH.is_dir():
        pytest.skip(f"{ACEBENCH} is not here")
    counts: dict[str, tuple[int, int]] = {}
    skipped, repaired, noted, tasks = Counter[str](), Counter[str](), Counter[str](), {}
    for folder in ("data_en", "data_zh"):
        for path in sorted((ACEBENCH / folder).glob("*.json*")):
            assert detect_format(path) == "acebench"
            loaded = open_source(path)
            read, kept = counts.get(folder, (0, 0))
            counts[folder] = (read + loaded.read, kept + loaded.only_tasks)
            skipped, repaired, noted = (
                skipped + loaded.skipped,
                repaired + loaded.repaired,
                noted + loaded.noted,
            )
            assert loaded.conversations == []
            assert all_score(loaded.tasks), path
            tasks |= {(folder, task.id): task for task in loaded.tasks}
    assert counts == {"data_en": (569, 569), "data_zh": (191, 190)}
    assert skipped == {FindingKind.TOOL_TWICE: 1}
    assert noted == {MISFIT: 6}
    assert repaired == {
        "a tool whose schema stands under 'arguments'": 164,
        "a result that the dialogue leaves out, taken from what is said next": 135,
        "a tool whose types are named as JSON Schema names none": 70,
        PLAYED: 18,
        "a default of null left out": 11,
    }
    states = tasks["data_zh", "agent_multi_step_14"].expect.state
    assert states is not None
    assert set(states) == {"BaseApi", "MessageApi", "ReminderApi", "FoodPlatform"}
    twice = tasks["data_zh", "normal_single_turn_parallel_function_10"].expect.calls
    assert twice is not None
    assert [call.name for call in twice] == ["RealTimeBPMDetector"] * 2
    assert tasks["data_en", "special_incomplete_1"].expect == Expect(no_call=True)
