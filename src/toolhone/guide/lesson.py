"""Lessons: Markdown files (`lessons/*.md`), the workspace they write into, and training that is not
repeated.

space = Workspace(Path("runs/examples"))
run = trained(space, "calculator", values)     # calculator/experiment.json and calculator/run"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

from toolhone.api import Model, began_with, experiment, open_model, train
from toolhone.config.sections import Experiment
from toolhone.episodes.chat_session import ChatSession, Event
from toolhone.errors import UserError
from toolhone.runs.progress import Progress
from toolhone.runs.run import FINAL, Run, write_text, writing
from toolhone.training.loop import TrainStatus

WIDTH = 100
"""Longest line of JSON that a lesson writes, where a line can be broken."""
_TITLE = re.compile(r"# (?P<title>.*) \((?P<takes>.*)\)\n")
_PART = re.compile(
    r"^```(?P<language>\w+) ?(?P<file>\S*)\n(?P<code>.*?)^```$"
    r"|^<!-- (?P<action>[^:\n]*?)(?:: (?P<argument>.*?))? -->$"
    r"|^## (?P<heading>[^\n]*)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Workspace:
    """Where lessons and the demo work: their folder, changes to their experiments, progress, and
    remarks."""

    root: Path
    overrides: tuple[str, ...] = ()
    open_progress: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(Progress())
    note: Callable[[str], None] = lambda _: None

    def write(self, name: str, file: str, text: str) -> Path:
        """Write a text file into the folder of a lesson."""
        path = self.root / name / file
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        return path


@dataclass(frozen=True)
class Lesson:
    """A Markdown file: `# title (time)`, prose, files, commands, and `<!-- action: argument -->`
    for live results.

    `{root}` is the folder of all lessons; `"{calculator}"` in an experiment is the checkpoint of
    that lesson."""

    number: int
    name: str
    title: str
    takes: str
    text: str

    def parts(self) -> Iterator[str | re.Match[str]]:
        """Yield paragraphs, and matches of `_PART` for everything else."""
        place = 0
        for match in _PART.finditer(self.text):
            yield self.text[place : match.start()].strip()
            yield match
            place = match.end()
        yield self.text[place:].strip()

    def files(self) -> dict[str, str]:
        matches = [part for part in self.parts() if not isinstance(part, str)]
        return {match["file"]: match["code"] for match in matches if match["file"]}

    def experiment(self, space: Workspace) -> dict[str, Any]:
        """Read the experiment, its checkpoints filled in; a lesson that it builds on is trained
        first."""

        def checkpoint(match: re.Match[str]) -> str:
            run = finished_or_trained(space, match[1])
            folder = run.folder.relative_to(space.root)
            return json.dumps(f"../{folder}/checkpoints/{run.checkpoint().name}")

        text = re.sub(r'"\{([\w-]+)\}"', checkpoint, self.files()["experiment.json"])
        values: dict[str, Any] = json.loads(text)
        return values


@cache
def lessons() -> Sequence[Lesson]:
    """Read every lesson, in order."""
    found = []
    folder = resources.files("toolhone.guide") / "lessons"
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        text = path.read_text(encoding="utf-8")
        title = _TITLE.match(text)
        assert title is not None, path
        number, _, name = path.name.removesuffix(".md").partition("-")
        found.append(Lesson(int(number), name, title["title"], title["takes"], text[title.end() :]))
    return found


def lesson_named(name: str) -> Lesson:
    return next(lesson for lesson in lessons() if lesson.name == name)


def finished_or_trained(space: Workspace, name: str) -> Run:
    """Return any finished run of a lesson, or train the lesson now, without the workspace's
    overrides."""
    run = finished(space, name)
    if run is None:
        lesson = lesson_named(name)
        space.note(f"lesson {lesson.number} ({name}) comes first: this lesson builds on its run")
        run = trained(replace(space, overrides=()), name, lesson.experiment(space))
    return run


def laid_out(values: Any, indent: str = "") -> str:
    """Write JSON with everything on one line that fits on one."""
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


def trained(space: Workspace, name: str, values: Mapping[str, Any]) -> Run:
    """Return the finished run of these settings: an existing one, a stopped one after it resumed,
    or a new one."""
    file = space.write(name, "experiment.json", laid_out(values) + "\n")
    plan = experiment(file, space.overrides)
    folder, existing = place_for(space.root / name, plan)
    if existing is not None and FINAL in existing.checkpoints():
        space.note(
            f"{folder} is trained already and is used as it is; remove the folder to train again"
        )
        return existing
    with space.open_progress() as progress:
        run, status = train(plan, folder, resume=existing is not None, progress=progress)
    if status is TrainStatus.INTERRUPTED:
        raise KeyboardInterrupt
    return run


def place_for(folder: Path, plan: Experiment) -> tuple[Path, Run | None]:
    """Return the run in `folder` that has this plan, or the first free name for one: run, run-2,
    ..."""
    for number in count(1):
        path = folder / ("run" if number == 1 else f"run-{number}")
        if not (path / "experiment.json").exists():
            return path, None
        run = _open(path)
        if run is not None and began_with(run, plan):
            return path, run
    raise AssertionError("count never ends")


def finished(space: Workspace, name: str) -> Run | None:
    """Return any finished run of a lesson, with any settings."""
    runs = [_open(path.parent) for path in sorted((space.root / name).glob("run*/experiment.json"))]
    return next((run for run in runs if run is not None and FINAL in run.checkpoints()), None)


def _open(path: Path) -> Run | None:
    """Open a run; None where another version wrote it and it cannot be read."""
    try:
        return Run.open(path)
    except UserError:
        return None


def model_of(run: Run) -> Model:
    """Open the trained model of a run with its tools; those are the lesson's own, so they may run
    from any folder."""
    return open_model(run.folder, overrides=[f"tools={json.dumps(run.experiment.tools)}"])


def chat(model: Model, *questions: str) -> Iterator[tuple[str, list[Event]]]:
    """Ask questions in one conversation; yield each with everything that happens until its
    answer."""
    session = ChatSession(model.policy(), model.registry, model.experiment.evaluation.max_turns)
    for question in questions:
        yield question, list(session.say(question))
