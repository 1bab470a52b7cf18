"""From the `data` section of an experiment to what a training needs: conversations to learn from, held-out ones, and tasks.

    materials = gather(experiment)
    materials.report                # rows read, kept, skipped by reason, held out: written to RUN/data.json

Without a file, conversations come from templates; held-out ones have fillers (words, names, numbers) that training never sees.
Training data is checked here, before any model is opened: the first finding stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolhone.config import DataSection, Experiment
from toolhone.data.check import check
from toolhone.data.files import read_tasks
from toolhone.data.sources import Loaded, open_source
from toolhone.data.splits import opening, split_by_tools, split_rows
from toolhone.data.tasks import tasks_of
from toolhone.data.templates import Templates
from toolhone.schema import Conversation, Task

HELD_OUT = 200
"""Held-out conversations made from templates; as many tasks."""


@dataclass(frozen=True)
class Materials:
    """`held_out` gives the validation loss, `tasks` the scores; `report` says where every row went."""

    train: list[Conversation]
    held_out: list[Conversation]
    tasks: list[Task]
    report: dict[str, Any] = field(default_factory=dict)


def gather(experiment: Experiment) -> Materials:
    """Read or make the data, check it, and hold a part out."""
    data = experiment.data
    materials = _from_templates(data, experiment.seed) if data.path is None else _from_file(data, experiment.seed)
    tasks = _distinct(materials.tasks) if experiment.evaluation.tasks is None else read_tasks(experiment.evaluation.tasks)
    return Materials(materials.train, materials.held_out, tasks, {**materials.report, "tasks": len(tasks)})


def _distinct(tasks: Sequence[Task]) -> list[Task]:
    """Tasks whose ids all differ: rows without an id of their own, or with one that occurs before, get a number."""
    seen: Counter[str] = Counter()
    result = []
    for task in tasks:
        seen[task.id] += 1
        result.append(task if seen[task.id] == 1 else replace(task, id=f"{task.id}~{seen[task.id]}"))
    return result


def _from_templates(data: DataSection, seed: int) -> Materials:
    made = Templates(seed)
    train = made.conversations(data.samples, "train")
    held_out = made.conversations(HELD_OUT, "held_out_fillers")
    tasks = made.tasks(HELD_OUT, "held_out_fillers")
    report = {"source": "templates", "train": len(train), "held_out": len(held_out), "tasks": len(tasks)}
    return Materials(train, held_out, tasks, report)


def _from_file(data: DataSection, seed: int) -> Materials:
    assert data.path is not None
    loaded = _open(data.path, data)
    report: dict[str, Any] = {"source": data.path, **_report(loaded)}
    conversations = list(loaded.conversations)[: data.max_samples]
    report["beyond_max_samples"] = len(loaded.conversations) - len(conversations)
    findings = check(conversations, loaded.places[: len(conversations)])
    findings.raise_if_any()
    report["findings"] = {kind.value: count for kind, count in findings.counts.items()}
    if data.validation is not None:
        other = _open(data.validation, data)
        report["validation"] = {"source": data.validation, **_report(other)}
        check(other.conversations, other.places).raise_if_any()
        train, held_out, tasks = conversations, list(other.conversations), tasks_beside(other.tasks, other.conversations)
    else:
        split = (split_by_tools if data.split == "tools" else split_rows)(conversations, data.validation_fraction, seed)
        train, held_out = split.train, split.validation
        tasks = tasks_beside(loaded.tasks, held_out)
        report["dropped_by_split"] = split.dropped
    return Materials(train, held_out, tasks, {**report, "train": len(train), "held_out": len(held_out), "tasks": len(tasks)})


def _open(path: str, data: DataSection) -> Loaded:
    return open_source(Path(path), data.format, style=data.style, distractors=data.distractors)


def _report(loaded: Loaded) -> dict[str, Any]:
    return {
        "read": loaded.read,
        "kept": len(loaded.conversations),
        "skipped": dict(loaded.skipped),
        "repaired": dict(loaded.repaired),
        "examples": dict(loaded.examples),
    }


def tasks_beside(tasks: Sequence[Task], conversations: Sequence[Conversation]) -> list[Task]:
    """The tasks that open like one of these conversations; where those say nothing about calls, each decision is a task as well."""
    openings = {opening(conversation) for conversation in conversations}
    found = [task for task in tasks if opening(task) in openings]
    if any(task.expect.calls or task.expect.no_call for task in found):
        return found
    own = {task.id: task for task in found}
    return [task for talk in conversations for task in (*([own[talk.id]] if talk.id in own else []), *tasks_of(talk))]
