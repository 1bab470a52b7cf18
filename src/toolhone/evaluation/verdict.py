"""The verdict on one metric over all tasks or one category: better, same, worse or undecided.

`Cell` holds what was measured and tested; docs/compare.md explains the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolhone.evaluation.statistics import Score
from toolhone.schema import Json

LEVEL = 0.05
"""A corrected one-sided p-value below this is a loss; one below half of it is a gain."""
RESOLUTION = 0.1
"""A verdict of `same` needs that a loss of this share of the tasks, or of the margin where that is
larger, is excluded."""
ROUNDING = 1e-9


class GuardVerdict(StrEnum):
    BETTER = "better"
    SAME = "same"
    """No loss was shown, and one of more than `RESOLUTION` or the margin is excluded."""
    WORSE = "worse"
    UNDECIDED = "undecided"
    """Too few tasks: no loss was shown, and a large one is not excluded."""
    NOT_MEASURED = "not measured in both"


@dataclass(frozen=True)
class Rules:
    """margin: a loss of at most this share counts as none. min_tasks: fewer decide nothing."""

    margin: float = 0.0
    min_tasks: int = 10


DEFAULT_RULES = Rules()


@dataclass(frozen=True)
class Cell:
    """One metric over all tasks or one category: both means and their paired difference.

    p: two-sided and not corrected. p_worse, p_better: one-sided, corrected; None with too few
    tasks. detectable: the smallest loss that the test would find in 8 of 10 cases. `only_base` and
    `only_tuned` count paired tasks that only one side measured; they enter nothing else.
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
    rules: Rules
    p: float | None = None
    p_worse: float | None = None
    p_better: float | None = None
    detectable: float | None = None

    @property
    def verdict(self) -> GuardVerdict:
        value, low, rules = self.difference.value, self.difference.low, self.rules
        if value is None or low is None:
            return GuardVerdict.NOT_MEASURED
        if self.p_worse is None or self.p_better is None:
            return GuardVerdict.UNDECIDED
        if self.p_worse < LEVEL and value < -rules.margin - ROUNDING:
            return GuardVerdict.WORSE
        if self.p_better < LEVEL / 2 and value > 0:
            return GuardVerdict.BETTER
        excluded = low > -max(rules.margin, RESOLUTION) - ROUNDING
        return GuardVerdict.SAME if excluded else GuardVerdict.UNDECIDED

    def to_dict(self) -> dict[str, Json]:
        counts = {"n": self.difference.n, "gained": self.gained, "lost": self.lost}
        return {
            **{name: getattr(self, name).to_dict() for name in ("base", "tuned", "difference")},
            **counts,
            "same": self.difference.n - self.gained - self.lost,
            "only_base": self.only_base,
            "only_tuned": self.only_tuned,
            "p": self.p,
            "p_worse": self.p_worse,
            "p_better": self.p_better,
            "detectable_loss": self.detectable,
            "verdict": self.verdict.value,
        }
