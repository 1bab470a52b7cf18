"""For the tests of importers: rows into files, the formats that recognise them, and whether right
answers score as such.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolhone.rewards.attack_calls import sample_call
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.schema import Expect, ExpectedCall, Task, Tool, ToolCall
from toolhone.sources.files import read_records
from toolhone.sources.formats import detect


def write_rows(path: Path, *rows: Any) -> Path:
    """One row a line; gzip-compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def formats(path: Path) -> set[tuple[str, ...]]:
    """The format that each row of a file is detected as, alone."""
    return {tuple(filter(None, [detect(record)])) for _, record in read_records(path)}


def gold(expect: Expect, tools: Sequence[Tool] = ()) -> list[ToolCall]:
    """The calls that stand for the right answer; what it leaves open is made up from the tools."""
    return [
        _instance(call, tools) if call.any_arguments else ToolCall(call.name, call.arguments)
        for call in expect.wanted
    ]


def _instance(call: ExpectedCall, tools: Sequence[Tool]) -> ToolCall:
    return sample_call(next(tool for tool in tools if call.name in (tool.name, "")))


def is_right(task: Task, *calls: ToolCall) -> bool:
    return match_calls(calls, task.expect, task.tools).exact


def all_score(tasks: Sequence[Task]) -> bool:
    """Whether every right answer of every task, and of every turn, is an exact match."""
    expects = [
        (task, expect)
        for task in tasks
        for expect in task.expects or (task.expect,)
        if judges_calls(expect)
    ]
    return all(
        match_calls(gold(choice, task.tools), expect, task.tools).exact
        for task, expect in expects
        for choice in expect.choices
    )
