r"""Prompt rows of GRPO training: system sentence, tools and question in one string; calls.

    {"prompt": "You have these functions.\n\n[{\"name\": \"f\", ...}]\n\nWhat is f of 5?",
     "answer": "f(n=5)\nf(n=7)", "type": "tool_call", "ground_truth": "f",
     "possible_boxed_answers": ["f"], ...}

Newer rows have `tools`, a question alone in `prompt`, and `<tool_call>` blocks as the answer.
Positional values go to the parameters in order; an answer without calls is a plain reply. Rows
whose fields contradict each other are skipped. With `raw_prompt` the prompt is the user's message,
the answer is the assistant's text, and the task expects it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import KEYWORD, LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import ToolCallTags, decode
from toolhone.dialects.syntax.unmarked import Calls
from toolhone.schema import Conversation, Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.tool_specs import BAD_ANSWER, fit_calls, read_tools

MAX_LISTS = 200
"""Opening brackets of a prompt that are tried as the beginning of its tools."""
_OWN_KEYS = ("type", "tools", "ground_truth", "ground_truth_text", "possible_boxed_answers")
_TOOL_NAME = re.compile(r"[\s,;]*([^\W\d][\w.:/-]*)\s*\(")


def looks_like(record: Record) -> bool:
    texts = isinstance(record.get("prompt"), str) and isinstance(record.get("answer"), str)
    own = any(key in record for key in _OWN_KEYS)
    return texts and record.get("type") in (None, "tool_call") and own


def convert(record: Record, context: Context) -> Converted:
    for key in ("prompt", "answer"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            detail = f"wanted a text in {key!r}, got {record.get(key)!r:.40}; keys {sorted(record)}"
            raise Skip("not a prompt row", detail)
    if record.get("type") not in (None, "tool_call"):
        raise Skip("a row of another type", f"{record['type']!r:.40}, wanted 'tool_call'")
    source, answer = str(record.get("source") or context.name), record["answer"]
    if context.options.get("raw_prompt"):
        user, identity = Message("user", record["prompt"]), context.identity(record)
        expect, category = Expect(answer=answer), "raw_prompt"
        task = Task(identity, (user,), (), expect, category=category, source=source)
        messages = (user, Message("assistant", answer))
        return Converted(Conversation(messages, (), identity, source), [task])
    text, system, listed = record["prompt"], str(record.get("system") or ""), record.get("tools")
    prompt = split_prompt(text)
    if prompt is None and not listed:
        raise Skip("a prompt without a list of tools", repr(text[:60]))
    prompt = prompt or PromptText(system, listed, text.strip())
    if not prompt.question:
        raise Skip("a prompt without a question", repr(text[-60:]))
    system = prompt.system or system
    tools = read_tools(listed or prompt.tools, context)
    content, calls = None, read_python_calls(answer, tools)
    if calls is None:
        reply = (ToolCallTags() if "<tool_call>" in answer else Calls()).read(answer)
        if reply.problem is not ParseProblem.NONE:
            raise Skip(BAD_ANSWER, f"{reply.problem}: {answer!r:.80}")
        content, calls = reply.content, reply.calls
    turns = (
        *((Message("system", system),) if system else ()),
        Message("user", prompt.question),
        Message("assistant", content, tool_calls=fit_calls(calls, tools, context)),
    )
    conversation = context.complete(Conversation(turns, tools, source=source), record)
    called = sorted({call.name for call in turns[-1].tool_calls})
    names = sorted(tool.name for tool in tools)
    truth, boxed = record.get("ground_truth") or answer, record.get("possible_boxed_answers")
    if truth != answer and (truth not in called if called else truth in names):
        detail = f"{truth!r:.40} is not called; called: {', '.join(called) or 'none'}"
        raise Skip("ground_truth and answer contradict each other", detail)
    if boxed and (not isinstance(boxed, list) or sorted(map(str, boxed)) != names):
        detail = f"{boxed!r:.60}; on offer: {', '.join(names)}"
        raise Skip("possible_boxed_answers are not the tools on offer", detail)
    return Converted(conversation, tasks_of(conversation))


@dataclass(frozen=True)
class PromptText:
    """The three parts of a prompt; the tools as they are written."""

    system: str
    tools: Json
    question: str


def split_prompt(text: str) -> PromptText | None:
    """Split a prompt at its first JSON list of objects with names; None without one."""
    for opening in islice(re.finditer(r"\[", text), MAX_LISTS):
        start = opening.start()
        found = decode(text, start)
        listed = found.value if isinstance(found.value, list) else []
        bodies = [one.get("function", one) if isinstance(one, dict) else None for one in listed]
        named = [isinstance(body, dict) and "name" in body for body in bodies]
        if found.problem is ParseProblem.NONE and named and all(named):
            return PromptText(text[:start].strip(), listed, text[found.end :].strip())
    return None


def read_python_calls(text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...] | None:
    """Read a text of calls separated by space, commas or semicolons; None for any other text."""
    reader, calls = LiteralReader(text), []
    while not reader.at_end():
        head = reader.match(_TOOL_NAME)
        if head is None:
            return None
        try:
            calls.append(_read_call(reader, head[1], tools))
        except LiteralError:
            return None
    return tuple(calls) or None


def _read_call(reader: LiteralReader, name: str, tools: Sequence[Tool]) -> ToolCall:
    """Read the arguments of a call; values without a name go to the tool's parameters in order."""
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
                detail = f"{name} takes fewer values without a name: {reader.text!r:.80}"
                raise Skip(BAD_ANSWER, detail)
            key = free[0]
        if key in arguments:
            raise Skip(BAD_ANSWER, f"{name} is given {key!r} twice: {reader.text!r:.80}")
        free = [other for other in free if other != key]
        arguments[key] = reader.value()
        if not reader.take(","):
            reader.expect(")")
            break
    return ToolCall(name, arguments)


PROMPT_ROWS = Source(
    "prompt_rows",
    looks_like,
    convert,
    {"": {"prompt", "answer", "system", *_OWN_KEYS}},
    options={"raw_prompt"},
)
