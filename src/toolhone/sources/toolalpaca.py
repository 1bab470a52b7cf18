"""ToolAlpaca, its evaluation set: one API in a record, ten instructions for it, and the calls that answer each.

    {"Name": "...", "Documentation": "<OpenAPI as JSON text>", "Instructions": ["Show me a picture."],
     "Golden_Answers": [[{"Action": "getPicture", "Action_Input": "{\\"size\\": \\"\\", \\"page\\": 1}"}]]}

Made for evaluation: every instruction gives a task with the tools of the documentation, and no conversation. A record counts as
one row; instructions that give no task are counted one by one as notes, and a record without any task is skipped.

Answers speak of values that nobody knows before: `${id from search}` is the result of another call, `${start date}` any date.
What is expected is what can be called at once: the calls before the first that needs a result. `getDetails` is no tool, it asks
the user; an answer that begins with it expects no call. A call marked `[Optional]` is left out. A value that is only described
makes its instruction unusable. An empty text for a parameter that may be left out says that it is left out; giving it so is right
as well. Format: Tang et al. 2023, arXiv:2306.05301. Its training set, with `Instances`, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode
from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.offered import fitted, from_text, refuse_misfits
from toolhone.sources.openapi import tools_of

NAME = "toolalpaca"
ABOUT = About(
    title="ToolAlpaca (evaluation)",
    link="https://github.com/tangqiaoyu/ToolAlpaca",
    licence="Apache-2.0",
    rows="10 simulated APIs with 100 instructions, 11 real ones",
    teaches="measures calls of APIs that are described by OpenAPI",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
_ASKS = "getDetails"
_OPTIONAL = "[Optional]"
_HOLE = re.compile(r'"?\$\{([^{}",]*)\}?"?|"\{([^{}",]*)\}"')
"""`${id from search}`, with or without quotes or its closing bracket; `"{start date}"`."""


class Reason(StrEnum):
    """Why a record is skipped; besides these, the reasons of `offered`."""

    NOT_THIS_FORMAT = "not a ToolAlpaca record"
    NO_TASK = "a record without a usable instruction"


class Why(StrEnum):
    """Why an instruction gives no task; besides these, the kinds of `data.check`."""

    DESCRIBED = "a value that is only described"
    UNREADABLE = "an answer that cannot be read"
    DEPENDENT = "nothing that can be called before a result is there"


class Repair(StrEnum):
    """How a record was mended; besides these, the repairs of `offered`."""

    OPTIONAL = "a call marked as optional left out"
    LATER = "calls that need another call's result, or the user's answer, left out"
    EMPTY = "an empty text for what may be left out"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= {"Instructions", "Golden_Answers", "Documentation"} for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every record with a task for each of its usable instructions."""
    tally = ReadStats()
    for line, record in read_records(path):
        try:
            tools, pairs = _parts(record)
            tasks, repairs, notes = _tasks(line, str(record.get("Name") or ""), tools, pairs)
            if not tasks:
                raise Skip(Reason.NO_TASK, "; ".join(notes))
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks(tasks, repairs)
        for note in notes:
            tally.note(f"an instruction left out: {note}")
    return tally.loaded()


def _parts(record: Record) -> tuple[tuple[Tool, ...], list[tuple[Json, Json]]]:
    """The tools, and each instruction with its answer."""
    wishes, answers = record.get("Instructions"), record.get("Golden_Answers")
    if not isinstance(wishes, list) or not isinstance(answers, list) or len(wishes) != len(answers):
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted as many Instructions as Golden_Answers; keys {sorted(record)[:8]}",
        )
    try:
        tools = tools_of(
            from_text(record.get("Documentation"), ToolReason.BAD_TOOLS, "Documentation")
        )
    except DataError as error:
        raise Skip(ToolReason.BAD_TOOLS, str(error)) from None
    if not tools:
        raise Skip(ToolReason.BAD_TOOLS, "the Documentation describes no operation")
    return tuple(tools), list(zip(wishes, answers, strict=True))


def _tasks(
    line: FileLine, api: str, tools: tuple[Tool, ...], pairs: Sequence[tuple[Json, Json]]
) -> tuple[list[Task], set[str], list[str]]:
    """The tasks of a record, how it was mended, and why instructions were left out."""
    tasks: list[Task] = []
    repairs: set[str] = set()
    notes: list[str] = []
    for number, (wish, answer) in enumerate(pairs, start=1):
        try:
            expect, mended = _expectation(wish, answer, tools)
        except Skip as skip:
            notes.append(skip.reason)
            continue
        identity = f"{api or line.path.name.partition('.')[0]}-{line.number}-{number}"
        tasks.append(
            Task(
                identity,
                (Message("user", str(wish).strip()),),
                tools,
                expect,
                category=_shape(expect),
                source=NAME,
            )
        )
        repairs |= mended
    return tasks, repairs, notes


def _shape(expect: Expect) -> str:
    if expect.calls is None:
        return "no_call"
    return "one_call" if len(expect.calls) == 1 else "several_calls"


def _expectation(wish: Json, answer: Json, tools: Sequence[Tool]) -> tuple[Expect, set[str]]:
    """What is right at once for an instruction, and how its answer was mended."""
    if not isinstance(wish, str) or not wish.strip() or not isinstance(answer, list) or not answer:
        raise Skip(Why.UNREADABLE)
    expected: list[ExpectedCall] = []
    repairs: set[str] = set()
    for step in answer:
        name, given = (
            (step.get("Action"), step.get("Action_Input"))
            if isinstance(step, dict)
            else (None, None)
        )
        if not isinstance(name, str) or not isinstance(given, str):
            raise Skip(Why.UNREADABLE)
        if name.startswith(_OPTIONAL):
            repairs.add(Repair.OPTIONAL)
            continue
        if name == _ASKS or any(" from " in hole for hole in holes(given)):
            repairs.add(Repair.LATER)
            if not expected and name != _ASKS:
                raise Skip(Why.DEPENDENT)
            break
        expected.append(_call(name, given, tools, repairs))
    return (Expect(tuple(expected)) if expected else Expect(no_call=True)), repairs


def holes(text: str) -> Iterator[str]:
    """What stands in the places that a text leaves open."""
    return (found[1] or found[2] or "" for found in _HOLE.finditer(text))


def _call(name: str, given: str, tools: Sequence[Tool], repairs: set[str]) -> ExpectedCall:
    if any(True for _ in holes(given)):
        raise Skip(Why.DESCRIBED)
    found = decode(given, 0)
    if (
        found.problem is not ParseProblem.NONE
        or given[found.end :].strip()
        or not isinstance(found.value, dict)
    ):
        raise Skip(Why.UNREADABLE)
    tool = next((tool for tool in tools if tool.name == name), None)
    required = tool.parameters.get("required", ()) if tool else ()
    empty = [key for key, value in found.value.items() if value == "" and key not in required]
    plain = ToolCall(name, {key: value for key, value in found.value.items() if key not in empty})
    call, mended = fitted(plain, tools)
    refuse_misfits([call], tools)
    repairs |= mended | ({Repair.EMPTY} if empty else set())
    return ExpectedCall(call.name, call.arguments, _left_empty(empty))


def _left_empty(names: Sequence[str]) -> Mapping[str, Sequence[Json]]:
    return {name: [""] for name in names}
