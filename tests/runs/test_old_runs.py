"""Runs that version 0.1 before its rebuild wrote: they open, resume, evaluate and export."""

import json
import shutil
from pathlib import Path

import pytest

from toolhone.api import evaluate, open_model, train
from toolhone.export.merged import export
from toolhone.runs.run import FINAL, Run
from toolhone.training.loop import TrainStatus

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
SFT_LOSSES = [12.165206383, 11.903500416, 12.404367065, 11.962177405]
"""Of steps 3 to 6, as the version that wrote the run logged them when it resumed it."""


@pytest.fixture(params=["sft", "grpo"])
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an interrupted run: LoRA of rank 2 on pico, a checkpoint at step 2."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_an_old_run_resumes_and_logs_what_it_would_have_logged(old_run: Path) -> None:
    experiment = Run.open(old_run).experiment
    run, status = train(experiment, old_run, resume=True)
    assert status is TrainStatus.FINISHED
    assert FINAL in run.checkpoints()
    lines = [line for line in run.metrics() if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, experiment.training.steps + 1))
    if experiment.training.method == "sft":
        assert [line["loss"] for line in lines[2:]] == pytest.approx(SFT_LOSSES, rel=1e-6)
    else:
        assert [line["kl_reference"] for line in lines[2:]] == pytest.approx([0, 0], abs=1e-6)


def test_an_old_run_opens_and_is_evaluated_on_its_held_out_tasks(old_run: Path) -> None:
    model = open_model(old_run)
    now, then = model.certificate.to_dict(), json.loads((old_run / "certificate.json").read_text())
    more = ("limits", "findings")  # newer checks find more
    assert {key: now[key] for key in then if key not in more} == {
        key: then[key] for key in then if key not in more
    }
    assert set(then["limits"]) <= set(now["limits"])
    assert [one for one in then["findings"] if one not in now["findings"]] == []
    result = evaluate(model, num_samples=2)
    assert len(result.samples) == 2
    assert result.metrics["exact_match"].value is not None


def test_an_old_run_is_exported_with_its_adapter(old_run: Path, tmp_path: Path) -> None:
    export(open_model(old_run), tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
