"""Evaluate a policy on BFCL: our engine generates, bfcl-eval judges.

    result = evaluate_bfcl(policy, "live_simple,multi_turn_base", BfclOptions(python), progress)
    result.evaluation.metrics["bfcl_accuracy"]; result.report["categories"]["live_simple"]

Result and score files in the official format are kept below `options.root`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.dialects.syntax.unmarked import PythonList
from toolhone.episodes.episode import EpisodeStatus
from toolhone.episodes.policy import Policy, TokenPolicy
from toolhone.errors import DataError
from toolhone.evaluation.bfcl_checker import category_of
from toolhone.evaluation.bfcl_dialogues import Simulation, play_dialogues
from toolhone.evaluation.bfcl_official import (
    MULTI_TURN,
    VERSION,
    Reply,
    official_failures,
    parse_categories,
    read_entries,
    task_of,
)
from toolhone.evaluation.error_kinds import ErrorKind
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import interval
from toolhone.runs.progress import Progress
from toolhone.schema import Expect, Json, Task, Tool, ToolCall

METRIC = "bfcl_accuracy"
_SIMPLE = ("simple_python", "simple_java", "simple_javascript")
_LIVE_AST = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
_UNREAD = (EpisodeStatus.MALFORMED, EpisodeStatus.TRUNCATED)


@dataclass(frozen=True)
class BfclOptions:
    """python: an interpreter with bfcl-eval. root: where result and score files go. name: of the
    model there. samples: at most so many entries of each category (None: all)."""

    python: Path
    root: Path
    name: str
    samples: int | None = None


@dataclass(frozen=True)
class BfclResult:
    """The entries as an evaluation with the metric `bfcl_accuracy`, and a report for bfcl.json."""

    evaluation: Evaluation
    report: dict[str, Json]


def evaluate_bfcl(
    policy: Policy, categories: str, options: BfclOptions, progress: Progress
) -> BfclResult:
    """Generate replies to the entries of these categories, and have the package judge them."""
    names = parse_categories(categories, progress.report)
    entries, seen = [], Counter[str]()
    for entry in read_entries(options.python, names):
        seen[_category(entry)] += 1
        if options.samples is None or seen[_category(entry)] <= options.samples:
            entries.append(entry)
    multi = [entry for entry in entries if _category(entry) in MULTI_TURN]
    single = [entry for entry in entries if _category(entry) not in MULTI_TURN]
    tasks = [task_of(entry) for entry in single]
    prompt_style = "native"
    if isinstance(policy, TokenPolicy) and policy.dialect.name == PythonList.name:
        prompt_style = PythonList.name
        policy = policy.showing(as_published(single, tasks))
    samples: list[JudgedEpisode] = []
    if tasks:
        samples += evaluate(policy, tasks, progress=progress, max_turns=1).samples
    replies = [Reply(sample.id, [[list(sample.calls) or sample.text]]) for sample in samples]
    if multi:
        chosen = [name for name in names if name in MULTI_TURN]
        with Simulation(options.python, chosen) as simulation:
            played = play_dialogues(policy, multi, simulation, progress)
        replies += played
        samples += map(_multi_turn_sample, multi, played)
    failed = official_failures(
        options.python, options.root, options.name, replies, partial=options.samples is not None
    )
    judged = []
    for sample in samples:
        reason = failed.get(sample.id)
        scores = {**sample.scores, METRIC: float(reason is None)}
        if reason is None:
            judged.append(replace(sample, scores=scores, error=""))
        else:
            kind, reasons = sample.error or ErrorKind.OTHER, (*sample.reasons, f"bfcl: {reason}")
            judged.append(replace(sample, scores=scores, error=kind, reasons=reasons))
    settings = {
        "package": f"bfcl-eval {VERSION}",
        "prompt_style": prompt_style,
        **policy.describe(),
        "complete": options.samples is None,
    }
    return BfclResult(Evaluation(tuple(judged)), settings | summarise(judged, names))


def as_published(
    entries: Sequence[Mapping[str, Json]], tasks: Sequence[Task]
) -> Callable[[Sequence[Tool]], Sequence[Tool]]:
    """Show the functions of each entry as BFCL writes them, in place of our schemas of them.

    Tools are told apart by identity: two entries can have equal schemas and other functions.
    """
    published = {
        id(task.tools): tuple(
            Tool(one["name"], one.get("description", ""), one["parameters"])
            for one in entry["function"]
        )
        for entry, task in zip(entries, tasks, strict=True)
    }
    return lambda tools: published.get(id(tools), tools)


def _category(entry: Mapping[str, Json]) -> str:
    return category_of(str(entry["id"]))


def _multi_turn_sample(entry: Mapping[str, Json], reply: Reply) -> JudgedEpisode:
    steps = [step for turn in reply.turns for step in turn]
    calls: list[ToolCall] = [call for step in steps if not isinstance(step, str) for call in step]
    return JudgedEpisode(
        id=reply.id,
        category=_category(entry),
        seed=0,
        query=str(entry["question"][0][-1]["content"]),
        text="\n".join(step for step in steps if isinstance(step, str)),
        calls=tuple(calls),
        expected=Expect(any_call=True),
        outcome=reply.outcome.value,
        scores={},
    )


def summarise(samples: Sequence[JudgedEpisode], names: Sequence[str]) -> dict[str, Json]:
    """Counts and 95 % intervals by category, and the means of the leaderboard's sections.

    A section is present where all its categories are; there is no overall figure, since that
    counts what was not run as 0. `unread`: replies that are malformed or were cut off, which the
    package counts as "no call", so as right where none is wanted.
    """
    categories: dict[str, dict[str, Json]] = {}
    for name in names:
        found = [sample for sample in samples if sample.category == name]
        score = interval([sample.scores[METRIC] for sample in found])
        if score.value is None:
            raise DataError(f"bfcl: the category {name} has no entry")
        outcomes = Counter(sample.outcome for sample in found)
        categories[name] = {
            "correct": round(score.value * score.n),
            "total": score.n,
            "accuracy": score.value,
            "low": score.low,
            "high": score.high,
            "unread": sum(outcomes[outcome] for outcome in _UNREAD),
            "errors": outcomes[EpisodeStatus.FAILED] + outcomes[EpisodeStatus.NO_ROOM],
        }
    accuracy = {name: found["accuracy"] for name, found in categories.items()}

    def mean(parts: Sequence[str]) -> float | None:
        return sum(accuracy[part] for part in parts) / len(parts) if {*parts} <= {*names} else None

    simple = mean(_SIMPLE)
    others = [accuracy.get(name) for name in ("multiple", "parallel", "parallel_multiple")]
    live = [categories[name] for name in _LIVE_AST if name in categories]
    sections = {
        "non_live": None
        if simple is None or None in others
        else (simple + sum(found for found in others if found is not None)) / 4,
        "live": sum(one["correct"] for one in live) / sum(one["total"] for one in live)
        if len(live) == len(_LIVE_AST)
        else None,
        "irrelevance": mean(("irrelevance", "live_irrelevance")),
        "multi_turn": mean(MULTI_TURN),
    }
    kept = {name: value for name, value in sections.items() if value is not None}
    return {"categories": categories, "sections": kept}
