"""Prompt rows of GRPO training: one string with a system sentence, the tools and the question; the answer as Python-style calls.

    {"prompt": "You have these functions.\n\n[{\"name\": \"f\", \"parameters\": {\"n\": {\"type\": \"int\"}}}]\n\nWhat is f of 5?",
     "answer": "f(n=5)\nf(n=7)", "type": "tool_call", "ground_truth": "f", "possible_boxed_answers": ["f"], ...}

The prompt is split at the JSON list of its tools (`offered` says how these are read): a system message, the tools, the user's
question. Newer rows have the tools in `tools`, the question alone in `prompt`, and `<tool_call>` blocks as the answer. An answer is
read without being evaluated: calls with literals, on lines of their own or one after another, positional values going to the
parameters in order. An answer without calls is a plain reply, and its task expects no call.

Checked are the calls against the tools; `ground_truth` (the name of a called tool, or the answer again) against the calls; and
`possible_boxed_answers` against the names on offer. Rows that contradict themselves, and rows of another `type`, are counted and
skipped. `ground_truth_text`, `is_multi_answer` and `confidence` say nothing more and are passed over. Tasks expect the calls in any
order, although the system that this shape comes from compares by position: a question for several calls at once does not fix one.

With `raw_prompt` nothing is split: the prompt is the user's message, the answer the assistant's text, no tool is on offer, and the
task expects the answer in the final text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import KEYWORD, LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode
from toolhone.dialects.syntax.python_calls import Calls
from toolhone.dialects.syntax.tagged import ToolCallTags
from toolhone.schema import Conversation, Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, fitted, refuse_faults
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.tasks import tasks_of

NAME = "prompt_rows"
ABOUT = About(
    title="prompt rows of GRPO training",
    link="",
    licence="as the data set",
    rows="any",
    teaches="calls from tools listed in the prompt",
)
USES = frozenset({"raw_prompt"})
MAX_LISTS = 200
"""Opening brackets of a prompt that are tried as the beginning of its tools."""

_OWN_KEYS = ("type", "tools", "ground_truth", "ground_truth_text", "possible_boxed_answers")
_TOOL_NAME = re.compile(r"[\s,;]*([^\W\d][\w.:/-]*)\s*\(")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`."""

    NOT_THIS_FORMAT = "not a prompt row"
    OTHER_TYPE = "a row of another type"
    NO_TOOLS = "a prompt without a list of tools"
    NO_QUESTION = "a prompt without a question"
    GROUND_TRUTH = "ground_truth and answer contradict each other"
    OFFERED = "possible_boxed_answers are not the tools on offer"


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    texts = isinstance(record.get("prompt"), str) and isinstance(record.get("answer"), str)
    return (
        texts
        and record.get("type") in (None, "tool_call")
        and any(key in record for key in _OWN_KEYS)
    )


def read(path: Path, options: Options) -> Loaded:
    """Every row that agrees with itself, with its task."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            _check_fields(record)
            if options.raw_prompt:
                talk, task = _raw(line, record)
                tally.keep(line, talk, [task])
                continue
            talk, repairs = _conversation(line, record, offered)
            refuse_faults(talk)
            _check_truth(record, talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk), repairs)
    return tally.loaded()


def _check_fields(record: Record) -> None:
    for key in ("prompt", "answer"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise Skip(
                Reason.NOT_THIS_FORMAT,
                f"wanted a text in {key!r}, got {record.get(key)!r:.40}; keys {sorted(record)}",
            )
    if record.get("type") not in (None, "tool_call"):
        raise Skip(Reason.OTHER_TYPE, f"{record['type']!r:.40}, wanted 'tool_call'")


def _raw(line: FileLine, record: Record) -> tuple[Conversation, Task]:
    """The strings as they are."""
    user, assistant = Message("user", record["prompt"]), Message("assistant", record["answer"])
    talk = Conversation((user, assistant), (), identity_of(line, record), _source(record))
    return talk, Task(
        talk.id,
        (user,),
        (),
        Expect(answer=record["answer"]),
        category="raw_prompt",
        source=talk.source,
    )


def _source(record: Record) -> str:
    return str(record.get("source") or NAME)


def _conversation(
    line: FileLine, record: Record, offered: OfferedTools
) -> tuple[Conversation, set[str]]:
    prompt = _split(record)
    tools, repairs = offered.read(prompt.tools)
    content, calls, mended = _answer(record["answer"], tools)
    messages = (Message("user", prompt.question), Message("assistant", content, tool_calls=calls))
    system = (Message("system", prompt.system),) if prompt.system else ()
    return Conversation(
        (*system, *messages), tools, identity_of(line, record), _source(record)
    ), repairs | mended


@dataclass(frozen=True)
class Prompt:
    """A prompt in its three parts; `tools` as they stand there."""

    system: str
    tools: Json
    question: str


def _split(record: Record) -> Prompt:
    text, system, tools = record["prompt"], str(record.get("system") or ""), record.get("tools")
    found = split_prompt(text)
    if found is None and not tools:
        raise Skip(Reason.NO_TOOLS, repr(text[:60]))
    prompt = Prompt(system, tools, text.strip()) if found is None else found
    if not prompt.question:
        raise Skip(Reason.NO_QUESTION, repr(text[-60:]))
    return Prompt(prompt.system or system, tools or prompt.tools, prompt.question)


def split_prompt(text: str) -> Prompt | None:
    """Split a prompt at the first JSON list of objects with names; None where there is none."""
    start = text.find("[")
    for _ in range(MAX_LISTS):
        if start < 0:
            return None
        found = decode(text, start)
        if found.problem is ParseProblem.NONE and _are_tools(found.value):
            return Prompt(text[:start].strip(), found.value, text[found.end :].strip())
        start = text.find("[", start + 1)
    return None


def _are_tools(value: Json) -> bool:
    """Whether this is a list of objects that have names, at least one."""
    bodies = (
        [entry.get("function", entry) for entry in value if isinstance(entry, dict)]
        if isinstance(value, list)
        else []
    )
    return (
        bool(bodies)
        and len(bodies) == len(value)
        and all(isinstance(body, dict) and "name" in body for body in bodies)
    )


def _answer(text: str, tools: Sequence[Tool]) -> tuple[str | None, tuple[ToolCall, ...], set[str]]:
    """What the assistant says, its calls, and how they were mended."""
    content, calls = None, read_python_calls(text, tools)
    if calls is None:
        reply = (ToolCallTags() if "<tool_call>" in text else Calls()).read(text)
        if reply.problem is not ParseProblem.NONE:
            raise Skip(ToolReason.BAD_ANSWER, f"{reply.problem}: {text!r:.80}")
        content, calls = reply.content, reply.calls
    pairs = [fitted(call, tools) for call in calls]
    return (
        content,
        tuple(call for call, _ in pairs),
        {repair for _, repairs in pairs for repair in repairs},
    )


def read_python_calls(text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...] | None:
    """The calls of which a text consists, separated by space, commas or semicolons; None for a text that is anything else."""
    reader, calls = LiteralReader(text), []
    while not reader.at_end():
        head = _TOOL_NAME.match(text, reader.position)
        if head is None:
            return None
        reader.position = head.end()
        try:
            calls.append(_read_call(reader, head[1], tools))
        except LiteralError:
            return None
    return tuple(calls) or None


def _read_call(reader: LiteralReader, name: str, tools: Sequence[Tool]) -> ToolCall:
    """The call whose opening bracket was read; values without a name go to the tool's parameters in order."""
    tool = next((tool for tool in tools if tool.name == name), None)
    free = list(tool.parameters.get("properties") or {}) if tool else []
    arguments: dict[str, Json] = {}
    while not reader.take(")"):
        keyword = reader.match(KEYWORD)
        key = "" if keyword is None else keyword[1]
        if keyword is None:
            if tool is None:  # perhaps no call but prose
                raise LiteralError
            if not free:
                raise Skip(
                    ToolReason.BAD_ANSWER,
                    f"{name} takes fewer values without a name: {reader.text!r:.80}",
                )
            key = free[0]
        if key in arguments:
            raise Skip(ToolReason.BAD_ANSWER, f"{name} is given {key!r} twice: {reader.text!r:.80}")
        free = [other for other in free if other != key]
        arguments[key] = reader.value()
        if not reader.take(","):
            reader.expect(")")
            break
    return ToolCall(name, arguments)


def _check_truth(record: Record, talk: Conversation) -> None:
    """The other fields against the calls and the tools."""
    called = sorted({call.name for call in talk.messages[-1].tool_calls})
    names = sorted(tool.name for tool in talk.tools)
    truth, boxed = (
        record.get("ground_truth") or record["answer"],
        record.get("possible_boxed_answers") or names,
    )
    if truth != record["answer"] and (truth not in called if called else truth in names):
        raise Skip(
            Reason.GROUND_TRUTH,
            f"{truth!r:.40} is not called; called: {', '.join(called) or 'none'}",
        )
    if not isinstance(boxed, list) or sorted(map(str, boxed)) != names:
        raise Skip(Reason.OFFERED, f"{boxed!r:.60}; on offer: {', '.join(names)}")
