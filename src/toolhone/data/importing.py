"""A published file turned into files of our own form: conversations, tasks, and the rows that could not be used.

    imported = import_file("glaive.json", "glaive.jsonl")       # the format is told from the rows
    print(imported.loaded.summary(), imported.files)            # conversations, tasks, refused: path and number of rows

`OUT` gets the conversations, `<stem>.tasks.jsonl` beside it the tasks, `<stem>.refused.jsonl` every row that was not used, with its
place, the reason and the row as it stands. Where a format gives tasks only, `OUT` gets these. A file that would hold no row is not
written. Nothing is overwritten unless that is allowed; then a file of an earlier import that has no successor goes, too. The folder
is not searched for answers or catalogues beyond what the format itself needs (see its module).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toolhone.data.any_tasks import distinct
from toolhone.data.files import Line, watching, write_jsonl
from toolhone.data.sources import SOURCES, format_of, open_source
from toolhone.data.sources.base import Loaded, Refused
from toolhone.data.sources.tables import read_rows
from toolhone.errors import DataError, RunError
from toolhone.progress import Progress, Silent
from toolhone.schema import Json

SUFFIXES = (".jsonl", ".jsonl.gz")
LONG = 4_000_000
"""Bytes from which on a file gets a progress bar; counting its rows beforehand costs a small part of reading them."""


@dataclass(frozen=True)
class Written:
    """A file and the number of its rows."""

    path: Path
    rows: int


@dataclass(frozen=True)
class Imported:
    """The format, what was read, and the written files by what they hold: `conversations`, `tasks`, `refused`."""

    format: str
    loaded: Loaded
    files: Mapping[str, Written]

    def to_dict(self) -> dict[str, Json]:
        loaded = self.loaded
        return {
            "format": self.format,
            "read": loaded.read,
            "kept": loaded.kept,
            "conversations": len(loaded.conversations),
            "only_tasks": loaded.only_tasks,
            "tasks": len(loaded.tasks),
            "repaired": dict(loaded.repaired.most_common()),
            "unchecked": dict(loaded.noted.most_common()),
            "refused": dict(loaded.skipped.most_common()),
            "files": {kind: {"path": str(file.path), "rows": file.rows} for kind, file in self.files.items()},
        }


def import_file(
    path: str | Path, out: str | Path, format: str = "auto", overwrite: bool = False, progress: Progress | None = None
) -> Imported:
    """Read a file (or a folder) of a published format and write what it gives."""
    path, out = Path(path), Path(out)
    places = _places(out)
    _refuse_overwriting(path, places.values(), overwrite)
    name = format_of(path) if format == "auto" else format
    loaded = _read(path, name, progress or Silent())
    rows: dict[Path, Iterable[Mapping[str, Json]]] = {}
    tasks = [task.to_dict() for task in distinct(loaded.tasks)]
    kinds = {"conversations": out, "tasks": places["tasks"] if loaded.conversations else out, "refused": places["refused"]}
    if loaded.conversations:
        rows[kinds["conversations"]] = (talk.to_dict() for talk in loaded.conversations)
    if tasks:
        rows[kinds["tasks"]] = tasks
    if loaded.refused:
        rows[kinds["refused"]] = refused_rows(loaded.refused)
    counts = {place: write_jsonl(place, each) for place, each in rows.items()}
    for place in places.values():
        if place not in counts:
            place.unlink(missing_ok=True)
    written = {kind: Written(place, counts[place]) for kind, place in kinds.items() if place in counts}
    if not loaded.conversations:
        written.pop("conversations", None)
    return Imported(name, loaded, written)


def _places(out: Path) -> dict[str, Path]:
    """Where conversations, tasks and refused rows go."""
    suffix = next((suffix for suffix in reversed(SUFFIXES) if out.name.endswith(suffix)), None)
    if suffix is None or out.name == suffix:
        raise RunError(f"{out}: wanted the name of a file that ends in {' or '.join(SUFFIXES)}, for example train.jsonl")
    stem = out.name.removesuffix(suffix)
    return {"conversations": out, **{kind: out.with_name(f"{stem}.{kind}{suffix}") for kind in ("tasks", "refused")}}


def _refuse_overwriting(path: Path, places: Iterable[Path], overwrite: bool) -> None:
    for place in places:
        if place.exists() and path.exists() and place.samefile(path):
            raise RunError(f"{place}: this is the file to import; wanted another name to write to")
        if place.exists() and not overwrite:
            raise RunError(f"{place} exists already; name another file, or allow overwriting with --overwrite")


def _read(path: Path, name: str, progress: Progress) -> Loaded:
    """All rows; one that is no conversation is counted, not a reason to stop."""
    skip_bad = True if name in SOURCES and "skip_bad" in SOURCES[name].USES else None
    if not path.is_file() or path.stat().st_size < LONG:
        return open_source(path, name, skip_bad=skip_bad)
    with suppress(DataError):  # a file whose lines are no rows has no number of rows to show
        progress.start(f"reading {path.name}", sum(1 for _ in read_rows(path)))
    with watching(progress.advance):
        return open_source(path, name, skip_bad=skip_bad)


def refused_rows(refused: Sequence[Refused]) -> Iterator[dict[str, Json]]:
    """Place, reason, detail and the row itself, for each row that was not used."""
    by_file: dict[Path, list[Refused]] = {}
    for each in refused:
        by_file.setdefault(each.line.path, []).append(each)
    for path, rows in by_file.items():
        found = _raw(path, [each.line for each in rows])
        for each in rows:
            yield {"place": str(each.line), "reason": each.reason, "detail": each.detail, "row": found.get(each.line)}


def _raw(path: Path, lines: Sequence[Line]) -> dict[Line, Json]:
    """The rows at these places as they stand in the file; where a file is no sequence of rows, its whole content."""
    wanted = set(lines)
    try:
        found: dict[Line, Json] = {line: record for line, record in read_rows(path) if line in wanted}
    except DataError:
        found = {}
    left = wanted - found.keys()
    return {**found, **dict.fromkeys(left, _whole(path))} if left else found


def _whole(path: Path) -> Json:
    """The content of a file: as JSON where it is that, else as text; null where it is neither."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
