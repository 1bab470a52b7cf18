"""API-Bank as ToolRL evaluates it: the system text with numbered tools, the dialogue so far, and the call that is right.

    {"system": "... **Available Tools** ...", "user": "**Dialogue Records History**\\n<user> ... </user> ...",
     "answer": [{"name": "f", "parameters": {...}}], "other": {...}}

A row becomes a task that expects the calls, after the whole dialogue; nothing to train on. `answer` is a list of calls, or one.
How the texts are read is said in `toolrl`. What a message says behind others of its role is joined to them, which is counted. No
parameter is marked optional, so one that the right call leaves out is made so, counted as well. A row whose right call does not
fit its tools is counted and skipped, since no model could pass it; calls earlier in the dialogue may be of tools no longer on
offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.text_calls import Said, as_call, fitting
from toolhone.sources.toolrl import add_dialogue, open_talk

NAME = "toolrl_api_bank"
ABOUT = About(
    title="API-Bank in ToolRL's form",
    link="https://github.com/qiancheng0/ToolRL",
    licence="Apache-2.0",
    rows="597",
    teaches="measures the next call after a dialogue of several turns, in three levels",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
_KEYS = ("system", "user", "answer")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `toolrl`, `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a row of ToolRL's API-Bank"
    NO_CALL = "an answer without a call"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `toolrl`, `offered` and `call_texts`."""

    OPTIONAL = "a parameter that the right call leaves out, made optional"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= set(_KEYS) and "**Available Tools**" in str(record["system"])
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row as a task."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            task, repairs = _task(line, record, offered)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep_tasks([task], repairs)
    return tally.loaded()


def _task(line: FileLine, record: Record, offered: OfferedTools) -> tuple[Task, set[str]]:
    system, user, answer = (record.get(key) for key in _KEYS)
    if (
        not isinstance(system, str)
        or not isinstance(user, str)
        or not isinstance(answer, list | dict)
    ):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    talk, tools = open_talk(system, offered)
    add_dialogue(talk, user, tools)
    calls = tuple(as_call(call) for call in (answer if isinstance(answer, list) else [answer]))
    if not calls:
        raise Skip(Reason.NO_CALL)
    said = fitting(Said(None, calls), tools)
    right = said.calls
    tools, loosened = _loosened(tools, right)
    asked, identity = Message("user", "?"), identity_of(line, record)
    refuse_faults(
        Conversation((asked, Message("assistant", tool_calls=right)), tools, identity, NAME)
    )
    expect = Expect(tuple(ExpectedCall(call.name, call.arguments) for call in right))
    repairs = talk.repairs | said.repairs | ({Repair.OPTIONAL} if loosened else set())
    return Task(
        identity, tuple(talk.messages), tools, expect, category=_category(record), source=NAME
    ), repairs


def _loosened(tools: Sequence[Tool], right: Sequence[ToolCall]) -> tuple[tuple[Tool, ...], bool]:
    """The tools without the duty to give what the right calls leave out: API-Bank does not say which parameters must be given."""
    made = []
    for tool in tools:
        given = [call.arguments.keys() for call in right if call.name == tool.name]
        needed = list(tool.parameters.get("required") or [])
        kept = [name for name in needed if all(name in keys for keys in given)]
        made.append(
            tool
            if kept == needed
            else Tool(tool.name, tool.description, {**tool.parameters, "required": kept})
        )
    return tuple(made), made != list(tools)


def _category(record: Record) -> str:
    """The level, which only the name of the dialogue's file tells."""
    other = record.get("other")
    name = str(other.get("file", "")) if isinstance(other, dict) else ""
    level = name.partition("-level-")[2][:1]
    return f"level_{level}" if level.isdigit() else "next_call"
