"""BFCL v4, the Berkeley Function-Calling Leaderboard: questions with tools, and beside them what counts as right.

    {"id": "parallel_0", "question": [[{"role", "content"}]], "function": [{"name", "parameters": {"type": "dict", ...}}]}
    possible_answer/<same name>:  {"id": "parallel_0", "ground_truth": [{"play": {"artist": ["X"], "minutes": [20, ""]}}]}

Made for evaluation: a row gives a task and no conversation. The beginning of its id is the task's category and says what its
answer means:

* simple, multiple, parallel: the calls, in any order, with all values that are accepted (`bfcl_answers`).
* irrelevance: no call is right; these have no file of answers.
* multi_turn: several user turns, each with its calls, in order (`bfcl_turns`). BFCL itself compares the states that calls lead
  to.
* web_search: a final text that carries the answer.

Skipped, since a task cannot say it: `live_relevance` (any call is right), `memory` (earlier conversations fill a memory, and are
in other files) and web searches with several accepted wordings. A right answer that its own tool does not allow is kept and
noted; so are the long contexts, whose long texts BFCL's code makes up. Values of Java and JavaScript questions are JSON values of
the declared types, where BFCL's checker wants them as source text. Official scores come from the package `bfcl-eval`. Format:
Patil et al., ICML 2025.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.data.files import Record, read_records
from toolhone.data.sources.base import About, Loaded, Options, Skip, Tally
from toolhone.data.sources.bfcl_answers import Reason as AnswerReason
from toolhone.data.sources.bfcl_answers import expected_call
from toolhone.data.sources.bfcl_turns import Documents, messages_of, turns_task
from toolhone.data.sources.loose_tools import LooseTools
from toolhone.data.sources.possible_answers import MISFIT, Answers, is_allowed
from toolhone.schema import Expect, Json, Message, Task, Tool, ToolCall

NAME = "bfcl"
ABOUT = About(
    title="BFCL v4 (Berkeley Function-Calling Leaderboard)",
    link="https://github.com/ShishirPatil/gorilla/tree/main/berkeley-function-call-leaderboard",
    licence="Apache-2.0",
    rows="4,696",
    teaches="measures calls: one, several, none, over several turns, with accepted values",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
LONG_CONTEXT = "a long context that BFCL's code makes up and the file does not hold"
_CATEGORY = re.compile(r"([a-z_]+?)_\d")
_NO_CALL = ("irrelevance", "live_irrelevance")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `bfcl_answers` and `possible_answers`."""

    NOT_THIS_FORMAT = "not a BFCL row"
    ANY_CALL = "a question for which any call is right"
    MEMORY = "a question about a memory that earlier conversations fill"
    WORDINGS = "a question with several accepted wordings of the answer"


class Repair(StrEnum):
    """How a row was mended; besides this, the repairs of `offered` and `loose_tools`."""

    CUT = "the turns from where a tool is added left out"


@dataclass(frozen=True)
class _Beside:
    """What is read for the rows of one file."""

    answers: Answers
    documents: Documents
    tools: LooseTools


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    question = record.get("question")
    is_turns = isinstance(question, list) and bool(question) and all(isinstance(turn, list) for turn in question)
    return is_turns and isinstance(record.get("id"), str) and ("function" in record or "involved_classes" in record)


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose answer a task can say, as that task."""
    tally, beside = Tally(), _Beside(Answers(path), Documents(path), LooseTools())
    for line, record in read_records(path):
        try:
            task, repairs = _task(record, beside)
            notes = _notes(task)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks([task], repairs)
        for note in notes:
            tally.note(note)
    return tally.loaded()


def _task(record: Record, beside: _Beside) -> tuple[Task, set[str]]:
    """The task of a row and how it was mended."""
    found = _CATEGORY.match(str(record.get("id")))
    if not _is_row(record) or found is None:
        raise Skip(Reason.NOT_THIS_FORMAT, f"id {record.get('id')!r:.40}, keys {sorted(record)}")
    category, identity = found[1], record["id"]
    if category.startswith("multi_turn"):
        task, repairs, cut = turns_task(identity, record, beside.answers.of(identity), beside.documents)
        repairs |= {Repair.CUT} if cut else set()
    elif category in ("memory", "memory_prereq"):
        raise Skip(Reason.MEMORY)
    elif category == "live_relevance":
        raise Skip(Reason.ANY_CALL)
    elif category == "web_search":
        tools, repairs = beside.documents.of(record.get("involved_classes"))
        expect = Expect(answer=_one_wording(beside.answers.of(identity)))
        task = Task(identity, _messages(record), tools, expect)
    else:
        tools, repairs = beside.tools.read(record.get("function"))
        truth = None if category in _NO_CALL else beside.answers.of(identity)
        task = Task(identity, _messages(record), tools, _expect_calls(truth, tools))
    return replace(task, category=category, source=NAME), repairs


def _messages(record: Record) -> tuple[Message, ...]:
    """The messages of a row with one turn."""
    if len(record["question"]) != 1 or not record["question"][0]:
        raise Skip(AnswerReason.BAD_QUESTION, f"wanted one turn, got {len(record['question'])}")
    return messages_of(record["question"][0])


def _one_wording(truth: Json) -> str:
    if not isinstance(truth, list) or not truth:
        raise Skip(AnswerReason.BAD_ANSWER, f"wanted a list of texts, got {truth!r:.60}")
    if len(truth) > 1:
        raise Skip(Reason.WORDINGS, f"{truth!r:.80}")
    return str(truth[0])


def _expect_calls(truth: Json, tools: Sequence[Tool]) -> Expect:
    """The calls of an answer; no call where there is none."""
    if truth is None:
        return Expect(no_call=True)
    if not isinstance(truth, list) or not truth:
        raise Skip(AnswerReason.BAD_ANSWER, f"wanted a list of calls, got {truth!r:.60}")
    return Expect(tuple(expected_call(answer, tools) for answer in truth))


def _notes(task: Task) -> list[str]:
    """What to count of a task that is kept."""
    notes: list[str] = [LONG_CONTEXT] if task.category == "multi_turn_long_context" else []
    expects = task.expects or (task.expect,)
    gold = [ToolCall(call.name, call.arguments) for expect in expects for call in expect.calls or ()]
    return [*notes, MISFIT] if gold and not is_allowed(gold, task.tools) else notes
