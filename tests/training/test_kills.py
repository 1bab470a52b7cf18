"""A training that was stopped at any moment and resumed ends with the bits of an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import killed
from support.one_token import PROBES, env_of, plan, timeless, toy, weights, without_end
from toolhone.backends.toy import ToySampler, ToyTrainer
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run, whole_folder
from toolhone.training.grpo import grpo
from toolhone.training.loop import TrainStatus


def samples(run: Run) -> list[object]:
    text = (run.folder / "samples.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("method", "number"),
    [("sft", "SIGKILL"), ("dpo", "SIGTERM"), ("ppo", "SIGINT"), ("grpo", "SIGKILL")],
)
def test_a_killed_run_ends_bit_for_bit_as_an_unbroken_one(
    method: str, number: str, tmp_path: Path
) -> None:
    sent = signal.Signals[number]
    command = [sys.executable, killed.__file__, method, str(tmp_path / "cut"), str(int(sent)), "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == (-sent if number == "SIGKILL" else 130), ended.stderr[-2000:]
    trainer, run, status = killed.play(method, tmp_path / "cut")
    straight, whole, _ = killed.play(method, tmp_path / "whole")
    assert status is TrainStatus.FINISHED
    assert np.array_equal(weights(trainer), weights(straight))
    assert timeless(run) == timeless(whole)
    assert samples(run) == samples(whole)
    scores = [one.state(one.checkpoint(BEST))["best_score"] for one in (run, whole)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("after", [1, 3], ids=["first validation", "last validation"])
def test_a_stop_in_a_validation_saves_at_once_and_the_resumed_run_validates(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = ToySampler.logprobs, []

    def stops(self: ToySampler, rows: Any, temperature: float = 1.0) -> Any:
        if rows is PROBES:
            seen.append(1)
            if len(seen) == after:
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("the validation goes on")
        return real(self, rows, temperature)

    _, whole, _ = killed.play("sft", tmp_path / "whole")
    monkeypatch.setattr(ToySampler, "logprobs", stops)
    _, cut, status = killed.play("sft", tmp_path / "cut")
    step = {1: 4, 3: 12}[after]
    assert status is TrainStatus.INTERRUPTED
    assert f"checkpoint_step_{step}" in cut.checkpoints()
    assert [line["step"] for line in cut.metrics() if line["kind"] == "validation"] == [4, 8][
        : after - 1
    ]
    _, run, _ = killed.play("sft", tmp_path / "cut")
    assert timeless(run) == timeless(whole)
    assert samples(run) == samples(whole)


def test_a_validation_of_which_only_samples_were_logged_is_done_again(tmp_path: Path) -> None:
    _, whole, _ = killed.play("sft", tmp_path / "whole")
    _, run, _ = killed.play("sft", tmp_path / "cut")
    without_end(run, FINAL)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "metrics.jsonl").write_text("".join(lines[:-1]))
    last = (run.folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "samples.jsonl").write_text("".join(last[:-1]))
    assert json.loads(lines[-1])["kind"] == "validation"
    killed.play("sft", tmp_path / "cut")
    assert timeless(run) == timeless(whole)
    assert samples(run) == samples(whole)


def test_a_stop_between_two_snapshots_keeps_the_one_that_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Presses(Progress):
        left = 6

        def advance(self, count: int = 1, note: str = "") -> None:  # noqa: ARG002
            self.left -= count
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)

    def write(self: ToySampler, folder: Path) -> None:
        ToyTrainer(self._policy).save(folder, optimizer=False)

    monkeypatch.setattr(ToySampler, "write_merged", write, raising=False)
    monkeypatch.setattr(ToySampler, "write_adapter", write, raising=False)
    experiment = plan({"sampler_refresh_every": 4}, method="grpo", steps=12)

    def train(run: Run, progress: Progress) -> ToyTrainer:
        trainer = toy()
        env = env_of(trainer, experiment)

        def save(folder: Path, optimizer: bool) -> str:
            with whole_folder(folder) as partial:  # as torch does: what was there is gone
                trainer.save(partial, optimizer)
            return str(folder)

        env = replace(env, hooks=replace(env.hooks, progress=progress, save=save))
        grpo(trainer, env, run, run.latest())
        return trainer

    whole, cut = (Run.create(tmp_path / name, experiment) for name in ("whole", "cut"))
    straight = train(whole, Progress())
    train(cut, Presses())
    assert cut.checkpoints() == ["checkpoint_step_6"]
    assert np.array_equal(weights(train(cut, Progress())), weights(straight))
    assert timeless(cut) == timeless(whole)
