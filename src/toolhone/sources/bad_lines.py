"""Broken lines that do not stop the reading: who asks for it gets them collected, with what is wrong and their text.

    with passing_over(path) as broken:              # a file, or a folder and all files in it
        rows = list(read_rows(path))
    for line, found in broken.items(): ...          # data.jsonl, line 7: not JSON: ...

Broken are lines (entries, rows of a table) by themselves: no JSON object, not UTF-8, fields that are too many or too few. Damaged
gzip data, and a file without any row, stop as ever. What is to become of broken lines is up to who asked; nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolhone.errors import DataError

if TYPE_CHECKING:
    from toolhone.sources.files import FileLine


@dataclass(frozen=True)
class BadLine:
    """A line that is no row: what is wrong with it, and its text."""

    why: str
    text: str


_asked: ContextVar[tuple[Path, dict[FileLine, BadLine]] | None] = ContextVar("asked", default=None)


@contextmanager
def passing_over(path: Path) -> Iterator[dict[FileLine, BadLine]]:
    """Within the block, broken lines of this file, or of files in this folder, are collected, each once."""
    found: dict[FileLine, BadLine] = {}
    token = _asked.set((path, found))
    try:
        yield found
    finally:
        _asked.reset(token)


def pass_over(line: FileLine, error: DataError, text: str) -> None:
    """Collect a broken line where that is asked for; anywhere else raise the error."""
    wanted = _asked.get()
    if wanted is None or wanted[0] not in (line.path, *line.path.parents):
        raise error
    wanted[1][line] = BadLine(str(error).removeprefix(f"{line}: "), text)


def passed_over() -> Mapping[FileLine, BadLine]:
    """What was collected so far."""
    wanted = _asked.get()
    return {} if wanted is None else wanted[1]
