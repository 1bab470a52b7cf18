"""The demo in small: both trainings, before and after on the same tasks, and that it goes on where
it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolhone.cli.main import main
from toolhone.evaluation.folder import read_folder
from toolhone.guide import demo
from toolhone.guide.demo import SPLITS, DemoResult, run_demo
from toolhone.guide.lesson import Workspace
from toolhone.runs.run import Run

SMALL = (
    *(
        "training.steps=2",
        "training.batch_size=2",
        "data.samples=24",
        "training.validation_samples=2",
        "training.log_every=1",
    ),
    *(
        "evaluation.max_new_tokens=4",
        "training.rl.group_size=2",
        "training.rl.max_completion_length=4",
    ),
)


def small(folder: Path, said: list[str] | None = None) -> Workspace:
    return Workspace(folder, SMALL, note=[].append if said is None else said.append)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TASKS", 7)
    monkeypatch.setattr(demo, "WATCHED", 7)


@pytest.mark.usefixtures("few")
def test_grpo_starts_from_sft_s_weights_and_both_are_measured_on_the_same_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder is named from where one stands."""
    monkeypatch.chdir(tmp_path)
    story = run_demo(0, small(Path("here")))
    tmp_path = tmp_path / "here"
    sft, grpo = (Run.open(tmp_path / name / "run") for name in ("sft", "grpo"))
    assert (sft.experiment.training.method, grpo.experiment.training.method) == ("sft", "grpo")
    assert grpo.experiment.model.adapter == str(sft.folder.resolve())
    for split in SPLITS:
        ids = [
            [sample.id for sample in read_folder(run.folder / "evaluation" / split).samples]
            for run in (sft, grpo)
        ]
        assert ids[0] == ids[1] == [sample.id for sample in story.before[split].samples]
        assert len(ids[0]) == story.change(split).difference.n == 7
    watched = [
        line["id"]
        for line in map(
            json.loads, (tmp_path / "grpo" / "new_phrasings.jsonl").read_text().splitlines()
        )
    ]
    assert len(watched) == 7
    assert grpo.metrics()[-1]["kind"] == "validation"
    assert json.loads((tmp_path / "demo.json").read_text()) == story.to_dict()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in story.plots)


@pytest.mark.usefixtures("few")
def test_a_demo_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = demo._evaluate_splits
    monkeypatch.setattr(
        demo, "_evaluate_splits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        run_demo(0, small(tmp_path))
    monkeypatch.setattr(demo, "_evaluate_splits", measured)
    said: list[str] = []
    first = run_demo(0, small(tmp_path, said))
    assert [line.partition(" is trained already")[0] for line in said] == [
        str(tmp_path / "sft" / "run")
    ]
    again = run_demo(0, small(tmp_path, said))
    assert len(said) == 3
    assert again.to_dict()["exact_match"] == first.to_dict()["exact_match"]


@pytest.mark.usefixtures("few")
def test_the_command_shows_before_and_after_and_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("toolhone.cli.guide.open_workspace", lambda folder, *_: small(folder))
    monkeypatch.setattr("sys.argv", ["toolhone", "demo", "--out", str(tmp_path / "d")])
    assert run_main() == 0
    out = capsys.readouterr().out
    assert "after SFT" in out
    assert "after GRPO" in out
    assert "phrasings in neither" in out
    assert out.rstrip().endswith(f"toolhone chat {tmp_path / 'd' / 'grpo' / 'run'}")
    monkeypatch.setattr("sys.argv", ["toolhone", "demo", "--out", str(tmp_path / "d"), "--json"])
    assert run_main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exact_match"].keys() == SPLITS.keys()
    assert all(scores.keys() == {"sft", "grpo"} for scores in found["exact_match"].values())

    def stopped(*_: object) -> DemoResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", stopped)
    assert run_main() == 130
    assert f"Resume with: toolhone demo --seed 0 --out {tmp_path / 'd'}" in capsys.readouterr().err


@pytest.mark.slow
def test_every_stage_of_the_tour_runs_and_is_scored(tmp_path: Path) -> None:
    changes = ("evaluation.num_samples=4", "teacher.tasks=4", "teacher.min_reward=-5")
    stages = list(demo.tour(Workspace(tmp_path, (*SMALL, "training.validate_every=0", *changes))))
    assert [stage.name for stage in stages] == [
        *("calculator", "several-tools", "own-tool", "json", "calls", "tagged"),
        *(*demo.FURTHER, "shop", "shop-retry"),
    ]
    assert {stage.method.partition(",")[0] for stage in stages} == {
        "sft",
        "teacher_mode",
        "distill",
        "grpo",
    }
    assert all(stage.exact_match.n in (2, 4) for stage in stages)
    assert stages[-1].tools == "search, add, remove, order, list_orders, cancel"


def run_main() -> int:
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)
