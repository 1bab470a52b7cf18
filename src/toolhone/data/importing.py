"""A published file turned into files of our own form: conversations, tasks, and the rows that could not be used.

    imported = import_file("glaive.json", "glaive.jsonl")       # the format is told from the rows
    print(imported.loaded.summary(), imported.files)            # conversations, tasks, refused: path and number of rows

`OUT` gets the conversations, `<stem>.tasks.jsonl` beside it the tasks, `<stem>.refused.jsonl` every row that was not used, with its
place, the reason and the row as it stands. Where a format gives tasks only, `OUT` gets these; of preference pairs it gets those.
Lines that are no JSON objects are refused like other rows, as long as most lines are some. A file that would hold no row is not
written. Nothing is overwritten unless that is allowed; then a file of an earlier import that has no successor goes, too. The folder
is not searched for answers or catalogues beyond what the format itself needs (see its module).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.data.any_tasks import distinct
from toolhone.errors import DataError, RunError
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.schema import Json
from toolhone.sources import SOURCES, format_of, open_source
from toolhone.sources import pair_files as pairs
from toolhone.sources.bad_lines import BadLine, passing_over
from toolhone.sources.base import Loaded, ReadStats, Refused, Skip
from toolhone.sources.csv_rows import is_table, read_rows
from toolhone.sources.files import FileLine, watching, write_jsonl
from toolhone.sources.folders import joined
from toolhone.sources.sharegpt import NAME as SHAREGPT

SUFFIXES = (".jsonl", ".jsonl.gz")
LONG = 4_000_000
"""Bytes from which on a file gets a progress bar; counting its rows beforehand costs a small part of reading them."""
BROKEN = "a line that is no JSON object"
"""Why a broken line is refused; a row of a table is one if its fields are too many or too few."""


@dataclass(frozen=True)
class WrittenFile:
    """A file and the number of its rows."""

    path: Path
    rows: int


@dataclass(frozen=True)
class ImportResult:
    """The format, what was read, and the written files by what they hold: `conversations`, `preferences`, `tasks`, `refused`."""

    format: str
    loaded: Loaded
    files: Mapping[str, WrittenFile]

    def to_dict(self) -> dict[str, Json]:
        loaded = self.loaded
        return {
            "format": self.format,
            "read": loaded.read,
            "kept": loaded.kept,
            "conversations": len(loaded.conversations),
            "preferences": len(loaded.preferences),
            "only_tasks": loaded.only_tasks,
            "tasks": len(loaded.tasks),
            "repaired": dict(loaded.repaired.most_common()),
            "unchecked": dict(loaded.noted.most_common()),
            "refused": dict(loaded.skipped.most_common()),
            "files": {
                kind: {"path": str(file.path), "rows": file.rows}
                for kind, file in self.files.items()
            },
        }


def import_file(
    path: str | Path,
    out: str | Path,
    format: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Read a file (or a folder) of a published format and write what it gives."""
    path, out = Path(path), Path(out)
    places = _places(out)
    _refuse_overwriting(path, places.values(), overwrite)
    name, loaded, broken = _read(path, format, progress or SilentProgress())
    rows: dict[Path, Iterable[Mapping[str, Json]]] = {}
    tasks = [task.to_dict() for task in distinct(loaded.tasks)]
    main = "preferences" if loaded.preferences else "conversations"
    has_main = bool(loaded.preferences or loaded.conversations)
    kinds = {main: out, "tasks": places["tasks"] if has_main else out, "refused": places["refused"]}
    if has_main:
        rows[out] = (row.to_dict() for row in loaded.preferences or loaded.conversations)
    if tasks:
        rows[kinds["tasks"]] = tasks
    if loaded.refused:
        rows[kinds["refused"]] = refused_rows(loaded.refused, broken)
    counts = {place: write_jsonl(place, each) for place, each in rows.items()}
    for place in places.values():
        if place not in counts:
            place.unlink(missing_ok=True)
    written = {
        kind: WrittenFile(place, counts[place]) for kind, place in kinds.items() if place in counts
    }
    if not has_main:
        written.pop(main, None)
    return ImportResult(name, loaded, written)


def _places(out: Path) -> dict[str, Path]:
    """Where conversations, tasks and refused rows go."""
    suffix = next((suffix for suffix in reversed(SUFFIXES) if out.name.endswith(suffix)), None)
    if suffix is None or out.name == suffix:
        raise RunError(
            f"{out}: wanted the name of a file that ends in {' or '.join(SUFFIXES)}, for example train.jsonl"
        )
    stem = out.name.removesuffix(suffix)
    return {
        "conversations": out,
        **{kind: out.with_name(f"{stem}.{kind}{suffix}") for kind in ("tasks", "refused")},
    }


def _refuse_overwriting(path: Path, places: Iterable[Path], overwrite: bool) -> None:
    for place in places:
        if place.exists() and path.exists() and place.samefile(path):
            raise RunError(f"{place}: this is the file to import; wanted another name to write to")
        if place.exists() and not overwrite:
            raise RunError(
                f"{place} exists already; name another file, or allow overwriting with --overwrite"
            )


def _read(
    path: Path, format: str, progress: Progress
) -> tuple[str, Loaded, Mapping[FileLine, BadLine]]:
    """The format, all rows, and the broken lines: in a folder, and in a file that consists of rows for the most part."""
    try:
        if not path.is_dir():
            return *_rows(path, format, progress), {}
    except DataError:
        if not _mostly_rows(path):
            raise
    with passing_over(path) as broken:
        name, loaded = _rows(path, format, progress)
    unused = {each.line.path for each in loaded.refused if each.line.unit == "file"}
    broken = {line: found for line, found in broken.items() if line.path not in unused}
    return name, _with_broken(loaded, broken), broken


def _mostly_rows(path: Path) -> bool:
    """Whether some lines of a file are broken, and no more than half of them."""
    with passing_over(path) as broken:
        try:
            sound = sum(1 for _ in read_rows(path))
        except DataError:
            return False
    return 0 < len(broken) <= sound


def _with_broken(loaded: Loaded, broken: Mapping[FileLine, BadLine]) -> Loaded:
    """What was read, with the broken lines among the refused ones."""
    tally = ReadStats()
    for line, found in broken.items():
        tally.skip(line, Skip(BROKEN, found.why))
    both = joined([loaded, tally.loaded()])
    return replace(
        both, refused=sorted(both.refused, key=lambda each: (str(each.line.path), each.line.number))
    )


def _rows(path: Path, format: str, progress: Progress) -> tuple[str, Loaded]:
    """The format and all rows; one that is no conversation is counted, not a reason to stop."""
    name = _told(path) if format == "auto" else format
    return name, pairs.read(path) if name == pairs.NAME else _opened(path, name, progress)


def _told(path: Path) -> str:
    """The format as its rows tell it; preference pairs are one besides those that `open_source` reads."""
    try:
        name = format_of(path)
    except DataError:
        if not path.is_file() or is_table(path) or not pairs.holds_pairs(path):
            raise
        return pairs.NAME
    return pairs.NAME if name == SHAREGPT and pairs.holds_pairs(path) else name


def _opened(path: Path, name: str, progress: Progress) -> Loaded:
    skip_bad = True if name in SOURCES and "skip_bad" in SOURCES[name].USES else None
    if not path.is_file() or path.stat().st_size < LONG:
        return open_source(path, name, skip_bad=skip_bad)
    with suppress(DataError):  # a file whose lines are no rows has no number of rows to show
        progress.start(f"reading {path.name}", sum(1 for _ in read_rows(path)))
    with watching(progress.advance):
        return open_source(path, name, skip_bad=skip_bad)


def refused_rows(
    refused: Sequence[Refused], broken: Mapping[FileLine, BadLine]
) -> Iterator[dict[str, Json]]:
    """Place, reason, detail and the row itself, for each row that was not used; of a broken line its text."""
    by_file: dict[Path, list[Refused]] = {}
    for each in refused:
        by_file.setdefault(each.line.path, []).append(each)
    for path, rows in by_file.items():
        found = _raw(path, [each.line for each in rows if each.line not in broken])
        found |= {line: each.text for line, each in broken.items() if line.path == path}
        for each in rows:
            yield {
                "place": str(each.line),
                "reason": each.reason,
                "detail": each.detail,
                "row": found.get(each.line),
            }


def _raw(path: Path, lines: Sequence[FileLine]) -> dict[FileLine, Json]:
    """The rows at these places as they stand in the file; where a file is no sequence of rows, its whole content."""
    wanted = set(lines)
    try:
        with passing_over(path):
            found: dict[FileLine, Json] = (
                {line: record for line, record in read_rows(path) if line in wanted}
                if wanted
                else {}
            )
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
