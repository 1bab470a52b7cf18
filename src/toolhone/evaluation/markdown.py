"""A comparison as Markdown, for the summary of a build or a comment on a pull request.

comparison_markdown(comparison, guard(comparison), "evals/base", "runs/sft")
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from toolhone.evaluation.compare import Comparison
from toolhone.evaluation.display import error_lines, guard_lines, shorten, show_loss, show_score
from toolhone.evaluation.guard import Guard
from toolhone.evaluation.verdict import Cell

MARKS = {"passed": "✅", "failed": "❌", "undecided": "⚠️"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#])")


def comparison_markdown(comparison: Comparison, found: Guard, base: str, tuned: str) -> str:
    """The guard's result, the guarded metrics, their categories, and kinds of error."""
    heading, *lines = guard_lines(found)
    mark = MARKS[found.result.value]
    parts = [
        f"### {mark} {_plain(heading)}",
        f"`{base}` → `{tuned}`, {len(comparison.pairs)} tasks",
    ]
    parts += ["\n".join(f"- {_plain(line.strip())}" for line in lines)] if lines else []
    totals = [(name, comparison.totals[name]) for name in comparison.guarded]
    parts.append(_table("metric", totals))
    if comparison.several:
        cells = [
            (f"{name}, {category}", cell)
            for name in comparison.guarded
            for category, cell in comparison.by_category[name].items()
            if cell.difference.n
        ]
        summary = "<summary>By category</summary>"
        parts.append(f"<details>{summary}\n\n{_table('metric, category', cells)}\n\n</details>")
    kinds = error_lines(comparison, comparison.leading)
    parts += ["\n".join(f"- {_plain(line)}" for line in kinds)] if kinds else []
    return "\n\n".join(parts) + "\n"


def _table(first: str, cells: Iterable[tuple[str, Cell]]) -> str:
    headings = (first, "base", "tuned", "difference (95 %)", "lost", "gained", "n")
    rows: list[tuple[str, ...]] = [(*headings, "detectable loss", "verdict")]
    rows.append(("---", *["---:"] * 7, "---"))
    for name, cell in cells:
        means = [show_score(score).partition(" ")[0] for score in (cell.base, cell.tuned)]
        difference = show_score(cell.difference, "+")
        counts = [str(count) for count in (cell.lost, cell.gained, cell.difference.n)]
        verdict = cell.verdict.value
        rows.append(
            (_plain(name), *means, difference, *counts, show_loss(cell.detectable), verdict)
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _plain(text: str) -> str:
    """Text on one line in which Markdown and HTML mean nothing."""
    return _SPECIAL.sub(r"\\\1", shorten(text))
