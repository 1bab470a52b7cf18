"""The story of `toolhone demo`: make data, train the embedded model, teach it new phrasings by reward, compare, draw, talk.

    story = tell(seed=0, desk=Desk(Path("runs/demo")))
    story.before, story.after    # {"held_out_fillers": Evaluation, ...}: after SFT, and after GRPO
    stages = tour(desk)          # `--all`: every tool, every dialect, each in a short training

No network, no GPU, nothing to download; minutes on two cores. The experiments are the presets `demo` and `demo-grpo`, the same kind
of files that a user writes. A demo that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.api import Model, evaluate, format_of_run, open_model
from toolhone.config.presets import read_preset
from toolhone.data.dataset import tools_of
from toolhone.data.templates import Templates
from toolhone.episodes.chat_session import ChatSession, Event
from toolhone.evaluation.compare import Cell, TaskPair, compare
from toolhone.evaluation.folder import METRICS, read_folder, write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score
from toolhone.guide import calculator, own_tool
from toolhone.guide import call_format as format
from toolhone.guide import several_tools as several
from toolhone.guide.lesson import Desk, Talk, model_of, talks, trained, write_rows
from toolhone.reports.plots import plot_runs
from toolhone.runs.run import Run, write_json

SPLITS = {
    "held_out_fillers": "old phrasings",
    "rl_held_out": "new phrasings",
    "held_out_phrasings": "phrasings in neither",
}
"""What is measured, and what it is called: SFT has seen the old phrasings, GRPO plays the new ones; names and numbers are fresh."""
TASKS = 400
"""Tasks of each split."""
WATCHED = 140
"""Tasks in new phrasings that GRPO is measured on while it learns."""
QUESTIONS = (
    "What is 48 * 17?",
    "How is the weather in Lisbon?",
    "Search the web for green volcanoes",
)


@dataclass(frozen=True)
class Story:
    """What the demo found. `before` (after SFT) and `after` (after GRPO) by split; `plots` are the PNGs with the curves."""

    seconds: float
    folder: Path
    model: Model
    before: dict[str, Evaluation]
    after: dict[str, Evaluation]
    plots: tuple[Path, Path]

    def change(self, split: str, metric: str = "exact_match") -> Cell:
        """Before and after on the same tasks, with the interval of their difference."""
        return compare(self.before[split], self.after[split], (metric,)).totals[metric]

    def learned(self, most: int) -> list[TaskPair]:
        """Tasks in new phrasings that only the model after GRPO gets right, of different categories first."""
        return compare(
            self.before["rl_held_out"], self.after["rl_held_out"], ("exact_match",)
        ).changed("exact_match", True)[:most]

    def to_dict(self) -> dict[str, object]:
        """`{"seconds", "exact_match": {split: {"sft", "grpo"}}, "out"}`."""
        changes = {split: self.change(split) for split in self.before}
        exact = {
            split: {"sft": cell.base.value, "grpo": cell.tuned.value}
            for split, cell in changes.items()
        }
        return {"seconds": round(self.seconds, 1), "exact_match": exact, "out": str(self.folder)}


def tell(seed: int, desk: Desk) -> Story:
    """SFT, evaluation, GRPO on phrasings that SFT never saw, evaluation, curves. Ctrl-C keeps what is there, and is raised."""
    started, made = time.monotonic(), Templates(seed)
    sft = trained(desk, "sft", {**read_preset("demo"), "seed": seed})
    before = _measured(desk, sft, made)
    watched = write_rows(
        desk,
        "grpo",
        "new_phrasings.jsonl",
        [task.to_dict() for task in made.tasks(WATCHED, "rl_held_out")],
    )
    grpo = trained(desk, "grpo", _from(read_preset("demo-grpo"), sft, watched, seed))
    after = _measured(desk, grpo, made)
    plots = (
        plot_runs([sft.folder], desk.folder("sft") / "curves.png"),
        plot_runs([grpo.folder], desk.folder("grpo") / "curves.png"),
    )
    story = Story(
        time.monotonic() - started, desk.root, open_model(grpo.folder), before, after, plots
    )
    write_json(desk.root / "demo.json", story.to_dict())
    return story


def _from(preset: Mapping[str, Any], sft: Run, watched: Path, seed: int) -> dict[str, Any]:
    """The preset, starting from the weights of `sft` and measured on the watched tasks."""
    model = {**preset["model"], "adapter": str(sft.folder.resolve())}
    evaluation = {**preset["evaluation"], "tasks": str(watched.resolve())}
    return {**preset, "seed": seed, "model": model, "evaluation": evaluation}


def _measured(desk: Desk, run: Run, made: Templates) -> dict[str, Evaluation]:
    """The scores of a run on every split, written beside it; those that are there are read."""
    found = {}
    for split in SPLITS:
        folder = run.folder / "evaluation" / split
        if not (folder / METRICS).is_file():
            with desk.watch() as progress:
                result = evaluate(
                    model := open_model(run.folder), made.tasks(TASKS, split), progress=progress
                )
            write_folder(
                result, folder, format_of_run(model.certificate, model.experiment), overwrite=True
            )
        found[split] = read_folder(folder)
    return found


def transcript(model: Model, question: str) -> list[Event]:
    """One question, and everything that happens until the answer."""
    return list(ChatSession(model.policy(), model.registry).say(question))


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
        told = {
            "name": self.name,
            "method": self.method,
            "dialect": self.dialect,
            "tools": self.tools,
            "exact_match": score,
        }
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
