"""SFT and RL with JSON answers: what its two trainings print, save and measure."""

from __future__ import annotations

import json
import re

import pytest

from earlier.conftest import SHORT, Shell
from toolhone.config.experiment import load_experiment

RATES = ("valid_json", "correct_format", "correct_tool")


def checkpoints(shell: Shell, run: str) -> set[str]:
    return {path.name for path in (shell.folder / run / "checkpoints").iterdir()}


def test_sft_reports_validates_and_saves_at_its_intervals(shell: Shell, json_run: str) -> None:
    assert re.findall(r"Iteration (\d)/4 \| Loss:? \d+\.\d+", json_run) == list("1234")
    assert re.findall(r"Validation at (\d)", json_run) == ["2", "4"]
    assert checkpoints(shell, "runs/sft-json") >= {
        "checkpoint_step_2",
        "checkpoint_step_4",
        "final_checkpoint",
    }


def test_validation_shows_valid_json_correct_format_and_correct_tool(
    shell: Shell, json_run: str
) -> None:
    lines = [line for line in json_run.splitlines() if line.startswith("Validation at")]
    assert all(f"{name} 0." in line for name in RATES for line in lines)
    logged = [each for each in shell.lines("runs/sft-json/metrics.jsonl") if "valid_format" in each]
    assert logged
    assert all(any(key.endswith(name) for key in each) for name in RATES for each in logged)


@pytest.mark.usefixtures("json_run")
def test_a_checkpoint_is_evaluated_by_name_and_samples_are_shown(shell: Shell) -> None:
    said = shell(
        f"eval runs/sft-json --checkpoint checkpoint_step_2 --num_samples 2 --out runs/e {SHORT}"
    )
    assert said.count("query:") >= 2
    account = json.loads((shell.folder / "runs/e/metrics.json").read_text())
    assert account["n"] == 2
    assert set(RATES) <= set(account["familiar"]["json_answers"])
    said = shell("eval runs/sft-json --checkpoint checkpoint_step_300", code=2)
    assert all(name in said for name in ("checkpoint_step_4", "final_checkpoint"))


def test_ppo_goes_on_from_the_sft_run_and_logs_rewards_by_part(shell: Shell, ppo_run: str) -> None:
    logged = [each for each in shell.lines("runs/ppo-json/metrics.jsonl") if "staleness" in each]
    assert [each["step"] for each in logged] == list(range(1, 13))
    parts = {f"reward/json_answer.{name}" for name in ("format", "tool", "arguments", "length")}
    assert all(parts <= each.keys() for each in logged)
    assert re.findall(r"Iteration (\d+)/12 ", ppo_run) == ["10", "12"]
    assert checkpoints(shell, "runs/ppo-json") >= {"checkpoint_step_11", "final_checkpoint"}
    plan = json.loads((shell.folder / "runs/ppo-json/experiment.json").read_text())
    assert plan["model"]["adapter"].endswith("runs/sft-json")


@pytest.mark.usefixtures("ppo_run")
def test_its_sampler_is_refreshed_every_ten_steps(shell: Shell) -> None:
    plan = load_experiment(None, ["training.method=ppo"], tell=lambda _: None)
    assert plan.training.rl.sampler_refresh_every == 1
    assert '"sampler_refresh_every": 10' in shell("config show ppo-json")
    logged = [each for each in shell.lines("runs/ppo-json/metrics.jsonl") if "staleness" in each]
    assert [each["staleness"] for each in logged[8:11]] == [8, 9, 0]


@pytest.mark.usefixtures("ppo_run")
def test_kl_to_the_sft_model_is_logged_though_it_costs_nothing(shell: Shell) -> None:
    logged = [each for each in shell.lines("runs/ppo-json/metrics.jsonl") if "staleness" in each]
    assert all(each["beta"] == 0 for each in logged)
    assert any(key.startswith("kl") for key in logged[9])


@pytest.mark.usefixtures("json_run")
def test_curves_are_drawn_from_the_run(shell: Shell) -> None:
    shell("plot runs/sft-json --out curves.png")
    assert (shell.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_its_array_is_written_read_and_trained_on(shell: Shell) -> None:
    shell("data build --shape sft-array --rows 40 --out data/tool_calling_sft_dataset.json")
    rows = json.loads((shell.folder / "data/tool_calling_sft_dataset.json").read_text())
    columns = [
        "id",
        "source",
        "category",
        "tool_needed",
        "tool",
        "tool_args",
        "prompt",
        "expected_answer",
    ]
    assert all(row.keys() >= set(columns) for row in rows)
    assert {row["category"] for row in rows} == {"calculator", "python_exec", "no_tool"}
    said = shell(
        "train sft-json model.name=pico data.path=data/tool_calling_sft_dataset.json "
        "data.strategy=file training.steps=1 training.batch_size=2 training.validate_every=0 "
        "evaluation.at_end=false --out runs/array"
    )
    assert "Iteration 1/1" in said
