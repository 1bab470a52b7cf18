"""Decide whether a comparison may pass: fail on a proved loss, and never pass on nothing.

guard(compare(base, tuned)).result        # passed, failed or undecided
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolhone.errors import DataError
from toolhone.evaluation.compare import Comparison
from toolhone.evaluation.verdict import Cell, GuardVerdict
from toolhone.schema import Json


class GuardResult(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    """Something got worse by more than the margin."""
    UNDECIDED = "undecided"
    """Nothing is proved worse, but too little is proved at all."""


@dataclass(frozen=True)
class Guard:
    """A result with its cells; `undecided` are those without a verdict, whatever the result."""

    result: GuardResult
    worse: tuple[Cell, ...]
    undecided: tuple[Cell, ...]
    comparison: Comparison

    @property
    def exit_code(self) -> int:
        codes = {GuardResult.PASSED: 0, GuardResult.FAILED: 1, GuardResult.UNDECIDED: 3}
        return codes[self.result]

    def to_dict(self) -> dict[str, Json]:
        rules = self.comparison.rules
        return {
            "passed": self.result is GuardResult.PASSED,
            "result": self.result.value,
            "margin": rules.margin,
            "min_tasks": rules.min_tasks,
            "metrics": list(self.comparison.guarded),
            **{
                name: [
                    {"metric": cell.metric, "category": cell.category, **cell.to_dict()}
                    for cell in cells
                ]
                for name, cells in (("worse", self.worse), ("undecided", self.undecided))
            },
        }


def guard(comparison: Comparison, strict: bool = False) -> Guard:
    """Judge the guarded metrics, over all tasks and in every category.

    Failed where a cell is worse. Undecided where no cell of a metric that was named, or of none at
    all, is better or the same; with `strict`, where any cell is undecided.
    """
    cells = [cell for key, cell in comparison.cells.items() if key[0] in comparison.guarded]
    worse = tuple(cell for cell in cells if cell.verdict is GuardVerdict.WORSE)
    decided = {
        cell.metric for cell in cells if cell.verdict in (GuardVerdict.BETTER, GuardVerdict.SAME)
    }
    undecided = tuple(
        cell
        for cell in cells
        if cell.verdict is GuardVerdict.UNDECIDED
        or (cell.verdict is GuardVerdict.NOT_MEASURED and cell.category is None)
    )
    is_blind = not decided or (comparison.named and len(decided) < len(comparison.guarded))
    result = GuardResult.PASSED
    if worse:
        result = GuardResult.FAILED
    elif is_blind or (strict and undecided):
        result = GuardResult.UNDECIDED
    return Guard(result, worse, undecided, comparison)


def check_same_tasks(comparison: Comparison) -> None:
    """Refuse evaluations of different task sets: a task that is left out cannot get worse."""
    parts = {
        "only in BASE": comparison.only_base,
        "only in TUNED": comparison.only_tuned,
        "with another question or expectation": comparison.different,
    }
    found = [
        f"{len(names)} {what} (such as {names[0]!r})" for what, names in parts.items() if names
    ]
    if found:
        wrong = f"the guard needs the same tasks on both sides, but {' and '.join(found)}"
        raise DataError(f"{wrong}; evaluate both on one task file")
