"""`toolhone compare`: two evaluations side by side, task by task; with `--guard` its exit code can fail a build.

Reads evaluation folders and nothing else: no model, no tokenizer, no task file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from toolhone.evaluation.certificate_diff import CertificateDiff
    from toolhone.evaluation.compare import Cell, Comparison, TaskPair

EXAMPLE = (
    "Examples: toolhone compare evals/base runs/sft   |   toolhone compare evals/base runs/sft --guard --tolerance 2   |   "
    "toolhone compare runs/a runs/b --metric exact_match --json"
)
SHOWN = 3
"""Tasks that gained, and tasks that lost, which are shown."""


def compare(
    base: Annotated[
        Path,
        typer.Argument(
            metavar="BASE", help="an evaluation folder, or a run (its evaluation/): before"
        ),
    ],
    tuned: Annotated[Path, typer.Argument(metavar="TUNED", help="the same: after")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="compare by this metric alone; may be repeated [default: all measured]",
        ),
    ] = None,
    guard: Annotated[
        bool, typer.Option("--guard", help="exit code 1 when anything got worse")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="POINTS",
            help="with --guard: forgive losses up to this many points of 100",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write the comparison to this file, as JSON"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object and nothing else")
    ] = False,
) -> None:
    """Compare two evaluations of the same tasks: paired differences, what was gained and lost, both certificates."""
    from toolhone.dialects.probe.certificate import Certificate
    from toolhone.errors import ConfigError
    from toolhone.evaluation.certificate_diff import CertificateDiff
    from toolhone.evaluation.compare import compare as compare_evaluations
    from toolhone.evaluation.folder import read_folder

    if tolerance is not None and not guard:
        raise ConfigError("--tolerance says which losses --guard forgives; add --guard")
    folders = find_evaluation(base), find_evaluation(tuned)
    if folders[0].resolve() == folders[1].resolve():
        raise ConfigError(f"BASE and TUNED are the same evaluation, {folders[0]}; name two")
    comparison = compare_evaluations(read_folder(folders[0]), read_folder(folders[1]), metric or ())
    formats = CertificateDiff(Certificate.read(folders[0]), Certificate.read(folders[1]))
    share = (tolerance or 0.0) / 100
    worse = comparison.worse(share) if guard else []
    if as_json or out is not None:
        found = {"base": str(folders[0]), "tuned": str(folders[1]), **as_dict(comparison, formats)}
        found["guard"] = (
            {"passed": not worse, "tolerance": share, "worse": [_named(cell) for cell in worse]}
            if guard
            else None
        )
        _deliver(found, out, as_json)
    if not as_json:
        print(f"base   {folders[0]}\ntuned  {folders[1]}")
        show(comparison, formats, named=bool(metric))
        if guard:
            _show_guard(worse, share)
    if worse:
        raise typer.Exit(1)


def find_evaluation(path: Path) -> Path:
    """The evaluation folder that a path names: itself, or of a run its `evaluation`."""
    from toolhone.errors import RunError
    from toolhone.evaluation.folder import METRICS

    for folder in (path, path / "evaluation"):
        if (folder / METRICS).is_file():
            return folder
    several = sorted(str(found.parent) for found in path.glob(f"evaluation/*/{METRICS}"))
    if several:
        raise RunError(f"{path} holds {len(several)} evaluations; name one of {', '.join(several)}")
    if (path / "experiment.json").is_file():
        raise RunError(
            f"{path} is a run without an evaluation; make one with toolhone eval {path} --out {path / 'evaluation'}"
        )
    wanted = "wanted an evaluation folder (toolhone eval MODEL --out FOLDER makes one) or a run that holds one"
    raise RunError(
        f"{path}: {'this is no evaluation' if path.exists() else 'there is no such folder'}; {wanted}"
    )


def as_dict(comparison: Comparison, formats: CertificateDiff) -> dict[str, Any]:
    """All of it as JSON; the most telling tasks with what both said."""
    leading = comparison.leading
    examples = {
        name: [
            _example(pair, leading)
            for pair in comparison.changed(leading, name == "gained")[:SHOWN]
        ]
        for name in ("lost", "gained")
    }
    return {
        **comparison.to_dict(),
        "examples": {"metric": leading, **examples},
        "certificates": formats.to_dict(),
    }


def _example(pair: TaskPair, metric: str) -> dict[str, Any]:
    base, tuned = pair.base[0], pair.tuned[0]
    return {
        "id": pair.id,
        "category": pair.category,
        "scores": pair.scores(metric),
        "query": base.query,
        "expected": base.expected.to_dict(),
        "base": {"text": base.text, "reasons": base.reasons},
        "tuned": {"text": tuned.text, "reasons": tuned.reasons},
    }


def _named(cell: Cell) -> dict[str, Any]:
    return {"metric": cell.metric, "category": cell.category, **cell.to_dict()}


def _deliver(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from toolhone.evaluation.folder import plain, write_text

    text = json.dumps(plain(found), ensure_ascii=False, allow_nan=False)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)


def show(comparison: Comparison, formats: CertificateDiff, named: bool) -> None:
    """The tables, the tasks that changed, both certificates, and what was not compared.

    Categories are shown for every metric where the metrics were `named`, else for the leading one and what moved by the others.
    """
    from rich.text import Text

    from toolhone.cli.console import console
    from toolhone.evaluation.compare_display import (
        account,
        categories,
        changed,
        formats_table,
        other_categories,
        totals,
    )

    screen, leading = console(), comparison.leading
    screen.print(totals(comparison))
    if comparison.several:
        shown = comparison.metrics if named else (leading,)
        for name in shown:
            screen.print(categories(comparison, name))
        others = other_categories(comparison, shown)
        if others is not None:
            screen.print(others)
    for gained in (False, True):
        screen.print(changed(comparison, leading, gained, SHOWN))
        screen.print()
    screen.print(formats_table(formats))
    screen.print(Text(formats.sentence, "" if not formats.different else "yellow"))
    for line in account(comparison.join):
        screen.print(Text(line))


def _show_guard(worse: list[Cell], tolerance: float) -> None:
    from rich.text import Text

    from toolhone.cli.console import console
    from toolhone.evaluation.compare_display import guard_lines

    for line in guard_lines(worse, tolerance):
        console().print(Text(line, "bold red" if worse else "green"))
