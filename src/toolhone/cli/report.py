"""`toolhone plot` draws runs; `toolhone report` writes one HTML file about runs and evaluations;
`toolhone watch` serves it while a run trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.config.experiment import to_stderr
from toolhone.errors import ConfigError
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


@app.command(
    epilog="Examples: toolhone plot runs/sft   |   toolhone plot runs/a runs/b --metrics "
    "loss,exact_match --out ab.pdf   |   toolhone plot runs/* --by training.method --csv m.csv   |"
    "   toolhone plot runs/* --bars exact_match   |   "
    "toolhone plot runs/* --bars exact_match --against data.samples"
)
def plot(
    runs: Annotated[
        list[Path], Argument(metavar="RUN_OR_LOG...", help="run folders, or metrics.jsonl files")
    ],
    out: Annotated[
        Path | None,
        Option(help="a .png, .svg or .pdf to write [default: curves.png in the first run]"),
    ] = None,
    metrics: Annotated[
        str, Option(help="names separated by commas, a panel for each [default: loss and scores]")
    ] = "",
    by: Annotated[
        str,
        Option(
            metavar="KEYS",
            help="runs that agree on these keys of the experiment are one series: mean and range",
        ),
    ] = "",
    bars: Annotated[
        str | None,
        Option(metavar="SCORE", help="bars of this score by category, with 95 % intervals"),
    ] = None,
    against: Annotated[
        str | None,
        Option(metavar="KEY", help="with --bars: the score against this number, as a curve"),
    ] = None,
    csv: Annotated[Path | None, Option(metavar="FILE", help="also write the numbers")] = None,
) -> None:
    """Draw curves, scores by category, or scores against a setting of runs."""
    from toolhone.reports.figure import check_format, draw_points, write_points
    from toolhone.reports.plots import bar_points, curve_points, setting_points

    names, keys = metrics.replace(",", " ").split(), by.replace(",", " ").split()
    if against is not None and bars is None:
        raise ConfigError("--against needs a score: add --bars exact_match, or another score")
    if bars is not None and names:
        raise ConfigError("--metrics are those of curves; leave it out where --bars names a score")
    kind = "curves" if bars is None else "bars" if against is None else "efficiency"
    file = out or (runs[0] if runs[0].is_dir() else runs[0].parent) / f"{kind}.png"
    check_format(file)
    if bars is None:
        points, styles = curve_points(runs, names, keys, to_stderr)
    elif against is None:
        points, styles = bar_points(runs, bars, keys)
    else:
        points, styles = setting_points(runs, bars, against, keys)
    print(draw_points(points, file, styles))
    if csv is not None:
        print(write_points(points, csv))
