"""Evaluations and comparisons as tables and text for a terminal; nothing here prints.

    console.print(metrics_table(evaluation))
    console.print(mismatches(evaluation, 5))
    console.print(*comparison_tables(comparison, [comparison.leading]))

Model output is shown as plain text, shortened, without control characters, never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolhone.evaluation.certificate_diff import CertificateDiff
from toolhone.evaluation.compare import Comparison
from toolhone.evaluation.csv_results import CallTable
from toolhone.evaluation.guard import Guard, GuardResult
from toolhone.evaluation.metrics import LEGACY_METRICS, METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import UNMEASURED, Score
from toolhone.evaluation.verdict import RESOLUTION, Cell, GuardVerdict
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
    GuardVerdict.SAME: "",
    GuardVerdict.UNDECIDED: "yellow",
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


def new_table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> Table:
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
    tasks = len({sample.id for sample in evaluation.samples})
    each = len(evaluation.samples) // max(1, tasks)
    title = f"{tasks} tasks" + (f", {each} samples of each" if each > 1 else "")
    table = new_table(title, ["metric"], ["value", "95 % interval", "n"])
    others = list(evaluation.metrics)[len(METRICS) + len(RATES) :]
    for section in [names] if names else [METRICS, RATES, others]:
        for name in section:
            group, dot, rest = name.partition(".")
            found = evaluation.legacy.get(group, {}) if dot else evaluation.metrics
            score = found.get(rest if dot else name, UNMEASURED)
            value, span = points(score)
            style = "dim" if score.value is None else ""
            table.add_row(Text(clean(name)), value, span, str(score.n), style=style)
        table.add_section()
    for name, mean in evaluation.rewards.items():
        table.add_row(Text(clean(name)), f"{mean:.3f}", "", "")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in evaluation.outcomes.items())
    notes = [
        f"pass^k of {metric}: {', '.join(f'{k}: {100 * value:.1f}' for k, value in found.items())}"
        for metric, found in evaluation.pass_hat.items()
    ]
    choices = (choice for sample in evaluation.samples for choice in sample.expected.choices)
    wanted = sorted({call.name for choice in choices for call in choice.wanted})
    needed = not names or any(name.endswith("execution_success") for name in names)
    if needed and wanted and not evaluation.metrics["execution_success"].n:
        named = ", ".join(map(shorten, wanted[:NAMED])) + (", ..." if len(wanted) > NAMED else "")
        notes.append(f"execution_success is empty: nothing runs the wanted tools here ({named})")
    ending = Text("\n".join([*notes, f"ended: {outcomes}"]))
    if len(evaluation.by_category) < 2:
        return Group(table, ending)
    categories = new_table("by category", ["category"], [*(_SHORT[name] for name in METRICS), "n"])
    for category, metrics in evaluation.by_category.items():
        values = [points(metrics[name])[0] for name in METRICS]
        categories.add_row(Text(clean(category)), *values, str(metrics["valid_format"].n))
    return Group(table, categories, ending)


def points(score: Score, sign: str = "") -> tuple[str, str]:
    """The mean and its interval in points of 100, `93.8` and `77.1 to 98.9`; `-` where
    unmeasured."""
    if score.value is None or score.low is None or score.high is None:
        return "-", "-"
    numbers = (score.value, score.low, score.high)
    value, low, high = (format(100 * number, f"{sign}.1f") for number in numbers)
    return value, f"{low} to {high}"


def legacy_table(evaluation: Evaluation, groups: Sequence[str] = tuple(LEGACY_METRICS)) -> Table:
    """The metrics of earlier systems, one line per group."""
    table = new_table("by the definitions of other systems", ["group", "metrics"], ["n"])
    for group in groups:
        metrics = evaluation.legacy[group]
        values = ", ".join(f"{name} {points(score)[0]}" for name, score in metrics.items())
        table.add_row(group, values, str(max(score.n for score in metrics.values())))
    return table


def csv_table(tables: Mapping[str, CallTable]) -> Table:
    """One row per CSV file: its rows, the correct ones, and odd ones."""
    shares, odd = ("match", "recovered", "tags_right"), ("stray_tag", "nothing_extracted")
    headings = [name.replace("_", " ") for name in (*shares, *odd)]
    headings = ["rows", "skipped", *headings, "file disagrees"]
    table = new_table("answers made elsewhere", ["file"], headings)
    for name, found in tables.items():
        rows, counts = len(found.rows), {what: found.count(what) for what in shares}
        percents = [
            f"{count} ({100 * count / rows:.1f} %)" if rows else "-" for count in counts.values()
        ]
        others = [str(found.count(what)) for what in (*odd, "disagrees")]
        table.add_row(Text(clean(name)), str(rows), str(found.read - rows), *percents, *others)
    return table


def mismatches(evaluation: Evaluation, k: int = 5, already: Collection[str] = ()) -> Text:
    """The exact match accuracy, and the first `k` tasks not fully correct, with the reasons.

    already: ids of tasks that were shown.
    """
    wrong = [
        one
        for one in evaluation.samples
        if any(one.scores.get(name, 1.0) < 1.0 for name in METRICS)
    ]
    title = f"{len(wrong)} of {len(evaluation.samples)} tasks were not fully correct"
    exact = [one.scores["exact_match"] for one in evaluation.samples if "exact_match" in one.scores]
    if exact:
        right, share = exact.count(1.0), 100 * exact.count(1.0) / len(exact)
        title = f"Exact Match Accuracy: {share:.2f}% ({right}/{len(exact)})\n{title}"
    shown = [sample for sample in wrong if sample.id not in already][:k]
    return Text("\n\n".join([title, *map(_describe, shown)]))


def spread(evaluation: Evaluation, k: int) -> Sequence[JudgedEpisode]:
    """Return `k` samples spread evenly over the tasks."""
    samples, count = evaluation.samples, len(evaluation.samples)
    return [samples[i * count // k] for i in range(k)] if 0 < k < count else samples[: max(k, 0)]


def predictions(evaluation: Evaluation, k: int = 5) -> Text:
    """`k` predictions spread evenly over the tasks, with the reasons of what is not right."""
    return Text("\n\n".join(map(_describe, spread(evaluation, k))))


def _describe(sample: JudgedEpisode) -> str:
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
        *(f"  because:  {reason}" for reason in sample.reasons[:5]),
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


def comparison_tables(comparison: Comparison, shown: Sequence[str]) -> list[Table]:
    """Every metric over all paired tasks; the `shown` ones by category, where there are several;
    and what moved in a category by the others."""
    tasks = len(comparison.pairs)
    unit = "task" if tasks == 1 else "tasks"
    title = f"{tasks} {unit} in both"
    if comparison.clusters < tasks:
        title += (
            f", {comparison.clusters} of them independent (the others share what they are from)"
        )
    tables = [_cells_table(title, "metric", comparison.totals.items())]
    if not comparison.several:
        return tables
    for metric in shown:
        cells = [
            (name, cell)
            for name, cell in comparison.by_category[metric].items()
            if cell.difference.n or cell.only_base or cell.only_tuned
        ]
        tables.append(_cells_table(f"{clean(metric)} by category", "category", cells))
    moved = [
        (f"{cell.metric}, {cell.category}", cell)
        for name, found in comparison.by_category.items()
        for cell in found.values()
        if name not in shown and cell.verdict in (GuardVerdict.BETTER, GuardVerdict.WORSE)
    ]
    title = "other metrics that moved in a category"
    tables += [_cells_table(title, "metric, category", moved)] if moved else []
    return tables


def _cells_table(title: str, first: str, cells: Iterable[tuple[str, Cell]]) -> Table:
    scores = ["base (95 %)", "tuned (95 %)", "difference (95 %)"]
    tests = ["p worse", "p better", "detectable loss"]
    table = new_table(title, [first], [*scores, "gained", "lost", "same", "n", *tests])
    table.add_column("verdict")
    for name, cell in cells:
        n, gained, lost = cell.difference.n, cell.gained, cell.lost
        counts = [str(count) for count in (gained, lost, n - gained - lost, n)]
        sides = (("base", cell.only_base), ("tuned", cell.only_tuned))
        alone = ", ".join(f"{count} in {side} only" for side, count in sides if count)
        verdict = f"{cell.verdict.value} ({alone})" if alone else cell.verdict.value
        table.add_row(
            Text(clean(name)),
            show_score(cell.base),
            show_score(cell.tuned),
            show_score(cell.difference, "+"),
            *(counts if n else ["-", "-", "-", "0"]),
            _p_value(cell.p_worse),
            _p_value(cell.p_better),
            show_loss(cell.detectable),
            Text(verdict, STYLES[cell.verdict]),
        )
    return table


def show_loss(loss: float | None) -> str:
    """A loss in points of 100; `-` where no loss could be found."""
    return "-" if loss is None else f"{100 * loss:.1f}"


def show_score(score: Score, sign: str = "") -> str:
    """`81.3 (77.1 to 84.9)`, or `-`."""
    value, span = points(score, sign)
    return value if span == "-" else f"{value} ({span})"


def _p_value(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def join_lines(comparison: Comparison) -> list[str]:
    """What was compared and what was not; every sample is in one of the counts."""
    lines, different = [], comparison.different
    for side, only in (("base", comparison.only_base), ("tuned", comparison.only_tuned)):
        total = comparison.samples + len(only) + len(different)
        parts = [f"{total} samples", f"{comparison.samples} compared"]
        if only:
            parts.append(f"{len(only)} only there{_some_names(only)}")
        if different:
            names = _some_names(different)
            parts.append(f"{len(different)} with another task under their id{names}")
        lines.append(f"{side}: {', '.join(parts)}")
    if (tokens := comparison.prompt_tokens) is not None:
        change = 100 * (tokens[1] / tokens[0] - 1)
        both = f"{tokens[0]:,.1f} and {tokens[1]:,.1f}"
        lines.append(f"prompt tokens of a task: {both} ({change:+.1f} %)")
    if comparison.samples > len(comparison.pairs):
        seeds = sorted({sample.seed for pair in comparison.pairs for sample in pair.base})
        both = "each task counts once, with its mean over the seeds that both have"
        lines.append(f"{both} ({', '.join(map(str, seeds))})")
    if comparison.recategorised:
        lines.append(
            f"{len(comparison.recategorised)} samples have another category in tuned; "
            f"base's counts{_some_names(comparison.recategorised)}"
        )
    return lines


def _some_names(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return f" ({', '.join(map(shorten, names[:NAMED]))}{more})"


def certificate_table(diff: CertificateDiff) -> Table:
    """Both certificates, with the lines that differ highlighted."""
    table = new_table("certificates of the format", ["", "base", "tuned"])
    for name, base, tuned in diff.rows:
        style = "yellow" if base != tuned else ""
        table.add_row(Text(name), Text(clean(base)), Text(clean(tuned)), style=style)
    return table


def changed_tasks(comparison: Comparison, metric: str, gained: bool, k: int) -> Text:
    """The `k` most telling tasks that gained or lost by this metric, with both replies."""
    pairs = comparison.changed(metric, gained)
    shown = f", {k} of them here" if len(pairs) > k else ""
    moved = f"{'gained' if gained else 'lost'} by {metric}"
    title = f"{moved}: {len(pairs)} of {len(comparison.pairs)} tasks{shown}"
    blocks = [clean(title)]
    for pair in pairs[:k]:
        base, tuned = pair.scores.get(metric, (0.0, 0.0))
        lines = [
            f"{pair.id}  [{pair.category}]  {metric} {base:.2f} -> {tuned:.2f}",
            f"  query:    {pair.base[0].query}",
            f"  expected: {show_expectation(pair.base[0].expected)}",
        ]
        for side, samples in (("base:", pair.base), ("tuned:", pair.tuned)):
            sample = samples[0]
            seed = f"(seed {sample.seed}) " if len(samples) > 1 else ""
            calls = "" if sample.text else "; ".join(map(show_call, sample.calls))
            lines.append(f"  {side:<9} {seed}{sample.text or calls or '(nothing)'}")
        wrong, verb = (pair.base[0], "base was") if gained else (pair.tuned[0], "tuned is")
        lines += [f"  {verb} wrong: {reason}" for reason in wrong.reasons[:3]]
        blocks.append("\n".join(map(shorten, lines)))
    return Text("\n\n".join(blocks))


def guard_lines(found: Guard) -> list[str]:
    """The guard's result, and a line for each cell that got worse, or may have."""
    margin = 100 * found.comparison.rules.margin
    beyond = f" by more than {margin:g} points" if margin else ""
    unit = "comparison" if len(found.worse) == 1 else "comparisons"
    unseen = 100 * max(found.comparison.rules.margin, RESOLUTION)
    headings = {
        GuardResult.PASSED: f"guard: passed, nothing got worse{beyond}",
        GuardResult.FAILED: f"guard: failed, {len(found.worse)} {unit} got worse{beyond}",
        GuardResult.UNDECIDED: "guard: undecided, too few tasks: a loss of more than "
        f"{unseen:g} points is not excluded; compare on more tasks",
    }
    lines = [headings[found.result]]
    for cell in found.worse or found.undecided:
        place = "" if cell.category is None else f" in {clean(cell.category)}"
        least = f"a loss of {show_loss(cell.detectable)} could be found"
        if cell.detectable is None:
            least = "no loss could be found"
        points = f"{show_score(cell.difference, '+')} points, {cell.difference.n} tasks; {least}"
        verdict = "" if found.worse else f" ({cell.verdict.value})"
        lines.append(f"  {clean(cell.metric)}{place}{verdict}: {points}")
    return lines


def error_lines(comparison: Comparison, metric: str) -> list[str]:
    """Tasks lost and gained by this metric, by the kind of error."""
    lines = []
    for gained, what in ((False, "lost, tuned's errors"), (True, "gained, base's errors")):
        kinds = comparison.errors(metric, gained)
        parts = ", ".join(f"{count} {clean(kind)}" for kind, count in kinds.items())
        lines += [f"{what}: {parts}"] if parts else []
    for side, (mean, deviation) in comparison.seed_spreads(metric).items():
        if deviation is not None:
            spread = f"{100 * mean:.1f}, standard deviation {100 * deviation:.1f}"
            lines.append(f"{side}: {metric} over the seeds {spread}")
    return lines
