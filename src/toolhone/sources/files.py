"""Records on disk: JSON Lines, one JSON list or object, CSV and Parquet in; JSON Lines out.

    for line, record in read_records("a.jsonl.gz"): ...   # a `DataError` names the first bad line
    for line, record in RecordStream("a.jsonl.gz"): ...   # a bad line is a `BadLine` in the stream
    write_jsonl("out.jsonl", (conversation.to_dict() for conversation in conversations))

Reading is strict: no NaN, no key twice in an object, no half characters, UTF-8 only. Writing is
all or nothing.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar, cast

from toolhone.errors import DataError, RunError, nearest
from toolhone.schema import ENCODE, Json
from toolhone.schema.json_input import entry_texts, parse_json
from toolhone.sources.tables import TableRow, csv_rows, parquet_rows

Record = dict[str, Json]
T = TypeVar("T")

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zX": "xz data",
    b"\x28\xb5\x2f\xfd": "zstandard data",
    b"ARRO": "an Arrow file",
    b"SQLi": "an SQLite database",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
_KINDS = {list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_FIRST_RECORDS = 10


@dataclass(frozen=True)
class FileLine:
    """The place of a record, from 1: a line, an entry of a JSON list, or a row of a table."""

    path: Path
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"


@dataclass(frozen=True)
class BadLine:
    """A line, entry or row of a table that is no record: its place, what is wrong, its text."""

    line: FileLine
    why: str
    text: str

    @property
    def error(self) -> DataError:
        return DataError(f"{self.line}: {self.why}")


class RecordStream:
    """The rows of a file, or of all files of a folder; each file is opened once and read once.

    stream.first            # looks ahead to tell the format; iterating begins with the same rows
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @cached_property
    def files(self) -> list[RecordStream]:
        """The streams of the files of a folder."""
        return [RecordStream(file) for file in data_files(self.path)]

    @cached_property
    def first(self) -> list[tuple[FileLine, Record | BadLine]]:
        """The rows of a file up to its tenth record."""
        self._rest, rows, records = read_lines(self.path), list[Any](), 0
        while records < _FIRST_RECORDS and (row := next(self._rest, None)) is not None:
            rows.append(row)
            records += not isinstance(row[1], BadLine)
        return rows

    def read_ahead(self) -> list[tuple[FileLine, Record | BadLine]]:
        """All rows of a file; iterating gives them as well."""
        first, rest = self.first, list(self._rest)
        self._rest = (row for row in rest)
        return [*first, *rest]

    def __iter__(self) -> Iterator[tuple[FileLine, Record | BadLine]]:
        if not self.path.is_dir():
            return chain(self.first, self._rest)
        if not self.files:
            raise DataError(f"{self.path}: the folder holds no file named *{', *'.join(_SUFFIXES)}")
        return chain.from_iterable(self.files)

    def close(self) -> None:
        """Close the file; the rows after `first` are lost."""
        if "first" in vars(self):
            self._rest.close()


def open_records(source: str | Path | RecordStream) -> RecordStream:
    """Return the stream of a path; a stream is returned as it is."""
    return source if isinstance(source, RecordStream) else RecordStream(source)


def read_lines(path: str | Path) -> Generator[tuple[FileLine, Record | BadLine]]:
    """Yield place and record, or place and `BadLine`, for each line, list entry or table row.

    A file that cannot be read, or that holds nothing at all, is a `DataError`.
    """
    path, row = Path(path), None
    with _open(path) as stream:
        for row in _values(path, stream):
            yield row
    if row is None:
        raise DataError(f"{path}: the file is empty; wanted one JSON object per line")


def read_records(source: str | Path | RecordStream) -> Iterator[tuple[FileLine, Record]]:
    """Yield place and record; the first bad line is a `DataError`."""
    for line, value in source if isinstance(source, RecordStream) else read_lines(source):
        if isinstance(value, BadLine):
            raise value.error
        yield line, value


def read_json(path: Path) -> Json:
    """Return the one JSON value of a file, read strictly."""
    try:
        return parse_json(_text_of(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def read_whole(path: Path) -> Json:
    """Return the content of a file: JSON, else text, else null where it is neither."""
    try:
        text = _text_of(path)
        return json.loads(text)
    except DataError:
        return None
    except (ValueError, RecursionError):
        return text


def _text_of(path: Path) -> str:
    with _open(path) as stream:
        return _decode(FileLine(path, 1), _guard(FileLine(path, 1), stream.read))


def is_table(path: Path) -> bool:
    """Return whether the name says CSV."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def data_files(folder: Path) -> list[Path]:
    """Return the files below a folder whose names say that they hold records; no hidden ones."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.name.lower().removesuffix(".gz").endswith(_SUFFIXES)
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file as bytes: gzip data unpacked, a UTF-8 byte order mark skipped."""
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; wanted a file with one JSON object per line")
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(open(path, "rb"))
        except FileNotFoundError:
            hint = f"; the folder {str(path.parent)!r} does not exist"
            if path.parent.is_dir():
                hint = nearest(path.name, os.listdir(path.parent))
            raise DataError(f"{path}: no such file{hint}") from None
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
        if stream.peek(2)[:2] == _GZIP:
            packed = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = cast(Any, stack.enter_context(io.BufferedReader(cast(Any, packed))))
        start = _guard(FileLine(path, 1), lambda: stream.peek(4)[:4])
        if kind := next((kind for mark, kind in _FOREIGN.items() if start.startswith(mark)), None):
            right = "wanted UTF-8 text with one JSON object per line"
            raise DataError(f"{path}: this is {kind}; {right}")
        if start.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        yield stream


def _guard(line: FileLine, read: Callable[[], T]) -> T:
    try:
        return read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{line}: the gzip data is damaged or cut off: {error}") from None
    except OSError as error:
        raise DataError(f"{line}: the file cannot be read: {error.strerror or error}") from None


def _values(path: Path, stream: io.BufferedReader) -> Iterator[tuple[FileLine, Record | BadLine]]:
    """Yield the values of a file by what it is: Parquet, CSV, a list, one object, or lines."""
    begin, top = stream.peek(64), FileLine(path, 1)
    start = begin.lstrip()
    if begin[:4] == _PARQUET:
        yield from _rows_of(path, parquet_rows(path, stream))
    elif is_table(path):
        text = _decode(top, _guard(top, stream.read))
        yield from _rows_of(path, csv_rows(path, text))
    elif start[:1] == b"[":
        yield from _entries(path, _decode(top, _guard(top, stream.read)))
    else:
        first = _guard(top, stream.readline)
        objects = list[tuple[FileLine, bytes]]()
        if _is_cut_off(first):
            first += _guard(top, stream.read)
            objects = _objects(path, first)
        for line, raw in objects:
            yield line, _object(line, raw)
        if objects:
            return
        lines = chain(io.BytesIO(first), stream)
        for number in count(1):
            line = FileLine(path, number)
            if not (raw := _guard(line, lambda: next(lines, b""))):
                return
            if raw.strip():
                yield line, _object(line, raw)


def _is_cut_off(line: bytes) -> bool:
    """Whether a line begins an object that goes on after it."""
    text = line.decode("utf-8", "replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return text.lstrip()[:1] == "{" and error.pos >= len(text)
    except (ValueError, RecursionError):
        pass
    return False


def _objects(path: Path, raw: bytes) -> list[tuple[FileLine, bytes]]:
    """The objects of a file that are written over several lines each, with the lines on
    which they begin; none where it holds something else."""
    text, end, number, found = raw.decode("utf-8", "surrogateescape"), 0, 1, []
    while start := re.compile(r"[^ \t\r\n]").search(text, end):
        number += text.count("\n", end, start.start())
        try:
            _, end = json.JSONDecoder().raw_decode(text, start.start())
        except (ValueError, RecursionError):
            return []
        one = text[start.start() : end].encode("utf-8", "surrogateescape")
        found.append((FileLine(path, number), one))
        number += one.count(b"\n")
    return found


def _entries(path: Path, text: str) -> Iterator[tuple[FileLine, Record | BadLine]]:
    """Yield the entries of a JSON list; each is judged by itself, unless the list is broken."""
    try:
        rows = [(entry, "") for entry in _parse(FileLine(path, 1), text)]
    except DataError:
        if not (texts := entry_texts(text)):
            raise
        rows = [(None, entry) for entry in texts]
    for number, (entry, raw) in enumerate(rows, start=1):
        line = FileLine(path, number, "entry")
        try:
            value = parse_json(raw) if raw else entry
            yield line, value if isinstance(value, dict) else _no_object(line, value)
        except ValueError as error:
            yield line, BadLine(line, str(error), raw)


def _object(line: FileLine, raw: bytes) -> Record | BadLine:
    """The object that this text is, which begins on this line."""
    try:
        value = _parse(line, _decode(line, raw).strip())
        return value if isinstance(value, dict) else _no_object(line, value)
    except DataError as error:
        why = str(error).removeprefix(f"{line}: ").removeprefix(f"{line.path}, ")
        return BadLine(line, why, raw.decode("utf-8", "replace").strip())


def _no_object(line: FileLine, value: Json) -> BadLine:
    text = f"{_KINDS.get(type(value), 'a number')}: {json.dumps(value)[:60]}"
    return BadLine(line, f"a row must be a JSON object, got {text}", json.dumps(value))


def _rows_of(path: Path, rows: Iterator[TableRow]) -> Iterator[tuple[FileLine, Record | BadLine]]:
    for number, (record, why, text) in enumerate(rows, start=1):
        line = FileLine(path, number, "row")
        yield line, BadLine(line, why, text) if record is None else record


def _decode(line: FileLine, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = FileLine(line.path, line.number + raw.count(b"\n", 0, error.start))
        byte, position = raw[error.start], error.start - raw.rfind(b"\n", 0, error.start)
        what = f"not UTF-8: byte 0x{byte:02x} at position {position}"
        raise DataError(f"{at}: {what}; save the file as UTF-8") from None


def _parse(line: FileLine, text: str) -> Json:
    """Return the JSON value of `text`, read strictly; an error names the line within the text."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        at = FileLine(line.path, line.number + error.lineno - 1)
        ends = error.pos >= len(text) and text[:1] == "{"
        hint = "; an object must be on one line" if ends else ""
        around = text[max(0, min(error.pos, len(text)) - 30) : error.pos + 30]
        why = f"not JSON: {error.msg} at column {error.colno}{hint}: {around!r}"
        raise DataError(f"{at}: {why}") from None
    except ValueError as error:
        raise DataError(f"{line}: {error}") from None


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Json]]) -> int:
    """Write one JSON object per line, packed if the name ends in `.gz`; return their number.

    `path` holds either what it held before or all rows; the same rows give the same bytes. A device
    or a pipe is written in place. A value that JSON cannot write is a `DataError`, a full disk is a
    `RunError`.
    """
    return write_lines(path, (_json_line(path, *numbered) for numbered in enumerate(rows, start=1)))


def write_lines(path: str | Path, lines: Iterable[bytes]) -> int:
    """Write lines, each with its line feed, as `write_jsonl` does; return their number."""
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: this is a folder; wanted the name of a file to write")
    in_place = path.exists() and not path.is_file()
    target = path if in_place else path.resolve()
    part = path if in_place else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as stream:
            out: Any = nullcontext(stream)
            if target.suffix == ".gz":
                out = gzip.GzipFile("", "wb", fileobj=stream, mtime=0)
            with out as packed:
                number = sum(1 for line in lines if packed.write(line))
            stream.flush()
            if not in_place:
                os.fsync(stream.fileno())
        if not in_place:
            os.replace(part, target)
        return number
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full; free some space and write again" if full else error.strerror
        raise RunError(f"{path}: the file was not written: {reason or error}") from None
    finally:
        if not in_place:
            with suppress(OSError):
                part.unlink()


def _json_line(path: str | Path, number: int, row: Mapping[str, Json]) -> bytes:
    try:
        return f"{ENCODE(dict(row))}\n".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: row {number} cannot be written as JSON: {error}") from None
