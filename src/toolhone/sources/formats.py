"""The published formats: which one a file is in, and reading it.

loaded = open_source("train.jsonl")                      # the format is detected by the first rows
loaded = open_source("train.jsonl.gz", "gsm8k", style="short")
loaded = open_source("api_bank/level-1-given-desc")      # a folder, read file by file
print(loaded.summary())                                  # kept 2960 of 3000 rows; skipped 40: ...
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Unpack

from toolhone.errors import DataError, nearest
from toolhone.schema import Json
from toolhone.sources import (
    acebench,
    api_bank,
    bfcl,
    glaive,
    gorilla,
    hammer,
    hermes,
    math_problems,
    messages,
    nestful,
    pairs,
    parts,
    prompt_rows,
    rotbench,
    seal_tools,
    sft_array,
    sharegpt,
    single_turn,
    tau_bench,
    toolace,
    toolalpaca,
    toolbench,
    toolrl,
)
from toolhone.sources.base import About, Loaded, Skip, Source, SourceOptions, read_with
from toolhone.sources.files import (
    BadLine,
    FileLine,
    Record,
    data_files,
    is_table,
    read_lines,
    read_whole,
)

_ALL: tuple[Source, ...] = (
    math_problems.GSM8K,
    hammer.HAMMER,
    single_turn.XLAM,
    parts.PARTS,
    messages.MESSAGES,
    seal_tools.SEAL_TOOLS,
    sft_array.SFT_ARRAY,
    prompt_rows.PROMPT_ROWS,
    single_turn.TEST_CASES,
    toolbench.TOOLBENCH,
    api_bank.API_BANK,
    gorilla.APIBENCH,
    single_turn.METATOOL,
    nestful.NESTFUL,
    gorilla.OPENFUNCTIONS,
    rotbench.ROTBENCH,
    math_problems.SVAMP,
    single_turn.BAMBOOGLE,
    toolalpaca.TOOLALPACA,
    glaive.GLAIVE,
    hermes.HERMES,
    toolace.TOOLACE,
    seal_tools.SEAL_TOOLS_SFT,
    sharegpt.SHAREGPT,
    toolrl.TOOLRL,
    toolrl.TOOLRL_API_BANK,
    acebench.ACEBENCH,
    bfcl.BFCL,
    tau_bench.TAU2_BENCH,
    tau_bench.TAU_BENCH,
    single_turn.WHEN2CALL,
)
SOURCES: Mapping[str, Source] = {source.name: source for source in _ALL}
"""All formats by name, in the order in which they are asked whether a row is theirs."""
PAIRS = pairs.PAIRS.name
"""Preference pairs: read by name, or detected where a caller asks for pairs as well."""
ABOUT = {
    name: About(**facts)
    for name, facts in json.loads(
        (files("toolhone.sources") / "published.json").read_text()
    ).items()
}
"""What is known of each format's data, by name."""
TABLES = ("xlam", "metatool")
"""The formats that may come as a CSV file."""
FOLDERS = ("toolbench", "api_bank")
"""The formats that read a folder as one; folders of the others are read file by file."""
_FIRST_ROWS = 10


def open_source(
    path: str | Path,
    format: str = "auto",
    *,
    skip_bad_lines: bool = False,
    on_row: Callable[[], None] | None = None,
    **options: Unpack[SourceOptions],
) -> Loaded:
    """Read a file or folder of a published format.

    skip_bad_lines: count lines that are no records, which else stop the reading. `on_row` is called
    after each row. `options` are those of the format (`SourceOptions`); others are refused.
    """
    path = Path(path)
    source = find_source(detect_format(path) if format == "auto" else format)
    known = source.options
    for name, value in options.items():
        if value is not None and name not in known:
            has = f"it has: {', '.join(sorted(known))}" if known else "it has none"
            raise DataError(f"{path}: the format {source.name!r} has no option {name!r}; {has}")
    if path.is_dir() and source.name not in FOLDERS:
        return _read_folder(path, source, options, skip_bad_lines)
    return read_with(source, path, options, skip_bad_lines, on_row)


def find_source(name: str) -> Source:
    """Return the format of this name; an unknown name is a `DataError`."""
    every: dict[str, Source] = {**SOURCES, PAIRS: pairs.PAIRS}
    if name not in every:
        raise DataError(
            f"unknown data format {name!r}{nearest(name, every)}; known: auto, {', '.join(every)}"
        )
    return every[name]


def _read_folder(
    folder: Path, source: Source, options: SourceOptions, skip_bad_lines: bool
) -> Loaded:
    """Read the files of one format as one; each other file counts as a row that was not used."""
    loaded = Loaded()
    for file in data_files(folder):
        try:
            found = detect_format(file)
        except DataError as error:
            found, why = "", str(error)
        else:
            why = f"it is {found!r}"
        if found == source.name:
            read_with(source, file, options, skip_bad_lines, loaded=loaded)
        else:
            reason = f"a file that is not of the format {source.name!r}"
            loaded.skip(FileLine(file, 1, "file"), Skip(reason, why), read_whole(file))
    return loaded


def detect(record: Record, known: Iterable[str] = SOURCES) -> str | None:
    """Return the name of the first format that a row is in; our own form goes before all others."""
    if messages.is_own_form(record):
        return messages.MESSAGES.name
    return next((name for name in known if SOURCES[name].looks_like(record)), None)


def detect_format(path: str | Path, with_pairs: bool = False) -> str:
    """Return the format of at least half of the first rows, or of most files of a folder.

    with_pairs: preference pairs are a format as well.
    """
    path = Path(path)
    if path.is_dir():
        return _detect_folder(path)
    known = TABLES if is_table(path) else tuple(SOURCES)
    records, bad = _first_records(path)
    if not records and bad:
        raise bad.error
    if with_pairs and holds_pairs(path):
        return PAIRS
    found = Counter(name for record in records if (name := detect(record, known)) is not None)
    if found:
        name, count = found.most_common(1)[0]
        if 2 * count >= len(records):
            return name
    if bad:
        raise bad.error
    keys = ", ".join(map(repr, sorted(records[0])[:20]))
    raise DataError(
        f"{path}: the format was not recognised; its first row has the keys {keys}; "
        f"known formats: {', '.join(known)}"
    )


def holds_pairs(path: str | Path) -> bool:
    """Return whether at least half of the first rows have a chosen and a rejected side."""
    if Path(path).is_dir():
        return False
    records, _ = _first_records(Path(path))
    return bool(records) and 2 * sum(map(pairs.looks_like, records)) >= len(records)


def _first_records(path: Path) -> tuple[list[Record], BadLine | None]:
    """Return the first records of a file, and the first bad line among them."""
    records: list[Record] = []
    bad: BadLine | None = None
    with closing(read_lines(path)) as rows:
        for _, row in rows:
            if isinstance(row, BadLine):
                bad = bad or row
            else:
                records.append(row)
            if len(records) == _FIRST_ROWS:
                break
    return records, bad


def _detect_folder(folder: Path) -> str:
    """Return the format of the most files, among the first that are of any."""
    found: Counter[str] = Counter()
    for file in data_files(folder):
        try:
            found[detect_format(file)] += 1
        except DataError:
            continue  # a file of no known format; when the folder is read, it is counted
        if found.total() == _FIRST_ROWS:
            break
    if not found:
        raise DataError(
            f"{folder}: the folder holds no file of a known format; "
            f"known formats: {', '.join(SOURCES)}"
        )
    return found.most_common(1)[0][0]


COLUMNS = ("format", "data set", "licence", "rows", "teaches", "gives", "options")


@dataclass(frozen=True)
class SourceInfo:
    """A format, what there is to know of its data, and the options it has."""

    name: str
    about: About
    options: tuple[str, ...] = ()

    @property
    def gives(self) -> str:
        if self.name == PAIRS:
            return "preference pairs"
        return "tasks only" if self.about.only_tasks else "conversations, tasks"

    def cells(self) -> tuple[str, ...]:
        """Return one text for each of `COLUMNS`."""
        about = self.about
        facts = (about.title, about.licence, about.rows, about.teaches)
        return (self.name, *facts, self.gives, ", ".join(self.options))

    def to_dict(self) -> dict[str, Json]:
        return {"format": self.name, **asdict(self.about), "options": list(self.options)}


def list_sources() -> list[SourceInfo]:
    """Return all formats, sorted by name."""
    infos = {
        name: SourceInfo(name, ABOUT[name], tuple(sorted(source.options)))
        for name, source in SOURCES.items()
    }
    infos[PAIRS] = SourceInfo(PAIRS, ABOUT[PAIRS])
    return [infos[name] for name in sorted(infos)]


def as_markdown(infos: Sequence[SourceInfo]) -> str:
    """Return the table of the documentation; a title links to where the data are published."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for info in infos:
        name, title, *others = (cell.replace("|", "\\|") for cell in info.cells())
        title = f"[{title}]({info.about.link})" if info.about.link else title
        rows.append((f"`{name}`", title, *others))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
