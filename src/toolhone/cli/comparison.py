"""`toolhone compare` puts two evaluations side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer import Argument, Option

from toolhone.cli.console import console
from toolhone.cli.flags import AsJson
from toolhone.dialects.probe.certificate import Certificate
from toolhone.errors import ConfigError, RunError
from toolhone.evaluation import display
from toolhone.evaluation.certificate_diff import CertificateDiff
from toolhone.evaluation.compare import Comparison
from toolhone.evaluation.compare import compare as compare_evaluations
from toolhone.evaluation.folder import METRICS, read_folder
from toolhone.evaluation.guard import GuardResult, check_same_tasks
from toolhone.evaluation.guard import guard as judge_comparison
from toolhone.evaluation.markdown import comparison_markdown
from toolhone.evaluation.verdict import DEFAULT_RULES, Rules
from toolhone.runs.run import plain, writing
from toolhone.training.before_after import BASELINE

app = typer.Typer(rich_markup_mode=None)
SHOWN = 3
"""Tasks that gained, and tasks that lost, which are shown."""
GUARD_STYLES = {
    GuardResult.PASSED: "green",
    GuardResult.FAILED: "bold red",
    GuardResult.UNDECIDED: "bold yellow",
}


Margin = Annotated[
    float,
    Option(
        *("--margin", "--tolerance"),
        min=0,
        max=100,
        metavar="POINTS",
        help="a loss of up to this many points of 100 counts as none",
    ),
]
MinTasks = Annotated[int, Option(min=1, help="fewer tasks than this decide nothing")]
Strict = Annotated[
    bool, Option("--strict", help="with --guard: exit code 3 when any comparison is undecided")
]
MarkdownFile = Annotated[
    Path | None,
    Option(metavar="FILE", help="also append a summary for a pull request to this file"),
]
MetricNames = Annotated[
    list[str] | None,
    Option(metavar="NAME", help="compare only this metric; may be repeated [default: all]"),
]


@app.command(
    epilog="Examples: toolhone compare evals/base runs/sft   |   "
    "toolhone compare evals/base runs/sft --guard --strict --margin 2   |   "
    "toolhone compare runs/a runs/b --metric exact_match --json"
)
def compare(  # noqa: PLR0913 (the options of a command)
    base: Annotated[
        Path,
        Argument(metavar="BASE", help="an evaluation folder or a run (its evaluation/): before"),
    ],
    tuned: Annotated[
        Path | None,
        Argument(metavar="TUNED", help="the same: after [default: BASE, a run, against its base]"),
    ] = None,
    metric: MetricNames = None,
    guard: Annotated[
        bool,
        Option("--guard", help="exit code 1 when anything got worse, 3 when nothing is decided"),
    ] = False,
    strict: Strict = False,
    margin: Margin = 0.0,
    min_tasks: MinTasks = DEFAULT_RULES.min_tasks,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="also write the comparison to this file, as JSON")
    ] = None,
    markdown: MarkdownFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations of the same tasks: paired differences, gains and losses, both
    certificates.

    Reads evaluation folders only: no model, no tokenizer, no task file.
    """
    if strict and not guard:
        raise ConfigError("--strict says when --guard is undecided; add --guard")
    if tuned is None:
        base, tuned = base / BASELINE, base
        if not (base / METRICS).is_file():
            raise RunError(f"{tuned} holds no evaluation of its base ({base}); name BASE and TUNED")
    folders = find_evaluation(base), find_evaluation(tuned)
    if folders[0].resolve() == folders[1].resolve():
        raise ConfigError(f"BASE and TUNED are the same evaluation, {folders[0]}; name two")
    rules = Rules(margin / 100, min_tasks)
    sides = [read_folder(folder) for folder in folders]
    comparison = compare_evaluations(sides[0], sides[1], metric or (), rules)
    if guard:
        check_same_tasks(comparison)
    formats = CertificateDiff(Certificate.read(folders[0]), Certificate.read(folders[1]))
    judged = judge_comparison(comparison, strict)
    found = {"base": str(folders[0]), "tuned": str(folders[1]), **as_dict(comparison, formats)}
    found["guard"] = judged.to_dict() if guard else None
    text = json.dumps(plain(found), ensure_ascii=False, allow_nan=False)
    _write(out, text + "\n", "w")
    summary = comparison_markdown(comparison, judged, str(base), str(tuned))
    _write(markdown, summary, "a")
    if as_json:
        print(text)
    else:
        print(f"base   {folders[0]}\ntuned  {folders[1]}")
        _show(comparison, formats, named=bool(metric))
        for line in display.guard_lines(judged) if guard else ():
            console().print(Text(line, GUARD_STYLES[judged.result]))
    if guard and judged.exit_code:
        raise typer.Exit(judged.exit_code)


def _write(path: Path | None, text: str, mode: str) -> None:
    if path is None:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)


def find_evaluation(path: Path) -> Path:
    """Return the evaluation folder that a path names: itself, or `evaluation` in a run."""
    for folder in (path, path / "evaluation"):
        if (folder / METRICS).is_file():
            return folder
    several = sorted(str(found.parent) for found in path.glob(f"evaluation/*/{METRICS}"))
    if several:
        raise RunError(f"{path} holds {len(several)} evaluations; name one of {', '.join(several)}")
    if (path / "experiment.json").is_file():
        command = f"toolhone eval {path} --out {path / 'evaluation'}"
        raise RunError(f"{path} is a run without an evaluation; make one with {command}")
    what = "this is no evaluation" if path.exists() else "no such folder"
    raise RunError(
        f"{path}: {what}; wanted an evaluation folder (toolhone eval MODEL --out FOLDER makes "
        "one) or a run that holds one"
    )


def as_dict(comparison: Comparison, formats: CertificateDiff) -> dict[str, Any]:
    """Return the comparison as JSON, with both answers to the tasks that changed most."""
    leading = comparison.leading
    examples: dict[str, Any] = {"metric": leading, "lost": [], "gained": []}
    for name in ("lost", "gained"):
        for pair in comparison.changed(leading, name == "gained")[:SHOWN]:
            base, tuned = pair.base[0], pair.tuned[0]
            examples[name].append(
                {
                    "id": pair.id,
                    "category": pair.category,
                    "scores": pair.scores.get(leading),
                    "query": base.query,
                    "expected": base.expected.to_dict(),
                    "base": {"text": base.text, "reasons": base.reasons},
                    "tuned": {"text": tuned.text, "reasons": tuned.reasons},
                }
            )
    tokens = comparison.prompt_tokens
    read = (
        {}
        if tokens is None
        else {"prompt_tokens": dict(zip(("base", "tuned"), tokens, strict=True))}
    )
    return {**comparison.to_dict(), **read, "examples": examples, "certificates": formats.to_dict()}


def _show(comparison: Comparison, formats: CertificateDiff, named: bool) -> None:
    """Print tables, changed tasks, both certificates, and what was not compared.

    Categories are shown for every metric where the metrics were `named`, else for the leading one
    and what moved by the others."""
    out, leading = console(), comparison.leading
    for table in display.comparison_tables(comparison, comparison.metrics if named else [leading]):
        out.print(table)
    for line in display.error_lines(comparison, leading):
        out.print(Text(line))
    for gained in (False, True):
        out.print(display.changed_tasks(comparison, leading, gained, SHOWN))
        out.print()
    out.print(display.certificate_table(formats))
    out.print(Text(formats.sentence, "" if not formats.different else "yellow"))
    for line in display.join_lines(comparison):
        out.print(Text(line))
