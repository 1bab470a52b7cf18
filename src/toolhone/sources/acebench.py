"""ACEBench, English and Chinese: dialogues as one text, with tools, and beside them the right call.

    {"id": "normal_atom_enum_0", "question": "user: ...", "function": [tool], "time": "..."}
    possible_answer/<same name>:  {"id": "normal_atom_enum_0", "ground_truth": {"f_1": {arguments}}}

`system:` is the assistant. The beginning of the id says what is right: normal, the calls in any
order; special, no call; agent, the final state of the world. Format: Chen et al. 2025,
arXiv:2501.12851.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.prompt_rows import read_python_calls
from toolhone.sources.scenarios import PLAYED, Answers, note_misfit, read_world
from toolhone.sources.source import Context, Skip, Source
from toolhone.sources.tool_specs import BAD_ANSWER, fit_calls, read_tools

BRACKETS = "a call within the dialogue that cannot be read, kept as text"
BAD_QUESTION = "a question that is no dialogue"
ALTERNATIVES = "alternative answers that differ in more than one argument"
_ABSENT = object()
_OWN_KEYS = ("time", "profile", "initial_config")
_TURN = re.compile(r"^(user|system)[ \t]*[:：]", re.MULTILINE)
_NUMBERED = re.compile(r"(.+)_\d+")


def looks_like(record: Record) -> bool:
    texts = isinstance(record.get("question"), str) and isinstance(record.get("id"), str)
    listed = isinstance(record.get("function"), list)
    return texts and listed and any(key in record for key in _OWN_KEYS)


def convert(record: Record, context: Context) -> Task:
    if not looks_like(record):
        raise Skip("not an ACEBench row", f"keys {sorted(record)}")
    category = re.split(r"_\d", record["id"], maxsplit=1)[0]
    tools = read_tools(record["function"], context, loose=True)
    lines = [str(record.get("time") or "").strip()]
    lines += [f"The user's profile: {record['profile']}"] if record.get("profile") else []
    text, answers = "\n".join(filter(None, lines)), context.prepared
    system = (Message("system", text),) if text else ()
    world = read_world(record, "initial_config")
    task = Task(record["id"], system, tools, category=category, world=world)
    if category.startswith("agent"):
        context.repairs |= {PLAYED} if category == "agent_multi_turn" else set()
        messages = (*system, Message("user", record["question"].strip()))
        states = _as_list(answers.find(task.id))
        if not states or not all(isinstance(state, dict) for state in states):
            raise Skip(BAD_ANSWER, f"wanted the states of the world, got {states!r:.80}")
        final = {name: state for part in states for name, state in part.items()}
        return replace(task, messages=messages, expect=Expect(state=final))
    said = read_dialogue(record["question"], tools)
    if any(message.role == "tool" for message in said):
        context.repairs.add("a result that the dialogue leaves out, taken from what is said next")
    if any(one.role == "assistant" and (one.content or "").startswith("[") for one in said):
        context.notes.append(BRACKETS)
    task = replace(task, messages=(*system, *said))
    if category.startswith("special"):
        return replace(task, expect=Expect(no_call=True))
    expected = _expected_calls(_as_list(answers.find(task.id)), tools, context)
    note_misfit(expected, tools, context)
    return replace(task, expect=Expect(tuple(expected)))


def _as_list(truth: Json) -> list[Json]:
    return truth if isinstance(truth, list) else [truth]


def read_dialogue(text: str, tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Return the messages of a text with `user:` and `system:` turns.

    A turn of the assistant like `[f(a=1), g(b="x")]` is calls. Their results are not in the text:
    what the assistant says next is taken for the result.
    """
    before, *parts = _TURN.split(text)
    turns = list(zip(parts[0::2], map(str.strip, parts[1::2]), strict=True))
    if not turns or before.strip():
        raise Skip(BAD_QUESTION, f"wanted 'user:' at the beginning, got {text!r:.60}")
    if turns[-1][0] != "user" or not all(said for _, said in turns):
        raise Skip(BAD_QUESTION, f"wanted the user to speak last, got {text[-60:]!r}")
    messages: list[Message] = []
    for index, (role, said) in enumerate(turns):
        calls = None
        if role == "system" and said.startswith("[") and said.endswith("]"):
            with suppress(Skip):
                calls = read_python_calls(said[1:-1], tools)
        if not calls:
            messages.append(Message("user" if role == "user" else "assistant", said))
            continue
        made = tuple(replace(call, id=f"call{index}_{n}") for n, call in enumerate(calls))
        next_role, next_said = turns[index + 1]
        result = next_said if next_role == "system" else ""
        messages.append(Message("assistant", tool_calls=made))
        messages += [Message("tool", result, tool_call_id=one.id, name=one.name) for one in made]
    return tuple(messages)


def _expected_calls(
    answers: Sequence[Json], tools: Sequence[Tool], context: Context
) -> list[ExpectedCall]:
    """Return the calls of an answer, or of several answers of which each is right.

    `Skip` where the answers differ so that accepting all values would accept more than they do.
    """
    if not answers:
        raise Skip(BAD_ANSWER, "an empty list of answers")
    first, *others = [_calls(answer, tools, context) for answer in answers]
    expected = [ExpectedCall(call.name, call.arguments) for call in first]
    for calls in others:
        names = [call.name for call in expected], [call.name for call in calls]
        if names[0] != names[1]:
            raise Skip(ALTERNATIVES, f"{names[0]} and {names[1]}")
        differing = [
            (index, name)
            for index, (wanted, other) in enumerate(zip(expected, calls, strict=True))
            for name in {**wanted.arguments, **other.arguments}
            if wanted.arguments.get(name, _ABSENT) != other.arguments.get(name, _ABSENT)
        ]
        if len(differing) > 1 or any(name not in calls[at].arguments for at, name in differing):
            raise Skip(ALTERNATIVES, f"{[f'{expected[at].name}.{name}' for at, name in differing]}")
        for at, name in differing:
            call = expected[at]
            values = [*call.accept.get(name, ()), calls[at].arguments[name]]
            expected[at] = replace(call, accept={**call.accept, name: values})
    return expected


def _calls(answer: Json, tools: Sequence[Tool], context: Context) -> tuple[ToolCall, ...]:
    """Return the calls of one answer; `f_1` and `f_2` are two calls of `f`."""
    arguments = answer.values() if isinstance(answer, dict) else ()
    if not arguments or not all(isinstance(given, dict) for given in arguments):
        raise Skip(BAD_ANSWER, f"wanted arguments by the name of the tool, got {answer!r:.80}")
    names = {tool.name for tool in tools}
    calls = []
    for name, given in answer.items():
        numbered = _NUMBERED.fullmatch(name)
        plain = numbered[1] if numbered and name not in names and numbered[1] in names else name
        calls.append(ToolCall(plain, given))
    return fit_calls(calls, tools, context)


ACEBENCH = Source(
    "acebench",
    looks_like,
    convert,
    {"": {"question", "function", "involved_classes", *_OWN_KEYS}},
    Answers,
)
