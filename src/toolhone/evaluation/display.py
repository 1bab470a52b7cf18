"""Evaluations and comparisons as tables and text for a terminal; nothing here prints.

    console.print(metrics_table(evaluation))
    console.print(mismatches(evaluation, 5))
    console.print(totals_table(comparison))

Model output is shown as plain text, shortened, without control characters, never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolhone.evaluation.certificate_diff import CertificateDiff
from toolhone.evaluation.compare import Cell, Comparison, GuardVerdict, Join, TaskPair
from toolhone.evaluation.csv_results import CallTable
from toolhone.evaluation.metrics import LEGACY_METRICS, METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import UNMEASURED, Score
from toolhone.rewards.matching import show_call
from toolhone.schema import Expect

LONGEST = 400
"""Characters of a text to show."""
NAMED = 3
"""Names to show of a longer list."""
_SHORT = {
    "valid_format": "format",
    "tool_accuracy": "tool",
    "argument_accuracy": "arguments",
    "exact_match": "exact",
    "no_call_accuracy": "no call",
    "execution_success": "runs",
    "answer_quality": "answer",
}
GROUP_OF = {
    "json": "json_answers",
    "tagged": "playground",
    "calls": "python_calls",
    "tool_call_tags": "tool_call_tags",
}
"""The group of `LEGACY_METRICS` that was made for a call syntax."""
STYLES = {
    GuardVerdict.BETTER: "bold green",
    GuardVerdict.WORSE: "bold red",
    GuardVerdict.NO_DIFFERENCE: "",
    GuardVerdict.NOT_MEASURED: "dim",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that cannot control a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))


def shorten(text: str) -> str:
    """One line of at most `LONGEST` characters, control characters replaced."""
    line = clean(text).replace("\n", "\\n")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(line)} characters)"


def _new_table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> Table:
    """A table with left-aligned columns that fold, then right-aligned ones."""
    table = Table(title=title, title_justify="left")
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def metrics_table(evaluation: Evaluation, names: Sequence[str] = ()) -> RenderableType:
    """The metrics with their intervals, then by category where there are several.

    `names` chooses metrics; those of earlier systems are named "group.name".
    """
    title = f"{len(evaluation.samples)} tasks"
    table = _new_table(title, ["metric"], ["value", "95 % interval", "n"])
    others = list(evaluation.metrics)[len(METRICS) + len(RATES) :]
    for section in [names] if names else [METRICS, RATES, others]:
        for name in section:
            group, dot, rest = name.partition(".")
            found = evaluation.legacy.get(group, {}) if dot else evaluation.metrics
            score = found.get(rest if dot else name, UNMEASURED)
            if score.value is None or score.low is None or score.high is None:
                table.add_row(Text(clean(name)), "-", "-", "0", style="dim")
            else:
                span = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
                table.add_row(Text(clean(name)), percent(score), span, str(score.n))
        table.add_section()
    for name, value in evaluation.rewards.items():
        table.add_row(Text(clean(name)), f"{value:.3f}", "", "")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in evaluation.outcomes.items())
    ending = Text(f"ended: {outcomes}")
    if len(evaluation.by_category) < 2:
        return Group(table, ending)
    categories = _new_table("by category", ["category"], [*(_SHORT[name] for name in METRICS), "n"])
    for category, metrics in evaluation.by_category.items():
        values = [percent(metrics[name]) for name in METRICS]
        categories.add_row(Text(clean(category)), *values, str(metrics["valid_format"].n))
    return Group(table, categories, ending)


def percent(score: Score) -> str:
    """`93.8`, or `-` for an unmeasured score."""
    return "-" if score.value is None else f"{100 * score.value:.1f}"


def legacy_table(evaluation: Evaluation, groups: Sequence[str] = tuple(LEGACY_METRICS)) -> Table:
    """The metrics of earlier systems, one line per group."""
    table = _new_table("by the definitions of other systems", ["group", "metrics"], ["n"])
    for group in groups:
        metrics = evaluation.legacy[group]
        values = ", ".join(f"{name} {percent(score)}" for name, score in metrics.items())
        table.add_row(group, values, str(max(score.n for score in metrics.values())))
    return table


def csv_table(tables: Mapping[str, CallTable]) -> Table:
    """One row per CSV file: its rows, the correct ones, and odd ones."""
    shares = {"match": "match", "recovered": "recovered", "tags_right": "tags right"}
    odd = ("stray_tag", "nothing_extracted", "disagrees")
    headings = [
        "rows",
        "skipped",
        *shares.values(),
        "stray tag",
        "nothing extracted",
        "file disagrees",
    ]
    table = _new_table("answers made elsewhere", ["file"], headings)
    for name, found in tables.items():
        rows, counts = len(found.rows), {what: found.count(what) for what in (*shares, *odd)}
        percents = [
            f"{counts[what]} ({100 * counts[what] / rows:.1f} %)" if rows else "-"
            for what in shares
        ]
        skipped = str(found.read - rows)
        table.add_row(
            Text(clean(name)), str(rows), skipped, *percents, *(str(counts[what]) for what in odd)
        )
    return table


def mismatches(evaluation: Evaluation, k: int = 5) -> Text:
    """The first `k` tasks that are not fully correct, with the reasons."""
    wrong = [
        one
        for one in evaluation.samples
        if any(one.scores.get(name, 1.0) < 1.0 for name in METRICS)
    ]
    title = f"{len(wrong)} of {len(evaluation.samples)} tasks were not fully correct"
    return Text("\n\n".join([title, *(_describe(sample, why=True) for sample in wrong[:k])]))


def predictions(evaluation: Evaluation, k: int = 5) -> Text:
    """`k` predictions spread evenly over the tasks."""
    samples, count = evaluation.samples, len(evaluation.samples)
    if 0 < k < count:
        samples = tuple(samples[i * count // k] for i in range(k))
    return Text("\n\n".join(_describe(sample, why=False) for sample in samples[: max(k, 0)]))


def _describe(sample: JudgedEpisode, why: bool) -> str:
    scores = [
        f"{_SHORT[name]} {sample.scores[name]:.2f}" for name in METRICS if name in sample.scores
    ]
    lines = [
        f"{sample.id}  [{sample.category}]  {sample.outcome}",
        f"  query:    {sample.query}",
        f"  expected: {show_expectation(sample.expected)}",
        f"  got:      {'; '.join(map(show_call, sample.calls)) or 'no call'}",
        f"  text:     {sample.text}",
        f"  scores:   {', '.join(scores)}",
        *(f"  because:  {reason}" for reason in (sample.reasons[:5] if why else ())),
    ]
    return "\n".join(map(shorten, lines))


def show_expectation(expect: Expect) -> str:
    """What counts as correct, in one line."""
    choices = []
    for choice in expect.choices:
        parts = ["; ".join(map(show_call, choice.wanted))] if choice.wanted else []
        parts += ["no call"] if choice.no_call else []
        parts += [f"the answer {choice.answer!r}"] if choice.answer is not None else []
        choices.append(" and ".join(parts))
    return "; or ".join(choices)


def totals_table(comparison: Comparison) -> Table:
    """Every metric over all paired tasks."""
    tasks = len(comparison.join.pairs)
    unit = "task" if tasks == 1 else "tasks"
    title = f"{tasks} {unit} in both, each metric tested on its own"
    return _cells_table(title, "metric", "p", list(comparison.totals.items()))


def category_table(comparison: Comparison, metric: str) -> Table:
    """One metric by category, with p-values corrected for the number of categories."""
    cells = [
        (name, cell)
        for name, cell in comparison.by_category[metric].items()
        if cell.n or cell.only_base or cell.only_tuned
    ]
    title = f"{clean(metric)} by category, tested together"
    return _cells_table(title, "category", "p (Holm)", cells)


def moved_table(comparison: Comparison, shown: Sequence[str]) -> Table | None:
    """Categories that moved by metrics that are not `shown`; None where there is none."""
    moved = [
        (f"{cell.metric}, {cell.category}", cell)
        for name, cells in comparison.by_category.items()
        if name not in shown
        for cell in cells.values()
        if cell.verdict in (GuardVerdict.BETTER, GuardVerdict.WORSE)
    ]
    title = "other metrics that moved in a category"
    return _cells_table(title, "metric, category", "p (Holm)", moved) if moved else None


def _cells_table(title: str, first: str, p: str, cells: Sequence[tuple[str, Cell]]) -> Table:
    scores = ["base (95 %)", "tuned (95 %)", "difference (95 %)"]
    table = _new_table(title, [first], [*scores, "gained", "lost", "same", "n", p])
    table.add_column("verdict")
    for name, cell in cells:
        counts = [str(count) for count in (cell.gained, cell.lost, cell.same, cell.n)]
        sides = (("base", cell.only_base), ("tuned", cell.only_tuned))
        alone = ", ".join(f"{count} in {side} only" for side, count in sides if count)
        verdict = f"{cell.verdict.value} ({alone})" if alone else cell.verdict.value
        table.add_row(
            Text(clean(name)),
            _points(cell.base),
            _points(cell.tuned),
            _points(cell.difference, signed=True),
            *(counts if cell.n else ["-", "-", "-", "0"]),
            _p_value(cell.corrected),
            Text(verdict, STYLES[cell.verdict]),
        )
    return table


def _points(score: Score, signed: bool = False) -> str:
    """`81.3 (77.1 to 84.9)`, in points of 100, or `-`."""
    if score.value is None or score.low is None or score.high is None:
        return "-"
    form = "+.1f" if signed else ".1f"
    value, low, high = (
        format(100 * number, form) for number in (score.value, score.low, score.high)
    )
    return f"{value} ({low} to {high})"


def _p_value(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def join_lines(join: Join) -> list[str]:
    """What was compared and what was not; every sample is in one of the counts."""
    lines = []
    for side, only in (("base", join.only_base), ("tuned", join.only_tuned)):
        total = join.paired + len(only) + len(join.different)
        parts = [f"{total} samples", f"{join.paired} compared"]
        if only:
            parts.append(f"{len(only)} only there{_some_names(only)}")
        if join.different:
            count, names = len(join.different), _some_names(join.different)
            parts.append(f"{count} with another task under their id{names}")
        lines.append(f"{side}: {', '.join(parts)}")
    if join.paired > len(join.pairs):
        seeds = sorted({sample.seed for pair in join.pairs for sample in pair.base})
        lines.append(
            "each task counts once, with its mean over the seeds that both have "
            f"({', '.join(map(str, seeds))})"
        )
    if join.recategorised:
        lines.append(
            f"{len(join.recategorised)} samples have another category in tuned; "
            f"base's counts{_some_names(join.recategorised)}"
        )
    return lines


def _some_names(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return f" ({', '.join(map(shorten, names[:NAMED]))}{more})"


def certificate_table(diff: CertificateDiff) -> Table:
    """Both certificates, with the lines that differ highlighted."""
    table = _new_table("certificates of the format", ["", "base", "tuned"])
    for name, base, tuned in diff.rows:
        style = "yellow" if base != tuned else ""
        table.add_row(Text(name), Text(clean(base)), Text(clean(tuned)), style=style)
    return table


def changed_tasks(comparison: Comparison, metric: str, gained: bool, k: int) -> Text:
    """The `k` most telling tasks that gained or lost by this metric, with both replies."""
    pairs = comparison.changed(metric, gained)
    shown = f", {k} of them here" if len(pairs) > k else ""
    moved = f"{'gained' if gained else 'lost'} by {metric}"
    title = f"{moved}: {len(pairs)} of {len(comparison.join.pairs)} tasks{shown}"
    blocks = ["\n".join(map(shorten, _pair_lines(pair, metric, gained))) for pair in pairs[:k]]
    return Text("\n\n".join([clean(title), *blocks]))


def _pair_lines(pair: TaskPair, metric: str, gained: bool) -> Iterator[str]:
    base, tuned = pair.scores(metric) or (0.0, 0.0)
    yield f"{pair.id}  [{pair.category}]  {metric} {base:.2f} -> {tuned:.2f}"
    yield f"  query:    {pair.base[0].query}"
    yield f"  expected: {show_expectation(pair.base[0].expected)}"
    for side, samples in (("base:", pair.base), ("tuned:", pair.tuned)):
        sample = samples[0]
        seed = f"(seed {sample.seed}) " if len(samples) > 1 else ""
        calls = "" if sample.text else "; ".join(map(show_call, sample.calls))
        yield f"  {side:<9} {seed}{sample.text or calls or '(nothing)'}"
    wrong, verb = (pair.base[0], "base was") if gained else (pair.tuned[0], "tuned is")
    yield from (f"  {verb} wrong: {reason}" for reason in wrong.reasons[:3])


def guard_lines(worse: Sequence[Cell], tolerance: float) -> list[str]:
    """The guard's result: one line for each metric that got worse."""
    beyond = f" by more than {100 * tolerance:g} points" if tolerance else ""
    if not worse:
        return [f"guard: passed, nothing got worse{beyond}"]
    unit = "comparison" if len(worse) == 1 else "comparisons"
    lines = [f"guard: failed, {len(worse)} {unit} got worse{beyond}"]
    for cell in worse:
        place = "" if cell.category is None else f" in {clean(cell.category)}"
        points = f"{_points(cell.difference, signed=True)} points, p {_p_value(cell.corrected)}"
        lines.append(f"  {clean(cell.metric)}{place}: {points}")
    return lines
