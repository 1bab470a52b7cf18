"""The SFT array: rows are checked when they are read, and right when they are written."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.shape_rows import SFT, counted, only, same_again, save
from toolhone.cli.main import main
from toolhone.data.sft_array_writer import (
    NO_MARK,
    NOT_COMPOSED,
    REPEATED,
    UNEXPLAINED,
    SftRows,
    apportion,
    compose,
    read_shares,
    unexplained,
    write_array,
)
from toolhone.errors import DataError, RunError
from toolhone.schema import Expect, ExpectedCall
from toolhone.sources.formats import open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.sft_array import as_number
from toolhone.tools.builtin import calculator, python

CALC: dict[str, Any] = {
    **SFT,
    "category": "calculator",
    "tool_needed": True,
    "tool": "calculator",
    "tool_args": {"expression": "48 + 48/2"},
    "prompt": "How many clips?",
    "expected_answer": "72",
}
CODE: dict[str, Any] = {
    **CALC,
    "category": "python_exec",
    "tool": "python",
    "tool_args": {"code": "for i in range(2):\n    print(i, 'x')"},
    "prompt": "Run it.",
    "expected_answer": "0 x\n1 x",
}
SHARES = {"calculator": 0.25, "python_exec": 0.25, "no_tool": 0.5}


def array(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return path


# --- reading


def test_each_category_becomes_a_conversation_with_both_tools_on_offer(tmp_path: Path) -> None:
    loaded = open_source(
        array(tmp_path / "s.json", CALC, {**CODE, "id": "a2"}, {**SFT, "id": "a3"})
    )
    assert (len(loaded.conversations), loaded.skipped.total(), loaded.noted.total()) == (3, 0, 0)
    assert {tuple(tool.name for tool in talk.tools) for talk in loaded.conversations} == {
        ("calculator", "python")
    }
    called = [talk.messages[1].tool_calls for talk in loaded.conversations]
    assert [(call.name, call.arguments) for calls in called for call in calls] == [
        ("calculator", CALC["tool_args"]),
        ("python", CODE["tool_args"]),
    ]
    assert loaded.conversations[2].messages[1].content == SFT["expected_answer"]
    assert [task.expect for task in loaded.tasks] == [
        Expect((ExpectedCall("calculator", CALC["tool_args"]),)),
        Expect((ExpectedCall("python", CODE["tool_args"]),)),
        Expect(no_call=True),
    ]
    assert [task.category for task in loaded.tasks] == ["calculator", "python_exec", "no_tool"]
    assert {talk.source for talk in loaded.conversations} == {"own"}
    same_again(tmp_path, loaded)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"prompt": " "}, "not a row of this shape", "wanted a text in 'prompt'"),
        (
            {"category": "weather"},
            "not a row of this shape",
            "known: calculator, python_exec, no_tool",
        ),
        ({"expected_answer": [72]}, "not a row of this shape", "expected_answer must be"),
        ({"metadata": {"tolerance": -1}}, "not a row of this shape", "metadata.tolerance"),
        ({"metadata": {"tolerance": True}}, "not a row of this shape", "metadata.tolerance"),
        (
            {"tool_needed": False},
            "category, tool_needed and tool contradict each other",
            "tool_needed False",
        ),
        (
            {"tool_needed": 1},
            "category, tool_needed and tool contradict each other",
            "tool_needed 1",
        ),
        (
            {"tool": "python"},
            "category, tool_needed and tool contradict each other",
            "tool 'python'",
        ),
        ({"tool": None}, "category, tool_needed and tool contradict each other", "tool None"),
        (
            {"category": "python_exec"},
            "category, tool_needed and tool contradict each other",
            "category 'python_exec'",
        ),
        (
            {"category": "no_tool", "tool_needed": False, "tool": None},
            "tool_args that are not those of the tool",
            "no tool, but tool_args",
        ),
        (
            {"tool_args": None},
            "tool_args that are not those of the tool",
            "wanted {'expression': a text}, got None",
        ),
        (
            {"tool_args": {"code": "1"}},
            "tool_args that are not those of the tool",
            "wanted {'expression'",
        ),
        (
            {"tool_args": {"expression": "1", "code": "1"}},
            "tool_args that are not those of the tool",
            "wanted {'expression'",
        ),
        (
            {"tool_args": {"expression": " "}},
            "tool_args that are not those of the tool",
            "wanted {'expression'",
        ),
        (
            {"tool_args": {"expression": "48 plus"}},
            "an expression that the calculator cannot compute",
            "48 plus",
        ),
        (
            {"tool_args": {"expression": "48*2"}},
            "an expression whose value is not the expected answer",
            "'48*2' gives 96, expected is 72",
        ),
        (
            {"expected_answer": "1,072"},
            "an expression whose value is not the expected answer",
            "gives 72, expected is 1,072",
        ),
        (
            {"expected_answer": "72.02", "metadata": {"tolerance": 0.01}},
            "an expression whose value is not the expected answer",
            "gives 72",
        ),
        ({**CODE, "tool_args": {"code": "print('"}}, "code that is not Python", "print("),
        (
            {**CODE, "expected_answer": "0 x"},
            "code whose output is not the expected answer",
            "expected is '0 x'",
        ),
    ],
)
def test_a_row_that_contradicts_itself_is_counted(
    tmp_path: Path, changes: Any, reason: str, detail: str
) -> None:
    counted(
        open_source(array(tmp_path / "s.json", CALC, {**CALC, **changes}), "sft_array"),
        reason,
        detail,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expected_answer": 72},
        {"expected_answer": "$72.00"},
        {"expected_answer": "72.005", "metadata": {"tolerance": 0.01}},
        {"expected_answer": "seventy-two"},
        {"expected_answer": None},
        {"tool_args": {"expression": "2**400"}, "expected_answer": str(2**400)},
        {**CODE, "expected_answer": "0 x \n1 x\n"},
        {**CODE, "tool_args": {"code": "0.1 + 0.2"}, "expected_answer": "0.3"},
    ],
)
def test_a_row_that_agrees_with_itself_is_kept(tmp_path: Path, changes: Any) -> None:
    loaded = open_source(array(tmp_path / "s.json", {**CALC, **changes}))
    only(loaded)
    assert loaded.noted.total() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {
            "tool_args": {"code": "import numpy\nprint(numpy.zeros(2))"},
            "expected_answer": "[0. 0.]",
        },
        {"expected_answer": None},
        {"expected_answer": "x" * 1001},
    ],
)
def test_code_that_could_not_be_checked_is_kept_and_counted(tmp_path: Path, changes: Any) -> None:
    loaded = open_source(array(tmp_path / "s.json", {**CODE, **changes}))
    only(loaded)
    assert loaded.noted == {"code whose output was not compared with the expected answer": 1}
    assert loaded.summary() == (
        "kept 1 of 1 row; kept unchecked 1: 1 "
        f"{'code whose output was not compared with the expected answer'}"
    )


def test_a_row_without_tool_and_answer_is_only_a_task(tmp_path: Path) -> None:
    loaded = open_source(array(tmp_path / "s.json", {**SFT, "expected_answer": ""}))
    assert (loaded.conversations, loaded.only_tasks) == ([], 1)
    assert loaded.tasks[0].expect == Expect(no_call=True)


def test_numbers_and_texts_are_distinguished() -> None:
    assert [
        as_number(text) for text in ("1,072", "$18", "-.5", "3.", "18%", "1,07", "", "nan", "1e5")
    ] == [
        *(Decimal(1072), Decimal(18), Decimal("-0.5"), Decimal(3)),
        *(None, None, None, None, None),
    ]


# --- one expression from a solution


@pytest.mark.parametrize(
    ("steps", "question", "expression"),
    [
        ([("48/2", "24"), ("48+24", "72")], "48 clips, then half as many", "48+(48/2)"),
        ([("2+3", "5"), ("5*4", "20")], "2 and 3, times 4", "(2+3)*4"),
        ([("5+5", "10"), ("10+10", "20")], "He has 10 and buys 5 and 5", "(5+5)+10"),
        ([("5+5", "10"), ("10*10", "100")], "5 and 5, squared", "(5+5)*(5+5)"),
        ([("10/3", "3.33333333333"), ("3.33*2", "6.66")], "10 in 3 parts, 2 of them", "(10/3)*2"),
        ([("500*2", "1000"), ("1,000*3", "3000")], "500 twice, 3 times", "(500*2)*3"),
        ([("50+50", "100"), ("20/100*80", "16")], "50 and 50; 20% of 80", "20/100*80"),
        ([("2*2", "4"), ("4+4.5+14", "22.5")], "2, 4.5 and 14", "(2*2)+4.5+14"),
        ([("2+2", "4"), ("1*4", "4"), ("4*3", "12")], "2 and 2, once, 3 times", "(1*(2+2))*3"),
        ([("7*2", "14")], "7 twice", "7*2"),
    ],
)
def test_results_are_replaced_by_what_gave_them(steps: Any, question: str, expression: str) -> None:
    assert compose(steps, question) == expression


@pytest.mark.parametrize(
    ("expression", "question", "missing"),
    [
        ("48+(48/2)", "48 clips in April", []),
        ("(12-3)*10", "12 eggs of 10 ounces in 4 boxes", [3]),
        ("145-115", "145 balls, twenty of them soccer balls", [115]),
        ("3*7*52", "three a day, every week of the year", []),
        ("0.2*80+(1-0.2)", "20% of 80", []),
        ("1.5*80/100", "half as many again as 80", []),
        ("(2/3)*90 + 0.75*8", "2/3 of 90 and 3/4 of 8", []),
        ("1,200/12", "$1200 in twelve months", []),
        ("3.5*2", "5 hours, 3 of them", [Decimal("3.5")]),
    ],
)
def test_a_number_that_the_question_does_not_give_is_found(
    expression: str, question: str, missing: list[Any]
) -> None:
    assert unexplained(expression, question) == missing


# --- writing


def problem(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": answer}


GSM = [
    problem(
        "Natalia sold 48 clips in April and half as many in May. How many?",
        "<<48/2=24>>\n<<48+24=72>>\n#### 72",
    ),
    problem(
        "Weng earns $12 an hour. She worked 50 minutes. How much?",
        "<<12/60=0.2>>\n<<0.2*50=10>>\n#### 10",
    ),
    problem("Betty has 5 boxes of 4 pens. How many pens?", "<<5*4=20>>\n#### 20"),
    problem("Betty has 5 boxes of 4 pens. How many pens?", "<<4*5=20>>\n#### 20"),
    problem(
        "Tom has 145 balls, twenty red and the rest blue but ten. How many blue?",
        "<<145-115=30>>\n#### 30",
    ),
    problem("A pie costs $3. How much are 10 pies and a cake of $5?", "<<3*10=30>>\n#### 35"),
    problem("How many days has a week?", "Seven.\n#### 7"),
]


@pytest.fixture(scope="module")
def gsm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("gsm") / "train.jsonl", *GSM)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sft") / "sft.json"
    write_array(path, SftRows(seed=1).rows(200, SHARES).rows)
    return path


@pytest.fixture(scope="module")
def rows(written: Path) -> list[dict[str, Any]]:
    return list(json.loads(written.read_text(encoding="utf-8")))


def test_the_shares_are_exact_and_no_prompt_occurs_twice(rows: list[dict[str, Any]]) -> None:
    counts = {category: sum(row["category"] == category for row in rows) for category in SHARES}
    assert counts == {"calculator": 50, "python_exec": 50, "no_tool": 100}
    assert len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert len({row["category"] for row in rows[:20]}) == 3, "the rows are shuffled"


def test_every_expected_answer_is_what_the_tool_gives(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["category"] == "calculator":
            assert str(calculator(**row["tool_args"])) == row["expected_answer"]
        elif row["category"] == "python_exec":
            assert python(**row["tool_args"]).strip() == row["expected_answer"]
        else:
            assert (row["tool_needed"], row["tool"], row["tool_args"]) == (False, None, None)


def test_question_and_arguments_come_from_the_same_draw(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for text in (row["tool_args"] or {}).values():
            fillers = [
                *re.findall(r"'(\w+)'", text),
                *re.findall(r"(?<!\w)\d+(?!\w)", re.sub(r"\[::-1\]|/ 100|\+ 1\)", "", text)),
            ]
            assert fillers, text
            assert [filler for filler in fillers if filler not in row["prompt"]] == [], row


def test_what_is_written_is_read_back_whole(written: Path, rows: list[dict[str, Any]]) -> None:
    loaded = open_source(written)
    assert (len(loaded.conversations), loaded.skipped.total(), loaded.noted.total()) == (
        200,
        0,
        0,
    ), loaded.examples
    for row, talk in zip(rows, loaded.conversations, strict=True):
        calls = talk.messages[1].tool_calls
        assert (talk.id, talk.messages[0].content) == (row["id"], row["prompt"])
        assert [(call.name, call.arguments) for call in calls] == (
            [(row["tool"], row["tool_args"])] if row["tool"] else []
        )


def test_a_seed_decides_everything(rows: list[dict[str, Any]], gsm: Path) -> None:
    assert SftRows(seed=1).rows(200, SHARES).rows == rows
    assert SftRows(seed=2).rows(200, SHARES).rows != rows
    chosen = {
        tuple(row["id"] for row in SftRows(seed).rows(2, {"calculator": 1.0}, gsm).rows)
        for seed in range(8)
    }
    assert len(chosen) > 2
    assert SftRows(5).rows(2, {"calculator": 1.0}, gsm) == SftRows(5).rows(
        2, {"calculator": 1.0}, gsm
    )


def test_a_solution_becomes_one_expression_that_computes_the_answer(gsm: Path) -> None:
    written = SftRows().rows(3, {"calculator": 1.0}, gsm)
    found = {
        row["id"]: (row["tool_args"]["expression"], row["expected_answer"]) for row in written.rows
    }
    assert found.pop("gsm8k-train-1") == ("48+(48/2)", "72")
    assert found.pop("gsm8k-train-2") == ("(12/60)*50", "10")
    assert found.popitem()[1][1] == "20"
    assert {row["source"] for row in written.rows} == {"gsm8k"}


def test_too_few_usable_rows_are_one_sentence_and_the_others_are_counted(gsm: Path) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"train\.jsonl: 3 rows can be used as calculator rows, but 4 are wanted; ask for "
            r"fewer"
        ),
    ):
        SftRows().rows(4, {"calculator": 1.0}, gsm)
    tried = [SftRows(seed).rows(3, {"calculator": 1.0}, gsm).skipped for seed in range(20)]
    looked_at_all = {NOT_COMPOSED: 1, UNEXPLAINED: 1, REPEATED: 1, NO_MARK: 1}
    assert looked_at_all in tried, "three rows are kept, four are counted"


def test_rows_are_apportioned_by_largest_remainder() -> None:
    assert apportion(10, SHARES) == {"calculator": 3, "python_exec": 2, "no_tool": 5}
    assert apportion(100, {"calculator": 0.29, "no_tool": 0.71}) == {
        "calculator": 29,
        "python_exec": 0,
        "no_tool": 71,
    }
    assert all(
        sum(apportion(n, {"calculator": 1 / 3, "python_exec": 1 / 3, "no_tool": 1 / 3}).values())
        == n
        for n in range(20)
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("calculator=0.5", "must add up to 1, got 'calculator=0.5', which makes 0.5"),
        (
            "calculater=1",
            r"unknown category 'calculater' \(did you mean 'calculator'\?\); known: "
            r"calculator, python_exec, no_tool",
        ),
        ("calculator=x", "needs one number between 0 and 1 for 'calculator', got 'calculator=x'"),
        ("calculator=0.5,calculator=0.5", "needs one number between 0 and 1 for 'calculator'"),
        ("calculator=-1,no_tool=2", "needs one number between 0 and 1"),
        ("calculator=nan,no_tool=1", "needs one number between 0 and 1"),
        ("", "must add up to 1"),
    ],
)
def test_wrong_shares_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_shares(text)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(RunError, match="the file was not written"):
        write_array(tmp_path / "a" / "b.json", [])


def test_data_build_writes_the_array_into_a_file_or_a_folder(
    tmp_path: Path, gsm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toolhone", "data", "build", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(str(end.value.code)), out, err

    shares = "calculator=0.25, python_exec=0.25, no_tool=0.5"
    common = ("--shape", "sft-array", "--rows", 8, "--shares", shares, "--seed", 3, "--gsm8k", gsm)
    code, out, err = build(*common, "--out", tmp_path / "folder", "--json")
    assert (code, json.loads(out)) == (0, {str(tmp_path / "folder" / "sft_array.json"): 8})
    assert err.startswith("2 calculator, 2 python_exec, 4 no_tool")
    assert build(*common, "--out", tmp_path / "file.json")[0] == 0
    assert (tmp_path / "file.json").read_bytes() == (
        tmp_path / "folder" / "sft_array.json"
    ).read_bytes()
    code, _, err = build("--gsm8k", gsm, "--out", tmp_path / "x")
    assert (code, "--gsm8k is for --shape sft-array" in err) == (2, True)


@pytest.mark.real
def test_most_published_solutions_become_one_expression() -> None:
    path = SHARED / "datasets" / "gsm8k" / "test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    written = SftRows().rows(450, {"calculator": 1.0}, path)
    loaded: Loaded = open_source(path, "gsm8k")
    answers = {f"gsm8k-{task.id}": task.expect.answer for task in loaded.tasks}
    assert [row["id"] for row in written.rows if row["expected_answer"] != answers[row["id"]]] == []
    assert [
        row["id"]
        for row in written.rows
        if unexplained(row["tool_args"]["expression"], row["prompt"])
    ] == []
