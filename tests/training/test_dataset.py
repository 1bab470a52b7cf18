"""What `toolhone.training.dataset` promises of files: each is opened once, to detect and read."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from toolhone.config.experiment import make_experiment
from toolhone.data.task_files import tasks_from_any
from toolhone.doctor.reading import read_file
from toolhone.sources.files import write_jsonl
from toolhone.sources.formats import open_source
from toolhone.training.dataset import load_data

TOOL = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def user(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"How is the weather in town {number}?"}


def call(number: int, name: str = "weather") -> dict[str, Any]:
    return {"name": name, "arguments": {"city": f"town {number}"}}


def conversation(number: int) -> dict[str, Any]:
    reply = {"role": "assistant", "content": None, "tool_calls": [call(number)]}
    return {"id": f"r{number}", "messages": [user(number), reply], "tools": [TOOL]}


def task(number: int) -> dict[str, Any]:
    expect = {"calls": [call(number)]}
    return {"id": f"t{number}", "messages": [user(number)], "tools": [TOOL], "expect": expect}


def pair(number: int) -> dict[str, Any]:
    chosen = {"role": "assistant", "content": None, "tool_calls": [call(number)]}
    rejected = {"role": "assistant", "content": "I do not know."}
    sides = {"prompt": [user(number)], "chosen": [chosen], "rejected": [rejected]}
    return {"id": f"p{number}", "tools": [TOOL], **sides}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the files that are opened, by name."""
    counts: Counter[str] = Counter()
    real = builtins.open

    def counting(file: Any, *args: Any, **options: Any) -> Any:
        counts[Path(str(file)).name] += 1
        return real(file, *args, **options)

    monkeypatch.setattr(builtins, "open", counting)
    return counts


def save(path: Path, make: Any) -> Path:
    write_jsonl(path, [make(number) for number in range(24)])
    return path


@pytest.mark.parametrize(
    ("method", "make", "name"),
    [
        ("sft", conversation, "rows.jsonl"),
        ("sft", conversation, "rows.jsonl.gz"),
        ("dpo", pair, "rows.jsonl"),
        ("grpo", task, "rows.jsonl"),
        ("grpo", conversation, "rows.jsonl"),
    ],
)
def test_a_file_to_train_on_is_opened_once(
    method: str, make: Any, name: str, tmp_path: Path, opened: Counter[str]
) -> None:
    data = {"path": str(save(tmp_path / name, make))}
    plan = {"model": {"name": "pico"}, "data": data, "training": {"method": method}}
    opened.clear()
    dataset = load_data(make_experiment(plan, "the test"))
    assert len(dataset.play if make is task else dataset.train) + len(dataset.tasks) == 24
    assert opened[name] == 1


def test_a_held_out_file_is_opened_once(tmp_path: Path, opened: Counter[str]) -> None:
    data = {
        "path": str(save(tmp_path / "train.jsonl", conversation)),
        "validation": str(save(tmp_path / "held_out.jsonl", lambda one: conversation(one + 100))),
    }
    opened.clear()
    dataset = load_data(make_experiment({"model": {"name": "pico"}, "data": data}, "the test"))
    assert (len(dataset.train), len(dataset.held_out)) == (24, 24)
    assert (opened["train.jsonl"], opened["held_out.jsonl"]) == (1, 1)


def test_each_file_of_a_folder_is_opened_once(tmp_path: Path, opened: Counter[str]) -> None:
    names = [f"{number}.jsonl" for number in range(14)]
    for name in names:
        save(tmp_path / name, conversation)
    opened.clear()
    assert open_source(tmp_path).kept == 14 * 24
    assert [opened[name] for name in names] == [1] * 14


def test_tasks_and_files_for_the_doctor_are_opened_once(
    tmp_path: Path, opened: Counter[str]
) -> None:
    tasks, rows = save(tmp_path / "tasks.jsonl", task), save(tmp_path / "rows.jsonl", conversation)
    opened.clear()
    assert len(tasks_from_any(tasks)) == len(read_file(rows).cases) == 24
    assert (opened["tasks.jsonl"], opened["rows.jsonl"]) == (1, 1)
