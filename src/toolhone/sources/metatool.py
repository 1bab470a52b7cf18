"""MetaTool: which tool (or which two) a question calls for, among many that sound alike. There are no arguments.

    Query,Tool                                                   and beside it   plugin_des.json
    What is a good book on bees?,BookFinder                      {"BookFinder": "Finds books.", ...}

    [{"query": "...", "tool": ["BookFinder", "NewsReader"]}]

Made for evaluation: a row gives a task that expects a call of each tool it names, in any order, and no conversation. The tools
take no parameters, so a call is right by its name alone. On offer are these tools and, seeded for each row, `distractors` others
(nine). The tools come from `plugin_des.json`, or from the file that `catalogue` names. A row that names a tool which is not
described there is counted and skipped. Format: Huang et al. 2023, arXiv:2310.03128.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip
from toolhone.sources.catalogue import beside, distractors, offer, read_json
from toolhone.sources.csv_rows import read_rows
from toolhone.sources.files import FileLine, Record

NAME = "metatool"
ABOUT = About(
    title="MetaTool (ToolE)",
    link="https://github.com/HowieHwong/MetaTool",
    licence="MIT",
    rows="about 21,000 questions for one tool, 497 for two",
    teaches="measures the choice of a tool by its description",
    only_tasks=True,
)
USES = frozenset({"distractors", "catalogue", "seed"})
DISTRACTORS = 9


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a MetaTool row"
    UNKNOWN_TOOL = "a tool that is not described"


def sniff(records: Sequence[Record]) -> bool:
    return all(record.keys() in ({"Query", "Tool"}, {"query", "tool"}) for record in records)


def read(path: Path, options: Options) -> Loaded:
    """Every row whose tools are described, as a task."""
    known = _catalogue(beside(path, ("plugin_des.json",), options.catalogue))
    count = distractors(path, options, DISTRACTORS, known)
    tally = ReadStats()
    for line, record in read_rows(path):
        try:
            query, names = _row(record, known)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep_tasks(
                [
                    _task(
                        line,
                        query,
                        names,
                        offer(names, known, count, f"{options.seed or 0}/{line.number}"),
                    )
                ]
            )
    return tally.loaded()


def _catalogue(path: Path) -> dict[str, Tool]:
    described = read_json(path)
    if (
        not isinstance(described, dict)
        or not described
        or not all(isinstance(text, str) for text in described.values())
    ):
        raise DataError(
            f"{path}: wanted one object from the name of each tool to its description, got {described!r:.60}"
        )
    return {name: Tool(name, text) for name, text in described.items()}


def _row(record: Record, known: dict[str, Tool]) -> tuple[str, list[str]]:
    query, named = record.get("Query", record.get("query")), record.get("Tool", record.get("tool"))
    names: list[Json] = named if isinstance(named, list) else [named]
    if not isinstance(query, str) or not query.strip() or not names:
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise Skip(Reason.UNKNOWN_TOOL, f"{name!r:.60}{nearest(str(name), known)}")
    return query.strip(), names


def _task(line: FileLine, query: str, names: Sequence[str], tools: tuple[Tool, ...]) -> Task:
    identity = f"{line.path.name.partition('.')[0]}-{line.number}"
    expect = Expect(tuple(ExpectedCall(name, {}) for name in names))
    category = "one_call" if len(names) == 1 else "several_calls"
    return Task(identity, (Message("user", query),), tools, expect, category=category, source=NAME)
