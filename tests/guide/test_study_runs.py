"""Sweeps: how a study is read, what is trained and kept, and the table and the plot at the end."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.report_run import judged
from toolhone.cli.main import main
from toolhone.errors import ConfigError, UserError
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import UNMEASURED
from toolhone.guide import study_runs as module
from toolhone.guide.study import parse_values, read_study, study_names
from toolhone.guide.study_runs import (
    ComparedScore,
    StudyRun,
    Sweep,
    result_points,
    result_table,
    run_job,
)
from toolhone.reports.plots import mean_score
from toolhone.training.loop import TrainStatus

TINY = {
    "model": {"name": "pico"},
    "data": {"samples": 8},
    "training": {"steps": 1, "batch_size": 2, "lora": None, "validate_every": 0, "save_every": 0},
    "evaluation": {"num_samples": 6, "max_new_tokens": 4},
}


def write(path: Path, **study: Any) -> str:
    path.write_text(json.dumps(study))
    return str(path)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("training.learning_rate=1e-4,3e-4", [1e-4, 3e-4]),
        ("training.method=sft,dpo", ["sft", "dpo"]),
        ("data.split_seed=1", [1]),
        ('rewards=["a","b"],["c"]', [["a", "b"], ["c"]]),
        ('data.categories={"a":1,"b":2},null', [{"a": 1, "b": 2}, None]),
    ],
)
def test_values_to_sweep_over_are_json_or_text(text: str, values: list[object]) -> None:
    assert parse_values(text) == (text.partition("=")[0], values)


def test_settings_are_variants_with_every_combination_of_values(tmp_path: Path) -> None:
    study = read_study(
        write(
            tmp_path / "s.json",
            experiment=TINY,
            variants={"a": {"training.steps": 2}, "b": {"untrained": True}},
            over={"data.samples": [4, 8]},
        ),
        ["seed=1,2"],
    )
    names = [setting.name for setting in study.settings]
    assert len(names) == 8
    assert names[0] == "a, samples=4, seed=1"
    assert [s.is_trained for s in study.settings] == [True] * 4 + [False] * 4
    assert study.plan(study.settings[0].changes, 5, ["training.steps=3"]).training.steps == 3


def test_a_setting_starts_from_the_prepared_run_of_its_seed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.json",
        experiment=TINY,
        prepare={"first": {}},
        variants={"a": {"model.adapter": "{first}"}, "b": {}},
    )
    settings = Sweep(read_study(path, []), tmp_path / "out", seeds=2)._settings()
    expected = (tmp_path / "out" / "prepare" / "first" / "seed-1").resolve()
    assert settings[2].plan.model.adapter == str(expected)
    assert settings[2].plan.seed == 1
    assert not settings[2].plan.evaluation.baseline


@pytest.mark.parametrize(
    ("study", "over", "sentence"),
    [
        (
            {"experiment": TINY, "variant": {}},
            [],
            r"no key 'variant' \(did you mean 'variants'\?\)",
        ),
        ({"experiment": TINY, "over": {"seed": 3}}, [], "over.seed must be a list of values"),
        ({"experiment": TINY, "prepare": []}, [], "prepare must be an object"),
        ({"experiment": TINY, "groups": ["a"]}, [], "groups must be an object"),
        ({"experiment": TINY}, ["data.samples"], "wanted key=a,b,c"),
    ],
)
def test_a_wrong_study_is_one_sentence(
    tmp_path: Path, study: Any, over: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_study(write(tmp_path / "s.json", **study), over)


def test_two_settings_never_share_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", experiment=TINY, variants={"a b": {}, "a_b": {}})
    with pytest.raises(ConfigError, match="2 settings have the folder a_b; rename one"):
        _ = read_study(path, []).settings


def test_a_method_that_is_swept_over_fills_in_its_own_rates(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(TINY))
    study = read_study(str(path), ["training.method=sft,dpo"])
    rates = [study.plan(one.changes, 0, []).training.learning_rate for one in study.settings]
    assert rates[0] == pytest.approx(10 * rates[1])


def test_an_unknown_study_names_those_that_ship() -> None:
    with pytest.raises(ConfigError, match=r"'method' \(did you mean 'methods'\?\); studies that"):
        read_study("method", [])


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_ships_plans_all_its_runs(name: str, tmp_path: Path) -> None:
    study = read_study(name, [])
    sweep = Sweep(study, tmp_path, seeds=2)
    assert len(study.settings) >= 3
    assert len(sweep._settings()) == 2 * len(study.settings)
    assert len(sweep._prepared()) == 2 * len(study.prepare)
    used = [job.plan.model.adapter for job in sweep._settings()]
    used += [job.plan.training.distill.teacher for job in sweep._settings()]
    assert {*used} - {None} <= {str(job.folder.resolve()) for job in sweep._prepared()}


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Sweep, list[str]]:
    """A sweep whose runs write an evaluation; the second setting is better."""
    path = write(tmp_path / "s.json", experiment=TINY, over={"data.samples": [100, 800]})
    ran: list[str] = []

    def run(job: StudyRun, progress: object = None) -> TrainStatus:  # noqa: ARG001
        ran.append(job.label)
        right = job.plan.data.samples // 100 + 4 * job.plan.seed
        samples = tuple(judged(number, right=number < right) for number in range(20))
        write_folder(Evaluation(samples), job.folder / "evaluation", overwrite=True)
        return TrainStatus.FINISHED

    monkeypatch.setattr(module, "run_job", run)
    monkeypatch.setattr(Sweep, "_write_tasks", lambda self: None)  # noqa: ARG005
    return Sweep(read_study(path, []), tmp_path / "out", seeds=2), ran


def test_a_finished_run_is_kept_and_the_others_are_made(faked: tuple[Sweep, list[str]]) -> None:
    sweep, ran = faked
    sweep.run()
    names = ["samples=100, seed 0", "samples=800, seed 0"]
    assert ran == [*names, "samples=100, seed 1", "samples=800, seed 1"]
    (sweep.folder / "samples=800" / "seed-1" / "evaluation" / "metrics.json").unlink()
    sweep.run()
    assert ran[4:] == ["samples=800, seed 1"]


def test_the_table_has_intervals_over_tasks_and_the_spread_of_seeds(
    faked: tuple[Sweep, list[str]],
) -> None:
    sweep, _ = faked
    sweep.run()
    first, second = sweep.result()
    assert first.by_seed == (1 / 20, 5 / 20)
    assert second.total.score.value == pytest.approx(10 / 20)
    assert second.total.score.n == 20
    assert second.deviation == pytest.approx(0.1414, abs=1e-4)
    assert second.total.difference is not None
    assert second.total.difference.value == pytest.approx(0.35)
    lines = result_table(sweep.study, [first, second]).splitlines()
    assert lines[2].startswith("| samples=100 | 15.0 (")
    assert len(lines) == 4
    assert json.loads((sweep.folder / "results.json").read_text())[1]["seeds"] == 2


def test_groups_of_tasks_have_scores_and_verdicts_of_their_own(
    faked: tuple[Sweep, list[str]],
) -> None:
    sweep, _ = faked
    sweep = replace(sweep, study=replace(sweep.study, groups={"ones": "task-1"}))
    sweep.run()
    results = sweep.result()
    found = results[1].categories
    assert {name: one.score.n for name, one in found.items()} == {"ones": 11, "others": 9}
    assert found["ones"].score.value == pytest.approx(2 / 11)
    assert found["others"].score.value == pytest.approx(8 / 9)
    assert found["others"].difference is not None
    assert found["others"].difference.value == pytest.approx(5.5 / 9)
    assert found["others"].verdict == "undecided", "nine tasks are too few"
    lines = result_table(sweep.study, results).splitlines()
    assert lines[5] == "| by group | ones (11) | others (9) |"
    assert lines[8].startswith("| samples=800 | 18.2 (")
    assert lines[8].endswith(") undecided |")
    first = replace(results[0], categories={"empty": ComparedScore(UNMEASURED)})
    empty = result_table(sweep.study, [first, first]).splitlines()
    assert empty[5] == "| by group |", "no column where nothing was measured"
    shown = replace(sweep.study, over={"training.method": ["sft", "dpo"]})
    points, _ = result_points(shown, results)
    assert {point.x for point in points} == {"ones", "others", "all"}


def test_tasks_of_one_cluster_widen_the_interval_of_a_sweep() -> None:
    alone = [judged(number, right=number < 10) for number in range(20)]
    shared = [replace(one, cluster=str(number // 5)) for number, one in enumerate(alone)]
    wide, narrow = (mean_score([Evaluation(tuple(s))], "exact_match") for s in (shared, alone))
    assert wide.value == narrow.value == 0.5
    assert wide.high is not None
    assert narrow.high is not None
    assert wide.high > narrow.high + 0.1


def test_a_number_that_is_swept_over_is_the_axis_of_the_plot(
    faked: tuple[Sweep, list[str]],
) -> None:
    sweep, _ = faked
    sweep.run()
    points, style = result_points(sweep.study, sweep.result())
    assert [(point.x, round(point.y, 2)) for point in points] == [(100.0, 0.15), (800.0, 0.5)]
    assert (style.x, style.log_x) == ("data.samples", True)


def test_a_stopped_run_ends_the_sweep(
    faked: tuple[Sweep, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_job", lambda job, progress=None: TrainStatus.INTERRUPTED)  # noqa: ARG005
    with pytest.raises(KeyboardInterrupt):
        faked[0].run()


def test_what_a_run_says_against_its_settings_names_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", experiment=TINY, variants={"a": {"model.name": "no/such"}})
    plan = read_study(path, []).plan({"model.name": str(tmp_path / "nowhere")}, 0, [])
    with pytest.raises(UserError, match=rf"the label \({tmp_path}/run\): "):
        run_job(StudyRun("the label", plan, tmp_path / "run"))


@pytest.mark.slow
def test_a_sweep_trains_evaluates_and_writes_a_table_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        Path("tiny.json"),
        experiment=TINY,
        prepare={"first": {}},
        variants={
            "base": {"untrained": True},
            "shown": {"in_context": 1, "model.adapter": "{first}"},
            "more": {"model.adapter": "{first}", "training.learning_rate": 1e-4},
        },
    )
    monkeypatch.setattr("sys.argv", ["toolhone", "sweep", "tiny.json", "--seeds", "1"])
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
    out, err = capsys.readouterr()
    assert out.count("| more |") == 2
    assert "3 of 3 runs are there already and are kept" in err
    monkeypatch.setattr("sys.argv", [*sys.argv, "data.samples=9"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "first/seed-0 was made with other settings" in capsys.readouterr().err
    names = {path.name for path in Path("runs/tiny").iterdir()}
    assert names == {
        *("base", "shown", "more", "prepare", "tasks.jsonl"),
        *("plot.png", "results.csv", "results.json", "results.md"),
    }
