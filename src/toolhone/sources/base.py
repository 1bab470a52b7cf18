"""The loop that all formats share: every row is kept, or skipped and counted with a reason.

SOURCE = Source("name", looks_like, convert)             # at the end of the module of a format
loaded = read_with(SOURCE, Path("train.jsonl"), options={})
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.schema.preference import Preference
from toolhone.sources.files import BadLine, FileLine, Record, data_files, read_lines
from toolhone.sources.rules import conversation_faults

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
        """Return the conversation with id and source; raise `Skip` if it breaks the rules."""
        refuse_faults(conversation)
        return replace(
            conversation,
            id=conversation.id or self.identity(record),
            source=conversation.source or self.name,
        )


@dataclass(frozen=True)
class Source:
    """A published format: how its rows are told from others, and how one is converted.

    prepare: runs once on all records of the file; what it returns is `Context.prepared`. rows:
    yields the rows of a file or folder. options: names of the `SourceOptions` that are read.
    """

    name: str
    looks_like: Callable[[Record], bool]
    convert: Callable[[Record, Context], Conversation | Task | list[Task] | Converted]
    prepare: Callable[[Sequence[Record], Context], Any] | None = None
    rows: Callable[[Path], Iterator[tuple[FileLine, Record | BadLine]]] | None = None
    options: Set[str] = frozenset()


@dataclass(frozen=True)
class Refused:
    """A skipped row: place, reason, detail, and the row (of a bad line its text)."""

    line: FileLine
    reason: str
    detail: str = ""
    row: Json = None


@dataclass
class Loaded:
    """What a source read from a file; `keep` and `skip` add a row.

    places: of each conversation or pair. only_tasks: kept rows that gave tasks alone. skipped: rows
    by reason, with one sentence for each reason in `examples`. repaired: kept rows by kind of
    repair. noted: kept rows of which something could not be checked. read: all rows.
    """

    conversations: list[Conversation] = field(default_factory=list)
    places: list[FileLine] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    only_tasks: int = 0
    noted: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return len(self.conversations) + self.only_tasks + len(self.preferences)

    def keep(
        self, line: FileLine, row: Converted, repairs: Iterable[str] = (), notes: Iterable[str] = ()
    ) -> None:
        self.read += 1
        self.conversations += [] if row.conversation is None else [row.conversation]
        self.preferences += [] if row.preference is None else [row.preference]
        if row.conversation is None and row.preference is None:
            self.only_tasks += 1
        else:
            self.places.append(line)
        self.tasks += row.tasks
        self.repaired.update(repairs)
        self.noted.update(notes)

    def skip(self, line: FileLine, skip: Skip, row: Json = None) -> None:
        self.read += 1
        self.skipped[skip.reason] += 1
        detail = f": {skip.detail}" if skip.detail else ""
        self.examples.setdefault(skip.reason, f"{line}: {skip.reason}{detail}")
        self.refused.append(Refused(line, skip.reason, skip.detail, row))

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


def read_with(
    source: Source,
    path: Path,
    options: SourceOptions,
    skip_bad_lines: bool = False,
    on_row: Callable[[], None] | None = None,
    loaded: Loaded | None = None,
) -> Loaded:
    """Read a file, or all files of a folder, with one source.

    skip_bad_lines: count lines that are no records instead of stopping at the first. `on_row` is
    called after each row, for a display of progress. loaded: what the rows are added to.
    """
    rows: Iterator[tuple[FileLine, Record | BadLine]] = (source.rows or rows_of)(path)
    context = Context(source.name, path, options, FileLine(path, 0))
    if source.prepare is not None:
        every = list(rows)
        rows = iter(every)
        records = [record for _, record in every if not isinstance(record, BadLine)]
        context.prepared = source.prepare(records, context)
    loaded = Loaded() if loaded is None else loaded
    for line, record in rows:
        if isinstance(record, BadLine):
            if not skip_bad_lines:
                raise record.error
            loaded.skip(line, Skip(BAD_LINE, record.why), record.text)
        else:
            _add_row(source, record, replace(context, line=line, repairs=set(), notes=[]), loaded)
        if on_row is not None:
            on_row()
    return loaded


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


def _add_row(source: Source, record: Record, context: Context, loaded: Loaded) -> None:
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
        loaded.skip(line, skip, record)
    else:
        loaded.keep(line, result, context.repairs, context.notes)


def _complete_task(task: Task, record: Record, context: Context) -> Task:
    """Return the task with an id, a source, and a category by the shape of what it expects."""
    return replace(
        task,
        id=task.id or context.identity(record),
        source=task.source or context.name,
        category=task.category or _shape(task.expect.wanted),
    )


def _shape(calls: Sequence[ToolCall | ExpectedCall]) -> str:
    return "several_calls" if len(calls) > 1 else "one_call" if calls else "no_call"


def tasks_of(conversation: Conversation, category: str = "") -> list[Task]:
    """Return a task for each decision of the assistant; its history is everything before that.

    A turn with calls after a user turn or after results expects these calls, a plain reply to the
    user no call; a final reply after results gives no task. Ids are `<conversation id>#<index of
    the message>`. The default category is `one_call`, `several_calls`, `later_call` (after results)
    or `no_call`.
    """
    identity = conversation.id or fingerprint(conversation.messages)[:12]
    tasks = []
    for index, message in enumerate(conversation.messages):
        before = conversation.messages[index - 1].role if index else ""
        decides = before == "user" or (before == "tool" and message.tool_calls)
        if message.role != "assistant" or not decides:
            continue
        shape = "later_call" if before == "tool" else _shape(message.tool_calls)
        tasks.append(
            Task(
                id=f"{identity}#{index}",
                messages=conversation.messages[:index],
                tools=conversation.tools,
                expect=expect_calls(message.tool_calls),
                category=category or shape,
                source=conversation.source,
            )
        )
    return tasks


def fingerprint(messages: Sequence[Message]) -> str:
    """Return a SHA-256 hash (hexadecimal) of what messages say; ids of calls do not count."""
    content = [
        [
            message.role,
            message.content,
            message.reasoning,
            [[call.name, call.arguments] for call in message.tool_calls],
        ]
        for message in messages
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    message = Message("assistant", tool_calls=tuple(calls))
    refuse_faults(Conversation((message,), tuple(tools), source="a task"))
