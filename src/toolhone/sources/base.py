"""The loop that all formats share: every row is kept, or skipped and counted with a reason.

A format is a module with `NAME`, `ABOUT` (`About`), `looks_like(record)` and `convert(record,
context)`. It may also have `OPTIONS` (names of `SourceOptions` it reads), `prepare(records,
context)`, which runs once on all records of the file, and `rows(path)`, which replaces the rows of
the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypedDict

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.schema.preference import Preference
from toolhone.sources.files import BadLine, FileLine, Record, data_files, read_lines
from toolhone.sources.rules import conversation_faults
from toolhone.sources.tasks import tasks_of

BAD_LINE = "a line that is no JSON object"
"""Why a bad line is skipped; a row of a table is one if it has too many or too few fields."""


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


class SourceOptions(TypedDict, total=False):
    """Options of a source; without one, or with None, the source uses its own default.

    style: GSM8K's form, `calls` or `short`. first_call: a GSM8K task also expects the first step as
    a call. distractors: how many wrong tools are on offer besides (Seal-Tools, MetaTool, NESTFUL).
    catalogue: the file that describes the tools, where it is not beside the rows. seed: of every
    choice. skip_bad: count a row that is no conversation instead of stopping there. tools: the
    tools on offer in test cases. raw_prompt: keep prompt and answer of prompt rows as they are.
    """

    style: str | None
    first_call: bool | None
    distractors: int | None
    catalogue: str | Path | None
    seed: int | None
    skip_bad: bool | None
    tools: Sequence[Tool] | None
    raw_prompt: bool | None


class Skip(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """A row that its source cannot use: `reason` is counted, `detail` completes the example.

    stops: without the option `skip_bad` the row stops the reading.
    """

    def __init__(self, reason: str, detail: str = "", stops: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.stops = reason, detail, stops


@dataclass(frozen=True)
class Converted:
    """What a row gives: a conversation, a pair, or neither; and tasks. Nothing is added."""

    conversation: Conversation | None = None
    tasks: Sequence[Task] = ()
    preference: Preference | None = None


@dataclass
class Context:
    """What a conversion knows besides its record, and where it writes down repairs and notes.

    name: of the format. path: of the file or folder. line: the place of the row. prepared: what
    `prepare` returned. tools: a cache of the tools read so far. repairs, notes: of this row.
    """

    name: str
    path: Path
    options: SourceOptions
    line: FileLine
    prepared: Any = None
    tools: dict[str, Any] = field(default_factory=dict)
    repairs: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def identity(self, record: Record, key: str = "id") -> str:
        """Return the row's own id, or the name of the file and the number of the row."""
        own = record.get(key)
        stem = self.line.path.name.partition(".")[0]
        return f"{stem}-{self.line.number}" if own in (None, "") else str(own)

    def complete(self, conversation: Conversation, record: Record) -> Conversation:
        """Return the conversation with an id and a source; raise `Skip` for one that breaks the
        rules."""
        refuse_faults(conversation)
        return replace(
            conversation,
            id=conversation.id or self.identity(record),
            source=conversation.source or self.name,
        )


class Source(Protocol):
    """A published format; the modules of this package are such objects."""

    NAME: str
    ABOUT: About

    def looks_like(self, record: Record) -> bool: ...

    def convert(
        self, record: Record, context: Context
    ) -> Conversation | Task | list[Task] | Converted: ...


@dataclass(frozen=True)
class Refused:
    """A row that was not used: its place, the reason, what was seen, and the row (of a bad line its
    text)."""

    line: FileLine
    reason: str
    detail: str = ""
    row: Json = None


@dataclass(frozen=True)
class Loaded:
    """What a source made of a file.

    conversations, preferences: the kept rows, and `places` the place of each. tasks: what the
    format gives for evaluation and episodes. only_tasks: kept rows that gave tasks alone. skipped:
    rows by reason, with one sentence for each reason in `examples` and each row in `refused`.
    repaired: kept rows by kind of repair. noted: kept rows of which something could not be checked.
    read: all rows.
    """

    conversations: Sequence[Conversation]
    places: Sequence[FileLine]
    tasks: Sequence[Task]
    skipped: Counter[str]
    read: int
    repaired: Counter[str] = field(default_factory=Counter)
    examples: Mapping[str, str] = field(default_factory=dict)
    only_tasks: int = 0
    noted: Counter[str] = field(default_factory=Counter)
    refused: Sequence[Refused] = ()
    preferences: Sequence[Preference] = ()

    def __post_init__(self) -> None:
        assert len(self.conversations) + len(self.preferences) == len(self.places)
        assert self.kept + self.skipped.total() == self.read, "a row was neither kept nor counted"

    @property
    def kept(self) -> int:
        return len(self.conversations) + self.only_tasks + len(self.preferences)

    def summary(self) -> str:
        """Return `kept 97 of 100 rows; skipped 3: 2 no number, 1 ...; repaired 4: ...`."""
        parts = [f"kept {self.kept} of {self.read} {'row' if self.read == 1 else 'rows'}"]
        if self.only_tasks:
            parts[0] += f", {self.only_tasks} of them only as tasks"
        for word, counts in (
            ("skipped", self.skipped),
            ("repaired", self.repaired),
            ("kept unchecked", self.noted),
        ):
            if counts:
                reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
                parts.append(f"{word} {counts.total()}: {reasons}")
        return "; ".join(parts)


class ReadStats:
    """Collects what a source keeps and counts what it does not."""

    def __init__(self) -> None:
        self._kept: list[tuple[FileLine, Converted]] = []
        self._repaired: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._refused: list[Refused] = []

    def keep(
        self,
        line: FileLine,
        row: Converted,
        repairs: set[str] | frozenset[str] = frozenset(),
        notes: Sequence[str] = (),
    ) -> None:
        self._kept.append((line, row))
        self._repaired.update(repairs)
        self._noted.update(notes)

    def skip(self, line: FileLine, skip: Skip, row: Json = None) -> None:
        self._refused.append(Refused(line, skip.reason, skip.detail, row))

    def loaded(self) -> Loaded:
        rows = [row for _, row in self._kept]
        examples = {
            each.reason: f"{each.line}: {each.reason}" + (f": {each.detail}" if each.detail else "")
            for each in reversed(self._refused)
        }
        return Loaded(
            conversations=[row.conversation for row in rows if row.conversation is not None],
            preferences=[row.preference for row in rows if row.preference is not None],
            places=[
                line
                for line, row in self._kept
                if row.conversation is not None or row.preference is not None
            ],
            tasks=[task for row in rows for task in row.tasks],
            skipped=Counter(each.reason for each in self._refused),
            read=len(rows) + len(self._refused),
            repaired=self._repaired,
            examples=examples,
            only_tasks=sum(row.conversation is None and row.preference is None for row in rows),
            noted=self._noted,
            refused=self._refused,
        )


def read_with(
    source: Source,
    path: Path,
    options: SourceOptions,
    skip_bad_lines: bool = False,
    on_row: Callable[[], None] | None = None,
) -> Loaded:
    """Read a file, or all files of a folder, with one source.

    skip_bad_lines: count lines that are no records instead of stopping at the first. `on_row` is
    called after each row, for a display of progress.
    """
    rows: Iterator[tuple[FileLine, Record | BadLine]] = getattr(source, "rows", rows_of)(path)
    context = Context(source.NAME, path, options, FileLine(path, 0))
    if hasattr(source, "prepare"):
        every = list(rows)
        rows = iter(every)
        records = [record for _, record in every if not isinstance(record, BadLine)]
        context.prepared = source.prepare(records, context)
    stats = ReadStats()
    for line, record in rows:
        if isinstance(record, BadLine):
            if not skip_bad_lines:
                raise record.error
            stats.skip(line, Skip(BAD_LINE, record.why), record.text)
        else:
            _add_row(source, record, replace(context, line=line, repairs=set(), notes=[]), stats)
        if on_row is not None:
            on_row()
    return stats.loaded()


def rows_of(path: Path) -> Iterator[tuple[FileLine, Record | BadLine]]:
    """Yield the rows of a file, or of all files of a folder."""
    if not path.is_dir():
        return read_lines(path)
    files = data_files(path)
    if not files:
        raise DataError(
            f"{path}: the folder holds no file named *.json, *.jsonl, *.csv or *.parquet"
        )
    return chain.from_iterable(map(read_lines, files))


def _add_row(source: Source, record: Record, context: Context, stats: ReadStats) -> None:
    line = context.line
    try:
        result = source.convert(record, context)
        if isinstance(result, Conversation):
            conversation = context.complete(result, record)
            result = Converted(conversation, tasks_of(conversation))
        elif not isinstance(result, Converted):
            tasks = [result] if isinstance(result, Task) else result
            result = Converted(tasks=[_complete_task(task, record, context) for task in tasks])
    except Skip as skip:
        if skip.stops and not context.options.get("skip_bad"):
            raise DataError(f"{line}: {skip.detail}") from None
        stats.skip(line, skip, record)
    else:
        stats.keep(line, result, context.repairs, context.notes)


def _complete_task(task: Task, record: Record, context: Context) -> Task:
    """Return the task with an id, a source, and a category by the shape of what it expects."""
    count = len(task.expect.wanted)
    shape = "several_calls" if count > 1 else "one_call" if count else "no_call"
    return replace(
        task,
        id=task.id or context.identity(record),
        source=task.source or context.name,
        category=task.category or shape,
    )


def expect_calls(calls: Sequence[ToolCall], order: Any = "any") -> Expect:
    """Return the expectation of these calls; of no call where there are none."""
    expected = tuple(ExpectedCall(call.name, call.arguments) for call in calls)
    return Expect(expected, order) if expected else Expect(no_call=True)


def refuse_faults(conversation: Conversation) -> None:
    """Raise `Skip` for the first fault of a conversation, such as a call that does not fit."""
    for kind, fault_field, what, _ in conversation_faults(conversation):
        raise Skip(kind, f"{fault_field}: {what}")


def refuse_misfits(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> None:
    """Raise `Skip` for calls, such as those a task expects, that do not fit the tools."""
    refuse_faults(
        Conversation(
            (Message("assistant", tool_calls=tuple(calls)),), tuple(tools), source="a task"
        )
    )


def join_loaded(parts: Sequence[Loaded]) -> Loaded:
    """Return several files as one: rows one after another, counts summed, refused rows by place."""
    refused = [row for part in parts for row in part.refused]
    return Loaded(
        conversations=[row for part in parts for row in part.conversations],
        places=[place for part in parts for place in part.places],
        tasks=[task for part in parts for task in part.tasks],
        skipped=sum((part.skipped for part in parts), Counter()),
        read=sum(part.read for part in parts),
        repaired=sum((part.repaired for part in parts), Counter()),
        examples={k: v for part in reversed(parts) for k, v in part.examples.items()},
        only_tasks=sum(part.only_tasks for part in parts),
        noted=sum((part.noted for part in parts), Counter()),
        refused=sorted(refused, key=lambda row: (str(row.line.path), row.line.number)),
        preferences=[pair for part in parts for pair in part.preferences],
    )
