"""The story of `toolhone demo`: make data, train the embedded model, evaluate it, draw the curves, let it run its tools.

    story = tell(seed=0, out=Path("runs/demo"), progress=progress)
    story.exact_match            # {"held_out_fillers": Score, "held_out_phrasings": Score}
    stages = tour(desk)          # `--all`: every tool, every dialect, every method, each in a short training

No network, no GPU, nothing to download; minutes on two cores. The experiment is the preset `demo`, the same kind of file that a
user writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.algorithms.sft import Ending
from toolhone.api import Model, evaluate, open_model, train
from toolhone.config import make_experiment
from toolhone.data.gather import tools_of
from toolhone.data.templates import Templates
from toolhone.episodes.dialogue import Dialogue, Event
from toolhone.evaluation.folder import read_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score
from toolhone.lessons import calculator, format, own_tool, several
from toolhone.lessons.desk import Desk, Talk, model_of, talks, trained
from toolhone.presets import read_preset
from toolhone.progress import Progress
from toolhone.reports.plots import plot_runs
from toolhone.run import Run, write_json
from toolhone.sections import Experiment

SPLITS = ("held_out_fillers", "held_out_phrasings")
TASKS = 400
"""Tasks of each split in the evaluation at the end."""
QUESTIONS = ("What is 48 * 17?", "How is the weather in Lisbon?", "Search the web for green volcanoes")


@dataclass(frozen=True)
class Story:
    """What the demo found. `evaluations` by split; `plot` is the PNG with the curves."""

    seconds: float
    run: Run
    model: Model
    evaluations: dict[str, Evaluation]
    plot: Path

    def to_dict(self) -> dict[str, object]:
        """`{"seconds", "exact_match": {split: value}, "out"}`."""
        exact = {split: result.metrics["exact_match"].value for split, result in self.evaluations.items()}
        return {"seconds": round(self.seconds, 1), "exact_match": exact, "out": str(self.run.folder)}


def plan(seed: int) -> Experiment:
    """The experiment of the demo."""
    return make_experiment({**read_preset("demo"), "seed": seed}, "the preset demo")


def tell(seed: int, out: Path, progress: Progress) -> Story | None:
    """Train, evaluate on held-out fillers and held-out phrasings, draw; None when Ctrl-C ended it."""
    started = time.monotonic()
    run, ending = train(plan(seed), out, progress=progress)
    if ending is not Ending.FINISHED:
        return None
    model = open_model(run.folder)
    evaluations = {
        split: evaluate(model, Templates(seed).tasks(TASKS, split), out=run.folder / "evaluation" / split, progress=progress)
        for split in SPLITS
    }
    picture = plot_runs([run.folder], run.folder / "curves.png")
    story = Story(time.monotonic() - started, run, model, evaluations, picture)
    write_json(run.folder / "demo.json", story.to_dict())
    return story


def transcript(model: Model, question: str) -> list[Event]:
    """One question, and everything that happens until the answer."""
    return list(Dialogue(model.policy(), model.registry).say(question))


@dataclass(frozen=True)
class Stage:
    """One training of the tour, and what came of it on tasks it never saw."""

    name: str
    method: str
    dialect: str
    tools: str
    run: Run
    exact_match: Score
    seconds: float

    def to_dict(self) -> dict[str, object]:
        score = {
            "value": self.exact_match.value,
            "low": self.exact_match.low,
            "high": self.exact_match.high,
            "n": self.exact_match.n,
        }
        told = {"name": self.name, "method": self.method, "dialect": self.dialect, "tools": self.tools, "exact_match": score}
        return {**told, "seconds": round(self.seconds, 1), "out": str(self.run.folder)}


def tour(desk: Desk) -> Iterator[Stage]:
    """Train the embedded model with every tool, in every dialect, by every method that stands; what is there is not trained again.

    One model learns the calculator from random weights; from its weights go on: one with all four tools (and from that one, by
    LoRA, one with a tool of the user's own), and one for each written dialect.
    """
    first = _stage(desk, calculator.NAME, calculator.EXPERIMENT)
    yield first
    several_tools = _stage(desk, several.NAME, several.experiment_from(first.run))
    yield several_tools
    own_tool.write_code(desk)
    yield _stage(desk, own_tool.NAME, own_tool.experiment_from(several_tools.run))
    for dialect in format.DIALECTS:
        yield _stage(desk, dialect, format.experiment_in(dialect, first.run))


def talks_of(stage: Stage) -> Iterator[Talk]:
    """Live talks with a stage that knows more than the calculator, and calls in the model's own way."""
    if stage.name == several.NAME:
        yield from talks(model_of(stage.run), *several.QUESTIONS)
    elif stage.name == own_tool.NAME:
        yield from talks(own_tool.model_with_tool(stage.run), *own_tool.QUESTIONS[:1])


def _stage(desk: Desk, name: str, values: Mapping[str, Any]) -> Stage:
    started = time.monotonic()
    run = trained(desk, name, values)
    training, model = run.experiment.training, run.experiment.model
    scores = read_folder(run.folder / "evaluation")
    return Stage(
        name,
        f"{training.method}, {'every weight' if training.lora is None else f'LoRA of rank {training.lora.rank}'}",
        "the model's own" if model.dialect == "auto" else model.dialect,
        ", ".join(tool.name for tool in tools_of(run.experiment)),
        run,
        scores.metrics["exact_match"],
        time.monotonic() - started,
    )
