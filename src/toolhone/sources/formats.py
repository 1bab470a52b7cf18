"""The published formats: which one a file is in, and reading it.

loaded = open_source("train.jsonl")                      # the format is detected by the first rows
loaded = open_source("train.jsonl.gz", "gsm8k", style="short")
loaded = open_source("api_bank/level-1-given-desc")      # a folder, read file by file
print(loaded.summary())                                  # kept 2960 of 3000 rows; skipped 40: ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Unpack

from toolhone.errors import DataError, ToolhoneError, nearest
from toolhone.schema import ENCODE, Conversation, Json, ListTexts, Task
from toolhone.schema.json_input import packaged_json
from toolhone.sources import messages, pairs
from toolhone.sources.files import (
    BadLine,
    FileLine,
    Record,
    RecordStream,
    is_table,
    open_records,
    read_whole,
)
from toolhone.sources.loaded import Loaded, RowCounts
from toolhone.sources.source import (
    Context,
    Converted,
    Skip,
    Source,
    SourceOptions,
    check_places,
    shape_of,
    tasks_of,
)

BAD_LINE = "a line that is no JSON object"
"""Why a bad line is skipped; a row of a table is one if it has too many or too few fields."""
BROKEN_ROW = "a row that its format cannot convert"


@dataclass(frozen=True, kw_only=True)
class About:
    """A published data set, as `toolhone data sources` lists it.

    title, link: its usual name and where it is published. licence: of the data. rows: how many, as
    published. teaches: what a model learns from it, or what it measures. only_tasks: made for
    evaluation, never to be trained on.
    """

    title: str
    link: str = ""
    licence: str = "as the data set"
    rows: str = "any"
    teaches: str
    only_tasks: bool = False


PAIRS = "pairs"
"""Preference pairs: read by name, or detected where a caller asks for pairs as well."""
_PUBLISHED = packaged_json("sources/published.json")
_MODULES = {name: entry.pop("module", name) for name, entry in _PUBLISHED.items()}
ABOUT = {name: About(**entry) for name, entry in _PUBLISHED.items()}
"""What is known of each format's data, by name, from `published.json`."""
SOURCES: Mapping[str, Source] = {
    name: getattr(import_module(f"toolhone.sources.{module}"), name.upper())
    for name, module in _MODULES.items()
    if name != PAIRS
}
"""All formats by name, in the order in which they are asked whether a row is theirs."""
TABLES = ("xlam", "metatool", "messages")
"""The formats that may come as a CSV file."""
FOLDERS = ("toolbench", "api_bank")
"""The formats that read a folder as one; folders of the others are read file by file."""
_DETECTED_FILES = 10


OnRow = Callable[[FileLine, Record | BadLine], None] | None


def open_source(
    source: str | Path | RecordStream,
    format: str = "auto",
    *,
    on_row: OnRow = None,
    **options: Unpack[SourceOptions],
) -> Loaded:
    """Read a file or folder of a published format.

    A row that cannot be read or converted is skipped with its place and the reason. `on_row` is
    called after each row. `options` are those of the format (`SourceOptions`); others are refused.
    """
    stream, loaded = open_records(source), Loaded()
    read_source(stream, format, loaded, on_row=on_row, **options)
    return loaded


def read_source(
    stream: RecordStream,
    format: str,
    rows: RowCounts,
    *,
    on_row: OnRow = None,
    **options: Unpack[SourceOptions],
) -> None:
    """Read a file or folder into `rows`; see `open_source`."""
    reader = find_source(detect_format(stream) if format == "auto" else format)
    for name, value in options.items():
        if value is not None and name not in reader.options:
            known = ", ".join(sorted(reader.options))
            has = f"it has: {known}" if known else "it has none"
            what = f"the format {reader.name!r} has no option {name!r}"
            raise DataError(f"{stream.path}: {what}; {has}")
    whole = not stream.path.is_dir() or reader.name in FOLDERS
    for file in [stream] if whole else stream.files:
        found, why = reader.name, ""
        if not whole:
            try:
                found = detect_format(file)
                why = f"it is {found!r}"
            except DataError as error:
                found, why = "", str(error)
        if found == reader.name:
            try:
                _add_rows(reader, file, options, rows, on_row)
            except (ToolhoneError, OSError):
                raise
            except Exception as error:
                what = f"the file cannot be read as {reader.name!r}"
                raise DataError(f"{file.path}: {what}: {type(error).__name__}: {error}") from error
        else:
            skip = Skip(f"a file that is not of the format {reader.name!r}", why)
            rows.skip(FileLine(file.path, 1, "file"), skip, read_whole(file.path))
    if reader.joins:
        rows.join()


def find_source(name: str) -> Source:
    """Return the format of this name; an unknown name is a `DataError`."""
    every: dict[str, Source] = {**SOURCES, PAIRS: pairs.PAIRS}
    if name not in every:
        known = f"{nearest(name, every)}; known: auto, {', '.join(every)}"
        raise DataError(f"unknown data format {name!r}{known}")
    return every[name]


def _add_rows(
    source: Source, stream: RecordStream, options: SourceOptions, loaded: RowCounts, on_row: OnRow
) -> None:
    """Add all rows of a file, or of a folder that is read as one, to `loaded`."""
    rows, texts = iter(stream) if source.rows is None else source.rows(stream), ListTexts()
    context = Context(source.name, stream.path, options, FileLine(stream.path, 0))
    faults: dict[int, Exception] = {}
    if source.prepare is not None:
        every = list(rows)
        faults, rows = _prepare(source, every, context), iter(every)
    for line, record in rows:
        if isinstance(record, BadLine):
            loaded.skip(line, Skip(BAD_LINE, record.why), record.text)
        else:
            own = context.at(line)
            try:
                converted = _convert_any(source, record, own, faults.get(id(record)), texts)
            except Skip as skip:
                loaded.skip(line, skip, record)
            else:
                loaded.keep(line, converted, own)
        if on_row is not None:
            on_row(line, record)


def _prepare(
    source: Source, rows: Sequence[tuple[FileLine, Record | BadLine]], context: Context
) -> dict[int, Exception]:
    """Prepare the rows of a file; return those that cannot be, by id, and why."""
    assert source.prepare is not None
    records = [record for _, record in rows if not isinstance(record, BadLine)]
    try:
        context.prepared = source.prepare(records, context)
        return {}
    except Exception:
        source.prepare([], context)  # raises what no row is to blame for
    faults = dict(_unprepared(source.prepare, records, context))
    context.prepared = source.prepare([one for one in records if id(one) not in faults], context)
    return faults


def _unprepared(
    prepare: Callable[[Sequence[Record], Context], Any], records: Sequence[Record], context: Context
) -> Iterator[tuple[int, Exception]]:
    """Yield each row that cannot be prepared, by id, with its error."""
    try:
        prepare(records, context)
    except Exception as error:
        if len(records) == 1:
            yield id(records[0]), error
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            yield from _unprepared(prepare, half, context)


def _convert_any(
    source: Source, record: Record, context: Context, fault: Exception | None, texts: ListTexts
) -> Converted:
    """Convert a row; whatever is wrong with it, it is `Skip`. fault: what `_prepare` found."""
    try:
        if fault is not None:
            raise Skip(BROKEN_ROW, str(fault)) if isinstance(fault, DataError) else fault
        converted = _convert(source, record, context)
        check_places(record, source.keys, context.unread)
        return with_texts(converted, texts)
    except (Skip, ToolhoneError):
        raise
    except RecursionError:
        raise Skip(BROKEN_ROW, "nested too deeply") from None
    except UnicodeEncodeError:
        raise Skip(BROKEN_ROW, "a text holds half of a surrogate pair") from None
    except Exception as error:
        raise Skip(BROKEN_ROW, f"{type(error).__name__}: {error}") from None


def with_texts(row: Converted, texts: ListTexts) -> Converted:
    """Return what a row gives with its JSON; an error where there is none."""
    texts.start_row()
    said = [task.to_json(texts) for task in row.tasks]
    if row.conversation is not None:
        said.insert(0, row.conversation.to_json(texts))
    elif row.preference is not None:
        said.insert(0, ENCODE(row.preference.to_dict()))
    "".join(said).encode("utf-8")  # an error for half of a surrogate pair
    return Converted(row.conversation, row.tasks, row.preference, said)


def _convert(source: Source, record: Record, context: Context) -> Converted:
    """Return what a row gives, with ids, sources, categories and the tasks of a conversation."""
    result = source.convert(record, context)
    if isinstance(result, Converted):
        return result
    if isinstance(result, Conversation):
        conversation = context.complete(result, record)
        return Converted(conversation, tasks_of(conversation))
    tasks = [
        replace(
            task,
            id=task.id or context.identity(record),
            source=task.source or context.name,
            category=task.category or shape_of(task.expect.wanted),
        )
        for task in ([result] if isinstance(result, Task) else result)
    ]
    return Converted(tasks=tasks)


def detect(record: Record, known: Iterable[str] = SOURCES) -> str | None:
    """Return the name of the first format that a row is in; our own form goes before all others."""
    if messages.is_own_form(record):
        return messages.MESSAGES.name
    for name in known:
        with suppress(Exception):  # no row of this format
            if SOURCES[name].looks_like(record):
                return name
    return None


def detect_format(source: str | Path | RecordStream, with_pairs: bool = False) -> str:
    """Return the format of at least half of the first rows, or of most files of a folder.

    with_pairs: preference pairs are a format as well.
    """
    stream = open_records(source)
    if stream.path.is_dir():
        return _detect_folder(stream)
    known = TABLES if is_table(stream.path) else tuple(SOURCES)
    bad = next((row for _, row in stream.first if isinstance(row, BadLine)), None)
    records = [row for _, row in stream.first if not isinstance(row, BadLine)]
    if with_pairs and holds_pairs(stream):
        return PAIRS
    found = Counter(name for record in records if (name := detect(record, known)) is not None)
    name, count = found.most_common(1)[0] if found else ("", 0)
    if found and 2 * count >= len(records):
        return name
    if bad:
        raise bad.error
    keys = ", ".join(map(repr, sorted(records[0])[:20]))
    right = f"known formats: {', '.join(known)}"
    lists = {key: rows for key, rows in records[0].items() if isinstance(rows, list) and rows}
    for key, rows in lists.items():
        if isinstance(rows[0], dict) and detect(rows[0], known):
            right = f"{key!r} holds a list of {len(rows)} rows; wanted that list alone in a file"
    raise DataError(
        f"{stream.path}: the format was not recognised; its first row has the keys {keys}; {right}"
    )


def _detect_folder(folder: RecordStream) -> str:
    """Return the format of the most files, among the first that are of any."""
    found: Counter[str] = Counter()
    for file in folder.files:
        try:
            found[detect_format(file)] += 1
        except DataError:  # a file of no known format; when the folder is read, it is counted
            file.close()
        if found.total() == _DETECTED_FILES:
            break
    if not found:
        known = f"known formats: {', '.join(SOURCES)}"
        raise DataError(f"{folder.path}: the folder holds no file of a known format; {known}")
    return found.most_common(1)[0][0]


def holds_pairs(source: str | Path | RecordStream) -> bool:
    """Return whether at least half of the first rows have a chosen and a rejected side."""
    stream = open_records(source)
    first = () if stream.path.is_dir() else stream.first
    records = [row for _, row in first if not isinstance(row, BadLine)]
    return bool(records) and 2 * sum(map(pairs.looks_like, records)) >= len(records)


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
    options = {name: tuple(sorted(source.options)) for name, source in SOURCES.items()}
    return [SourceInfo(name, ABOUT[name], options.get(name, ())) for name in sorted(ABOUT)]


def as_markdown(infos: Sequence[SourceInfo]) -> str:
    """Return the table of the documentation; a title links to where the data are published."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for info in infos:
        name, title, *others = (cell.replace("|", "\\|") for cell in info.cells())
        title = f"[{title}]({info.about.link})" if info.about.link else title
        rows.append((f"`{name}`", title, *others))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
