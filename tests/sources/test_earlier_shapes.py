"""The data shapes of earlier systems: told apart, read with every field checked, and every row kept
or counted.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.shape_rows import (
    CASE,
    FACTORIAL,
    FIVE,
    NEWER,
    OTHERS,
    REVERSE,
    SEVEN,
    SHAPES,
    XLAM,
    counted,
    only,
    same_again,
    save,
)
from toolhone.data.task_files import tasks_from_any
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Expect, ExpectedCall, Task, Tool
from toolhone.sources.formats import detect, detect_format, open_source

# --- telling them apart


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_detected_as_its_format(name: str) -> None:
    assert detect(SHAPES[name]) == name


def test_variants_are_told_as_well(tmp_path: Path) -> None:
    assert detect_format(save(tmp_path / "a.jsonl", NEWER)) == "prompt_rows"
    with_messages = {**XLAM, "messages": OTHERS["messages"]["messages"]}
    assert detect(with_messages) == "xlam"
    with pytest.raises(DataError, match="the format was not recognised"):
        detect_format(save(tmp_path / "b.jsonl", {"prompt": "Say hello.", "answer": "Hello."}))


def test_the_examples_of_the_documentation_are_what_they_say(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"```json (\w+)\n(.*?)```", text, re.DOTALL))
    assert examples.keys() >= SHAPES.keys()
    score = {
        "api_name": "getScore",
        "parameters": {"game_id": {"type": "str"}},
        "required": ["game_id"],
        "field": "Sports/Golf",
    }
    save(tmp_path / "tool.jsonl", score)
    for name, example in examples.items():
        path = save(tmp_path / f"{name}.jsonl", json.loads(example))
        loaded = open_source(path, **({"distractors": 0} if name == "seal_tools" else {}))
        assert (detect_format(path), len(loaded.conversations), len(loaded.tasks)) == (
            name,
            1,
            1,
        ), loaded.examples


# --- xLAM


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tools": [FACTORIAL, REVERSE], "answers": json.loads(XLAM["answers"])},
        {"tools": [json.dumps(FACTORIAL), json.dumps(REVERSE)]},
        {"": 17, "messages": None},
        {
            "answers": [
                {"function": {"name": "factorial", "arguments": json.dumps({"n": n})}}
                for n in (5, 7)
            ]
        },
        {
            "answers": [
                {"name": "factorial", "arguments": {"n": n, "unit": None, "radius": None}}
                for n in (5, 7)
            ]
        },
        {
            "tools": [
                {
                    "name": t["name"],
                    "description": t["description"],
                    "parameters": {**t["parameters"], "ip": None},
                }
                for t in (FACTORIAL, REVERSE)
            ]
        },
    ],
)
def test_xlam_columns_mean_the_same_in_every_spelling(tmp_path: Path, changes: Any) -> None:
    loaded = open_source(save(tmp_path / "x.jsonl", {**XLAM, **changes}))
    talk = only(loaded)
    assert (talk.id, talk.messages[0].content) == ("0", XLAM["query"])
    assert talk.tools == only(open_source(save(tmp_path / "y.jsonl", XLAM))).tools
    assert [task.expect for task in loaded.tasks] == [Expect((FIVE, SEVEN))]
    same_again(tmp_path, loaded)


def test_null_padding_of_merged_tables_is_taken_out_and_counted(tmp_path: Path) -> None:
    padded = {**FACTORIAL, "parameters": {**FACTORIAL["parameters"], "radius": None, "ip": None}}
    answers = [
        {"name": "factorial", "arguments": {"n": 5, "radius": None, "ip": None, "unit": None}}
    ]
    loaded = open_source(
        save(tmp_path / "x.jsonl", XLAM, {**XLAM, "tools": [padded], "answers": answers})
    )
    assert loaded.repaired == {"null columns of other tools taken out": 1}
    (tool,), call = (
        loaded.conversations[1].tools,
        loaded.conversations[1].messages[-1].tool_calls[0],
    )
    assert list(tool.parameters["properties"]) == ["n", "unit"]
    assert call.arguments == {"n": 5}
    assert "repaired 1: 1 null columns of other tools taken out" in loaded.summary()


def test_arguments_of_another_type_are_mended_and_counted(tmp_path: Path) -> None:
    answers = [
        {"name": "factorial", "arguments": {"n": "5"}},
        {"name": "reverse", "arguments": {"words": [1, "b"]}},
    ]
    loaded = open_source(save(tmp_path / "x.jsonl", {**XLAM, "answers": answers}))
    assert [call.arguments for call in only(loaded).messages[-1].tool_calls] == [
        {"n": 5},
        {"words": ["1", "b"]},
    ]
    assert loaded.repaired == {"arguments of another type": 1}


def test_a_table_of_a_data_frame_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["", "tools", "answers", "query", "id"])
        rows.writerow([0, XLAM["tools"], XLAM["answers"], 'Two\nlines, and "quotes"', 7])
        rows.writerow([1, XLAM["tools"], XLAM["answers"], "x" * 200_000, ""])
    loaded = open_source(path)
    assert [talk.messages[0].content for talk in loaded.conversations] == [
        'Two\nlines, and "quotes"',
        "x" * 200_000,
    ]
    assert [talk.id for talk in loaded.conversations] == ["7", "train-2"]
    assert str(loaded.places[1]) == f"{path}, row 2"
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query,tools,answers\na,b\n", "row 1: 2 fields, but the first line names 3 columns"),
        ("query,tools,answers\n", "the table has no row"),
        (
            "a,b\n1,2\n",
            "the format was not recognised; its first row has the keys 'a', 'b'; known "
            "formats: xlam",
        ),
        ('query,tools,answers\n"a,b,c\n', "not CSV"),
    ],
)
def test_a_broken_table_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"query": None}, "not an xLAM row", "wanted a text in 'query', got None"),
        ({"tools": "["}, "tools that cannot be read", "'tools' is a string but not JSON"),
        (
            {"answers": "factorial(5)"},
            "an answer that cannot be read",
            "'answers' is a string but not JSON",
        ),
        ({"answers": XLAM["answers"] + " and so on"}, "an answer that cannot be read", "not JSON"),
        (
            {"answers": '[{"name": "factorial", "arguments": {"n": NaN}}]'},
            "an answer that cannot be read",
            "not JSON",
        ),
        (
            {"answers": {"name": "factorial"}},
            "an answer that cannot be read",
            "wanted a list of calls",
        ),
        (
            {"answers": [{"arguments": {}}]},
            "an answer that cannot be read",
            "a tool call needs a 'name'",
        ),
        ({"answers": [{"name": "sum", "arguments": {}}]}, FindingKind.UNKNOWN_TOOL, "'sum'"),
        (
            {"answers": [{"name": "factorial", "arguments": {"n": 6.5}}]},
            FindingKind.BAD_ARGUMENTS,
            "6.5 is not of type 'integer'",
        ),
        (
            {"answers": [{"name": "factorial", "arguments": {"n": None}}]},
            FindingKind.BAD_ARGUMENTS,
            "None is not of type 'integer'",
        ),
        (
            {"answers": [{"name": "factorial", "arguments": {"n": 5, "m": 1}}]},
            FindingKind.UNDECLARED_ARGUMENT,
            "no argument 'm'",
        ),
        (
            {"tools": [FACTORIAL, {**FACTORIAL, "description": "Other."}]},
            FindingKind.TOOL_TWICE,
            "a second, different tool",
        ),
    ],
)
def test_an_xlam_row_whose_calls_do_not_fit_is_counted(
    tmp_path: Path, changes: Any, reason: str, detail: str
) -> None:
    counted(open_source(save(tmp_path / "x.jsonl", XLAM, {**XLAM, **changes})), reason, detail)


def test_a_row_without_answers_is_a_task_that_wants_no_call(tmp_path: Path) -> None:
    loaded = open_source(save(tmp_path / "x.jsonl", XLAM, {**XLAM, "id": 1, "answers": "[]"}))
    assert (len(loaded.conversations), loaded.only_tasks, loaded.kept, loaded.read) == (1, 1, 2, 2)
    assert loaded.tasks[1].expect == Expect(no_call=True)
    assert loaded.summary() == "kept 2 of 2 rows, 1 of them only as tasks"


@pytest.mark.real
def test_the_published_xlam_row_is_read() -> None:
    path = SHARED / "datasets" / "xlam" / "xlam_60k_row.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    loaded = open_source(path)
    assert [call.name for call in only(loaded).messages[-1].tool_calls] == [
        "split_list",
        "binary_search",
    ]
    assert loaded.tasks[0].tools[1].parameters["properties"]["arr"]["items"] == {"type": "integer"}


# --- test cases


def test_a_case_is_a_task_and_a_conversation_with_the_built_in_tools(tmp_path: Path) -> None:
    for prompt in (
        "Human: What is 25 times 4?",
        "What is 25 times 4?",
        " Human:What is 25 times 4?\nAssistant: ",
    ):
        loaded = open_source(save(tmp_path / "c.json", {**CASE, "prompt": prompt}))
        talk = only(loaded)
        assert talk.messages[0].content == "What is 25 times 4?"
        assert [tool.name for tool in talk.tools] == ["calculator", "python", "weather", "search"]
        assert loaded.tasks[0].expect == Expect(
            (ExpectedCall("calculator", {"expression": "25 * 4"}),)
        )
        assert loaded.tasks[0].category == "calculator"
    same_again(tmp_path, loaded)


LOCATED = Tool(
    "weather",
    "",
    {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)
RAIN = {
    "prompt": "Human: Rain in Oslo?",
    "expected_tool": "weather",
    "expected_params": {"location": "Oslo"},
}


def test_the_tools_of_test_cases_can_be_given(tmp_path: Path) -> None:
    path = save(tmp_path / "c.jsonl", RAIN)
    (task,) = open_source(path, tools=[LOCATED]).tasks
    assert (task.tools, task.expect) == (
        (LOCATED,),
        Expect((ExpectedCall("weather", {"location": "Oslo"}),)),
    )
    loaded = open_source(path)
    assert loaded.skipped == {FindingKind.BAD_ARGUMENTS: 1}
    with pytest.raises(DataError, match="the format 'xlam' has no option 'tools'; it has none"):
        open_source(save(tmp_path / "x.jsonl", XLAM), tools=[LOCATED])


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_case_without_a_tool_wants_no_call(tmp_path: Path, nothing: Any) -> None:
    loaded = open_source(
        save(tmp_path / "c.jsonl", {**CASE, "expected_tool": nothing, "expected_params": None})
    )
    assert [task.expect for task in loaded.tasks] == [Expect(no_call=True)]
    assert (loaded.conversations, loaded.only_tasks) == ([], 1)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"prompt": None}, "not a test case", "keys"),
        ({"prompt": "Human: Assistant:"}, "not a test case", "asks nothing"),
        ({"expected_tool": 7}, "not a test case", "expected_tool 7"),
        ({"expected_params": [1]}, "not a test case", "expected_params [1]"),
        ({"expected_tool": None}, "expected_params without an expected_tool", "25 * 4"),
        ({"expected_tool": "calculate"}, FindingKind.UNKNOWN_TOOL, "did you mean 'calculator'?"),
        (
            {"expected_params": {"formula": "1"}},
            FindingKind.BAD_ARGUMENTS,
            "'expression' is a required property",
        ),
        ({"expected_params": {}}, FindingKind.BAD_ARGUMENTS, "'expression' is a required property"),
    ],
)
def test_a_case_that_no_model_could_pass_is_counted(
    tmp_path: Path, changes: Any, reason: str, detail: str
) -> None:
    counted(
        open_source(save(tmp_path / "c.jsonl", CASE, {**CASE, **changes}), "test_cases"),
        reason,
        detail,
    )


# --- tasks from any file


def test_tasks_come_from_our_own_form_or_from_any_shape(tmp_path: Path) -> None:
    own = Task(
        "t",
        expect=Expect(no_call=True),
        messages=open_source(save(tmp_path / "x.jsonl", XLAM)).tasks[0].messages,
    )
    assert tasks_from_any(save(tmp_path / "own.jsonl", own.to_dict())) == [own]
    (tmp_path / "cases.json").write_text(json.dumps([CASE, CASE]))
    assert [task.category for task in tasks_from_any(tmp_path / "cases.json")] == [
        "calculator",
        "calculator",
    ]
    assert [task.tools for task in tasks_from_any(save(tmp_path / "c.jsonl", RAIN), [LOCATED])] == [
        (LOCATED,)
    ]
    assert len(tasks_from_any(save(tmp_path / "x.jsonl", XLAM), [LOCATED])[0].tools) == 2


def test_repeated_ids_of_published_rows_get_a_number(tmp_path: Path) -> None:
    tasks = tasks_from_any(save(tmp_path / "x.jsonl", XLAM, XLAM))
    assert [task.id for task in tasks] == ["0#1", "0#1~2"]


def test_skipped_rows_are_said_or_stop_the_reading(tmp_path: Path) -> None:
    path = save(tmp_path / "c.jsonl", CASE, RAIN)
    with pytest.raises(
        DataError,
        match=(
            r"c\.jsonl: kept 1 of 2 rows; skipped 1: 1 arguments that break the tool's "
            r"schema; for example"
        ),
    ):
        tasks_from_any(path)
    said: list[str] = []
    assert len(tasks_from_any(path, report=said.append)) == 1
    assert "line 2" in said[0]
    with pytest.raises(DataError, match="kept 0 of 1 row"):
        tasks_from_any(save(tmp_path / "d.jsonl", RAIN), report=said.append)
