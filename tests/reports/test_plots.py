"""Curves as PNG: of runs, of logs, of chosen metrics, and a sentence without any curve."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from toolhone.errors import RunError
from toolhone.reports.plots import _moving_average, plot_runs


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
    assert titles == [
        "reward",
        "shares, and nats per token",
        "reward",
        "scores on held-out tasks",
        "shares, and nats per token",
    ]


def test_a_noisy_value_is_averaged_over_the_steps_around_it() -> None:
    points = [(float(step), float(step % 2)) for step in range(40)]
    assert _moving_average(points)[0][1] == pytest.approx(1 / 3)
    assert _moving_average(points)[20][1] == pytest.approx(0.4)
    assert _moving_average(points[:5]) == points[:5]


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
