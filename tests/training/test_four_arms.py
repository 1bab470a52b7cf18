"""The four ways to prepare the same rows (`benchmarks/four_arms.py`): what tells their data apart,
what the doctor says of each.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from toolhone.cli.main import main
from toolhone.dialects.choose import open_dialect
from toolhone.doctor.checks import WHOLE_FILE
from toolhone.doctor.diagnose import DataVerdict, Diagnosis, diagnose
from toolhone.doctor.reading import read_file
from toolhone.errors import FindingKind
from toolhone.evaluation.folder import read_folder
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.sources.files import write_jsonl
from toolhone.sources.messages import read_conversations
from toolhone.tokenizer import TextTokenizer

ROWS = 60
PLANTED = {
    "MERGED": 6,
    "MERGED_CALLS": 6,
    "AS_TEXT": 6,
    "DUPLICATE": 3,
    "SPELLING": 2,
    "UNKNOWN": 1,
}


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "four_arms.py"
    spec = importlib.util.spec_from_file_location("four_arms", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["four_arms"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


four_arms: Any = load()
Arm, Fault = four_arms.Arm, four_arms.Fault


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return four_arms.Files.make(tmp_path_factory.mktemp("arms") / "seed-0", ROWS, 0)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.load(pico_folder())


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def said(files: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((files.folder / "doctor.json").read_text("utf-8"))
    return told


def flagged(diagnosis: Diagnosis, *kinds: FindingKind) -> set[int]:
    return {
        found.row
        for found in diagnosis.findings.findings
        if found.kind in kinds and found.row != WHOLE_FILE
    }


def rows_of(arm: Any, files: Any, tokenizer: TextTokenizer) -> list[Row]:
    plan = four_arms.setting(None, ROWS, 2).plan(0, arm).training
    rows: list[Row] = four_arms.rows_of(arm, files, plan, tokenizer, open_dialect(tokenizer))
    return rows


def test_the_same_seed_gives_the_same_rows_with_as_many_faults_as_the_shares_say() -> None:
    rows, faults = four_arms.native_rows(ROWS, 0)
    assert (rows, faults) == four_arms.native_rows(ROWS, 0)
    assert Counter(fault.name for fault in faults if fault is not None) == PLANTED
    assert all(len(row["tools"]) == 1 for row in rows)
    several = [row for row in rows if len(row["messages"][1]["tool_calls"]) > 1]
    assert 0.15 * ROWS < len(several) < 0.55 * ROWS


def test_typed_rows_are_the_native_ones_with_their_calls_as_text_and_slips_in_few(
    files: Any,
) -> None:
    native, typed, well = (records(files.of(arm)) for arm in (Arm.ALL, Arm.TYPED, Arm.TYPED_WELL))
    for one, two, three in zip(native, typed, well, strict=True):
        assert one["messages"][0] == two["messages"][0] == three["messages"][0]
        assert one["tools"] == two["tools"]
        assert set(two["messages"][1]) == {"role", "content"}
        bodies = [json.dumps(call["function"]) for call in one["messages"][1]["tool_calls"]]
        assert three["messages"][1]["content"] == "\n".join(
            f"<tool_call>{body}</tool_call>" for body in bodies
        )
    slipped = [one for one, two in zip(typed, well, strict=True) if one != two]
    assert 1 <= len(slipped) <= 0.25 * ROWS


def test_typed_tags_become_control_tokens_and_every_token_is_trained(
    files: Any, tokenizer: TextTokenizer
) -> None:
    mark = tokenizer.control_id("<tool_call>")
    for row, record in zip(
        rows_of(Arm.TYPED, files, tokenizer), records(files.of(Arm.TYPED)), strict=True
    ):
        assert row.mask[1:].all()
        assert row.tokens.tolist().count(mark) == record["messages"][1]["content"].count(
            "<tool_call>"
        )


def test_arms_two_and_three_differ_in_what_is_trained_and_in_nothing_else(
    files: Any, tokenizer: TextTokenizer
) -> None:
    everything, completion = (
        rows_of(Arm.ALL, files, tokenizer),
        rows_of(Arm.COMPLETION, files, tokenizer),
    )
    assert len(everything) == len(completion) == ROWS
    for one, two in zip(everything, completion, strict=True):
        assert one.tokens.tolist() == two.tokens.tolist()
        assert one.mask[1:].all()
        assert tokenizer.decode(two.tokens[two.mask].tolist()).startswith("<tool_call>")


def test_faults_reach_the_tokens_of_the_first_three_arms_and_not_those_of_the_last(
    files: Any, tokenizer: TextTokenizer
) -> None:
    texts = {
        arm: [tokenizer.decode(row.tokens.tolist()) for row in rows_of(arm, files, tokenizer)]
        for arm in Arm
    }
    for arm in (Arm.TYPED, Arm.TYPED_WELL, Arm.ALL, Arm.COMPLETION):
        assert (
            sum("null" in text for text in texts[arm])
            == PLANTED["MERGED"] + PLANTED["MERGED_CALLS"]
        ), arm
        assert sum("expression?" in text for text in texts[arm]) == PLANTED["MERGED"], arm
        assert (
            sum("_tool" in text.replace("tool_call", "") for text in texts[arm])
            == PLANTED["UNKNOWN"]
        ), arm
    assert not any("null" in text or "expression?" in text for text in texts[Arm.CLEANED])
    assert sum('"arguments": "{' in text for text in texts[Arm.TYPED]) == PLANTED["AS_TEXT"]


def test_the_doctor_flags_every_typed_row_and_train_refuses_them(tmp_path: Path) -> None:
    rows, _ = four_arms.native_rows(30, 0, faults={})
    path = tmp_path / "typed.jsonl"
    write_jsonl(path, four_arms.typed_rows(rows, 0, slipped=0.5))
    found = diagnose([read_file(path)])
    assert flagged(found, FindingKind.TYPED_CALL, FindingKind.STRAY_MARK) == set(range(30))
    assert flagged(found, FindingKind.TYPED_CALL)
    assert flagged(found, FindingKind.STRAY_MARK)
    assert found.exit_code == 1
    assert "tool_calls" in four_arms.refusal(path)


def test_the_command_line_stops_before_training_with_exit_code_1(
    files: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["toolhone", "doctor", "--data", str(files.of(Arm.TYPED)), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == DataVerdict.STOP
    assert (
        told["counts"][FindingKind.TYPED_CALL.value] + told["counts"][FindingKind.STRAY_MARK.value]
        == ROWS
    )


def test_the_doctor_finds_what_was_planted_in_the_native_rows_and_nothing_else(files: Any) -> None:
    _, faults = four_arms.native_rows(ROWS, 0)
    found = diagnose([read_file(files.of(Arm.COMPLETION))])
    expected = {
        (FindingKind.NULL_PADDING,): (Fault.MERGED, Fault.MERGED_CALLS),
        (FindingKind.UNREADABLE,): (Fault.MERGED,),
        (FindingKind.ARGUMENTS_AS_TEXT,): (Fault.AS_TEXT,),
        (FindingKind.DUPLICATE_ROW,): (Fault.DUPLICATE,),
        (FindingKind.UNKNOWN_TOOL,): (Fault.SPELLING, Fault.UNKNOWN),
    }
    for kinds, planted in expected.items():
        assert flagged(found, *kinds) == {
            row for row, fault in enumerate(faults) if fault in planted
        }, kinds
    about_rows = {one.kind for one in found.findings.findings if one.row != WHOLE_FILE}
    assert about_rows == {kind for kinds in expected for kind in kinds}


def test_the_doctor_only_remarks_on_native_rows_without_faults(tmp_path: Path) -> None:
    rows, _ = four_arms.native_rows(30, 0, faults={})
    path = tmp_path / "native.jsonl"
    write_jsonl(path, rows)
    found = diagnose([read_file(path)])
    assert found.verdict is DataVerdict.REMARKS
    assert set(found.findings.counts) == {FindingKind.ONLY_CALLS, FindingKind.ONE_TOOL}
    assert four_arms.refusal(path) == ""


def test_cleaning_accounts_for_every_row_and_train_takes_what_is_left(files: Any) -> None:
    told = said(files)
    dropped = PLANTED["DUPLICATE"] + PLANTED["UNKNOWN"]
    repaired = PLANTED["MERGED"] + PLANTED["MERGED_CALLS"] + PLANTED["SPELLING"]
    wanted = {
        "read": ROWS,
        "kept": ROWS - dropped - repaired,
        "repaired": repaired,
        "dropped": dropped,
    }
    assert told["cleaned.jsonl"] == {"verdict": DataVerdict.REMARKS, "train": "", **wanted}
    assert len(read_conversations(files.of(Arm.CLEANED))) == ROWS - dropped
    assert all(
        told[name]["exit_code"] == 1 and told[name]["train"]
        for name in ("typed.jsonl", "typed_well.jsonl", "native.jsonl")
    )
    typed = told["typed_cleaned.jsonl"]
    assert (typed["kept"], typed["repaired"] + typed["dropped"], typed["train"]) == (0, ROWS, "")


def test_held_out_tasks_want_calls_of_their_one_tool_and_no_answer() -> None:
    tasks = four_arms.held_out(12, 0)
    assert len({task.id for task in tasks}) == 12
    assert Counter(task.tools[0].name for task in tasks) == dict.fromkeys(
        ("calculator", "python", "weather", "search"), 3
    )
    assert all(
        len(task.tools) == 1 and task.expect.calls and task.expect.answer is None for task in tasks
    )


def test_two_steps_of_two_arms_leave_scores_and_a_table(files: Any) -> None:
    tasks = four_arms.held_out(2, 0)
    for arm in (Arm.TYPED, Arm.CLEANED):
        four_arms.run_arm(arm, 0, files, four_arms.setting(None, ROWS, 2), tasks)
        assert len(read_folder(files.folder / arm / "evaluation").samples) == 2
    lines = four_arms.table(files.folder.parent).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["typed", "cleaned"]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
