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
from toolhone.errors import CapabilityError
from toolhone.schema import Conversation, Task
from toolhone.synthetic.examples import answers_of, read_examples, with_answers
from toolhone.synthetic.generate import ManualTemplates
from toolhone.tools.loading import open_registry, tools_of


@dataclass(frozen=True)
class MadeRows:
    """Rows to train on, held-out rows and their tasks; `report` counts what was made and lost."""

    train: list[Conversation]
    held_out: list[Conversation]
    tasks: list[Task]
    report: dict[str, Any]


def make_rows(experiment: Experiment) -> MadeRows:
    """Make `data.max_samples` rows, held-out ones included."""
    data, tools = experiment.data, tools_of(experiment)
    if data.chosen_strategy == METHOD and data.teacher.base_url is not None:
        raise CapabilityError(
            "data.teacher.base_url: a model behind an address does not write rows yet; leave it out"
        )
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
