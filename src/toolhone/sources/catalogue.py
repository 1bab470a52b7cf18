"""Tools that stand in a file of their own: finding that file, reading it, and choosing which of its tools are on offer.

    path = beside(rows, ["tools.json"], options.catalogue)       # or a `DataError` that names the option
    value = read_json(path)                                      # one JSON value, gzip-compressed or not
    tools = offer(["search"], catalogue, count=4, seed="7/row-1")

For the sources whose rows name tools without describing them. What the file means is up to the source.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Json, Tool
from toolhone.sources.base import Options

_GZIP = b"\x1f\x8b"


def beside(path: Path, names: Sequence[str], given: Path | None) -> Path:
    """The catalogue that was named, or the first of `names` (also with `.gz`) that lies in the folder of `path` or above it."""
    if given is not None:
        return given
    start = path if path.is_dir() else path.parent
    for folder in (start, start.parent):
        for name in names:
            for file in (folder / name, folder / f"{name}.gz"):
                if file.is_file():
                    return file
    wanted = " or ".join(map(repr, names))
    raise DataError(
        f"{path}: the tools are described in {wanted}, which is not beside this file; name it with 'catalogue'"
    )


def read_json(path: Path) -> Json:
    """The one JSON value of a file."""
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw.startswith(_GZIP) else raw)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged or cut off: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def distractors(path: Path, options: Options, usual: int, known: Mapping[str, Tool]) -> int:
    """How many wrong tools a row gets; a number that the catalogue cannot give is refused."""
    count = options.distractors
    if count is None:
        return min(usual, len(known) - 1)
    if not 0 <= count < len(known):
        raise DataError(
            f"{path}: 'distractors' must be between 0 and {len(known) - 1} for this catalogue, got {count}"
        )
    return count


def offer(
    called: Sequence[str], known: Mapping[str, Tool], count: int, seed: str
) -> tuple[Tool, ...]:
    """The called tools and `count` others (fewer where there are no more), shuffled; the same for the same seed."""
    rng = random.Random(seed)
    names = list(dict.fromkeys(called))
    rest = [name for name in known if name not in names]
    names += rng.sample(rest, min(count, len(rest)))
    rng.shuffle(names)
    return tuple(known[name] for name in names)
