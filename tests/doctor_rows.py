"""Rows for the tests of the data doctor: one tool, short turns, and what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from toolhone.data.doctor.diagnose import Diagnosis, diagnose
from toolhone.data.doctor.findings import Kind
from toolhone.data.doctor.reading import read_file

Row = dict[str, Any]
PARAMETERS: Row = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "options": {"type": "object"}},
    "required": ["city"],
}
WEATHER: Row = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}}
OTHER: Row = {"type": "function", "function": {"name": "search", "description": "Finds.", "parameters": {"type": "object"}}}
OSLO = {"name": "get_weather", "arguments": {"city": "Oslo"}}


def say(text: str | None, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def calling(name: str = "get_weather", arguments: Any = None, **more: Any) -> Row:
    body = {"name": name, "arguments": {"city": "Oslo"} if arguments is None else arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": body, **more}]}


def answer(text: str = "rain", **more: Any) -> Row:
    return {"role": "tool", "content": text, **more}


def row(*turns: Row, question: str = "Rain in Oslo?", tools: Any = (WEATHER, OTHER), **more: Any) -> Row:
    return {"messages": [{"role": "user", "content": question}, *turns], "tools": list(tools), **more}


def numbered(rows: list[Row]) -> list[Row]:
    """The rows with questions of their own, so that none repeats another."""
    for number, one in enumerate(rows):
        one["messages"][0]["content"] += f" ({number})"
    return rows


def save(path: Path, *rows: Row | str) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows), encoding="utf-8")
    return path


def examine(path: Path, *rows: Row | str) -> Diagnosis:
    return diagnose([read_file(save(path / "rows.jsonl", *rows))])


def kinds(path: Path, *rows: Row | str) -> Counter[Kind]:
    return examine(path, *rows).findings.counts
