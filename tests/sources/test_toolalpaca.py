"""ToolAlpaca's evaluation set, whose tools are OpenAPI texts and whose answers are partly open."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.rewards.matching import match_calls
from toolhone.schema import ExpectedCall, Task, ToolCall
from toolhone.schema.json_schema import resolve_refs
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.toolalpaca import find_holes
from toolhone.tools.openapi import openapi_tools

TOOLALPACA = SHARED / "datasets" / "toolalpaca" / "eval_simulated.json"
SEARCH = {
    "operationId": "search",
    "description": "Finds cats.",
    "parameters": [
        {
            "name": "text",
            "in": "query",
            "required": True,
            "description": "A name.",
            "schema": {"type": "string"},
        },
        {"name": "sex", "in": "query", "schema": {"type": "string", "enum": ["m", "f"]}},
    ],
}
ADD = {
    "operationId": "add",
    "summary": "Adds a cat.",
    "requestBody": {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Cat"}}}
    },
}
CAT = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kin": {"$ref": "#/components/schemas/Cat"}},
    "required": ["age"],
}
DOCUMENT = {
    "openapi": "3.0.0",
    "paths": {
        "/cats": {"get": SEARCH, "post": ADD, "summary": "no operation"},
        "/cats/{id}": {"delete": {"description": "Removes."}},
    },
    "components": {"schemas": {"Cat": CAT}},
}


def step(action: str, given: Any) -> Any:
    return {
        "Action": action,
        "Action_Input": given if isinstance(given, str) else json.dumps(given),
    }


def record(*answers: Any, **changes: Any) -> Any:
    wishes = [f"Wish {number}." for number in range(1, len(answers) + 1)]
    made = {
        "Name": "Cats",
        "Documentation": json.dumps(DOCUMENT),
        "Instructions": wishes,
        "Golden_Answers": list(answers),
    }
    return {**made, **changes}


def save(path: Path, *records: Any) -> Path:
    path.write_text(json.dumps(list(records), indent=1))
    return path


def only(loaded: Loaded) -> Task:
    (task,) = loaded.tasks
    return task


# --- OpenAPI


def test_operations_become_tools_with_parameters_and_body_in_one_schema() -> None:
    search, add, remove = openapi_tools(DOCUMENT)
    assert (search.name, add.name, remove.name) == ("search", "add", "delete_/cats/{id}")
    assert (search.description, add.description) == ("Finds cats.", "Adds a cat.")
    assert search.parameters["properties"]["text"] == {"type": "string", "description": "A name."}
    assert (search.parameters["required"], add.parameters["required"]) == (["text"], ["age"])
    assert add.problems({"age": 3}) == []
    assert add.problems({"age": "three"})


def test_parameters_of_a_path_hold_for_its_operations() -> None:
    shared = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    (tool,) = openapi_tools(
        {"paths": {"/x": {"parameters": [shared], "get": {"operationId": "x"}}}}
    )
    assert tool.parameters == {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "required": ["id"],
    }


def test_references_are_put_in_place_and_end_in_circles_and_nowhere() -> None:
    assert resolve_refs({"$ref": "#/components/schemas/Cat"}, DOCUMENT)["properties"]["kin"][
        "properties"
    ]["age"] == {"type": "integer"}
    assert resolve_refs([{"$ref": "#/nowhere"}], DOCUMENT) == [{}]
    assert openapi_tools({"paths": []}) == openapi_tools(None) == []


# --- records


def test_every_instruction_gives_a_task_with_the_tools_of_the_documentation(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.json",
        record(
            [step("search", {"text": "Tom"})], [step("add", {"age": 1}), step("add", {"age": 2})]
        ),
    )
    loaded = open_source(path)
    assert (detect_format(path), loaded.conversations, loaded.read, loaded.only_tasks) == (
        "toolalpaca",
        [],
        1,
        1,
    )
    first, second = loaded.tasks
    assert (first.id, first.messages[0].content, first.category) == (
        "Cats-1-1",
        "Wish 1.",
        "one_call",
    )
    assert first.expect.calls == (ExpectedCall("search", {"text": "Tom"}),)
    assert second.expect.calls == (ExpectedCall("add", {"age": 1}), ExpectedCall("add", {"age": 2}))
    assert len(first.tools) == 3


def test_an_empty_text_for_what_may_be_left_out_is_right_both_ways(tmp_path: Path) -> None:
    loaded = open_source(
        save(tmp_path / "a.json", record([step("search", {"text": "Tom", "sex": ""})]))
    )
    task = only(loaded)
    assert task.expect.calls == (ExpectedCall("search", {"text": "Tom"}, {"sex": [""]}),)
    assert loaded.repaired == {"an empty text for what may be left out": 1}
    for given in ({"text": "Tom"}, {"text": "Tom", "sex": ""}):
        assert match_calls([ToolCall("search", given)], task.expect, task.tools).exact
    assert not match_calls(
        [ToolCall("search", {"text": "Tom", "sex": "m"})], task.expect, task.tools
    ).exact
    needed = only(open_source(save(tmp_path / "b.json", record([step("search", {"text": ""})]))))
    assert needed.expect.calls == (ExpectedCall("search", {"text": ""}),), (
        "what is required cannot be left out"
    )


def test_what_needs_a_result_or_the_users_answer_is_not_expected_at_once(tmp_path: Path) -> None:
    later = record(
        [
            step("search", {"text": "Tom"}),
            step("add", '{"age": ${age from search}}'),
            step("add", {"age": 1}),
        ]
    )
    loaded = open_source(save(tmp_path / "a.json", later))
    assert only(loaded).expect.calls == (ExpectedCall("search", {"text": "Tom"}),)
    assert loaded.repaired == {
        "calls that need another call's result, or the user's answer, left out": 1
    }
    asks = record(
        [
            step("getDetails", {"Question": "Which cat?"}),
            step("search", '{"text": ${name from getDetails}}'),
        ]
    )
    assert only(open_source(save(tmp_path / "b.json", asks))).expect.no_call
    optional = record([step("search", {"text": "Tom"}), step("[Optional]add", {"age": 1})])
    assert open_source(save(tmp_path / "c.json", optional)).repaired == {
        "a call marked as optional left out": 1
    }


def test_instructions_that_give_no_task_are_noted_one_by_one(tmp_path: Path) -> None:
    answers = [
        [step("search", {"text": "Tom"})],
        [step("search", '{"text": ${some name}}')],
        [step("search", '{"text": "{some name}"}')],
        [step("add", '{"age": ${age from search}}')],
        [step("add", {"age": "old"})],
        [step("fly", {})],
        [step("add", "{")],
        [step("add", {"size": 1, "age": 1})],
        [],
    ]
    loaded = open_source(save(tmp_path / "a.json", record(*answers)))
    assert (loaded.kept, len(loaded.tasks)) == (1, 1)
    assert loaded.noted == {
        f"an instruction left out: {why}": count
        for why, count in (
            ("a value that is only described", 2),
            ("nothing that can be called before a result is there", 1),
            ("an answer that cannot be read", 2),
            ("arguments that break the tool's schema", 1),
            ("a call of a tool that is not on offer", 1),
            ("an argument that the tool does not declare", 1),
        )
    }


def test_records_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    good = [step("search", {"text": "Tom"})]
    bad_schema = json.dumps(
        {"paths": {"/x": {"get": {"parameters": [{"name": "a", "schema": {"type": "colour"}}]}}}}
    )
    records = [
        record([step("fly", {})]),
        record(good, Documentation="{"),
        record(good, Documentation="{}"),
        record(good, Documentation=bad_schema),
        record(good, Instructions=[]),
    ]
    loaded = open_source(save(tmp_path / "a.json", *records), "toolalpaca")
    assert loaded.skipped == {
        "a record without a usable instruction": 1,
        "tools that cannot be read": 3,
        "not a ToolAlpaca record": 1,
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"id": ${id from search}}', ["id from search"]),
        ('{"a": ${a from x, "b": ${b from x}}', ["a from x", "b from x"]),
        ('{"s": ${start date}", "e": "${end}"}', ["start date", "end"]),
        ('{"s": "{start date}"}', ["start date"]),
        ('{"s": {"a": "b"}, "p": "Pa$$w0rd"}', []),
    ],
)
def test_open_places_are_found_however_they_are_written(text: str, found: list[str]) -> None:
    assert list(find_holes(text)) == found


def test_the_fixture_is_detected_as_its_format() -> None:
    assert detect(record([])) == "toolalpaca"


@pytest.mark.real
@pytest.mark.skipif(not TOOLALPACA.is_file(), reason="the ToolAlpaca sample is not here")
def test_the_toolalpaca_sample_is_read_and_counted() -> None:
    loaded = open_source(TOOLALPACA)
    assert (loaded.read, loaded.only_tasks, len(loaded.tasks), loaded.skipped) == (
        10,
        10,
        89,
        Counter(),
    )
    assert loaded.repaired == {
        "calls that need another call's result, or the user's answer, left out": 7,
        "an empty text for what may be left out": 1,
        "a call marked as optional left out": 1,
    }
    assert loaded.noted == {
        f"an instruction left out: {'a value that is only described'}": 10,
        "an instruction left out: arguments that break the tool's schema": 1,
    }
    tasks = {task.id: task for task in loaded.tasks}
    assert tasks["AniAPI-2-3"].expect.calls == (
        ExpectedCall("searchAnime", {"query": "Your Lie in April."}),
    )
    assert tasks["AbuseIPDB-3-1"].expect.no_call, "the user must be asked first"
    assert tasks["Axolotl-1-2"].expect.calls == (
        ExpectedCall(
            "searchAxolotlImages", {"color": "wild", "size": "medium", "page": 1}, {"gender": [""]}
        ),
    )
