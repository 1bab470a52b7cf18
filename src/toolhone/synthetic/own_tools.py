"""Rows for the tools of an experiment: from their schemas and examples, or written by a stronger
model (`data.teacher`).

    made = make_rows(experiment)      # made.train, made.held_out, made.tasks, made.report
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from toolhone.config.sections import Experiment
from toolhone.config.teachers import METHOD
from toolhone.data.splits import split_rows
from toolhone.errors import DataError
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Task
from toolhone.sources.base import tasks_of
from toolhone.synthetic.examples import answers_of, read_examples, with_answers
from toolhone.synthetic.generate import ManualTemplates
from toolhone.synthetic.teacher_client import TeacherClient
from toolhone.synthetic.teacher_rows import write_rows
from toolhone.tools.loading import open_registry, tools_of


@dataclass(frozen=True)
class MadeRows:
    """Rows to train on, held-out rows and their tasks; `report` counts what was made and lost."""

    train: list[Conversation]
    held_out: list[Conversation]
    tasks: list[Task]
    report: dict[str, Any]


def make_rows(experiment: Experiment, progress: Progress | None = None) -> MadeRows:
    """Make `data.max_samples` rows, held-out ones included."""
    data, tools = experiment.data, tools_of(experiment)
    if data.chosen_strategy == METHOD and data.teacher.base_url is not None:
        return _from_teacher(experiment, progress or Progress())
    count = data.max_samples or data.samples
    held = min(count - 1, max(1, round(count * data.held_out_share)))
    examples = [] if data.examples is None else read_examples(data.examples, tools)
    templates = ManualTemplates(tools, examples, experiment.seed, held_out_seed=data.split_seed)
    train = templates.conversations(count - held, "train")
    held_out = templates.conversations(held, "held_out")
    made = templates.report()
    tasks, lost = templates.tasks(held, "held_out"), Counter[str]()
    answered = data.answered
    if answered is None:
        answered = float(data.chosen_strategy == METHOD)
    if answered:
        registry, wordings = open_registry(experiment), answers_of(examples)
        train, lost = with_answers(train, registry, wordings, answered, experiment.seed)
        held_out, more = with_answers(held_out, registry, wordings, answered, data.split_seed)
        lost += more
    report = {"source": _source(experiment, count), "made": made, "not_answered": dict(lost)}
    return MadeRows(train, held_out, tasks, report)


def _from_teacher(experiment: Experiment, progress: Progress) -> MadeRows:
    """Rows that a stronger model writes; a part of them is held out by hash."""
    data, count = experiment.data, experiment.data.max_samples or experiment.data.samples
    client = TeacherClient.open(data.teacher)
    tools, registry = tools_of(experiment), open_registry(experiment)
    written = write_rows(client, tools, registry, count, experiment.seed, progress)
    report = written.report(client)
    tokens = report["prompt_tokens"] + report["reply_tokens"]
    summary = (
        f"{len(written.rows)} of {count} rows written by {data.teacher.model}: "
        f"{report['requests']} requests, {report['recalled']} replies recalled, {tokens:,} tokens, "
        f"price {report['price']:g}, yield {report['yield']:.0%}"
    )
    summary += f"; {written.ended}" if written.ended else ""
    if not written.rows:
        failed = {**client.failed, **written.reasons}
        why = ", ".join(f"{number} {reason}" for reason, number in failed.items())
        raise DataError(f"data.teacher: {summary}; {why}")
    split = split_rows(written.rows, data.held_out_share, data.split_seed)
    tasks = [task for row in split.validation for task in tasks_of(row)]
    skipped = dict(written.reasons) | dict(client.failed)
    report = {"source": summary, "skipped": skipped, "teacher": report}
    return MadeRows(list(split.train), list(split.validation), tasks, report)


def _source(experiment: Experiment, count: int) -> str:
    data = experiment.data
    if data.chosen_strategy == METHOD:
        return f"{count} rows from the tools' schemas, whose calls ran: no data.teacher.base_url"
    if data.chosen_strategy != "toolbench":
        return "manual templates"
    why = "no ToolBench file was named"
    if data.generation_type == "real":
        why = "data.generation_type is 'real', but data.path names no ToolBench file"
    return f"{count} synthetic rows: {why}"
