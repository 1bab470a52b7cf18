"""A call as a bare JSON object and nothing else: `{"name": NAME, "parameters": {...}}` (or `arguments`).

Several calls stand one after another, apart by white space, `;` or `,`, or in one JSON list. There is no room for text: text beside
calls is read as content with `STRAY_TEXT` as the problem (a call behind text is found only at the start of a line), and `write`
refuses it. What does not begin like a JSON object is plain text; so is an object with neither `name` nor arguments, or with a name
but no arguments, for such is a plain answer in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import (
    CallCheck,
    as_call,
    decode_sequence,
    list_tools,
    open_at_end,
    read_after_reasoning,
    write_json,
)
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall

ARGUMENT_KEYS = ("parameters", "arguments")
_BEGINS = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:["']|\Z)""")
_BEHIND_TEXT = re.compile(
    r'^[ \t]*((?:\[[ \t]*)?\{\s*"(?:name|type|parameters|arguments)"\s*:)', re.MULTILINE
)

_INSTRUCTIONS = """\
You may call these tools:
{tools}

To call a tool, write {{"name": "<tool name>", "parameters": {{"<parameter>": <value>}}}} and nothing else.
When no tool is needed, answer in plain text."""


class BareJson:
    """The syntax `bare_json`."""

    name = "bare_json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """One object per line, or the content. Text beside a call has no place and is refused."""
        if calls and (content or "").strip():
            raise DialectError(
                f"the syntax bare_json has no place for text beside a call; the message says {content!r:.60}"
            )
        if not calls:
            return content or ""
        return "\n".join(
            write_json({"name": call.name, "parameters": dict(call.arguments)}) for call in calls
        )

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, _read)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return write_json({"output": message.content or ""})


def _read(text: str) -> ParsedReply:
    if _BEGINS.match(text):
        return _read_from(text, len(text) - len(text.lstrip()))
    found = _BEHIND_TEXT.search(text)
    return ParsedReply(text) if found is None else _read_from(text, found.start(1))


def _read_from(text: str, start: int) -> ParsedReply:
    """Read the objects that begin at `start`; what stands before and behind them is text."""
    calls: list[ToolCall] = []
    problem = ParseProblem.NONE
    end = start
    for found in decode_sequence(text, start, ",;"):
        if found.problem is not ParseProblem.NONE:
            broken = (
                ParseProblem.UNCLOSED if open_at_end(text, found.end) else ParseProblem.NOT_JSON
            )
            return ParsedReply(
                text[:start].strip() or None, tuple(calls), None, _first(problem, broken)
            )
        for value in found.value if isinstance(found.value, list) else [found.value]:
            judged = _judge(value)
            if judged is None:
                return (
                    ParsedReply(text)
                    if not calls
                    else ParsedReply(
                        None, tuple(calls), None, _first(problem, ParseProblem.NOT_A_CALL)
                    )
                )
            calls.extend([] if judged.call is None else [judged.call])
            problem = _first(problem, judged.problem)
        end = found.end
    around = [text[:start].strip(), text[end:].strip(" \t\r\n,;")]
    if any(around):
        problem = _first(problem, ParseProblem.STRAY_TEXT)
    if not calls and problem is ParseProblem.NONE:
        return ParsedReply(text)
    return ParsedReply("\n".join(filter(None, around)) or None, tuple(calls), None, problem)


def _judge(value: Json) -> CallCheck | None:
    """The value as a call; None when it bears no sign of one."""
    if not isinstance(value, Mapping) or not any(key in value for key in ARGUMENT_KEYS):
        return None
    return as_call(value, "name", ARGUMENT_KEYS)


def _first(problem: ParseProblem, later: ParseProblem) -> ParseProblem:
    return later if problem is ParseProblem.NONE else problem
