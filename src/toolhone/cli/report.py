"""`toolhone report` writes one HTML file about runs and evaluations; `toolhone watch` serves it
while a run trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.reports.report_data import MAX_EPISODES, report_data

app = typer.Typer(rich_markup_mode=None)

Folders = Annotated[
    list[Path], Argument(metavar="RUN...", help="run folders, or evaluation folders; base first")
]
Base = Annotated[
    Path | None,
    Option(metavar="FOLDER", help="an evaluation or a run that the others are compared with"),
]
Episodes = Annotated[int, Option(min=1, metavar="N", help="show at most this many episodes")]


@app.command(
    epilog="Examples: toolhone report runs/sft   |   toolhone report runs/sft runs/grpo --out "
    "study.html   |   toolhone report runs/sft --base evals/base"
)
def report(
    runs: Folders,
    base: Base = None,
    out: Annotated[
        Path | None, Option(help="the file to write [default: report.html in the first folder]")
    ] = None,
    episodes: Episodes = MAX_EPISODES,
) -> None:
    """Write one HTML file with curves, before and after, errors, cost, and every kept episode."""
    from toolhone.reports.html import write_report

    print(write_report(report_data(runs, base, episodes), out or runs[0] / "report.html"))


@app.command(epilog="Examples: toolhone watch runs/sft   |   toolhone watch runs/sft --port 8800")
def watch(
    runs: Folders,
    base: Base = None,
    port: Annotated[int, Option(min=0, max=65535, help="0: any that is free")] = 8777,
    episodes: Episodes = MAX_EPISODES,
) -> None:
    """Serve the report on loopback until Ctrl-C; the page follows the run while it trains."""
    from toolhone.reports.live import LiveReport

    with LiveReport(runs, port, base, episodes) as server:
        print_note("Ctrl-C ends the server; the run is not touched")
        print(server.url, flush=True)
        server.serve_forever()
