"""A data file as the doctor sees it: every row, with its conversation or with the reason for none.

    file = read_file("train.jsonl")
    file.cases, file.conversations

The sources of a training read the rows; lines that are no JSON objects, which stop a training, are
cases of their own. Refused rows of chat messages are repaired where that is certain.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from toolhone.data.task_files import tasks_from_any
from toolhone.doctor.checks import REMARKS
from toolhone.doctor.repair import is_chat, record_faults, repair_record
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Task
from toolhone.sources import messages
from toolhone.sources.base import BAD_LINE, Context, Refused, Skip
from toolhone.sources.files import BadLine, FileLine, is_table, read_lines
from toolhone.sources.formats import detect_format, open_source
from toolhone.sources.rules import Fault, FindingKind

_FIRST_ROWS = 10


@dataclass(frozen=True)
class Case:
    """A row: its place, its conversation if it has one, what is wrong, and what was repaired."""

    place: FileLine
    conversation: Conversation | None
    faults: tuple[Fault, ...] = ()
    repairs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DataFile:
    """All rows of a file.

    only_tasks: rows that are no case, since they give tasks only. tasks: those of a task file,
    whose prompts are held out. repaired, noted: as the source counted them.
    """

    path: Path
    format: str
    cases: list[Case]
    only_tasks: int = 0
    tasks: list[Task] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        return len(self.cases) + self.only_tasks

    @property
    def conversations(self) -> list[Conversation]:
        return [case.conversation for case in self.cases if case.conversation is not None]


def read_file(path: str | Path, format: str = "auto", progress: Progress | None = None) -> DataFile:
    """Read a file of any format; a file of none, or without data, is a `DataError`."""
    path, progress = Path(path), progress or Progress()
    first = []
    if path.is_file() and not is_table(path):
        with closing(read_lines(path)) as lines:
            first = [row for _, row in islice(lines, _FIRST_ROWS)]
    if any("expect" in row for row in first if not isinstance(row, BadLine)):
        tasks = tasks_from_any(path, report=progress.report)
        return DataFile(path, "tasks", [], len(tasks), tasks)
    name = detect_format(path) if format == "auto" else format
    progress.start(f"reading {path.name}", total=2)
    # Faults of chat messages that their source would hide.
    faults = {
        line: list(record_faults(row))
        for line, row in (read_lines(path) if path.is_file() else ())
        if not isinstance(row, BadLine) and is_chat(row)
    }
    progress.advance()
    skip_bad = True if name == "messages" else None
    loaded = open_source(path, name, skip_bad_lines=True, skip_bad=skip_bad)
    progress.advance()
    pairs = zip(loaded.places, loaded.conversations, strict=True)
    cases = [Case(place, one, tuple(faults.get(place, ()))) for place, one in pairs]
    cases += [_refused_case(row, name, faults.get(row.line, [])) for row in loaded.refused]
    cases.sort(key=lambda case: (str(case.place.path), case.place.number))
    return DataFile(path, name, cases, loaded.only_tasks, [], loaded.repaired, loaded.noted)


def _refused_case(refused: Refused, name: str, faults: list[Fault]) -> Case:
    """Return a refused row, repaired if its faults can be repaired, else with its reason."""
    grave = tuple(fault for fault in faults if fault.kind not in REMARKS)
    unreadable = refused.reason == BAD_LINE or name == "messages"
    kind = FindingKind.UNREADABLE if unreadable else FindingKind.REFUSED
    if grave and name == "messages" and isinstance(refused.row, dict):
        context = Context(name, refused.line.path, {}, refused.line)
        try:
            converted = messages.convert(repair_record(refused.row), context)
        except Skip:
            return Case(refused.line, None, grave)
        repairs = frozenset(fault.kind.value for fault in grave)
        return Case(refused.line, converted.conversation, grave, repairs)
    parts = [refused.detail] if refused.reason == BAD_LINE else [refused.reason, refused.detail]
    return Case(refused.line, None, grave or (Fault(kind, "", ": ".join(filter(None, parts)), ""),))
