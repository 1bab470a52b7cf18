"""xLAM: a query, the tools on offer and the calls that answer it, in columns that hold JSON texts. Also as a CSV file.

    {"id": 7, "query": "...", "tools": "[{\"name\", \"description\", \"parameters\": {\"n\": {\"type\": \"int\"}}}]",
     "answers": "[{\"name\": \"f\", \"arguments\": {\"n\": 5}}]"}

`tools` and `answers` may be lists, too; tools and calls may have OpenAI's form (`offered` says what is read and how null padding of
merged tables and arguments of another type are mended). Other columns are passed over, among them `messages` and an index without a
name. A row becomes a user message and one assistant turn with all its calls, and a task that expects them in any order. A row whose
`answers` are an empty list has nothing to say; it gives a task that expects no call. A row whose calls do not fit its tools is
counted and skipped. Format: Liu et al. 2024, arXiv:2406.18518.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, Message, Task, Tool, ToolCall
from toolhone.sources import hammer
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.csv_rows import read_rows
from toolhone.sources.files import Record
from toolhone.sources.offered import OfferedTools, Repair, fitted, from_text, refuse_faults
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.tasks import tasks_of

NAME = "xlam"
ABOUT = About(
    title="xLAM function calling 60k (APIGen)",
    link="https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k",
    licence="CC-BY-4.0",
    rows="60,000",
    teaches="single and parallel calls from a list of tools",
)
USES: frozenset[str] = frozenset()


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`."""

    NOT_THIS_FORMAT = "not an xLAM row"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= {"query", "tools", "answers"} and not hammer.is_dialogue(record)
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls fit its tools, with its task."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_rows(path):
        try:
            query = _query(record)
            tools, repairs = offered.read(record.get("tools"))
            calls, mended = _calls(record, tools)
            identity = identity_of(line, record)
            if not calls:
                tally.keep_tasks([_no_call(identity, query, tools)], repairs)
                continue
            talk = Conversation(
                (Message("user", query), Message("assistant", tool_calls=calls)),
                tools,
                identity,
                NAME,
            )
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk), repairs | mended)
    return tally.loaded()


def _query(record: Record) -> str:
    query = record.get("query")
    if not isinstance(query, str) or not query.strip():
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted a text in 'query', got {query!r:.60}; keys {sorted(record)}",
        )
    return query


def _calls(record: Record, tools: Sequence[Tool]) -> tuple[tuple[ToolCall, ...], set[Repair]]:
    answers = from_text(record.get("answers"), ToolReason.BAD_ANSWER, "answers")
    if not isinstance(answers, list):
        raise Skip(ToolReason.BAD_ANSWER, f"wanted a list of calls, got {answers!r:.60}")
    calls, repairs = [], set()
    for answer in answers:
        try:
            call, mended = fitted(
                ToolCall.from_dict(from_text(answer, ToolReason.BAD_ANSWER, "answers")), tools
            )
        except DataError as error:
            raise Skip(ToolReason.BAD_ANSWER, str(error)) from None
        calls.append(call)
        repairs |= mended
    return tuple(calls), repairs


def _no_call(identity: str, query: str, tools: tuple[Tool, ...]) -> Task:
    return Task(
        identity,
        (Message("user", query),),
        tools,
        Expect(no_call=True),
        category="no_call",
        source=NAME,
    )
