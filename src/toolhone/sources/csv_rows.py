"""Rows of a CSV file as records, so that a source can read a table as it reads JSON Lines.

    for line, record in read_rows("train.csv"): ...      # other names are read as JSON Lines or as a JSON list

The first line names the columns; a column without a name (the index that a data frame leaves) is called "". Every value is text. A
line with more or fewer fields than the first one stops with a sentence, as broken JSON does (or is passed over, as that is); fields
may be of any length. What the texts mean is up to the source.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

from toolhone.errors import DataError
from toolhone.sources.bad_lines import pass_over
from toolhone.sources.files import FileLine, Record, read_records, row_read


def is_table(path: Path) -> bool:
    """Whether the name says CSV."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def read_rows(path: Path) -> Generator[tuple[FileLine, Record], None, None]:
    """Yield (place, record) of a CSV file by its name, of any other file as `read_records` does."""
    if not is_table(path):
        yield from read_records(path)
        return
    header, *rows = _fields(path)
    for number, fields in enumerate(rows, start=1):
        line = FileLine(path, number, "row")
        if len(fields) != len(header):
            error = DataError(
                f"{line}: {len(fields)} fields, but the first line names {len(header)} columns"
            )
            pass_over(line, error, ",".join(fields))
            continue
        yield line, dict(zip(header, fields, strict=True))
        row_read()


def _fields(path: Path) -> list[list[str]]:
    """All lines of the table, the names of the columns first; at least one row follows them."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        rows = [row for row in csv.reader(_lines(path), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{path}: not CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)
    if len(rows) < 2:
        raise DataError(f"{path}: the table has no row below the names of its columns")
    return rows


def _lines(path: Path) -> Iterator[str]:
    """The text of the file line by line, ends of lines kept: a field may hold some."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged or cut off: {error}") from None
    try:
        return io.StringIO(raw.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        ) from None
