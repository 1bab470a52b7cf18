"""RoTBench: dialogues in the ReAct style (thought, action, action input), and the actions that are right next.

    {"id": "...", "scenario": "RS", "conversations": [
        {"from": "system", "value": "... tools:\\n[{\\"name\\": \\"search\\", \\"parameters\\": {JSON Schema}}, ...] ..."},
        {"from": "user", "value": "Find vegan blogs.\\nBegin!"},
        {"from": "assistant", "value": ["Thought:\\nAction: search\\nAction Input: {\\"query\\": \\"vegan blogs\\"}", ...]}]}

Made for evaluation: a row gives a task for its last turn, and no conversation. Turns before it are read as calls and `function`
results; a thought becomes the turn's reasoning. The tools are those of the system prompt; the prompt itself, which explains the
style, is left out, and so are its two tools that are no tools: `ask_to_user` becomes a question in words, `finish` the final
answer, so that where one of them is right next, no call is expected. All this is counted as a repair.

The last turn lists every right action: the first that fits the tools is expected, the others are its alternatives. A right action
that breaks its tool's schema is left out where another is left (counted). A value that the data leave open (`None`) is noted, since
a task cannot say that. Format: Ye et al. 2024, arXiv:2401.08326.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_repair import mended
from toolhone.sources.files import Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_misfits
from toolhone.sources.prompt_rows import split_prompt

NAME = "rotbench"
ABOUT = About(
    title="RoTBench",
    link="https://github.com/Junjie-Ye/RoTBench",
    licence="Apache-2.0",
    rows="105 for each of five levels of noise and two turns",
    teaches="measures the choice of the next call, also where names and descriptions are noisy",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
_FINISH, _ASK = "finish", "ask_to_user"
_NOTHING = "None"
_STEP = re.compile(
    r"\s*(?:Thought:(.*?))?(?<!\S)Action:[ \t]*([^\n]*)\n\s*Action Input:(.*)", re.DOTALL
)


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a RoTBench row"
    NO_TOOLS = "a system prompt without a list of tools"
    BAD_TURN = "a turn that does not go on from the one before"
    NO_STEP = "a turn that is no thought with an action and its input"


class Repair(StrEnum):
    """What was mended; besides these, the repairs of `mending`."""

    STYLE = "the prompt of the ReAct style left out"
    WORDS = "a call of ask_to_user or finish taken as words"
    TWICE = "a second, different tool of one name left out"
    MISFIT = "a right action that does not fit the tools left out, where there are others"


OPEN = "a value that the data leave open with 'None', which a task cannot say"
"""Noted of a kept row."""


@dataclass(frozen=True)
class Step:
    """A turn of the ReAct style."""

    thought: str
    call: ToolCall


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    turns = record.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    return (
        "scenario" in record
        and first.get("from") == "system"
        and "Action Input" in str(first.get("value"))
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose right actions fit the tools, as a task."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            tools, turns, repairs = _parts(record, offered)
            messages = _messages(turns[:-1], repairs)
            expect = _expectation(_right(turns[-1]), tools, repairs)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        task = Task(
            identity_of(line, record),
            messages,
            tools,
            expect,
            category=str(record["scenario"]),
            source=NAME,
        )
        tally.keep_tasks([task], repairs)
        if any(
            _NOTHING in call.arguments.values()
            for choice in expect.choices
            for call in choice.wanted
        ):
            tally.note(OPEN)
    return tally.loaded()


def _parts(
    record: Record, offered: OfferedTools
) -> tuple[tuple[Tool, ...], list[Record], set[str]]:
    """The tools without the two that are none, the turns after the system prompt, and the repairs so far."""
    turns = record.get("conversations")
    if (
        not _is_row(record)
        or not isinstance(turns, list)
        or not all(isinstance(turn, dict) for turn in turns)
        or len(turns) < 3
    ):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    prompt = split_prompt(str(turns[0].get("value")))
    if prompt is None:
        raise Skip(Reason.NO_TOOLS, f"{turns[0].get('value')!r:.60}")
    listed, found = offered.read(prompt.tools)
    tools = [tool for tool in listed if tool.name not in (_FINISH, _ASK)]
    by_name = {tool.name: tool for tool in reversed(tools)}
    twice = {Repair.TWICE} if len(by_name) < len(tools) else set()
    return (
        tuple(tool for tool in tools if by_name[tool.name] is tool),
        turns[1:],
        {Repair.STYLE, *found, *twice},
    )


def _messages(turns: Sequence[Record], repairs: set[str]) -> tuple[Message, ...]:
    """What was said, called and answered before the last turn."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        role, value = turn.get("from"), turn.get("value")
        if not isinstance(value, str):
            raise Skip(Reason.BAD_TURN, f"turn {number + 1}: {value!r:.60}")
        waiting = messages[-1].tool_calls[0] if messages and messages[-1].tool_calls else None
        if role == "user" and waiting is None:
            messages.append(Message("user", value.strip().removesuffix("Begin!").strip()))
        elif role == "function" and waiting is not None:
            messages.append(Message("tool", value, tool_call_id=waiting.id, name=waiting.name))
        elif role == "assistant" and messages and messages[-1].role != "assistant":
            messages.append(_turn(step_of(value), f"call{number}", repairs))
        else:
            raise Skip(Reason.BAD_TURN, f"turn {number + 1} of {role!r:.20}")
    return tuple(messages)


def _turn(step: Step, identity: str, repairs: set[str]) -> Message:
    reasoning, call = step.thought or None, step.call
    if call.name in (_FINISH, _ASK):
        repairs.add(Repair.WORDS)
        said = next(
            (text for text in call.arguments.values() if isinstance(text, str) and text.strip()),
            None,
        )
        if said is None:
            raise Skip(Reason.NO_STEP, f"{call.name} says nothing")
        return Message("assistant", said, reasoning)
    return Message("assistant", None, reasoning, (ToolCall(call.name, call.arguments, identity),))


def step_of(text: str) -> Step:
    """A thought, an action and its input, which is a JSON object."""
    found = _STEP.fullmatch(text)
    if found is None:
        raise Skip(Reason.NO_STEP, repr(text[:80]))
    given = decode(found[3], 0)
    if (
        given.problem is not ParseProblem.NONE
        or found[3][given.end :].strip()
        or not isinstance(given.value, dict)
    ):
        raise Skip(
            Reason.NO_STEP,
            f"the input of {found[2].strip()!r:.40} is no JSON object: {found[3]!r:.60}",
        )
    return Step((found[1] or "").strip(), ToolCall(found[2].strip(), given.value))


def _right(turn: Record) -> list[ToolCall]:
    """All actions that are right next."""
    listed = turn.get("value")
    if turn.get("from") != "assistant" or not isinstance(listed, list) or not listed:
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted a list of right actions in the last turn, got {listed!r:.60}",
        )
    return [step_of(str(text)).call for text in listed]


def _expectation(right: Sequence[ToolCall], tools: Sequence[Tool], repairs: set[str]) -> Expect:
    """The first right action, with the other ones as its alternatives; `Skip` where none fits the tools."""
    found: list[Expect] = []
    misfits: list[Skip] = []
    for call in right:
        try:
            expect = _one_expectation(call, tools, repairs)
        except Skip as skip:
            misfits.append(skip)
            continue
        found += [] if expect in found else [expect]
    if not found:
        raise misfits[0]
    repairs |= {Repair.MISFIT} if misfits else set()
    return replace(found[0], alternatives=tuple(found[1:]))


def _one_expectation(call: ToolCall, tools: Sequence[Tool], repairs: set[str]) -> Expect:
    if call.name in (_FINISH, _ASK):
        repairs.add(Repair.WORDS)
        return Expect(no_call=True)
    made, how = mended(call, tools)
    refuse_misfits([made], tools)
    repairs |= how
    return Expect((ExpectedCall(made.name, made.arguments),))
