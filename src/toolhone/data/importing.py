"""A published file turned into files of our own form: conversations, tasks, refused rows.

    imported = import_file("glaive.json", "glaive.jsonl")    # detects the format from the rows
    imported.loaded.summary(), imported.files                # path and number of rows by kind

Beside `OUT`, `<stem>.tasks.jsonl` gets the tasks, `<stem>.pairs.jsonl` pairs of a failed call and
the repaired one, and `<stem>.refused.jsonl` the unused rows. `OUT` gets preference pairs or tasks
where the format gives only these. Empty files are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolhone.data.freezing import Frozen, corrections, freeze_tasks
from toolhone.data.redact import Redactor
from toolhone.data.task_files import distinct
from toolhone.errors import DataError, RunError
from toolhone.runs.progress import Progress
from toolhone.schema import Json, Tool
from toolhone.sources.base import Loaded, tasks_of
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, read_lines, write_jsonl
from toolhone.sources.formats import BAD_LINE, SOURCES, detect_format, open_source

SUFFIXES = (".jsonl", ".jsonl.gz")
LONG = 4_000_000
"""Bytes from which on a file gets a progress bar."""


@dataclass(frozen=True)
class WrittenFile:
    """A file and the number of its rows."""

    path: Path
    rows: int


@dataclass(frozen=True)
class ImportResult:
    """The format, the rows, and the files: conversations, preferences, tasks, refused.

    redacted: what was replaced, by kind. would_redact: what `redact` would replace. left_out:
    conversations that are near frozen ones, and not trained on.
    """

    format: str
    loaded: Loaded
    files: Mapping[str, WrittenFile]
    redacted: Mapping[str, int] = field(default_factory=dict)
    would_redact: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0

    def to_dict(self) -> dict[str, Json]:
        loaded = self.loaded
        return {
            "format": self.format,
            "read": loaded.read,
            "kept": loaded.kept,
            "conversations": len(loaded.conversations),
            "preferences": len(loaded.preferences),
            "only_tasks": loaded.only_tasks,
            "merged": loaded.merged,
            "tasks": len(loaded.tasks),
            "repaired": dict(loaded.repaired.most_common()),
            "unchecked": dict(loaded.noted.most_common()),
            "unread": dict(loaded.unread.most_common()),
            "refused": dict(loaded.skipped.most_common()),
            "redacted": dict(self.redacted),
            "would_redact": dict(self.would_redact),
            "left_out": self.left_out,
            "files": {k: {"path": str(f.path), "rows": f.rows} for k, f in self.files.items()},
        }


@dataclass(frozen=True)
class ImportOptions:
    """What an import does besides reading.

    tools: of rows that name none, in formats that take them. redact: replace personal data and
    keys. tasks, freeze: write this many tasks to that file, and train on nothing like them.
    """

    tools: Sequence[Tool] | None = None
    redact: bool = False
    tasks: Path | None = None
    freeze: int = 0


def import_file(
    path: str | Path,
    out: str | Path,
    format: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
    options: ImportOptions = ImportOptions(),
) -> ImportResult:
    """Read a file or folder of a published format and write its rows; never overwrite unasked."""
    path, out = Path(path), Path(out)
    places = _places(out)
    if options.tasks is not None:
        places["frozen"] = options.tasks
    for place in places.values():
        if place.exists() and path.exists() and place.samefile(path):
            raise RunError(f"{place}: this is the file to import; wanted another name to write to")
        if place.exists() and not overwrite:
            raise RunError(
                f"{place} exists already; name another file, or allow overwriting with --overwrite"
            )
    name, loaded = _read(path, format, progress or Progress(), options.tools)
    frozen = _freeze(loaded, options)
    redactor = Redactor()
    change = redactor.value if options.redact else _unchanged
    rows: dict[str, tuple[Path, Iterable[Mapping[str, Json]]]] = {}
    main = loaded.preferences or loaded.conversations
    if main:
        kind = "preferences" if loaded.preferences else "conversations"
        rows[kind] = out, (row.to_dict() for row in main)
    repaired = [pair for row in loaded.conversations for pair in corrections(row)]
    tasks = [*loaded.tasks, *(task for task, _ in repaired)]
    if tasks:
        written = (task.to_dict() for task in distinct(tasks))
        rows["tasks"] = places["tasks"] if main else out, written
    if repaired:
        rows["pairs"] = places["pairs"], (pair.to_dict() for _, pair in repaired)
    if frozen is not None:
        rows["frozen"] = places["frozen"], (task.to_dict() for task in frozen.tasks)
    if loaded.refused:
        refused = [
            {"place": str(row.line), "reason": row.reason, "detail": row.detail, "row": row.row}
            for row in loaded.refused
        ]
        rows["refused"] = places["refused"], refused
    files = {
        kind: WrittenFile(place, write_jsonl(place, map(change, each)))
        for kind, (place, each) in rows.items()
    }
    for place in {*places.values()} - {file.path for file in files.values()}:
        place.unlink(missing_ok=True)
    found = Redactor()
    if not options.redact and name in SOURCES and SOURCES[name].finish is not None:
        for row in loaded.conversations:
            found.value([message.to_dict() for message in row.messages])
    left_out = 0 if frozen is None else frozen.left_out
    return ImportResult(name, loaded, files, redactor.counts, found.counts, left_out)


def _unchanged(row: Json) -> Json:
    return row


def _freeze(loaded: Loaded, options: ImportOptions) -> Frozen | None:
    """Take the frozen conversations out of what was read; None where none are to be frozen."""
    if bool(options.freeze) != (options.tasks is not None):
        raise DataError("--freeze N and --tasks FILE go together: how many cases, and where to")
    if options.tasks is None:
        return None
    if not loaded.conversations:
        raise DataError("--freeze needs conversations, and the file gives none")
    frozen = freeze_tasks(loaded.conversations, options.freeze)
    kept = {id(row) for row in frozen.train}
    pairs = zip(loaded.conversations, loaded.places, strict=True)
    loaded.places = [place for row, place in pairs if id(row) in kept]
    loaded.merged += len(loaded.conversations) - len(frozen.train)
    loaded.conversations = frozen.train
    loaded.tasks = [task for row in frozen.train for task in tasks_of(row)]
    return frozen


def _places(out: Path) -> dict[str, Path]:
    """Return the files of conversations, tasks and refused rows."""
    suffix = next((suffix for suffix in reversed(SUFFIXES) if out.name.endswith(suffix)), None)
    if suffix is None or out.name == suffix:
        raise RunError(
            f"{out}: wanted the name of a file that ends in {' or '.join(SUFFIXES)}, "
            "for example train.jsonl"
        )
    stem = out.name.removesuffix(suffix)
    beside = {
        kind: out.with_name(f"{stem}.{kind}{suffix}") for kind in ("tasks", "pairs", "refused")
    }
    return {"conversations": out, **beside}


def _read(
    path: Path, format: str, progress: Progress, tools: Sequence[Tool] | None
) -> tuple[str, Loaded]:
    """Return the format and all rows; a file of bad lines alone is a `DataError`."""
    rows = RecordStream(path)
    name = detect_format(rows, with_pairs=True) if format == "auto" else format
    shown = path.is_file() and path.stat().st_size >= LONG
    if shown:
        progress.start(f"reading {path.name}", sum(1 for _ in read_lines(path)))

    def on_row(_line: FileLine, _row: Record | BadLine) -> None:
        if shown:
            progress.advance()

    loaded = open_source(rows, name, on_row=on_row, tools=tools)
    if path.is_file() and loaded.skipped[BAD_LINE] == loaded.read:
        raise DataError(f"{path}: {loaded.summary(examples=True)}")
    return name, loaded
