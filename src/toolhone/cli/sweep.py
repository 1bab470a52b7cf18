"""`toolhone sweep` trains every setting of a study for several seeds, and compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.cli.flags import AsJson
from toolhone.errors import ConfigError
from toolhone.guide.study import read_study, study_comment, study_names

app = typer.Typer(rich_markup_mode=None)


@app.command(
    epilog="Examples: toolhone sweep methods   |   toolhone sweep sft.json --over "
    "training.learning_rate=1e-4,3e-4,1e-3 --seeds 3   |   toolhone sweep few-shot --seeds 1 "
    "training.steps=10   |   toolhone sweep --list"
)
def sweep(  # noqa: PLR0913 (the options of a command)
    study: Annotated[
        str | None, Argument(metavar="EXPERIMENT.json|STUDY", help="a file, a study or a preset")
    ] = None,
    overrides: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="of every run: training.steps=20")
    ] = None,
    over: Annotated[
        list[str] | None,
        Option(metavar="KEY=A,B,C", help="train with each of these values; may be repeated"),
    ] = None,
    seeds: Annotated[int, Option(min=1, help="train each setting with this many seeds")] = 3,
    out: Annotated[
        Path | None, Option(help="the folder of the runs [default: runs/ and the study's name]")
    ] = None,
    jobs: Annotated[int, Option(min=1, help="runs at once; they share the cores")] = 1,
    metric: Annotated[str | None, Option(help="the score to compare by")] = None,
    list_studies: Annotated[bool, Option("--list", help="list the studies that ship")] = False,
    as_json: AsJson = False,
) -> None:
    """Train every setting of a study for several seeds, and compare them: one table, one plot.

    Run the same command again to continue.
    """
    from dataclasses import replace

    from toolhone.guide.study_runs import Sweep, result_points, result_table
    from toolhone.reports.figure import draw_points, write_points

    if list_studies:
        for name in study_names():
            print(f"{name:18}{study_comment(name)}")
        return
    if study is None:
        raise ConfigError("name a study or an experiment file; toolhone sweep --list shows studies")
    plan = read_study(study, over or ())
    plan = plan if metric is None else replace(plan, metric=metric)
    if len(plan.settings) < 2:
        raise ConfigError(f"{study} has one setting; name values to compare with --over key=a,b")
    folder = out or Path("runs") / Path(study).stem
    made = Sweep(plan, folder, seeds, tuple(overrides or ()), print_note)
    made.run(jobs)
    results = made.result()
    points, style = result_points(plan, results)
    draw_points(points, folder / "plot.png", {plan.metric: style})
    write_points(points, folder / "results.csv")
    table = result_table(plan, results)
    (folder / "results.md").write_text(table + "\n", encoding="utf-8")
    print(json.dumps([one.to_dict() for one in results]) if as_json else table)
    print_note(f"plot: {folder}/plot.png   numbers: {folder}/results.csv, results.json")
