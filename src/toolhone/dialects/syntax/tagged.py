"""JSON calls between tags, text around them allowed: `tagged` and `tool_call_tags`.

    [TOOL_CALL]{"name": NAME, "parameters": {...}}[/TOOL_CALL]       our own, one per line
    <tool_call>\\n{"name": NAME, "arguments": {...}}\\n</tool_call>  the native form of many models

Text before, between and after the calls is content: stripped pieces joined by newlines. A complete
JSON body without an end tag still counts as a call, with the problem `UNCLOSED`; a body with
anything behind its JSON does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import (
    as_call,
    decode,
    list_tools,
    read_after_reasoning,
    skip_space,
    write_json,
)
from toolhone.schema import Message, Tool, ToolCall

_TAGGED = """\
You may call these tools:
{tools}

To call a tool, write
[TOOL_CALL]{{"name": "<tool name>", "parameters": {{"<parameter>": <value>}}}}[/TOOL_CALL]
Several calls go on several lines. After a call, stop and wait for its result. \
When no tool is needed, answer in plain text."""
_TOOL_CALL_TAGS = """\
You may call these tools:
<tools>
{tools}
</tools>

To call a tool, write
<tool_call>
{{"name": "<tool name>", "arguments": {{"<argument>": <value>}}}}
</tool_call>
Several calls follow one another. After a call, stop and wait for its result. \
When no tool is needed, answer in plain text."""


class Tagged:
    """The syntax `tagged`."""

    name = "tagged"
    open, close = "[TOOL_CALL]", "[/TOOL_CALL]"
    _space, _key, _escape = "", "parameters", "\\u005b"
    _instructions, _result = _TAGGED, "[TOOL_RESULT]{}[/TOOL_RESULT]"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write content, then the calls. Tags inside strings get an escaped bracket."""
        parts = [content] if content else []
        return "\n".join([*parts, *map(self._write_call, calls)])

    def _write_call(self, call: ToolCall) -> str:
        body = write_json({"name": call.name, self._key: dict(call.arguments)})
        for mark in (self.open, self.close):
            body = body.replace(mark, self._escape + mark[1:])
        return f"{self.open}{self._space}{body}{self._space}{self.close}"

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, self.read_body)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return self._instructions.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return self._result.format(message.content or "")

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        marks = re.compile(f"{re.escape(self.open)}|{re.escape(self.close)}")
        pieces: list[str] = []
        calls: list[ToolCall] = []
        problem = ParseProblem.NONE
        position = 0
        while mark := marks.search(text, position):
            pieces.append(text[position : mark.start()])
            if mark[0] == self.close:
                position, found, call = mark.end(), ParseProblem.STRAY_MARK, None
            else:
                position, found, call = self._read_body(text, mark.end(), marks)
            calls += [] if call is None else [call]
            problem = found if problem is ParseProblem.NONE else problem
        pieces.append(text[position:])
        if not calls and problem is ParseProblem.NONE:
            return ParsedReply(text)
        content = "\n".join(filter(None, map(str.strip, pieces))) or None
        return ParsedReply(content, tuple(calls), None, problem)

    def _read_body(
        self, text: str, start: int, marks: re.Pattern[str]
    ) -> tuple[int, ParseProblem, ToolCall | None]:
        """Read the body at `start`: where reading resumes, the problem, the call.

        The JSON is decoded before the end tag is looked for, so that a string may hold the tag.
        """
        found = decode(text, start)
        after = skip_space(text, found.end)
        if found.problem is ParseProblem.NONE:
            check = as_call(found.value, "name", ("arguments", "parameters"))
            mark = marks.match(text, after)
            if mark is not None and mark[0] == self.close:
                return mark.end(), check.problem, check.call
            if mark is not None or after == len(text):
                return after, ParseProblem.UNCLOSED, check.call
        mark = marks.search(text, after)
        if mark is not None and mark[0] == self.close:
            return mark.end(), ParseProblem.NOT_JSON, None
        return len(text) if mark is None else mark.start(), ParseProblem.UNCLOSED, None


class ToolCallTags(Tagged):
    """The syntax `tool_call_tags`."""

    name = "tool_call_tags"
    open, close = "<tool_call>", "</tool_call>"
    _space, _key, _escape = "\n", "arguments", "\\u003c"
    _instructions, _result = _TOOL_CALL_TAGS, "<tool_response>\n{}\n</tool_response>"
