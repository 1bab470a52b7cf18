"""Run a study: train every setting for every seed, evaluate all on the same tasks, compare.

    sweep = Sweep(read_study("methods", []), Path("runs/methods"), seeds=3)
    sweep.run(jobs=2)
    result = sweep.result()           # one row for each setting, with intervals

A finished run is kept, a stopped one is resumed. All settings are evaluated on OUT/tasks.jsonl: the
held-out tasks of the study's experiment, or `evaluation.tasks`.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from toolhone.api import TASKS_FILE, Model, began_with, evaluate, open_model, train
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError, DataError, RunError, UserError
from toolhone.evaluation.compare import compare
from toolhone.evaluation.folder import METRICS, read_folder, write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score
from toolhone.evaluation.verdict import Cell
from toolhone.guide.study import Setting, Study
from toolhone.reports.figure import PanelStyle, Point
from toolhone.reports.plots import mean_score
from toolhone.runs.progress import Progress, open_progress
from toolhone.runs.run import FINAL, Run, write_json
from toolhone.schema import Task
from toolhone.schema.json_input import is_number
from toolhone.sources.files import write_jsonl
from toolhone.sources.messages import read_tasks
from toolhone.training.before_after import behind_system, format_of_run
from toolhone.training.dataset import held_out_tasks, load_data, plays_tasks
from toolhone.training.loop import TrainStatus

EVALUATION = "evaluation"


@dataclass(frozen=True)
class StudyRun:
    """One run of a sweep. in_context: training conversations put before each task."""

    label: str
    plan: Experiment
    folder: Path
    is_trained: bool = True
    in_context: int = 0

    @property
    def is_done(self) -> bool:
        return (self.folder / EVALUATION / METRICS).is_file()

    def check(self) -> None:
        """Refuse a folder whose run has other settings."""
        is_there = (self.folder / "experiment.json").is_file()
        if is_there and not began_with(Run.open(self.folder), self.plan):
            right = "sweep into another folder with --out, or remove it"
            raise ConfigError(f"{self.folder} was made with other settings; {right}")


@dataclass(frozen=True)
class ComparedScore:
    """score: over tasks, each averaged over the seeds. difference, verdict: against the first
    setting, on the same tasks."""

    score: Score
    difference: Score | None = None
    verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        difference = None if self.difference is None else self.difference.to_dict()
        return {**self.score.to_dict(), "difference": difference, "verdict": self.verdict}

    def words(self) -> str:
        """The score with its interval in points of 100, and its verdict."""
        return f"{_points(self.score)} {self.verdict}".strip()


@dataclass(frozen=True)
class SettingResult:
    """A row of the table. by_seed: the score of each seed. categories: those of the tasks, or the
    groups of the study."""

    setting: Setting
    total: ComparedScore
    by_seed: tuple[float, ...]
    categories: dict[str, ComparedScore]

    @property
    def deviation(self) -> float | None:
        """The standard deviation between seeds."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.setting.name,
            "values": dict(self.setting.values),
            **self.total.to_dict(),
            "seeds": len(self.by_seed),
            "by_seed": list(self.by_seed),
            "deviation": self.deviation,
            "categories": {name: one.to_dict() for name, one in self.categories.items()},
        }


@dataclass(frozen=True)
class Sweep:
    """A study with its folder: OUT/SETTING/seed-N are the runs, OUT/prepare/NAME/seed-N what they
    start from."""

    study: Study
    folder: Path
    seeds: int = 3
    overrides: Sequence[str] = ()
    note: Callable[[str], None] = lambda _: None

    def run(self, jobs: int = 1) -> None:
        """Make what is missing, at most `jobs` runs at once. `KeyboardInterrupt` when stopped."""
        self._write_tasks()
        for stage in (self._prepared(), self._settings()):
            for job in stage:
                job.check()
            waiting = [job for job in stage if not job.is_done]
            if done := len(stage) - len(waiting):
                self.note(f"{done} of {len(stage)} runs are there already and are kept")
            for job, status in zip(waiting, _run_all(waiting, jobs), strict=True):
                if status is TrainStatus.INTERRUPTED:
                    raise KeyboardInterrupt
                self.note(f"done: {job.label}, in {job.folder}")

    def result(self) -> list[SettingResult]:
        """The rows of the table, in the order of the settings."""
        metric, results = self.study.metric, list[SettingResult]()
        first: Evaluation | None = None
        for setting in self.study.settings:
            own = [self._evaluation(setting, seed) for seed in range(self.seeds)]
            score = mean_score(own, metric)
            if score.value is None:
                raise RunError(
                    f"{setting.name} did not measure {metric!r}; name another with --metric"
                )
            samples = [  # seeds of training as seeds of one evaluation
                replace(sample, seed=seed)
                for seed, evaluation in enumerate(own)
                for sample in evaluation.samples
            ]
            names = sorted({sample.category for sample in samples})
            total = ComparedScore(score)
            parts = {name: ComparedScore(mean_score(own, metric, name)) for name in names}
            together = Evaluation(tuple(samples))
            if first is not None:
                found = compare(first, together, (metric,))
                total = _compared(score, found.totals[metric])
                cells = found.by_category[metric]
                parts = {name: _compared(one.score, cells[name]) for name, one in parts.items()}
            first = first or together
            by_seed = tuple(mean_score([each], metric).value or 0.0 for each in own)
            results.append(SettingResult(setting, total, by_seed, parts))
        write_json(self.folder / "results.json", [result.to_dict() for result in results])
        return results

    def _evaluation(self, setting: Setting, seed: int) -> Evaluation:
        """The samples of a run; the groups of the study are their categories."""
        found = read_folder(self._place(setting.folder_name, seed) / EVALUATION)
        groups = self.study.groups.items()

        def group(name: str) -> str:
            return next((label for label, start in groups if name.startswith(start)), "others")

        samples = (replace(one, category=group(one.id)) for one in found.samples)
        return Evaluation(tuple(samples)) if groups else found

    def _write_tasks(self) -> None:
        path = self.folder / TASKS_FILE
        plan = self.study.plan({}, 0, self.overrides)
        if not path.is_file():
            if plays_tasks(plan):  # a run of it is also evaluated in the phrasings that it plays
                calls_alone = plan.data.model_copy(update={"answered": 0.0})
                found = load_data(plan.model_copy(update={"data": calls_alone})).tasks
            else:
                found = held_out_tasks(plan)
            tasks = found[: plan.evaluation.num_samples]
            if not tasks:
                raise DataError("the study's experiment holds out no tasks to evaluate on")
            write_jsonl(path, (task.to_dict() for task in tasks))

    def _plan(self, changes: Any, seed: int) -> Experiment:
        prepared = {name: self._place("prepare", name, seed) for name in self.study.prepare}
        own = self.study.plan({}, seed, self.overrides).evaluation
        asked = own.guard != "off" or own.baseline_examples or own.baseline_constrained
        shared: dict[str, Any] = {} if asked else {"evaluation.baseline": False}
        shared["evaluation.tasks"] = str((self.folder / TASKS_FILE).resolve())
        return self.study.plan({**shared, **changes}, seed, self.overrides, **prepared)

    def _place(self, *parts: str | int) -> Path:
        *names, seed = parts
        return self.folder.joinpath(*map(str, names), f"seed-{seed}")

    def _prepared(self) -> list[StudyRun]:
        return [
            StudyRun(
                f"{name}, seed {seed}",
                self._plan(changes, seed),
                self._place("prepare", name, seed),
            )
            for name, changes in self.study.prepare.items()
            for seed in range(self.seeds)
        ]

    def _settings(self) -> list[StudyRun]:
        return [
            StudyRun(
                f"{setting.name}, seed {seed}",
                self._plan(setting.changes, seed),
                self._place(setting.folder_name, seed),
                setting.is_trained,
                setting.in_context,
            )
            for seed in range(self.seeds)
            for setting in self.study.settings
        ]


def _compared(score: Score, cell: Cell) -> ComparedScore:
    return ComparedScore(score, cell.difference, cell.verdict.value)


def _run_all(jobs: Sequence[StudyRun], at_once: int) -> Iterator[TrainStatus]:
    if at_once < 2 or len(jobs) < 2:
        for job in jobs:
            with open_progress(job.plan.tracking.progress) as progress:
                progress.report(f"== {job.label}")
                yield run_job(job, progress)
        return
    threads = max(1, (os.cpu_count() or 1) // at_once)
    spawn = get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, _limit_threads, (threads,)) as pool:
        yield from pool.map(run_job, jobs)


def _limit_threads(count: int) -> None:
    """Give a process its share of the cores, before torch is loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)


def run_job(job: StudyRun, progress: Progress | None = None) -> TrainStatus:
    """Train and evaluate one run, or only what is missing of it."""
    try:
        if not job.is_trained:
            _evaluate_untrained(job, progress)
            return TrainStatus.FINISHED
        existing = (job.folder / "experiment.json").is_file()
        if not existing or FINAL not in Run.open(job.folder).checkpoints():
            _, status = train(job.plan, job.folder, resume=existing, progress=progress)
            if status is not TrainStatus.FINISHED or job.is_done:
                stopped = status is not TrainStatus.FINISHED  # also one in the last step
                return TrainStatus.INTERRUPTED if stopped else status
        model = open_model(job.folder, settings=job.plan)
        _evaluate(job, model, read_tasks(Path(str(job.plan.evaluation.tasks))), progress)
    except UserError as error:
        raise RunError(f"{job.label} ({job.folder}): {error}") from error
    return TrainStatus.FINISHED


def _evaluate_untrained(job: StudyRun, progress: Progress | None) -> None:
    plan = job.plan
    assert plan.evaluation.tasks is not None, "a sweep names the tasks"
    start = plan.model.adapter or plan.model.name
    model = open_model(start, settings=plan)
    tasks = read_tasks(Path(plan.evaluation.tasks))
    if job.in_context:
        rows = load_data(plan).train[: job.in_context]
        if len(rows) < job.in_context:
            right = f"{job.in_context} are wanted in the context"
            raise DataError(f"the experiment has {len(rows)} training conversations, {right}")
        tasks = [behind_system(task, rows) for task in tasks]
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / "experiment.json", plan.model_dump())
    _evaluate(job, model, tasks, progress)


def _evaluate(
    job: StudyRun, model: Model, tasks: Sequence[Task], progress: Progress | None
) -> None:
    """Evaluate into the run, in place of an evaluation that was broken off."""
    result = evaluate(model, tasks, progress=progress)
    noted = format_of_run(model.certificate, model.experiment)
    write_folder(result, job.folder / EVALUATION, noted, overwrite=True)


def result_points(study: Study, results: Sequence[SettingResult]) -> tuple[list[Point], PanelStyle]:
    """The plot of a sweep: bars, by category where the study says so, or a curve against the one
    number that is swept over."""
    metric, label = study.metric, study.metric.replace("_", " ")
    y = "share of tasks, 95 % interval"
    numbers = [key for key, values in study.over.items() if all(map(is_number, values))]
    axis = numbers[0] if len(numbers) == 1 and len(study.over[numbers[0]]) > 1 else None
    points = []
    for result in results:
        setting, total = result.setting, result.total.score
        series, bars = "", {setting.name or "run": total}
        if axis is not None:
            others = [f"{key}={value}" for key, value in setting.values.items() if key != axis]
            series = ", ".join(filter(None, [setting.variant, *others]))
        elif study.by_category or study.groups:
            named = {name.replace("_", " "): one.score for name, one in result.categories.items()}
            series, bars = setting.name, {**named, "all": total}
        for name, score in bars.items():
            if score.value is not None:
                x = name if axis is None else float(setting.values[axis])
                span = score.value, score.low, score.high, score.n
                points.append(Point(metric, series, x, *span))
    if axis is None:
        return points, PanelStyle(label, "", y, unit=True)
    values = [float(point.x) for point in points]
    is_log = min(values) > 0 and max(values) >= 8 * min(values)
    marked = frozenset(point.series for point in points)
    return points, PanelStyle(label, axis, y, unit=True, marked=marked, log_x=is_log)


def result_table(study: Study, results: Sequence[SettingResult]) -> str:
    """The table as Markdown: points of 100, with 95 % intervals over tasks; and one of the groups
    or categories, if the study has any."""
    head = ["setting", "score (95 % interval)", "tasks", "seeds", "deviation of seeds"]
    rows = [[*head, "difference to the first", "verdict"]]
    for one in results:
        deviation = "" if one.deviation is None else f"{100 * one.deviation:.1f}"
        counts = [str(one.total.score.n), str(len(one.by_seed)), deviation]
        name, total = one.setting.name or "the experiment", one.total
        rows.append([name, _points(total.score), *counts, _points(total.difference), total.verdict])
    text = _markdown(rows)
    if study.by_category or study.groups:
        sizes = {n: one.score.n for n, one in results[0].categories.items() if one.score.n}
        rows = [["by group", *(f"{name.replace('_', ' ')} ({n})" for name, n in sizes.items())]]
        rows += [[o.setting.name, *(o.categories[n].words() for n in sizes)] for o in results]
        text += f"\n\n{_markdown(rows)}"
    return text


def _points(score: Score | None) -> str:
    if score is None or score.value is None or score.low is None or score.high is None:
        return ""
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
