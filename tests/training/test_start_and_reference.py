"""GRPO and PPO begin with the weights of `model.adapter`, and the KL is measured to these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from support.one_token import logged
from toolhone.api import experiment, train
from toolhone.runs.run import FINAL

PLAN: dict[str, Any] = {
    "model": {"name": "pico"},
    "tools": ["calculator"],
    "data": {"strategy": "templates", "samples": 8},
    "training": {
        "batch_size": 2,
        "validate_every": 0,
        "lora": None,
        "rl": {"group_size": 2, "max_completion_length": 8},
    },
    "evaluation": {"at_end": False},
}


def trained(out: Path, *overrides: str) -> Any:
    return train(
        experiment(
            PLAN, [f"training.{one}" if not one.startswith("model.") else one for one in overrides]
        ),
        out,
    )[0]


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_run_starts_from_another_one_which_is_also_its_reference(
    method: str, tmp_path: Path
) -> None:
    first = trained(tmp_path / "first", "method=sft", "steps=5", "learning_rate=0.02")
    start = load_file(first.folder / "checkpoints" / FINAL / "model.safetensors")
    run = trained(
        tmp_path / "second",
        f"method={method}",
        "steps=1",
        "rl.beta=0.1",
        f"model.adapter={first.folder}",
        "learning_rate=1e-9",
    )
    for folder in (run.folder / "reference", run.folder / "checkpoints" / FINAL):
        weights = load_file(folder / "model.safetensors")
        assert max(float((weights[name] - start[name]).abs().max()) for name in start) < 1e-7
    assert logged(run, "kl_reference") == [pytest.approx(0, abs=1e-6)]
    fresh = trained(
        tmp_path / "fresh", f"method={method}", "steps=1", "rl.beta=0.1", "learning_rate=1e-9"
    )
    untrained = load_file(fresh.folder / "reference" / "model.safetensors")
    assert max(float((untrained[name] - start[name]).abs().max()) for name in start) > 1e-3
