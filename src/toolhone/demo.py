"""The story of `toolhone demo`: make data, train the embedded model, evaluate it, draw the curves, let it run its tools.

    story = tell(seed=0, out=Path("runs/demo"), progress=progress)
    story.exact_match            # {"held_out_fillers": Score, "held_out_phrasings": Score}

No network, no GPU, nothing to download; minutes on two cores. The experiment is the preset `demo`, the same kind of file that a user
writes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from toolhone.algorithms.sft import Ending
from toolhone.api import Model, evaluate, open_model, train
from toolhone.config import make_experiment
from toolhone.data.templates import Templates
from toolhone.episodes.dialogue import Dialogue, Event
from toolhone.evaluation.metrics import Evaluation
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
