"""NESTFUL: sequences of calls with references, and the specification beside them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.errors import DataError
from toolhone.rewards.matching import match_calls
from toolhone.schema import ExpectedCall, ToolCall
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.nestful import SYSTEM

NESTFUL = SHARED / "datasets" / "nestful"
FIND = {
    "name": "find",
    "description": "Finds a place.",
    "query_parameters": {
        "text": {"type": "String", "description": "What to find.", "required": True},
        "sort_by": {"type": "Enum", "allowed_values": ["near", "best"], "default": "near"},
        "date": {"type": "Date (yyyy-mm-dd)", "required": False},
    },
    "output_parameters": {
        "id": {"type": "Number", "description": "Its number."},
        "name": {"type": "String"},
    },
}
ROUTE = {
    "name": "route",
    "parameters": {"to": {"type": "Number", "required": True}, "stops": {"type": "array"}},
}
PLAIN = {
    "name": "Bus.Book",
    "arguments": {"seats": {"required": True, "default_value": "1", "allowed_values": ["1", "2"]}},
}


def call(name: str, label: str | None = None, /, **arguments: Any) -> Any:
    return {"name": name, "arguments": arguments, **({"label": label} if label else {})}


def row(*calls: Any) -> Any:
    return {"input": "Take me to the castle.", "output": list(calls)}


NESTED = row(
    call("find", "var1", text="castle"),
    call("route", "var2", to="$var1.id$"),
    call("var_result", None, way="$var2$"),
)


def save(folder: Path, *rows: Any, spec: Any = (FIND, ROUTE, PLAIN)) -> Path:
    (folder / "walk-spec.json").write_text(json.dumps(list(spec), indent=1))
    path = folder / "walk-data.json"
    path.write_text(json.dumps(list(rows), indent=1))
    return path


def test_a_row_gives_a_task_that_expects_the_calls_in_order_with_their_references(
    tmp_path: Path,
) -> None:
    path = save(tmp_path, NESTED)
    loaded = open_source(path, distractors=0)
    assert (detect_format(path), loaded.conversations, loaded.only_tasks) == ("nestful", [], 1)
    (task,) = loaded.tasks
    assert task.expect.calls == (
        ExpectedCall("find", {"text": "castle"}),
        ExpectedCall("route", {"to": "$var1.id$"}),
    )
    assert (task.expect.order, task.category) == ("strict", "nested")
    assert [message.content for message in task.messages] == [SYSTEM, "Take me to the castle."]
    assert loaded.repaired == {"the naming of what to hand back left out": 1}
    right = [
        ToolCall("find", {"text": "castle", "sort_by": "near"}),
        ToolCall("route", {"to": "$var1.id$"}),
    ]
    assert match_calls(right, task.expect, task.tools).exact
    assert not match_calls(right[::-1], task.expect, task.tools).exact


def test_the_specification_becomes_schemas_that_take_references_where_no_text_does(
    tmp_path: Path,
) -> None:
    (task,) = open_source(save(tmp_path, NESTED), distractors=2).tasks
    tools = {tool.name: tool for tool in task.tools}
    assert set(tools) == {"find", "route", "Bus.Book"}
    find = tools["find"].parameters
    assert find["required"] == ["text"]
    assert find["properties"]["text"] == {"type": "string", "description": "What to find."}
    assert find["properties"]["date"] == {"type": "string"}
    assert find["properties"]["sort_by"]["anyOf"][0] == {"type": "string", "enum": ["near", "best"]}
    assert find["properties"]["sort_by"]["default"] == "near"
    assert (
        tools["find"].description
        == "Finds a place.\nIts result has the fields: id (Its number.); name"
    )
    assert tools["Bus.Book"].parameters["required"] == ["seats"]
    route = tools["route"]
    assert (
        route.problems({"to": 3})
        == route.problems({"to": "$var1.id$"})
        == route.problems({"to": "$var2$"})
        == []
    )
    assert all(route.problems({"to": other}) for other in ("near", "$price"))


def test_what_can_only_mean_one_thing_is_mended_and_a_reference_for_a_list_stays(
    tmp_path: Path,
) -> None:
    calls = row(
        call("find", "var1", text=7, sortBy="best"),
        call("route", "var2", to="3", stops="$var1.name$"),
        call("route", "var3", to=1, stops="here"),
    )
    loaded = open_source(save(tmp_path, calls))
    assert loaded.tasks[0].expect.calls == (
        ExpectedCall("find", {"text": "7", "sort_by": "best"}),
        ExpectedCall("route", {"to": 3, "stops": "$var1.name$"}),
        ExpectedCall("route", {"to": 1, "stops": ["here"]}),
    )
    assert loaded.repaired == {
        "arguments of another type": 1,
        "an argument's name in another spelling": 1,
        "a single value where a list is declared": 1,
    }


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (
            [call("find", "var1", text="$var2.name$"), call("find", "var2", text="x")],
            "a reference that is not to one earlier call",
        ),
        ([call("find", "var1", text="$var1.name$")], "a reference that is not to one earlier call"),
        (
            [
                call("find", "var1", text="x"),
                call("find", "var1", text="y"),
                call("find", text="$var1$"),
            ],
            "a reference that is not to one earlier call",
        ),
        (
            [call("find", "var2", text="x"), call("find", text="$var2.id$")],
            "a reference that is not to one earlier call",
        ),
        ([call("seek", "var1", text="x")], "a call of a tool that is not on offer"),
        ([call("find", "var1", text="x", size=1)], "an argument that the tool does not declare"),
        ([call("find", "var1", sort_by="best")], "arguments that break the tool's schema"),
        ([call("route", "var1", to="near")], "arguments that break the tool's schema"),
        ([call("var_result", x="$var1$")], "not a NESTFUL row"),
    ],
)
def test_rows_that_contradict_their_specification_or_themselves_are_counted(
    tmp_path: Path, calls: Any, reason: str
) -> None:
    loaded = open_source(save(tmp_path, row(*calls)), "nestful")
    assert (loaded.read, loaded.skipped) == (1, {reason: 1})


def test_a_specification_that_is_missing_or_wrong_stops_with_a_sentence(tmp_path: Path) -> None:
    assert open_source(save(tmp_path, NESTED, spec=[FIND, ROUTE, ROUTE])).kept == 1, (
        "twice the same is once"
    )
    for spec, sentence in (
        (
            [FIND, {**FIND, "description": "x"}],
            r"entry 2: the tool 'find' is described twice, in different ways",
        ),
        ([{"name": "find"}], "not a tool of NESTFUL; wanted 'name' and one of query_parameters"),
        ([{"name": "f", "arguments": {"x": {"type": "Colour"}}}], "has the unknown type 'Colour'"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_source(save(tmp_path, NESTED, spec=spec))
    (tmp_path / "walk-spec.json").unlink()
    with pytest.raises(
        DataError, match=r"'walk-spec\.json' or 'spec\.json', which is not beside this file"
    ):
        open_source(tmp_path / "walk-data.json")


def test_the_fixture_is_detected_as_its_format() -> None:
    assert detect(NESTED) == "nestful"


@pytest.mark.real
@pytest.mark.skipif(not NESTFUL.is_dir(), reason="the NESTFUL samples are not here")
@pytest.mark.parametrize(
    ("file", "read", "kept", "repaired", "skipped"),
    [
        (
            "executable/executable-data.json",
            46,
            38,
            {
                "the naming of what to hand back left out": 38,
                "an argument's name in another spelling": 3,
                "arguments of another type": 2,
            },
            {
                "an argument that the tool does not declare": 7,
                "arguments that break the tool's schema": 1,
            },
        ),
        (
            "non-executable/non-executable-glaive-data.json",
            105,
            80,
            {
                "the naming of what to hand back left out": 80,
                "a single value where a list is declared": 2,
                "arguments of another type": 2,
            },
            {
                "arguments that break the tool's schema": 17,
                "a call of a tool that is not on offer": 7,
                "a reference that is not to one earlier call": 1,
            },
        ),
        (
            "non-executable/non-executable-sgd-data.json",
            30,
            19,
            {"the naming of what to hand back left out": 19},
            {
                "arguments that break the tool's schema": 9,
                "an argument that the tool does not declare": 1,
                "a reference that is not to one earlier call": 1,
            },
        ),
    ],
)
def test_the_nestful_samples_are_read_and_counted(
    file: str, read: int, kept: int, repaired: dict[str, int], skipped: dict[str, int]
) -> None:
    loaded = open_source(NESTFUL / file)
    assert (loaded.read, loaded.only_tasks, len(loaded.tasks)) == (read, kept, kept)
    assert (loaded.repaired, loaded.skipped) == (Counter(repaired), Counter(skipped))


@pytest.mark.real
@pytest.mark.skipif(not NESTFUL.is_dir(), reason="the NESTFUL samples are not here")
def test_the_first_nestful_row_means_what_it_says() -> None:
    task = open_source(NESTFUL / "executable" / "executable-data.json").tasks[0]
    calls = task.expect.calls or ()
    assert [one.name for one in calls][:3] == [
        "SkyScrapperSearchAirport",
        "SkyScrapperSearchAirport",
        "SkyScrapperFlightSearch",
    ]
    assert calls[2].arguments["destinationSkyId"] == "$var2.skyId$"
    assert len(task.tools) == len({one.name for one in calls}) + 4
