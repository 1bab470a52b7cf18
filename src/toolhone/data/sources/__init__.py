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
from typing import Unpack

from toolhone.data.files import Record
from toolhone.data.sources import gsm8k, messages, prompt_rows, seal_tools, sft_array, test_cases, toolbench, xlam
from toolhone.data.sources.base import Asked, Loaded, Options, Source
from toolhone.data.sources.tables import is_table, read_rows
from toolhone.errors import DataError, nearest

SOURCES: dict[str, Source] = {
    source.NAME: source for source in (gsm8k, messages, seal_tools, sft_array, prompt_rows, xlam, test_cases, toolbench)
}
TABLES: tuple[str, ...] = (xlam.NAME,)
"""The formats that may come as a CSV file."""
_SNIFFED = 10

__all__ = ["SOURCES", "Loaded", "Options", "format_of", "open_source"]


def open_source(path: str | Path, format: str = "auto", **asked: Unpack[Asked]) -> Loaded:
    """Read a file of a published format; what may be asked is described at `Options`, and what the format lacks is refused."""
    path = Path(path)
    source = SOURCES[format_of(path)] if format == "auto" else _named(format)
    options = _options(asked)
    given = [option.name for option in fields(options) if getattr(options, option.name) is not None]
    for name in given:
        if name not in source.USES:
            has = f"it has: {', '.join(sorted(source.USES))}" if source.USES else "it has none"
            raise DataError(f"{path}: the format {source.NAME!r} has no option {name!r}; {has}")
    return source.read(path, options)


def format_of(path: str | Path) -> str:
    """The name of the format that the first rows of a file are of, or at least half of them."""
    path = Path(path)
    if toolbench.is_whole(path):
        return toolbench.NAME
    known = TABLES if is_table(path) else tuple(SOURCES)
    with closing(read_rows(path)) as rows:
        records: list[Record] = [record for _, record in islice(rows, _SNIFFED)]
    fitting = {name: sum(SOURCES[name].sniff([record]) for record in records) for name in known}
    best = max(fitting, key=fitting.__getitem__)
    if fitting[best] and 2 * fitting[best] >= len(records):  # a broken row among the first is counted later, when they are read
        return best
    keys = ", ".join(map(repr, sorted(records[0])))
    raise DataError(f"{path}: the format was not recognised; its first row has the keys {keys}; known formats: {', '.join(known)}")


def _options(asked: Asked) -> Options:
    catalogue = asked.get("catalogue")
    return Options(
        style=asked.get("style"),
        first_call=asked.get("first_call"),
        distractors=asked.get("distractors"),
        catalogue=None if catalogue is None else Path(catalogue),
        seed=asked.get("seed"),
        skip_bad=asked.get("skip_bad"),
        tools=asked.get("tools"),
        raw_prompt=asked.get("raw_prompt"),
    )


def _named(name: str) -> Source:
    if name not in SOURCES:
        raise DataError(f"unknown data format {name!r}{nearest(name, SOURCES)}; known: auto, {', '.join(SOURCES)}")
    return SOURCES[name]
