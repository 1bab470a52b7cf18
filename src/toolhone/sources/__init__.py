"""Published formats, read into conversations and tasks.

    loaded = open_source("train.jsonl")                      # the format is told from the first rows
    loaded = open_source("train.jsonl.gz", "gsm8k", style="short")
    loaded = open_source("api_bank/level-1-given-desc")      # a folder, read file by file
    print(loaded.summary())                                  # kept 2960 of 3000 rows; skipped 40: ...

One file per format (`base` says what such a file holds). Rows that a format cannot use are counted by reason; a file that is not
what it should be stops with a sentence. Nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Unpack

from toolhone.errors import DataError, nearest
from toolhone.sources import (
    acebench,
    api_bank,
    apibench,
    bamboogle,
    bfcl,
    glaive,
    gsm8k,
    hammer,
    hermes,
    messages,
    metatool,
    nestful,
    openfunctions,
    parts,
    prompt_rows,
    rotbench,
    seal_tools,
    seal_tools_sft,
    sft_array,
    sharegpt,
    svamp,
    tau2_bench,
    tau_bench,
    test_cases,
    toolace,
    toolalpaca,
    toolbench,
    toolrl,
    toolrl_api_bank,
    when2call,
    xlam,
)
from toolhone.sources.base import Loaded, Options, ReadStats, Skip, Source, SourceRequest
from toolhone.sources.csv_rows import is_table, read_rows
from toolhone.sources.files import FileLine, Record
from toolhone.sources.folders import data_files, joined

_ALL: tuple[Source, ...] = (
    gsm8k,
    messages,
    seal_tools,
    sft_array,
    prompt_rows,
    xlam,
    test_cases,
    toolbench,
    api_bank,
    apibench,
    metatool,
    nestful,
    openfunctions,
    rotbench,
    svamp,
    toolalpaca,
    bamboogle,
    glaive,
    hermes,
    parts,
    sharegpt,
    toolace,
    toolrl,
    toolrl_api_bank,
    acebench,
    bfcl,
    hammer,
    tau2_bench,
    tau_bench,
    when2call,
    seal_tools_sft,
)
SOURCES: dict[str, Source] = {source.NAME: source for source in _ALL}
TABLES: tuple[str, ...] = (xlam.NAME, metatool.NAME)
"""The formats that may come as a CSV file."""
FOLDERS: tuple[str, ...] = (toolbench.NAME, api_bank.NAME)
"""The formats that read a folder as one; folders of the others are read file by file."""
_SNIFFED = 10

__all__ = ["SOURCES", "Loaded", "Options", "format_of", "open_source"]


def open_source(path: str | Path, format: str = "auto", **asked: Unpack[SourceRequest]) -> Loaded:
    """Read a file of a published format; what may be asked is described at `Options`, and what the format lacks is refused."""
    path = Path(path)
    source = SOURCES[format_of(path)] if format == "auto" else _named(format)
    options = _options(asked)
    given = [option.name for option in fields(options) if getattr(options, option.name) is not None]
    for name in given:
        if name not in source.USES:
            has = f"it has: {', '.join(sorted(source.USES))}" if source.USES else "it has none"
            raise DataError(f"{path}: the format {source.NAME!r} has no option {name!r}; {has}")
    return (
        _read_folder(path, source, options)
        if path.is_dir() and source.NAME not in FOLDERS
        else source.read(path, options)
    )


def _read_folder(folder: Path, source: Source, options: Options) -> Loaded:
    """The files of a folder that are of one format, as one; each other file counts as a row that could not be used."""
    parts, others = [], ReadStats()
    for file in data_files(folder):
        try:
            found = format_of(file)
        except DataError as error:
            found, why = "", str(error)
        else:
            why = f"it is {found!r}"
        if found == source.NAME:
            parts.append(source.read(file, options))
        else:
            others.skip(
                FileLine(file, 1, "file"),
                Skip(f"a file that is not of the format {source.NAME!r}", why),
            )
    return joined([*parts, others.loaded()])


def format_of(path: str | Path) -> str:
    """The name of the format that the first rows of a file are of, or at least half of them; of a folder: of its first files."""
    path = Path(path)
    if path.is_dir():
        return _format_of_folder(path)
    if toolbench.is_whole(path):
        return toolbench.NAME
    known = TABLES if is_table(path) else tuple(SOURCES)
    with closing(read_rows(path)) as rows:
        records: list[Record] = [record for _, record in islice(rows, _SNIFFED)]
    fitting = {name: sum(SOURCES[name].sniff([record]) for record in records) for name in known}
    best = max(fitting, key=fitting.__getitem__)
    if fitting[best] and 2 * fitting[best] >= len(
        records
    ):  # a broken row among the first is counted later, when they are read
        return best
    keys = ", ".join(map(repr, sorted(records[0])))
    raise DataError(
        f"{path}: the format was not recognised; its first row has the keys {keys}; known formats: {', '.join(known)}"
    )


def _format_of_folder(folder: Path) -> str:
    """The format of the most files, among the first that are of any."""
    found: Counter[str] = Counter()
    for file in data_files(folder):
        try:
            found[format_of(file)] += 1
        except DataError:
            continue  # a file of no known format; when the folder is read, it is counted with the reason
        if found.total() == _SNIFFED:
            break
    if not found:
        raise DataError(
            f"{folder}: the folder holds no file of a known format; known formats: {', '.join(SOURCES)}"
        )
    return found.most_common(1)[0][0]


def _options(asked: SourceRequest) -> Options:
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
        raise DataError(
            f"unknown data format {name!r}{nearest(name, SOURCES)}; known: auto, {', '.join(SOURCES)}"
        )
    return SOURCES[name]
