"""Rows for the tools of an experiment: from their schemas and examples, or written by a stronger
model (`data.teacher`).

    made = make_rows(experiment)      # made.train, made.held_out, made.tasks, made.report
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolhone.config.phrasings import word_lists
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import METHOD
from toolhone.data.splits import split_rows
from toolhone.errors import ConfigError, DataError, nearest
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Json, Task, Tool
from toolhone.sources.source import tasks_of
from toolhone.synthetic.answers import CallRunner, answers_of, with_answers
from toolhone.synthetic.coverage import coverage_of
from toolhone.synthetic.examples import read_examples
from toolhone.synthetic.generate import MadeOptions, ManualTemplates
from toolhone.synthetic.later_turns import Link, find_links
from toolhone.synthetic.teacher_client import TeacherClient
from toolhone.synthetic.teacher_rows import write_rows
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.loading import open_registry, tools_of
from toolhone.tools.registry import Registry
from toolhone.tools.relations import read_relation
from toolhone.tools.result import ToolStatus
from toolhone.tools.text_kinds import words_of


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
    registry, answered = open_registry(experiment), 1.0 if data.answered is None else data.answered
    runner = CallRunner(registry, _invented(experiment, registry, tools))
    turns = data.made.turns if data.made.turns is not None else 0.4 if answered else 0.0
    names, declared = [tool.name for tool in tools], data.made.relations
    for name in declared:
        if name not in names:
            known = f"{nearest(name, names)}; tools: {', '.join(names)}"
            raise ConfigError(f"data.made.relations names the unknown tool {name!r}{known}")
    relations = {name: [read_relation(text) for text in texts] for name, texts in declared.items()}
    plain = MadeOptions(turns, relations=relations)
    options = replace(plain, links=_links(tools, runner, plain)) if answered else plain
    shared = (tools, examples, experiment.seed)
    templates = ManualTemplates(*shared, held_out_seed=data.split_seed, options=options)
    train = templates.conversations(count - held, "train")
    held_out = templates.conversations(held, "held_out")
    made = templates.report()
    # Tasks are the same whether tools run or not.
    tasks = ManualTemplates(*shared, held_out_seed=data.split_seed, options=plain)
    words = answers_of(examples)
    train, lost = with_answers(train, runner, words, answered, experiment.seed)
    held_out, more = with_answers(held_out, runner, words, answered, data.split_seed)
    coverage, notes = coverage_of(train, tools), list[str]()
    if runner.made_up:
        invented = ", ".join(runner.made_up)
        notes.append(f"results of {invented} are invented (data.answered=1 runs what can run)")
    if warnings := coverage["warnings"]:
        rest = f"; and {len(warnings) - 2} more" if len(warnings) > 2 else ""
        notes.append(f"coverage: {'; '.join(warnings[:2])}{rest} (see toolhone data preview)")
    report = {
        "source": _source(experiment, count),
        "made": made,
        "not_answered": dict(lost + more),
        "calls": {"ran": runner.ran, "invented": dict(runner.made_up)},
        "coverage": coverage,
        "notes": notes,
    }
    return MadeRows(train, held_out, tasks.tasks(held, "held_out"), report)


def _invented(experiment: Experiment, registry: Registry, tools: Sequence[Tool]) -> set[str]:
    """Return the tools that are not run: those that cannot, and unless `data.answered` is named
    all but those whose name says that they only read."""
    names = {tool.name for tool in tools if tool.name not in registry.runnable}
    if experiment.data.answered is None and experiment.data.chosen_strategy != METHOD:
        reading = {*word_lists("manual")["reading"]}
        others = (tool.name for tool in tools if tool.name not in BUILTIN)
        names |= {name for name in others if reading.isdisjoint(words_of(name)[:1])}
    return names


def _links(tools: Sequence[Tool], runner: CallRunner, options: MadeOptions) -> list[Link]:
    """Return which results hold an argument of another tool, from one call of each tool."""
    results = dict[str, Json]()
    for tool in tools if len(tools) > 1 else ():
        try:
            one = ManualTemplates([tool], shares={"one_call": 1.0}, options=options)
            (call, *_) = one.conversations(1)[0].messages[1].tool_calls
        except DataError:
            continue
        (result,) = runner.run_all([call], tools)
        if result.outcome is ToolStatus.OK:
            results[tool.name] = result.value
    return list(find_links(tools, results))


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
