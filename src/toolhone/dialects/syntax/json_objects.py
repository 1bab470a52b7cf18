"""Calls as JSON objects without marks or text beside them: the syntaxes `json` and `bare_json`.

    {"tool": NAME, "args": {...}}    {"final": TEXT}  `json`: a call, and an answer
    {"name": NAME, "parameters": {...}}                `bare_json`: a call; answers are text

`write` refuses text beside a call; reading it gives the text as content with the problem
`STRAY_TEXT`. An object behind text (a code fence, for instance) is found only at the beginning of a
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import (
    as_call,
    decode_sequence,
    list_tools,
    open_at_end,
    read_after_reasoning,
    result_value,
    write_json,
)
from toolhone.errors import DialectError
from toolhone.schema import Message, Tool, ToolCall

_ARGUMENT_KEYS = ("parameters", "arguments")
_BARE_BEGINS = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:["']|\Z)""")
_BARE_BEHIND_TEXT = re.compile(
    r'^[ \t]*((?:\[[ \t]*)?\{\s*"(?:name|type|parameters|arguments)"\s*:)', re.MULTILINE
)
_BEHIND_TEXT = re.compile(r'^[ \t]*(\{\s*"(?:tool|args|final)"\s*:)', re.MULTILINE)

_BARE_INSTRUCTIONS = """\
You may call these tools:
{tools}

To call a tool, write {{"name": "<tool name>", "parameters": {{"<parameter>": <value>}}}} \
and nothing else.
When no tool is needed, answer in plain text."""
_TOOLS = """\
You may call these tools:
{tools}

"""
_FORM = """\
Always write JSON and nothing else. \
To call a tool: {"tool": "<tool name>", "args": {"<parameter>": <value>}}
Several calls go on several lines. After a call, stop and wait for its result. \
To answer: {"final": "<your answer>"}"""


class JsonObject:
    """The syntax `json`. Plain text is `STRAY_TEXT`; an object with other keys is `NOT_A_CALL`."""

    name = "json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write the calls, or the answer."""
        if not calls:
            return write_json({"final": content or ""})
        _refuse_text(self.name, content)
        return "\n".join(
            write_json({"tool": call.name, "args": dict(call.arguments)}) for call in calls
        )

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, self.read_body)

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return _read_json(text)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return (_TOOLS.format(tools=list_tools(tools)) if tools else "") + _FORM

    def result(self, message: Message) -> str:
        name = "" if message.name is None else f'"tool": {write_json(message.name)}, '
        return f'{{{name}"result": {result_value(message)}}}'


def _read_json(text: str) -> ParsedReply:
    start = len(text) - len(text.lstrip())
    if not text.startswith("{", start):
        behind = _BEHIND_TEXT.search(text)
        if behind is None:
            return ParsedReply(text.strip() or None, problem=ParseProblem.STRAY_TEXT)
        start = behind.start(1)
    calls: list[ToolCall] = []
    texts = [text[:start].strip()]
    problems: list[ParseProblem] = []
    end = start
    for found in decode_sequence(text, start, ""):
        end, value = found.end, found.value
        if found.problem is not ParseProblem.NONE:
            broken = open_at_end(text, end)
            problems.append(ParseProblem.UNCLOSED if broken else ParseProblem.NOT_JSON)
            end = len(text)
        elif isinstance(value, Mapping) and set(value) == {"final"}:
            final = value["final"]
            texts.append(final if isinstance(final, str) else write_json(final))
        elif isinstance(value, Mapping) and set(value) <= {"tool", "args"}:
            check = as_call(value, "tool", ("args",))
            calls += [] if check.call is None else [check.call]
            problems += [] if check.call is not None else [check.problem]
        else:
            problems.append(ParseProblem.NOT_A_CALL)
    finals, rest = len(texts) - 1, text[end:].strip()
    if texts[0] or rest or finals + bool(calls) > 1:
        problems.append(ParseProblem.STRAY_TEXT)
    content: str | None = "\n".join(filter(None, [*texts, rest])) or None
    if finals == 1 and not texts[0] and not rest:
        content = texts[1]
    return ParsedReply(content, tuple(calls), None, next(iter(problems), ParseProblem.NONE))


class BareJson:
    """The syntax `bare_json`.

    Calls follow one another with white space, `;` or `,` between, or stand in one list. An object
    without a name, or without arguments, is a plain answer in JSON.
    """

    name = "bare_json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write one object per line, or the content."""
        if not calls:
            return content or ""
        _refuse_text(self.name, content)
        return "\n".join(
            write_json({"name": call.name, "parameters": dict(call.arguments)}) for call in calls
        )

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, self.read_body)

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return _read_bare(text)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _BARE_INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return write_json({"output": message.content or ""})


def _read_bare(text: str) -> ParsedReply:
    start = len(text) - len(text.lstrip())
    if not _BARE_BEGINS.match(text):
        behind = _BARE_BEHIND_TEXT.search(text)
        if behind is None:
            return ParsedReply(text)
        start = behind.start(1)
    before, end = text[:start].strip(), start
    calls: list[ToolCall] = []
    problems: list[ParseProblem] = []
    for found in decode_sequence(text, start, ",;"):
        if found.problem is not ParseProblem.NONE:
            broken = open_at_end(text, found.end)
            problems.append(ParseProblem.UNCLOSED if broken else ParseProblem.NOT_JSON)
            return ParsedReply(before or None, tuple(calls), None, problems[0])
        for value in found.value if isinstance(found.value, list) else [found.value]:
            if not isinstance(value, Mapping) or value.keys().isdisjoint(_ARGUMENT_KEYS):
                if not calls:
                    return ParsedReply(text)
                return ParsedReply(
                    None, tuple(calls), None, [*problems, ParseProblem.NOT_A_CALL][0]
                )
            check = as_call(value, "name", _ARGUMENT_KEYS)
            calls += [] if check.call is None else [check.call]
            problems += [] if check.call is not None else [check.problem]
        end = found.end
    around = "\n".join(filter(None, [before, text[end:].strip(" \t\r\n,;")]))
    problems += [ParseProblem.STRAY_TEXT] if around else []
    if not calls and not problems:
        return ParsedReply(text)
    return ParsedReply(around or None, tuple(calls), None, next(iter(problems), ParseProblem.NONE))


def _refuse_text(syntax: str, content: str | None) -> None:
    if (content or "").strip():
        raise DialectError(
            f"the syntax {syntax} has no place for text beside a call; "
            f"the message says {content!r:.60}"
        )
