"""Calls as Python would write them, one per line: `get_weather(city="Paris", days=3)`.

Values are literals (see `literals.py`); argument names that are no identifiers are written `f(**{"odd-name": 1})`. Tool names may
hold letters, digits, `_`, `.`, `-`, `:` and `/`; others are refused.

What counts as a call, line by line:

* A call line is, from its first to its last non-blank character, a tool name, directly followed by `(`, named arguments, `)`.
  So `I will call f (n = 5)` and `f(n=5) is next` are text.
* A line that begins as one (name, `(`, then `word=`, `**{` or a literal) and cannot be read, or has punctuation behind it, is a
  broken call: `UNCLOSED` on the last line when it merely ends too early, `BAD_ARGUMENTS` when its arguments have no names or one
  name twice, else `NOT_JSON`.
  `O(n log n)` and `f(x)` do not begin as one and are text.
* Text may stand before the calls and is content. Text behind a call is content with `STRAY_TEXT` as the problem.

A reply without calls is content as it stands. `write` refuses content that holds a line which would be read as a call.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.json_reading import CallCheck, list_tools
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, write_literal
from toolhone.dialects.syntax.reasoning import read_after_reasoning
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall

_TOOL_NAME = re.compile(r"[^\W\d][\w.:/-]*")
_NAME = re.compile(r"[^\W\d]\w*")
_NO_WORD = re.compile(r"\W+")
_HEAD = re.compile(r"[ \t]*([^\W\d][\w.:/-]*)\(")
_SIGN = re.compile(r"""\s*(?:[^\W\d]\w*\s*=(?!=)|\*\*\s*\{|["'\[{]|[-+]?\.?\d|\Z|\))""")

_INSTRUCTIONS = """\
You may call these tools:
{tools}

To call a tool, write a line such as
tool_name(parameter="value", other=3)
with Python values. Several calls go on several lines. After the calls, stop and wait for the results.
When no tool is needed, answer in plain text."""


class Calls:
    """The syntax `calls`."""

    name = "calls"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Content, then one call per line. Refuses tool names and content that could not be read back."""
        said = content or ""
        for line in said.split("\n"):
            if _read_line(line, last=True) is not None:
                raise DialectError(
                    f"the syntax calls would read a line of the assistant's text as a call: {line!r:.80}"
                )
        if not calls:
            return said
        parts = [said] if said.strip() else []
        return "\n".join([*parts, *map(_write_call, calls)])

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, _read)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return f"{message.name or 'Result'} -> {message.content or ''}"


def _write_call(call: ToolCall) -> str:
    if not _TOOL_NAME.fullmatch(call.name):
        raise DialectError(
            f"the syntax calls cannot write the tool name {call.name!r}: it must be of letters, digits and _ . - : /"
        )
    odd = {
        name: value
        for name, value in call.arguments.items()
        if not _NAME.fullmatch(name) or keyword.iskeyword(name)
    }
    parts = [
        f"{name}={write_literal(value)}"
        for name, value in call.arguments.items()
        if name not in odd
    ]
    return f"{call.name}({', '.join([*parts, *([f'**{write_literal(odd)}'] if odd else [])])})"


def _read(text: str) -> ParsedReply:
    lines = text.split("\n")
    last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
    judged = [_read_line(line, last=index == last) for index, line in enumerate(lines)]
    seen = [one for one in judged if one is not None]
    if not seen:
        return ParsedReply(text)
    problem = next(
        (one.problem for one in seen if one.problem is not ParseProblem.NONE), ParseProblem.NONE
    )
    first = next(index for index, one in enumerate(judged) if one is not None)
    behind = any(
        line.strip() for line, one in zip(lines[first:], judged[first:], strict=True) if one is None
    )
    if behind and problem is ParseProblem.NONE:
        problem = ParseProblem.STRAY_TEXT
    content = "\n".join(
        line for line, one in zip(lines, judged, strict=True) if one is None
    ).strip()
    return ParsedReply(
        content or None, tuple(one.call for one in seen if one.call is not None), None, problem
    )


def _read_line(line: str, last: bool) -> CallCheck | None:
    """The call on this line, or what is wrong with it; None when the line is text."""
    head = _HEAD.match(line)
    if head is None or not _SIGN.match(line, head.end()):
        return None
    reader = LiteralReader(line, head.end())
    try:
        arguments = read_arguments(reader)
    except LiteralError as error:
        if error.repeated:
            return CallCheck(None, ParseProblem.BAD_ARGUMENTS)
        return CallCheck(
            None, ParseProblem.UNCLOSED if error.unclosed and last else ParseProblem.NOT_JSON
        )
    if not reader.at_end():
        return (
            CallCheck(None, ParseProblem.NOT_JSON)
            if _NO_WORD.fullmatch(line, reader.position)
            else None
        )
    return (
        CallCheck(None, ParseProblem.BAD_ARGUMENTS)
        if arguments is None
        else CallCheck(ToolCall(head[1], arguments))
    )


def read_arguments(reader: LiteralReader) -> dict[str, Json] | None:
    """Named arguments up to the closing bracket; None when one of them has no name."""
    arguments: dict[str, Json] = {}
    nameless = False
    while not reader.take(")"):
        given = _read_argument(reader)
        nameless = nameless or given is None
        for name, value in (given or {}).items():
            if name in arguments:
                raise LiteralError(repeated=True)
            arguments[name] = value
        if not reader.take(","):
            reader.expect(")")
            break
    return None if nameless else arguments


def _read_argument(reader: LiteralReader) -> dict[str, Json] | None:
    """One argument as a mapping (several behind `**`); None for a value without a name."""
    if reader.take("**"):
        value = reader.value()
        if not isinstance(value, Mapping):
            raise LiteralError
        return dict(value)
    start = reader.position
    name = reader.name()
    if name is not None and reader.take("="):
        return {name: reader.value()}
    reader.position = start
    reader.value()
    return None
