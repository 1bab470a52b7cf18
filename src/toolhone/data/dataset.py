"""From the `data` section of an experiment to what a training needs: conversations to learn from, held-out ones, and tasks.

    materials = gather(experiment)
    materials.report                # rows read, kept, skipped by reason, held out: written to RUN/data.json

`data.strategy` says where rows come from: a file (`sources`, or a reader of the user's own), the templates of the built-in tools,
templates for the user's own tools (`manual`), ToolBench files, or rows in their place. Held-out rows that are made have fillers
(words, names, numbers) that training never sees. Training data is checked here, before any model is opened: the first finding
stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolhone.config.sections import DataSection, Experiment
from toolhone.config.user_code import is_user_code
from toolhone.data.any_tasks import distinct, tasks_from_any
from toolhone.data.splits import opening, split_by_tools, split_rows
from toolhone.data.templates import Templates
from toolhone.doctor.checks import check, class_balance, quick_checks
from toolhone.doctor.findings import REMARKS, account_of
from toolhone.doctor.leaks import prompt_of, prompts_of
from toolhone.errors import CapabilityError, DataError
from toolhone.schema import Conversation, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.base import Loaded, SourceOptions
from toolhone.sources.files import FileLine
from toolhone.sources.registry import (
    PAIRS,
    SOURCES,
    detect_format,
    holds_pairs,
    open_source,
    options_of,
)
from toolhone.sources.rules import FindingKind
from toolhone.sources.tasks import tasks_of
from toolhone.sources.user_source import read_own
from toolhone.synthetic import ManualTemplates, read_examples
from toolhone.synthetic.with_results import answers_of, with_answers
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.loading import load_tools, open_registry

HELD_OUT = 200
"""Most held-out conversations made from templates; as many tasks."""
AS_THEY_ARE = frozenset({FindingKind.TYPED_CALL, FindingKind.STRAY_MARK})
"""Findings that are what `data.raw_prompt` asks for."""


@dataclass(frozen=True)
class Dataset:
    """`held_out` gives the validation loss, `tasks` the scores; `report` says where every row went.

    Where the data are preference pairs, `pairs` and `held_out_pairs` hold them, and the conversations their chosen sides.
    """

    train: list[Conversation]
    held_out: list[Conversation]
    tasks: list[Task]
    report: dict[str, Any] = field(default_factory=dict)
    pairs: Sequence[Preference] = ()
    held_out_pairs: Sequence[Preference] = ()

    def summary(self) -> str:
        """`data: templates; 4000 conversations to train on, 200 held out, 200 tasks; skipped 3: ...`."""
        parts = [
            f"{len(self.train)} conversations to train on, {len(self.held_out)} held out, {len(self.tasks)} tasks"
        ]
        for key, word in (("skipped", "skipped"), ("not_answered", "without results")):
            if lost := self.report.get(key):
                parts.append(
                    f"{word} {sum(lost.values())}: "
                    + ", ".join(f"{count} {reason}" for reason, count in lost.items())
                )
        if leaked := self.report.get("leaked"):
            parts.append(
                f"{leaked} rows to train on open with a held-out prompt, so that held-out scores flatter"
            )
        if remarks := self.report.get("findings"):
            parts.append(
                "remarks: " + ", ".join(f"{count} x {kind}" for kind, count in remarks.items())
            )
        parts += [self.report["task_file"]] if "task_file" in self.report else []
        return "; ".join([f"data: {self.report['source']}", *parts])


def load_data(experiment: Experiment) -> Dataset:
    """Read or make the data, check it, and hold a part out."""
    materials = _materials(experiment)
    named, said = experiment.evaluation.tasks, list[str]()
    tasks = (
        distinct(materials.tasks)
        if named is None
        else tasks_from_any(named, tools_of(experiment), said.append, asked_of(experiment))
    )
    report = {**materials.report, "tasks": len(tasks), **({"task_file": said[0]} if said else {})}
    return replace(materials, tasks=tasks, report=report)


def held_out_tasks(experiment: Experiment) -> list[Task]:
    """The tasks of `load_data`, for a run that is trained already: no tool is run for answers, which tasks do not depend on."""
    return load_data(
        experiment.model_copy(update={"data": experiment.data.model_copy(update={"answered": 0.0})})
    ).tasks


def _materials(experiment: Experiment) -> Dataset:
    data = experiment.data
    if _wants_pairs(experiment):
        return _from_pairs(experiment)
    match data.chosen_strategy:
        case "templates":
            return _from_templates(experiment)
        case "teacher_mode":
            raise CapabilityError(
                "data.strategy: teacher_mode is not here yet; there are file, templates, manual_templates, toolbench"
            )
        case "manual_templates":
            return _from_own_tools(experiment)
        case "toolbench" if data.path is None:
            return _from_own_tools(experiment)
    return _from_file(experiment)


def _from_templates(experiment: Experiment) -> Dataset:
    """Questions for the built-in tools of the experiment; held-out rows come besides, unless their share is named."""
    data = experiment.data
    others = [
        tool.name
        for spec in experiment.tools
        if spec not in BUILTIN
        for tool in load_tools(spec, Path.cwd())
    ]
    if others:
        raise DataError(
            f"data.strategy 'templates' asks for built-in tools only, and tools has {', '.join(map(repr, others))} too; "
            "make rows with data.strategy 'manual_templates', or name a file with data.path"
        )
    made = Templates(experiment.seed, [spec for spec in experiment.tools if isinstance(spec, str)])
    count = data.max_samples or data.samples
    held = min(HELD_OUT, count)
    if data.validation_fraction is not None:
        held = _held(data, count)
        count -= held
    train = made.conversations(count, "train")
    held_out, tasks = (
        made.conversations(held, "held_out_fillers"),
        made.tasks(min(held, HELD_OUT), "held_out_fillers"),
    )
    return Dataset(train, held_out, tasks, _made_report("templates", train, held_out, tasks))


def _held(data: DataSection, count: int) -> int:
    """How many of so many rows are held out."""
    return min(count - 1, max(1, round(count * data.held_out_share)))


def _from_own_tools(experiment: Experiment) -> Dataset:
    """Rows made for the tools of the experiment; `data.max_samples` of them, held-out ones included."""
    data, tools = experiment.data, tools_of(experiment)
    examples = [] if data.examples is None else read_examples(data.examples, tools)
    made = ManualTemplates(tools, examples, experiment.seed)
    count = data.max_samples or data.samples
    held = _held(data, count)
    train, held_out = (
        made.conversations(count - held, "train"),
        made.conversations(held, "held_out"),
    )
    account = made.report()
    tasks = made.tasks(min(held, HELD_OUT), "held_out")
    left = Counter[str]()
    if data.answered:
        registry, wordings = open_registry(experiment), answers_of(examples)
        train, left = with_answers(train, registry, wordings, data.answered, experiment.seed)
        held_out, more = with_answers(held_out, registry, wordings, data.answered, experiment.seed)
        left += more
    check(train, "data.strategy " + data.chosen_strategy).raise_if_any()
    source = (
        f"{count} synthetic rows: no ToolBench file was named"
        if data.chosen_strategy == "toolbench"
        else "manual templates"
    )
    return Dataset(
        train,
        held_out,
        tasks,
        {
            **_made_report(source, train, held_out, tasks),
            "made": account,
            "not_answered": dict(left),
        },
    )


def tools_of(experiment: Experiment) -> list[Tool]:
    """The tools of an experiment as a model sees them; nothing is run here."""
    return [tool for spec in experiment.tools for tool in load_tools(spec, Path.cwd())]


def _made_report(
    source: str,
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    tasks: Sequence[Task],
) -> dict[str, Any]:
    return {"source": source, "train": len(train), "held_out": len(held_out), "tasks": len(tasks)}


def _from_file(experiment: Experiment) -> Dataset:
    data, seed = experiment.data, experiment.seed
    loaded = _open(data.path, experiment)
    report: dict[str, Any] = {
        "source": _file_in(data.path) if data.path else data.format,
        **_report(loaded),
    }
    if not loaded.conversations:
        raise DataError(
            f"{data.path or data.format}: no row gives a conversation to train on; {loaded.summary()}"
        )
    conversations = list(loaded.conversations)[: data.max_samples]
    report["beyond_max_samples"] = len(loaded.conversations) - len(conversations)
    report |= _surveyed(conversations, loaded.places, data)
    if data.validation is not None:
        other = _open(data.validation, experiment)
        beside = _surveyed(other.conversations, other.places, data)
        report["validation"] = {"source": data.validation, **_report(other), **beside}
        report["leaked"] = _leaked(conversations, other.conversations)
        train, held_out, tasks = (
            conversations,
            list(other.conversations),
            tasks_beside(other.tasks, other.conversations),
        )
    else:
        split = (split_by_tools if data.split == "tools" else split_rows)(
            conversations, data.held_out_share, seed
        )
        train, held_out = split.train, split.validation
        tasks = [*tasks_beside(loaded.tasks, held_out), *tasks_alone(loaded)]
        report["dropped_by_split"] = split.dropped
    return Dataset(
        train,
        held_out,
        tasks,
        {**report, "train": len(train), "held_out": len(held_out), "tasks": len(tasks)},
    )


def _wants_pairs(experiment: Experiment) -> bool:
    """Whether the file of the experiment holds preference pairs that are to be learned from."""
    data = experiment.data
    if (
        experiment.training.method != "dpo"
        or data.path is None
        or data.preferences not in (None, "file")
    ):
        return False
    return data.preferences == "file" or (
        data.format in ("auto", "pairs") and holds_pairs(_file_in(data.path))
    )


def _from_pairs(experiment: Experiment) -> Dataset:
    """Pairs of a file; those that open alike are on one side of the split, as conversations are."""
    data, path = experiment.data, _file_in(experiment.data.path or "")
    loaded = open_source(path, PAIRS)
    if not loaded.preferences:
        raise DataError(f"{path}: no row gives a pair to train on; {loaded.summary()}")
    pairs = list(loaded.preferences)[: data.max_samples]
    talks = [pair.talk() for pair in pairs]
    report: dict[str, Any] = {
        "source": f"pairs of {path}",
        "read": loaded.read,
        "kept": len(loaded.preferences),
    }
    report |= {
        "skipped": dict(loaded.skipped),
        "examples": loaded.examples,
        "beyond_max_samples": loaded.kept - len(pairs),
    }
    report |= _surveyed(talks, loaded.places, data)
    if data.validation is not None:
        other = open_source(data.validation, PAIRS)
        train, held_out, held_pairs = (
            talks,
            [pair.talk() for pair in other.preferences],
            list(other.preferences),
        )
        report["validation"] = {
            "source": data.validation,
            "read": other.read,
            "skipped": dict(other.skipped),
        }
    else:
        split = (split_by_tools if data.split == "tools" else split_rows)(
            talks, data.held_out_share, experiment.seed
        )
        of = {id(talk): pair for talk, pair in zip(talks, pairs, strict=True)}
        train, held_out = split.train, split.validation
        pairs, held_pairs = [of[id(talk)] for talk in train], [of[id(talk)] for talk in held_out]
        report["dropped_by_split"] = split.dropped
    tasks = [task for talk in held_out for task in tasks_of(talk)]
    report |= {"train": len(train), "held_out": len(held_out), "tasks": len(tasks)}
    return Dataset(train, held_out, tasks, report, pairs, held_pairs)


def _surveyed(
    conversations: Sequence[Conversation], places: Sequence[FileLine], data: DataSection
) -> dict[str, Any]:
    """The doctor's fast part: grave findings stop, all others are counted, with examples and what they mean.

    Under `raw_prompt` texts are used as they are on purpose, so that calls typed into them do not stop.
    """
    findings = quick_checks(conversations, places)
    findings.raise_if_any(REMARKS | AS_THEY_ARE if data.raw_prompt else REMARKS)
    counts = {kind.value: count for kind, count in findings.counts.items()}
    return {
        "findings": counts,
        "doctor": account_of(findings),
        "balance": class_balance(conversations).to_dict(),
    }


def _leaked(train: Sequence[Conversation], held_out: Sequence[Conversation]) -> int:
    """How many rows to train on open with a prompt that is held out."""
    prompts = prompts_of(("", conversation) for conversation in held_out)
    return sum(prompt_of(conversation) in prompts for conversation in train)


def asked_of(experiment: Experiment) -> SourceOptions:
    """What the experiment asks of a source."""
    data = experiment.data
    return {"style": data.style, "distractors": data.distractors, "raw_prompt": data.raw_prompt}


def _file_in(path: str) -> str:
    """The training file of a folder that holds one under the usual name (train.jsonl, train.json); any other path as it is."""
    names = [
        name
        for name in ("train.jsonl", "train.jsonl.gz", "train.json")
        if (Path(path) / name).is_file()
    ]
    return str(Path(path) / names[0]) if names else path


def _open(path: str | None, experiment: Experiment) -> Loaded:
    data = experiment.data
    if is_user_code(data.format):
        return read_own(data.format, None if path is None else Path(path))
    assert path is not None, "a file strategy has a path"
    asked, path = asked_of(experiment), _file_in(path)
    name = "toolbench" if data.chosen_strategy == "toolbench" else data.format
    name = detect_format(Path(path)) if name == "auto" else name
    if name in SOURCES and "tools" in options_of(SOURCES[name]):
        asked["tools"] = tools_of(experiment)
    return open_source(path, name, **asked)


def _report(loaded: Loaded) -> dict[str, Any]:
    return {
        "read": loaded.read,
        "kept": loaded.kept,
        "only_tasks": loaded.only_tasks,
        "skipped": dict(loaded.skipped),
        "repaired": dict(loaded.repaired),
        "noted": dict(loaded.noted),
        "examples": dict(loaded.examples),
    }


def tasks_alone(loaded: Loaded) -> list[Task]:
    """The tasks of rows that gave no conversation: nothing of them is ever trained on."""
    openings = {opening(conversation) for conversation in loaded.conversations}
    return [task for task in loaded.tasks if opening(task) not in openings]


def tasks_beside(tasks: Sequence[Task], conversations: Sequence[Conversation]) -> list[Task]:
    """The tasks that open like one of these conversations; where those say nothing about calls, each decision is a task as well."""
    openings = {opening(conversation) for conversation in conversations}
    found = [task for task in tasks if opening(task) in openings]
    if any(task.expect.wanted or task.expect.no_call for task in found):
        return found
    own = {task.id: task for task in found}
    return [
        task
        for talk in conversations
        for task in (*([own[talk.id]] if talk.id in own else []), *tasks_of(talk))
    ]
