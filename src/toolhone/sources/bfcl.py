"""BFCL v4, the Berkeley Function-Calling Leaderboard: questions with tools, and beside them what counts as right.

    {"id": "parallel_0", "question": [[{"role", "content"}]], "function": [{"name", "parameters": {"type": "dict", ...}}]}
    possible_answer/<same name>:  {"id": "parallel_0", "ground_truth": [{"play": {"artist": ["X"], "minutes": [20, ""]}}]}

Made for evaluation: a row gives a task and no conversation. The beginning of its id is the task's category and says what its
answer means:

* simple, multiple, parallel: the calls, in any order, with all values that are accepted (`bfcl_answers`).
* irrelevance: no call is right; relevance: one call is, of whichever tool on offer. These have no file of answers.
* multi_turn: several user turns, each with its calls, in order (`bfcl_turns`). BFCL itself compares the states that calls lead
  to.
* web_search, memory: a final text that carries the answer, in one of its wordings. A question about a memory is three tasks, one
  for the tools of each kind of memory, as BFCL has it (`memory_kv`, `memory_rec_sum`, `memory_vector`).

Kept and noted: a right answer that its own tool does not allow; the long contexts, whose long texts BFCL's code makes up; questions
about a memory, which conversations in other files fill (without them the answer can only be guessed). Skipped, since nothing is
right there: those conversations themselves, and a parameter for which no value is accepted. Values of Java and JavaScript questions
are JSON values of the declared types, where BFCL's checker wants them as source text. Official scores come from the package
`bfcl-eval`. Format: Patil et al., ICML 2025.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.bfcl_answers import Reason as AnswerReason
from toolhone.sources.bfcl_answers import expected_call
from toolhone.sources.bfcl_turns import Documents, messages_of, turns_task
from toolhone.sources.files import Record, read_records
from toolhone.sources.loose_tools import LooseTools
from toolhone.sources.possible_answers import MISFIT, Answers, is_allowed

NAME = "bfcl"
ABOUT = About(
    title="BFCL v4 (Berkeley Function-Calling Leaderboard)",
    link="https://github.com/ShishirPatil/gorilla/tree/main/berkeley-function-call-leaderboard",
    licence="Apache-2.0",
    rows="4,696",
    teaches="measures calls: one, several, any, none, over several turns, with accepted values; and answers",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
EMPTY_MEMORY = "a memory that conversations in other files fill"
LONG_CONTEXT = "a long context that BFCL's code makes up and the file does not hold"
_CATEGORY = re.compile(r"([a-z_]+?)_\d")
_NO_CALL = ("irrelevance", "live_irrelevance")
_ANY_CALL = "live_relevance"
_MEMORY, _MEMORIES = "memory", ("kv", "rec_sum", "vector")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `bfcl_answers` and `possible_answers`."""

    NOT_THIS_FORMAT = "not a BFCL row"
    PREREQUISITE = "a conversation that fills a memory, in which nothing is right or wrong"


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
    is_turns = (
        isinstance(question, list)
        and bool(question)
        and all(isinstance(turn, list) for turn in question)
    )
    return (
        is_turns
        and isinstance(record.get("id"), str)
        and ("function" in record or "involved_classes" in record)
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose answer a task can say, as that task."""
    tally, beside = ReadStats(), _Beside(Answers(path), Documents(path), LooseTools())
    for line, record in read_records(path):
        try:
            tasks, repairs = _tasks(record, beside)
            notes = _notes(tasks[0])
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks(tasks, repairs)
        for note in notes:
            tally.note(note)
    return tally.loaded()


def _tasks(record: Record, beside: _Beside) -> tuple[list[Task], set[str]]:
    """The task of a row, or one for each kind of memory, and how the row was mended."""
    found = _CATEGORY.match(str(record.get("id")))
    if not _is_row(record) or found is None:
        raise Skip(Reason.NOT_THIS_FORMAT, f"id {record.get('id')!r:.40}, keys {sorted(record)}")
    category, identity = found[1], record["id"]
    if category.startswith("multi_turn"):
        task, repairs, cut = turns_task(
            identity, record, beside.answers.of(identity), beside.documents
        )
        repairs |= {Repair.CUT} if cut else set()
    elif category == "memory_prereq":
        raise Skip(Reason.PREREQUISITE)
    elif category == _MEMORY:
        return _memory_tasks(record, beside)
    elif category == "web_search":
        tools, repairs = beside.documents.of(record.get("involved_classes"))
        task = Task(identity, _messages(record), tools, _expect_answer(beside.answers.of(identity)))
    elif category == _ANY_CALL:
        tools, repairs = beside.tools.read(record.get("function"))
        task = Task(identity, _messages(record), tools, Expect(any_call=True))
    else:
        tools, repairs = beside.tools.read(record.get("function"))
        truth = None if category in _NO_CALL else beside.answers.of(identity)
        task = Task(identity, _messages(record), tools, _expect_calls(truth, tools))
    return [replace(task, category=category, source=NAME)], repairs


def _memory_tasks(record: Record, beside: _Beside) -> tuple[list[Task], set[str]]:
    """A question about a memory, for the tools of each kind of memory; the world names the memory."""
    messages, expect = _messages(record), _expect_answer(beside.answers.of(record["id"]))
    tasks, repairs = [], set[str]()
    for kind in _MEMORIES:
        tools, mended = beside.documents.of([f"MemoryAPI_{kind}"])
        category = f"{_MEMORY}_{kind}"
        identity = record["id"].replace(_MEMORY, category, 1)
        world = {"scenario": record.get("scenario")}
        tasks.append(
            Task(identity, messages, tools, expect, world=world, category=category, source=NAME)
        )
        repairs |= mended
    return tasks, repairs


def _messages(record: Record) -> tuple[Message, ...]:
    """The messages of a row with one turn."""
    if len(record["question"]) != 1 or not record["question"][0]:
        raise Skip(AnswerReason.BAD_QUESTION, f"wanted one turn, got {len(record['question'])}")
    return messages_of(record["question"][0])


def _expect_answer(truth: Json) -> Expect:
    """The answer in the first of its wordings, or in one of the others."""
    if not isinstance(truth, list) or not truth:
        raise Skip(AnswerReason.BAD_ANSWER, f"wanted a list of texts, got {truth!r:.60}")
    first, *others = dict.fromkeys(map(str, truth))
    return Expect(answer=first, alternatives=tuple(Expect(answer=other) for other in others))


def _expect_calls(truth: Json, tools: Sequence[Tool]) -> Expect:
    """The calls of an answer; no call where there is none."""
    if truth is None:
        return Expect(no_call=True)
    if not isinstance(truth, list) or not truth:
        raise Skip(AnswerReason.BAD_ANSWER, f"wanted a list of calls, got {truth!r:.60}")
    return Expect(tuple(expected_call(answer, tools) for answer in truth))


def _notes(task: Task) -> list[str]:
    """What to count of a task that is kept."""
    notes = [LONG_CONTEXT] if task.category == "multi_turn_long_context" else []
    notes += [EMPTY_MEMORY] if task.category.startswith(_MEMORY) else []
    expects = task.expects or (task.expect,)
    gold = [
        ToolCall(call.name, call.arguments) for expect in expects for call in expect.calls or ()
    ]
    return [*notes, MISFIT] if gold and not is_allowed(gold, task.tools) else notes
