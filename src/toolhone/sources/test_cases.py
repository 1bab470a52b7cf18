"""Test cases of a tool: a prompt, the tool it wants and its parameters. No tools are in the file.

    {"prompt": "Human: What is 25 multiplied by 4?", "expected_tool": "calculator", "expected_params": {"expression": "25 * 4"}}

The tools on offer are those of the option `tools`, or else the built-in ones. "Human:" before the prompt and "Assistant:" behind it
are taken off. A case becomes a task that expects the call (its category is the tool's name), and a conversation of the question and
the call. Where `expected_tool` is null or empty, the task expects no call, and there is nothing to learn from. A case whose call
does not fit the tools is counted and skipped, since no model could pass it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Expect, Message, Task, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.sources.offered import fitted, from_text, refuse_faults
from toolhone.sources.tasks import tasks_of
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.registry import Registry

NAME = "test_cases"
ABOUT = About(
    title="test cases of a tool",
    link="",
    licence="as the data set",
    rows="any",
    teaches="the one right call of each case, or none",
)
USES = frozenset({"tools"})


class Reason(StrEnum):
    """Why a case is skipped; besides these, the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a test case"
    NO_TOOL = "expected_params without an expected_tool"


def sniff(records: Sequence[Record]) -> bool:
    return all("prompt" in record and "expected_tool" in record for record in records)


def read(path: Path, options: Options) -> Loaded:
    """Every case that can be passed with the tools on offer."""
    tools = Registry(BUILTIN).tools if options.tools is None else tuple(options.tools)
    tally = ReadStats()
    for line, record in read_records(path):
        identity = identity_of(line, record)
        try:
            user, call = Message("user", _question(record)), _call(record)
            if call is None:
                expect = Expect(no_call=True)
                tally.keep_tasks(
                    [Task(identity, (user,), tools, expect, category="no_call", source=NAME)]
                )
                continue
            call, repairs = fitted(call, tools)
            talk = Conversation(
                (user, Message("assistant", tool_calls=(call,))), tools, identity, NAME
            )
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk, call.name), repairs)
    return tally.loaded()


def _question(record: Record) -> str:
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or "expected_tool" not in record:
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    question = prompt.strip().removeprefix("Human:").removesuffix("Assistant:").strip()
    if not question:
        raise Skip(Reason.NOT_THIS_FORMAT, f"the prompt {prompt!r:.60} asks nothing")
    return question


def _call(record: Record) -> ToolCall | None:
    name = record["expected_tool"]
    given = from_text(
        record.get("expected_params") or {}, Reason.NOT_THIS_FORMAT, "expected_params"
    )
    if not isinstance(name, str | None) or not isinstance(given, dict):
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"expected_tool {name!r:.40}, expected_params {given!r:.60}"
        )
    if not name and given:
        raise Skip(Reason.NO_TOOL, f"{given!r:.60}")
    return ToolCall(name, given) if name else None
