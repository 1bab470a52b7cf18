"""Collect what a report shows from run and evaluation folders, as one JSON value.

    data = report_data([Path("runs/sft"), Path("runs/grpo")], base=Path("evals/base"))
    data["sets"], data["episodes"], data["comparisons"], data["runs"]

Reads files alone: no model, no tokenizer. What cannot be read is counted in `notes`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolhone.errors import DataError, RunError, UserError
from toolhone.evaluation.compare import compare
from toolhone.evaluation.folder import METRICS, SAMPLES
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import interval
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.runs.run import plain, read_json, read_metrics
from toolhone.schema import Task, Tool

MAX_EPISODES = 5000
"""Episodes that a report shows unless another number is asked for."""
NOT_COPIED = ("familiar", "offered", "kind", "step", "text")
SCORE_INTERVALS = 30
"""Validations of a run whose scores get intervals; more are drawn without."""


@dataclass
class Collected:
    """What was read: sets of episodes with the samples that could be judged, and the tasks."""

    sets: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[int, list[JudgedEpisode]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    def open_set(self, name: str, run: str, kind: str, step: int | None = None) -> int:
        self.sets.append({"name": name, "run": run, "kind": kind, "step": step})
        return len(self.sets) - 1

    def add(self, number: int, record: Mapping[str, Any], where: str) -> None:
        """Add a line of a samples file to a set."""
        sample = None
        with suppress(KeyError, TypeError, ValueError, AttributeError, DataError):
            sample = JudgedEpisode.from_dict({"scores": {}, **record})
        if sample is None and "pieces" not in record and "text" not in record:
            self.unread[where] += 1
            return
        shown = {key: value for key, value in record.items() if key not in NOT_COPIED}
        shown |= {"set": number, "step": record.get("step")}
        if not record.get("turns"):
            shown["text"] = record.get("text", "")
        if sample is not None:
            self.samples.setdefault(number, []).append(sample)
            task = self.tasks.get(sample.id)
            shown |= _call_pairs(sample, () if task is None else task.tools)
        self.episodes.append(shown)


def report_data(
    folders: Sequence[Path], base: Path | None = None, max_episodes: int = MAX_EPISODES
) -> dict[str, Any]:
    """What a report shows of runs and evaluation folders; `base` is compared with each of them.

    Raises `RunError` where a folder is neither, or where there is nothing to show.
    """
    found, runs = Collected(), []
    for folder in ([] if base is None else [base]) + list(folders):
        if not (is_run := (folder / "experiment.json").is_file()) and not _evaluations(folder):
            what = "no such folder" if not folder.exists() else "neither a run nor an evaluation"
            raise RunError(f"{folder}: {what}; wanted a run folder or an evaluation folder")
        name = _short_name(folder, [*folders, *([] if base is None else [base])])
        if is_run:
            _read_tasks(found, folder)
        for path in _evaluations(folder):
            inner = path.relative_to(folder).as_posix()
            number = found.open_set(name if inner == "." else f"{name}/{inner}", name, "evaluation")
            for record in _records(found, path / SAMPLES):
                found.add(number, record, str(path / SAMPLES))
        if is_run:
            runs.append(_run(found, folder, name))
    comparisons = list(_comparisons(found, has_base=base is not None))
    for where, count in found.unread.items():
        found.notes.append(f"{where}: {count} lines cannot be read and are left out")
    if len(found.episodes) > max_episodes:
        every, count = found.episodes, len(found.episodes)
        found.notes.append(f"{count - max_episodes} of {count} episodes are left out (--episodes)")
        found.episodes = [every[n * count // max_episodes] for n in range(max_episodes)]
    if not found.episodes and not any(run["curves"] for run in runs):
        raise RunError(
            f"nothing to show: {', '.join(map(str, folders))} holds no logs and no episodes"
        )
    shown = {episode["id"] for episode in found.episodes if "id" in episode}
    messages = {
        key: [message.to_dict() for message in task.messages]
        for key, task in found.tasks.items()
        if key in shown and len(task.messages) > 1
    }
    result = {
        "title": ", ".join(dict.fromkeys(one["run"] for one in found.sets)) or runs[0]["name"],
        "runs": runs,
        "sets": found.sets,
        "comparisons": comparisons,
        "episodes": found.episodes,
        "messages": messages,
        "notes": found.notes,
    }
    return dict(plain(result))


def _short_name(folder: Path, folders: Sequence[Path]) -> str:
    """The last parts of a path that tell it from the others; without a trailing `run`."""
    parts = folder.resolve().parts
    others = [other.resolve().parts for other in folders if other.resolve() != folder.resolve()]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return str(folder)


def _evaluations(folder: Path) -> list[Path]:
    """The evaluation folders in a folder, itself included; those of a base come first."""
    inside = ("", "*/", "*/*/")
    found = {path.parent for inner in inside for path in folder.glob(f"{inner}{METRICS}")}
    kept = [path for path in found if (path / SAMPLES).is_file()]
    return sorted(kept, key=lambda path: ("base" not in path.name, str(path)))


def _records(found: Collected, path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; other lines are counted."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            value: Any = None
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
            if isinstance(value, dict):
                yield value
            elif line.strip():
                found.unread[str(path)] += 1


def _read_tasks(found: Collected, folder: Path) -> None:
    for record in _records(found, folder / "tasks.jsonl"):
        try:
            task = Task.from_dict(record)
        except UserError:
            found.unread[str(folder / "tasks.jsonl")] += 1
        else:
            found.tasks[task.id] = task


def _run(found: Collected, folder: Path, name: str) -> dict[str, Any]:
    """The summary and the curves of a run; its validations, episodes and rows become sets."""
    notes: list[str] = []
    path = folder / "metrics.jsonl"
    lines = read_metrics(path, notes.append) if path.is_file() else []
    found.notes += notes
    numbers: dict[tuple[str, int | None], int] = {}
    scores: dict[int, list[Mapping[str, float]]] = {}
    for record in _records(found, folder / "samples.jsonl"):
        step, is_episode = record.get("step"), "pieces" in record
        if not is_episode and isinstance(step, int):
            scores.setdefault(step, []).append(record.get("scores") or {})
        key = ("training episodes", None) if is_episode else (f"validation at {step}", step)
        if key not in numbers:
            kind = "training" if is_episode else "validation"
            numbers[key] = found.open_set(f"{name}: {key[0]}", name, kind, key[1])
        found.add(numbers[key], record, str(folder / "samples.jsonl"))
    for record in _records(found, folder / "rows.jsonl"):
        if ("rows", None) not in numbers:
            numbers["rows", None] = found.open_set(f"{name}: rows trained on", name, "rows")
        found.add(numbers["rows", None], record, str(folder / "rows.jsonl"))
    plan = read_json(folder / "experiment.json")
    return {
        "name": name,
        "folder": str(folder),
        "facts": _facts(folder, plan, lines),
        "cost": _cost(folder, lines),
        "curves": _curves(lines, scores),
        "experiment": plan,
    }


def _facts(
    folder: Path, plan: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    training, model = plan.get("training", {}), plan.get("model", {})
    facts = [
        ["method", training.get("method")],
        ["model", model.get("name")],
        ["starts from", model.get("adapter")],
        ["seed", plan.get("seed")],
        ["steps", max((line["step"] for line in lines), default=0)],
        ["batch size", training.get("batch_size")],
        ["learning rate", training.get("learning_rate")],
    ]
    data = read_json(folder / "data.json") if (folder / "data.json").is_file() else {}
    facts += [["rows", data.get("rows")], ["held-out tasks", data.get("tasks")]]
    facts = [fact for fact in facts if isinstance(fact[1], str | int | float)]
    return [
        [name, f"{value:g}" if isinstance(value, float) else str(value)] for name, value in facts
    ]


def _cost(folder: Path, lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Time and tokens of a run, as it logged them."""
    train = [line for line in lines if line["kind"] == "train"]
    last = train[-1].get("seconds") if train else None
    cost = [] if last is None else [["time", _duration(float(last))]]
    parts = Counter[str]()
    for line in train:
        parts.update({key[8:]: line[key] for key in line if key.startswith("seconds/")})
    cost += [[f"time of {part}", _duration(taken)] for part, taken in parts.most_common()]
    for key in ("trained_tokens", "sampled_tokens"):
        if total := sum(line.get(key, 0) for line in train):
            cost.append([key.replace("_", " "), f"{total:,.0f}"])
    if (folder / "usage.json").is_file():
        usage = read_json(folder / "usage.json")
        cost += [[f"billed: {key}", f"{value:,}"] for key, value in usage.items()]
    return cost


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _curves(
    lines: Sequence[Mapping[str, Any]], scores: Mapping[int, Sequence[Mapping[str, float]]]
) -> dict[str, dict[str, list[list[float | None]]]]:
    """Metric, then kind of line: points of step, value, and for held-out scores low, high, n."""
    curves: dict[str, dict[str, list[list[float | None]]]] = {}
    intervals = len(scores) <= SCORE_INTERVALS
    for line in lines:
        for name, value in line.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            point: list[float | None] = [line["step"], value]
            values = [s[name] for s in scores.get(line["step"], ()) if name in s]
            if line["kind"] == "validation" and values and intervals:
                score = interval(values)
                point += [score.low, score.high, score.n]
            curves.setdefault(name, {}).setdefault(line["kind"], []).append(point)
    return curves


def _call_pairs(sample: JudgedEpisode, tools: Sequence[Tool]) -> dict[str, Any]:
    """`pairs`: indices of an expected call and of its call (None: has no partner), and the wrong
    arguments; `wanted`: the expected calls they count; `chosen`: expected and chosen tool."""
    if not judges_calls(sample.expected):
        return {}
    choices = [
        (choice, match_calls(sample.calls, choice, tools)) for choice in sample.expected.choices
    ]
    choice, match = max(choices, key=lambda m: (m[1].exact, m[1].tool_score + m[1].argument_score))
    names = [
        (
            "" if pair.wanted is None else choice.wanted[pair.wanted].name,
            "" if pair.got is None else sample.calls[pair.got].name,
        )
        for pair in match.pairs
    ]
    both = [list(each) for each in names if all(each)]
    missing = [wanted for wanted, got in names if not got]
    extra = [got for wanted, got in names if not wanted]
    width = max(len(missing), len(extra))
    padded = [some + [""] * (width - len(some)) for some in (missing, extra)]
    chosen = [*both, *map(list, zip(*padded, strict=True))] or [["", ""]]
    wanted = [call.to_dict() for call in choice.wanted]
    pairs = [[pair.wanted, pair.got, list(pair.wrong)] for pair in match.pairs]
    return {"pairs": pairs, "wanted": wanted, "chosen": chosen}


def _comparisons(found: Collected, has_base: bool) -> Iterator[dict[str, Any]]:
    """Before and after: evaluations against those of the base, which come first, or against earlier
    ones of the same tasks; in a run without one, its last validation against its first."""
    kinds = ["evaluation", "validation"]
    for kind in kinds:
        numbers = [n for n in found.samples if found.sets[n]["kind"] == kind]
        for place, after in enumerate(numbers):
            own = {sample.id for sample in found.samples[after]}
            earlier = [
                before
                for before in numbers[:place]
                if own & {sample.id for sample in found.samples[before]}
                and (kind == "evaluation" or found.sets[before]["run"] == found.sets[after]["run"])
            ]
            later = numbers[place + 1 :]
            is_last = not any(found.sets[n]["run"] == found.sets[after]["run"] for n in later)
            if earlier and (kind == "evaluation" or is_last):
                before = earlier[0] if has_base or kind == "validation" else earlier[-1]
                with suppress(UserError):
                    yield _comparison(found, before, after)


def _comparison(found: Collected, before: int, after: int) -> dict[str, Any]:
    base, tuned = (Evaluation(tuple(found.samples[number])) for number in (before, after))
    result = compare(base, tuned)
    leading = result.leading
    return {
        "base": before,
        "tuned": after,
        "metric": leading,
        "tasks": len(result.pairs),
        "totals": [{"name": name, **result.totals[name].to_dict()} for name in result.metrics],
        "categories": [
            {"name": name, **cell.to_dict()} for name, cell in result.by_category[leading].items()
        ],
    }
