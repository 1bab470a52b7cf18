"""Rows on disk: JSON Lines (also gzip-compressed, also as one JSON list) or Parquet in, JSON Lines out.

    for number, record in read_jsonl("data.jsonl"): ...
    conversations = read_conversations("train.jsonl.gz")
    write_jsonl("out.jsonl", (conversation.to_dict() for conversation in conversations))

Reading streams line by line; only a file that is one JSON list is read whole. Every problem is a `DataError` of one sentence that
names the file and the line (in a list: the entry). JSON is taken strictly: no NaN, no key twice in an object, no half
characters, UTF-8 only; a byte order mark and blank lines are passed over. Writing is all or nothing: a temporary file beside the
target takes its place when it is complete. Who must not stop for a broken line reads within `passing.passing_over`.
What the rows mean is the business of `schema` and of the `sources`.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from toolhone.errors import DataError, RunError, nearest
from toolhone.schema import Conversation, Json, Message, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.sources import parquet
from toolhone.sources.bad_lines import pass_over, passed_over

Record = dict[str, Json]
T = TypeVar("T")

_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}


_watcher: ContextVar[Callable[[], None] | None] = ContextVar("watcher", default=None)


@dataclass(frozen=True)
class FileLine:
    """Where a record stands: line 17 of a file, or entry 17 of a file that is one JSON list. Both count from 1."""

    path: Path
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"


def read_jsonl(path: str | Path) -> Iterator[tuple[int, Record]]:
    """Yield (number, object) for each line, or for each entry of a JSON list; numbers count from 1."""
    for line, record in read_records(path):
        yield line.number, record


def read_conversations(path: str | Path) -> list[Conversation]:
    """Read a file in the conversation form of `schema`."""
    cache = ToolCache()
    return [conversation_at(line, record, cache) for line, record in read_records(path)]


def read_preferences(path: str | Path) -> list[Preference]:
    """Read a file of preference pairs in the form of `data.preferences`; other forms are read by `sources.pairs`."""
    cache = ToolCache()
    return [
        _at(line, cache.fill(line, record), Preference.from_dict)
        for line, record in read_records(path)
    ]


def read_tasks(path: str | Path) -> list[Task]:
    """Read a file in the task form of `schema`. Two tasks with one id are refused, since predictions are joined on it."""
    cache = ToolCache()
    tasks: list[Task] = []
    seen: dict[str, FileLine] = {}
    for line, record in read_records(path):
        task = _at(line, cache.fill(line, record), Task.from_dict)
        if task.id in seen:
            raise DataError(
                f"{line}: the id {task.id!r} occurs already in {seen[task.id].unit} {seen[task.id].number}; ids must differ"
            )
        seen[task.id] = line
        tasks.append(task)
    return tasks


def conversation_at(line: FileLine, record: Record, cache: ToolCache) -> Conversation:
    """The conversation of one record; a `DataError` names its place."""
    return _at(line, cache.fill(line, record), Conversation.from_dict)


class ToolCache:
    """Makes each distinct tool once: data sets repeat their tools in every row, and checking a schema costs a millisecond."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def fill(self, line: FileLine, record: Record) -> Record:
        """The record with its tool objects made into `Tool`s; other shapes of `tools` are left to `schema`."""
        tools = record.get("tools")
        if not isinstance(tools, list):
            return record
        return {**record, "tools": [_at(line, tool, self._tool) for tool in tools]}

    def _tool(self, source: Json) -> Json:
        if not isinstance(source, dict):
            return source
        key = json.dumps(source)
        if key not in self._tools:
            self._tools[key] = Tool.of(source)
        return self._tools[key]


def _at(line: FileLine, value: Json, make: Callable[[Json], T]) -> T:
    try:
        return make(value)
    except DataError as error:
        raise DataError(f"{line}: {_message_number(value)}{error}") from None


def _message_number(record: Json) -> str:
    """`messages[3]: ` for the first message that cannot be read, or nothing."""
    messages = record.get("messages") if isinstance(record, dict) else None
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        try:
            Message.from_dict(message)
        except DataError:
            return f"messages[{index}]: "
    return ""


def read_records(path: str | Path) -> Generator[tuple[FileLine, Record], None, None]:
    """Yield (place, object) for each line, for each entry of a JSON list or each row of a Parquet file. None at all is an error."""
    path = Path(path)
    empty = True
    with _open(path) as stream:
        for line, record in _rows(path, stream):
            empty = False
            yield line, record
            row_read()
    if empty:
        found = [
            f"{line}: {broken.why}" for line, broken in passed_over().items() if line.path == path
        ]
        raise DataError(
            found[0] if found else f"{path}: the file is empty; wanted one JSON object per line"
        )


@contextmanager
def watching(seen: Callable[[], None]) -> Iterator[None]:
    """Within the block, `seen` is called after each row that is read from a file: for a display of progress."""
    token = _watcher.set(seen)
    try:
        yield
    finally:
        _watcher.reset(token)


def row_read() -> None:
    """Tell who is watching that a row was read."""
    seen = _watcher.get()
    if seen is not None:
        seen()


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    """The file's bytes, unpacked where it is gzip-compressed whatever its name, placed after a byte order mark."""
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; wanted a file with one JSON object per line")
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(open(path, "rb"))
        except FileNotFoundError:
            raise DataError(_no_such_file(path)) from None
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
        if stream.peek(2)[:2] == _GZIP:
            packed = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = stack.enter_context(io.BufferedReader(cast(io.RawIOBase, packed)))  # type: ignore[assignment]
        _pass_marks(path, stream)
        yield stream


def _pass_marks(path: Path, stream: io.BufferedReader) -> None:
    """Refuse what is not text by its first bytes; step over a UTF-8 byte order mark."""
    start = _guarded(FileLine(path, 1), lambda: stream.peek(4)[:4])
    for mark, kind in _FOREIGN.items():
        if start.startswith(mark):
            raise DataError(
                f"{path}: this is {kind}; wanted UTF-8 text with one JSON object per line"
            )
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))


def _no_such_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path}: no such file; the folder {str(path.parent)!r} does not exist"
    return f"{path}: no such file{nearest(path.name, os.listdir(path.parent))}"


def _guarded(line: FileLine, read: Callable[[], T]) -> T:
    try:
        return read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{line}: the gzip data is damaged or cut off: {error}") from None
    except OSError as error:
        raise DataError(f"{line}: the file cannot be read: {error.strerror or error}") from None


def _rows(path: Path, stream: io.BufferedReader) -> Iterator[tuple[FileLine, Record]]:
    if stream.peek(4)[:4] == parquet.MAGIC:
        return (
            (FileLine(path, number, "row"), row)
            for number, row in enumerate(parquet.read_parquet(path), start=1)
        )
    return _entries(path, stream) if _starts_list(stream) else _lines(path, stream)


def _starts_list(stream: io.BufferedReader) -> bool:
    return stream.peek(64).lstrip()[:1] == b"["


def _lines(path: Path, stream: io.BufferedReader) -> Iterator[tuple[FileLine, Record]]:
    number = 0
    while True:
        line = FileLine(path, number := number + 1)
        raw = _guarded(line, stream.readline)
        if not raw:
            return
        try:
            text = _decode(line, raw).strip()
            record = _object(line, _parse(line, text)) if text else None
        except DataError as error:
            pass_over(line, error, raw.decode("utf-8", "replace").strip())
            continue
        if record is not None:
            yield line, record


def _entries(path: Path, stream: io.BufferedReader) -> Iterator[tuple[FileLine, Record]]:
    raw = _guarded(FileLine(path, 1), stream.read)
    entries = _parse_list(path, _decode(FileLine(path, 1), raw))
    for number, entry in enumerate(entries, start=1):
        line = FileLine(path, number, "entry")
        try:
            record = _object(line, entry)
        except DataError as error:
            pass_over(line, error, json.dumps(entry))
        else:
            yield line, record


def _parse_list(path: Path, text: str) -> list[Json]:
    value = _parse(FileLine(path, 1), text)
    assert isinstance(value, list), "the text began with a bracket"
    return value


def _decode(line: FileLine, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = FileLine(line.path, line.number + raw.count(b"\n", 0, error.start))
        position = error.start - raw.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{at}: not UTF-8: byte 0x{raw[error.start]:02x} at position {position}; save the file as UTF-8"
        ) from None


def _object(line: FileLine, value: Json) -> Record:
    if not isinstance(value, dict):
        raise DataError(
            f"{line}: a row must be a JSON object, got {_kind(value)}: {json.dumps(value)[:60]}"
        )
    return value


def _kind(value: Json) -> str:
    return {list: "a list", str: "a string", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )


def _parse(line: FileLine, text: str) -> Json:
    """The JSON value of `text`, strictly; an error names the line within the text."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        at = FileLine(line.path, line.number + error.lineno - 1)
        hint = (
            "; an object must stand on one line"
            if error.pos >= len(text) and text[:1] == "{"
            else ""
        )
        raise DataError(
            f"{at}: not JSON: {error.msg} at column {error.colno}{hint}: {_around(text, error.pos)!r}"
        ) from None
    except UnicodeEncodeError:
        raise DataError(f"{line}: not text: a \\u escape holds half of a surrogate pair") from None
    except RecursionError:
        raise DataError(f"{line}: not JSON: nested too deeply") from None
    except DataError as error:
        raise DataError(f"{line}: {error}") from None
    except ValueError as error:
        raise DataError(f"{line}: not JSON: {error}") from None
    return value


def _around(text: str, position: int) -> str:
    return text[max(0, min(position, len(text)) - 30) : position + 30]


def _unique(pairs: list[tuple[str, Json]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the key {twice!r} occurs twice in one object; each key may occur once")
    return record


def _refuse_constant(name: str) -> Json:
    raise DataError(f"{name} is not JSON; wanted a number or null")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Json]]) -> int:
    """Write one JSON object per line, gzip-compressed when the name ends in `.gz`; returns the number of rows.

    All or nothing: `path` holds either what it held before or all rows. The same rows give the same bytes. Missing
    folders are made.
    A value that JSON cannot write is a `DataError`; a full disk or a folder that cannot be written is a `RunError`.
    """
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: this is a folder; wanted the name of a file to write")
    in_place = path.exists() and not path.is_file()
    target = path if in_place else path.resolve()
    part = path if in_place else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        return _replace(target, part, rows)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (
            "the disk is full; free some space and write again"
            if full
            else error.strerror or str(error)
        )
        raise RunError(f"{path}: the file was not written: {reason}") from None
    finally:
        if not in_place:
            with suppress(OSError):
                part.unlink()


def _replace(target: Path, part: Path, rows: Iterable[Mapping[str, Json]]) -> int:
    """Write `part` and move it to `target`; a device or a pipe is its own part and is written in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as stream:
        count = _write(target, stream, rows)
        if part != target:
            os.fsync(stream.fileno())
    if part != target:
        os.replace(part, target)
    return count


def _write(path: Path, stream: BinaryIO, rows: Iterable[Mapping[str, Json]]) -> int:
    count = 0
    with ExitStack() as stack:
        out = stream
        if path.suffix == ".gz":
            out = cast(
                BinaryIO, stack.enter_context(gzip.GzipFile("", "wb", fileobj=stream, mtime=0))
            )
        for count, row in enumerate(rows, start=1):
            out.write(_encode(path, count, row))
    stream.flush()
    return count


def _encode(path: Path, number: int, row: Mapping[str, Json]) -> bytes:
    try:
        return (json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: row {number} cannot be written as JSON: {error}") from None
