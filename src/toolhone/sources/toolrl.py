r"""ToolRL: tools numbered in the instruction, the dialogue so far as tagged text, and the next turn as the target.

    {"instruction": "... **Available Tools** ... 1. Name: f\nDescription: ...\nParameters: {...} ... **Steps for Each Turn** ...",
     "input": "**Dialogue Records History**\n<user> ... </user>\n\n<tool_call>\n{...}\n</tool_call>\n<obs> ... </obs>",
     "output": "<think> ... </think>\n<tool_call>\n{\"name\": \"f\", \"parameters\": {...}}\n</tool_call>"}

and the same as prompt rows of verl, in Parquet or JSON: `prompt` (a system and a user message) and `reward_model.ground_truth`. A
row becomes the dialogue with the target as its last turn, and one task for that turn. Of the instruction the sentence before the
tools is kept as the system message; steps and format belong to the dialect that renders the row, and leaving them out is counted
as a repair. Thoughts become reasoning. A default of "" says that a parameter may be left out, nothing more. Arguments written as
text where the tool wants a number, a list or an object are mended where only one value can be meant, and so are call names that
the data set cut in two at a bracket. Rows whose calls do not fit their tools are counted and skipped. Format: Qian et al. 2025,
arXiv:2504.13958.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Json, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.tasks import tasks_of
from toolhone.sources.text_calls import (
    BAD_CALL,
    Said,
    Talk,
    as_call,
    fitting,
    read_value,
    read_values,
)

NAME = "toolrl"
ABOUT = About(
    title="ToolRL",
    link="https://github.com/qiancheng0/ToolRL",
    licence="Apache-2.0",
    rows="4,000",
    teaches="thinking before calls, choosing tools under masked names, answering where no tool helps",
)
USES: frozenset[str] = frozenset()
_TOOLS, _STEPS = "**Available Tools**", "**Steps for Each Turn**"
_HISTORY = re.compile(r"\s*\*+Dialogue Records History\*\*\s*")
_NUMBERED = re.compile(r"^\d+\. ", re.MULTILINE)
_TOOL = re.compile(
    r"(?:Name: (?P<name>.*?)\n\s*Description:|(?P<short>[^\n:]+):)(?P<description>.*?)\nParameters:(?P<parameters>.*)",
    re.DOTALL,
)
_BLOCK = re.compile(r"\s*<(think|user|response|tool_call|obs)>(.*?)</\1>\s*", re.DOTALL)
_PARTS = ("think", "tool_call", "response")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a ToolRL row"
    NO_TARGET = "a target that is neither a call nor a reply"
    DIALOGUE = "a dialogue that is not a sequence of tagged turns"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `offered` and `call_texts`."""

    FORMAT = "steps and format description taken out of the instruction"
    CUT_NAME = "a call name cut in two at a bracket"


def sniff(records: Sequence[Record]) -> bool:
    return all(_TOOLS in str(_fields(record)[0]) for record in records)


def _fields(record: Record) -> tuple[Json, Json, Json]:
    """Instruction, dialogue and target, whichever way the row names them; None for what it lacks."""
    prompt, judged = record.get("prompt"), record.get("reward_model")
    if isinstance(prompt, list) and len(prompt) == 2 and isinstance(judged, dict):
        system, user = (turn.get("content") if isinstance(turn, dict) else None for turn in prompt)
        return system, user, judged.get("ground_truth")
    return record.get("instruction"), record.get("input"), record.get("output")


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls fit its tools, with the task of its last turn."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            talk, repairs = _conversation(line, record, offered)
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            last = f"#{len(talk.messages) - 1}"
            tally.keep(
                line, talk, [task for task in tasks_of(talk) if task.id.endswith(last)], repairs
            )
    return tally.loaded()


def _conversation(
    line: FileLine, record: Record, offered: OfferedTools
) -> tuple[Conversation, set[str]]:
    instruction, dialogue, target = _fields(record)
    if (
        not isinstance(instruction, str)
        or not isinstance(dialogue, str)
        or not isinstance(target, str)
    ):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    talk, tools = open_talk(instruction, offered)
    add_dialogue(talk, dialogue, tools)
    before = len(talk.messages)
    add_blocks(talk, target, tools, _PARTS)
    if len(talk.messages) != before + 1 or talk.messages[-1].role != "assistant":
        raise Skip(Reason.NO_TARGET, f"{target[-80:]!r}")
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs


def open_talk(instruction: str, offered: OfferedTools) -> tuple[Talk, tuple[Tool, ...]]:
    """A talk that begins with what the instruction says before its tools, and the tools."""
    words, _, rest = instruction.partition(_TOOLS)
    tools, repairs = offered.read(list(_listed(rest.partition(_STEPS)[0])))
    talk = Talk()
    talk.repairs |= {Repair.FORMAT, *repairs}
    if words.strip():
        talk.say("system", words.strip())
    return talk, tools


def _listed(text: str) -> Iterator[Json]:
    """The numbered tools: name, description and parameters in lines of their own, or `name: description` in one."""
    for entry in _NUMBERED.split(text)[1:]:
        found = _TOOL.match(entry)
        if found is None:
            raise Skip(ToolReason.BAD_TOOLS, f"{entry!r:.80}")
        try:
            parameters, _, _ = read_value(found["parameters"].strip())
        except Skip as skip:
            raise Skip(ToolReason.BAD_TOOLS, skip.detail) from None
        name = (found["name"] or found["short"]).strip()
        yield {"name": name, "description": found["description"].strip(), "parameters": parameters}


def add_dialogue(talk: Talk, text: str, tools: Sequence[Tool]) -> None:
    """The tagged turns of a dialogue."""
    opening = _HISTORY.match(text)
    add_blocks(talk, text[opening.end() :] if opening else text, tools, (*_PARTS, "user", "obs"))


def add_blocks(talk: Talk, text: str, tools: Sequence[Tool], allowed: Sequence[str]) -> None:
    """A thought, calls and a response that follow one another are one turn of the assistant."""
    said: dict[str, str] = {}
    for name, body in _blocks(text):
        if name not in allowed:
            raise Skip(Reason.DIALOGUE, f"<{name}> where only {', '.join(allowed)} may stand")
        if said and (name not in _PARTS or name == "think" or name in said):
            _speak(talk, said, tools)
            said = {}
        if name in _PARTS:
            said[name] = body
        elif name == "user":
            talk.say("user", body)
        else:
            talk.result(body)
    if said:
        _speak(talk, said, tools)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Name and text of each tagged block."""
    position = 0
    while position < len(text):
        found = _BLOCK.match(text, position)
        if found is None:
            raise Skip(Reason.DIALOGUE, f"{text[position : position + 80]!r}")
        yield found[1], found[2].strip()
        position = found.end()


def _speak(talk: Talk, said: dict[str, str], tools: Sequence[Tool]) -> None:
    values = [value for value, _ in read_values(said["tool_call"])] if "tool_call" in said else []
    calls = [_whole_name(as_call(value), tools, talk.repairs) for value in values]
    made = fitting(Said(said.get("response") or None, tuple(calls)), tools)
    if not made.calls and not made.words:
        raise Skip(BAD_CALL, "a turn of the assistant with a thought alone")
    talk.assistant(made, said.get("think") or None)


def _whole_name(call: ToolCall, tools: Sequence[Tool], repairs: set[str]) -> ToolCall:
    """The call put together again where the data set cut the tool's name at a bracket: its rest begins an argument's name."""
    whole = [tool.name for tool in tools if tool.name.startswith(f"{call.name.rstrip()} (")]
    if len(whole) != 1 or any(tool.name == call.name for tool in tools):
        return call
    repairs.add(Repair.CUT_NAME)
    rest = whole[0].removeprefix(f"{call.name.rstrip()} (") + "("
    return ToolCall(
        whole[0], {name.removeprefix(rest): value for name, value in call.arguments.items()}
    )
