"""A reader of the user, named in the experiment file: `data.format: "mine.py:rows"`.

    def rows(path):                                   # data.path as a pathlib.Path, or None
        yield {"messages": [...], "tools": [...]}     # or a toolhone.Conversation

A row that is neither stops the reading with one sentence. What the function raises keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolhone.config.user_code import import_callable
from toolhone.errors import DataError
from toolhone.schema import Conversation
from toolhone.sources.base import Converted, Loaded, ReadStats
from toolhone.sources.files import FileLine
from toolhone.sources.tasks import tasks_of


def read_own(spec: str, path: Path | None) -> Loaded:
    """Read all rows that the function `file.py:name` yields for `path`."""
    rows = import_callable(spec, Path.cwd(), "data.format")(path)
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise DataError(
            f"{spec}: wanted rows (conversations, or mappings with 'messages'), "
            f"got a {type(rows).__name__}"
        )
    stats = ReadStats()
    for number, row in enumerate(rows, start=1):
        line = FileLine(Path(spec), number, "row")
        conversation = _conversation(line, row)
        stats.keep(line, Converted(conversation, tasks_of(conversation)))
    loaded = stats.loaded()
    if not loaded.read:
        raise DataError(f"{spec}: it gave no row; wanted at least one conversation")
    return loaded


def _conversation(line: FileLine, row: Any) -> Conversation:
    if isinstance(row, Conversation):
        return row
    if not isinstance(row, Mapping):
        raise DataError(
            f"{line}: wanted a Conversation or a mapping with 'messages', "
            f"got a {type(row).__name__}"
        )
    try:
        return Conversation.from_dict(row)
    except DataError as error:
        raise DataError(f"{line}: {error}") from None
