"""An evaluation for a terminal: tables of the metrics, single predictions, and what went wrong. Nothing here prints.

    console.print(table(evaluation))
    console.print(familiar_table(evaluation, ["playground"]))
    console.print(mismatches(evaluation, 5))

Whatever a model wrote is shown as plain text, shortened, without control characters; it is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolhone.evaluation.csv_results import CallTable
from toolhone.evaluation.metrics import FAMILIAR, METRICS, RATES, Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import Score, interval
from toolhone.rewards.matching import show_call
from toolhone.schema import Expect

LONGEST = 400
"""Characters of a text that are shown."""
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
"""The group of `FAMILIAR` that was made for a call syntax."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def table(evaluation: Evaluation, names: Sequence[str] = ()) -> RenderableType:
    """The metrics with their intervals, and one line for each category where there are several.

    `names` chooses metrics; those of other systems are named "group.name".
    """
    total = Table(title=f"{len(evaluation.samples)} tasks", title_justify="left")
    total.add_column("metric")
    for heading in ("value", "95 % interval", "n"):
        total.add_column(heading, justify="right")
    others = list(evaluation.metrics)[len(METRICS) + len(RATES) :]
    for section in [names] if names else [METRICS, RATES, others]:
        for name in section:
            _add(total, clean(name), _score(evaluation, name))
        total.add_section()
    for name, value in evaluation.rewards.items():
        total.add_row(Text(clean(name)), f"{value:.3f}", "", "")
    endings = Text(
        "ended: "
        + ", ".join(f"{count} {outcome}" for outcome, count in evaluation.outcomes.items())
    )
    return (
        Group(total, _categories(evaluation), endings)
        if len(evaluation.by_category) > 1
        else Group(total, endings)
    )


def familiar_table(evaluation: Evaluation, groups: Sequence[str] = tuple(FAMILIAR)) -> Table:
    """The metrics by the definitions of other systems, one line for each group; those that were measured nowhere show `-`."""
    table = Table(title="by the definitions of other systems", title_justify="left")
    for heading in ("group", "metrics", "n"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for group in groups:
        metrics = evaluation.familiar[group]
        values = ", ".join(f"{name} {percent(score)}" for name, score in metrics.items())
        table.add_row(group, values, str(max(score.n for score in metrics.values())))
    return table


def csv_table(tables: Mapping[str, CallTable]) -> Table:
    """One row for each file of answers made elsewhere: how many rows, what is right in them, and what is odd about them."""
    table = Table(title="answers made elsewhere", title_justify="left")
    table.add_column("file", overflow="fold")
    for heading in (
        "rows",
        "skipped",
        "match",
        "recovered",
        "tags right",
        "stray tag",
        "nothing extracted",
        "file disagrees",
    ):
        table.add_column(heading, justify="right")
    for name, found in tables.items():
        rows = len(found.rows)
        shares = [_share(found.count(what), rows) for what in ("match", "recovered", "tags_right")]
        odd = [str(found.count(what)) for what in ("stray_tag", "nothing_extracted", "disagrees")]
        table.add_row(Text(clean(name)), str(rows), str(found.read - rows), *shares, *odd)
    return table


def _share(count: int, rows: int) -> str:
    return f"{count} ({100 * count / rows:.1f} %)" if rows else "-"


def _score(evaluation: Evaluation, name: str) -> Score:
    """The score of a metric; of one of the user's own that was measured nowhere, an empty one."""
    group, dot, rest = name.partition(".")
    found = evaluation.familiar.get(group, {}).get(rest) if dot else evaluation.metrics.get(name)
    return interval([]) if found is None else found


def _add(total: Table, name: str, score: Score) -> None:
    if score.value is None or score.low is None or score.high is None:
        total.add_row(Text(name), "-", "-", "0", style="dim")
    else:
        total.add_row(
            Text(name),
            percent(score),
            f"{100 * score.low:.1f} to {100 * score.high:.1f}",
            str(score.n),
        )


def percent(score: Score) -> str:
    """`93.8`, or `-` for what was not measured."""
    return "-" if score.value is None else f"{100 * score.value:.1f}"


def _categories(evaluation: Evaluation) -> Table:
    categories = Table(title="by category", title_justify="left")
    categories.add_column("category", overflow="fold")
    for name in METRICS:
        categories.add_column(_SHORT[name], justify="right")
    categories.add_column("n", justify="right")
    for category, metrics in evaluation.by_category.items():
        count = metrics["valid_format"].n
        categories.add_row(
            Text(clean(category)), *(percent(metrics[name]) for name in METRICS), str(count)
        )
    return categories


def mismatches(evaluation: Evaluation, k: int = 5) -> Text:
    """The first `k` tasks that were not wholly right: what was expected, what came, the scores, and why."""
    wrong = [sample for sample in evaluation.samples if _wrong(sample.scores)]
    blocks = [_block(sample, why=True) for sample in wrong[:k]]
    return Text(
        "\n\n".join(
            [f"{len(wrong)} of {len(evaluation.samples)} tasks were not wholly right", *blocks]
        )
    )


def predictions(evaluation: Evaluation, k: int = 5) -> Text:
    """`k` predictions spread evenly over the tasks, right or wrong."""
    count = len(evaluation.samples)
    chosen = (
        [evaluation.samples[i * count // k] for i in range(k)]
        if 0 < k < count
        else evaluation.samples[: max(k, 0)]
    )
    return Text("\n\n".join(_block(sample, why=False) for sample in chosen))


def _wrong(scores: Mapping[str, float]) -> bool:
    """Whether a metric is not 1; the rates on raw text do not count, as they say the same again."""
    return any(scores.get(name, 1.0) < 1.0 for name in METRICS)


def _block(sample: JudgedEpisode, why: bool) -> str:
    lines = [f"{sample.id}  [{sample.category}]  {sample.outcome}", *_lines(sample)]
    lines.append(
        "  scores:   "
        + ", ".join(
            f"{_SHORT[name]} {sample.scores[name]:.2f}" for name in METRICS if name in sample.scores
        )
    )
    if why:
        lines += [f"  because:  {reason}" for reason in sample.reasons[:5]]
    return "\n".join(shortened(line) for line in lines)


def _lines(sample: JudgedEpisode) -> Iterator[str]:
    yield f"  query:    {sample.query}"
    yield f"  expected: {expectation(sample.expected)}"
    yield f"  got:      {'; '.join(map(show_call, sample.calls)) or 'no call'}"
    yield f"  text:     {sample.text}"


def expectation(expect: Expect) -> str:
    """What counts as right, in one line."""
    return "; or ".join(map(_one_expectation, expect.choices))


def _one_expectation(expect: Expect) -> str:
    said = (
        ["; ".join(map(show_call, expect.wanted))]
        if expect.wanted
        else ["no call"]
        if expect.no_call
        else []
    )
    return " and ".join(
        [*said, *([f"the answer {expect.answer!r}"] if expect.answer is not None else [])]
    )


def shortened(text: str) -> str:
    """One line of at most `LONGEST` characters, control characters replaced."""
    line = clean(text).replace("\n", "\\n")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(line)} characters)"


def clean(text: str) -> str:
    """Text that cannot control a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))
