"""Hammer: prompts in marked sections with the calls in a code fence, and the dialogues that its tests are made from.

    {"instruction": "... [BEGIN OF AVAILABLE TOOLS] [tools] [END OF AVAILABLE TOOLS] ... [BEGIN OF QUERY] ... [END OF QUERY]",
     "input": "", "output": "```\\n[{\\"name\\": \\"f\\", \\"arguments\\": {}}]\\n```"}                                 for training
    the same, but for the query the turns of a dialogue, `<|im_start|>user\\n...<|im_end|>`                      a test
    {"query": [{"role": "user" | "agent" | "assistant" | "tool", "content": "..."}], "tools": [...], "answers": [...]}   a test

A training row becomes the query and its calls, with names masked as they are; one with an empty list gives a task that expects no
call. A test gives a task and no conversation. In its dialogue `agent` is the assistant that speaks and `assistant` the one that
calls; both are one here. Words of the assistant right before the wanted calls are left out, and so is the line `Generate API
Request:` (both counted). Answers may say `tool` and `parameters` for `name` and `arguments`. A right answer that its own tool
does not allow is kept and noted in a test, and skipped in training rows.

A test of one query with `name` and `arguments` has xLAM's shape and is read by `xlam`. A pair of `label` and `predict`, as for
trying out a scorer, has no question and is skipped. Format: Lin et al. 2024, arXiv:2410.04587.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.call_texts import Said, Talk, as_call, read_listed
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.loose_tools import LooseTools
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.offered import fitted, from_text, refuse_faults
from toolhone.sources.possible_answers import MISFIT, is_allowed
from toolhone.sources.tasks import tasks_of

NAME = "hammer"
ABOUT = About(
    title="Hammer (training example and tests)",
    link="https://github.com/MadeAgents/Hammer",
    licence="Apache-2.0",
    rows="about 1,000",
    teaches="calls of tools with masked names; its tests measure the next call of a dialogue",
)
USES: frozenset[str] = frozenset()
_TOOLS = re.compile(r"\[BEGIN OF AVAILABLE TOOLS\](.*?)\[END OF AVAILABLE TOOLS\]", re.DOTALL)
_QUERY = re.compile(r"\[BEGIN OF QUERY\](.*)\[END OF QUERY\]", re.DOTALL)
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?(.*?)```\s*", re.DOTALL)
_REQUEST = "Generate API Request:"


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a Hammer row"
    NO_QUESTION = "a label and a prediction without a question"
    BAD_TURN = "a turn of a dialogue that cannot be read"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `offered`, `loose_tools` and `call_texts`."""

    WORDS = "words of the assistant right before the wanted calls left out"
    REQUEST = "the line that asks for a request left out"


@dataclass(frozen=True)
class _Row:
    """A row: what was said, the tools, the right calls, whether it is for training, and how it was mended."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    calls: tuple[ToolCall, ...]
    teaches: bool = False
    repairs: set[str] = field(default_factory=set)


def sniff(records: Sequence[Record]) -> bool:
    return all(
        _is_prompt(record) or is_dialogue(record) or record.keys() == {"label", "predict"}
        for record in records
    )


def _is_prompt(record: Record) -> bool:
    texts = all(isinstance(record.get(key), str) for key in ("instruction", "output"))
    return texts and "[BEGIN OF AVAILABLE TOOLS]" in record["instruction"]


def is_dialogue(record: Record) -> bool:
    """Whether this is a test in Hammer's own shape, and not in xLAM's."""
    answers = record.get("answers")
    if "query" not in record or "tools" not in record or not isinstance(answers, list):
        return False
    return isinstance(record["query"], list) or any(
        isinstance(answer, dict) and "tool" in answer for answer in answers
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every training row with its task, and every test as a task."""
    tally, offered = ReadStats(), LooseTools()
    for line, record in read_records(path):
        try:
            _keep(tally, line, record, _row(record, offered))
        except Skip as skip:
            tally.skip(line, skip)
    return tally.loaded()


def _keep(tally: ReadStats, line: FileLine, record: Record, row: _Row) -> None:
    identity = identity_of(line, record)
    if row.teaches and row.calls:
        talk = Conversation(
            (*row.messages, Message("assistant", tool_calls=row.calls)), row.tools, identity, NAME
        )
        refuse_faults(talk)
        tally.keep(line, talk, tasks_of(talk), row.repairs)
        return
    misfit = bool(row.calls) and not is_allowed(row.calls, row.tools)
    expected = tuple(ExpectedCall(call.name, call.arguments) for call in row.calls)
    expect = Expect(expected) if expected else Expect(no_call=True)
    category = "several_calls" if len(expected) > 1 else "one_call" if expected else "no_call"
    tally.keep_tasks(
        [Task(identity, row.messages, row.tools, expect, category=category, source=NAME)],
        row.repairs,
    )
    if misfit:
        tally.note(MISFIT)


def _row(record: Record, offered: LooseTools) -> _Row:
    if record.keys() == {"label", "predict"}:
        raise Skip(Reason.NO_QUESTION)
    if _is_prompt(record):
        return _prompt(record, offered)
    if not {"query", "tools", "answers"} <= record.keys():
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    tools, repairs = offered.read(record["tools"])
    query = record["query"]
    turns = [_turn(entry) for entry in query] if isinstance(query, list) else [("user", str(query))]
    messages, mended = _dialogue(turns)
    return _fitted(messages, tools, _answers(record["answers"]), False, repairs | mended)


def _prompt(record: Record, offered: LooseTools) -> _Row:
    text, output = record["instruction"], _FENCED.fullmatch(record["output"])
    listed, query = _TOOLS.search(text), _QUERY.search(text)
    if listed is None or output is None:
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"no tools between their marks, or no code fence in the output {record['output']!r:.60}",
        )
    tools, repairs = offered.read(listed[1].strip())
    calls = _answers(output[1].strip())
    if query is not None:
        return _fitted((Message("user", query[1].strip()),), tools, calls, True, repairs)
    turns = [(found[1], found[2]) for found in _TURN.finditer(text, listed.end())]
    messages, mended = _dialogue(turns)
    return _fitted(messages, tools, calls, False, repairs | mended)


def _fitted(
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    calls: Sequence[ToolCall],
    teaches: bool,
    repairs: set[str],
) -> _Row:
    pairs = [fitted(call, tools) for call in calls]
    mended = {repair for _, made in pairs for repair in made}
    return _Row(messages, tools, tuple(call for call, _ in pairs), teaches, repairs | mended)


def _answers(value: Json) -> list[ToolCall]:
    """The right calls, also where they say `tool` and `parameters`."""
    answers = from_text(value, ToolReason.BAD_ANSWER, "answers")
    if not isinstance(answers, list):
        raise Skip(ToolReason.BAD_ANSWER, f"wanted a list of calls, got {answers!r:.60}")
    return [
        as_call({"name": answer["tool"], **answer} if _says_tool(answer) else answer)
        for answer in answers
    ]


def _says_tool(answer: Json) -> bool:
    return isinstance(answer, Mapping) and "tool" in answer and "name" not in answer


def _turn(entry: Json) -> tuple[str, str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise Skip(Reason.BAD_TURN, f"{entry!r:.80}")
    return str(entry.get("role")), entry["content"]


def _dialogue(turns: Sequence[tuple[str, str]]) -> tuple[tuple[Message, ...], set[str]]:
    """The messages up to the wanted calls."""
    talk = Talk()
    for role, text in turns:
        said = text.strip()
        if said.endswith(_REQUEST):
            said = said.removesuffix(_REQUEST).strip()
            talk.repairs.add(Repair.REQUEST)
        if role == "user":
            talk.say("user", said)
        elif role == "agent":
            talk.assistant(Said(said))
        elif role == "assistant":
            fenced = _FENCED.fullmatch(said)
            talk.assistant(read_listed(fenced[1] if fenced else said))
        elif role == "tool":
            talk.result(said)
        else:
            raise Skip(Reason.BAD_TURN, f"the role {role!r:.40}")
    messages, repairs = talk.messages, talk.repairs
    while messages and messages[-1].role == "assistant":
        if messages[-1].tool_calls:
            raise Skip(Reason.BAD_TURN, "the dialogue ends with calls, before their results")
        messages = messages[:-1]
        repairs.add(Repair.WORDS)
    if not messages:
        raise Skip(Reason.BAD_TURN, "nobody asks for anything")
    return tuple(messages), repairs
