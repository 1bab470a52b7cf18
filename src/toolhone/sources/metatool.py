"""MetaTool: which tool (or which two) a question calls for, among many that sound alike.

    Query,Tool                                                   and beside it   plugin_des.json
    What is a good book on bees?,BookFinder                      {"BookFinder": "Finds books.", ...}

    [{"query": "...", "tool": ["BookFinder", "NewsReader"]}]

A row gives a task that expects a call of each tool, in any order. The tools take no parameters.
Format: Huang et al. 2023, arXiv:2310.03128.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source, expect_calls
from toolhone.sources.catalogue import (
    CATALOGUE_OPTIONS,
    choose_tools,
    count_distractors,
    find_beside,
)
from toolhone.sources.files import Record, read_json

DISTRACTORS = 9


def looks_like(record: Record) -> bool:
    return record.keys() in ({"Query", "Tool"}, {"query", "tool"})


def prepare(_records: Sequence[Record], context: Context) -> tuple[dict[str, Tool], int]:
    path = find_beside(context, ["plugin_des.json"])
    described = read_json(path)
    texts = described.values() if isinstance(described, dict) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{path}: wanted one object from the name of each tool to its description, "
            f"got {described!r:.60}"
        )
    known = {name: Tool(name, text) for name, text in described.items()}
    return known, count_distractors(context, DISTRACTORS, len(known))


def convert(record: Record, context: Context) -> Task:
    known, count = context.prepared
    query, named = record.get("Query", record.get("query")), record.get("Tool", record.get("tool"))
    names: list[Json] = named if isinstance(named, list) else [named]
    if not isinstance(query, str) or not query.strip() or not names:
        raise Skip("not a MetaTool row", f"keys {sorted(record)}")
    for name in names:
        if not isinstance(name, str) or name not in known:
            detail = f"{name!r:.60}{nearest(str(name), known)}"
            raise Skip("a tool that is not described", detail)
    seed = f"{context.options.get('seed') or 0}/{context.line.number}"
    tools = choose_tools(names, known, count, seed)
    expect = expect_calls([ToolCall(name, {}) for name in names])
    return Task(context.identity({}), (Message("user", query.strip()),), tools, expect)


METATOOL = Source("metatool", looks_like, convert, prepare, options=CATALOGUE_OPTIONS)
