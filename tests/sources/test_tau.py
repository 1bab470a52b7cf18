"""tau-bench and tau2-bench: dialogues and tasks about tools whose schemas are not in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, formats, is_right, write_rows
from toolhone.errors import FindingKind
from toolhone.schema import Expect, ExpectedCall, Message, ToolCall
from toolhone.sources.formats import ABOUT, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.scenarios import FROM_CALLS, NO_LIST, PLAYED, schema_of, tools_of_calls

TAU = SHARED / "datasets" / "tau_bench"
TAU2 = SHARED / "datasets" / "tau2_bench"


def test_a_tool_is_put_together_from_what_its_calls_have_in_common() -> None:
    calls = [
        ToolCall("send", {"to": "Ann", "items": [{"id": 1}, {"id": 2, "note": "x"}], "weight": 2}),
        ToolCall("send", {"to": "Ben", "items": [], "weight": 2.5, "fast": True}),
        ToolCall("stop"),
    ]
    send, stop = tools_of_calls(calls)
    assert send.parameters["required"] == ["to", "items", "weight"]
    assert send.parameters["properties"]["weight"] == {"type": "number"}
    assert send.parameters["properties"]["fast"] == {"type": "boolean"}
    assert send.parameters["properties"]["items"]["items"]["required"] == ["id"]
    assert stop.parameters["properties"] == {}
    assert all(not send.problems(call.arguments) for call in calls[:2])


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        ([1, 2.0], {"type": "number"}),
        ([1, None], {"type": ["integer", "null"]}),
        ([[1], "x"], {"type": ["array", "string"], "items": {"type": "integer"}}),
        ([{"a": 1}, "x"], {"type": ["object", "string"]}),
        ([[]], {"type": "array"}),
        ([], {}),
    ],
)
def test_values_of_several_types_obey_their_schema(
    values: list[Any], schema: dict[str, Any]
) -> None:
    assert schema_of(values) == schema


def called(name: str, identity: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": identity, "type": "function", "function": function}],
    }


def trajectory(reward: float = 1.0, **told: Any) -> dict[str, Any]:
    task = {
        "instruction": "You are Ann. Cancel A1.",
        "actions": [{"name": "cancel", "kwargs": {"id": "A1"}}],
        "outputs": [],
        **told,
    }
    said = [
        {"role": "system", "content": "Ask first."},
        {"role": "user", "content": "Cancel it."},
        called("look", "c1", id="A1"),
        {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "open"},
        {"role": "assistant", "content": "Shall I?"},
        {"role": "user", "content": "Yes."},
        called("cancel", "c2", id="A1"),
        {"role": "tool", "tool_call_id": "c2", "name": "cancel", "content": "done"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks! ###STOP###"},
    ]
    return {"task_id": 3, "trial": 1, "reward": reward, "info": {"task": task}, "traj": said}


def load_tau(folder: Path, *rows: Any) -> Loaded:
    path = write_rows(folder / "rows.jsonl", *rows)
    assert formats(path) == {("tau_bench",)}
    return open_source(path)


def test_a_dialogue_that_reached_its_goal_becomes_a_conversation(tmp_path: Path) -> None:
    loaded = load_tau(tmp_path, trajectory())
    (talk,) = loaded.conversations
    assert (talk.id, talk.messages[0], talk.messages[-1].content) == (
        "tau_bench-3-1",
        Message("system", "Ask first."),
        "Done.",
    )
    assert [tool.name for tool in talk.tools] == ["cancel", "look"]
    assert talk.messages[2].tool_calls == (ToolCall("look", {"id": "A1"}),)
    assert loaded.repaired == {
        FROM_CALLS: 1,
        "the user's last words left out, which nobody answers": 1,
    }
    assert [task.category for task in loaded.tasks] == ["one_call", "one_call"]


def test_a_dialogue_that_failed_gives_the_task_it_was_about(tmp_path: Path) -> None:
    failed = trajectory(0.0, outputs=["42"])
    failed["traj"][2] = called("hallucinated", "c1", id="A1")
    loaded = load_tau(tmp_path, failed)
    (task,) = loaded.tasks
    assert (loaded.conversations, loaded.only_tasks) == ([], 1)
    assert task.messages == (
        Message("system", "Ask first."),
        Message("user", "You are Ann. Cancel A1."),
    )
    assert task.expect == Expect((ExpectedCall("cancel", {"id": "A1"}),), answer="42")
    assert [tool.name for tool in task.tools] == ["cancel"]
    assert loaded.repaired == {FROM_CALLS: 1, PLAYED: 1}
    assert all_score(loaded.tasks)


def test_several_outputs_are_left_out_and_counted(tmp_path: Path) -> None:
    loaded = load_tau(tmp_path, trajectory(0.0, outputs=["1", "2"]))
    assert loaded.tasks[0].expect.answer is None
    assert loaded.repaired["several expected outputs left out, of which a task holds one"] == 1


def test_flat_texts_are_skipped_where_calls_were_and_kept_where_none_was(tmp_path: Path) -> None:
    lost = {"messages_display": "user: Cancel it.\nassistant: None\ntool: open\nassistant: Done."}
    odd = {"messages_display": "Cancel it."}
    text = "user: Cancel it.\nAt once.\nassistant: I may not.\nuser: Bye. ###STOP###"
    plain = {"messages_display": text}
    loaded = load_tau(tmp_path, lost, odd, plain)
    assert loaded.skipped == {
        "a flat text that does not say what was called": 1,
        "a turn that cannot be read": 1,
    }
    assert loaded.conversations[0].messages == (
        Message("user", "Cancel it.\nAt once."),
        Message("assistant", "I may not."),
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            trajectory(0.0, actions=[]),
            "a failed dialogue about a task that expects nothing but that all stays as it is",
        ),
        (trajectory(0.0, instruction=" "), "not a tau-bench row"),
        (trajectory(0.0, actions=[{"name": "cancel"}]), "not a tau-bench row"),
        ({**trajectory(), "traj": []}, "not a tau-bench row"),
        ({**trajectory(), "traj": [{"role": "robot"}]}, "a turn that cannot be read"),
        ({**trajectory(), "traj": trajectory()["traj"][:2]}, FindingKind.NO_ASSISTANT),
        (
            {
                **trajectory(),
                "traj": [*trajectory()["traj"][:3], {"role": "assistant", "content": "Done."}],
            },
            FindingKind.CALL_WITHOUT_RESULT,
        ),
    ],
)
def test_dialogues_that_cannot_be_used_are_counted(tmp_path: Path, bad: Any, reason: str) -> None:
    assert load_tau(tmp_path, bad).skipped == {reason: 1}


def wish(identity: str = "1", **criteria: Any) -> dict[str, Any]:
    told = {
        "reason_for_call": "Cancel A1.",
        "known_info": "You are Ann.",
        "unknown_info": None,
        "task_instructions": ".",
        "domain": "x",
    }
    action = {
        "action_id": "a",
        "name": "cancel",
        "arguments": {"id": "A1", "why": "late"},
        "info": None,
    }
    return {
        "id": identity,
        "user_scenario": {"persona": None, "instructions": told},
        "initial_state": None,
        "evaluation_criteria": {"actions": [action], "communicate_info": [], **criteria},
    }


def load_tau2(folder: Path, *rows: Any, policy: str = "Ask first.\n") -> Loaded:
    path = folder / "tasks.json"
    path.write_text(json.dumps(rows))
    if policy:
        (folder / "policy.md").write_text(policy)
    assert formats(path) == {("tau2_bench",)}
    return open_source(path)


def test_a_task_expects_the_actions_under_the_policy(tmp_path: Path) -> None:
    loaded = load_tau2(tmp_path, wish(communicate_info=["10"]))
    (task,) = loaded.tasks
    assert (loaded.conversations, task.id) == ([], "tau2_bench-1")
    assert task.messages == (
        Message("system", "Ask first."),
        Message("user", "Cancel A1.\n\nYou are Ann."),
    )
    assert task.expect == Expect(
        (ExpectedCall("cancel", {"id": "A1", "why": "late"}),), answer="10"
    )
    assert [tool.name for tool in task.tools] == ["cancel"]
    assert loaded.repaired == {FROM_CALLS: 1, PLAYED: 1}
    assert all_score(loaded.tasks)


def test_a_ticket_is_the_request_and_what_came_before_is_told(tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "Find A1.", "turn_idx": 0},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "name": "look", "arguments": {"id": "A1"}}],
            "turn_idx": 0,
        },
        {"role": "tool", "id": "c1", "content": "open", "turn_idx": 0},
    ]
    row = {**wish(), "ticket": "Cancel A1 for Ann.", "initial_state": {"message_history": history}}
    loaded = load_tau2(tmp_path, row, policy="")
    (task,) = loaded.tasks
    assert [message.role for message in task.messages] == ["user", "assistant", "tool", "user"]
    assert task.messages[2].tool_call_id == task.messages[1].tool_calls[0].id == "c1"
    assert (task.messages[-1].content, task.world) == (
        "Cancel A1 for Ann.",
        {"message_history": history},
    )
    assert [tool.name for tool in task.tools] == ["cancel", "look"]
    assert (loaded.repaired, loaded.noted) == ({FROM_CALLS: 1}, {"no policy.md beside the file": 1})


def test_actions_of_the_user_and_several_texts_are_left_out_and_noted(tmp_path: Path) -> None:
    loose = {"name": "cancel", "arguments": {"id": "A1", "why": "x"}, "compare_args": ["id"]}
    full = {"name": "cancel", "arguments": {"id": "A2"}, "compare_args": ["id"]}
    users = {"name": "pay", "arguments": {}, "requestor": "user"}
    loaded = load_tau2(
        tmp_path,
        wish("1", actions=[loose, users], communicate_info=["1", "2"]),
        wish("2", actions=[full]),
    )
    assert loaded.tasks[0].expect == Expect((ExpectedCall("cancel", {"id": "A1", "why": "x"}),))
    assert [tool.name for tool in loaded.tasks[0].tools] == ["cancel"]
    assert (
        loaded.repaired["actions of the user left out"],
        loaded.repaired["several texts to communicate left out, of which a task holds one"],
    ) == (1, 1)
    assert loaded.noted == {"an action of which tau2-bench compares fewer arguments": 1}


def test_an_action_of_which_nothing_is_compared_is_right_with_any_arguments(tmp_path: Path) -> None:
    free = {"name": "hand_over", "arguments": {"summary": "He insists."}, "compare_args": []}
    loaded = load_tau2(tmp_path, wish("1", actions=[free]))
    assert loaded.tasks[0].expect == Expect((ExpectedCall("hand_over", any_arguments=True),))
    assert loaded.noted == {}
    assert is_right(loaded.tasks[0], ToolCall("hand_over", {"summary": "In other words."}))
    assert not is_right(loaded.tasks[0], ToolCall("hand_over", {"summary": 3}))


def test_of_several_texts_a_task_without_actions_asks_for_the_first(tmp_path: Path) -> None:
    loaded = load_tau2(tmp_path, wish("1", actions=[], communicate_info=["polyester", "cotton"]))
    assert loaded.tasks[0].expect == Expect(answer="polyester")
    assert (
        loaded.repaired["of several texts to communicate only the first is asked for"],
        loaded.repaired["several texts to communicate left out, of which a task holds one"],
    ) == (1, 0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            wish(actions=[]),
            "a task that expects nothing but that all stays as it is, or words that a model judges",
        ),
        (wish(actions=[{"name": "cancel"}]), "an action that cannot be read"),
        (wish(actions="cancel"), NO_LIST),
        ({**wish(), "evaluation_criteria": None}, "not a tau2-bench row"),
        (
            {**wish(), "user_scenario": {"instructions": {"task_instructions": "."}}},
            "a task without a request",
        ),
        (
            {**wish(), "initial_state": {"message_history": [{"role": "robot"}]}},
            "a turn before the task that cannot be read",
        ),
    ],
)
def test_tasks_that_cannot_be_told_are_counted(tmp_path: Path, bad: Any, reason: str) -> None:
    loaded = load_tau2(tmp_path, bad, wish())
    assert (loaded.skipped, loaded.only_tasks) == ({reason: 1}, 1)


def test_tau2_is_for_evaluation_only() -> None:
    assert ABOUT["tau2_bench"].only_tasks


@pytest.mark.real
def test_the_published_dialogues_are_read_with_these_counts() -> None:
    if not TAU.is_dir():
        pytest.skip(f"{TAU} is not here")
    path = TAU / "historical_trajectories" / "gpt-4o-airline.json.gz"
    loaded = open_source(path)
    assert (detect_format(path), loaded.read, len(loaded.conversations), loaded.only_tasks) == (
        "tau_bench",
        148,
        58,
        88,
    )
    assert loaded.skipped == {
        "a failed dialogue about a task that expects nothing but that all stays as it is": 2
    }
    assert loaded.repaired == {
        FROM_CALLS: 146,
        PLAYED: 88,
        "the user's last words left out, which nobody answers": 33,
        "several expected outputs left out, of which a task holds one": 8,
    }
    assert len(loaded.conversations[0].tools) == 13
    assert all_score(loaded.tasks)
    for name, counts in {"Retail": (69, 0), "Airline": (19, 1)}.items():
        (file,) = (TAU / "few_shot_data").glob(f"Mock{name}*")
        flat = open_source(file)
        assert (flat.read, len(flat.conversations), set(flat.skipped)) == (
            *counts,
            {"a flat text that does not say what was called"},
        )


@pytest.mark.real
@pytest.mark.parametrize(
    ("domain", "counts"), [("airline", (27, 24)), ("retail", (68, 67)), ("mock", (10, 8))]
)
def test_the_published_tasks_are_read_with_these_counts(
    domain: str, counts: tuple[int, int]
) -> None:
    path = TAU2 / domain / "tasks.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    loaded = open_source(path)
    assert (loaded.read, loaded.only_tasks) == counts
    assert loaded.noted == {}
    assert set(loaded.skipped) == {
        "a task that expects nothing but that all stays as it is, or words that a model judges"
    }
    assert all(task.messages[0].role == "system" for task in loaded.tasks)
    assert all_score(loaded.tasks)
