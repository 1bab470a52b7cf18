"""A data file as the doctor sees it: every row, with its conversation or with what kept it from being one.

    file = read_file("train.jsonl")
    file.cases          # in the order of the file: place, conversation or None, what was found so far, what was mended

What a training would read is read by the same sources, except that lines that are no JSON objects, which stop a training, are
passed over and are cases of their own. Rows of chat messages that their source refuses are mended as far as that is
certain (`raw`), and read once more. The file itself is never changed.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from toolhone.data.any_tasks import tasks_from_any
from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode
from toolhone.doctor.findings import REMARKS
from toolhone.doctor.repair import is_chat, record_faults, repair_record
from toolhone.errors import DataError
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.schema import Conversation, Task
from toolhone.sources.base import BAD_LINE, Loaded
from toolhone.sources.files import FileLine, Record, is_table, read_jsonl, write_jsonl
from toolhone.sources.messages import NAME as CHAT
from toolhone.sources.registry import detect_format, open_source
from toolhone.sources.rules import Fault, FindingKind

_GZIP = b"\x1f\x8b"
_SNIFFED = 10
_STEP = 1000


@dataclass(frozen=True)
class Case:
    """A row: where it stands, its conversation (None: there is none), what was found on the way, and what was mended."""

    place: FileLine
    conversation: Conversation | None
    faults: tuple[Fault, ...] = ()
    repairs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DataFile:
    """All rows of a file. `tasks` are those of a task file, which has nothing to learn from and is only compared with the others.

    only_tasks: rows that are no case, since they give tasks only. repaired, noted: as the source counted them.
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


@dataclass(frozen=True)
class _Look:
    """A first look at the rows: faults by number, chat rows that can be mended before they are read, and broken lines."""

    faults: dict[int, list[Fault]] = field(default_factory=dict)
    mendable: dict[int, Record] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


def read_file(path: str | Path, format: str = "auto", progress: Progress | None = None) -> DataFile:
    """Read a file of any format that `open_source` knows; a file that is none, or no data at all, is a `DataError`."""
    path, progress = Path(path), progress or SilentProgress()
    first = list(islice(_rows(path), _SNIFFED)) if path.is_file() and not is_table(path) else []
    if any("expect" in row for _, row in first if not isinstance(row, str)):
        tasks = tasks_from_any(path, tell=progress.report)
        return DataFile(path, "tasks", [], len(tasks), tasks)
    has_rows = bool(first) and 2 * sum(not isinstance(row, str) for _, row in first) >= len(first)
    look = _first_look(path, progress) if has_rows else _Look()
    progress.start(f"reading {path.name}: conversations", total=1)
    with TemporaryDirectory() as folder:
        name = detect_format(path) if format == "auto" else format
        skip_bad = True if name == CHAT else None
        loaded = open_source(path, name, skip_bad_lines=bool(look.broken), skip_bad=skip_bad)
        again = (
            _read_mended(loaded, look, Path(folder) / "mended" / path.name) if name == CHAT else {}
        )
    progress.advance()
    cases = _kept(loaded, look) + _refused(
        loaded, look, again, FindingKind.UNREADABLE if name == CHAT else FindingKind.REFUSED
    )
    cases.sort(key=lambda case: (str(case.place.path), case.place.number))
    return DataFile(path, name, cases, loaded.only_tasks, [], loaded.repaired, loaded.noted)


def _kept(loaded: Loaded, look: _Look) -> list[Case]:
    pairs = zip(loaded.places, loaded.conversations, strict=True)
    return [Case(place, talk, tuple(look.faults.get(place.number, ()))) for place, talk in pairs]


def _refused(
    loaded: Loaded, look: _Look, again: Mapping[int, Conversation], kind: FindingKind
) -> list[Case]:
    """Refused rows, under the kind that says why if the first look knows it."""
    cases = []
    for refused in loaded.refused:
        if refused.reason == BAD_LINE:
            what = look.broken.get(refused.line.number, refused.detail)
            fault = Fault(FindingKind.UNREADABLE, "", what, "")
            cases.append(Case(refused.line, None, (fault,)))
            continue
        faults = tuple(
            fault for fault in look.faults.get(refused.line.number, ()) if fault[0] not in REMARKS
        )
        mended = again.get(refused.line.number) if faults else None
        if mended is None:
            what = refused.reason + (f": {refused.detail}" if refused.detail else "")
            faults = faults or (Fault(kind, "", what, ""),)
        cases.append(
            Case(
                refused.line,
                mended,
                faults,
                frozenset(fault[0].value for fault in faults if mended is not None),
            )
        )
    return cases


def _read_mended(loaded: Loaded, look: _Look, path: Path) -> dict[int, Conversation]:
    """Conversations of refused rows that can be mended, by the number of their line."""
    numbers = [
        refused.line.number for refused in loaded.refused if refused.line.number in look.mendable
    ]
    if not numbers:
        return {}
    write_jsonl(path, [look.mendable[number] for number in numbers])
    again = open_source(path, CHAT, skip_bad=True)
    pairs = zip(again.places, again.conversations, strict=True)
    return {numbers[place.number - 1]: talk for place, talk in pairs}


def _first_look(path: Path, progress: Progress) -> _Look:
    """All rows of a file of JSON objects, one a line or in one list."""
    look = _Look()
    progress.start(f"reading {path.name}: rows", total=_count(path))
    for number, row in _rows(path):
        if number % _STEP == 0:
            progress.advance(_STEP)
        if isinstance(row, str):
            look.broken[number] = row
        elif is_chat(row):
            faults = list(record_faults(row))
            if faults:
                look.faults[number] = faults
            if any(fault[0] not in REMARKS for fault in faults):
                look.mendable[number] = repair_record(row)
    return look


def _rows(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Each row with its number, or what is wrong with its line."""
    with _open(path) as stream:
        start = stream.peek(64)[:64].removeprefix(codecs.BOM_UTF8).lstrip()
        if not start.startswith(b"["):
            for number, raw in enumerate(stream, start=1):
                if raw.strip():
                    yield number, _row(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw)
            return
    for number, record in read_jsonl(path):
        yield number, record


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked where it is gzip-compressed."""
    try:
        with open(path, "rb") as stream:
            if stream.peek(2)[:2] != _GZIP:
                yield stream
                return
            with gzip.GzipFile(fileobj=stream) as packed:
                yield io.BufferedReader(cast(io.RawIOBase, packed))
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: the file cannot be read, or its gzip data is damaged: {error}"
        ) from None


def _row(raw: bytes) -> Record | str:
    """The object on a line, as strictly as `files` reads it, or what is wrong."""
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    found = decode(text, 0)
    if found.problem is ParseProblem.NONE and not text[found.end :].strip():
        return (
            found.value
            if isinstance(found.value, dict)
            else f"a row must be a JSON object, got {text[:60]!r}"
        )
    return f"not JSON: {_reason(text)}: {text[:60]!r}"


def _reason(text: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError):
        return "it cannot be read"
    return "a key that occurs twice, a number that is none, half a character, or too many brackets"


def _count(path: Path) -> int:
    with _open(path) as stream:
        return sum(1 for _ in stream)
