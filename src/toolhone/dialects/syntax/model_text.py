"""Read what a model wrote, for all call syntaxes: reasoning in front, JSON, JSON between tags.

Reading never raises. What two readers could understand differently is not JSON here: a repeated
key, `NaN`, `Infinity`, a number too large for a double, half a surrogate pair, and nesting deeper
than `MAX_DEPTH`. Comments, single quotes and trailing commas are not repaired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.interface import ParsedReply, ParseProblem, Syntax
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.schema.json_input import DECODER, check_keys, packaged_json

MAX_DEPTH = 100
CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""Call ids that every template accepts (Mistral's accept no others)."""
_IDS = ("call_id", "tool_call_id")
"""Keys of ids beside `id`; what they hold is not kept."""
_WINDOW = 2048
_LONGEST_WORD = 16
"""A pair of escaped surrogates, or `-Infinity`: the end of a window may cut these."""
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]+|\\.)*+("|\\?\Z)|[{}\[\]]', re.DOTALL)
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
_TEXTS = packaged_json("dialects/syntax/prompts.json")
"""By syntax: the lines that explain the tools, lines that are always there, a result's form."""


@dataclass(frozen=True)
class ReasoningBlock:
    """The marks around reasoning, without white space."""

    open: str = "<think>"
    close: str = "</think>"


USUAL = ReasoningBlock()


def write_reasoning(reasoning: str) -> str:
    """Write the block for this reasoning, with the empty line after it."""
    return f"{USUAL.open}\n{reasoning}\n{USUAL.close}\n\n"


def read_after_reasoning(
    text: str, read: Callable[[str], ParsedReply], thought: ReasoningBlock = USUAL
) -> ParsedReply:
    """Apply `read` to the text behind a block at the very start; one without end is `UNCLOSED`."""
    if not text.lstrip().startswith(thought.open):
        return read(text)
    reasoning, mark, rest = text.lstrip()[len(thought.open) :].partition(thought.close)
    if not mark:
        return ParsedReply(None, (), reasoning.strip(), ParseProblem.UNCLOSED)
    return replace(read(rest.lstrip("\n")), reasoning=reasoning.strip() or None)


def split_reasoning(message: Message) -> Message:
    """Move a block at the start of an assistant's content to `reasoning`, unless that is set."""
    content = message.content or ""
    if message.role != "assistant" or message.reasoning is not None or USUAL.open not in content:
        return message
    reply = read_after_reasoning(content, ParsedReply)
    if reply.problem is not ParseProblem.NONE or not content.lstrip().startswith(USUAL.open):
        return message
    return replace(message, content=reply.content, reasoning=reply.reasoning)


@dataclass(frozen=True)
class Decoded:
    """A JSON value in a text and where it ends, or the problem (`NOT_JSON` or `UNCLOSED`)."""

    value: Json
    end: int
    problem: ParseProblem = ParseProblem.NONE

    @property
    def ok(self) -> bool:
        return self.problem is ParseProblem.NONE


def skip_space(text: str, start: int) -> int:
    """Return the first position at or after `start` that is not JSON white space."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def decode(text: str, start: int) -> Decoded:
    """Decode the JSON value at `start`, after white space, in linear time also on failure."""
    start = skip_space(text, start)
    try:
        value, end = _decode(text, start)
    except (ValueError, RecursionError):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    brackets = text.count("{", start, end) + text.count("[", start, end)
    if (brackets > MAX_DEPTH and _too_deep(value)) or (
        _HALF_ESCAPED.search(text, start, end)
        and _HALF.search(json.dumps(value, ensure_ascii=False))
    ):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    return Decoded(value, end)


def _decode(text: str, start: int) -> tuple[Json, int]:
    """Decode in growing windows, because a `JSONDecodeError` counts all lines before it."""
    size = _WINDOW
    while len(text) > size:
        piece = text[start : start + size]
        whole = len(piece) < size
        try:
            value, end = DECODER.raw_decode(piece)
            if whole or end < size:
                return value, start + end
        except json.JSONDecodeError as error:
            cut = error.pos >= size - _LONGEST_WORD or error.msg.startswith("Unterminated")
            if whole or not cut:
                raise
        size *= 4
    return DECODER.raw_decode(text, start)


def _too_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [one for one in level if isinstance(one, dict | list)]
        level = [
            item for one in nested for item in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def open_at_end(text: str, start: int) -> bool:
    """Whether a bracket or string that begins at `start` is still open at the end of the text."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        if found[0][0] == '"':
            if found[1] != '"':
                return True
            continue
        depth += 1 if found[0] in "{[" else -1
        if depth <= 0:
            return False
    return depth > 0


def decode_sequence(text: str, start: int, separators: str) -> Iterator[Decoded]:
    """Decode JSON objects or lists one after another, with white space or `separators` between."""
    between = re.compile(rf"[\s{re.escape(separators)}]*")
    while start < len(text) and text[start] in "{[":
        found = decode(text, start)
        if not found.ok:
            cut = open_at_end(text, found.end)
            yield replace(found, problem=ParseProblem.UNCLOSED) if cut else found
            return
        yield found
        gap = between.match(text, found.end)
        start = found.end if gap is None else gap.end()


@dataclass(frozen=True)
class FoundCalls:
    """What was read in a text: calls and where they end, or a problem and where it begins."""

    end: int
    calls: tuple[ToolCall, ...] = ()
    problem: ParseProblem = ParseProblem.NONE


def as_call(value: Json, name_key: str, argument_keys: Sequence[str], end: int = 0) -> FoundCalls:
    """Read a call out of a decoded object. Arguments may be absent, or a JSON string of an object.

    Another key that holds something is `NOT_A_CALL`; without arguments there is then no call, since
    it may hold them. The id is kept only if it matches `CALL_ID`: a template may refuse others when
    it writes the result. end: where the object ends in its text.
    """
    name = value.get(name_key) if isinstance(value, Mapping) else None
    present = [key for key in argument_keys if key in value] if name else []
    if not isinstance(name, str) or not name or len(present) > 1:
        return FoundCalls(end, (), ParseProblem.NOT_A_CALL)
    problem = ParseProblem.NONE
    if check_keys(value, (name_key, *argument_keys, *_IDS), "a call", set()):
        problem = ParseProblem.NOT_A_CALL
        if not present:
            return FoundCalls(end, (), problem)
    arguments = value[present[0]] if present else {}
    if isinstance(arguments, str):
        inner = decode(arguments or "{}", 0)
        arguments = inner.value if not arguments[inner.end :].strip() else None
    if not isinstance(arguments, Mapping):
        return FoundCalls(end, (), ParseProblem.BAD_ARGUMENTS)
    identity = value.get("id")
    kept = identity if isinstance(identity, str) and CALL_ID.fullmatch(identity) else None
    return FoundCalls(end, (ToolCall(name, dict(arguments), kept),), problem)


def write_json(value: Json) -> str:
    """Write JSON in one line, characters unescaped. `DialectError` for other values."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"a call cannot be written as JSON: {error}; got {value!r:.80}"
        raise DialectError(reason) from None


def list_tools(tools: Sequence[Tool]) -> str:
    """List the tools as JSON objects with name, description and parameters, one per line."""
    listed = [
        {"name": tool.name, "description": tool.description, "parameters": {**tool.parameters}}
        for tool in tools
    ]
    return "\n".join(map(write_json, listed))


def reply_of(text: str, pieces: Iterable[str], found: Sequence[FoundCalls]) -> ParsedReply:
    """Return what was read in a text: all calls, the pieces around them, the first problem.

    The pieces are stripped, one per line. A text without calls and problems is content as it is.
    """
    calls = tuple(call for one in found for call in one.calls)
    problems = [one.problem for one in found if one.problem is not ParseProblem.NONE]
    if not calls and not problems:
        return ParsedReply(text)
    content = "\n".join(filter(None, map(str.strip, pieces))) or None
    return ParsedReply(content, calls, None, next(iter(problems), ParseProblem.NONE))


class PromptedSyntax(Syntax):
    """What the call syntaxes share that a system text explains, not a chat template."""

    name: str

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        return read_after_reasoning(text, lambda rest: self.read_body(rest, tools))

    def tool_list(self, tools: Sequence[Tool]) -> str:
        """Write what the instructions say of the tools."""
        return list_tools(tools)

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Write the system text that explains the tools and how to call them."""
        lines = _TEXTS[self.name]
        explained = "\n".join(lines["tools"]).replace("{tools}", self.tool_list(tools))
        return (explained if tools else "") + "\n".join(lines["always"])

    def result(self, message: Message) -> str:
        """Write the text that shows a tool's result to the model."""
        content = message.content or ""
        form: str = _TEXTS[self.name]["result"]
        name = message.name or "Result"
        return form.format(name=name, content=content, json=write_json(content))


class Tagged(PromptedSyntax):
    """The syntax `tagged`: JSON between `[TOOL_CALL]` and `[/TOOL_CALL]`, one call per line.

    Text around the calls is content: stripped pieces joined by newlines. A complete JSON body
    without an end tag still counts as a call, with the problem `UNCLOSED`; a body with anything
    behind its JSON does not.
    """

    name = "tagged"
    open, close = "[TOOL_CALL]", "[/TOOL_CALL]"
    _space, _key, _escape = "", "parameters", "\\u005b"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write content, then the calls. Tags inside strings get an escaped bracket."""
        lines = [content] if content else []
        for call in calls:
            body = write_json({"name": call.name, self._key: dict(call.arguments)})
            for mark in (self.open, self.close):
                body = body.replace(mark, self._escape + mark[1:])
            lines.append(f"{self.open}{self._space}{body}{self._space}{self.close}")
        return "\n".join(lines)

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        marks = re.compile(f"{re.escape(self.open)}|{re.escape(self.close)}")
        pieces: list[str] = []
        found: list[FoundCalls] = []
        position = 0
        while mark := marks.search(text, position):
            pieces.append(text[position : mark.start()])
            if mark[0] == self.open:
                found.append(self._read_call(text, mark.end(), marks))
            else:
                found.append(FoundCalls(mark.end(), (), ParseProblem.STRAY_MARK))
            position = found[-1].end
        return reply_of(text, [*pieces, text[position:]], found)

    def _read_call(self, text: str, start: int, marks: re.Pattern[str]) -> FoundCalls:
        """Read the call at `start`; `end` is where reading resumes.

        The JSON is decoded before the end tag is looked for, so that a string may hold the tag.
        """
        found = decode(text, start)
        after = skip_space(text, found.end)
        if found.ok:
            mark = marks.match(text, after)
            call = as_call(found.value, "name", ("arguments", "parameters"), after)
            if mark is not None and mark[0] == self.close:
                return replace(call, end=mark.end())
            if mark is not None or after == len(text):
                return replace(call, problem=ParseProblem.UNCLOSED)
        mark = marks.search(text, after)
        if mark is not None and mark[0] == self.close:
            return FoundCalls(mark.end(), (), ParseProblem.NOT_JSON)
        return FoundCalls(mark.start() if mark else len(text), (), ParseProblem.UNCLOSED)


class ToolCallTags(Tagged):
    """The syntax `tool_call_tags`, the native form of many models: `<tool_call>` on a line."""

    name = "tool_call_tags"
    open, close = "<tool_call>", "</tool_call>"
    _space, _key, _escape = "\n", "arguments", "\\u003c"
