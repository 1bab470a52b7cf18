"""What `toolhone.training.dataset` promises of files: each is opened once, to detect and read."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from toolhone.config.experiment import make_experiment
from toolhone.data.task_files import tasks_from_any
from toolhone.data.templates import Templates
from toolhone.doctor.reading import read_file
from toolhone.sources.files import write_jsonl
from toolhone.sources.formats import open_source
from toolhone.tools.loading import tools_of
from toolhone.training.dataset import held_out_tasks, load_data

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


def plain(number: int) -> dict[str, Any]:
    return {"messages": conversation(number)["messages"]}


@pytest.mark.parametrize(
    "data",
    [
        {"path": "rows.jsonl"},
        {"path": "rows.jsonl", "split": "tools"},
        {"samples": 20},
        {"strategy": "manual_templates", "samples": 20},
    ],
    ids=["file", "by tools", "templates", "manual templates"],
)
def test_another_seed_keeps_what_is_held_out_and_another_split_seed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [conversation(number) for number in range(40)]
    for number, row in enumerate(rows):
        row["tools"] = [{**row["tools"][0], "name": f"weather{number % 8}"}]
        for message in row["messages"]:
            for one in message.get("tool_calls", []):
                one["name"] = f"weather{number % 8}"
    write_jsonl("rows.jsonl", rows)

    def held_out(seed: int, split_seed: int) -> list[Any]:
        values = {"tools": ["weather"], "seed": seed, "data": {**data, "split_seed": split_seed}}
        loaded = load_data(make_experiment(values, "the test"))
        return [loaded.held_out, loaded.tasks]

    assert held_out(1, 0) == held_out(2, 0)
    assert held_out(1, 0) != held_out(1, 5)


@pytest.mark.parametrize("tools", [["weather"], ["weather", "calculator"]])
def test_rows_without_tools_take_the_experiments_and_are_counted(
    tmp_path: Path, tools: list[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    none = {"messages": [user(90), {"role": "assistant", "content": "Hi"}]}
    write_jsonl(path, [*map(plain, range(9)), conversation(9), {**none, "tools": []}])
    loaded = load_data(make_experiment({"tools": tools, "data": {"path": str(path)}}, "the test"))
    names = Counter(len(one.tools) for one in (*loaded.train, *loaded.held_out))
    assert names == Counter({len(tools): 9}) + Counter({1: 1}) + Counter({0: 1})
    assert loaded.report["repaired"] == {"rows without tools, which take the experiment's": 9}
    assert "repaired 9: 9 rows without tools" in loaded.summary()


def test_tasks_without_tools_take_those_on_offer_and_are_counted(tmp_path: Path) -> None:
    rows = [{k: v for k, v in task(n).items() if k != "tools"} for n in range(3)]
    write_jsonl(tmp_path / "tasks.jsonl", [*rows, {**task(3), "tools": []}])
    offered, notes = tools_of(make_experiment({"tools": ["weather"]}, "the test")), list[str]()
    found = tasks_from_any(tmp_path / "tasks.jsonl", offered, notes.append)
    assert [len(one.tools) for one in found] == [1, 1, 1, 0]
    assert notes == ["3 of 4 tasks have no tools, and take the experiment's"]


@pytest.mark.parametrize("data", [{"samples": 600}, {"max_samples": 90}])
def test_the_tasks_of_a_template_run_are_found_with_few_rows(
    data: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sft, grpo = (
        make_experiment({"data": data, "training": {"method": method}}, "the test")
        for method in ("sft", "grpo")
    )
    wanted, made = load_data(sft).tasks, list[int]()
    monkeypatch.setattr(Templates, "conversations", lambda _, n, *__: made.append(n) or [])
    assert held_out_tasks(grpo) == wanted
    assert sum(made) <= 400


def test_data_without_a_call_are_said_to_teach_none(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"messages": [{**talk[0], "content": f"Hi {n}"}, talk[1]]} for n in range(9)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    loaded = load_data(
        make_experiment({"data": {"path": str(tmp_path / "rows.jsonl")}}, "the test")
    )
    assert "no row calls a tool" in loaded.summary()


@pytest.mark.parametrize("world", ["simulated", "replay"])
def test_made_rows_that_are_played_with_invented_results_expect_calls_and_no_answer(
    world: str,
) -> None:
    plan = {
        "data": {"samples": 30},
        "training": {"method": "grpo", "rl": {"reward": {"functions": ["tool_use"]}}},
        "world": {"name": world},
    }
    data = load_data(make_experiment({"model": {"name": "pico"}, **plan}, "the test"))
    assert len(data.play) > 10
    for one in [*data.play, *data.tasks]:
        assert one.expect.answer is None
        assert (one.world or {}).get("name") == world
