"""`toolhone plot`: curves of runs as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Examples: toolhone plot runs/sft   |   toolhone plot runs/a runs/b/metrics.jsonl --metrics loss,exact_match --out ab.png"


def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_LOG...", help="run folders, or metrics.jsonl files"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="the PNG to write [default: curves.png in the first run]")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(help="names separated by commas, a panel for each [default: loss and scores]"),
    ] = "",
) -> None:
    """Draw loss and scores of one or more runs."""
    from toolhone.reports.plots import plot_runs

    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    names = [name for name in metrics.replace(",", " ").split() if name]
    print(plot_runs(runs, out or folder / "curves.png", names))
