"""The story of `toolhone demo`: data, SFT of the embedded model, GRPO on new phrasings, a
comparison, curves.

    result = run_demo(0, Workspace(Path("runs/demo")))     # scores after SFT, and after GRPO
    stages = tour(Workspace(Path("runs/demo-all")))        # `--all`: tools, dialects, teachers

The experiments are the presets `demo` and `demo-grpo`. A demo that was stopped resumes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.api import Model, evaluate, open_model
from toolhone.config.presets import read_preset
from toolhone.data.templates import Templates
from toolhone.evaluation.compare import TaskPair, compare
from toolhone.evaluation.folder import METRICS, read_folder, write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score
from toolhone.evaluation.verdict import Cell
from toolhone.guide.lesson import Workspace, finished_or_trained, lesson_named, trained
from toolhone.reports.plots import plot_runs
from toolhone.runs.run import Run, write_json
from toolhone.sources.files import write_jsonl
from toolhone.training.before_after import format_of_run

SPLITS = {
    "held_out_fillers": "old phrasings",
    "rl_held_out": "new phrasings",
    "held_out_phrasings": "phrasings in neither",
}
"""Task splits and their names: SFT trains on the old phrasings, GRPO on the new ones; names and
numbers are fresh."""
TASKS = 400
"""Tasks of each split."""
WATCHED = 140
"""Tasks in new phrasings that GRPO is measured on while it trains."""
QUESTIONS = (
    "What is 48 * 17?",
    "How is the weather in Lisbon?",
    "Search the web for green volcanoes",
)
TOUR_QUESTIONS = {
    "several-tools": (
        ("How is the weather in Oslo?", "and in Lisbon?"),
        ("I want the word planet in upper case",),
        ("Search the web for green volcanoes",),
    ),
    "own-tool": (("Book a double room in Lisbon for 3 nights for Anna Berg",),),
}
"""Conversations with stages of the tour that know more than the calculator, and call in the model's
own way."""


_RECIPE = {"batch_size": 16, "learning_rate": 0.0005, "lora": None, "log_every": 20}
_RARELY = {"validate_every": 0, "save_every": 0}
_REPLIES = {"max_completion_length": 64, "new_phrasings": 0}
FURTHER: Mapping[str, Mapping[str, Any]] = {
    "own-best-answers": {
        "training": {
            **{"method": "teacher_mode", "steps": 30, **_RECIPE, **_RARELY},
            "rl": {**_REPLIES, "group_size": 4, "ptx": {"coef": 1}, "temperature": 1.3},
        },
        "teacher": {"rounds": 2, "tasks": 64},
    },
    "baked-tools": {
        "training": {
            **{"method": "distill", "steps": 60, "bake": {}, **_RECIPE, **_RARELY},
            "rl": {**_REPLIES, "group_size": 1},
        }
    },
}
"""Stages of the tour that go on from the model with all four tools: it learns from its own best
answers; and it learns to call its tools without any in the prompt."""


@dataclass(frozen=True)
class DemoResult:
    """`before` (after SFT) and `after` (after GRPO) by split; `plots` are the PNGs with the
    curves."""

    seconds: float
    folder: Path
    model: Model
    before: dict[str, Evaluation]
    after: dict[str, Evaluation]
    plots: tuple[Path, Path]

    def change(self, split: str, metric: str = "exact_match") -> Cell:
        """Compare before and after on the same tasks, with the interval of their difference."""
        return compare(self.before[split], self.after[split], (metric,)).totals[metric]

    def learned(self, most: int) -> list[TaskPair]:
        """Find tasks in new phrasings that only the model after GRPO gets right, of different
        categories first."""
        before, after = self.before["rl_held_out"], self.after["rl_held_out"]
        return compare(before, after, ("exact_match",)).changed("exact_match", True)[:most]

    def to_dict(self) -> dict[str, object]:
        """Return `{"seconds", "exact_match": {split: {"sft", "grpo"}}, "out"}`."""
        cells = {split: self.change(split) for split in self.before}
        exact = {
            split: {"sft": cell.base.value, "grpo": cell.tuned.value}
            for split, cell in cells.items()
        }
        return {"seconds": round(self.seconds, 1), "exact_match": exact, "out": str(self.folder)}


def run_demo(seed: int, space: Workspace) -> DemoResult:
    """Run SFT, evaluate, run GRPO on phrasings that SFT never saw, evaluate, plot. Ctrl-C keeps
    what is done, and is raised."""
    started, templates = time.monotonic(), Templates(seed)
    sft = trained(space, "sft", {**read_preset("demo"), "seed": seed})
    before = _evaluate_splits(space, sft, templates)
    tasks = [task.to_dict() for task in templates.tasks(WATCHED, "rl_held_out")]
    watched = space.root / "grpo" / "new_phrasings.jsonl"
    write_jsonl(watched, tasks)
    preset = read_preset("demo-grpo")
    preset["seed"] = seed
    preset["model"]["adapter"] = str(sft.folder.resolve())
    preset["evaluation"]["tasks"] = str(watched.resolve())
    grpo = trained(space, "grpo", preset)
    after = _evaluate_splits(space, grpo, templates)
    loss = plot_runs([sft.folder], space.root / "sft" / "curves.png")
    plots = loss, plot_runs([grpo.folder], space.root / "grpo" / "curves.png")
    seconds = time.monotonic() - started
    result = DemoResult(seconds, space.root, open_model(grpo.folder), before, after, plots)
    write_json(space.root / "demo.json", result.to_dict())
    return result


def _evaluate_splits(space: Workspace, run: Run, templates: Templates) -> dict[str, Evaluation]:
    """Evaluate a run on every split, into a folder in the run; existing evaluations are read."""
    found = {}
    for split in SPLITS:
        folder = run.folder / "evaluation" / split
        if not (folder / METRICS).is_file():
            model = open_model(run.folder)
            with space.open_progress() as progress:
                result = evaluate(model, templates.tasks(TASKS, split), progress=progress)
            formats = format_of_run(model.certificate, model.experiment)
            write_folder(result, folder, formats, overwrite=True)
        found[split] = read_folder(folder)
    return found


@dataclass(frozen=True)
class TourStage:
    """One training of the tour, and its score on tasks that it never saw."""

    name: str
    method: str
    dialect: str
    tools: str
    run: Run
    exact_match: Score
    seconds: float

    def to_dict(self) -> dict[str, object]:
        texts = {name: getattr(self, name) for name in ("name", "method", "dialect", "tools")}
        seconds = round(self.seconds, 1)
        score, out = self.exact_match.to_dict(), str(self.run.folder)
        return {**texts, "exact_match": score, "seconds": seconds, "out": out}


def tour(space: Workspace) -> Iterator[TourStage]:
    """Train the embedded model with every tool and in every dialect; finished stages are not
    trained again.

    One model learns the calculator from random weights. From its weights continue one with all four
    tools (and from that one, by LoRA, one with the user's own tool, and those of `FURTHER`), and
    one for each prompted dialect. The last two play in a shop whose calls fail, and `solved` is
    their score: SFT on episodes that mostly give up, and GRPO from there."""
    for name in ("calculator", "several-tools", "own-tool"):
        lesson = lesson_named(name)
        if name == "own-tool":
            space.write(name, "own_tool.py", lesson.files()["own_tool.py"])
        yield _stage(space, name, lesson.experiment(space))
    values = lesson_named("format").experiment(space)
    for dialect in ("json", "calls", "tagged"):
        yield _stage(space, dialect, {**values, "model": {**values["model"], "dialect": dialect}})
    several = lesson_named("several-tools").experiment(space)
    start = finished_or_trained(space, "several-tools").checkpoint()
    several["model"] = {"name": f"../{start.relative_to(space.root)}"}
    for name, changes in FURTHER.items():
        yield _stage(space, name, {**several, **changes})
    yield (shop := _stage(space, "shop", read_preset("shop-logs")))
    retry = read_preset("shop-retry")
    retry["model"]["adapter"] = str(shop.run.folder.resolve())
    yield _stage(space, "shop-retry", retry)


def _stage(space: Workspace, name: str, values: Mapping[str, Any]) -> TourStage:
    started = time.monotonic()
    run = trained(space, name, values)
    training, model = run.experiment.training, run.experiment.model
    found = read_folder(run.folder / "evaluation")
    offered = dict.fromkeys(name for sample in found.samples for name in sample.offered)
    weights = "every weight" if training.lora is None else f"LoRA of rank {training.lora.rank}"
    return TourStage(
        name,
        f"{training.method}, {weights}",
        "the model's own" if model.dialect == "auto" else model.dialect,
        ", ".join(offered),
        run,
        found.metrics.get("solved", found.metrics["exact_match"]),
        time.monotonic() - started,
    )
