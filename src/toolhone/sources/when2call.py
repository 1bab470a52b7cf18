"""When2Call: a request with tools, and which decision is right: call, ask back, or say that it cannot be done.

    {"uuid": "...", "question": "...", "tools": ["{\\"name\\": \\"f\\", ...}"], "correct_answer": "tool_call",
     "answers": {"tool_call": "{\\"name\\": \\"f\\", \\"arguments\\": {}}", "request_for_info": "...", ...}}

The test set, made for evaluation: a row gives a task and no conversation. `tool_call` expects the call of `answers`;
`request_for_info` and `cannot_answer` expect no call, whatever is said instead; the category is the decision. The calls were
written by a model: one that its own tool does not allow is kept and noted. The training sets are in the messages format. Format:
Ross et al. 2025, arXiv:2504.18851.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.sources.loose_tools import LooseTools
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.offered import fitted, from_text
from toolhone.sources.possible_answers import MISFIT, is_allowed

NAME = "when2call"
ABOUT = About(
    title="When2Call (test)",
    link="https://github.com/NVIDIA/When2Call",
    licence="Apache-2.0 or CC-BY-4.0 (the publishers say both)",
    rows="3,652, and 300 for a judge",
    teaches="measures whether to call, to ask back or to decline",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
CALL = "tool_call"
NO_CALL = ("request_for_info", "cannot_answer")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a When2Call row"
    DECISION = "a decision that is neither a call nor none"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= {"question", "tools", "correct_answer", "answers"} for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row as a task."""
    tally, offered = ReadStats(), LooseTools()
    for line, record in read_records(path):
        try:
            task, repairs = _task(identity_of(line, {"id": record.get("uuid")}), record, offered)
            gold = [ToolCall(call.name, call.arguments) for call in task.expect.calls or ()]
            misfit = bool(gold) and not is_allowed(gold, task.tools)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks([task], repairs)
        if misfit:
            tally.note(MISFIT)
    return tally.loaded()


def _task(identity: str, record: Record, offered: LooseTools) -> tuple[Task, set[str]]:
    """The task of a row and how it was mended."""
    question, decision = record.get("question"), record.get("correct_answer")
    if not isinstance(question, str) or not question.strip():
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted a text in 'question', got {question!r:.60}; keys {sorted(record)}",
        )
    tools, repairs = offered.read(record.get("tools"))
    if decision == CALL:
        expect, mended = _expect_call(record, tools)
        repairs |= mended
    elif decision in NO_CALL:
        expect = Expect(no_call=True)
    else:
        raise Skip(Reason.DECISION, f"{decision!r:.40}; known: {CALL}, {', '.join(NO_CALL)}")
    return Task(
        identity, (Message("user", question),), tools, expect, category=decision, source=NAME
    ), repairs


def _expect_call(record: Record, tools: Sequence[Tool]) -> tuple[Expect, set[str]]:
    answers = record.get("answers")
    if not isinstance(answers, dict) or not answers.get(CALL):
        raise Skip(ToolReason.BAD_ANSWER, f"'answers' has no {CALL!r}: {answers!r:.60}")
    try:
        call, repairs = fitted(
            ToolCall.from_dict(from_text(answers[CALL], ToolReason.BAD_ANSWER, CALL)), tools
        )
    except DataError as error:
        raise Skip(ToolReason.BAD_ANSWER, str(error)) from None
    return Expect((ExpectedCall(call.name, call.arguments),)), set(repairs)
