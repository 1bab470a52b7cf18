"""ACEBench, English and Chinese: dialogues as one text, with tools, and beside them the right call.

    {"id": "normal_atom_enum_0", "question": "user: ...", "function": [tool], "time": "..."}
    possible_answer/<same name>:  {"id": "normal_atom_enum_0", "ground_truth": {"f_1": {arguments}}}

`system:` is the assistant. The beginning of the id says what is right: normal, the calls in any
order; special, no call; agent, the final state of the world. Format: Chen et al. 2025,
arXiv:2501.12851.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.prompt_rows import read_python_calls
from toolhone.sources.scenarios import PLAYED, Answers, note_misfit, read_world
from toolhone.sources.tool_specs import BAD_ANSWER, fit_calls, read_tools

BRACKETS = "a call within the dialogue that cannot be read, kept as text"
RESULT = "a result that the dialogue leaves out, taken from what is said next"
BAD_QUESTION = "a question that is no dialogue"
ALTERNATIVES = "alternative answers that differ in more than one argument"
_OWN_KEYS = ("time", "profile", "initial_config")
_TURN = re.compile(r"^(user|system)[ \t]*[:：]", re.MULTILINE)
_NUMBERED = re.compile(r"(.+)_\d+")


def looks_like(record: Record) -> bool:
    texts = isinstance(record.get("question"), str) and isinstance(record.get("id"), str)
    listed = isinstance(record.get("function"), list)
    return texts and listed and any(key in record for key in _OWN_KEYS)


def prepare(_records: Sequence[Record], context: Context) -> Answers:
    return Answers(context.path)


def convert(record: Record, context: Context) -> Task:
    if not looks_like(record):
        raise Skip("not an ACEBench row", f"keys {sorted(record)}")
    category = re.split(r"_\d", record["id"], maxsplit=1)[0]
    tools = read_tools(record["function"], context, loose=True)
    lines = [str(record.get("time") or "").strip()]
    lines += [f"The user's profile: {record['profile']}"] if record.get("profile") else []
    text, answers = "\n".join(filter(None, lines)), context.prepared
    messages = (Message("system", text),) if text else ()
    task = Task(record["id"], messages, tools, category=category)
    task = replace(task, world=read_world(record, "initial_config"))
    if category.startswith("agent"):
        context.repairs |= {PLAYED} if category == "agent_multi_turn" else set()
        asked = Message("user", record["question"].strip())
        state = _final_state(answers.find(task.id))
        return replace(task, messages=(*messages, asked), expect=Expect(state=state))
    said = read_dialogue(record["question"], tools)
    context.repairs |= {RESULT} if any(message.role == "tool" for message in said) else set()
    if any(one.role == "assistant" and (one.content or "").startswith("[") for one in said):
        context.notes.append(BRACKETS)
    task = replace(task, messages=(*messages, *said))
    if category.startswith("special"):
        return replace(task, expect=Expect(no_call=True))
    expected = _expected_calls(answers.find(task.id), tools, context)
    note_misfit(expected, tools, context)
    return replace(task, expect=Expect(tuple(expected)))


def read_dialogue(text: str, tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Return the messages of a text with `user:` and `system:` turns.

    Results of calls are not in the text: what the assistant says next is taken for the result.
    """
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Skip(BAD_QUESTION, f"wanted 'user:' at the beginning, got {text!r:.60}")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    pairs = zip(marks, ends, strict=True)
    turns = [(mark[1], text[mark.end() : end].strip()) for mark, end in pairs]
    if turns[-1][0] != "user" or not all(said for _, said in turns):
        raise Skip(BAD_QUESTION, f"wanted the user to speak last, got {text[-60:]!r}")
    return tuple(_messages(turns, tools))


def _messages(turns: Sequence[tuple[str, str]], tools: Sequence[Tool]) -> Iterator[Message]:
    for index, (role, said) in enumerate(turns):
        calls = None if role == "user" else _bracketed(said, tools)
        if not calls:
            yield Message("user" if role == "user" else "assistant", said)
            continue
        made = tuple(replace(call, id=f"call{index}_{n}") for n, call in enumerate(calls))
        yield Message("assistant", tool_calls=made)
        next_role, next_said = turns[index + 1]
        result = next_said if next_role == "system" else ""
        for call in made:
            yield Message("tool", result, tool_call_id=call.id, name=call.name)


def _bracketed(said: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...] | None:
    """Return the calls of a turn like `[f(a=1), g(b="x")]`; None for other turns."""
    if not (said.startswith("[") and said.endswith("]")):
        return None
    try:
        return read_python_calls(said[1:-1], tools)
    except Skip:
        return None


def _expected_calls(truth: Json, tools: Sequence[Tool], context: Context) -> list[ExpectedCall]:
    """Return the calls of an answer, or of several answers of which each is right."""
    answers = truth if isinstance(truth, list) else [truth]
    if not answers:
        raise Skip(BAD_ANSWER, "an empty list of answers")
    first, *others = [_calls(answer, tools, context) for answer in answers]
    expected = [ExpectedCall(call.name, call.arguments) for call in first]
    for calls in others:
        expected = _accept_also(expected, calls)
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


def _accept_also(
    expected: Sequence[ExpectedCall], others: Sequence[ToolCall]
) -> list[ExpectedCall]:
    """Accept what another right answer says; `Skip` where that would accept more than both."""
    names = [call.name for call in expected], [call.name for call in others]
    if names[0] != names[1]:
        raise Skip(ALTERNATIVES, f"{names[0]} and {names[1]}")
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
            ALTERNATIVES, f"{[f'{expected[index].name}.{name}' for index, name in differing]}"
        )
    result = list(expected)
    for index, name in differing:
        call = result[index]
        values = [*call.accept.get(name, ()), others[index].arguments[name]]
        result[index] = replace(call, accept={**call.accept, name: values})
    return result


def _final_state(truth: Json) -> dict[str, Json]:
    """Return the final state of each class of the world."""
    states = truth if isinstance(truth, list) else [truth]
    if not states or not all(isinstance(state, dict) for state in states):
        raise Skip(BAD_ANSWER, f"wanted the states of the world, got {truth!r:.80}")
    return {name: state for part in states for name, state in part.items()}


ACEBENCH = Source("acebench", looks_like, convert, prepare)
