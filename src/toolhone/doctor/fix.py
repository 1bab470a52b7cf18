"""A cleaned copy of a data file, and the account of every row that was mended or left out: what `--fix` does.

    cleaned = clean([train, *held_out], yardstick)
    cleaned.kept + cleaned.repaired + cleaned.dropped == cleaned.read
    write_cleaned(cleaned, "clean.jsonl", originals=paths)     # and clean.report.json beside it

Each row is mended as far as that is certain (`mending`). What is still wrong after that in a way that would stop a training, and
rows that leak, are dropped with their reasons (`findings.REMEDIES` has them); then, among the rows that are left, those that repeat
or contradict others: a row that is thrown away for a fault of its own has no say in what the right answer is. The result, read
again, has nothing that stops, and cleaning it again changes nothing. The original is never touched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.doctor.diagnose import Diagnosis, diagnose
from toolhone.doctor.findings import BESIDE_OTHERS, REMEDIES, WHOLE_FILE
from toolhone.doctor.lengths import Yardstick
from toolhone.doctor.quick_checks import cross_faults
from toolhone.doctor.reading import Case, DataFile
from toolhone.doctor.repair import Mender
from toolhone.errors import DataError, RunError
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.runs.run import write_json, writing
from toolhone.schema import Conversation, Json
from toolhone.sources.files import write_jsonl
from toolhone.sources.rules import FindingKind


class RowOutcome(StrEnum):
    """What became of a row that was not kept as it is."""

    REPAIRED = "repaired"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Change:
    """A row that was repaired or dropped, and why: kinds of findings."""

    row: int
    place: str
    id: str
    outcome: RowOutcome
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        return {
            "row": self.row,
            "place": self.place,
            "id": self.id,
            "outcome": self.outcome.value,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class CleanResult:
    """The rows that are left, what was changed, and the diagnosis of what is left.

    mended_in_reading: what the source of the format mended, by reason; such rows count as kept, since a training reads them so
    as well.
    """

    source: Path
    read: int
    conversations: Sequence[Conversation]
    changes: Sequence[Change]
    only_tasks: int
    mended_in_reading: Mapping[str, int]
    after: Diagnosis

    def __post_init__(self) -> None:
        assert self.kept + self.repaired + self.dropped == self.read, (
            "a row was lost without a count"
        )

    @property
    def repaired(self) -> int:
        return sum(change.outcome is RowOutcome.REPAIRED for change in self.changes)

    @property
    def kept(self) -> int:
        """Rows that are as they were."""
        return len(self.conversations) - self.repaired

    @property
    def dropped(self) -> int:
        return len(self.changes) - self.repaired + self.only_tasks

    def reasons(self, outcome: RowOutcome) -> Counter[str]:
        """How many rows have each reason; a row may have several."""
        counts = Counter(
            reason
            for change in self.changes
            if change.outcome is outcome
            for reason in change.reasons
        )
        if outcome is RowOutcome.DROPPED and self.only_tasks:
            counts[FindingKind.NOTHING_TO_LEARN.value] += self.only_tasks
        return counts

    def to_dict(self) -> dict[str, Json]:
        return {
            "source": str(self.source),
            "read": self.read,
            "kept": self.kept,
            "repaired": self.repaired,
            "dropped": self.dropped,
            "reasons": {
                outcome.value: dict(self.reasons(outcome).most_common()) for outcome in RowOutcome
            },
            "mended_while_reading": dict(self.mended_in_reading),
            "verdict": self.after.verdict.value,
            "rows": [change.to_dict() for change in self.changes],
        }


def clean(
    files: Sequence[DataFile], yardstick: Yardstick | None = None, progress: Progress | None = None
) -> CleanResult:
    """Mend and sift the first file; the others are what it must not leak into."""
    yardstick, progress = yardstick or Yardstick(), progress or SilentProgress()
    train, *others = files
    mender = Mender()
    mended = [_mended(case, mender) for case in train.cases]
    bare = replace(
        train, cases=[replace(case, faults=()) if case.conversation else case for case in mended]
    )
    doomed = _doomed(diagnose([bare, *others], yardstick, progress, only_first=True))
    doomed = {
        **doomed,
        **_doomed_beside_others(
            [(row, case) for row, case in enumerate(mended) if row not in doomed]
        ),
    }
    changes = []
    for row, case in enumerate(mended):
        name = case.conversation.id if case.conversation else ""
        if row in doomed:
            changes.append(Change(row, str(case.place), name, RowOutcome.DROPPED, doomed[row]))
        elif case.repairs:
            changes.append(
                Change(row, str(case.place), name, RowOutcome.REPAIRED, tuple(sorted(case.repairs)))
            )
    left = [
        Case(case.place, case.conversation) for row, case in enumerate(mended) if row not in doomed
    ]
    after = diagnose(
        [DataFile(train.path, train.format, left), *others], yardstick, progress, only_first=True
    )
    conversations = [case.conversation for case in left if case.conversation is not None]
    return CleanResult(
        train.path,
        train.read,
        conversations,
        changes,
        train.only_tasks,
        dict(train.repaired),
        after,
    )


def _mended(case: Case, mender: Mender) -> Case:
    if case.conversation is None:
        return case
    conversation, repairs = mender.mend(case.conversation)
    return replace(case, conversation=conversation, repairs=case.repairs | repairs)


def _doomed(diagnosis: Diagnosis) -> Mapping[int, tuple[str, ...]]:
    """Row -> the reasons of its own for which it is dropped, each once."""
    reasons: dict[int, dict[str, None]] = defaultdict(dict)
    for finding in diagnosis.findings.findings:
        if (
            finding.row != WHOLE_FILE
            and REMEDIES[finding.kind].drops
            and finding.kind not in BESIDE_OTHERS
        ):
            reasons[finding.row][finding.kind.value] = None
    return {row: tuple(found) for row, found in reasons.items()}


def _doomed_beside_others(left: Sequence[tuple[int, Case]]) -> Mapping[int, tuple[str, ...]]:
    """The same for rows that repeat or contradict other ones among those that are left."""
    talks = [
        (row, case.conversation, str(case.place))
        for row, case in left
        if case.conversation is not None
    ]
    crossed = cross_faults([talk for _, talk, _ in talks], [place for _, _, place in talks])
    reasons = {talks[index][0]: [fault[0] for fault in faults] for index, faults in crossed.items()}
    dropped = {
        row: tuple(kind.value for kind in kinds if REMEDIES[kind].drops)
        for row, kinds in reasons.items()
    }
    return {row: kinds for row, kinds in dropped.items() if kinds}


def report_path(out: Path) -> Path:
    """`clean.jsonl` -> `clean.report.json`."""
    name = out.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return out.with_name(f"{name}.report.json")


def write_cleaned(cleaned: CleanResult, out: str | Path, originals: Sequence[str | Path]) -> Path:
    """Write the rows and the report beside them, and return the path of that; what the doctor did not write is left alone."""
    out = Path(out)
    check_target(out, originals)
    if not cleaned.conversations:
        raise DataError(
            f"{cleaned.source}: no row is left after cleaning, so that {out} was not written; wanted at least one sound row"
        )
    report = report_path(out)
    write_jsonl(out, (conversation.to_dict() for conversation in cleaned.conversations))
    with writing(report.parent):
        write_json(report, {**cleaned.to_dict(), "out": str(out)})
    return report


def check_target(out: Path, originals: Sequence[str | Path]) -> None:
    """Refuse to write over the data, or over any file that is not an earlier copy of the doctor's."""
    if any(out.resolve() == Path(original).resolve() for original in originals):
        raise RunError(
            f"--fix {out}: this is the data itself, which is never changed; name another file"
        )
    if out.exists() and not report_path(out).exists():
        raise RunError(
            f"--fix {out}: the file exists, and no {report_path(out).name} says that the doctor wrote it; name another file"
        )
