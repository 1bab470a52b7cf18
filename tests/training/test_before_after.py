"""Before and after: the base on a run's tasks, its cache, and the guard that stops a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolhone.api import experiment, train
from toolhone.backends.base import Sampler
from toolhone.backends.toy import open_toy
from toolhone.config.experiment import make_experiment
from toolhone.errors import ConfigError
from toolhone.evaluation.folder import read_folder
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run
from toolhone.schema import Conversation, Message, Task, Tool, ToolCall
from toolhone.training.before_after import with_examples
from toolhone.training.loop import WORSE_THAN_BASE, Hooks, Validation
from toolhone.training.sft import sft


class Lines(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


def plan(**evaluation: Any) -> Any:
    return experiment(
        {
            "model": {"name": str(pico_folder(0))},
            "data": {"samples": 24},
            "training": {
                "steps": 2,
                "batch_size": 2,
                "validate_every": 0,
                "save_every": 0,
                "lora": None,
            },
            "evaluation": {"num_samples": 3, "max_new_tokens": 6, **evaluation},
        }
    )


def test_every_run_ends_with_before_and_after_and_trains_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model = plan()
    monkeypatch.setenv("TOOLHONE_CACHE", str(tmp_path / "cache"))
    first, again = Lines(), Lines()
    train(base_model, tmp_path / "a", progress=first)
    train(base_model, tmp_path / "b", progress=again)
    train(plan(baseline=False), tmp_path / "c", progress=Lines())
    base = read_folder(tmp_path / "a" / "baseline")
    tuned = read_folder(tmp_path / "a" / "evaluation")
    assert [s.id for s in base.samples] == [s.id for s in tuned.samples]
    comparison = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert comparison["guard"]["result"] == "undecided", "three tasks decide nothing"
    assert any(line.startswith("exact_match: 0.0 -> 0.0 on 3 tasks") for line in first.lines)
    assert any("the base was evaluated on these tasks before" in line for line in again.lines)
    assert not any("the base was evaluated on these" in line for line in first.lines)
    assert read_folder(tmp_path / "b" / "baseline") == base
    assert not (tmp_path / "c" / "baseline").exists()
    weights = {
        (tmp_path / name / "checkpoints" / FINAL / "model.safetensors").read_bytes()
        for name in "abc"
    }
    assert len(weights) == 1


def test_a_finished_baseline_is_kept_and_other_settings_are_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = plan(), plan(max_new_tokens=5)
    monkeypatch.setenv("TOOLHONE_CACHE", str(tmp_path / "cache"))
    train(one, tmp_path / "a", progress=Lines())
    lines = Lines()
    train(other, tmp_path / "b", progress=lines)
    assert not any("these tasks before" in line for line in lines.lines)
    assert len(list((tmp_path / "cache" / "baselines").iterdir())) == 2


@pytest.mark.parametrize("key", ["guard", "baseline_examples", "baseline_constrained"])
def test_what_needs_the_base_is_refused_without_it(key: str) -> None:
    value = {"guard": "stop", "baseline_examples": 2, "baseline_constrained": True}[key]
    with pytest.raises(ConfigError, match=f"evaluation.{key} needs the evaluation of the base"):
        plan(baseline=False, **{key: value})


TOOLS = tuple(Tool(name, "", {"type": "object", "properties": {}}) for name in ("a", "b"))


def conversation(*names: str) -> Conversation:
    calls = tuple(ToolCall(name, {}) for name in names)
    said = (Message("user", f"call {names}"), Message("assistant", tool_calls=calls))
    return Conversation((Message("system", "other"), *said), TOOLS)


def test_examples_for_the_base_stand_before_the_question_and_call_its_tools_first() -> None:
    rows = [conversation("b"), conversation("a"), conversation("a"), conversation("a", "b")]
    task = Task("t", (Message("system", "s"), Message("user", "q")), TOOLS[:1])
    (shown,) = with_examples([task], rows, 2)
    assert [(m.role, m.content) for m in shown.messages] == [
        ("system", "s"),
        ("user", "call ('a',)"),
        ("assistant", None),
        ("user", "call ('b',)"),
        ("assistant", None),
        ("user", "q"),
    ]
    assert with_examples([task], [], 0) == [task]
    with pytest.raises(ConfigError, match="needs labelled conversations"):
        with_examples([task], [], 1)


ROWS = [Row.of([1, 5, 5, 2], [False, False, True, True])] * 4


def guarded(folder: Path, guard: str, losses: list[float]) -> tuple[Run, Lines, Any]:
    settings = {"steps": 6, "batch_size": 2, "validate_every": 2, "save_every": 0}
    made = make_experiment(
        {"training": {**settings, "learning_rate": 0.1}, "evaluation": {"guard": guard}}, "the test"
    )
    trainer, run, lines, values = (
        open_toy(16, seed=1),
        Run.create(folder, made),
        Lines(),
        iter(losses),
    )

    def validate(_: Sampler) -> Validation:
        worse = next(values)
        return {"exact_match": 0.5 + worse / 4, WORSE_THAN_BASE: worse}, []

    sft(trainer, ROWS, [], run, Hooks(validate, lambda f, o: trainer.save(f, o), lines))
    return run, lines, trainer


def weights(run: Run, name: str) -> bytes:
    folder = run.folder / "checkpoints" / name
    return b"".join(p.read_bytes() for p in sorted(folder.glob("*.npz")))


def test_a_guarded_training_stops_at_a_loss_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    run, lines, _ = guarded(tmp_path / "run", "stop", [0.0, 1.0])
    steps = [line["step"] for line in run.metrics() if line["kind"] == "validation"]
    assert steps == [2, 4]
    assert run.state(run.checkpoint(BEST))["step"] == 2
    assert weights(run, FINAL) == weights(run, BEST) != b""
    assert "evaluation.guard: the weights of step 2 are kept" in lines.lines


def test_a_guard_that_only_chooses_goes_on_and_a_recovered_run_keeps_its_end(
    tmp_path: Path,
) -> None:
    run, lines, _ = guarded(tmp_path / "run", "best", [0.0, 1.0, 0.0])
    steps = [line["step"] for line in run.metrics() if line["kind"] == "validation"]
    assert steps == [2, 4, 6]
    assert run.state(run.checkpoint(BEST))["step"] == 2, "the better score of step 4 lost something"
    assert not any("are kept" in line for line in lines.lines)


def test_without_a_checkpoint_that_lost_nothing_the_last_weights_stay(tmp_path: Path) -> None:
    run, lines, _ = guarded(tmp_path / "run", "stop", [1.0])
    assert BEST not in run.checkpoints()
    assert any("every validation lost something" in line for line in lines.lines)
    assert np.isfinite(run.state(run.checkpoint(FINAL))["seconds"])
