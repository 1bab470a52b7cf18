"""ACEBench, English and Chinese: dialogues as one text, with tools, and beside them the right call.

    {"id": "normal_atom_enum_0", "question": "user: ...\\nsystem: ...\\nuser: ...", "function": [tool], "time": "Today is ..."}
    possible_answer/<same name>:  {"id": "normal_atom_enum_0", "ground_truth": {"f_1": {arguments}, "f_2": {arguments}}}

Made for evaluation: a row gives a task and no conversation. In `question`, `system:` is the assistant; what it calls stands in
square brackets. The results of such calls are not in the text: what the assistant says next is taken for the result as well
(counted). `time` and `profile` become a system message. The beginning of the id is the category and says what is right:

* normal: the calls of `ground_truth` in any order; `f_1`, `f_2` are two calls of `f`. A list holds answers of which each is
  right: where they differ in one argument at most, both values are accepted.
* special: no call, but a question or a refusal, whose words are not compared.
* agent: the final state of the world, of which `initial_config` is the beginning. `mile_stone`, calls on the way, is not used. In
  agent_multi_turn a model is to play the user; what it is told to want stands for the request (counted).

A right answer that its own tool does not allow is kept and noted. Format: Chen et al. 2025, arXiv:2501.12851.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.sources.loose_tools import LooseTools
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.offered import fitted
from toolhone.sources.possible_answers import MISFIT, Answers, is_allowed
from toolhone.sources.prompt_rows import read_python_calls
from toolhone.sources.scenarios import PLAYED, world_of

NAME = "acebench"
ABOUT = About(
    title="ACEBench",
    link="https://github.com/chenchen0103/ACEBench",
    licence="MIT",
    rows="about 2,000, half of them Chinese",
    teaches="measures calls, questions back and refusals, also within dialogues",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
BRACKETS = "a call within the dialogue that cannot be read, kept as text"
_OWN_KEYS = ("time", "profile", "initial_config")
_TURN = re.compile(r"^(user|system)[ \t]*[:：]", re.MULTILINE)
_NUMBERED = re.compile(r"(.+)_\d+")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and `possible_answers` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not an ACEBench row"
    BAD_QUESTION = "a question that is no dialogue"
    ALTERNATIVES = "alternative answers that differ in more than one argument"


class Repair(StrEnum):
    """How a row was mended; besides this, the repairs of `offered`, `loose_tools` and `scenarios`."""

    RESULT = "a result that the dialogue leaves out, taken from what is said next"


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    texts = isinstance(record.get("question"), str) and isinstance(record.get("id"), str)
    return (
        texts
        and isinstance(record.get("function"), list)
        and any(key in record for key in _OWN_KEYS)
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose answer a task can say, as that task."""
    tally, answers, offered = ReadStats(), Answers(path), LooseTools()
    for line, record in read_records(path):
        try:
            task, repairs = _task(record, answers, offered)
            notes = _notes(task)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks([task], repairs)
        for note in notes:
            tally.note(note)
    return tally.loaded()


def _task(record: Record, answers: Answers, offered: LooseTools) -> tuple[Task, set[str]]:
    """The task of a row and how it was mended."""
    if not _is_row(record):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    identity = record["id"]
    category = re.split(r"_\d", identity, maxsplit=1)[0]
    tools, repairs = offered.read(record["function"])
    task = Task(
        identity,
        _system(record),
        tools,
        category=category,
        source=NAME,
        world=world_of(record, "initial_config"),
    )
    if category.startswith("agent"):
        asked = (*task.messages, Message("user", record["question"].strip()))
        repairs |= {PLAYED} if category == "agent_multi_turn" else set()
        return replace(task, messages=asked, expect=_expect_state(answers.of(identity))), repairs
    said, assumed = dialogue(record["question"], tools)
    repairs |= {Repair.RESULT} if assumed else set()
    task = replace(task, messages=(*task.messages, *said))
    if category.startswith("special"):
        return replace(task, expect=Expect(no_call=True)), repairs
    expect, mended = _expect_calls(answers.of(identity), tools)
    return replace(task, expect=expect), repairs | mended


def _notes(task: Task) -> list[str]:
    """What to count of a task that is kept."""
    unread = any(
        (message.content or "").startswith("[") and message.role == "assistant"
        for message in task.messages
    )
    gold = [ToolCall(call.name, call.arguments) for call in task.expect.calls or ()]
    return ([BRACKETS] if unread else []) + (
        [MISFIT] if gold and not is_allowed(gold, task.tools) else []
    )


def _system(record: Record) -> tuple[Message, ...]:
    """What is known besides the dialogue: the time and the user's profile."""
    told = [str(record.get("time") or "").strip()]
    told += [f"The user's profile: {record['profile']}"] if record.get("profile") else []
    text = "\n".join(filter(None, told))
    return (Message("system", text),) if text else ()


def dialogue(text: str, tools: Sequence[Tool]) -> tuple[tuple[Message, ...], bool]:
    """The messages of a text with `user:` and `system:` turns, and whether a result had to be taken from what is said next."""
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Skip(Reason.BAD_QUESTION, f"wanted 'user:' at the beginning, got {text!r:.60}")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [
        (mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    ]
    if turns[-1][0] != "user" or not all(said for _, said in turns):
        raise Skip(Reason.BAD_QUESTION, f"wanted the user to speak last, got {text[-60:]!r}")
    messages = tuple(_messages(turns, tools))
    return messages, any(message.role == "tool" for message in messages)


def _messages(turns: Sequence[tuple[str, str]], tools: Sequence[Tool]) -> Iterator[Message]:
    for index, (role, said) in enumerate(turns):
        calls = None if role == "user" else _bracketed(said, tools)
        if not calls:
            yield Message("user" if role == "user" else "assistant", said)
            continue
        calls = tuple(
            replace(call, id=f"call{index}_{number}") for number, call in enumerate(calls)
        )
        yield Message("assistant", tool_calls=calls)
        next_role, next_said = turns[index + 1]
        for call in calls:
            yield Message(
                "tool",
                next_said if next_role == "system" else "",
                tool_call_id=call.id,
                name=call.name,
            )


def _bracketed(said: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...] | None:
    """The calls of a turn like `[f(a=1), g(b="x")]`; None for other turns."""
    if not (said.startswith("[") and said.endswith("]")):
        return None
    try:
        return read_python_calls(said[1:-1], tools)
    except Skip:
        return None


def _expect_calls(truth: Json, tools: Sequence[Tool]) -> tuple[Expect, set[str]]:
    """The calls of an answer, or of several answers of which each is right."""
    answers = truth if isinstance(truth, list) else [truth]
    if not answers:
        raise Skip(ToolReason.BAD_ANSWER, "an empty list of answers")
    read = [_calls(answer, tools) for answer in answers]
    calls, repairs = read[0]
    expected = [ExpectedCall(call.name, call.arguments) for call in calls]
    for others, mended in read[1:]:
        repairs |= mended
        expected = _accepting(expected, others)
    return Expect(tuple(expected)), repairs


def _calls(answer: Json, tools: Sequence[Tool]) -> tuple[list[ToolCall], set[str]]:
    if (
        not isinstance(answer, dict)
        or not answer
        or not all(isinstance(arguments, dict) for arguments in answer.values())
    ):
        raise Skip(
            ToolReason.BAD_ANSWER, f"wanted arguments by the name of the tool, got {answer!r:.80}"
        )
    names = {tool.name for tool in tools}
    pairs = [
        fitted(ToolCall(_plain_name(name, names), arguments), tools)
        for name, arguments in answer.items()
    ]
    return [call for call, _ in pairs], {repair for _, mended in pairs for repair in mended}


def _plain_name(name: str, names: set[str]) -> str:
    """The tool that is meant by `f_2`, where no tool has this name."""
    found = _NUMBERED.fullmatch(name)
    return found[1] if found and name not in names and found[1] in names else name


def _accepting(expected: Sequence[ExpectedCall], others: Sequence[ToolCall]) -> list[ExpectedCall]:
    """The expected calls, which accept also what another right answer says; `Skip` where that would accept more."""
    if [call.name for call in expected] != [call.name for call in others]:
        raise Skip(
            Reason.ALTERNATIVES,
            f"{[call.name for call in expected]} and {[call.name for call in others]}",
        )
    differing = [
        (index, name)
        for index, (wanted, other) in enumerate(zip(expected, others, strict=True))
        for name in {**wanted.arguments, **other.arguments}
        if name not in wanted.arguments
        or name not in other.arguments
        or wanted.arguments[name] != other.arguments[name]
    ]
    if len(differing) > 1 or any(name not in others[index].arguments for index, name in differing):
        raise Skip(
            Reason.ALTERNATIVES,
            f"{[f'{expected[index].name}.{name}' for index, name in differing]}",
        )
    made = list(expected)
    for index, name in differing:
        accept = {
            **made[index].accept,
            name: [*made[index].accept.get(name, ()), others[index].arguments[name]],
        }
        made[index] = replace(made[index], accept=accept)
    return made


def _expect_state(truth: Json) -> Expect:
    """The final state of each class of the world."""
    states = truth if isinstance(truth, list) else [truth]
    if not states or not all(isinstance(state, dict) for state in states):
        raise Skip(ToolReason.BAD_ANSWER, f"wanted the states of the world, got {truth!r:.80}")
    merged: Mapping[str, Json] = {name: state for part in states for name, state in part.items()}
    return Expect(state=merged)
