"""A published file turned into files of our own form: conversations, tasks, refused rows.

    imported = import_file("glaive.json", "glaive.jsonl")    # detects the format from the rows
    imported.loaded.summary(), imported.files                # path and number of rows by kind

Beside `OUT`, `<stem>.tasks.jsonl` gets the tasks, `<stem>.pairs.jsonl` pairs of a failed call and
the repaired one, and `<stem>.refused.jsonl` the unused rows. `OUT` gets preference pairs or tasks
where the format gives only these. Empty files are not written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from toolhone.data.freezing import Frozen, freeze_tasks
from toolhone.data.import_rows import KINDS, ImportRows
from toolhone.data.redact import Redactor
from toolhone.errors import DataError, RunError
from toolhone.runs.progress import Progress
from toolhone.schema import ENCODE, Json, Tool
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream, read_lines, write_lines
from toolhone.sources.formats import BAD_LINE, detect_format, find_source, read_source

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
    loaded: ImportRows
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
            "conversations": len(loaded["conversations"]),
            "preferences": len(loaded["preferences"]),
            "only_tasks": loaded.only_tasks,
            "merged": loaded.merged,
            "tasks": len(loaded["tasks"]),
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
    suffix = next((suffix for suffix in reversed(SUFFIXES) if out.name.endswith(suffix)), None)
    if suffix is None or out.name == suffix:
        wrong = f"{out}: wanted the name of a file that ends in {' or '.join(SUFFIXES)}"
        raise RunError(f"{wrong}, for example train.jsonl")
    stem, places = out.name.removesuffix(suffix), {"conversations": out}
    for kind in ("tasks", "pairs", "refused"):
        places[kind] = out.with_name(f"{stem}.{kind}{suffix}")
    if options.tasks is not None:
        places["frozen"] = options.tasks
    for place in places.values():
        if place.exists() and path.exists() and place.samefile(path):
            raise RunError(f"{place}: this is the file to import; wanted another name to write to")
        if place.exists() and not overwrite:
            raise RunError(
                f"{place} exists already; name another file, or allow overwriting with --overwrite"
            )
    stream = RecordStream(path)
    name = detect_format(stream, with_pairs=True) if format == "auto" else format
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        rows = ImportRows(Path(folder), find_source(name).joins)
        try:
            _read(stream, name, rows, progress or Progress(), options.tools)
            return _write(name, rows, places, options)
        finally:
            rows.close()


def _write(
    name: str, rows: ImportRows, places: Mapping[str, Path], options: ImportOptions
) -> ImportResult:
    """Write the files of an import."""
    frozen = _freeze(rows, options)
    redactor, found = Redactor(), Redactor()
    main = "preferences" if len(rows["preferences"]) else "conversations"
    written: dict[str, Iterable[bytes]] = {}
    for kind in (main, "tasks", "pairs", "frozen", "refused"):
        if kind == "tasks" and len(rows["tasks"]) + len(rows["repaired"]):
            written[kind] = _distinct(rows)
        elif kind == "frozen" and frozen is not None:
            written[kind] = (_line(ENCODE(task.to_dict())) for task in frozen.tasks)
        elif kind in KINDS and len(rows[kind]):
            written[kind] = (line for _, line in rows[kind].lines())
    where = {**places, "preferences": places["conversations"]}
    if main not in written:
        where["tasks"] = places["conversations"]
    change = partial(_redacted, redactor) if options.redact else None
    files = {}
    for kind, lines in written.items():
        count = write_lines(where[kind], map(change, lines) if change else lines)
        files[kind] = WrittenFile(where[kind], count)
    for place in {*places.values()} - {file.path for file in files.values()}:
        place.unlink(missing_ok=True)
    if not options.redact and find_source(name).joins:
        for _, line in rows["conversations"].lines():
            if found.suspects(text := line.decode()):
                found.value(json.loads(text)["messages"])
    left_out = 0 if frozen is None else frozen.left_out
    return ImportResult(name, rows, files, redactor.counts, found.counts, left_out)


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _redacted(redactor: Redactor, line: bytes) -> bytes:
    text = line.decode()
    return _line(ENCODE(redactor.value(json.loads(text)))) if redactor.suspects(text) else line


def _distinct(rows: ImportRows) -> Iterator[bytes]:
    """Yield the tasks, then those of repaired calls; ids that occurred before get a number."""

    def named() -> Iterator[tuple[bytes, bytes]]:
        for _, line in chain(rows["tasks"].lines(), rows["repaired"].lines()):
            yield line[_ID_STARTS : line.index(b', "', _ID_STARTS)], line

    hashes = np.sort(np.fromiter((hash(name) for name, _ in named()), np.int64))
    several = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen = Counter[bytes]()
    for name, line in named():
        if hash(name) in several:
            seen[name] += 1
            if seen[name] > 1:
                end = line[_ID_STARTS + len(name) :]
                line = b'{"id": %b~%d"%b' % (name[:-1], seen[name], end)
        yield line


_ID_STARTS = len(b'{"id": ')


def _freeze(rows: ImportRows, options: ImportOptions) -> Frozen | None:
    """Take the frozen conversations out of what was read; None where none are to be frozen."""
    if bool(options.freeze) != (options.tasks is not None):
        raise DataError("--freeze N and --tasks FILE go together: how many cases, and where to")
    if options.tasks is None:
        return None
    if not len(rows["conversations"]):
        raise DataError("--freeze needs conversations, and the file gives none")
    numbers, every = zip(*rows.conversations(), strict=True)
    frozen = freeze_tasks(every, options.freeze)
    kept = {id(row) for row in frozen.train}
    rows.leave_out({n for n, row in zip(numbers, every, strict=True) if id(row) not in kept})
    rows.merged += len(every) - len(frozen.train)
    return frozen


def _read(
    stream: RecordStream,
    name: str,
    rows: ImportRows,
    progress: Progress,
    tools: Sequence[Tool] | None,
) -> None:
    """Read all rows; a file of bad lines alone is a `DataError`."""
    path = stream.path
    shown = path.is_file() and path.stat().st_size >= LONG
    if shown:
        with open(path, "rb") as file:
            if file.peek(1)[:1] == b"{":  # JSON Lines
                blocks = iter(lambda: file.read(1 << 20), b"")
                count = sum(block.count(b"\n") for block in blocks)
            else:
                count = sum(1 for _ in read_lines(path))
        progress.start(f"reading {path.name}", count)

    def on_row(_line: FileLine, _row: Record | BadLine) -> None:
        progress.advance()

    read_source(stream, name, rows, on_row=on_row if shown else None, tools=tools)
    if path.is_file() and rows.skipped[BAD_LINE] == rows.read:
        raise DataError(f"{path}: {rows.summary(examples=True)}")
