"""ToolRL's rows and its test files, Bamboogle, and Parquet files of any format."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.doctor.checks import check
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Expect, ExpectedCall, Message, Tool
from toolhone.sources.files import read_records
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.loaded import Loaded

DATASETS = SHARED / "datasets" / "toolrl"
KNOT = '{"kind": {"type": "str", "default": ""}, "turns": {"type": "int"}}'
KNOTS = f"Name: Tie Knot (any)\nDescription: Ties a knot.\nParameters: {KNOT}"
ROPES = (
    'Name: ropes\nDescription: Ropes there are.\nParameters: {"sizes": {"type": '
    '"List[int]", "default": []}}'
)
FORMAT = (
    "\n\n**Steps for Each Turn**\n1. **Think:** Think.\n\n**Output Format**\n<think> ... "
    "</think>\n<tool_call>\n{...}\n</tool_call>"
)


def instruction(*tools: str) -> str:
    listed = "\n".join(f"{number}. {tool}" for number, tool in enumerate(tools, start=1))
    return f"You are a sailor.\n\n**Available Tools**\nUse these tools:\n{listed}{FORMAT}"


def dialogue(*blocks: tuple[str, str], stars: str = "**") -> str:
    return f"{stars}Dialogue Records History**\n" + "\n\n".join(
        f"<{name}> {text} </{name}>" for name, text in blocks
    )


def call(name: str, **parameters: Any) -> str:
    return json.dumps({"name": name, "parameters": parameters})


def row(target: str, history: str = "", tools: tuple[str, ...] = (KNOTS, ROPES)) -> dict[str, Any]:
    return {
        "instruction": instruction(*tools),
        "input": history or dialogue(("user", "A bowline, twice?")),
        "output": target,
    }


CALLS = "\n".join([call("ropes", sizes=[8]), call("Tie Knot (any)", kind="bowline", turns=2)])
GOOD = f"<think> Tie it. </think>\n<tool_call>\n{CALLS}\n</tool_call>"


def read(tmp_path: Path, *rows: Any, name: str = "toolrl") -> Loaded:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert detect_format(path) == name
    assert detect(rows[0]) == name
    loaded = open_source(path)
    check(loaded.conversations, "rows.json").raise_if_any()
    return loaded


def test_a_row_becomes_the_dialogue_with_its_target_and_one_task(tmp_path: Path) -> None:
    history = dialogue(
        ("user", "Ropes?"),
        ("think", "I look."),
        ("tool_call", call("ropes")),
        ("obs", "[8, 10]"),
        ("response", "8 and 10 mm."),
        ("user", "A bowline?"),
    )
    loaded = read(tmp_path, row(GOOD, history))
    (talk,) = loaded.conversations
    assert [(m.role, m.content) for m in talk.messages] == [
        ("system", "You are a sailor."),
        ("user", "Ropes?"),
        ("assistant", None),
        ("tool", "[8, 10]"),
        ("assistant", "8 and 10 mm."),
        ("user", "A bowline?"),
        ("assistant", None),
    ]
    assert (talk.messages[2].reasoning, talk.messages[-1].reasoning) == ("I look.", "Tie it.")
    assert talk.messages[3].tool_call_id == talk.messages[2].tool_calls[0].id
    assert dict(talk.tools[1].parameters["properties"]) == {
        "sizes": {"type": "array", "items": {"type": "integer"}, "default": []}
    }
    (task,) = loaded.tasks
    expected = (
        ExpectedCall("ropes", {"sizes": [8]}),
        ExpectedCall("Tie Knot (any)", {"kind": "bowline", "turns": 2}),
    )
    assert (task.expect, len(task.messages)) == (Expect(expected), 6)
    assert loaded.repaired == Counter(
        {"steps and format description taken out of the instruction": 1}
    )


def test_a_thought_begins_a_turn_of_its_own(tmp_path: Path) -> None:
    blocks = [
        ("user", "a"),
        ("response", "b"),
        ("think", "c"),
        ("tool_call", call("ropes")),
        ("obs", "d"),
        ("user", "e"),
    ]
    loaded = read(tmp_path, row(GOOD, dialogue(*blocks)))
    said = loaded.conversations[0].messages[2]
    assert (said.content, said.reasoning, len(said.tool_calls)) == ("b", "c", 1)
    assert loaded.repaired[ASSISTANTS] == 1


def test_a_reply_without_a_call_expects_none(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, row("<think> No tool sails. </think>\n<response> I cannot. </response>")
    )
    assert [task.expect for task in loaded.tasks] == [Expect(no_call=True)]
    assert loaded.conversations[0].messages[-1] == Message(
        "assistant", "I cannot.", "No tool sails."
    )


@pytest.mark.parametrize(
    ("written", "arguments", "repair"),
    [
        (call("ropes", sizes="[8, 10]"), {"sizes": [8, 10]}, "arguments of another type"),
        (call("Tie Knot (any)", turns="2"), {"turns": 2}, "arguments of another type"),
        (
            '{"name": "Tie Knot ", "parameters": {"any)(kind": "bowline", "turns": 1}}',
            {"kind": "bowline", "turns": 1},
            "a call name cut in two at a bracket",
        ),
    ],
)
def test_what_the_data_set_broke_is_mended_where_one_thing_is_meant(
    tmp_path: Path, written: str, arguments: Any, repair: str
) -> None:
    loaded = read(tmp_path, row(f"<think> a </think>\n<tool_call>\n{written}\n</tool_call>"))
    assert dict(loaded.conversations[0].messages[-1].tool_calls[0].arguments) == arguments
    assert loaded.repaired == Counter(
        {"steps and format description taken out of the instruction": 1, repair: 1}
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(GOOD.replace("[8]", '"[8"')), FindingKind.BAD_ARGUMENTS),
        (row(GOOD.replace('"ropes"', '"rope"')), FindingKind.UNKNOWN_TOOL),
        (
            row("<think> a </think>\n<tool_call>\n{oops}\n</tool_call>"),
            "a call that cannot be read",
        ),
        (row("<think> a </think>"), "a call that cannot be read"),
        (row(""), "a target that is neither a call nor a reply"),
        (row("Just text."), "a dialogue that is not a sequence of tagged turns"),
        (row("<user> a </user>"), "a dialogue that is not a sequence of tagged turns"),
        (row(GOOD, dialogue(("user", "a"), ("obs", "b"))), FindingKind.RESULT_WITHOUT_CALL),
        (
            row(
                GOOD,
                dialogue(
                    ("tool_call", call("ropes")), ("think", "b"), ("response", "c"), ("user", "d")
                ),
            ),
            FindingKind.CALL_WITHOUT_RESULT,
        ),
        (row(GOOD, tools=(KNOTS, KNOTS.replace("int", "quux"))), "tools that cannot be read"),
        (row(GOOD, tools=(KNOTS, "nothing")), "tools that cannot be read"),
        (row(GOOD, tools=(KNOTS, ROPES, ROPES.replace("int", "str"))), FindingKind.TOOL_TWICE),
        ({**row(GOOD), "input": None}, "not a ToolRL row"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, bad: Any, reason: str
) -> None:
    assert read(tmp_path, row(GOOD), bad).skipped == Counter({reason: 1})


# --- API-Bank in ToolRL's form, and Bamboogle

BOOK = (
    "Book: Books a berth.\nParameters: {'name': {'type': 'str'}, 'nights': {'type': 'int'}, "
    "'guests': {'type': 'list(str)'}}"
)


def bank(answer: Any, tool: str = BOOK) -> dict[str, Any]:
    history = dialogue(
        ("user", "A berth."),
        ("response", "Name?"),
        ("response", "Please."),
        ("user", "Ann."),
        ("user", "One call."),
        stars="***",
    )
    return {
        "system": instruction(tool),
        "user": history,
        "answer": answer,
        "other": {"file": "Book-level-2-1.jsonl"},
    }


def test_api_bank_gives_tasks_and_asks_for_no_parameter_the_answer_leaves_out(
    tmp_path: Path,
) -> None:
    loaded = read(
        tmp_path,
        bank([{"name": "Book", "parameters": {"name": "Ann", "guests": "['Bo']"}}]),
        name="toolrl_api_bank",
    )
    (task,) = loaded.tasks
    assert (loaded.conversations, loaded.only_tasks, task.category) == ([], 1, "level_2")
    assert [(m.role, m.content) for m in task.messages[1:]] == [
        ("user", "A berth."),
        ("assistant", "Name?\n\nPlease."),
        ("user", "Ann.\n\nOne call."),
    ]
    assert task.expect == Expect((ExpectedCall("Book", {"name": "Ann", "guests": ["Bo"]}),))
    assert task.tools[0].parameters["required"] == ["name", "guests"]
    assert (
        loaded.repaired["a parameter that the right call leaves out, made optional"]
        == loaded.repaired["arguments of another type"]
        == 1
    )
    assert (
        loaded.repaired["two turns of the user in a row joined"]
        == loaded.repaired["two turns of the assistant in a row joined"]
        == 1
    )


def test_an_answer_that_no_model_could_give_is_refused(tmp_path: Path) -> None:
    one = bank({"name": "Book", "parameters": {"name": "Ann"}})
    rows = [
        one,
        bank([]),
        bank({"name": "Cancel", "parameters": {}}),
        bank({"name": "Book", "parameters": {"nights": "two"}}),
        bank(7),
    ]
    loaded = read(tmp_path, *rows, name="toolrl_api_bank")
    assert loaded.only_tasks == 1
    assert loaded.skipped == Counter(
        {
            "an answer without a call": 1,
            FindingKind.UNKNOWN_TOOL: 1,
            FindingKind.BAD_ARGUMENTS: 1,
            "not a row of ToolRL's API-Bank": 1,
        }
    )


def test_bamboogle_asks_for_an_answer_with_the_tools_one_gives(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps(
            [
                {"Question": "Which sea is at Oslo?", "Answer": "Skagerrak"},
                {"Question": " ", "Answer": "x"},
            ]
        )
    )
    loaded = open_source(path, tools=[Tool("look_up")])
    assert [(task.expect, task.tools[0].name) for task in loaded.tasks] == [
        (Expect(answer="Skagerrak"), "look_up")
    ]
    assert loaded.skipped == Counter({"a row without a question and an answer": 1})


# --- Parquet


def test_parquet_is_read_as_json_lines_are(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    prompt = [
        {"role": "system", "content": instruction(KNOTS, ROPES)},
        {"role": "user", "content": dialogue(("user", "Tie!"))},
    ]
    made = {
        "prompt": prompt,
        "reward_model": {"ground_truth": GOOD, "style": "rule"},
        "score": float("nan"),
    }
    path = tmp_path / "rows.bin"
    parquet.write_table(pyarrow.Table.from_pylist([made, {**made, "score": 0.5}]), path)
    assert [(str(line), record["score"]) for line, record in read_records(path)] == [
        (f"{path}, row 1", None),
        (f"{path}, row 2", 0.5),
    ]
    loaded = open_source(path)
    assert (detect_format(path), len(loaded.conversations), len(loaded.tasks)) == ("toolrl", 2, 2)
    image = {**made, "image": b"\x89PNG", "score": 0.5}
    parquet.write_table(pyarrow.Table.from_pylist([image]), path)
    assert open_source(path).unread == {"'image' of a row": 1, "'score' of a row": 1}


def test_without_pyarrow_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1....PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError,
        match=(
            r"rows\.parquet: this is a Parquet file; to read it: python -m pip "
            r"install 'pyarrow>=17'"
        ),
    ):
        list(read_records(path))


# --- the published files

FLAT = {
    "steps and format description taken out of the instruction": 238,
    "a default of another type left out": 151,
    "arguments of another type": 35,
    "null columns of other tools taken out": 1,
    "a call name cut in two at a bracket": 1,
}
USERS, ASSISTANTS = (
    "two turns of the user in a row joined",
    "two turns of the assistant in a row joined",
)
REAL: dict[str, tuple[str, int, int, int, dict[str, int], dict[str, int]]] = {
    "rlla_sft.json.gz": (
        "toolrl",
        254,
        238,
        229,
        FLAT,
        {
            FindingKind.BAD_ARGUMENTS: 13,
            FindingKind.UNKNOWN_TOOL: 1,
            FindingKind.UNDECLARED_ARGUMENT: 1,
            FindingKind.TOOL_TWICE: 1,
        },
    ),
    "rlla_4k_test.parquet": (
        "toolrl",
        80,
        72,
        69,
        {
            "steps and format description taken out of the instruction": 72,
            "a default of another type left out": 45,
            "arguments of another type": 12,
            "a call name cut in two at a bracket": 2,
        },
        {FindingKind.BAD_ARGUMENTS: 8},
    ),
    "api_bank_level-1_processed.json.gz": (
        "toolrl_api_bank",
        148,
        145,
        145,
        {
            "steps and format description taken out of the instruction": 145,
            USERS: 44,
            "arguments of another type": 23,
            "a parameter that the right call leaves out, made optional": 5,
            ASSISTANTS: 1,
        },
        {FindingKind.BAD_ARGUMENTS: 2, FindingKind.UNDECLARED_ARGUMENT: 1},
    ),
    "api_bank_level-2_processed.json": (
        "toolrl_api_bank",
        28,
        25,
        25,
        {
            "steps and format description taken out of the instruction": 25,
            ASSISTANTS: 17,
            "arguments of another type": 2,
        },
        {FindingKind.UNKNOWN_TOOL: 3},
    ),
    "api_bank_level-3_processed.json": (
        "toolrl_api_bank",
        61,
        61,
        61,
        {
            "steps and format description taken out of the instruction": 61,
            USERS: 21,
            "arguments of another type": 29,
        },
        {},
    ),
    "bamboogle.json": ("bamboogle", 125, 125, 125, {}, {}),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_with_these_counts(name: str) -> None:
    path = DATASETS / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    form, rows, kept, tasks, repaired, refused = REAL[name]
    assert detect_format(path) == form
    loaded = open_source(path)
    assert (loaded.read, loaded.kept, len(loaded.tasks)) == (rows, kept, tasks)
    assert (loaded.repaired, loaded.skipped) == (Counter(repaired), Counter(refused))
    check(loaded.conversations, name).raise_if_any()


@pytest.mark.real
def test_published_rows_mean_what_they_say() -> None:
    path = DATASETS / "rlla_sft.json.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    first = open_source(path).conversations[0]
    assert dict(first.messages[-1].tool_calls[0].arguments) == {"name": "Alex Ferguson"}
    assert (first.messages[-1].tool_calls[0].name, len(first.tools)) == ("Search Managers", 5)
    third_level = open_source(DATASETS / "api_bank_level-3_processed.json").tasks[1]
    assert [message.role for message in third_level.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert third_level.expect.calls is not None
    assert third_level.expect.calls[0].arguments["recipient"] == "tom@example.com"
