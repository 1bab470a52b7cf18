"""Results of several models on several task sets as one table, best first.

board = Leaderboard((BoardEntry("pico", "tasks", Score(...), "exact_match", ...), ...))
board.rows()            # lists of texts; board.to_dict(); board.write(folder)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolhone.evaluation.compare import LEADING
from toolhone.evaluation.csv_results import SUMMARY, write_summary
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
