"""The data part of `toolhone doctor`: look at data files, show what was found, and write a cleaned copy where that is asked for.

    found = examine_data([Path("train.jsonl"), Path("held_out.jsonl")], (dialect, tokenizer), fix=Path("clean.jsonl"))
    found.stops, found.to_dict()

Findings are shown by kind, the grave ones first, with at most five examples each and the number of all; `to_dict` has every
finding. The format of the model itself is examined elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from toolhone.cli.console import console
from toolhone.doctor.diagnose import DataVerdict, Diagnosis, diagnose
from toolhone.doctor.findings import REMEDIES, FindingGroup
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
class Examined:
    """What was found; `cleaned` where a cleaned copy was written, to `out`."""

    diagnosis: Diagnosis
    cleaned: CleanResult | None = None
    out: Path | None = None

    @property
    def stops(self) -> bool:
        """Whether training should not go on: with the cleaned copy where there is one, else with the data as they are."""
        return self.verdict is DataVerdict.STOP

    @property
    def verdict(self) -> DataVerdict:
        return self.diagnosis.verdict if self.cleaned is None else self.cleaned.after.verdict

    def to_dict(self) -> dict[str, object]:
        result: dict[str, object] = self.diagnosis.to_dict()
        return (
            result
            if self.cleaned is None
            else {**result, "fix": {**self.cleaned.to_dict(), "out": str(self.out)}}
        )


def examine_data(
    paths: Sequence[Path],
    model: tuple[Dialect, TextTokenizer] | None = None,
    fix: Path | None = None,
    max_length: int | None = None,
    show: bool = True,
    progress: Progress | None = None,
) -> Examined:
    """Examine files, the first of them to train on, the others held out.

    fix: write a cleaned copy of the first file there. max_length: the most tokens of a row; None: any length, with a remark
    where there is a model to count them.
    """
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
    lengths = LengthCheck(
        None if model is None else ModelParts(*model), max_length, workers=os.cpu_count() or 1
    )
    diagnosis = diagnose(files, lengths, progress)
    cleaned = None if fix is None else clean(files, lengths, progress)
    report = None if cleaned is None or fix is None else write_cleaned(cleaned, fix, paths)
    if show:
        _show(diagnosis)
        if cleaned is not None:
            _show_cleaned(cleaned, fix, report)
    return Examined(diagnosis, cleaned, fix)


def _show(diagnosis: Diagnosis) -> None:
    out = console()
    for name, count in diagnosis.files.items():
        out.print(Text(f"{printable(name)}: {count} rows"))
    if diagnosis.findings.groups:
        out.print(_table(diagnosis.findings.groups))
    for group in diagnosis.findings.groups:
        out.print(_examples(group), soft_wrap=True)
    out.print(Text(str(diagnosis.balance)))
    out.print(Text.assemble("verdict: ", (diagnosis.verdict.value, STYLES[diagnosis.verdict])))


def _table(groups: Sequence[FindingGroup]) -> Table:
    table = Table(pad_edge=False)
    for heading in ("finding", "count", "", "why it matters", "what --fix does"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading == "count" else "left"
        )
    for group in groups:
        remedy = REMEDIES[group.kind]
        word = Text("stops", "bold red") if remedy.grave else Text("remark", "yellow")
        table.add_row(
            Text(group.kind.value), str(group.count), word, Text(remedy.why), Text(remedy.fix)
        )
    return table


def _examples(group: FindingGroup) -> Text:
    """The kind with its first few findings, one a line."""
    lines = [
        str(finding) + (f" ({finding.times} rows)" if finding.times > 1 else "")
        for finding in group.examples
    ]
    left = group.count - sum(finding.times for finding in group.examples)
    shown = [f"  {printable(line)[:_LONGEST]}" for line in lines] + (
        [f"  ... and {left} more"] if left else []
    )
    style = "bold red" if REMEDIES[group.kind].grave else "bold yellow"
    return Text.assemble((group.kind.value, style), "\n", "\n".join(shown))


def _show_cleaned(cleaned: CleanResult, fix: Path | None, report: Path | None) -> None:
    out = console()
    counts = f"kept {cleaned.kept} + repaired {cleaned.repaired} + dropped {cleaned.dropped} = {cleaned.read} rows read"
    out.print(Text(f"{fix}: {counts}; every change is in {report}"))
    for outcome in RowOutcome:
        for reason, count in cleaned.reasons(outcome).most_common():
            out.print(Text(f"  {outcome.value} {count:6d}  {reason}"))
    verdict = cleaned.after.verdict
    out.print(Text.assemble(f"verdict on {fix}: ", (verdict.value, STYLES[verdict])))
