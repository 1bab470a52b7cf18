"""Compare two evaluations of the same tasks, task by task.

    comparison = compare(read_folder("before"), read_folder("after"))
    comparison.totals["exact_match"].verdict             # better, same, worse, undecided, ...

Every test is one-sided and corrected for those that are read with it (docs/compare.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

from toolhone.errors import ConfigError, DataError, nearest
from toolhone.evaluation.legacy_metrics import METRIC_ALIASES
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import (
    Side,
    detectable_loss,
    holm,
    interval,
    paired_interval,
    paired_p_value,
    seed_spread,
)
from toolhone.evaluation.verdict import DEFAULT_RULES, LEVEL, ROUNDING, Cell, Rules
from toolhone.schema import Json

LEADING = ("exact_match", "answer_quality", "valid_format")
"""Metrics whose changed tasks are worth showing, in order of preference."""
GUARDED = ("bfcl_accuracy", "exact_match", "answer_quality", "solved", "no_call_accuracy")
"""Metrics that say whether a task is solved: a guard reads those of them that both measured."""


@dataclass(frozen=True)
class TaskPair:
    """One task in both evaluations; each side has a sample per seed, in the same order."""

    id: str
    category: str
    base: tuple[JudgedEpisode, ...]
    tuned: tuple[JudgedEpisode, ...]

    @property
    def cluster(self) -> str:
        """What the task shares with others; its id where that is nothing."""
        return self.base[0].cluster or self.id

    @cached_property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Means of base and tuned over the seeds, by metric, where measured in both."""
        found: dict[str, list[tuple[float, float]]] = {}
        for base, tuned in zip(self.base, self.tuned, strict=True):
            before, after = base.all_scores, tuned.all_scores
            for name in before.keys() & after.keys():
                found.setdefault(name, []).append((before[name], after[name]))
        return {
            name: (
                math.fsum(base for base, _ in both) / len(both),
                math.fsum(tuned for _, tuned in both) / len(both),
            )
            for name, both in found.items()
        }

    def difference(self, metric: str) -> float:
        """Tuned minus base; 0 where not measured in both."""
        base, tuned = self.scores.get(metric, (0.0, 0.0))
        return tuned - base if abs(tuned - base) > ROUNDING else 0.0


@dataclass(frozen=True)
class Comparison:
    """The pairs, and the results for `metrics`; samples that were not paired, by id (and seed,
    where ids are not unique).

    different: samples with the same id whose question or expectation differ. recategorised: pairs
    whose categories differ; base's counts. guarded: metrics whose tests are corrected together;
    the tests of any other metric are corrected on their own. named: the user chose the metrics.
    """

    pairs: tuple[TaskPair, ...]
    samples: int
    only_base: tuple[str, ...]
    only_tuned: tuple[str, ...]
    different: tuple[str, ...]
    recategorised: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    named: bool = False
    rules: Rules = DEFAULT_RULES

    @cached_property
    def categories(self) -> dict[str, tuple[TaskPair, ...]]:
        groups: dict[str, list[TaskPair]] = {}
        for pair in sorted(self.pairs, key=lambda pair: pair.category):
            groups.setdefault(pair.category, []).append(pair)
        return {name: tuple(pairs) for name, pairs in groups.items()}

    @cached_property
    def cells(self) -> dict[tuple[str, str | None], Cell]:
        """A cell for each metric and category (None: all tasks), tests corrected by Holm's method.

        Half of the allowed error belongs to the totals, half to the categories.
        """
        groups: dict[str | None, Sequence[TaskPair]] = {None: self.pairs}
        if self.several:
            groups.update(self.categories)
        cells = {
            (metric, category): _measure(metric, category, pairs, self.rules)
            for metric in self.metrics
            for category, pairs in groups.items()
        }
        others = [(metric,) for metric in self.metrics if metric not in self.guarded]
        for family in (self.guarded, *others):
            keys = [key for key, cell in cells.items() if key[0] in family and cell.p is not None]
            weights = [1.0 if key[1] is not None else max(1, len(groups) - 1) for key in keys]
            worse = holm([cells[key].p_worse or 0.0 for key in keys], weights)
            better = holm([cells[key].p_better or 0.0 for key in keys], weights)
            for key, loss, gain in zip(keys, worse, better, strict=True):
                cells[key] = replace(cells[key], p_worse=loss, p_better=gain)
        return cells

    @cached_property
    def totals(self) -> dict[str, Cell]:
        """Metric to cell."""
        return {name: self.cells[name, None] for name in self.metrics}

    @cached_property
    def by_category(self) -> dict[str, dict[str, Cell]]:
        """Metric, then category; a single category has the cell of the total."""
        return {
            metric: {
                category: self.cells[metric, category]
                if self.several
                else replace(self.totals[metric], category=category)
                for category in self.categories
            }
            for metric in self.metrics
        }

    @property
    def prompt_tokens(self) -> tuple[float, float] | None:
        """Mean prompt tokens of a task, base and tuned; None where a sample does not know them."""
        sides = [pair.base for pair in self.pairs], [pair.tuned for pair in self.pairs]
        counts = [[one.prompt_tokens for samples in side for one in samples] for side in sides]
        if not self.pairs or not all(map(all, counts)):
            return None
        base, tuned = (math.fsum(side) / len(side) for side in counts)
        return base, tuned

    @property
    def several(self) -> bool:
        """Whether there is more than one category."""
        return len(self.categories) > 1

    @property
    def clusters(self) -> int:
        """Number of tasks that share nothing, and of groups that share something."""
        return len({pair.cluster for pair in self.pairs})

    @property
    def leading(self) -> str:
        """The metric whose changed tasks are shown."""
        measured = [name for name in self.metrics if self.totals[name].difference.n]
        measured = measured or [*self.metrics]
        return next((name for name in LEADING if name in measured), measured[0])

    def errors(self, metric: str, gained: bool) -> dict[str, int]:
        """Number of tasks gained by the kind of error of base, or lost by that of tuned."""
        kinds = Counter[str]()
        for pair in self.changed(metric, gained):
            wrong = [sample.error for sample in (pair.base if gained else pair.tuned)]
            kinds[next(filter(None, wrong), "") or "other"] += 1
        return dict(kinds.most_common())

    def seed_spreads(self, metric: str) -> dict[str, tuple[float, float | None]]:
        """Mean and standard deviation over the seeds, of base and of tuned."""
        found = {}
        for side in ("base", "tuned"):
            values: dict[int, list[float]] = {}
            for sample in (sample for pair in self.pairs for sample in getattr(pair, side)):
                if metric in sample.all_scores:
                    values.setdefault(sample.seed, []).append(sample.all_scores[metric])
            means = {seed: math.fsum(each) / len(each) for seed, each in values.items()}
            if means:
                found[side] = seed_spread(means)
        return found

    def changed(self, metric: str, gained: bool) -> list[TaskPair]:
        """Tasks that gained (or lost), in turn from the categories, those that moved most first.

        Within a category the largest change comes first, then the one that moved most metrics.
        """
        sign = 1 if gained else -1

        def importance(pair: TaskPair) -> tuple[float, int]:
            along = sum(sign * pair.difference(name) > 0 for name in METRICS)
            return sign * pair.difference(metric), along

        moved = [pair for pair in self.pairs if sign * pair.difference(metric) > 0]
        by_category: dict[str, list[TaskPair]] = {}
        for pair in sorted(moved, key=importance, reverse=True):
            by_category.setdefault(pair.category, []).append(pair)
        queues = sorted(by_category.values(), key=len, reverse=True)
        return [pair for turn in zip_longest(*queues) for pair in turn if pair is not None]

    def to_dict(self) -> dict[str, Json]:
        lists = ("only_base", "only_tuned", "different", "recategorised")
        paired = {"tasks": len(self.pairs), "samples": self.samples, "clusters": self.clusters}
        metrics = {
            name: {
                "all": self.totals[name].to_dict(),
                "categories": {key: cell.to_dict() for key, cell in self.by_category[name].items()},
                "gained": [pair.id for pair in self.changed(name, gained=True)],
                "lost": [pair.id for pair in self.changed(name, gained=False)],
                "gained_by_error": self.errors(name, gained=True),
                "lost_by_error": self.errors(name, gained=False),
                "seeds": {
                    side: {"mean": mean, "standard_deviation": deviation}
                    for side, (mean, deviation) in self.seed_spreads(name).items()
                },
            }
            for name in self.metrics
        }
        named = {name: list(getattr(self, name)) for name in lists}
        return {"paired": paired | named, "metrics": metrics}


def compare(
    base: Evaluation, tuned: Evaluation, metrics: Sequence[str] = (), rules: Rules = DEFAULT_RULES
) -> Comparison:
    """Join the samples and compare them by `metrics`; an earlier system's are named "group.name".

    Without `metrics`, all of ours and the user's own that either side measured.
    """
    joined, samples = _join(base.samples, tuned.samples), (*base.samples, *tuned.samples)
    scored = {name for sample in samples for name in sample.scores}
    ours = [name for name in (*METRICS, *RATES) if name in scored]
    known = [*ours, *sorted(scored - {*METRICS, *RATES})]
    everything = [*known, *sorted({name for sample in samples for name in sample.legacy_scores})]
    chosen = {name: name if name in known else METRIC_ALIASES.get(name, name) for name in metrics}
    for name, full in chosen.items():
        if full not in everything:
            raise ConfigError(
                f"neither evaluation measured {name!r}{nearest(name, everything)}; "
                f"measured: {', '.join(everything)}"
            )
    names = tuple(dict.fromkeys(chosen.values()) or known)
    found = replace(joined, metrics=names, guarded=names, named=bool(metrics), rules=rules)
    if metrics:
        return found
    in_both = {name for pair in joined.pairs for name in pair.scores}
    guarded = tuple(name for name in GUARDED if name in in_both)
    return replace(found, guarded=guarded or (found.leading,))


def _join(base: Sequence[JudgedEpisode], tuned: Sequence[JudgedEpisode]) -> Comparison:
    """Pair samples by id, or by id and seed where an id occurs with several seeds."""
    seeded = any(len({sample.id for sample in side}) < len(side) for side in (base, tuned))
    sides: list[dict[str, JudgedEpisode]] = [{}, {}]
    for name, side, samples in zip(("base", "tuned"), sides, (base, tuned), strict=True):
        for sample in samples:
            key = f"{sample.id} (seed {sample.seed})" if seeded else sample.id
            if key in side:
                raise DataError(
                    f"{name}: the task {key} occurs more than once; "
                    "samples are joined on id and seed, which must differ"
                )
            side[key] = sample
    left, right = sides
    only, same, different = list[str](), list[str](), list[str]()
    by_task: dict[str, list[str]] = {}
    for key, one in left.items():
        other = right.get(key)
        if other is None:
            only.append(key)
        elif (one.query, one.expected) == (other.query, other.expected):
            same.append(key)
            by_task.setdefault(one.id, []).append(key)
        else:
            different.append(key)
    if not same:
        found = f"all {len(different)} task ids that both evaluations have name different tasks"
        if not different:
            counts = [f"{len(one)}, such as {next(iter(one), 'none')!r}" for one in sides]
            found = "the two evaluations have no task in common "
            found += f"(base has {counts[0]}, tuned {counts[1]})"
        raise DataError(f"{found}; compare evaluations of one task file")
    pairs = [
        TaskPair(
            task,
            left[keys[0]].category,
            tuple(left[key] for key in keys),
            tuple(right[key] for key in keys),
        )
        for task, keys in by_task.items()
    ]
    return Comparison(
        tuple(pairs),
        len(same),
        tuple(only),
        tuple(key for key in right if key not in left),
        tuple(different),
        tuple(key for key in same if left[key].category != right[key].category),
    )


def _measure(metric: str, category: str | None, pairs: Sequence[TaskPair], rules: Rules) -> Cell:
    """One metric over these pairs; its p-values are not corrected yet."""
    measured = [pair for pair in pairs if metric in pair.scores]
    alone = [pair for pair in pairs if metric not in pair.scores]
    moves = [pair.difference(metric) for pair in measured]
    named = [pair.cluster for pair in measured]
    clusters = named if len({*named}) < len(named) else None

    def count(sides: list[tuple[JudgedEpisode, ...]]) -> int:
        return sum(any(metric in sample.all_scores for sample in side) for side in sides)

    cell = Cell(
        metric,
        category,
        interval([pair.scores[metric][0] for pair in measured], clusters),
        interval([pair.scores[metric][1] for pair in measured], clusters),
        paired_interval(moves, clusters),
        gained=sum(move > 0 for move in moves),
        lost=sum(move < 0 for move in moves),
        only_base=count([pair.base for pair in alone]),
        only_tuned=count([pair.tuned for pair in alone]),
        rules=rules,
        detectable=detectable_loss(moves, LEVEL, clusters=clusters),
    )
    if len({*named}) < rules.min_tasks:
        return cell
    return replace(
        cell,
        p=paired_p_value(moves, clusters=clusters),
        p_worse=paired_p_value(moves, Side.LOSS, rules.margin, mid=True, clusters=clusters),
        p_better=paired_p_value(moves, Side.GAIN, mid=True, clusters=clusters),
    )
