"""Tasks of a file in any format that sources read, and checks of tasks before they are played.

    tasks = tasks_from_any("test_cases.json", tools, report=print)

A file is in our own form if at least half of its first rows have `expect`; any other format is
detected. Skipped rows are reported through `report`, and without it they are an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from toolhone.data.splits import opening
from toolhone.errors import DataError
from toolhone.schema import Conversation, Task, Tool
from toolhone.sources import toolbench
from toolhone.sources.files import RecordStream, is_table, open_records
from toolhone.sources.formats import ABOUT, SOURCES, detect_format, open_source
from toolhone.sources.messages import read_tasks
from toolhone.sources.source import SourceOptions, tasks_of

_SPOKEN = {"messages", "prompt", "completion"}
"""Keys of a conversation in the form of messages."""


def tasks_from_any(
    source: str | Path | RecordStream,
    tools: Sequence[Tool] = (),
    report: Callable[[str], None] | None = None,
    options: SourceOptions | None = None,
    skipped: list[str] | None = None,
) -> list[Task]:
    """Return the tasks of a file, with unique ids.

    tools: for files without tools (default: the built-in ones). options: unknown ones are ignored.
    skipped: gets a sentence on each row that gives no task.
    """
    stream = open_records(source)
    if is_own_form(stream):
        unread = None if report is None else Counter[str]()
        tasks = read_tasks(stream, unread, tools, report, skipped)
        if unread and report is not None:
            names = ", ".join(f"{count} {name}" for name, count in unread.most_common())
            report(f"{stream.path}: keys not read: {names}")
        return tasks
    name = detect_format(stream)
    wanted = {**(options or {}), **({"tools": tools} if tools else {})}
    known = {key: value for key, value in wanted.items() if key in SOURCES[name].options}
    loaded = open_source(stream, name, **cast(SourceOptions, known))
    if skipped is not None:
        skipped += [f"{row.line}: {row.reason}" for row in loaded.refused]
    summary = f"{stream.path}: {loaded.summary(examples=True)}"
    if not loaded.tasks or (loaded.skipped and report is None):
        raise DataError(summary if loaded.skipped else f"{stream.path}: its rows give no task")
    if (loaded.skipped or loaded.unread) and report is not None:
        report(summary)
    return distinct(loaded.tasks)


def gives_only_tasks(source: str | Path | RecordStream) -> bool:
    """Tell whether a file holds tasks alone: our own form without a row of messages that expects
    nothing, or a format made for evaluation."""
    stream = open_records(source)
    if is_own_form(stream):
        rows = [row for _, row in stream.read_ahead() if isinstance(row, dict)]
        return all(row.get("expect") is not None for row in rows if _SPOKEN & row.keys())
    name = detect_format(stream)
    if name != toolbench.TOOLBENCH.name:
        return ABOUT[name].only_tasks
    file = stream.files[0] if stream.path.is_dir() else stream
    first = file.first[0][1]
    return isinstance(first, dict) and toolbench.is_query(first)


def is_own_form(stream: RecordStream) -> bool:
    """Tell whether at least half of the first rows of a file have `expect`."""
    if stream.path.is_dir() or is_table(stream.path):
        return False
    records = [row for _, row in stream.first if isinstance(row, dict)]
    expecting = sum(row.get("expect") is not None for row in records)
    return bool(records) and 2 * expecting >= len(records)


def distinct(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with a number appended to every id that occurred before."""
    seen: Counter[str] = Counter()
    result = []
    for task in tasks:
        seen[task.id] += 1
        number = seen[task.id]
        result.append(task if number == 1 else replace(task, id=f"{task.id}~{number}"))
    return result


def tasks_beside(tasks: Sequence[Task], conversations: Sequence[Conversation]) -> list[Task]:
    """The tasks that start like one of these conversations.

    Where no such task is judged by calls, every assistant turn of the conversations is one as well.
    """
    openings = {opening(conversation) for conversation in conversations}
    found = [task for task in tasks if opening(task) in openings]
    if any(task.expect.wanted or task.expect.no_call for task in found):
        return found
    own = {task.id: [task] for task in found}
    return [task for one in conversations for task in (*own.get(one.id, []), *tasks_of(one))]


def check_ids(tasks: Sequence[Task]) -> None:
    """Raise `DataError` for an empty list of tasks and for repeated ids, which join samples."""
    if not tasks:
        raise DataError("there are no tasks; wanted at least one")
    repeated = [name for name, count in Counter(task.id for task in tasks).items() if count > 1]
    if repeated:
        wrong = f"the task id {repeated[0]!r} occurs more than once"
        raise DataError(f"{wrong}; ids must differ, since answers are joined on them")


def refuse_unplayable(tasks: Sequence[Task]) -> None:
    """Raise `DataError` for tasks that an episode cannot play."""
    found = [task for task in tasks if task.unplayable]
    if not found:
        return
    what, wanted = "several user turns ('turns')", "tasks with 'messages'"
    if not found[0].turns:
        what = "a final state as the right answer ('expect.state') and no 'world' that has it"
        wanted = "'calls', 'no_call', 'answer', or 'state' with a 'world'"
    wrong = f"{len(found)} of {len(tasks)} tasks cannot be played: {found[0].id!r} has {what}"
    raise DataError(f"{wrong}; supported are {wanted} so far")
