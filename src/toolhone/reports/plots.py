"""The numbers behind the plots of runs: curves, scores by category, scores against a setting.

    plot_runs([Path("runs/a"), Path("runs/b")], Path("curves.png"))
    points, styles = curve_points(runs, ["reward"], by=["training.method"])
    points, styles = bar_points(runs, "exact_match", by=["training.method"])
    points, styles = setting_points(runs, "exact_match", "data.samples", by=["training.method"])

`by` names keys of the experiment: runs that agree on them are one series, such as seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolhone.errors import RunError, nearest
from toolhone.evaluation.folder import METRICS, read_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import Score, interval
from toolhone.reports.figure import PanelStyle, Point, draw_points
from toolhone.runs.run import read_json, read_metrics
from toolhone.schema.json_input import is_number

SCORES = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format", "no_call_accuracy")
WATCHED = ("groups_without_signal", "clip_share", "entropy", "kl_reference")
"""What shows whether reinforcement learning is healthy (docs/algorithms/grpo.md)."""
PARTS = "reward parts"
"""The panel of the parts of the reward, by their names in the log: `reward/NAME`."""
_LABELS = {
    "scores": ("scores on held-out tasks", "share of tasks"),
    "health": ("health of the training", "shares, and nats per token"),
    PARTS: ("parts of the reward", "mean over episodes"),
    "loss": ("", "nats per token"),
}
Plot = tuple[list[Point], dict[str, PanelStyle]]
Lines = list[dict[str, Any]]


def plot_runs(
    sources: Sequence[Path],
    out: Path,
    metrics: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Draw the curves of runs (folders or metrics files), one panel per metric.

    `report` receives a sentence about each log whose last line was cut off.
    """
    points, styles = curve_points(sources, metrics, report=report)
    return draw_points(points, out, styles)


def curve_points(
    sources: Sequence[Path],
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Plot:
    """Metrics of runs (folders or metrics files) against the step, a panel for each.

    Without `metrics`: reward or loss, parts of the reward of a single run, scores, and what shows
    whether reinforcement learning is healthy. With `by`, a series is the mean of its runs at each
    step, and low and high are the smallest and the largest of them.
    """
    files = {path: path / "metrics.jsonl" if path.is_dir() else path for path in sources}
    logs = {path: read_metrics(file, report) for path, file in files.items()}
    known = sorted({key for lines in logs.values() for line in lines for key in _numbers(line)})
    varying: list[str] = []
    if len(_groups(logs, by)) == 1:
        trained = [line for lines in logs.values() for line in lines if line["kind"] == "train"]
        varying = [name for name in known if len({line.get(name) for line in trained} - {None}) > 1]
    panels = _panels(metrics, known, varying)
    points, styles = [], {}
    for panel, names in panels.items():
        found, style = _panel_points(panel, names, logs, by)
        points += found
        styles[panel] = style
    if not points:
        logged = ", ".join(map(str, files.values()))
        raise RunError(f"nothing to draw: {logged} holds no loss and no scores yet")
    return points, styles


def _numbers(line: Mapping[str, Any]) -> set[str]:
    return {key for key, value in line.items() if is_number(value) and key != "step"}


def _panels(
    metrics: Sequence[str], known: Sequence[str], varying: Sequence[str]
) -> dict[str, list[str]]:
    """The metrics of each panel; parts of the reward are drawn of those that are `varying`."""
    for metric in metrics:
        if metric not in known:
            raise RunError(
                f"no metric {metric!r} in these logs{nearest(metric, known)}; "
                f"they have {', '.join(known) or 'none'}"
            )
    if metrics:
        return {metric: [metric] for metric in metrics}
    is_rl = "reward" in known
    parts = [name for name in varying if name.startswith("reward/") and "." in name]
    wanted: dict[str, Sequence[str]] = {"reward" if is_rl else "loss": (["loss", "reward"][is_rl],)}
    wanted |= {PARTS: parts} if len(parts) > 1 else {}
    wanted |= {"scores": SCORES} | ({"health": WATCHED} if is_rl else {})
    found = {panel: [name for name in names if name in known] for panel, names in wanted.items()}
    return {panel: names for panel, names in found.items() if names}


def _panel_points(
    panel: str, names: Sequence[str], logs: Mapping[Path, Lines], by: Sequence[str]
) -> tuple[list[Point], PanelStyle]:
    points: list[Point] = []
    noisy, marked = set[str](), set[str]()
    groups = _groups(logs, by)
    for group, paths in groups.items():
        for name in names:
            kinds = sorted({line["kind"] for path in paths for line in logs[path] if name in line})
            for kind in kinds:
                if panel == PARTS and kind != "train":
                    continue
                shown = name.rpartition("/")[2]
                words = (
                    group if len(groups) > 1 else "",
                    shown.replace("_", " ") if len(names) > 1 else "",
                    kind if len(kinds) > 1 or len(names) == 1 else "",
                )
                series = ", ".join(filter(None, words))
                found = _mean_over_runs(panel, series, name, kind, [logs[p] for p in paths])
                points += found
                if kind != "train":
                    marked.add(series)
                elif len(found) > 40:
                    noisy.add(series)
    title, y = _LABELS.get(panel, ("", ""))
    unit = all(name in SCORES for name in names)
    style = PanelStyle(title, y=y, unit=unit, noisy=frozenset(noisy), marked=frozenset(marked))
    return points, style


def _mean_over_runs(
    panel: str, series: str, name: str, kind: str, runs: Sequence[Lines]
) -> list[Point]:
    """A point for each step that every run of the series has, with the range over several runs."""
    values: dict[int, list[float]] = {}
    for lines in runs:
        own = {line["step"]: line for line in lines if line["kind"] == kind}
        for step, line in own.items():
            if name in _numbers(line):
                values.setdefault(step, []).append(float(line[name]))
    several = len(runs) > 1
    return [
        Point(
            panel,
            series,
            step,
            sum(each) / len(each),
            min(each) if several else None,
            max(each) if several else None,
            len(each) if several else None,
        )
        for step, each in sorted(values.items())
        if len(each) == len(runs)
    ]


def _groups(paths: Sequence[Path] | Mapping[Path, Any], by: Sequence[str]) -> dict[str, list[Path]]:
    """The runs of each series: each alone, or those that agree on the keys `by`."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        name = path.name if path.is_dir() else path.parent.name or path.name
        if by:
            name = ", ".join(str(setting(path, key)) for key in by)
        elif name in groups:
            name = str(path)
        groups.setdefault(name, []).append(path)
    return groups


def setting(run: Path, key: str) -> Any:
    """The value of a dotted key in the experiment of a run."""
    folder = run if run.is_dir() else run.parent
    value: Any = read_json(folder / "experiment.json")
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            near = nearest(part, value) if isinstance(value, Mapping) else ""
            raise RunError(f"{folder}/experiment.json has no {key!r}{near}; name a key that it has")
        value = value[part]
    return value


def mean_score(
    evaluations: Sequence[Evaluation], metric: str, category: str | None = None
) -> Score:
    """The mean of a score over tasks, each first averaged over the evaluations, with its interval.

    Its `n` is the number of tasks; those of one cluster are no independent witnesses.
    """
    values: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for evaluation in evaluations:
        for sample in evaluation.samples:
            if category in (None, sample.category) and metric in sample.all_scores:
                values.setdefault(sample.id, []).append(sample.all_scores[metric])
                groups[sample.id] = sample.group
    clusters = [*groups.values()] if len({*groups.values()}) < len(groups) else None
    return interval([sum(each) / len(each) for each in values.values()], clusters)


def _evaluations(folders: Sequence[Path], metric: str) -> dict[Path, Evaluation]:
    """The evaluation of each run or folder."""
    found = {}
    for folder in folders:
        place = folder if (folder / METRICS).is_file() else folder / "evaluation"
        if not (place / METRICS).is_file():
            right = f"make one with toolhone eval {folder} --out {place}"
            raise RunError(f"{folder} has no evaluation; {right}")
        found[folder] = read_folder(place)
        known = list(found[folder].metrics)
        if not any(metric in sample.all_scores for sample in found[folder].samples):
            near = nearest(metric, known)
            raise RunError(
                f"{place} did not measure {metric!r}{near}; name one of {', '.join(known)}"
            )
    return found


def bar_points(folders: Sequence[Path], metric: str, by: Sequence[str] = ()) -> Plot:
    """A score by category, and over all tasks, of each series, with 95 % intervals over tasks."""
    evaluations, points = _evaluations(folders, metric), list[Point]()
    categories = sorted({s.category for one in evaluations.values() for s in one.samples})
    for series, paths in _groups(folders, by).items():
        own = [evaluations[path] for path in paths]
        for category in [*categories, None] if len(categories) > 1 else [None]:
            score = mean_score(own, metric, category)
            if score.value is not None:
                name = "all" if category is None else category.replace("_", " ")
                points.append(
                    Point(metric, series, name, score.value, score.low, score.high, score.n)
                )
    label = metric.replace("_", " ")
    return points, {metric: PanelStyle(f"{label} by category", "", "share of tasks", unit=True)}


def setting_points(folders: Sequence[Path], metric: str, key: str, by: Sequence[str] = ()) -> Plot:
    """A score of runs against a number in their experiments (data efficiency: `data.samples`).

    Runs of a series with the same number are averaged, task by task.
    """
    evaluations, points = _evaluations(folders, metric), list[Point]()
    groups = _groups(folders, by) if by else {"": list(folders)}
    for series, paths in groups.items():
        values: dict[float, list[Evaluation]] = {}
        for path in paths:
            number = setting(path, key)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise RunError(f"{path}: {key} is {number!r}; the plot needs a number there")
            values.setdefault(float(number), []).append(evaluations[path])
        for number, own in sorted(values.items()):
            score = mean_score(own, metric)
            assert score.value is not None
            points.append(
                Point(metric, series, number, score.value, score.low, score.high, score.n)
            )
    numbers = [float(point.x) for point in points]
    style = PanelStyle(
        f"{metric.replace('_', ' ')} against {key}",
        key,
        "share of tasks",
        unit=True,
        marked=frozenset(groups),
        log_x=min(numbers) > 0 and max(numbers) >= 8 * min(numbers),
    )
    return points, {metric: style}
