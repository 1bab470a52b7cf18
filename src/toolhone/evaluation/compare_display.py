"""A comparison for a terminal: tables, the tasks that changed, both certificates, and what was not compared. Nothing here prints.

    console.print(totals(comparison))
    console.print(categories(comparison, "exact_match"))
    console.print(changed(comparison, "exact_match", gained=False, k=3))

Scores and differences are in points out of 100. Whatever a model wrote is shown as plain text, shortened, without control
characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from toolhone.evaluation.certificate_diff import CertificateDiff
from toolhone.evaluation.compare import Cell, Comparison, GuardVerdict, Join, TaskPair
from toolhone.evaluation.display import clean, expectation, shortened
from toolhone.evaluation.metrics import JudgedEpisode
from toolhone.evaluation.statistics import Score
from toolhone.rewards.matching import show_call

STYLES = {
    GuardVerdict.BETTER: "bold green",
    GuardVerdict.WORSE: "bold red",
    GuardVerdict.NO_DIFFERENCE: "",
    GuardVerdict.NOT_MEASURED: "dim",
}
NAMED = 3
"""Names that stand for a longer list."""


def totals(comparison: Comparison) -> Table:
    """Every metric over all paired tasks."""
    tasks = len(comparison.join.pairs)
    table = _table(
        f"{tasks} {'task' if tasks == 1 else 'tasks'} in both, each metric tested on its own",
        "metric",
        "p",
    )
    for name, cell in comparison.totals.items():
        _add(table, name, cell)
    return table


def categories(comparison: Comparison, metric: str) -> Table:
    """One metric by category, where either side measured it; p-values are corrected for the number of categories."""
    table = _table(f"{clean(metric)} by category, tested together", "category", "p (Holm)")
    for name, cell in comparison.by_category[metric].items():
        if cell.n or cell.only_base or cell.only_tuned:
            _add(table, name, cell)
    return table


def other_categories(comparison: Comparison, shown: Sequence[str]) -> Table | None:
    """What got better or worse in a category by the metrics that are not `shown`; None where nothing did."""
    found = [
        cell
        for name, cells in comparison.by_category.items()
        if name not in shown
        for cell in cells.values()
    ]
    moved = [cell for cell in found if cell.verdict in (GuardVerdict.BETTER, GuardVerdict.WORSE)]
    if not moved:
        return None
    table = _table("other metrics that moved in a category", "metric, category", "p (Holm)")
    for cell in moved:
        _add(table, f"{cell.metric}, {cell.category}", cell)
    return table


def _table(title: str, first: str, p: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for heading in (
        "base (95 %)",
        "tuned (95 %)",
        "difference (95 %)",
        "gained",
        "lost",
        "same",
        "n",
        p,
    ):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    return table


def _add(table: Table, name: str, cell: Cell) -> None:
    scores = [_points(cell.base), _points(cell.tuned), _points(cell.difference, signed=True)]
    counts = (
        [str(count) for count in (cell.gained, cell.lost, cell.same, cell.n)]
        if cell.n
        else ["-", "-", "-", "0"]
    )
    verdict = Text(cell.verdict.value + _alone(cell), STYLES[cell.verdict])
    table.add_row(Text(clean(name)), *scores, *counts, _chance(cell.corrected), verdict)


def _points(score: Score, signed: bool = False) -> str:
    """`81.3 (77.1 to 84.9)`, or `-`."""
    if score.value is None or score.low is None or score.high is None:
        return "-"
    sign = "+" if signed else ""
    value, low, high = (
        format(100 * number, f"{sign}.1f") for number in (score.value, score.low, score.high)
    )
    return f"{value} ({low} to {high})"


def _chance(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _alone(cell: Cell) -> str:
    """Tasks on which only one side was measured."""
    sides = [
        f"{count} in {name} only"
        for name, count in (("base", cell.only_base), ("tuned", cell.only_tuned))
        if count
    ]
    return f" ({', '.join(sides)})" if sides else ""


def account(join: Join) -> list[str]:
    """What was compared and what was not, in lines; every sample that was read is in one of the counts."""
    lines = []
    for side, only in (("base", join.only_base), ("tuned", join.only_tuned)):
        read = join.paired + len(only) + len(join.different)
        rest = [
            (f"{len(only)} only there", only),
            (f"{len(join.different)} with another task under their id", join.different),
        ]
        parts = "".join(f", {words}{_named(names)}" for words, names in rest if names)
        lines.append(f"{side}: {read} samples, {join.paired} compared{parts}")
    seeds = sorted({sample.seed for pair in join.pairs for sample in pair.base})
    if join.paired > len(join.pairs):
        lines.append(
            f"each task counts once, with its mean over the seeds that both have ({', '.join(map(str, seeds))})"
        )
    if join.recategorised:
        lines.append(
            f"{len(join.recategorised)} samples have another category in tuned; base's counts{_named(join.recategorised)}"
        )
    return lines


def _named(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return f" ({', '.join(shortened(name) for name in names[:NAMED])}{more})"


def formats_table(formats: CertificateDiff) -> Table:
    """Both certificates; lines that differ stand out."""
    table = Table(title="certificates of the format", title_justify="left")
    for heading in ("", "base", "tuned"):
        table.add_column(heading, overflow="fold")
    for name, base, tuned in formats.rows:
        table.add_row(
            Text(name),
            Text(clean(base)),
            Text(clean(tuned)),
            style="yellow" if base != tuned else "",
        )
    return table


def changed(comparison: Comparison, metric: str, gained: bool, k: int) -> Text:
    """The `k` most telling tasks that gained or lost by this metric, with what both said."""
    pairs = comparison.changed(metric, gained)
    shown = f", {k} of them here" if len(pairs) > k else ""
    title = f"{'gained' if gained else 'lost'} by {metric}: {len(pairs)} of {len(comparison.join.pairs)} tasks{shown}"
    return Text("\n\n".join([clean(title), *(_block(pair, metric, gained) for pair in pairs[:k])]))


def _block(pair: TaskPair, metric: str, gained: bool) -> str:
    base, tuned = pair.scores(metric) or (0.0, 0.0)
    lines = [f"{pair.id}  [{pair.category}]  {metric} {base:.2f} -> {tuned:.2f}", *_said(pair)]
    wrong = pair.base if gained else pair.tuned
    lines += [
        f"  {'base was' if gained else 'tuned is'} wrong: {reason}"
        for sample in wrong[:1]
        for reason in sample.reasons[:3]
    ]
    return "\n".join(shortened(line) for line in lines)


def _said(pair: TaskPair) -> Iterator[str]:
    first = pair.base[0]
    yield f"  query:    {first.query}"
    yield f"  expected: {expectation(first.expected)}"
    for side, samples in (("base", pair.base), ("tuned", pair.tuned)):
        yield from _reply(f"{side}:", samples[0], len(samples))


def _reply(side: str, sample: JudgedEpisode, seeds: int) -> Iterator[str]:
    """What one side said to the task, with its first seed."""
    which = f"(seed {sample.seed}) " if seeds > 1 else ""
    if sample.text or not sample.calls:
        yield f"  {side:<9} {which}{sample.text or '(nothing)'}"
    else:
        yield f"  {side:<9} {which}{'; '.join(map(show_call, sample.calls))}"


def guard_lines(worse: Sequence[Cell], tolerance: float) -> list[str]:
    """What a guard found: one line for each metric that got worse, or one that says nothing did."""
    beyond = f" by more than {100 * tolerance:g} points" if tolerance else ""
    if not worse:
        return [f"guard: passed, nothing got worse{beyond}"]
    found = [
        f"  {clean(cell.metric)}{'' if cell.category is None else f' in {clean(cell.category)}'}: "
        f"{_points(cell.difference, signed=True)} points, p {_chance(cell.corrected)}"
        for cell in worse
    ]
    return [
        f"guard: failed, {len(worse)} {'comparison' if len(worse) == 1 else 'comparisons'} got worse{beyond}",
        *found,
    ]
