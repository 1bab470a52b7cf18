"""Tasks from whatever file a user has: our own form, or any format that `open_source` reads.

    tasks = tasks_from_any("test_cases.json", tools, tell=print)

A file whose first row has `expect` is in our own form and is read by `read_tasks`, strictly. Of any other the format is told from
its first rows, and each kept row gives its tasks; repeated ids get a number, since predictions are joined on ids. Rows that were
skipped are said through `tell`; without it they stop the reading, for nobody would learn of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

from toolhone.errors import DataError
from toolhone.schema import Task, Tool
from toolhone.sources import toolbench
from toolhone.sources.base import SourceOptions, rows_of
from toolhone.sources.files import is_table, read_lines
from toolhone.sources.messages import read_tasks
from toolhone.sources.registry import SOURCES, detect_format, open_source, options_of


def tasks_from_any(
    path: str | Path,
    tools: Sequence[Tool] = (),
    tell: Callable[[str], None] | None = None,
    asked: SourceOptions | None = None,
) -> list[Task]:
    """The tasks of a file. `tools` are on offer where the file itself has none (none given: the built-in tools).

    asked: options of a source; those that the file's format does not have are left out.
    """
    path = Path(path)
    if _is_own_form(path):
        return read_tasks(path)
    name = detect_format(path)
    wanted: SourceOptions = {**(asked or {}), **({"tools": tools} if tools else {})}
    loaded = open_source(
        path,
        name,
        **cast(
            SourceOptions,
            {key: value for key, value in wanted.items() if key in options_of(SOURCES[name])},
        ),
    )
    said = f"{path}: {loaded.summary()}; for example: {next(iter(loaded.examples.values()), '')}"
    if not loaded.tasks or (loaded.skipped and tell is None):
        raise DataError(said if loaded.skipped else f"{path}: its rows give no task")
    if loaded.skipped and tell is not None:
        tell(said)
    return distinct(loaded.tasks)


def gives_only_tasks(path: str | Path) -> bool:
    """Whether a file holds tasks and no conversations: our own form, or a format that was made for evaluation."""
    path = Path(path)
    if _is_own_form(path):
        return True
    name = detect_format(path)
    if name != toolbench.NAME:
        return SOURCES[name].ABOUT.only_tasks
    first = next(rows_of(path))[1]
    return isinstance(first, dict) and toolbench.is_query(first)


def _is_own_form(path: Path) -> bool:
    if path.is_dir() or is_table(path):
        return False
    with closing(read_lines(path)) as rows:
        first = next(rows)[1]
    return isinstance(first, dict) and "expect" in first


def distinct(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with a number behind every id that occurs before."""
    seen: Counter[str] = Counter()
    result = []
    for task in tasks:
        seen[task.id] += 1
        result.append(
            task if seen[task.id] == 1 else replace(task, id=f"{task.id}~{seen[task.id]}")
        )
    return result
