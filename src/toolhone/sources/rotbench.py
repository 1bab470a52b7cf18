"""RoTBench: dialogues in the ReAct style (thought, action, input), and the right next actions.

    {"id": "...", "scenario": "RS", "conversations": [
        {"from": "system", "value": "... tools:\\n[{\\"name\\": \\"search\\", ...}, ...] ..."},
        {"from": "user", "value": "Find vegan blogs.\\nBegin!"},
        {"from": "assistant", "value": ["Thought:\\nAction: search\\nAction Input: {...}", ...]}]}

A row gives a task for its last turn: the first right action that fits is expected, the others are
its alternatives. `ask_to_user` and `finish` are words. Format: Ye et al. 2024, arXiv:2401.08326.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from toolhone.schema import Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.catalogue import repair_call
from toolhone.sources.files import Record
from toolhone.sources.prompt_rows import split_prompt
from toolhone.sources.source import Context, Skip, Source, expect_calls, refuse_misfits
from toolhone.sources.tool_specs import decode_text, read_tools

NOT_ROTBENCH = "not a RoTBench row"
NO_STEP = "a turn that is no thought with an action and its input"
BAD_TURN = "a turn that does not go on from the one before"
WORDS = "a call of ask_to_user or finish taken as words"
OPEN = "a value that the data leave open with 'None', which a task cannot say"
"""Noted of a kept row."""
_FINISH, _ASK = "finish", "ask_to_user"
_STEP = re.compile(
    r"\s*(?:Thought:(.*?))?(?<!\S)Action:[ \t]*([^\n]*)\n\s*Action Input:(.*)", re.DOTALL
)


def looks_like(record: Record) -> bool:
    turns = record.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    is_system = "scenario" in record and first.get("from") == "system"
    return is_system and "Action Input" in str(first.get("value"))


def convert(record: Record, context: Context) -> Task:
    turns: Json = record.get("conversations")
    is_dialogue = looks_like(record) and all(isinstance(turn, dict) for turn in turns)
    if not is_dialogue or len(turns) < 3:
        raise Skip(NOT_ROTBENCH, f"keys {sorted(record)}")
    found = split_prompt(str(turns[0].get("value")))
    if found is None:
        raise Skip("a system prompt without a list of tools", f"{turns[0].get('value')!r:.60}")
    listed = read_tools(found.tools, context)
    context.repairs.add("the prompt of the ReAct style left out")
    known: dict[str, Tool] = {}
    for tool in listed:
        if tool.name not in (_FINISH, _ASK) and known.setdefault(tool.name, tool) is not tool:
            context.repairs.add("a second, different tool of one name left out")
    tools, messages = tuple(known.values()), _messages(turns[1:-1], context.repairs)
    expect = _expectation(turns[-1], tools, context.repairs)
    calls = [call for choice in expect.choices for call in choice.wanted]
    if any("None" in call.arguments.values() for call in calls):
        context.notes.append(OPEN)
    return Task("", messages, tools, expect, category=str(record["scenario"]))


def _messages(turns: Sequence[Record], repairs: set[str]) -> tuple[Message, ...]:
    """Return the messages before the last turn."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        role, value = turn.get("from"), turn.get("value")
        if not isinstance(value, str):
            raise Skip(BAD_TURN, f"turn {number + 1}: {value!r:.60}")
        waiting = messages[-1].tool_calls[0] if messages and messages[-1].tool_calls else None
        if role == "user" and waiting is None:
            messages.append(Message("user", value.strip().removesuffix("Begin!").strip()))
        elif role == "function" and waiting is not None:
            messages.append(Message("tool", value, tool_call_id=waiting.id, name=waiting.name))
        elif role == "assistant" and messages and messages[-1].role != "assistant":
            thought, call = read_step(value)
            said: str | None = None
            calls: tuple[ToolCall, ...] = (replace(call, id=f"call{number}"),)
            if call.name in (_FINISH, _ASK):
                repairs.add(WORDS)
                texts = (text for text in call.arguments.values() if isinstance(text, str))
                said, calls = next(filter(str.strip, texts), None), ()
            if not said and not calls:
                raise Skip(NO_STEP, f"{call.name} says nothing")
            messages.append(Message("assistant", said, thought or None, calls))
        else:
            raise Skip(BAD_TURN, f"turn {number + 1} of {role!r:.20}")
    return tuple(messages)


def read_step(text: str) -> tuple[str, ToolCall]:
    """Return a thought, and the call of an action whose input is a JSON object."""
    found = _STEP.fullmatch(text)
    if found is None:
        raise Skip(NO_STEP, repr(text[:80]))
    thought, name = (found[1] or "").strip(), found[2].strip()
    given = decode_text(found[3], NO_STEP, f"the input of {name!r:.40}")
    if not isinstance(given, dict):
        raise Skip(NO_STEP, f"the input of {name!r:.40} is no JSON object: {given!r:.60}")
    return thought, ToolCall(name, given)


def _expectation(turn: Record, tools: Sequence[Tool], repairs: set[str]) -> Expect:
    """Return the first right action, with the others as alternatives; `Skip` where none fits."""
    listed = turn.get("value")
    if turn.get("from") != "assistant" or not isinstance(listed, list) or not listed:
        detail = f"wanted a list of right actions in the last turn, got {listed!r:.60}"
        raise Skip(NOT_ROTBENCH, detail)
    choices: list[Expect] = []
    misfits: list[Skip] = []
    for _, call in [read_step(str(text)) for text in listed]:
        if call.name in (_FINISH, _ASK):
            repairs.add(WORDS)
            choices.append(Expect(no_call=True))
            continue
        repaired, found = repair_call(call, tools)
        try:
            refuse_misfits([repaired], tools)
        except Skip as skip:
            misfits.append(skip)
        else:
            repairs |= found
            choices.append(expect_calls([repaired]))
    if not choices:
        raise misfits[0]
    if misfits:
        repairs.add("a right action that does not fit the tools left out, where there are others")
    distinct = [one for index, one in enumerate(choices) if one not in choices[:index]]
    return replace(distinct[0], alternatives=tuple(distinct[1:]))


KEYS = {"": {"scenario", "conversations"}, "conversations": {"from", "value"}}
ROTBENCH = Source("rotbench", looks_like, convert, KEYS)
