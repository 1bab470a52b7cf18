"""Calls between marks: `[TOOL_CALL]{"name": NAME, "parameters": {...}}[/TOOL_CALL]`, one per line, text around them allowed.

`read_tags` reads any such form (`tool_call_tags.py` uses it too). It decodes the JSON from the opening mark on instead of looking
for the closing mark, so that a string that holds the closing mark comes back. Text before, between and after calls is content,
stripped, its pieces joined by newlines. A JSON body that is complete but whose end mark is missing still counts as a call, with
`UNCLOSED` as the problem; a body with anything behind the JSON does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.json_reading import (
    as_call,
    decode,
    list_tools,
    skip_space,
    write_json,
)
from toolhone.dialects.syntax.reasoning import read_after_reasoning
from toolhone.schema import Message, Tool, ToolCall

OPEN = "[TOOL_CALL]"
CLOSE = "[/TOOL_CALL]"
_MARKS = re.compile(r"\[/?TOOL_CALL\]")

_INSTRUCTIONS = """\
You may call these tools:
{tools}

To call a tool, write
[TOOL_CALL]{{"name": "<tool name>", "parameters": {{"<parameter>": <value>}}}}[/TOOL_CALL]
Several calls go on several lines. After a call, stop and wait for its result. When no tool is needed, answer in plain text."""


class Tagged:
    """The syntax `tagged`."""

    name = "tagged"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Content, then one call per line. Marks inside strings are written with an escaped bracket."""
        parts = [content] if content else []
        return "\n".join([*parts, *(f"{OPEN}{self._body(call)}{CLOSE}" for call in calls)])

    def _body(self, call: ToolCall) -> str:
        text = write_json({"name": call.name, "parameters": dict(call.arguments)})
        return _MARKS.sub(lambda found: "\\u005b" + found[0][1:], text)

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, lambda body: read_tags(body, OPEN, CLOSE))

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return f"[TOOL_RESULT]{message.content or ''}[/TOOL_RESULT]"


def read_tags(text: str, opening: str, closing: str) -> ParsedReply:
    """Read text with calls between marks; the JSON has `name` and `arguments` or `parameters`. Never raises."""
    marks = re.compile(f"{re.escape(opening)}|{re.escape(closing)}")
    pieces: list[str] = []
    calls: list[ToolCall] = []
    problem = ParseProblem.NONE
    position = 0
    while mark := marks.search(text, position):
        pieces.append(text[position : mark.start()])
        if mark[0] == closing:
            position, seen, call = mark.end(), ParseProblem.STRAY_MARK, None
        else:
            position, seen, call = _read_body(text, mark.end(), marks, closing)
        calls.extend([] if call is None else [call])
        problem = seen if problem is ParseProblem.NONE else problem
    pieces.append(text[position:])
    if not calls and problem is ParseProblem.NONE:
        return ParsedReply(text)
    return ParsedReply(
        "\n".join(filter(None, map(str.strip, pieces))) or None, tuple(calls), None, problem
    )


def _read_body(
    text: str, start: int, marks: re.Pattern[str], closing: str
) -> tuple[int, ParseProblem, ToolCall | None]:
    """Where to read on behind the body that begins at `start`, its problem, and its call."""
    found = decode(text, start)
    after = skip_space(text, found.end)
    if found.problem is ParseProblem.NONE:
        judged = as_call(found.value, "name", ("arguments", "parameters"))
        mark = marks.match(text, after)
        if mark is not None and mark[0] == closing:
            return mark.end(), judged.problem, judged.call
        if mark is not None or after == len(text):
            return after, ParseProblem.UNCLOSED, judged.call
    mark = marks.search(text, after)
    if mark is None:
        return len(text), ParseProblem.UNCLOSED, None
    return (
        (mark.end(), ParseProblem.NOT_JSON, None)
        if mark[0] == closing
        else (mark.start(), ParseProblem.UNCLOSED, None)
    )
