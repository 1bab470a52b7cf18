"""Compare two evaluations of the same tasks, task by task, and their format certificates.

    comparison = compare(read_folder("before"), read_folder("after"))
    comparison.totals["exact_match"].verdict             # better, worse, no difference seen, ...
    CertificateDiff(Certificate.read("before"), Certificate.read("after")).sentence

A metric over all tasks is tested on its own; its categories are corrected together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest
from typing import TypeVar

from toolhone.dialects.probe.certificate import Certificate
from toolhone.errors import ConfigError, DataError, nearest
from toolhone.evaluation.legacy_metrics import METRIC_ALIASES
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import Score, holm, interval, paired_interval, paired_p_value
from toolhone.schema import Json

LEVEL = 0.05
"""A p-value below this counts as a difference."""
UNSEEN = 0.2
"""A guard is undecided where a loss of this share of the tasks cannot be excluded."""
LEADING = ("exact_match", "answer_quality", "valid_format")
"""Metrics whose changed tasks are worth showing, in order of preference."""
_ROUNDING = 1e-9
HASHES = ("template", "tokenizer", "dialect")
SHORT = 12
"""Characters of a hash to show."""
NONE = "-"
K = TypeVar("K", bound=str | None)


class GuardVerdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    """Too few tasks changed, or as many gained as lost; no proof that the two are equal."""
    NOT_MEASURED = "not measured in both"


class Sameness(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """One of the evaluations has no certificate."""


@dataclass(frozen=True)
class TaskPair:
    """One task in both evaluations; each side has a sample per seed, in the same order."""

    id: str
    category: str
    base: tuple[JudgedEpisode, ...]
    tuned: tuple[JudgedEpisode, ...]

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
        return tuned - base if abs(tuned - base) > _ROUNDING else 0.0


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
    gained: int
    lost: int
    only_base: int
    only_tuned: int
    p: float | None
    corrected: float | None = None

    @property
    def verdict(self) -> GuardVerdict:
        if self.corrected is None or self.difference.value is None:
            return GuardVerdict.NOT_MEASURED
        if self.corrected >= LEVEL or not self.difference.value:
            return GuardVerdict.NO_DIFFERENCE
        return GuardVerdict.BETTER if self.difference.value > 0 else GuardVerdict.WORSE

    def to_dict(self) -> dict[str, Json]:
        counts = {"n": self.difference.n, "gained": self.gained, "lost": self.lost}
        return {
            **{name: getattr(self, name).to_dict() for name in ("base", "tuned", "difference")},
            **counts,
            "same": self.difference.n - self.gained - self.lost,
            "only_base": self.only_base,
            "only_tuned": self.only_tuned,
            "p": self.p,
            "p_corrected": self.corrected,
            "verdict": self.verdict.value,
        }


@dataclass(frozen=True)
class Comparison:
    """The pairs, and the results for `metrics`; samples that were not paired, by id (and seed,
    where ids are not unique).

    different: samples with the same id whose question or expectation differ. recategorised: pairs
    whose categories differ; base's counts.
    """

    pairs: tuple[TaskPair, ...]
    samples: int
    only_base: tuple[str, ...]
    only_tuned: tuple[str, ...]
    different: tuple[str, ...]
    recategorised: tuple[str, ...]
    metrics: tuple[str, ...] = ()

    @cached_property
    def totals(self) -> dict[str, Cell]:
        """Metric to cell; each metric is tested on its own."""
        return {name: _cells(name, {None: self.pairs})[None] for name in self.metrics}

    @cached_property
    def by_category(self) -> dict[str, dict[str, Cell]]:
        """Metric, then category; the categories of a metric are corrected together."""
        groups: dict[str, list[TaskPair]] = {}
        for pair in sorted(self.pairs, key=lambda pair: pair.category):
            groups.setdefault(pair.category, []).append(pair)
        return {metric: _cells(metric, groups) for metric in self.metrics}

    @property
    def several(self) -> bool:
        """Whether there is more than one category."""
        return len({pair.category for pair in self.pairs}) > 1

    @property
    def leading(self) -> str:
        """The metric whose changed tasks are shown."""
        measured = [name for name in self.metrics if self.totals[name].difference.n]
        measured = measured or [*self.metrics]
        return next((name for name in LEADING if name in measured), measured[0])

    def worse(self, tolerance: float = 0.0) -> list[Cell]:
        """Cells whose verdict is worse and that lost more than `tolerance` (0.02 is 2 points).

        Totals come first, then categories where there are several.
        """
        parts = [self.totals, *(self.by_category.values() if self.several else ())]
        cells = [cell for part in parts for cell in part.values()]
        lost = [cell for cell in cells if cell.verdict is GuardVerdict.WORSE]
        return [cell for cell in lost if -(cell.difference.value or 0.0) > tolerance + _ROUNDING]

    def undecided(self, named: bool) -> list[Cell]:
        """Totals without a verdict of better or worse that may hide a loss of `UNSEEN` or more: of
        every metric that was `named`, else of the leading one.

        The interval says so; of n tasks without a change the score interval reaches down to
        -3.84 / (n + 3.84), which also bounds what few fractions can show."""
        cells = [self.totals[name] for name in (self.metrics if named else [self.leading])]
        return [
            cell
            for cell in cells
            if cell.verdict in (GuardVerdict.NO_DIFFERENCE, GuardVerdict.NOT_MEASURED)
            and min(cell.difference.low or 0.0, -3.84 / (cell.difference.n + 3.84)) < -UNSEEN
        ]

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
        paired = {"tasks": len(self.pairs), "samples": self.samples}
        metrics = {
            name: {
                "all": self.totals[name].to_dict(),
                "categories": {key: cell.to_dict() for key, cell in self.by_category[name].items()},
                "gained": [pair.id for pair in self.changed(name, gained=True)],
                "lost": [pair.id for pair in self.changed(name, gained=False)],
            }
            for name in self.metrics
        }
        named = {name: list(getattr(self, name)) for name in lists}
        return {"paired": paired | named, "metrics": metrics}


def compare(base: Evaluation, tuned: Evaluation, metrics: Sequence[str] = ()) -> Comparison:
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
    return replace(joined, metrics=tuple(dict.fromkeys(chosen.values()) or known))


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


def _cells(metric: str, groups: Mapping[K, Sequence[TaskPair]]) -> dict[K, Cell]:
    """A metric over each group of pairs, with p-values corrected for being read together."""
    cells = {category: _measure(metric, category, pairs) for category, pairs in groups.items()}
    tests = {category: cell.p for category, cell in cells.items() if cell.p is not None}
    corrected = dict(zip(tests, holm([*tests.values()]), strict=True))
    return {name: replace(cell, corrected=corrected.get(name)) for name, cell in cells.items()}


def _measure(metric: str, category: str | None, pairs: Sequence[TaskPair]) -> Cell:
    """One metric over these pairs; its p-value is not corrected yet."""
    measured = [pair for pair in pairs if metric in pair.scores]
    alone = [pair for pair in pairs if metric not in pair.scores]
    moves = [pair.difference(metric) for pair in measured]

    def count(sides: list[tuple[JudgedEpisode, ...]]) -> int:
        return sum(any(metric in sample.all_scores for sample in side) for side in sides)

    return Cell(
        metric,
        category,
        interval([pair.scores[metric][0] for pair in measured]),
        interval([pair.scores[metric][1] for pair in measured]),
        paired_interval(moves),
        gained=sum(move > 0 for move in moves),
        lost=sum(move < 0 for move in moves),
        only_base=count([pair.base for pair in alone]),
        only_tuned=count([pair.tuned for pair in alone]),
        p=paired_p_value(moves) if moves else None,
    )


@dataclass(frozen=True)
class CertificateDiff:
    """Two certificates; None where the evaluation has none. Nothing is certified again."""

    base: Certificate | None
    tuned: Certificate | None

    @property
    def different(self) -> list[str]:
        """Names of the hashes that differ, where both certificates exist."""
        if self.base is None or self.tuned is None:
            return []
        base, tuned = self.base.hashes, self.tuned.hashes
        return [name for name in HASHES if base.get(name) != tuned.get(name)]

    @property
    def sameness(self) -> Sameness:
        if not (self.base and self.base.hashes and self.tuned and self.tuned.hashes):
            return Sameness.UNKNOWN
        return Sameness.DIFFERENT if self.different else Sameness.SAME

    @property
    def sentence(self) -> str:
        """Whether the two were evaluated in the same format."""
        if self.sameness is Sameness.UNKNOWN:
            sides = (("base", self.base), ("tuned", self.tuned))
            names = [name for name, found in sides if not (found and found.hashes)]
            without = f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no certificate"
            return f"it is not known whether the two were evaluated in the same format: {without}"
        if self.sameness is Sameness.SAME:
            return "the two were evaluated in the same format"
        verb = "differs" if len(self.different) == 1 else "differ"
        what = f"{' and '.join(self.different)} {verb}"
        return f"the two were evaluated in different formats: {what}"

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Lines of heading, base and tuned; versions only where they differ."""
        base, tuned = _summary(self.base), _summary(self.tuned)
        lines = [(name, base.get(name, NONE), tuned.get(name, NONE)) for name in {**base, **tuned}]
        return [line for line in lines if line[1] != line[2] or not line[0].startswith("with ")]

    def to_dict(self) -> dict[str, Json]:
        return {
            "formats": self.sameness.value,
            "different": self.different,
            "sentence": self.sentence,
            "base": self.base and self.base.to_dict(),
            "tuned": self.tuned and self.tuned.to_dict(),
        }


def _summary(certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return {"verdict": "no certificate"}
    found = {**certificate.dialect, "switches": certificate.dialect.get("switches") or None}
    limits = "; ".join(certificate.limits) or "none"
    summary = {"verdict": certificate.verdict.value, "limits": limits}
    labels = {"name": "dialect", "syntax": "calls written as"}
    for key in ("name", "syntax", "markup", "switches", "history"):
        value = found.get(key)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        summary[labels.get(key, key)] = NONE if value is None else text or NONE
    summary["a turn ends with"] = " or ".join(map(str, found.get("stop") or ())) or NONE
    for name in HASHES:
        summary[f"{name} hash"] = certificate.hashes.get(name, "")[:SHORT] or NONE
    return summary | {f"with {name}": version for name, version in certificate.versions.items()}
