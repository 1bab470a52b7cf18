"""For the tests of importers: rows into files, the formats that recognise them, and whether right answers score as such."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolhone.data.files import read_records
from toolhone.data.sources import SOURCES
from toolhone.rewards.matching import match_calls
from toolhone.schema import Expect, Task, ToolCall


def write_rows(path: Path, *rows: Any) -> Path:
    """One row a line; gzip-compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def formats(path: Path) -> set[tuple[str, ...]]:
    """The formats that recognise each row of a file."""
    return {tuple(name for name, source in SOURCES.items() if source.sniff([record])) for _, record in read_records(path)}


def gold(expect: Expect) -> list[ToolCall]:
    """The calls that stand for the right answer."""
    return [ToolCall(call.name, call.arguments) for call in expect.calls or ()]


def is_right(task: Task, *calls: ToolCall) -> bool:
    return match_calls(calls, task.expect, task.tools).exact


def all_score(tasks: Sequence[Task]) -> bool:
    """Whether the right answer of every task, and of every turn, is an exact match."""
    expects = [(task, expect) for task in tasks for expect in task.expects or (task.expect,) if expect.calls or expect.no_call]
    return all(match_calls(gold(expect), expect, task.tools).exact for task, expect in expects)
