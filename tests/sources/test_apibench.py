"""APIBench and OpenFunctions v1: calls written as Python code, read without running them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.doctor.checks import check
from toolhone.schema import ExpectedCall, Tool, ToolCall
from toolhone.sources.catalogue import repair_call
from toolhone.sources.formats import ABOUT, detect, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.text_calls import BEHIND, CODE, PLACE, NoCode, read_code

DATASETS = SHARED / "datasets"


def save(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(
    call: str,
    code: str = "###Instruction: I want a cat finder.\n###Output: <<<domain>>>: x",
    provider: str = "Hub",
) -> Any:
    return {"code": code, "api_call": call, "provider": provider, "api_data": {}}


def question(answer: str, **schemas: Any) -> Any:
    parameters = {"type": "object", "properties": schemas, "required": []}
    function = {
        "name": "Cat Finder",
        "api_call": "cat.find",
        "description": "Finds cats.",
        "parameters": parameters,
    }
    return {"question": "Where is my cat?", "function": function, "model_answer": answer}


def counts(loaded: Loaded) -> tuple[int, int, int, Counter[str], Counter[str]]:
    return loaded.read, loaded.kept, len(loaded.tasks), loaded.repaired, loaded.skipped


# --- calls as code


def test_code_is_read_as_calls_with_literals_and_keeps_what_is_no_literal_as_text() -> None:
    written, repairs = read_code("hub.load('a/b', trainable=use_it, size=[1, 2], **{'k': None})")
    (call,) = written
    assert call.call(["handle"]) == ToolCall(
        "hub.load", {"handle": "a/b", "trainable": "use_it", "size": [1, 2], "k": None}
    )
    assert repairs == {CODE}


def test_code_inside_an_argument_ends_where_its_own_brackets_and_strings_end() -> None:
    written, _ = read_code("f(m=G.load('a), (b', n=[1]), t=torch.float16, w=-x)")
    assert written[0].call().arguments == {
        "m": "G.load('a), (b', n=[1])",
        "t": "torch.float16",
        "w": "-x",
    }


def test_a_value_without_a_name_takes_the_name_of_its_place_unless_that_is_given() -> None:
    written, repairs = read_code("load(repo='a', 'second', model='third')")
    assert written[0].call(["repo", "model"]).arguments == {
        "value_2": "second",
        "repo": "a",
        "model": "third",
    }
    assert repairs == {PLACE}
    assert read_code("f(1, 2)")[0][0].call(["x"]).arguments == {"x": 1, "value_2": 2}
    assert read_code("f(1, 2)")[1] == set()


def test_several_calls_and_text_behind_them_are_told_apart() -> None:
    written, repairs = read_code("a.b(1), c('x').eval()")
    assert ([call.name for call in written], repairs) == (["a.b", "c"], {BEHIND})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "load-it --repo=a",
        "f(",
        "f(a=1",
        "f(a=, b=1)",
        "f(a=1, a=2)",
        "f(**x)",
        "f('a' 'b",
        "[1]",
        "f(,)",
    ],
)
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(NoCode):
        read_code(text)


def test_long_code_with_open_quotes_is_read_in_linear_time() -> None:
    with pytest.raises(NoCode):
        read_code("f(a=" + "x'" * 100_001)


def test_a_name_in_another_spelling_and_a_single_value_for_a_list_are_mended() -> None:
    tool = Tool(
        "f",
        "",
        {
            "type": "object",
            "properties": {"sort_by": {"type": "string"}, "tags": {"type": "array"}},
        },
    )
    call, repairs = repair_call(ToolCall("f", {"sortBy": "x", "tags": "a"}), [tool])
    assert call.arguments == {"sort_by": "x", "tags": ["a"]}
    assert repairs == {
        "an argument's name in another spelling",
        "a single value where a list is declared",
    }
    assert repair_call(call, [tool]) == (call, set())
    both = ToolCall("f", {"sortBy": "x", "sort_by": "y"})
    assert repair_call(both, [tool])[0] == both, "two names for one parameter are not put together"
    assert repair_call(ToolCall("g", {"sortBy": 1}), [tool]) == (
        ToolCall("g", {"sortBy": 1}),
        set(),
    )


# --- APIBench


def test_a_wish_of_either_style_becomes_a_conversation_and_a_task(tmp_path: Path) -> None:
    first = (
        "{'Instruction': Find my cat's face., 'Output': {'domain': 'x', 'api_call': \"load('a')\"}}"
    )
    second = "### Instruction: Find a dog.\n### Output: <<<domain>>>: x"
    path = save(
        tmp_path / "a.json",
        row("hub.load('cat/1')", first),
        row("hub.load('dog/1', trainable=True)", second),
    )
    loaded = open_source(path)
    assert detect_format(path) == "apibench"
    assert [talk.messages[0].content for talk in loaded.conversations] == [
        "Find my cat's face.",
        "Find a dog.",
    ]
    assert loaded.conversations[1].messages[1].tool_calls == (
        ToolCall("hub.load", {"handle": "dog/1", "trainable": True}),
    )
    assert loaded.tasks[0].expect.calls == (ExpectedCall("hub.load", {"handle": "cat/1"}),)
    assert check(loaded.conversations, loaded.places).findings == []


def test_the_parameters_of_a_function_are_those_of_all_its_calls(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.json",
        row("hub.load('a')"),
        row("hub.load('b', flag=True)"),
        row("hub.load('c', flag='x')"),
    )
    (tool,) = open_source(path).conversations[0].tools
    assert tool.parameters["properties"] == {
        "handle": {"type": "string"},
        "flag": {"type": ["boolean", "string"]},
    }
    assert tool.parameters["required"] == ["handle"]
    assert tool.description == "A Python function of Hub."


def test_a_wish_may_stand_without_an_output_and_with_its_input(tmp_path: Path) -> None:
    alone = row("f('a')", "###Instruction: Find a cat.")
    given = row("f('a')", "###Instruction: Translate this.\n###Input: Bonjour\n###Output: x")
    said = row("f('a')", '###Instruction: Translate "Bonjour".\n###Input: "Bonjour"\n###Output: x')
    told = [
        talk.messages[0].content
        for talk in open_source(save(tmp_path / "a.json", alone, given, said)).conversations
    ]
    assert told == ["Find a cat.", "Translate this.\nBonjour", 'Translate "Bonjour".']


def test_rows_without_a_call_or_a_wish_are_counted_by_reason(tmp_path: Path) -> None:
    broken = {**row("x"), "api_call": 3}
    loaded = open_source(
        save(
            tmp_path / "a.json", row("f('a')"), row("load-it --x"), row("f(1)", "Output: x"), broken
        ),
        "apibench",
    )
    assert loaded.skipped == {
        "a target that is no Python call": 1,
        "a row without an instruction": 1,
        "not an APIBench row": 1,
    }
    assert (loaded.read, len(loaded.conversations), len(loaded.refused)) == (4, 1, 3)


# --- OpenFunctions


def test_an_openfunctions_row_gives_a_task_under_the_name_that_is_called(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.json",
        question("cat.find(name='Tom', days=2)", name={"type": "string"}, days={"type": "integer"}),
    )
    loaded = open_source(path)
    assert (detect_format(path), loaded.conversations, loaded.only_tasks) == (
        "openfunctions",
        [],
        1,
    )
    assert ABOUT["openfunctions"].only_tasks
    (task,) = loaded.tasks
    assert task.expect.calls == (ExpectedCall("cat.find", {"name": "Tom", "days": 2}),)
    assert (task.tools[0].name, task.tools[0].description) == (
        "cat.find",
        "Cat Finder: Finds cats.",
    )


def test_an_openfunctions_answer_is_mended_where_one_thing_can_be_meant(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.json",
        question("cat.find('Tom', tags='red')", name={"type": "string"}, tags={"type": "array"}),
    )
    loaded = open_source(path)
    assert loaded.tasks[0].expect.calls == (
        ExpectedCall("cat.find", {"name": "Tom", "tags": ["red"]}),
    )
    assert loaded.repaired == {"a single value where a list is declared": 1}
    word = open_source(
        save(tmp_path / "b.json", question("cat.find(name=Tom)", name={"type": "string"}))
    )
    assert (word.tasks[0].expect.calls, word.repaired) == (
        (ExpectedCall("cat.find", {"name": "Tom"}),),
        {CODE: 1},
    )


def test_openfunctions_rows_that_contradict_themselves_are_counted(tmp_path: Path) -> None:
    rows = [
        question("cat.find(name='x')", name={"type": "string", "enum": ["a"]}),
        question("cat.find(size=1)", name={"type": "string"}),
        question("dog.find()"),
        question("somewhere"),
        {**question("cat.find()"), "function": "cat"},
        {**question("cat.find()"), "question": ""},
    ]
    loaded = open_source(save(tmp_path / "a.json", *rows), "openfunctions")
    assert loaded.skipped == {
        "arguments that break the tool's schema": 1,
        "an argument that the tool does not declare": 1,
        "a call of a tool that is not on offer": 1,
        "an answer that cannot be read": 1,
        "tools that cannot be read": 1,
        "not an OpenFunctions row": 1,
    }


def test_each_fixture_is_detected_as_its_format() -> None:
    for name, record in (("apibench", row("f()")), ("openfunctions", question("cat.find()"))):
        assert detect(record) == name


# --- the published files


@pytest.mark.real
@pytest.mark.skipif(
    not (DATASETS / "apibench").is_dir(), reason="the APIBench samples are not here"
)
def test_the_apibench_samples_are_read_and_counted() -> None:
    place, code = PLACE, CODE
    folder = DATASETS / "apibench"
    assert counts(open_source(folder / "torchhub_train.json.gz")) == (
        837,
        837,
        837,
        Counter({place: 63, code: 19}),
        Counter(),
    )
    assert counts(open_source(folder / "torchhub_eval.json.gz")) == (
        100,
        100,
        100,
        Counter({place: 7}),
        Counter(),
    )
    assert counts(open_source(folder / "tensorflow_eval.json.gz")) == (
        250,
        250,
        250,
        Counter({code: 5}),
        Counter(),
    )
    hub = open_source(folder / "huggingface_eval.json.gz")
    assert counts(hub) == (
        250,
        248,
        248,
        Counter({code: 10, BEHIND: 1}),
        Counter({"a target that is no Python call": 2}),
    )
    assert check(hub.conversations, hub.places).findings == []
    calls = {task.id: task.expect.calls for task in hub.tasks}
    first = ExpectedCall(
        "AutoModel.from_pretrained", {"pretrained_model_name_or_path": "rasa/LaBSE"}
    )
    assert calls["huggingface_eval-1#1"] == (first,)
    assert [call.name for call in calls["huggingface_eval-91#1"] or ()] == [
        "TapasForQuestionAnswering.from_pretrained",
        "TapasTokenizer.from_pretrained",
    ]


@pytest.mark.real
@pytest.mark.skipif(
    not (DATASETS / "apibench").is_dir(), reason="the APIBench samples are not here"
)
def test_the_openfunctions_sample_is_read_and_counted() -> None:
    loaded = open_source(DATASETS / "apibench" / "gorilla_openfunctions_v1_test.json")
    repaired, skipped = (
        Counter({"a single value where a list is declared": 1, CODE: 1}),
        Counter({"arguments that break the tool's schema": 1}),
    )
    assert counts(loaded) == (112, 111, 111, repaired, skipped)
    assert loaded.tasks[0].expect.calls == (
        ExpectedCall(
            "coffee_shop.find_nearby", {"location": "San Francisco", "amenities": ["Wi-Fi"]}
        ),
    )
