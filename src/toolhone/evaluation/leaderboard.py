"""Results of several models on several task sets as one table, best first; BFCL verdicts as tables.

board = Leaderboard((BoardEntry("pico", "tasks", Score(...), "exact_match", ...), ...))
board.rows()            # lists of texts; board.to_dict(); board.write(folder)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolhone.evaluation.compare import LEADING
from toolhone.evaluation.csv_results import SUMMARY, write_summary
from toolhone.evaluation.display import clean, new_table, points
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score
from toolhone.runs.run import write_json, writing
from toolhone.schema import Json

BOARD = "leaderboard.json"
RANKED = ("bfcl_accuracy", "solved", *LEADING)
"""Metrics that a place on the board may come from, in order of preference."""


@dataclass(frozen=True)
class BoardEntry:
    """One model on one set. seconds: wall time of playing, loading left out. peak_mb: largest
    memory of the process, in 10^6 bytes (None behind an address). correct: tasks with score 1."""

    model: str
    tasks: str
    metric: str
    score: Score
    correct: int
    seconds: float
    peak_mb: float | None

    @property
    def speed(self) -> float:
        """Tasks per second."""
        return self.score.n / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Json]:
        return {**vars(self), "score": self.score.to_dict(), "tasks_per_second": self.speed}


def entry_of(
    model: str, tasks: str, result: Evaluation, seconds: float, peak_mb: float | None
) -> BoardEntry:
    """The entry by the first of `RANKED` that the evaluation measured."""
    measured = [name for name in RANKED if name in result.metrics and result.metrics[name].n]
    metric = measured[0] if measured else RANKED[-1]
    values = [sample.scores[metric] for sample in result.samples if metric in sample.scores]
    return BoardEntry(
        model, tasks, metric, result.metrics[metric], values.count(1.0), seconds, peak_mb
    )


@dataclass(frozen=True)
class Leaderboard:
    entries: Sequence[BoardEntry]

    @property
    def models(self) -> list[str]:
        """Names, the best mean over the sets first."""
        means = {name: self.mean(name) for name in dict.fromkeys(e.model for e in self.entries)}
        return sorted(means, key=lambda name: (-means[name], name))

    def mean(self, model: str) -> float:
        """The mean of a model's scores over the sets."""
        values = [entry.score.value or 0.0 for entry in self.entries if entry.model == model]
        return sum(values) / len(values)

    def to_dict(self) -> dict[str, Json]:
        return {
            "models": [{"model": name, "mean": self.mean(name)} for name in self.models],
            "entries": [entry.to_dict() for entry in self.entries],
        }

    def write(self, folder: Path) -> None:
        """Write leaderboard.json and summary_results.csv."""
        with writing(folder):
            write_json(folder / BOARD, self.to_dict())
        counts = {
            f"{one.model}/{one.tasks}/samples.csv": (one.score.n, one.correct)
            for one in self.entries
        }
        write_summary(folder / SUMMARY, counts)


def bfcl_table(report: Mapping[str, Any]) -> RenderableType:
    """The official verdicts by category, then the means of the leaderboard's sections."""
    partial = "" if report["complete"] else ", a part of the entries"
    title = f"{report['package']}, prompts of style {report['prompt_style']}{partial}"
    table = new_table(title, ["category"], ["correct", "of", "%", "95 %", "unread", "errors"])
    for name, found in report["categories"].items():
        score = Score(found["accuracy"], found["low"], found["high"], found["total"])
        counts = [str(found[key]) for key in ("correct", "total")]
        odd = [str(found[key]) for key in ("unread", "errors")]
        table.add_row(name, *counts, *points(score), *odd)
    lines = [f"{name}: {100 * value:.1f}" for name, value in report["sections"].items()]
    note = (
        "unread replies (malformed or cut off) count as no call, so as right where none is wanted"
    )
    if any(found["unread"] for found in report["categories"].values()):
        lines.append(note)
    return Group(table, Text("\n".join(lines))) if lines else table


def leaderboard_table(board: Leaderboard) -> Table:
    """A line for each model and set, the best model first."""
    table = new_table("leaderboard", ["model", "tasks", "metric"], ["score", "95 %", "n"])
    for heading in ("tasks/s", "peak MB"):
        table.add_column(heading, justify="right")
    for model in board.models:
        entries = [entry for entry in board.entries if entry.model == model]
        for one in entries:
            peak = "-" if one.peak_mb is None else f"{one.peak_mb:.0f}"
            cells = (*points(one.score), str(one.score.n), f"{one.speed:.2f}", peak)
            table.add_row(Text(clean(model)), Text(clean(one.tasks)), one.metric, *cells)
        if len(entries) > 1:
            table.add_row("", "mean", "", f"{100 * board.mean(model):.1f}", "", "", "", "")
        table.add_section()
    return table
