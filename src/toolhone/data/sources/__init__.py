"""Published formats, read into conversations and tasks.

    loaded = open_source("train.jsonl")                      # the format is told from the first rows
    loaded = open_source("train.jsonl.gz", "gsm8k", style="short")
    print(loaded.summary())                                  # kept 2960 of 3000 rows; skipped 40: ...

One file per format (`base` says what such a file holds). Rows that a format cannot use are counted by reason; a file that is not
what it should be stops with a sentence. Nothing is downloaded.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path

from toolhone.data.files import Record, read_records
from toolhone.data.sources import gsm8k, messages, seal_tools
from toolhone.data.sources.base import Loaded, Options, Source
from toolhone.errors import DataError, nearest

SOURCES: dict[str, Source] = {source.NAME: source for source in (gsm8k, messages, seal_tools)}
_SNIFFED = 10

__all__ = ["SOURCES", "Loaded", "Options", "open_source"]


def open_source(
    path: str | Path,
    format: str = "auto",
    *,
    style: str | None = None,
    first_call: bool | None = None,
    distractors: int | None = None,
    catalogue: str | Path | None = None,
    seed: int | None = None,
    skip_bad: bool | None = None,
) -> Loaded:
    """Read a file of a published format; the options are those of `base.Options`, and one that the format lacks is refused."""
    path = Path(path)
    source = _sniffed(path) if format == "auto" else _named(format)
    options = Options(style, first_call, distractors, None if catalogue is None else Path(catalogue), seed, skip_bad)
    given = [option.name for option in fields(options) if getattr(options, option.name) is not None]
    for name in given:
        if name not in source.USES:
            raise DataError(f"{path}: the format {source.NAME!r} has no option {name!r}; it has: {', '.join(sorted(source.USES))}")
    return source.read(path, options)


def _named(name: str) -> Source:
    if name not in SOURCES:
        raise DataError(f"unknown data format {name!r}{nearest(name, SOURCES)}; known: auto, {', '.join(SOURCES)}")
    return SOURCES[name]


def _sniffed(path: Path) -> Source:
    with closing(read_records(path)) as rows:
        records: list[Record] = [record for _, record in islice(rows, _SNIFFED)]
    for source in SOURCES.values():
        if source.sniff(records):
            return source
    keys = ", ".join(map(repr, sorted(records[0])))
    raise DataError(
        f"{path}: the format was not recognised; its first row has the keys {keys}; known formats: {', '.join(SOURCES)}"
    )
