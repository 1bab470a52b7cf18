"""Official BFCL verdicts and leaderboards as tables for a terminal; nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolhone.evaluation.display import clean, new_table, points
from toolhone.evaluation.leaderboard import Leaderboard
from toolhone.evaluation.statistics import Score


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
