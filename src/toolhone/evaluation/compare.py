"""Two evaluations of the same tasks, compared task by task.

    comparison = compare(read_folder("before"), read_folder("after"))
    comparison.totals["exact_match"].verdict             better, worse, no difference seen, not measured in both
    comparison.by_category["exact_match"]["weather"]     the same for one category
    comparison.worse(0.02)                               what got worse by more than 2 points: what a guard looks at

Samples are joined on the task's id; where an id occurs with several seeds, on id and seed, and a task counts once with its mean
over them. Two samples with one id whose question or expectation differ are two tasks and are not compared. Whatever is not compared
is counted: paired + only there + another task = read.

A verdict follows the test in `paired.chance` at 5 %. A metric over all tasks is a question of its own; the categories of a metric
are read together and corrected by Holm's method. Nothing is read or written here, and no interval of a single model is compared
with another's: they overlap long after the pairs have shown a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest

from toolhone.errors import ConfigError, DataError, nearest
from toolhone.evaluation.legacy_metrics import METRIC_ALIASES
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.paired import chance, holm, spread
from toolhone.evaluation.statistics import Score, interval
from toolhone.schema import Json

LEVEL = 0.05
"""A p-value below this counts as a difference."""
LEADING = ("exact_match", "answer_quality", "valid_format")
"""The metric whose changed tasks are shown: the first of these that both measured."""
_ROUNDING = 1e-9


class GuardVerdict(StrEnum):
    """What the pairs have shown."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    """Too few tasks changed, or as many for the better as for the worse. This is no proof that the two are equal."""
    NOT_MEASURED = "not measured in both"


@dataclass(frozen=True)
class TaskPair:
    """One task in both evaluations; each side has a sample for every seed, in the same order."""

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
            name: (_mean([b for b, _ in both]), _mean([a for _, a in both]))
            for name, both in found.items()
        }

    def scores(self, metric: str) -> tuple[float, float] | None:
        """What base and tuned score, as means over the seeds where both were measured; None where there are none."""
        return self._scores.get(metric)

    def difference(self, metric: str) -> float:
        """Tuned minus base; 0 where it was not measured in both."""
        base, tuned = self._scores.get(metric, (0.0, 0.0))
        return tuned - base if abs(tuned - base) > _ROUNDING else 0.0


@dataclass(frozen=True)
class Join:
    """Which samples found each other. The names of the others are ids, with the seed where ids alone do not tell them apart."""

    pairs: tuple[TaskPair, ...]
    paired: int
    only_base: tuple[str, ...] = ()
    only_tuned: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    """Samples of one id whose question or expectation differ."""
    recategorised: tuple[str, ...] = ()
    """Paired, but in another category than in base, whose category counts."""

    def to_dict(self) -> dict[str, Json]:
        names = ("only_base", "only_tuned", "different", "recategorised")
        return {
            "tasks": len(self.pairs),
            "samples": self.paired,
            **{name: list(getattr(self, name)) for name in names},
        }


@dataclass(frozen=True)
class Cell:
    """One metric over all tasks or over one category: both means over the `n` paired tasks, and their paired difference.

    `p` is the test's own p-value, `corrected` the one that the verdict follows. `only_base` and `only_tuned` count paired tasks on
    which the metric was measured on one side alone; they enter nothing else.
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
        scores = {name: getattr(self, name).to_dict() for name in ("base", "tuned", "difference")}
        counts = {
            name: getattr(self, name)
            for name in ("n", "gained", "lost", "same", "only_base", "only_tuned")
        }
        return {
            **scores,
            **counts,
            "p": self.p,
            "p_corrected": self.corrected,
            "verdict": self.verdict.value,
        }


@dataclass(frozen=True)
class Comparison:
    """The pairs and what they come to, for the metrics named in `metrics`."""

    join: Join
    metrics: tuple[str, ...]

    @cached_property
    def totals(self) -> dict[str, Cell]:
        return {
            metric: _read_together([_cell(metric, None, self.join.pairs)])[0]
            for metric in self.metrics
        }

    @cached_property
    def by_category(self) -> dict[str, dict[str, Cell]]:
        """Metric, then category; the categories of a metric are corrected together."""
        return {metric: self._categories(metric) for metric in self.metrics}

    def _categories(self, metric: str) -> dict[str, Cell]:
        found = _read_together(
            [_cell(metric, name, pairs) for name, pairs in self._by_name.items()]
        )
        return dict(zip(self._by_name, found, strict=True))

    @cached_property
    def _by_name(self) -> dict[str, list[TaskPair]]:
        """The pairs of each category, by its name in order."""
        found: dict[str, list[TaskPair]] = {
            name: [] for name in sorted({pair.category for pair in self.join.pairs})
        }
        for pair in self.join.pairs:
            found[pair.category].append(pair)
        return found

    @property
    def several(self) -> bool:
        """Whether there is more than one category."""
        return len(self._by_name) > 1

    @property
    def leading(self) -> str:
        """The metric whose changed tasks are the most telling."""
        measured = [name for name in self.metrics if self.totals[name].n]
        return next(
            (name for name in LEADING if name in measured), (measured or list(self.metrics))[0]
        )

    @property
    def cells(self) -> Iterator[Cell]:
        """All that was tested: totals, then categories where there are several."""
        yield from self.totals.values()
        if self.several:
            for cells in self.by_category.values():
                yield from cells.values()

    def worse(self, tolerance: float = 0.0) -> list[Cell]:
        """What got worse by the verdict and lost more than `tolerance` (a share: 0.02 is 2 points)."""
        lost = [cell for cell in self.cells if cell.verdict is GuardVerdict.WORSE]
        return [cell for cell in lost if -(cell.difference.value or 0.0) > tolerance + _ROUNDING]

    def changed(self, metric: str, gained: bool) -> list[TaskPair]:
        """Tasks that gained (or lost), the most telling first: each category's clearest change, categories that moved most first.

        Within a category the largest change comes first, then the one that moved most other metrics the same way.
        """
        sign = 1 if gained else -1
        moved = [pair for pair in self.join.pairs if sign * pair.difference(metric) > 0]
        moved.sort(key=lambda pair: (-sign * pair.difference(metric), -_moved_along(pair, sign)))
        by_category: dict[str, list[TaskPair]] = {}
        for pair in moved:
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
    """Join and compare; `metrics` chooses among those that either side measured (another system's as "group.name")."""
    return Comparison(
        _join(base.samples, tuned.samples), _chosen(metrics, [*base.samples, *tuned.samples])
    )


def _chosen(names: Sequence[str], samples: Sequence[JudgedEpisode]) -> tuple[str, ...]:
    """The metrics named, without repeats; where none is, ours, the rates and the user's own, as far as they were measured."""
    scored = {name for sample in samples for name in sample.scores}
    known = [
        *(name for name in (*METRICS, *RATES) if name in scored),
        *sorted(scored - {*METRICS, *RATES}),
    ]
    theirs = sorted({name for sample in samples for name in sample.familiar})
    found = [name if name in known else METRIC_ALIASES.get(name, name) for name in names]
    for given, name in zip(names, found):
        if name not in known and name not in theirs:
            near = nearest(given, [*known, *theirs])
            raise ConfigError(
                f"neither evaluation measured {given!r}{near}; measured: {', '.join([*known, *theirs])}"
            )
    return tuple(dict.fromkeys(found)) or tuple(known)


def _join(base: Sequence[JudgedEpisode], tuned: Sequence[JudgedEpisode]) -> Join:
    seeded = any(len({sample.id for sample in side}) < len(side) for side in (base, tuned))
    left, right = _by_key(base, seeded, "base"), _by_key(tuned, seeded, "tuned")
    shared = [key for key in left if key in right]
    same = [key for key in shared if _same_task(left[key], right[key])]
    if not same:
        raise DataError(_nothing_shared(left, right, len(shared)))
    by_task: dict[str, list[str]] = {}
    for key in same:
        by_task.setdefault(left[key].id, []).append(key)
    return Join(
        tuple(
            _pair([left[key] for key in keys], [right[key] for key in keys])
            for keys in by_task.values()
        ),
        len(same),
        tuple(key for key in left if key not in right),
        tuple(key for key in right if key not in left),
        tuple(key for key in shared if not _same_task(left[key], right[key])),
        tuple(key for key in same if left[key].category != right[key].category),
    )


def _by_key(samples: Sequence[JudgedEpisode], seeded: bool, side: str) -> dict[str, JudgedEpisode]:
    found: dict[str, JudgedEpisode] = {}
    for sample in samples:
        key = f"{sample.id} (seed {sample.seed})" if seeded else sample.id
        if key in found:
            raise DataError(
                f"{side}: the task {key} occurs more than once; samples are joined on id and seed, which must differ"
            )
        found[key] = sample
    return found


def _same_task(one: JudgedEpisode, other: JudgedEpisode) -> bool:
    return (one.query, one.expected) == (other.query, other.expected)


def _pair(base: Sequence[JudgedEpisode], tuned: Sequence[JudgedEpisode]) -> TaskPair:
    return TaskPair(base[0].id, base[0].category, tuple(base), tuple(tuned))


def _nothing_shared(
    left: Mapping[str, JudgedEpisode], right: Mapping[str, JudgedEpisode], shared: int
) -> str:
    if shared:
        return f"all {shared} task ids that both evaluations have stand for other tasks in each; compare evaluations of one task file"
    base, tuned = (f"{len(side)}, such as {next(iter(side), 'none')!r}" for side in (left, right))
    return f"the two evaluations have no task in common (base has {base}, tuned {tuned}); compare evaluations of one task file"


def _all_scores(sample: JudgedEpisode) -> dict[str, float]:
    return {**sample.familiar, **sample.scores}


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else math.fsum(values) / len(values)


def _moved_along(pair: TaskPair, sign: int) -> int:
    return sum(sign * pair.difference(name) > 0 for name in METRICS)


def _cell(metric: str, category: str | None, pairs: Sequence[TaskPair]) -> Cell:
    """What the pairs come to; its p-value is not corrected yet."""
    scores = [(pair, pair.scores(metric)) for pair in pairs]
    base, tuned = [both[0] for _, both in scores if both], [both[1] for _, both in scores if both]
    alone = [pair for pair, both in scores if not both]
    only_base = sum(_measured(pair.base, metric) for pair in alone)
    only_tuned = sum(_measured(pair.tuned, metric) for pair in alone)
    moves = [pair.difference(metric) for pair, both in scores if both]
    gained, lost = sum(move > 0 for move in moves), sum(move < 0 for move in moves)
    p = chance(moves) if moves else None
    return Cell(
        metric,
        category,
        interval(base),
        interval(tuned),
        spread(moves),
        gained,
        lost,
        only_base,
        only_tuned,
        p,
    )


def _measured(samples: Sequence[JudgedEpisode], metric: str) -> bool:
    return any(metric in _all_scores(sample) for sample in samples)


def _read_together(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with their p-values corrected for each other; cells that were not measured are no tests and cost nothing."""
    corrected = iter(holm([cell.p for cell in cells if cell.p is not None]))
    return [cell if cell.p is None else replace(cell, corrected=next(corrected)) for cell in cells]
