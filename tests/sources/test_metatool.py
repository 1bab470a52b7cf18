"""MetaTool and SVAMP: a choice of tools by name alone, and equations as calls of the calculator."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import ExpectedCall
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.math_problems import expression_of

DATASETS = SHARED / "datasets"
TOOLS = {f"tool{number}": f"Does thing {number}." for number in range(20)}
PROBLEM = {
    "ID": "a-1",
    "Body": "Ann has 7 pears. If she eats 2",
    "Question": "How many are left?",
    "Equation": "( 7.0 - 2.0 )",
    "Answer": 5.0,
    "Type": "Subtraction",
}


def table(folder: Path, *rows: str, tools: Any = TOOLS) -> Path:
    (folder / "plugin_des.json").write_text(json.dumps(tools, indent=1))
    path = folder / "clean.csv"
    path.write_text("Query,Tool\n" + "".join(f"{row}\n" for row in rows))
    return path


def problems(folder: Path, *rows: Any) -> Path:
    path = folder / "s.json"
    path.write_text(json.dumps(list(rows), indent=1))
    return path


# --- MetaTool


def test_a_query_of_the_table_gives_a_task_that_is_right_by_the_name_of_its_tool(
    tmp_path: Path,
) -> None:
    path = table(tmp_path, '"Is it hot, here?",tool3')
    loaded = open_source(path)
    assert (detect_format(path), loaded.conversations, loaded.only_tasks) == ("metatool", [], 1)
    (task,) = loaded.tasks
    assert task.expect.calls == (ExpectedCall("tool3", {}),)
    assert task.messages[0].content == "Is it hot, here?"
    assert len(task.tools) == 10
    assert {tool.name: tool.description for tool in task.tools}["tool3"] == "Does thing 3."


def test_a_query_for_two_tools_expects_both_in_any_order(tmp_path: Path) -> None:
    table(tmp_path)
    path = tmp_path / "multi.json"
    path.write_text(json.dumps([{"query": "Hot and wet?", "tool": ["tool1", "tool2"]}]))
    (task,) = open_source(path, distractors=0).tasks
    assert task.expect.calls == (ExpectedCall("tool1", {}), ExpectedCall("tool2", {}))
    assert (task.expect.order, task.category) == ("any", "several_calls")
    assert sorted(tool.name for tool in task.tools) == ["tool1", "tool2"]


def test_the_tools_on_offer_follow_from_the_seed(tmp_path: Path) -> None:
    path = table(tmp_path, *(f"q{number},tool1" for number in range(5)))
    first = [[tool.name for tool in task.tools] for task in open_source(path, seed=1).tasks]
    assert first == [[tool.name for tool in task.tools] for task in open_source(path, seed=1).tasks]
    assert first != [[tool.name for tool in task.tools] for task in open_source(path, seed=2).tasks]
    assert len({tuple(names) for names in first}) == 5, "each row has its own"


def test_a_tool_that_is_not_described_and_a_row_without_a_question_are_counted(
    tmp_path: Path,
) -> None:
    loaded = open_source(table(tmp_path, "q,tool1", "q,tol1", " ,tool1"), "metatool")
    assert loaded.skipped == {"a tool that is not described": 1, "not a MetaTool row": 1}
    assert "did you mean 'tool1'" in loaded.refused[0].detail


def test_tools_that_are_missing_or_no_descriptions_stop_with_a_sentence(tmp_path: Path) -> None:
    path = table(tmp_path, "q,tool1", tools=[1])
    with pytest.raises(
        DataError, match="wanted one object from the name of each tool to its description"
    ):
        open_source(path)
    (tmp_path / "plugin_des.json").write_text("{")
    with pytest.raises(DataError, match=r"plugin_des\.json: not JSON"):
        open_source(path)
    (tmp_path / "plugin_des.json").unlink()
    with pytest.raises(
        DataError,
        match=r"'plugin_des\.json', which is not beside this file; name it with 'catalogue'",
    ):
        open_source(path)
    (tmp_path / "named.json").write_text(json.dumps(TOOLS))
    assert open_source(path, catalogue=tmp_path / "named.json").kept == 1
    with pytest.raises(
        DataError, match="'distractors' must be between 0 and 19 for this catalogue, got 20"
    ):
        open_source(path, catalogue=tmp_path / "named.json", distractors=20)


# --- SVAMP


def test_a_problem_becomes_one_calculator_call_its_result_and_the_answer(tmp_path: Path) -> None:
    path = problems(tmp_path, PROBLEM)
    loaded = open_source(path)
    assert detect_format(path) == "svamp"
    (talk,) = loaded.conversations
    said = [(message.role, message.content) for message in talk.messages]
    assert said[0] == ("user", "Ann has 7 pears. If she eats 2, how many are left?")
    assert said[1:] == [("assistant", None), ("tool", "5"), ("assistant", "The answer is 5.")]
    assert talk.messages[1].tool_calls[0].arguments == {"expression": "7 - 2"}
    (task,) = loaded.tasks
    assert (task.expect.answer, task.expect.calls, task.category) == ("5", None, "subtraction")
    assert check(loaded.conversations, loaded.places).findings == []


@pytest.mark.parametrize(
    ("equation", "plain"),
    [
        ("( ( 4.0 - 2.0 ) + 3.0 )", "(4 - 2) + 3"),
        ("( 4.0 - 2.0 ) + ( 3.5 * 2.0 )", "(4 - 2) + (3.5 * 2)"),
        ("10.05 / 5.0", "10.05 / 5"),
        ("7.0", "7"),
    ],
)
def test_an_equation_is_written_as_one_would_type_it(equation: str, plain: str) -> None:
    assert expression_of(equation) == plain


def test_problems_that_do_not_hold_are_counted_by_reason(tmp_path: Path) -> None:
    wrong, unreadable = {**PROBLEM, "Answer": 6.0}, {**PROBLEM, "Equation": "x - 2"}
    odd = {**PROBLEM, "Answer": "many"}
    loaded = open_source(problems(tmp_path, PROBLEM, wrong, unreadable, odd), "svamp")
    assert loaded.skipped == {
        "an equation whose value is not the answer": 1,
        "an equation that the calculator cannot compute": 1,
        "not a SVAMP row": 1,
    }
    assert loaded.examples["an equation whose value is not the answer"].endswith(
        "( 7.0 - 2.0 ) gives 5, the answer is 6.0"
    )


def test_each_fixture_is_detected_as_its_format() -> None:
    rows = [
        ("metatool", {"Query": "q", "Tool": "t"}),
        ("metatool", {"query": "q", "tool": ["t"]}),
        ("svamp", PROBLEM),
    ]
    for name, record in rows:
        assert detect(record) == name


# --- the published files


@pytest.mark.real
@pytest.mark.skipif(
    not (DATASETS / "metatool").is_dir(), reason="the MetaTool samples are not here"
)
def test_the_metatool_samples_are_read_and_counted() -> None:
    one = open_source(DATASETS / "metatool" / "all_clean_data.csv.gz")
    assert (one.read, one.only_tasks, len(one.tasks), one.skipped, one.repaired) == (
        2000,
        2000,
        2000,
        Counter(),
        Counter(),
    )
    assert one.tasks[0].expect.calls == (ExpectedCall("ResearchHelper", {}),)
    two = open_source(DATASETS / "metatool" / "multi_tool_query_golden.json")
    assert (two.read, two.only_tasks, len(two.tasks), two.skipped) == (303, 303, 303, Counter())
    assert all(len(task.expect.calls or ()) == 2 for task in two.tasks)


@pytest.mark.real
@pytest.mark.skipif(not (DATASETS / "svamp").is_dir(), reason="the SVAMP sample is not here")
def test_the_svamp_sample_is_read_and_counted() -> None:
    loaded = open_source(DATASETS / "svamp" / "SVAMP.json")
    assert (loaded.read, len(loaded.conversations), len(loaded.tasks)) == (660, 659, 659)
    assert loaded.skipped == {"an equation whose value is not the answer": 1}
    assert loaded.conversations[0].messages[1].tool_calls[0].arguments == {"expression": "76 - 25"}
    assert loaded.tasks[0].expect.answer == "51"
    assert check(loaded.conversations, loaded.places).findings == []
