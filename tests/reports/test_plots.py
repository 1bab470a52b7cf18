"""Plots of runs: curves, bars, a score against a setting; PNG, SVG, PDF and the numbers as CSV."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from support.report_run import judged
from toolhone.errors import RunError, UserError
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import interval
from toolhone.reports.figure import draw_points, moving_average, write_points
from toolhone.reports.plots import bar_points, curve_points, plot_runs, setting_points


def log(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


TRAIN: list[dict[str, Any]] = [
    {"step": step, "kind": "train", "loss": 1 / step, "learning_rate": 0.1} for step in (1, 2, 3)
]
VALIDATION: list[dict[str, Any]] = [
    {"step": step, "kind": "validation", "loss": 2 / step, "exact_match": step / 4}
    for step in (1, 3)
]


def size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the PNG's header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_loss_and_scores_are_side_by_side_or_loss_alone(tmp_path: Path) -> None:
    both = plot_runs([log(tmp_path / "a", *TRAIN, *VALIDATION)], tmp_path / "both.png")
    alone = plot_runs([log(tmp_path / "b", *TRAIN)], tmp_path / "new" / "alone.png")
    assert size(both)[0] == 2 * size(alone)[0]


def test_reinforcement_learning_shows_reward_and_health_instead_of_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title: titles.append(title))  # noqa: ARG005
    lines: list[dict[str, Any]] = [
        {
            "step": i,
            "kind": "train",
            "loss": 0.0,
            "reward": i % 2,
            "entropy": 0.1,
            "clip_share": 0.0,
        }
        for i in range(1, 41)
    ]
    plot_runs([log(tmp_path / "a", *lines)], tmp_path / "rl.png")
    plot_runs([log(tmp_path / "b", *lines, *VALIDATION)], tmp_path / "scored.png")
    health = "health of the training"
    assert titles == ["reward", health, "reward", "scores on held-out tasks", health]


def test_a_noisy_value_is_averaged_over_the_steps_around_it() -> None:
    values = [float(step % 2) for step in range(40)]
    assert moving_average(values)[0] == pytest.approx(1 / 3)
    assert moving_average(values)[20] == pytest.approx(0.4)
    assert moving_average(values[:5]) == values[:5]


def test_chosen_metrics_of_several_logs_get_a_panel_each(tmp_path: Path) -> None:
    sources = [
        log(tmp_path / "a", *TRAIN),
        log(tmp_path / "b", *TRAIN, *VALIDATION) / "metrics.jsonl",
    ]
    one = plot_runs(sources, tmp_path / "one.png", ["learning_rate"])
    two = plot_runs(sources, tmp_path / "two.png", ["learning_rate", "exact_match"])
    assert size(two)[0] == 2 * size(one)[0]
    assert one.read_bytes() != two.read_bytes()


@pytest.mark.parametrize(
    ("lines", "metrics", "sentence"),
    [
        (TRAIN, ["los"], r"no metric 'los' in these logs \(did you mean 'loss'\?\)"),
        ([], [], "nothing to draw"),
        ([{"loss": 1.0}], [], "line 1: expected an object with 'step' and 'kind'"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    tmp_path: Path, lines: list[dict[str, object]], metrics: list[str], sentence: str
) -> None:
    with pytest.raises(RunError, match=sentence):
        plot_runs([log(tmp_path / "a", *lines)], tmp_path / "x.png", metrics)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        plot_runs([tmp_path / "nowhere"], tmp_path / "x.png")


def seeded(folder: Path, method: str, seed: int, rows: int, right: int) -> Path:
    """A run with an evaluation of 12 tasks, `right` of which are correct."""
    log(folder, {"step": 1, "kind": "train", "loss": seed + rows / 100})
    plan = {"training": {"method": method}, "data": {"samples": rows}, "seed": seed}
    (folder / "experiment.json").write_text(json.dumps(plan))
    samples = tuple(judged(number, right=number < right) for number in range(12))
    write_folder(Evaluation(samples), folder / "evaluation")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    sizes = [("sft", 0, 100, 3), ("sft", 1, 100, 6), ("sft", 0, 800, 9), ("dpo", 0, 100, 6)]
    return [seeded(tmp_path / str(n), *each) for n, each in enumerate(sizes)]


def test_runs_that_agree_on_a_key_are_one_line_with_their_range(runs: list[Path]) -> None:
    points, _ = curve_points(runs[:2], by=["training.method"])
    (point,) = points
    assert (point.y, point.low, point.high, point.n) == (1.5, 1.0, 2.0, 2)
    grouped, _ = curve_points(runs, by=["training.method"])
    assert [point.series for point in grouped] == ["sft, train", "dpo, train"]


def test_bars_have_the_interval_of_tasks_averaged_over_runs(runs: list[Path]) -> None:
    points, _ = bar_points(runs[:2], "exact_match", ["training.method"])
    assert [(point.series, point.x) for point in points] == [
        *(("sft", "even"), ("sft", "odd"), ("sft", "all"))
    ]
    score = interval([1.0] * 3 + [0.5] * 3 + [0.0] * 6)
    assert (points[-1].y, points[-1].low, points[-1].n) == (score.value, score.low, 12)


def test_a_score_against_a_setting_is_a_line_for_each_group(runs: list[Path]) -> None:
    points, styles = setting_points(runs, "exact_match", "data.samples", ["training.method"])
    assert [(p.series, p.x, p.y) for p in points] == [
        ("sft", 100.0, 0.375),
        ("sft", 800.0, 0.75),
        ("dpo", 100.0, 0.5),
    ]
    assert styles["exact_match"].log_x


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_has_labels_in_every_format_and_the_same_bytes_again(
    tmp_path: Path, runs: list[Path], ending: str
) -> None:
    points, styles = bar_points(runs, "exact_match", ["training.method"])
    first, again = (draw_points(points, tmp_path / f"{n}.{ending}", styles) for n in "ab")
    assert first.read_bytes() == again.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert first.read_bytes().startswith(start)
    if ending == "svg":
        text = first.read_text()
        assert all(label in text for label in ("share of tasks", "exact match by category", "dpo"))


def test_the_csv_has_the_numbers_of_the_plot(tmp_path: Path, runs: list[Path]) -> None:
    points, _ = bar_points(runs[:1], "exact_match")
    lines = write_points(points, tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "panel,series,x,y,low,high,n"
    assert lines[1].startswith("exact_match,0,even,0.3333")
    assert len(lines) == 1 + len(points)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda runs: bar_points(runs, "exact"), "did not measure 'exact'"),
        (lambda runs: curve_points(runs, by=["data.sample"]), r"no 'data.sample' \(did you mean"),
        (lambda runs: setting_points(runs, "exact_match", "training.method"), "needs a number"),
        (lambda runs: draw_points([], runs[0] / "a.jpg", {}), "png, svg or pdf"),
        (lambda runs: bar_points([runs[0].parent], "exact_match"), "has no evaluation"),
    ],
)
def test_a_wrong_plot_is_one_sentence(runs: list[Path], make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(runs)
