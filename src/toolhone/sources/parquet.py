"""Rows of a Parquet file as JSON objects; the hub publishes most data sets so. Needs `pyarrow` (the extra `parquet`).

    for row in read_parquet(Path("train.parquet")): ...      # `files.read_records` calls it for a file that begins with PAR1

Read in batches, column types as JSON has them: structs are objects, NaN is null (a data frame's empty cell), times and decimals are
texts. A column of bytes (images, say) stops with a sentence that names it. Nothing is written here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolhone.errors import DataError
from toolhone.schema import Json

MAGIC = b"PAR1"
BATCH = 1000


def read_parquet(path: Path) -> Iterator[dict[str, Json]]:
    """Yield the rows of a Parquet file, columns by name."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: this is a Parquet file; to read it: pip install 'toolhone[parquet]'"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(BATCH):
            for row in batch.to_pylist():
                yield {name: _json(path, name, value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: this is a Parquet file that cannot be read: {str(error).splitlines()[0]}"
        ) from None


def _json(path: Path, column: str, value: Any) -> Json:
    if isinstance(value, dict):
        return {str(key): _json(path, column, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(path, column, inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        raise DataError(
            f"{path}: the column {column!r} holds bytes, which no format here has; write the file without it"
        )
    return str(value)
