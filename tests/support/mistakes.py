"""What the commands of docs/mistakes.md find in their folder, and how they are run."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from pathlib import Path
from unittest import mock

from toolhone.cli.main import main

TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Get an order.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}},
            "required": ["order_id"],
        },
    },
}


def row(number: int, name: str = "get_order", key: str = "order_id") -> str:
    call = {"id": "c1", "name": name, "arguments": {key: str(number)}}
    messages = [
        {"role": "user", "content": f"Where is order {number}?"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    return json.dumps({"messages": messages, "tools": [TOOL]}) + "\n"


def write_files(folder: Path) -> None:
    """Write the files that the page names."""
    rows = [row(number) for number in range(20)]
    made = {"tools": ["tools.py:area"], "data": {"strategy": "manual_templates", "max_samples": 20}}
    function = (
        'def area(width: int, height: int) -> int:\n    "The area."\n    return width * height\n'
    )
    files = {
        "rows.jsonl": "".join(rows),
        "one.jsonl": rows[0],
        "dataset.json": f'{{"version": 1, "train": [{", ".join(rows)}]}}',
        "broken.jsonl": '{"messages": [\n',
        "empty.jsonl": "",
        "wrong_arguments.jsonl": "".join(row(number, key="number") for number in range(20)),
        "unknown_tool.jsonl": "".join(row(number, "find_order") for number in range(20)),
        "table.csv": "question,answer\nhi,hello\n",
        "typo.json": '{"training": {"learning_rte": 0.001}}',
        "comma.json": '{"training": {"steps": 10} "seed": 1}',
        "tools.py": function,
        "tools.json": '{"name": "get_order"}',
        "openapi.json": '{"openapi": "3.0.0", "paths": {}}',
        "made.json": json.dumps(made),
        "model/notes.txt": "no model",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def run(line: str) -> tuple[int, str]:
    """Run a command line in this process; returns its exit code, and what it says on stderr."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", shlex.split(line)),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()
