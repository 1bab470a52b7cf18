"""Tests of `evaluation/score.py`: what a prediction may hold besides its text or calls."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toolhone.cli.main import app
from toolhone.errors import DataError
from toolhone.evaluation.score import score
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool

WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {"city": {}}})
TASK = Task(
    "t",
    (Message("user", "How is it in Rome?"),),
    (WEATHER,),
    Expect(calls=(ExpectedCall("weather", {"city": "Rome"}),)),
)
CALL = {"name": "weather", "arguments": {"city": "Rome"}}


def test_keys_of_predictions_that_are_not_read_are_counted_by_name() -> None:
    notes: list[str] = []
    prediction = {"id": "t", "calls": [CALL], "latency": 3, "notes": "slow", "model": "m", "x": ""}
    result = score([TASK], [prediction], report=notes.append)
    assert result.metrics["exact_match"].value == 1
    assert notes == [
        "keys not read: 'latency' of a prediction (1), 'notes' of a prediction (1); "
        "a prediction has 'id' and 'text' or 'calls'"
    ]


@pytest.mark.parametrize("key", ["tool_calls", "function_call", "toolInvocations"])
def test_calls_under_another_name_are_refused_and_not_scored_as_none(key: str) -> None:
    with pytest.raises(DataError, match=f"{key}.*write its calls as 'calls'"):
        score([TASK], [{"id": "t", "text": "", key: [CALL]}], "json")


def named(name: str) -> Task:
    return replace(TASK, id=name)


def test_a_prediction_that_cannot_be_read_counts_as_wrong_and_is_told() -> None:
    notes: list[str] = []
    calls = {"a": [CALL], "b": [{"name": "weather", "arguments": "{"}], "c": [CALL]}
    predictions = [{"id": name, "calls": made} for name, made in calls.items()]
    result = score([named(name) for name in calls], predictions, report=notes.append)
    assert result.metrics["exact_match"].value == 2 / 3
    assert [note[:48] for note in notes] == ["predictions that cannot be read, and count as wr"]
    with pytest.raises(DataError, match="the prediction 'b'"):
        score([named("b")], predictions[1:2])


def test_bad_rows_of_tasks_and_predictions_are_counted_and_not_the_end(tmp_path: Path) -> None:
    tasks = [json.dumps(named(name).to_dict()) for name in ("a", "b", "c", "d")]
    answers = [json.dumps({"id": name, "calls": [CALL]}) for name in ("a", "b", "c", "d")]
    tasks[0] = tasks[0].replace('"expect"', '"expects"')
    answers[2] = answers[2].replace('"Rome"', "NaN")
    (tmp_path / "tasks.jsonl").write_text("\n".join(tasks))
    (tmp_path / "answers.jsonl").write_text("\n".join(answers))
    files = ["--tasks", str(tmp_path / "tasks.jsonl"), "--predictions"]
    done = CliRunner().invoke(app, ["score", *files, str(tmp_path / "answers.jsonl"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["exact_match"]["value"] == 2 / 3
    said = " ".join(done.stderr.split())
    assert "skipped 1 of 4 rows that are no tasks" in said
    assert "line 1: a task needs 'expect'" in said
    assert "predictions left out, whose tasks cannot be read: 1" in said
    assert "predictions that cannot be read, and count as wrong: 1" in said


@pytest.mark.parametrize(
    "key", ["toolCalls", "functionCall", "function_calls", "message", "output"]
)
def test_a_prediction_without_calls_may_hold_none_elsewhere(key: str) -> None:
    no_call = replace(TASK, expect=Expect(no_call=True))
    with pytest.raises(DataError, match=rf"has '{key}', which is not read"):
        score([no_call], [{"id": "t", "calls": [], key: [CALL]}])
    usage = {"id": "t", "calls": [], "usage": {"tokens": 3}, "category": "x"}
    assert score([no_call], [usage]).samples[0].scores["exact_match"] == 1
