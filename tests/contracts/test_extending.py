"""The examples of docs/extending.md, run as they stand there, each through an experiment file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolhone import evaluate, open_model, train
from toolhone.api import Model
from toolhone.cli.eval import score
from toolhone.config.experiment import experiment_of
from toolhone.config.sections import Experiment
from toolhone.config.user_code import import_callable
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import ConfigError, DataError, ModelError, UserError
from toolhone.runs.run import Run
from toolhone.schema import Message, Task, ToolCall

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
EXAMPLES = dict(
    re.findall(r"^```python (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
CALL = {"name": "calculator", "arguments": {"expression": "48 * 17"}}
SMALL: dict[str, Any] = {
    "model": {"name": "pico"},
    "data": {"samples": 24},
    "training": {
        "steps": 2,
        "batch_size": 4,
        "lora": None,
        "validation_samples": 3,
        "validate_every": 2,
        "max_length": 320,
    },
    "evaluation": {"num_samples": 3, "max_new_tokens": 8},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "lights.csv").write_text(
        "question,room,on\n"
        + "".join(
            f"Light in room {n}: {w}!,room {n},{w}\n" for n in range(20) for w in ("yes", "no")
        )
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(**sections: dict[str, Any]) -> Experiment:
    names = {*SMALL, *sections}
    return experiment_of(
        {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in names}, "the test"
    )


def trained(experiment: Experiment) -> Run:
    run, ending = train(experiment, "run")
    assert ending == "finished"
    return run


def test_there_is_one_example_of_each_and_each_is_ten_to_thirty_lines() -> None:
    assert set(EXAMPLES) == {"rows.py", "brief.py", "paid.py", "focal.py", "keep.py", "cool.py"}
    for name, text in EXAMPLES.items():
        assert 10 <= len(text.splitlines()) <= 30, name


def test_a_data_source_of_ones_own_is_checked_split_and_trained_on(folder: Path) -> None:
    run = trained(
        plan(data={"format": "rows.py:rows", "path": str(folder / "lights.csv"), "samples": 24})
    )
    report = json.loads((run.folder / "data.json").read_text())
    assert (report["read"], report["kept"]) == (40, 40)
    assert report["train"] + report["held_out"] == 40
    assert report["tasks"] == report["held_out"]


def test_the_example_of_a_metric_tells_silent_calls_from_talking_ones(folder: Path) -> None:
    brief = import_callable("brief.py:brief", folder, "a metric")
    call = ToolCall("calculator", {"expression": "1"})
    turns = [Turn(Message("assistant", text, tool_calls=(call,)), "") for text in (None, "Sure:")]
    assert brief(Task("t"), Episode("t", tuple(turns), ((), ()), EpisodeStatus.ANSWERED)) == 0.5
    assert (
        brief(
            Task("t"),
            Episode("t", (Turn(Message("assistant", "Hi"), ""),), ((),), EpisodeStatus.ANSWERED),
        )
        is None
    )


def test_a_metric_of_ones_own_stands_beside_ours_wherever_a_run_is_evaluated(folder: Path) -> None:
    (folder / "own.py").write_text("def spoke(task, episode): return float(len(episode.turns) > 0)")
    run = trained(plan(evaluation={"metrics": ["brief.py:brief", "own.py:spoke", "exact_match"]}))
    metrics = json.loads((run.folder / "evaluation" / "metrics.json").read_text())["metrics"]
    assert (metrics["spoke"]["value"], metrics["spoke"]["n"]) == (1.0, 3)
    assert [line["spoke"] for line in run.metrics() if line["kind"] == "validation"] == [1.0]
    assert evaluate(open_model("run"), num_samples=2).metrics["spoke"].n == 2


def test_a_reward_of_ones_own_is_logged_with_each_validation(folder: Path) -> None:  # noqa: ARG001
    run = trained(
        plan(training={"rl": {"reward": {"functions": ["paid.py:paid"], "weights": [2.0]}}})
    )
    (validation,) = [line for line in run.metrics() if line["kind"] == "validation"]
    parts = validation["reward/paid.tools"] + validation["reward/paid.spurious"]
    assert validation["reward"] == pytest.approx(2 * parts)


def test_a_reward_of_ones_own_is_paid_for_answers_made_anywhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {
        "id": "t",
        "messages": [{"role": "user", "content": "48 * 17?"}],
        "tools": [],
        "expect": {"calls": [CALL]},
    }
    (folder / "tasks.jsonl").write_text(json.dumps(task))
    (folder / "answers.jsonl").write_text(json.dumps({"id": "t", "calls": [CALL, CALL, CALL]}))
    score(folder / "tasks.jsonl", folder / "answers.jsonl", reward=["paid.py:paid"], as_jsonl=True)
    line = json.loads(capsys.readouterr().out)
    assert line == {"id": "t", "reward": 0.6, "parts": {"paid.tools": 1.0, "paid.spurious": -0.4}}


def test_a_loss_of_ones_own_is_trained_with_and_logged(folder: Path) -> None:  # noqa: ARG001
    run = trained(plan(training={"loss": "focal.py:focal", "log_every": 1}))
    lines = [line for line in run.metrics() if line["kind"] == "train"]
    assert all(0 < line["own_loss"] < line["loss"] for line in lines)
    assert all(0 < line["own/doubt"] <= 1 for line in lines)


def test_an_algorithm_of_ones_own_trains_and_leaves_a_run_that_opens(folder: Path) -> None:  # noqa: ARG001
    run = trained(plan(training={"method": "keep.py:keep_best"}))
    assert [line["step"] for line in run.metrics() if line["kind"] == "train"] == [1, 2]
    assert isinstance(open_model("run"), Model)


def test_a_model_class_of_ones_own_trains_what_it_adds_and_opens_again(folder: Path) -> None:  # noqa: ARG001
    trained(plan(model={"model_class": "cool.py:load"}))
    engine = open_model("run").sampler._engine
    assert type(engine.model).__name__ == "CoolQwen"
    assert not engine.split
    assert float(engine.model.coolness.detach().abs()) > 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "def mine(t, rows, held_out, run, hooks, resume): return None",
            r"must return a TrainStatus .* it returned None",
        ),
        (
            "from toolhone.training.loop import TrainStatus\n"
            "def mine(t, rows, held_out, run, hooks, resume): return TrainStatus.FINISHED",
            "finished without a checkpoint",
        ),
    ],
)
def test_an_algorithm_must_say_how_it_ended_and_leave_a_model(
    folder: Path, code: str, said: str
) -> None:
    (folder / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=said):
        train(plan(training={"method": "mine.py:mine"}), "run")


def test_two_metrics_of_one_name_are_refused(folder: Path) -> None:
    (folder / "other.py").write_text("def brief(task, episode): return 0.0")
    with pytest.raises(ConfigError, match="two functions named 'brief'"):
        train(plan(evaluation={"metrics": ["brief.py:brief", "other.py:brief"]}), "run")


@pytest.mark.parametrize(
    ("sections", "code", "error", "said"),
    [
        (
            {"data": {"format": "x.py:rows"}},
            "def rows(path): return [1]",
            DataError,
            "row 1: wanted a Conversation or a mapping",
        ),
        (
            {"data": {"format": "x.py:rows"}},
            "def rows(path): return 5",
            DataError,
            "wanted rows .* got a int",
        ),
        (
            {"data": {"format": "x.py:rows"}},
            "def rows(path): return []",
            DataError,
            "it gave no row",
        ),
        (
            {"data": {"format": "x.py:rows"}},
            "def rows(path): return [{'messages': []}]",
            DataError,
            "row 1: 'messages' must be",
        ),
        (
            {"data": {"format": "x.py:rovs"}},
            "def rows(path): return []",
            ConfigError,
            r"no function 'rovs' \(did you mean 'rows'",
        ),
        (
            {"model": {"model_class": "x.py:load"}},
            "def load(n, d): return 5",
            ModelError,
            "must give a transformers .* gave a int",
        ),
        (
            {"model": {"model_class": "x.py:load"}},
            "import torch\ndef load(n, d): return torch.nn.Linear(1, 1)",
            ModelError,
            "Linear without get_input_embeddings",
        ),
        (
            {"evaluation": {"metrics": ["x.py:m"]}},
            "def m(t, e): return 7",
            ConfigError,
            "metric 'm' must give a number in .0, 1.",
        ),
        (
            {"evaluation": {"metrics": ["exact_mach"]}},
            "",
            ConfigError,
            "did you mean 'exact_match'",
        ),
        (
            {"training": {"rl": {"reward": {"functions": ["x.py:r"]}}}},
            "def r(t, e): return {'a': float('nan')}",
            ConfigError,
            "part 'a' of the reward 'r' must be a finite number",
        ),
        (
            {"training": {"method": "x.py"}},
            "def f(): ...",
            ConfigError,
            "'x.py' names no function; functions: f",
        ),
        (
            {"training": {"method": "x.py:f"}},
            "1 / 0",
            ConfigError,
            r"x.py cannot be imported: ZeroDivisionError.*line 1",
        ),
        ({"training": {"method": "no.such:f"}}, "", ConfigError, "there is no module 'no.such'"),
    ],
)
def test_a_mistake_in_own_code_gets_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, Any],
    code: str,
    error: type[UserError],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text(code)
    with pytest.raises(error, match=said) as caught:
        train(plan(**sections), "run")
    assert "\n" not in str(caught.value)


def test_paths_of_own_code_in_a_file_are_relative_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolhone.config.experiment import load_experiment

    (folder / "e.json").write_text(
        json.dumps({"evaluation": {"metrics": ["brief.py:brief", "exact_match"]}})
    )
    monkeypatch.chdir("/")
    assert load_experiment(folder / "e.json").evaluation.metrics == [
        f"{folder}/brief.py:brief",
        "exact_match",
    ]


def test_a_model_of_transformers_is_still_cut_before_its_head() -> None:
    engine = open_model("pico").sampler._engine
    assert engine.split
