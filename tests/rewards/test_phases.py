"""Reward phases in a whole training: they see validations, also in a resumed run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from toolhone.api import experiment, train
from toolhone.errors import ConfigError
from toolhone.runs.progress import Progress
from toolhone.runs.run import FINAL, Run

PLAN: dict[str, Any] = {
    "model": {"name": "pico"},
    "tools": ["calculator"],
    "data": {"strategy": "templates", "samples": 8},
    "training": {
        "method": "grpo",
        "steps": 3,
        "batch_size": 1,
        "validate_every": 1,
        "validation_samples": 1,
        "save_every": 1,
        "rl": {
            "group_size": 2,
            "max_completion_length": 4,
            "reward": {
                "phases": [
                    {"functions": ["right_tools"], "until": {"valid_format": 0.0}},
                    {"functions": ["right_calls"]},
                ]
            },
        },
    },
    "evaluation": {"at_end": False, "max_new_tokens": 4},
}
SAID = "step 2: reward phase 2 of 2 begins: 1 right_calls"


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_phase_ends_by_the_last_validation_also_in_a_run_that_goes_on(
    method: str, tmp_path: Path
) -> None:
    plan, told = experiment(PLAN, [f"training.method={method}"]), Lines()
    run, _ = train(plan, tmp_path / "run", progress=told)
    assert told.lines.count(SAID) == 1
    for name in ("checkpoint_step_2", "checkpoint_step_3", FINAL):
        shutil.rmtree(run.folder / "checkpoints" / name)
    again = Lines()
    train(Run.open(run.folder).experiment, run.folder, resume=True, progress=again)
    assert again.lines.count(SAID) == 1


def test_without_validations_there_is_no_score_of_one_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="waits for the score 'valid_format', which nothing measures"
    ):
        train(experiment(PLAN, ["training.validate_every=0"]), tmp_path / "run")
