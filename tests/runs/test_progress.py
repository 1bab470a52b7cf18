"""Tests of `runs/progress.py`, and that every evaluation reports while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich import progress as bars
from rich.console import Console
from typer.testing import CliRunner

from support.one_token import toy
from toolhone import experiment, train
from toolhone.cli.main import app
from toolhone.rows import Array, Row
from toolhone.runs import progress as progress_module
from toolhone.runs.progress import Progress
from toolhone.training import loop

SMALL = {
    "model": {"name": "pico"},
    "data": {"max_samples": 20},
    "evaluation": {"num_samples": 5, "max_new_tokens": 2},
    "training": {
        "steps": 2,
        "batch_size": 2,
        "max_length": 400,
        "validate_every": 1,
        "validation_samples": 3,
        "save_every": 0,
    },
}


class Noting(Progress):
    """Notes what was started, and how much of it was done."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def start(self, what: str, total: int, done: int = 0) -> None:
        super().start(what, total, done)
        self.seen.append([what, total, []])

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        current = next(one for one in reversed(self.seen) if one[0] == self._what)
        current[2].append(count)


def test_work_inside_other_work_leaves_its_count_and_its_bar() -> None:
    with bars.Progress("{task.fields[note]}", console=Console(quiet=True)) as bar:
        progress = Progress(bar=bar)
        progress.start("training", 10)
        progress.advance(3)
        with progress.inside("evaluating", 2):
            progress.advance()
            both = [(task.description, task.completed) for task in bar.tasks]
        assert both == [("training", 3), ("evaluating", 1)]
        progress.advance()
        assert [(task.description, task.completed) for task in bar.tasks] == [("training", 4)]
        assert (progress._what, progress._total, progress._done) == ("training", 10, 4)


def test_validations_and_the_last_evaluation_report_every_task_and_held_out_rows(
    tmp_path: Path,
) -> None:
    noting = Noting()
    train(experiment(SMALL), tmp_path / "run", progress=noting)
    seen = [(what, total, sum(done)) for what, total, done in noting.seen]
    rows = next(total for what, total, _ in seen if what == "held-out loss")
    inside = [("evaluating", 3, 3), ("held-out loss", rows, rows)]
    assert seen[-6:] == [("training", 2, 2), *inside, *inside, ("evaluating", 5, 5)]
    assert all(set(done) == {1} for what, _, done in noting.seen if what == "evaluating")


def test_eval_reports_on_standard_error_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = range(4)
    lines = (
        {
            "id": f"{n}",
            "messages": [{"role": "user", "content": f"Say {n}."}],
            "tools": [],
            "expect": {"no_call": True},
        }
        for n in ids
    )
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    moments = iter(range(0, 10**6, 100))  # every look at the clock is 100 s after the one before
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr(progress_module, "time", clock)
    words = ["eval", "pico", "--tasks", str(tasks), "evaluation.max_new_tokens=2"]
    ended = CliRunner().invoke(app, [*words, "tracking.progress=plain"])
    assert ended.exit_code == 0, ended.output
    assert [f"evaluating: {n + 1}/4" in ended.stderr for n in ids] == [True] * 4


def test_log_probabilities_in_parts_are_those_of_all_rows_with_progress_after_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Row.of(range(1, 2 + n % 5), [True] * (1 + n % 5)) for n in range(12)]
    sampler, asked = toy().snapshot(), []

    def logprobs(part: Sequence[Row]) -> list[Array]:
        asked.append(sum(map(len, part)))
        return sampler.logprobs(part)

    monkeypatch.setattr(loop, "TOKENS_OF_A_PART", 8)
    noting = Noting()
    found = loop.in_parts(logprobs, rows, noting, "reference")
    for one, other in zip(found, sampler.logprobs(rows), strict=True):
        assert np.array_equal(one, other)
    assert max(asked) <= 8
    assert len(asked) > 3
    assert noting.seen[0][:2] == ["reference", 12]
    assert sum(noting.seen[0][2]) == 12
    assert len(noting.seen[0][2]) == len(asked)
    assert loop.in_parts(logprobs, [], noting, "nothing") == []
