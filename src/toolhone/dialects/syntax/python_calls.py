"""Calls as Python writes them: the syntax `calls`, and the body `PythonCalls`.

    get_weather(city="Paris", days=3, **{"odd-name": 1})    `Calls`: one per line
    <|tool_call_start|>[f(a="x", n=2), g()]<|tool_call_end|> `PythonCalls`

Values are literals (`literals.py`). Nothing is evaluated.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.delimited import DelimitedFormat, FoundCalls, followed
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, write_literal
from toolhone.dialects.syntax.model_text import CallCheck, list_tools, read_after_reasoning
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall

IDENTIFIER = re.compile(r"[^\W\d]\w*")
_TOOL_NAME = re.compile(r"[^\W\d][\w.:/-]*")
_NO_WORD = re.compile(r"\W+")
_LINE_HEAD = re.compile(r"[ \t]*([^\W\d][\w.:/-]*)\(")
_LINE_SIGN = re.compile(r"""\s*(?:[^\W\d]\w*\s*=(?!=)|\*\*\s*\{|["'\[{]|[-+]?\.?\d|\Z|\))""")
_NAME = r"[^\s(){}\[\],=\"']{1,256}"
_HEAD = re.compile(rf"\s*+({_NAME})\s*+\(")
_KEY_TEXT = r"[^\s=(){}\[\],\"'][^=(){}\[\],\n]{0,255}?"
_KEY = re.compile(rf"\s*({_KEY_TEXT})\s*=(?!=)\s*")

_INSTRUCTIONS = """\
You may call these tools:
{tools}

To call a tool, write a line such as
tool_name(parameter="value", other=3)
with Python values. Several calls go on several lines. \
After the calls, stop and wait for the results.
When no tool is needed, answer in plain text."""


class Calls:
    """The syntax `calls`: one call per line. Tool names may hold letters, digits and `_ . - : /`.

    * A call line holds a tool name, `(`, named arguments and `)`, and white space around them.
      `I will call f (n = 5)` and `f(n=5) is next` are text.
    * A line that begins as one (name, `(`, then `word=`, `**{` or a literal) but cannot be read, or
      has punctuation behind it, is a broken call: `UNCLOSED` if it is the last line and ends too
      early, `BAD_ARGUMENTS` if an argument has no name or a name occurs twice, else `NOT_JSON`.
      `O(n log n)` and `f(x)` are text.
    * Text before the calls is content. Text behind a call is content with the problem `STRAY_TEXT`.
    """

    name = "calls"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write content, then one call per line. Refuse what would not be read back."""
        text = content or ""
        for line in text.split("\n"):
            if _read_line(line, last=True) is not None:
                raise DialectError(
                    "the syntax calls would read a line of the assistant's text as a call: "
                    f"{line!r:.80}"
                )
        parts = [text] if text.strip() or not calls else []
        return "\n".join([*parts, *map(_write_call, calls)])

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, self.read_body)

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return _read_lines(text)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return f"{message.name or 'Result'} -> {message.content or ''}"


def _write_call(call: ToolCall) -> str:
    if not _TOOL_NAME.fullmatch(call.name):
        raise DialectError(
            f"the syntax calls cannot write the tool name {call.name!r}: "
            "it must be of letters, digits and _ . - : /"
        )
    parts, odd = [], {}
    for name, value in call.arguments.items():
        if is_keyword_name(name):
            parts.append(f"{name}={write_literal(value)}")
        else:
            odd[name] = value
    return f"{call.name}({', '.join([*parts, *([f'**{write_literal(odd)}'] if odd else [])])})"


def is_keyword_name(name: str) -> bool:
    """Whether Python can write an argument with this name as `name=value`."""
    return IDENTIFIER.fullmatch(name) is not None and not keyword.iskeyword(name)


def _read_lines(text: str) -> ParsedReply:
    lines = text.split("\n")
    last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
    checks = [_read_line(line, last=index == last) for index, line in enumerate(lines)]
    found = [check for check in checks if check is not None]
    if not found:
        return ParsedReply(text)
    problems = [check.problem for check in found if check.problem != ParseProblem.NONE]
    behind = checks.index(found[0])
    if any(lines[k].strip() for k in range(behind, len(lines)) if checks[k] is None):
        problems.append(ParseProblem.STRAY_TEXT)
    content = "\n".join(
        line for line, check in zip(lines, checks, strict=True) if check is None
    ).strip()
    calls = tuple(check.call for check in found if check.call is not None)
    return ParsedReply(content or None, calls, None, next(iter(problems), ParseProblem.NONE))


def _read_line(line: str, last: bool) -> CallCheck | None:
    """Read the call on this line, or find its problem; None if the line is text."""
    head = _LINE_HEAD.match(line)
    if head is None or not _LINE_SIGN.match(line, head.end()):
        return None
    reader = LiteralReader(line, head.end())
    try:
        named, placed = reader.arguments()
    except LiteralError as error:
        early = error.problem is ParseProblem.UNCLOSED and not last
        return CallCheck(None, ParseProblem.NOT_JSON if early else error.problem)
    if not reader.at_end():
        broken = _NO_WORD.fullmatch(line, reader.position)
        return CallCheck(None, ParseProblem.NOT_JSON) if broken else None
    if placed:
        return CallCheck(None, ParseProblem.BAD_ARGUMENTS)
    return CallCheck(ToolCall(head[1], named))


@dataclass(frozen=True)
class PythonCalls:
    """Name, named arguments in round brackets; `frame.between` joins calls.

    `raw` is the quote of a form that does not escape strings: such a string ends at a quote that
    the next argument or the end of the call follows. Argument names may hold anything but quotes at
    their start, brackets, commas and `=`.
    """

    raw: str = ""
    kind: str = field(default="python_calls", init=False)
    begins: str = field(default=rf"{_NAME}\s*+\(", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        head = _HEAD.match(text, start)
        if head is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        reader = _RawReader(text, head.end(), self, frame)
        try:
            named, placed = reader.arguments(_KEY)
        except LiteralError as error:
            return FoundCalls(reader.position, (), error.problem)
        if placed:
            return FoundCalls(reader.position, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(reader.position, (ToolCall(head[1], named),))


class _RawReader(LiteralReader):
    """Reads named arguments whose strings may be raw, until no quote ends one."""

    def __init__(self, text: str, position: int, body: PythonCalls, frame: DelimitedFormat) -> None:
        super().__init__(text, position)
        self._quote, self._behind = body.raw, _behind_raw(frame)
        self._opening = frame.opening_of(body.begins)

    def argument(self, name: str | None) -> Json:
        quote = self._quote
        if name is None or not quote or not self.text.startswith(quote, self.position):
            return self.value()
        start = self.position + len(quote)
        mark = re.compile(re.escape(quote))
        end = followed(mark, self._behind, self.text, start, self._opening)
        if end is None:
            self._quote = ""
            return self.value()
        self.position = end.end()
        return self.text[start : end.start()]


@lru_cache(maxsize=256)
def _behind_raw(frame: DelimitedFormat) -> re.Pattern[str]:
    """The next argument, or the bracket that ends the call."""
    return re.compile(rf"\s*+,\s*+{_KEY_TEXT}\s*+=|\s*+\){frame.follows}")
