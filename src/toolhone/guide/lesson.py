"""What a lesson is made of: the things it shows, where it works, and training that is not done twice.

    desk = Desk(Path("runs/examples"))
    run = trained(desk, "calculator", values)        # writes calculator/experiment.json, trains into calculator/run

A lesson yields what is to be shown (`Shown`), in order; who shows it, and how, is not its business. What it trains is an experiment
file like any other, so that the reader can type the same. Nothing here prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from toolhone.api import Model, experiment, open_model, train
from toolhone.config.sections import Experiment
from toolhone.episodes.chat_session import ChatSession, Event
from toolhone.errors import UserError
from toolhone.evaluation.folder import read_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.runs.run import FINAL, Run, write_text, writing
from toolhone.sources.files import write_jsonl
from toolhone.training.sft import TrainStatus

WIDTH = 100
"""Longest line of an experiment file that a lesson writes, where a line can be broken."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Typed:
    """Something that the reader can type: commands, an experiment file, Python. `file` is where it lies, if it does."""

    text: str
    language: str = "console"
    file: str = ""


@dataclass(frozen=True)
class Scores:
    """An evaluation, with as many of its mistakes as are worth a look."""

    title: str
    evaluation: Evaluation
    mistakes: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of short texts under headings."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Talk:
    """A question to a model, and everything that happened until the answer."""

    question: str
    events: Sequence[Event]


@dataclass(frozen=True)
class Coloured:
    """A rendered conversation: pieces of text, each with whether it is trained."""

    title: str
    pieces: Sequence[tuple[str, bool]]


Shown = Text | Typed | Scores | Table | Talk | Coloured


@dataclass(frozen=True)
class Desk:
    """Where lessons work: the folder they write into, changes to their experiments, how to watch progress, who hears remarks."""

    root: Path
    overrides: tuple[str, ...] = ()
    watch: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(SilentProgress())
    tell: Callable[[str], None] = lambda _: None

    def folder(self, name: str) -> Path:
        return self.root / name


@dataclass(frozen=True)
class Lesson:
    """One lesson. `about` is shown before it, `look` and `then` after it; `{root}` in texts is the folder of all lessons."""

    name: str
    title: str
    takes: str
    about: str
    look: str
    then: str
    play: Callable[[Desk], Iterator[Shown]]


def write_experiment(desk: Desk, name: str, values: Mapping[str, Any]) -> Path:
    """Write the experiment file of a lesson, laid out for reading."""
    path = desk.folder(name) / "experiment.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, laid_out(values) + "\n")
    return path


def laid_out(values: Any, indent: str = "") -> str:
    """JSON in which what fits on a line stands on one."""
    line = json.dumps(values, ensure_ascii=False)
    if not isinstance(values, dict | list) or len(indent) + len(line) <= WIDTH:
        return line
    deeper = indent + "  "
    if isinstance(values, list):
        parts = [laid_out(value, deeper) for value in values]
    else:
        parts = [f"{json.dumps(key)}: {laid_out(value, deeper)}" for key, value in values.items()]
    opening, closing = "[]" if isinstance(values, list) else "{}"
    return opening + "\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}{closing}"


def trained(desk: Desk, name: str, values: Mapping[str, Any]) -> Run:
    """The finished run of these settings: the one that is there, one that was stopped and now goes on, or a new one."""
    plan = experiment(write_experiment(desk, name, values), desk.overrides)
    folder, there = place_for(desk.folder(name), plan)
    if there is not None and FINAL in there.checkpoints():
        desk.tell(
            f"{folder} is trained already and is used as it is; remove the folder to train again"
        )
        return there
    with desk.watch() as progress:
        run, ending = train(plan, folder, resume=there is not None, progress=progress)
    if ending is TrainStatus.INTERRUPTED:
        raise KeyboardInterrupt
    return run


def place_for(folder: Path, plan: Experiment) -> tuple[Path, Run | None]:
    """The run in `folder` that has this plan, or the first free name for one: run, run-2, ..."""
    for number in count(1):
        path = folder / ("run" if number == 1 else f"run-{number}")
        if not (path / "experiment.json").exists():
            return path, None
        run = opened(path)
        if run is not None and run.experiment == plan:
            return path, run
    raise AssertionError("count never ends")


def finished(desk: Desk, name: str) -> Run | None:
    """Any finished run of a lesson, whatever its settings."""
    runs = [opened(path.parent) for path in sorted(desk.folder(name).glob("run*/experiment.json"))]
    return next((run for run in runs if run is not None and FINAL in run.checkpoints()), None)


def opened(path: Path) -> Run | None:
    """A run; None where its file belongs to another version and cannot be read."""
    try:
        return Run.open(path)
    except UserError:
        return None


def scores_of(run: Run, title: str, mistakes: int = 0) -> Scores:
    """The evaluation at the end of a run."""
    return Scores(title, read_folder(run.folder / "evaluation"), mistakes)


def talks(model: Model, *several: Sequence[str]) -> Iterator[Talk]:
    """Ask the questions of each talk, one after the other."""
    for questions in several:
        dialogue = ChatSession(
            model.policy(), model.registry, model.experiment.evaluation.max_turns
        )
        for question in questions:
            yield Talk(question, list(dialogue.say(question)))


def model_of(run: Run, *overrides: str) -> Model:
    """The trained model of a run."""
    return open_model(run.folder, overrides=overrides)


def write_rows(desk: Desk, name: str, file: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSON Lines into the folder of a lesson."""
    path = desk.folder(name) / file
    write_jsonl(path, rows)
    return path


def write_file(desk: Desk, name: str, file: str, text: str) -> Path:
    """Write a text file into the folder of a lesson."""
    path = desk.folder(name) / file
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return path
