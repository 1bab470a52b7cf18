"""`toolhone demo`: the whole story on the embedded model."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.demo import Story
    from toolhone.evaluation.statistics import Score

EXAMPLE = "Examples: toolhone demo   |   toolhone demo --seed 1 --out runs/mine --json"


def demo(
    seed: Annotated[int, typer.Option(help="of the data, the model and the training; same seed, same result")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="the run folder [default: the first free one of runs/demo, runs/demo-2, ...]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Watch a model learn to call tools: make data, train, evaluate, draw, talk. No network, no GPU, a few minutes."""
    from toolhone.demo import tell
    from toolhone.progress import open_progress

    folder = out or _free_folder()
    if not as_json:
        print(f"Training pico (0.8 million parameters) to call tools, from nothing; everything goes to {folder}", file=sys.stderr)
    with open_progress("plain" if as_json else "auto") as progress:
        story = tell(seed, folder, progress)
    if story is None:
        print(f"stopped; the state is saved. Go on with: toolhone train --resume --out {folder}", file=sys.stderr)
        raise typer.Exit(130)
    if as_json:
        print(json.dumps(story.to_dict()))
    else:
        _show(story)


def _free_folder() -> Path:
    names = (Path("runs") / (f"demo-{number}" if number > 1 else "demo") for number in count(1))
    return next(folder for folder in names if not folder.exists())


def _show(story: Story) -> None:
    from rich.table import Table

    from toolhone.cli.show import console, show_event
    from toolhone.demo import QUESTIONS, transcript
    from toolhone.evaluation.metrics import METRICS

    table = Table(title="What the model can do now: % right on tasks it never saw (95 % interval)", title_justify="left")
    table.add_column("metric")
    for split, result in story.evaluations.items():
        table.add_column(f"{split.replace('_', ' ')} (n={len(result.samples)})", justify="right")
    for name in METRICS:
        scores = [result.metrics[name] for result in story.evaluations.values()]
        table.add_row(name, *(_cell(score) for score in scores))
    out = console()
    out.print(table)
    for question in QUESTIONS:
        print(f"\nyou        {question}")
        for event in transcript(story.model, question):
            show_event(event)
    folder = story.run.folder
    print(
        f"\n{story.seconds:.0f} seconds. Curves: {story.plot}   Samples: {folder}/evaluation   Talk to it: toolhone chat {folder}"
    )


def _cell(score: Score) -> str:
    if score.value is None or score.low is None or score.high is None:
        return "-"
    return f"{100 * score.value:.1f}  ({100 * score.low:.1f} to {100 * score.high:.1f})"
