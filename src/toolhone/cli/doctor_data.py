"""The data part of `toolhone doctor`: examines files, shows the findings, and writes a cleaned copy
with `--fix`.

found = examine_data([Path("train.jsonl"), Path("held_out.jsonl")], (dialect, tokenizer),
fix=Path("clean.jsonl")) found.stops, found.to_dict()"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from toolhone.cli.console import console, print_table
from toolhone.doctor.checks import REMEDIES, FindingGroup
from toolhone.doctor.diagnose import DataVerdict, Diagnosis, diagnose
from toolhone.doctor.fix import CleanResult, RowOutcome, check_target, clean, write_cleaned
from toolhone.doctor.lengths import LengthCheck, ModelParts
from toolhone.doctor.reading import read_file
from toolhone.errors import ConfigError
from toolhone.evaluation.display import clean as printable
from toolhone.runs.progress import Progress, open_progress

if TYPE_CHECKING:
    from toolhone.dialects.base import Dialect
    from toolhone.tokenizer import TextTokenizer

STYLES = {
    DataVerdict.SOUND: "bold green",
    DataVerdict.REMARKS: "bold yellow",
    DataVerdict.STOP: "bold red",
}
_LONGEST = 300
"""Characters of an example that are shown."""


@dataclass(frozen=True)
class Examination:
    """The findings; `cleaned` where a cleaned copy was written, to `out`."""

    diagnosis: Diagnosis
    cleaned: CleanResult | None = None
    out: Path | None = None

    @property
    def verdict(self) -> DataVerdict:
        """The verdict on the cleaned copy where there is one, else on the data as they are."""
        return self.diagnosis.verdict if self.cleaned is None else self.cleaned.after.verdict

    @property
    def stops(self) -> bool:
        return self.verdict is DataVerdict.STOP

    def to_dict(self) -> dict[str, object]:
        result: dict[str, object] = dict(self.diagnosis.to_dict())
        if self.cleaned is not None:
            result["fix"] = {**self.cleaned.to_dict(), "out": str(self.out)}
        return result


def examine_data(
    paths: Sequence[Path],
    model: tuple[Dialect, TextTokenizer] | None = None,
    fix: Path | None = None,
    max_length: int | None = None,
    show: bool = True,
    progress: Progress | None = None,
) -> Examination:
    """Examine files, the first of them to train on, the others held out.

    fix: write a cleaned copy of the first file there. max_length: the most tokens of a row; None:
    no limit."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "--data names one file twice; the first file is trained on, the others are held out"
        )
    if fix is not None:
        check_target(fix, paths)
    if progress is None:
        with open_progress() as opened:
            return examine_data(paths, model, fix, max_length, show, opened)
    files = [read_file(path, progress=progress) for path in paths]
    parts = None if model is None else ModelParts(*model)
    lengths = LengthCheck(parts, max_length, workers=os.cpu_count() or 1)
    diagnosis = diagnose(files, lengths, progress)
    if show:
        _show(diagnosis)
    if fix is None:
        return Examination(diagnosis)
    cleaned = clean(files, lengths, progress)
    report = write_cleaned(cleaned, fix, paths)
    if show:
        _show_cleaned(cleaned, fix, report)
    return Examination(diagnosis, cleaned, fix)


def _show(diagnosis: Diagnosis) -> None:
    """Print the findings by kind, the grave ones first, each with a few examples."""
    out, groups = console(), diagnosis.findings.groups
    for name, count in diagnosis.files.items():
        out.print(Text(f"{printable(name)}: {count} row{'' if count == 1 else 's'}"))
    rows = []
    for group in groups:
        remedy = REMEDIES[group.kind]
        word = Text("stops", "bold red") if remedy.effect == "stop" else Text("remark", "yellow")
        rows.append((group.kind.value, str(group.count), word, remedy.why, remedy.fix))
    if rows:
        headings = ("finding", "count", "", "why it matters", "what --fix does")
        print_table(headings, rows, right=("count",))
    for group in groups:
        out.print(_examples(group), soft_wrap=True)
    out.print(Text(str(diagnosis.balance)))
    _show_verdict("verdict", diagnosis.verdict)


def _examples(group: FindingGroup) -> Text:
    """Return the kind with its first few findings, one on a line."""
    lines = []
    for finding in group.examples:
        times = f" ({finding.times} rows)" if finding.times > 1 else ""
        lines.append(f"  {printable(f'{finding}{times}')[:_LONGEST]}")
    left = group.count - sum(finding.times for finding in group.examples)
    lines += [f"  ... and {left} more"] if left else []
    style = "bold red" if REMEDIES[group.kind].effect == "stop" else "bold yellow"
    return Text.assemble((group.kind.value, style), "\n", "\n".join(lines))


def _show_cleaned(cleaned: CleanResult, fix: Path, report: Path) -> None:
    out = console()
    counts = f"kept {cleaned.kept} + repaired {cleaned.repaired} + dropped {cleaned.dropped}"
    out.print(Text(f"{fix}: {counts} = {cleaned.read} rows read; every change is in {report}"))
    for outcome in RowOutcome:
        for reason, count in cleaned.reasons(outcome).most_common():
            out.print(Text(f"  {outcome.value} {count:6d}  {reason}"))
    _show_verdict(f"verdict on {fix}", cleaned.after.verdict)


def _show_verdict(what: str, verdict: DataVerdict) -> None:
    console().print(Text.assemble(f"{what}: ", (verdict.value, STYLES[verdict])))
