"""The diagnosis of data files: every probe over every row, a verdict, and whether training should go on.

    diagnosis = diagnose([read_file("train.jsonl"), read_file("held_out.jsonl")], Yardstick(parts, max_length))
    diagnosis.verdict, diagnosis.exit_code, diagnosis.groups, diagnosis.to_dict()

The first file is the one to train on; the others are held out: their rows are looked at as well, and must not open like rows of
the first. Nothing is changed and nothing is written; see `cleaning`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from toolhone.doctor.class_balance import Balance, class_balance
from toolhone.doctor.findings import REMARKS, WHOLE_FILE, DataFinding, Findings
from toolhone.doctor.leaks import benchmark_faults, leak_fault, prompts_of
from toolhone.doctor.lengths import Yardstick
from toolhone.doctor.quick_checks import (
    FindingGroup,
    cross_faults,
    finding_dict,
    groups_of,
    row_faults,
)
from toolhone.doctor.reading import Case, DataFile
from toolhone.doctor.text_checks import COMMON_MARKS, pattern_of
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.schema import Conversation, Json, Task
from toolhone.sources.rules import Fault, FindingKind

_STEP = 100


class DataVerdict(StrEnum):
    """How it ended."""

    SOUND = "sound"
    REMARKS = "sound with remarks"
    STOP = "do not train"


@dataclass(frozen=True)
class Diagnosis:
    """`findings` over all files, in the order of files and rows; `balance` is that of the first file."""

    files: Mapping[str, int]
    """Rows read, by file."""
    findings: Findings
    balance: Balance

    @cached_property
    def verdict(self) -> DataVerdict:
        if any(kind not in REMARKS for kind in self.findings.counts):
            return DataVerdict.STOP
        return DataVerdict.REMARKS if self.findings.findings else DataVerdict.SOUND

    @property
    def exit_code(self) -> int:
        """1 when training should not go on."""
        return int(self.verdict is DataVerdict.STOP)

    @cached_property
    def groups(self) -> list[FindingGroup]:
        return groups_of(self.findings)

    def to_dict(self) -> dict[str, Json]:
        return {
            "verdict": self.verdict.value,
            "files": dict(self.files),
            "counts": {kind.value: count for kind, count in self.findings.counts.items()},
            "balance": self.balance.to_dict(),
            "kinds": [group.to_dict() for group in self.groups],
            "findings": [finding_dict(finding) for finding in self.findings.findings],
        }


def diagnose(
    files: Sequence[DataFile],
    yardstick: Yardstick | None = None,
    progress: Progress | None = None,
    only_first: bool = False,
) -> Diagnosis:
    """Look at all rows of all files; the first is trained on. With `only_first` the others are no more than held-out prompts."""
    yardstick, progress = yardstick or Yardstick(), progress or SilentProgress()
    train, *others = files
    held_out = prompts_of(pair for file in others for pair in _placed(file))
    probes = _Probes(yardstick, held_out, _control(yardstick))
    looked_at = [train] if only_first else list(files)
    own = _of_file(train, probes, progress)
    findings = own + [
        one for file in looked_at[1:] for one in _of_file(file, probes.without_leaks(), progress)
    ]
    balance = class_balance(train.conversations)
    findings += [
        _about(train, fault) for fault in (*balance.faults(), *_of_training(train, own, yardstick))
    ]
    rows = {str(file.path): file.read for file in looked_at}
    return Diagnosis(rows, Findings(sum(rows.values()), findings), balance)


@dataclass(frozen=True)
class _Probes:
    """What single rows are looked at with."""

    yardstick: Yardstick
    held_out: Mapping[str, str]
    control: re.Pattern[str] | None

    def without_leaks(self) -> _Probes:
        return _Probes(self.yardstick, {}, self.control)

    def faults(self, conversation: Conversation) -> Iterator[Fault]:
        yield from row_faults(conversation, self.control)
        yield from leak_fault(conversation, self.held_out)
        yield from benchmark_faults(conversation)
        yield from self.yardstick.faults(conversation)


def _control(yardstick: Yardstick) -> re.Pattern[str] | None:
    return (
        COMMON_MARKS
        if yardstick.parts is None
        else pattern_of(yardstick.parts.tokenizer.control_texts)
    )


def _placed(file: DataFile) -> Iterator[tuple[str, Conversation | Task]]:
    yield from ((f"{file.path}, task {task.id!r}", task) for task in file.tasks)
    yield from (
        (str(case.place), case.conversation) for case in file.cases if case.conversation is not None
    )


def _of_file(file: DataFile, probes: _Probes, progress: Progress) -> list[DataFinding]:
    """The findings about a file, those about single rows first."""
    rows = [row for row, case in enumerate(file.cases) if case.conversation is not None]
    places = [str(file.cases[row].place) for row in rows]
    crossed = cross_faults(file.conversations, places)
    crossed = {rows[index]: faults for index, faults in crossed.items()}
    probes.yardstick.measure(file.conversations, progress)
    findings: list[DataFinding] = []
    progress.start(f"looking at {file.path.name}", total=len(file.cases))
    for row, case in enumerate(file.cases):
        own = probes.faults(case.conversation) if case.conversation is not None else ()
        findings += [
            _in_row(row, case, fault) for fault in (*case.faults, *own, *crossed.get(row, ()))
        ]
        if row % _STEP == _STEP - 1:
            progress.advance(_STEP)
    progress.advance(len(file.cases) % _STEP)
    counted = [(FindingKind.MENDED, file.repaired), (FindingKind.UNCHECKED, file.noted)]
    return findings + [
        DataFinding(kind, WHOLE_FILE, str(file.path), "", "", reason, "", count)
        for kind, counts in counted
        for reason, count in counts.items()
    ]


def _in_row(row: int, case: Case, fault: Fault) -> DataFinding:
    identity = "" if case.conversation is None else case.conversation.id
    return DataFinding(fault[0], row, str(case.place), identity, *fault[1:])


def _about(file: DataFile, fault: Fault) -> DataFinding:
    return DataFinding(fault[0], WHOLE_FILE, str(file.path), "", *fault[1:])


def _of_training(
    train: DataFile, own: Sequence[DataFinding], yardstick: Yardstick
) -> Iterator[Fault]:
    """What is to be said of the file that is trained on, as a whole."""
    usable = len(train.conversations)
    long = sum(finding.kind is FindingKind.TOO_LONG for finding in own)
    if not usable:
        told = f"; {train.only_tasks} give tasks, for evaluation" if train.only_tasks else ""
        yield Fault(
            FindingKind.NOTHING_TO_LEARN,
            "",
            f"none of {train.read} rows gives a conversation{told}",
            "wanted conversations",
        )
    elif long == usable:
        yield Fault(
            FindingKind.NOTHING_TO_LEARN,
            "",
            f"all {usable} rows are too long",
            "wanted rows that fit",
        )
    if yardstick.parts is not None and yardstick.limit is None:
        yield Fault(
            FindingKind.NO_LIMIT,
            "",
            "neither the model nor --max-length says how many tokens fit",
            "",
        )
