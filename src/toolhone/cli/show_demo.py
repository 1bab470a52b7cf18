"""`toolhone demo`: the whole story on the embedded model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from toolhone.evaluation.statistics import Score
    from toolhone.guide.demo import Stage, Story
    from toolhone.guide.lesson import Desk

EXAMPLE = "Examples: toolhone demo   |   toolhone demo --all   |   toolhone demo --seed 1 --out runs/mine --json"
LONGEST = 140
"""Characters of a reply that are shown."""
SHOWN = 3
"""Questions that are shown with what the model said before and after."""


def demo(
    seed: Annotated[
        int, typer.Option(help="of the data, the model and the training; same seed, same result")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="the run folder [default: the first free one of runs/demo, runs/demo-2, ...]"
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="the longer tour: all tools, a tool of your own, all dialects, full training and LoRA",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object and nothing else")
    ] = False,
) -> None:
    """Watch a model learn to call tools: SFT, then GRPO, before and after, curves, talk. No network, no GPU, about ten minutes."""
    if everything:
        _tour(seed, out or _free_folder("demo-all"), as_json)
        return
    from toolhone.guide.demo import tell

    folder = out or _free_folder("demo")
    if not as_json:
        said = "from random weights to calling tools by SFT, then on to phrasings that SFT never saw by GRPO"
        print(
            f"Training pico (0.8 million parameters) {said}; everything goes to {folder}",
            file=sys.stderr,
        )
    try:
        story = tell(seed, _desk(seed, folder, as_json))
    except KeyboardInterrupt:
        print(
            f"stopped; what was trained is kept. Go on with: toolhone demo --seed {seed} --out {folder}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(story.to_dict()))
    else:
        _show(story)


def _desk(seed: int, folder: Path, as_json: bool) -> Desk:
    """Where the trainings work, with progress and remarks on standard error."""
    from toolhone.guide.lesson import Desk
    from toolhone.runs.progress import open_progress

    watch = lambda: open_progress("plain" if as_json else "auto")  # noqa: E731
    return Desk(folder, (f"seed={seed}",), watch, lambda text: print(text, file=sys.stderr))


def _free_folder(name: str) -> Path:
    names = (Path("runs") / (f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(folder for folder in names if not folder.exists())


def _show(story: Story) -> None:
    """Before and after, questions that only the tuned model gets right, live talks, and where everything lies."""
    from toolhone.cli.console import console, show_event
    from toolhone.guide.demo import QUESTIONS, transcript

    out = console()
    out.print(_table(story))
    for pair in story.learned(SHOWN):
        before, after = pair.base[0], pair.tuned[0]
        print(
            f"\n{before.query}\n  after SFT    {_brief(before.text)}\n  after GRPO   {_brief(after.text)}"
        )
    for question in QUESTIONS:
        print(f"\nyou        {question}")
        for event in transcript(story.model, question):
            show_event(event)
    loss, reward = story.plots
    print(
        f"\n{story.seconds:.0f} seconds. Curves: {loss} (SFT), {reward} (GRPO)   Talk to it: toolhone chat {reward.parent / 'run'}"
    )


def _table(story: Story) -> Table:
    from rich.table import Table

    from toolhone.guide.demo import SPLITS

    said = (
        "Exact match in % on tasks it never saw (95 % interval); the change is over the same tasks"
    )
    table = Table(title=said, title_justify="left")
    for heading in ("", "n", "after SFT", "after GRPO", "change"):
        table.add_column(heading, justify="right" if heading else "left")
    for split, name in SPLITS.items():
        cell = story.change(split)
        table.add_row(
            name,
            str(cell.n),
            _cell(cell.base),
            _cell(cell.tuned),
            f"{_cell(cell.difference)}  {cell.verdict}",
        )
    return table


def _brief(text: str) -> str:
    """The first line of what a model said, as far as it fits; whole it stands in the evaluation's folder."""
    first = text.partition("\n")[0]
    return first[:LONGEST] + ("…" if len(first) > LONGEST else "")


def _cell(score: Score) -> str:
    if score.value is None or score.low is None or score.high is None:
        return "-"
    return f"{100 * score.value:.1f}  ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _tour(seed: int, folder: Path, as_json: bool) -> None:
    """Show each training of the tour as it is done, two talks, and the table at the end."""
    from toolhone.guide.demo import tour
    from toolhone.runs.run import write_json

    if not as_json:
        print(
            f"Six short trainings of pico (0.8 million parameters); everything goes to {folder}",
            file=sys.stderr,
        )
    desk = _desk(seed, folder, as_json)
    stages = []
    started = time.monotonic()
    try:
        for stage in tour(desk):
            stages.append(stage)
            if not as_json:
                _show_stage(stage)
    except KeyboardInterrupt:
        print(
            f"stopped; what was trained is kept. Go on with: toolhone demo --all --seed {seed} --out {folder}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    found = {
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.to_dict() for stage in stages],
        "out": str(folder),
    }
    write_json(folder / "tour.json", found)
    if as_json:
        print(json.dumps(found))
    else:
        _show_tour(stages, time.monotonic() - started)


def _show_stage(stage: Stage) -> None:
    """The score of a stage, and talks with some of them."""
    from toolhone.cli.lesson_view import show
    from toolhone.guide.demo import talks_of

    print(
        f"\n{stage.name}: {stage.method}; dialect {stage.dialect}; exact match {_cell(stage.exact_match)}",
        flush=True,
    )
    for talk in talks_of(stage):
        show(talk)


def _show_tour(stages: Sequence[Stage], seconds: float) -> None:
    from rich.table import Table

    from toolhone.cli.console import console

    table = Table(
        title="Exact match in % on tasks it never saw (95 % interval)", title_justify="left"
    )
    for heading in ("stage", "method", "dialect", "tools", "exact match", "n", "seconds"):
        table.add_column(
            heading, justify="right" if heading in ("exact match", "n", "seconds") else "left"
        )
    for stage in stages:
        score = stage.exact_match
        table.add_row(
            stage.name,
            stage.method,
            stage.dialect,
            stage.tools,
            _cell(score),
            str(score.n),
            f"{stage.seconds:.0f}",
        )
    console().print(table)
    print(
        f"{seconds:.0f} seconds. Talk to one: toolhone chat {stages[1].run.folder}   Lessons: toolhone examples"
    )
