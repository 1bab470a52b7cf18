"""The data of an experiment: rows to train on, held-out rows, tasks to score and to play.

    dataset = load_data(experiment)
    dataset.report            # rows read, kept, skipped by reason, held out: kept in RUN/data.json

`data.strategy` says where rows come from. Training rows are checked before any model is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from toolhone.config.sections import DataSection, Experiment
from toolhone.config.small_sections import METHOD
from toolhone.config.user_code import USER_CODE
from toolhone.data.plain_texts import PlainText, load_texts
from toolhone.data.splits import opening, split_by_tools, split_rows
from toolhone.data.task_files import distinct, gives_only_tasks, tasks_beside, tasks_from_any
from toolhone.data.templates import Templates
from toolhone.data.world_tasks import agent_tasks, environments, in_world, rows_of_world
from toolhone.doctor.checks import REMARKS, check, class_balance, quick_checks
from toolhone.doctor.leaks import prompt_of, prompts_of
from toolhone.errors import DataError, FindingKind
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Task
from toolhone.schema.preference import Preference
from toolhone.sources.files import FileLine, RecordStream
from toolhone.sources.formats import PAIRS, SOURCES, detect_format, holds_pairs, open_source
from toolhone.sources.loaded import Loaded, remarks_on
from toolhone.sources.messages import read_own
from toolhone.sources.source import SourceOptions, tasks_of
from toolhone.synthetic.own_tools import make_rows
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.loading import load_tools, tools_of

MAX_HELD_OUT = 200  # conversations made from templates; as many tasks
RAW_PROMPT_FINDINGS = frozenset({FindingKind.TYPED_CALL, FindingKind.STRAY_MARK})  # intended


@dataclass(frozen=True)
class Dataset:
    """What an experiment trains on and is scored with.

    train, held_out: conversations; held_out gives the validation loss. tasks: held-out tasks, which
    give the scores. play: tasks for episodes (GRPO, PPO, DPO of own_ranked). pairs, held_out_pairs:
    preference pairs, whose chosen sides are then the conversations. texts, held_out_texts: plain
    texts (teacher mode). report: where every row went.
    """

    train: list[Conversation]
    held_out: list[Conversation]
    tasks: list[Task]
    report: dict[str, Any] = field(default_factory=dict)
    pairs: Sequence[Preference] = ()
    held_out_pairs: Sequence[Preference] = ()
    play: Sequence[Task] = ()
    texts: Sequence[PlainText] = ()
    held_out_texts: Sequence[PlainText] = ()

    def summary(self) -> str:
        """`data: templates; 4000 conversations to train on, 200 held out, ...; skipped 3: ...`."""
        if self.play:
            labelled = f", {len(self.train)} labelled conversations" if self.train else ""
            return f"data: {len(self.play)} tasks to play, {len(self.tasks)} held out{labelled}"
        parts = [
            f"{len(self.train)} conversations to train on, {len(self.held_out)} held out, "
            f"{len(self.tasks)} tasks"
        ]
        if self.texts:
            parts = [f"{len(self.texts)} texts to train on, {len(self.held_out_texts)} held out"]
        return "; ".join([f"data: {self.report['source']}", *parts, *remarks_on(self.report)])


def load_data(experiment: Experiment, progress: Progress | None = None) -> Dataset:
    """Read or make the data, check it, hold a part out, and choose the tasks to play."""
    if learns_texts(experiment):
        texts, held_out, skipped = load_texts(experiment.data)
        report = {"source": f"texts of {experiment.data.path}", "skipped": dict(skipped)}
        return Dataset([], [], [], report, texts=texts, held_out_texts=held_out)
    plays = plays_tasks(experiment)
    path, strategy = experiment.data.path, experiment.data.chosen_strategy
    rows = None if path is None else RecordStream(_file_in(path))
    if plays and strategy != "templates" and rows is not None and gives_only_tasks(rows):
        return _playable(_from_tasks(experiment, rows), experiment)
    dataset = _read_or_make(experiment, rows, progress)
    tasks = distinct(environments(dataset.tasks, dataset.held_out, experiment.world))
    note = dict[str, Any]()
    if experiment.evaluation.tasks is not None:
        tasks, note = _named_tasks(experiment.evaluation.tasks, experiment)
    dataset = replace(dataset, tasks=tasks, report={**dataset.report, **note, "tasks": len(tasks)})
    if not plays:
        return replace(dataset, tasks=in_world(dataset.tasks, experiment.world))
    if strategy == "templates" and experiment.world.name not in ("replay", "simulated"):
        dataset = _with_new_phrasings(dataset, experiment)
    elif strategy not in ("world", "agent"):
        play = [task for conversation in dataset.train for task in tasks_of(conversation)]
        play = environments(play, dataset.train, experiment.world)
        dataset = replace(dataset, play=distinct([*play, *dataset.play]))
    return _playable(dataset, experiment)


def held_out_tasks(experiment: Experiment) -> list[Task]:
    """The held-out tasks of a run that kept none; no tool is run for answers, no teacher asked."""
    data = experiment.data
    if data.chosen_strategy == METHOD and data.teacher.base_url is not None:
        return []
    changes: dict[str, Any] = {"answered": 0.0}
    if data.chosen_strategy == "templates":  # rows to train on beyond those held out change no task
        count = min(MAX_HELD_OUT, data.max_samples or data.samples)
        changes = {"max_samples": count} if data.validation_fraction is None else {}
    data = data.model_copy(update=changes)
    sft = {"method": "sft"} if plays_tasks(experiment) else {}
    training = experiment.training.model_copy(update=sft)
    return load_data(experiment.model_copy(update={"data": data, "training": training})).tasks


def plays_tasks(experiment: Experiment) -> bool:
    """Tell whether the method plays tasks; DPO does for ranked samples of its own."""
    method = experiment.training.method
    if method == METHOD:
        return not learns_texts(experiment)
    ranks = method == "dpo" and experiment.data.preferences == "own_ranked"
    return ranks or method in ("grpo", "ppo", "distill")


def learns_texts(experiment: Experiment) -> bool:
    """Tell whether the method puts calls into plain texts."""
    return experiment.training.method == METHOD and experiment.teacher.source == "text"


def learns_labels(experiment: Experiment) -> bool:
    """Tell whether labelled conversations are trained on next to the reward (PPO-ptx), or before
    the rounds of teacher mode."""
    training = experiment.training
    warms_up = training.method == METHOD and experiment.teacher.warmup > 0
    return training.method in ("grpo", "ppo", METHOD) and (training.rl.ptx.coef > 0 or warms_up)


def _read_or_make(
    experiment: Experiment, rows: RecordStream | None, progress: Progress | None
) -> Dataset:
    data = experiment.data
    if rows is not None and _wants_pairs(experiment, rows):
        return _from_pairs(experiment, rows)
    match data.chosen_strategy:
        case "templates":
            return _from_templates(experiment)
        case "world":
            plays, labels = plays_tasks(experiment), learns_labels(experiment)
            train, held_out, tasks, play = rows_of_world(experiment, MAX_HELD_OUT, plays, labels)
            return _counted(Dataset(train, held_out, tasks, {"source": "world"}, play=play))
        case "agent":
            play, tasks = agent_tasks(experiment)
            return Dataset([], [], tasks, {"source": "agent"}, play=play)
        case "manual_templates" | "teacher_mode":
            return _from_user_tools(experiment, progress)
        case "toolbench" if data.path is None:
            return _from_user_tools(experiment, progress)
    return _from_file(experiment, rows)


def _from_templates(experiment: Experiment) -> Dataset:
    """Questions for the built-in tools; held-out rows are extra unless their share is named."""
    data = experiment.data
    specs = [spec for spec in experiment.tools if spec not in BUILTIN]
    if others := [tool.name for spec in specs for tool in load_tools(spec, Path.cwd())]:
        raise DataError(
            "data.strategy 'templates' has questions for built-in tools only, and tools also has "
            f"{', '.join(map(repr, others))}; make rows with data.strategy 'manual_templates', "
            "or name a file with data.path"
        )
    templates, count = _templates(experiment), data.max_samples or data.samples
    held = min(MAX_HELD_OUT, count)
    if data.validation_fraction is not None:
        held = min(count - 1, max(1, round(count * data.held_out_share)))
        count -= held
    train = templates.conversations(count, "train")
    held_out = templates.conversations(held, "held_out_fillers")
    tasks = templates.tasks(min(held, MAX_HELD_OUT), "held_out_fillers")
    return _counted(Dataset(train, held_out, tasks, {"source": "templates"}))


def _counted(dataset: Dataset) -> Dataset:
    """The dataset with the sizes of its parts in the report."""
    sizes = {name: len(getattr(dataset, name)) for name in ("train", "held_out", "tasks")}
    return replace(dataset, report={**dataset.report, **sizes})


def _with_new_phrasings(dataset: Dataset, experiment: Experiment) -> Dataset:
    """Tasks to play: new phrasings next to the usual ones; held-out tasks of both, alternating."""
    templates = _templates(experiment)
    count = experiment.data.max_samples or experiment.data.samples
    new = round(count * experiment.training.rl.new_phrasings)
    play = [
        *(templates.tasks(new, "rl") if new else []),
        *(templates.tasks(count - new, "train") if count > new else []),
    ]
    tasks = dataset.tasks
    if experiment.evaluation.tasks is None:
        fresh = templates.tasks(min(MAX_HELD_OUT, count), "rl_held_out") if new else []
        longest = range(max(len(fresh), len(tasks)))
        tasks = [task for i in longest for both in (fresh, tasks) for task in both[i : i + 1]]
    train = dataset.train if learns_labels(experiment) else []
    report = {**dataset.report, "new_phrasings": new}
    return Dataset(train, [], tasks, report, play=play)


def _templates(experiment: Experiment) -> Templates:
    data, tools = experiment.data, [spec for spec in experiment.tools if isinstance(spec, str)]
    return Templates(experiment.seed, tools, data.split_seed, data.categories, data.answered)


def _from_user_tools(experiment: Experiment, progress: Progress | None) -> Dataset:
    """Rows for the tools of the experiment: `data.max_samples`, held-out ones included."""
    made = make_rows(experiment, progress)
    tasks = made.tasks[:MAX_HELD_OUT]
    check(made.train, "data.strategy " + experiment.data.chosen_strategy).raise_if_any()
    return _counted(Dataset(made.train, made.held_out, tasks, made.report))


def _from_file(experiment: Experiment, rows: RecordStream | None) -> Dataset:
    data = experiment.data
    loaded = _open(data.path, rows, experiment)
    source = data.format if rows is None else str(rows.path)
    report: dict[str, Any] = {"source": source, **_counts(loaded)}
    alone = loaded.alone if plays_tasks(experiment) else []
    if not loaded.conversations and not alone:
        raise DataError(
            f"{data.path or data.format}: no row gives a conversation to train on; "
            f"{loaded.summary(examples=True)}"
        )
    train = list(loaded.conversations)[: data.max_samples]
    report["beyond_max_samples"] = len(loaded.conversations) - len(train)
    report |= _check_rows(train, loaded.places, data)
    if data.validation is not None:
        other_rows = RecordStream(_file_in(data.validation))
        other = _open(data.validation, other_rows, experiment)
        checked = _check_rows(other.conversations, other.places, data)
        report["validation"] = {"source": data.validation, **_counts(other), **checked}
        prompts = prompts_of(("", conversation) for conversation in other.conversations)
        report["leaked"] = sum(prompt_of(conversation) in prompts for conversation in train)
        held_out = list(other.conversations)
        tasks = tasks_beside(other.tasks, held_out)
    else:
        parts = _split(train, experiment) if train else ([], [], 0)
        train, held_out, report["dropped_by_split"] = parts
        tasks = tasks_beside(loaded.tasks, held_out)
        openings = {opening(conversation) for conversation in loaded.conversations}
        tasks += [task for task in loaded.tasks if opening(task) not in openings]
    dataset = _counted(Dataset(train, held_out, tasks, report))
    return _with_tasks_alone(dataset, alone, experiment) if alone else dataset


def _with_tasks_alone(dataset: Dataset, alone: Sequence[Task], experiment: Experiment) -> Dataset:
    """Let the tasks of rows without a conversation be played, but for a part that is held out."""
    data, hidden = experiment.data, {opening(conversation) for conversation in dataset.held_out}
    shown = [task for task in alone if opening(task) not in hidden]
    places = {id(task) for task in shown}
    tasks = [task for task in dataset.tasks if id(task) not in places]
    play, beyond = shown[: data.max_samples], max(0, len(shown) - (data.max_samples or len(shown)))
    if data.validation is None and experiment.evaluation.tasks is None and len(play) > 1:
        split = split_rows(play, data.held_out_share, data.split_seed)
        play, tasks = split.train, [*tasks, *split.validation]
    counts = {"play": len(play), "held_out": len(alone) - beyond - len(play), "beyond": beyond}
    return replace(dataset, tasks=tasks, play=play, report={**dataset.report, "alone": counts})


def _split(
    rows: list[Conversation], experiment: Experiment
) -> tuple[list[Conversation], list[Conversation], int]:
    """Training part, held-out part, and how many rows belong to neither."""
    data = experiment.data
    by = split_by_tools if data.split == "tools" else split_rows
    split = by(rows, data.held_out_share, data.split_seed)
    return split.train, split.validation, split.dropped


def _wants_pairs(experiment: Experiment, rows: RecordStream) -> bool:
    """Tell whether the file of the experiment holds preference pairs to train on."""
    data = experiment.data
    if experiment.training.method != "dpo":
        return False
    detects = data.preferences is None and data.format in ("auto", "pairs")
    return data.preferences == "file" or (detects and holds_pairs(rows))


def _from_pairs(experiment: Experiment, rows: RecordStream) -> Dataset:
    """Pairs of a file; those with one prompt are on one side of the split."""
    data, path = experiment.data, rows.path
    loaded = open_source(rows, PAIRS, tools=tools_of(experiment))
    if not loaded.preferences:
        raise DataError(f"{path}: no row gives a pair to train on; {loaded.summary(True)}")
    pairs = list(loaded.preferences)[: data.max_samples]
    conversations = [pair.conversation() for pair in pairs]
    beyond = loaded.kept - len(pairs)
    report = {"source": f"pairs of {path}", **_counts(loaded), "beyond_max_samples": beyond}
    report |= _check_rows(conversations, loaded.places, data)
    if data.validation is not None:
        other = open_source(data.validation, PAIRS, tools=tools_of(experiment))
        train, held_pairs = conversations, list(other.preferences)
        held_out = [pair.conversation() for pair in held_pairs]
        report["validation"] = {"source": data.validation, **_counts(other)}
    else:
        train, held_out, report["dropped_by_split"] = _split(conversations, experiment)
        of = {id(one): pair for one, pair in zip(conversations, pairs, strict=True)}
        pairs, held_pairs = [of[id(one)] for one in train], [of[id(one)] for one in held_out]
    tasks = [task for conversation in held_out for task in tasks_of(conversation)]
    return _counted(Dataset(train, held_out, tasks, report, pairs, held_pairs))


def _check_rows(
    conversations: Sequence[Conversation], places: Sequence[FileLine], data: DataSection
) -> dict[str, Any]:
    """Count findings of the quick checks; serious ones raise `DataError`."""
    findings = quick_checks(conversations, places)
    allowed = REMARKS | RAW_PROMPT_FINDINGS if data.raw_prompt else REMARKS
    findings.raise_if_any(allowed, f"; try: toolhone doctor --data {data.path} --fix")
    return {
        "findings": {kind.value: count for kind, count in findings.counts.items()},
        "doctor": [group.to_dict() for group in findings.groups],
        "balance": asdict(class_balance(conversations)),
    }


def source_request(experiment: Experiment) -> SourceOptions:
    """The options of an experiment for the reader of its file."""
    data = experiment.data
    return {"style": data.style, "distractors": data.distractors, "raw_prompt": data.raw_prompt}


def _file_in(path: str) -> str:
    """The training file of a folder (train.jsonl, train.json); any other path unchanged."""
    names = ("train.jsonl", "train.jsonl.gz", "train.json")
    return next((str(Path(path) / name) for name in names if (Path(path) / name).is_file()), path)


def _open(path: str | None, rows: RecordStream | None, experiment: Experiment) -> Loaded:
    data = experiment.data
    if USER_CODE.fullmatch(data.format):
        return read_own(data.format, None if path is None else Path(path))
    assert rows is not None, "a file strategy has a path"
    request = source_request(experiment)
    name = "toolbench" if data.chosen_strategy == "toolbench" else data.format
    name = detect_format(rows) if name == "auto" else name
    if name in SOURCES and "tools" in SOURCES[name].options:
        request["tools"] = tools_of(experiment)
    return open_source(rows, name, **request)


def _counts(loaded: Loaded) -> dict[str, Any]:
    counts = {name: getattr(loaded, name) for name in ("read", "kept", "only_tasks")}
    names = ("skipped", "repaired", "noted", "unread", "examples")
    return counts | {name: dict(getattr(loaded, name)) for name in names}


def _from_tasks(experiment: Experiment, rows: RecordStream) -> Dataset:
    """A file of tasks, split; a file named for evaluation replaces the held-out part."""
    data = experiment.data
    tasks, report = _named_tasks(rows, experiment)
    tasks, report = tasks[: data.max_samples], {"source": str(data.path), **report}
    if experiment.evaluation.tasks is not None:
        held_out, more = _named_tasks(experiment.evaluation.tasks, experiment)
        return Dataset([], [], held_out, {**report, **more}, play=tasks)
    split = split_rows(tasks, data.held_out_share, data.split_seed)
    return Dataset([], [], split.validation, report, play=split.train)


def _named_tasks(
    source: str | RecordStream, experiment: Experiment
) -> tuple[list[Task], dict[str, Any]]:
    """The tasks of a file, and what was skipped, as an entry of the report."""
    notes: list[str] = []
    tasks = tasks_from_any(source, tools_of(experiment), notes.append, source_request(experiment))
    return tasks, {"task_file": notes[0]} if notes else {}


def _playable(dataset: Dataset, experiment: Experiment) -> Dataset:
    """Without tasks that an episode cannot play; they are counted."""
    lost = Counter(one.unplayable for one in (*dataset.play, *dataset.tasks) if one.unplayable)
    play, tasks = (
        in_world([task for task in part if not task.unplayable], experiment.world)
        for part in (dataset.play, dataset.tasks)
    )
    if learns_labels(experiment) and not dataset.train:
        raise DataError(
            "training.rl.ptx.coef and teacher.warmup train on labelled conversations, and "
            f"{experiment.data.path} holds only tasks; name conversations, or set them to 0"
        )
    if not play:
        reasons = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        raise DataError(
            f"no task can be played: {reasons or 'the data gives none'}; "
            "wanted tasks whose answer is calls, no call, a text, or the state of a world"
        )
    report = {**dataset.report, "play": len(play), "not_playable": dict(lost)}
    return replace(dataset, play=play, tasks=tasks, report=report)
