"""Compare two evaluations of the same tasks, task by task.

    comparison = compare(read_folder("before"), read_folder("after"))
    comparison.totals["exact_match"].verdict             # better, worse, no difference seen, ...
    comparison.worse(0.02)                               # what lost more than 2 points

A metric over all tasks is tested on its own; its categories are corrected together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest

from toolhone.errors import ConfigError, DataError, nearest
from toolhone.evaluation.legacy_metrics import METRIC_ALIASES
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import Score, holm, interval, paired_interval, paired_p_value
from toolhone.schema import Json

LEVEL = 0.05
"""A p-value below this counts as a difference."""
LEADING = ("exact_match", "answer_quality", "valid_format")
"""Metrics whose changed tasks are worth showing, in order of preference."""
_ROUNDING = 1e-9


class GuardVerdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    """Too few tasks changed, or as many gained as lost; no proof that the two are equal."""
    NOT_MEASURED = "not measured in both"


@dataclass(frozen=True)
class TaskPair:
    """One task in both evaluations; each side has a sample per seed, in the same order."""

    id: str
    category: str
    base: tuple[JudgedEpisode, ...]
    tuned: tuple[JudgedEpisode, ...]

    @cached_property
    def _scores(self) -> dict[str, tuple[float, float]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for base, tuned in zip(self.base, self.tuned, strict=True):
            before, after = _all_scores(base), _all_scores(tuned)
            for name in before.keys() & after.keys():
                found.setdefault(name, []).append((before[name], after[name]))
        return {
            name: (_mean([before for before, _ in both]), _mean([after for _, after in both]))
            for name, both in found.items()
        }

    def scores(self, metric: str) -> tuple[float, float] | None:
        """Scores of base and tuned, as means over the seeds; None where not measured in both."""
        return self._scores.get(metric)

    def difference(self, metric: str) -> float:
        """Tuned minus base; 0 where not measured in both."""
        base, tuned = self._scores.get(metric, (0.0, 0.0))
        return tuned - base if abs(tuned - base) > _ROUNDING else 0.0


@dataclass(frozen=True)
class Join:
    """Which samples were paired; the others by id (and seed, where ids are not unique)."""

    pairs: tuple[TaskPair, ...]
    paired: int
    only_base: tuple[str, ...] = ()
    only_tuned: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    """Samples with the same id whose question or expectation differ."""
    recategorised: tuple[str, ...] = ()
    """Pairs whose categories differ; base's counts."""

    def to_dict(self) -> dict[str, Json]:
        names = ("only_base", "only_tuned", "different", "recategorised")
        lists = {name: list(getattr(self, name)) for name in names}
        return {"tasks": len(self.pairs), "samples": self.paired, **lists}


@dataclass(frozen=True)
class Cell:
    """One metric over all tasks or one category: both means and their paired difference.

    `p` is the test's p-value; the verdict follows `corrected`. `only_base` and `only_tuned` count
    paired tasks that only one side measured; they enter nothing else.
    """

    metric: str
    category: str | None
    base: Score
    tuned: Score
    difference: Score
    gained: int = 0
    lost: int = 0
    only_base: int = 0
    only_tuned: int = 0
    p: float | None = None
    corrected: float | None = None

    @property
    def n(self) -> int:
        return self.difference.n

    @property
    def same(self) -> int:
        return self.n - self.gained - self.lost

    @property
    def verdict(self) -> GuardVerdict:
        if self.corrected is None or self.difference.value is None:
            return GuardVerdict.NOT_MEASURED
        if self.corrected >= LEVEL or not self.difference.value:
            return GuardVerdict.NO_DIFFERENCE
        return GuardVerdict.BETTER if self.difference.value > 0 else GuardVerdict.WORSE

    def to_dict(self) -> dict[str, Json]:
        return {
            "base": self.base.to_dict(),
            "tuned": self.tuned.to_dict(),
            "difference": self.difference.to_dict(),
            "n": self.n,
            "gained": self.gained,
            "lost": self.lost,
            "same": self.same,
            "only_base": self.only_base,
            "only_tuned": self.only_tuned,
            "p": self.p,
            "p_corrected": self.corrected,
            "verdict": self.verdict.value,
        }


@dataclass(frozen=True)
class Comparison:
    """The pairs, and the results for `metrics`."""

    join: Join
    metrics: tuple[str, ...]

    @cached_property
    def totals(self) -> dict[str, Cell]:
        """Metric to cell; each metric is tested on its own."""
        return {
            metric: _correct([_measure(metric, None, self.join.pairs)])[0]
            for metric in self.metrics
        }

    @cached_property
    def by_category(self) -> dict[str, dict[str, Cell]]:
        """Metric, then category; the categories of a metric are corrected together."""
        groups: dict[str, list[TaskPair]] = {}
        for pair in sorted(self.join.pairs, key=lambda pair: pair.category):
            groups.setdefault(pair.category, []).append(pair)
        return {
            metric: {
                str(cell.category): cell
                for cell in _correct([_measure(metric, *group) for group in groups.items()])
            }
            for metric in self.metrics
        }

    @property
    def several(self) -> bool:
        """Whether there is more than one category."""
        return len({pair.category for pair in self.join.pairs}) > 1

    @property
    def leading(self) -> str:
        """The metric whose changed tasks are shown."""
        measured = [name for name in self.metrics if self.totals[name].n] or [*self.metrics]
        return next((name for name in LEADING if name in measured), measured[0])

    @property
    def cells(self) -> Iterator[Cell]:
        """All tests: totals, then categories where there are several."""
        yield from self.totals.values()
        if self.several:
            for cells in self.by_category.values():
                yield from cells.values()

    def worse(self, tolerance: float = 0.0) -> list[Cell]:
        """Cells whose verdict is worse and that lost more than `tolerance` (0.02 is 2 points)."""
        lost = [cell for cell in self.cells if cell.verdict is GuardVerdict.WORSE]
        return [cell for cell in lost if -(cell.difference.value or 0.0) > tolerance + _ROUNDING]

    def changed(self, metric: str, gained: bool) -> list[TaskPair]:
        """Tasks that gained (or lost), in turn from the categories, those that moved most first.

        Within a category the largest change comes first, then the one that moved most metrics.
        """
        sign = 1 if gained else -1

        def importance(pair: TaskPair) -> tuple[float, int]:
            along = sum(sign * pair.difference(name) > 0 for name in METRICS)
            return sign * pair.difference(metric), along

        moved = [pair for pair in self.join.pairs if sign * pair.difference(metric) > 0]
        by_category: dict[str, list[TaskPair]] = {}
        for pair in sorted(moved, key=importance, reverse=True):
            by_category.setdefault(pair.category, []).append(pair)
        queues = sorted(by_category.values(), key=len, reverse=True)
        return [pair for turn in zip_longest(*queues) for pair in turn if pair is not None]

    def to_dict(self) -> dict[str, Json]:
        metrics = {
            name: {
                "all": self.totals[name].to_dict(),
                "categories": {
                    category: cell.to_dict() for category, cell in self.by_category[name].items()
                },
                "gained": [pair.id for pair in self.changed(name, gained=True)],
                "lost": [pair.id for pair in self.changed(name, gained=False)],
            }
            for name in self.metrics
        }
        return {"paired": self.join.to_dict(), "metrics": metrics}


def compare(base: Evaluation, tuned: Evaluation, metrics: Sequence[str] = ()) -> Comparison:
    """Join the samples and compare them by `metrics`; an earlier system's are named "group.name".

    Without `metrics`, all of ours and the user's own that either side measured.
    """
    join, samples = _join(base.samples, tuned.samples), (*base.samples, *tuned.samples)
    scored = {name for sample in samples for name in sample.scores}
    ours = [name for name in (*METRICS, *RATES) if name in scored]
    known = [*ours, *sorted(scored - {*METRICS, *RATES})]
    everything = [*known, *sorted({name for sample in samples for name in sample.legacy_scores})]
    chosen: dict[str, None] = {}
    for name in metrics:
        full = name if name in known else METRIC_ALIASES.get(name, name)
        if full not in everything:
            raise ConfigError(
                f"neither evaluation measured {name!r}{nearest(name, everything)}; "
                f"measured: {', '.join(everything)}"
            )
        chosen[full] = None
    return Comparison(join, tuple(chosen or known))


def _join(base: Sequence[JudgedEpisode], tuned: Sequence[JudgedEpisode]) -> Join:
    """Pair samples by id, or by id and seed where an id occurs with several seeds."""
    seeded = any(len({sample.id for sample in side}) < len(side) for side in (base, tuned))
    left, right = _by_key(base, seeded, "base"), _by_key(tuned, seeded, "tuned")
    shared = [key for key in left if key in right]
    same = [
        key
        for key in shared
        if (left[key].query, left[key].expected) == (right[key].query, right[key].expected)
    ]
    if not same:
        found = f"all {len(shared)} task ids that both evaluations have name different tasks"
        if not shared:
            counts = [f"{len(one)}, such as {next(iter(one), 'none')!r}" for one in (left, right)]
            found = "the two evaluations have no task in common "
            found += f"(base has {counts[0]}, tuned {counts[1]})"
        raise DataError(f"{found}; compare evaluations of one task file")
    paired, by_task = set(same), dict[str, list[str]]()
    for key in same:
        by_task.setdefault(left[key].id, []).append(key)
    pairs = [
        TaskPair(
            task,
            left[keys[0]].category,
            tuple(left[key] for key in keys),
            tuple(right[key] for key in keys),
        )
        for task, keys in by_task.items()
    ]
    return Join(
        tuple(pairs),
        len(same),
        tuple(key for key in left if key not in right),
        tuple(key for key in right if key not in left),
        tuple(key for key in shared if key not in paired),
        tuple(key for key in same if left[key].category != right[key].category),
    )


def _by_key(samples: Sequence[JudgedEpisode], seeded: bool, side: str) -> dict[str, JudgedEpisode]:
    found: dict[str, JudgedEpisode] = {}
    for sample in samples:
        key = f"{sample.id} (seed {sample.seed})" if seeded else sample.id
        if key in found:
            raise DataError(
                f"{side}: the task {key} occurs more than once; "
                "samples are joined on id and seed, which must differ"
            )
        found[key] = sample
    return found


def _all_scores(sample: JudgedEpisode) -> dict[str, float]:
    return {**sample.legacy_scores, **sample.scores}


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else math.fsum(values) / len(values)


def _measure(metric: str, category: str | None, pairs: Sequence[TaskPair]) -> Cell:
    """One metric over these pairs; its p-value is not corrected yet."""
    measured = [(pair, both) for pair in pairs if (both := pair.scores(metric)) is not None]
    alone = [pair for pair in pairs if pair.scores(metric) is None]
    moves = [pair.difference(metric) for pair, _ in measured]

    def count(sides: list[tuple[JudgedEpisode, ...]]) -> int:
        return sum(any(metric in _all_scores(sample) for sample in side) for side in sides)

    return Cell(
        metric,
        category,
        interval([base for _, (base, _) in measured]),
        interval([tuned for _, (_, tuned) in measured]),
        paired_interval(moves),
        gained=sum(move > 0 for move in moves),
        lost=sum(move < 0 for move in moves),
        only_base=count([pair.base for pair in alone]),
        only_tuned=count([pair.tuned for pair in alone]),
        p=paired_p_value(moves) if moves else None,
    )


def _correct(cells: Sequence[Cell]) -> list[Cell]:
    """Correct the p-values for being read together; cells without one are no tests."""
    corrected = iter(holm([cell.p for cell in cells if cell.p is not None]))
    return [cell if cell.p is None else replace(cell, corrected=next(corrected)) for cell in cells]
