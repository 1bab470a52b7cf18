"""The GRPO guide: its thirteen command lines as they are typed, rows in its format, its evaluation
script; a model folder stands in place of each name on the hub."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from earlier.conftest import Shell
from support.grpo_guide import FUNCTIONS, LINES, START, guide_rows
from toolhone.cli.flags import FLAGS


@pytest.fixture(scope="session")
def guide(shell: Shell) -> Shell:
    """A folder with `train.jsonl`, and `model`: pico after a few steps of SFT on such rows."""
    (shell.folder / "train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in guide_rows(60))
    )
    shell(
        "train data.path=train.jsonl model.dialect=calls training.lora=null training.steps=8 "
        "training.batch_size=4 training.learning_rate=2e-3 training.validate_every=0 "
        "evaluation.at_end=false --out runs/before-grpo"
    )
    shell("export runs/before-grpo --out model --json")
    return shell


def typed(name: str) -> str:
    return LINES[name].replace("MODEL", "model").replace("DATA", "train.jsonl")


QUICK = (
    "training.steps=1 training.batch_size=2 training.rl.group_size=2 training.validate_every=0 "
    "training.rl.max_completion_length=12 evaluation.at_end=false"
)


@pytest.mark.parametrize("name", LINES)
def test_each_of_its_commands_trains_on_its_rows(guide: Shell, name: str) -> None:
    train_by(guide, name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("curriculum", "quick") else pytest.mark.slow)
        for name in LINES
    ],
)
def test_each_of_its_commands_trains_on_mlx_as_it_does_there(guide: Shell, name: str) -> None:
    pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    train_by(guide, name, "mlx")


def train_by(guide: Shell, name: str, backend: str = "torch") -> None:
    words = shlex.split(typed(name))
    if "--adapter-path" not in words:
        words += ["--adapter-path", f"adapters/{name.replace(' ', '-')}"]
    place = words.index("--adapter-path") + 1
    words[place] = folder = f"{words[place]}-{backend}"
    offline = " tracking.wandb.mode=offline" if "--wandb-project" in words else ""
    said = guide(f"train {shlex.join(words)} {QUICK}{offline} model.backend={backend}")
    assert re.search(r"Iteration 1/1 \| Loss: -?\d+\.\d{3} \| Mean Reward: -?\d+\.\d{3}", said)
    plan = json.loads((guide.folder / folder / "experiment.json").read_text())
    reward = plan["training"]["rl"]["reward"]
    for function in reward["functions"]:
        assert re.search(rf"^  {function}: -?\d+\.\d{{3}}$", said, re.M)
    assert (plan["model"]["dialect"], plan["model"]["backend"]) == ("calls", backend)
    assert (guide.folder / folder / "checkpoints/final_checkpoint").is_dir()


@pytest.mark.parametrize("flag", [name for flag in FLAGS for name in flag.names])
def test_each_of_its_flags_stands_in_the_help(shell: Shell, flag: str) -> None:
    assert re.search(rf"{flag}\b", shell("train --help"))


def test_its_default_rewards_hold_where_its_flags_are_used(guide: Shell) -> None:
    words = f"{START} --group-size 2".replace("MODEL", "model").replace("DATA", "train.jsonl")
    said = guide(f"train {words} --adapter-path adapters/defaults {QUICK}")
    plan = json.loads((guide.folder / "adapters/defaults/experiment.json").read_text())
    assert plan["training"]["rl"]["reward"]["functions"] == [
        "tool_call_exact",
        "tool_call_function",
    ]
    assert plan["model"]["dialect"] == "calls"
    assert "those of MLX-GRPO, since --reward-functions names none" in said


def test_its_evaluation_prints_mismatches_and_one_line_of_accuracy(guide: Shell) -> None:
    said = guide(
        "eval runs/before-grpo --num-samples 3 evaluation.max_new_tokens=8 evaluation.max_turns=1"
    )
    assert re.search(r"^Exact Match Accuracy: \d+\.\d\d% \(\d+/3\)$", said, re.M)
    assert "expected:" in said


def test_its_row_keys_are_read_and_its_newer_rows_as_well(shell: Shell, tmp_path: Path) -> None:
    rows = guide_rows(4)
    newer = {"prompt": "Factorial of 3?", "tools": [{"type": "function", "function": FUNCTIONS[0]}]}
    call = {"name": "calculate_factorial", "arguments": {"n": 3}}
    rows.append({**newer, "answer": f"<tool_call>\n{json.dumps(call)}\n</tool_call>"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shell(f"data import {path} --to {tmp_path / 'out.jsonl'}")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    calls = [json.loads(line)["messages"][-1]["tool_calls"] for line in lines]
    assert len(calls) == 5
    assert calls[-1][0]["name"] == "calculate_factorial"


@pytest.mark.parametrize("backend", ["torch", pytest.param("mlx", marks=pytest.mark.slow)])
def test_three_phases_run_in_one_command(guide: Shell, backend: str) -> None:
    if backend == "mlx":
        pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    said = guide(
        f"train grpo-progressive model.name=model model.backend={backend} data.strategy=file "
        f"data.path=train.jsonl {QUICK} training.steps=3 --out runs/phases-{backend}"
    )
    assert "phase" in said or "tool_call_parseable" in said
