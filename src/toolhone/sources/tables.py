"""The rows of CSV and Parquet files.

    for record, why, text in csv_rows(path, text): ...    # a bad row has no record, but a reason

Columns must have different names. A row of CSV is text alone; of Parquet, NaN (an empty cell) is
null, and a time is text.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from toolhone.errors import DataError
from toolhone.schema import Json

TableRow = tuple[dict[str, Json] | None, str, str]
"""A record; or None, what is wrong with the row, and its text."""


def csv_rows(path: Path, text: str) -> Iterator[TableRow]:
    """Yield the rows of CSV text; fields may be of any length."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{path}: not CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)
    if len(rows) < 2:
        raise DataError(f"{path}: the table has no row below the names of its columns")
    header = rows[0]
    _check_columns(path, header)
    for fields in rows[1:]:
        if len(fields) == len(header):
            yield dict(zip(header, fields, strict=True)), "", ""
        else:
            why = f"{len(fields)} fields, but the first line names {len(header)} columns"
            yield None, why, ",".join(fields)


def parquet_rows(path: Path, stream: BinaryIO) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file; it needs `pyarrow`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        install = "to read it: python -m pip install 'pyarrow>=17'"
        raise DataError(f"{path}: this is a Parquet file; {install}") from None
    try:
        table = pyarrow.parquet.ParquetFile(stream)
        _check_columns(path, table.schema_arrow.names)
        for batch in table.iter_batches(1000):
            for row in batch.to_pylist():
                try:
                    yield {name: _plain_json(value) for name, value in row.items()}, "", ""
                except ValueError as error:
                    yield None, str(error), str(row)
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{path}: this is a Parquet file that cannot be read: {why}") from None


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: two columns are named {twice!r}; each name may occur once")


def _plain_json(value: Any) -> Json:
    """Return a Parquet value as JSON; an infinite number is a `ValueError`.

    Bytes are text in UTF-8, or an object with their number, which no text is.
    """
    if isinstance(value, dict):
        return {str(key): _plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(inner) for inner in value]
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"{value} is no JSON; wanted a finite number or null")
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"bytes": len(value)}
    return value if value is None or isinstance(value, str | int) else str(value)
