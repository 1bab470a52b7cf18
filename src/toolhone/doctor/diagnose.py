"""The diagnosis of data files: all checks over all rows, a verdict, and whether training may start.

    files = [read_file("train.jsonl"), read_file("held_out.jsonl")]
    diagnosis = diagnose(files, LengthCheck(parts, max_length))
    diagnosis.verdict, diagnosis.exit_code, diagnosis.findings.groups, diagnosis.to_dict()

The first file is the one to train on; the others are held out. Nothing is changed or written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property

from toolhone.doctor.checks import (
    COMMON_MARKS,
    REMARKS,
    WHOLE_FILE,
    Balance,
    DataFinding,
    Findings,
    class_balance,
    cross_faults,
    finding_at,
    row_faults,
)
from toolhone.doctor.leaks import benchmark_faults, leak_faults, prompts_of
from toolhone.doctor.lengths import LengthCheck
from toolhone.doctor.reading import DataFile
from toolhone.errors import Fault, FindingKind
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Json, Task

_STEP = 100


class DataVerdict(StrEnum):
    """How a diagnosis ended."""

    SOUND = "sound"
    REMARKS = "sound with remarks"
    STOP = "do not train"


@dataclass(frozen=True)
class Diagnosis:
    """`files` counts the rows by file; `balance` is that of the first file."""

    files: Mapping[str, int]
    findings: Findings
    balance: Balance

    @cached_property
    def verdict(self) -> DataVerdict:
        if any(kind not in REMARKS for kind in self.findings.counts):
            return DataVerdict.STOP
        return DataVerdict.REMARKS if self.findings.findings else DataVerdict.SOUND

    @property
    def exit_code(self) -> int:
        """1 when training should not start."""
        return int(self.verdict is DataVerdict.STOP)

    def to_dict(self) -> dict[str, Json]:
        return {
            "verdict": self.verdict.value,
            "files": dict(self.files),
            "counts": {kind.value: count for kind, count in self.findings.counts.items()},
            "balance": asdict(self.balance),
            "kinds": [group.to_dict() for group in self.findings.groups],
            "findings": [finding.to_dict() for finding in self.findings.findings],
        }


def diagnose(
    files: Sequence[DataFile],
    lengths: LengthCheck | None = None,
    progress: Progress | None = None,
    only_first: bool = False,
) -> Diagnosis:
    """Check all rows of all files; the first file is trained on.

    only_first: the other files give their prompts, and their rows are not checked.
    """
    lengths, progress = lengths or LengthCheck(), progress or Progress()
    train, *others = files
    rows: list[tuple[str, Conversation | Task]] = []
    for file in others:
        rows += [(f"{file.path}, task {task.id!r}", task) for task in file.tasks]
        rows += [(str(case.place), case.conversation) for case in file.cases if case.conversation]
    own = _file_findings(train, lengths, prompts_of(rows), progress)
    findings = list(own)
    for file in () if only_first else others:
        findings += _file_findings(file, lengths, {}, progress)
    balance, usable = class_balance(train.conversations), train.trainable
    about, kind = list(balance.faults()), FindingKind.NOTHING_TO_LEARN
    if not usable:
        tasks = f"; {train.only_tasks} give tasks, for evaluation" if train.only_tasks else ""
        what = f"none of {train.read} rows gives a conversation to train on{tasks}"
        about.append(Fault(kind, "", what, "wanted conversations"))
    elif usable == sum(finding.kind is FindingKind.TOO_LONG for finding in own):
        what = f"all {usable} rows are too long"
        about.append(Fault(kind, "", what, "wanted rows that fit"))
    if lengths.parts is not None and lengths.limit is None:
        what = "neither the model nor --max-length says how many tokens fit"
        about.append(Fault(FindingKind.NO_LIMIT, "", what, ""))
    findings += [finding_at(fault, WHOLE_FILE, str(train.path)) for fault in about]
    counts = {str(file.path): file.read for file in (files[:1] if only_first else files)}
    return Diagnosis(counts, Findings(sum(counts.values()), findings), balance)


def _file_findings(
    file: DataFile, lengths: LengthCheck, held_out: Mapping[str, str], progress: Progress
) -> list[DataFinding]:
    """Return the findings about a file, those about single rows first."""
    rows = [row for row, case in enumerate(file.cases) if case.conversation is not None]
    crossed = cross_faults(file.conversations, [str(file.cases[row].place) for row in rows])
    by_row = {rows[index]: faults for index, faults in crossed.items()}
    control: re.Pattern[str] | None = COMMON_MARKS
    if lengths.parts is not None:
        longest_first = sorted(lengths.parts.tokenizer.control_texts, key=len, reverse=True)
        marks = "|".join(map(re.escape, longest_first))
        control = re.compile(marks) if marks else None
    lengths.measure(file.conversations, progress)
    findings: list[DataFinding] = []
    progress.start(f"checking {file.path.name}", total=len(file.cases))
    for row, case in enumerate(file.cases):
        faults, name = [*case.faults], ""
        if (conversation := case.conversation) is not None:
            name = conversation.id
            faults += row_faults(conversation, control)
            faults += leak_faults(conversation, held_out)
            faults += benchmark_faults(conversation)
            faults += lengths.faults(conversation)
        faults += by_row.get(row, ())
        findings += [finding_at(fault, row, str(case.place), name) for fault in faults]
        if row % _STEP == _STEP - 1:
            progress.advance(_STEP)
    progress.advance(len(file.cases) % _STEP)
    counted = [
        (FindingKind.REPAIRED, file.repaired),
        (FindingKind.UNCHECKED, file.noted),
        (FindingKind.UNREAD_KEY, file.unread),
    ]
    return findings + [
        DataFinding(kind, WHOLE_FILE, str(file.path), "", "", reason, "", count)
        for kind, counts in counted
        for reason, count in counts.items()
    ]
