"""Calls without marks around them: the syntaxes `json`, `bare_json`, `calls` and `bfcl`.

{"tool": NAME, "args": {...}}    {"final": TEXT}   `json`: a call, and an answer
{"name": NAME, "parameters": {...}}                `bare_json`: a call; answers are text
get_weather(city="Paris", **{"odd-name": 1})       `calls`: one per line; nothing is evaluated
[get_weather(city="Paris"), get_time(zone="CET")]  `bfcl`: one list, as bfcl-eval 2026.3.23 asks
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from toolhone.dialects.interface import ParsedReply, ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, write_literal
from toolhone.dialects.syntax.model_text import (
    FoundCalls,
    PromptedSyntax,
    as_call,
    decode,
    decode_sequence,
    reply_of,
    write_json,
)
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.schema.json_input import ARGUMENTS

_ARGUMENT_KEYS = ("parameters", "arguments")
_WRAPPERS = ("function", "function_call", "tool_calls")
"""Keys that hold calls in OpenAI's forms."""
_BEGINS = re.compile(r"\s*\{")
_BEHIND_TEXT = re.compile(r'^[ \t]*(\{\s*"(?:tool|args|final)"\s*:)', re.MULTILINE)
_BARE_BEGINS = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:["']|\Z)""")
_BARE_BEHIND_TEXT = re.compile(
    r'^[ \t]*((?:\[[ \t]*)?\{\s*"(?:name|type|parameters|arguments)"\s*:)', re.MULTILINE
)
_TOOL_NAME = re.compile(r"[^\W\d][\w.:/-]*")
_NO_WORD = re.compile(r"\W+")
CALL_HEAD = re.compile(r"[ \t]*([^\W\d][\w.:/-]*)\(")
"""The name of a call and its bracket."""
CALL_SIGN = re.compile(r"""\s*(?:[^\W\d]\w*\s*=(?!=)|\*\*\s*\{|["'\[{]|[-+]?\.?\d|\Z|\))""")
"""What the inside of a call begins with, and that of `f (x)` in a text does not."""


class JsonObject(PromptedSyntax):
    """The syntax `json`. Plain text is `STRAY_TEXT`; an object with other keys is `NOT_A_CALL`.

    `write` refuses text beside a call; reading it gives the text as content with the problem
    `STRAY_TEXT`. An object behind text (a code fence, for instance) is found only at the beginning
    of a line.
    """

    name = "json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write the calls, or the answer."""
        if not calls:
            return write_json({"final": content or ""})
        return _write_objects(self.name, content, calls, ("tool", "args"))

    def result(self, message: Message) -> str:
        """Write the result as JSON: unchanged if it is that in one line already."""
        content, name = (message.content or "").strip(), message.name
        found = decode(content, 0)
        is_line = found.ok and found.end == len(content) and "\n" not in content
        value = content if is_line else write_json(message.content or "")
        tool = "" if name is None else f'"tool": {write_json(name)}, '
        return f'{{{tool}"result": {value}}}'

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        start = end = _find_start(text, _BEGINS, _BEHIND_TEXT)
        if start < 0:
            return ParsedReply(text.strip() or None, problem=ParseProblem.STRAY_TEXT)
        reads: list[FoundCalls] = []
        answers: list[str] = []
        for found in decode_sequence(text, start, ""):
            end, value = found.end if found.ok else len(text), found.value
            keys = set(value) if isinstance(value, Mapping) else {""}
            if keys == {"final"}:
                final = value["final"]
                answers.append(final if isinstance(final, str) else write_json(final))
            elif keys <= {"tool", "args"}:
                reads.append(as_call(value, "tool", ("args",)))
            else:
                problem = ParseProblem.NOT_A_CALL if found.ok else found.problem
                reads.append(FoundCalls(end, (), problem))
        before, rest = text[:start].strip(), text[end:].strip()
        if before or rest or len(answers) + any(one.calls for one in reads) > 1:
            reads.append(FoundCalls(end, (), ParseProblem.STRAY_TEXT))
        content: str | None = "\n".join(filter(None, [before, *answers, rest])) or None
        if len(answers) == 1 and not before and not rest:
            content = answers[0]
        return replace(reply_of("", (), reads), content=content)


class BareJson(PromptedSyntax):
    """The syntax `bare_json`, with text beside calls as in `json`.

    Calls follow one another with white space, `;` or `,` between, or stand in one list. An object
    without arguments is a plain answer in JSON.
    """

    name = "bare_json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write one object per line, or the content."""
        if not calls:
            return content or ""
        return _write_objects(self.name, content, calls, ("name", "parameters"))

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        start = end = _find_start(text, _BARE_BEGINS, _BARE_BEHIND_TEXT)
        if start < 0:
            return ParsedReply(text)
        reads: list[FoundCalls] = []
        for found in decode_sequence(text, start, ",;"):
            if not found.ok:
                end = len(text)
                reads.append(FoundCalls(end, (), found.problem))
                break
            for value in found.value if isinstance(found.value, list) else [found.value]:
                if not isinstance(value, Mapping) or not _may_be_call(value):
                    reads.append(FoundCalls(end, (), ParseProblem.NOT_A_CALL))
                    return reply_of(text, (), reads if any(one.calls for one in reads) else ())
                reads.append(as_call(value, "name", _ARGUMENT_KEYS))
            end = found.end
        around = [text[:start].strip(), text[end:].strip(" \t\r\n,;")]
        if any(around):
            reads.append(FoundCalls(end, (), ParseProblem.STRAY_TEXT))
        return reply_of(text, around, reads)


def _may_be_call(value: Mapping[str, Json]) -> bool:
    """Whether an object has arguments, or a name and something under another name of arguments, or
    holds calls of another form."""
    if any(isinstance(value.get(key), Mapping | list) and value[key] for key in _WRAPPERS):
        return True
    keys = ARGUMENTS if isinstance(value.get("name"), str) else _ARGUMENT_KEYS
    return not value.keys().isdisjoint(keys)


def _write_objects(
    syntax: str, content: str | None, calls: Sequence[ToolCall], keys: tuple[str, str]
) -> str:
    """One object per line, with name and arguments under these keys; refuses text beside them."""
    if (content or "").strip():
        raise DialectError(
            f"the syntax {syntax} has no place for text beside a call; "
            f"the message says {content!r:.60}"
        )
    name, arguments = keys
    return "\n".join(
        write_json({name: call.name, arguments: dict(call.arguments)}) for call in calls
    )


def _find_start(text: str, begins: re.Pattern[str], behind: re.Pattern[str]) -> int:
    """Where the first object is, at the beginning of the text or of a line; -1 for nowhere."""
    if begins.match(text):
        return len(text) - len(text.lstrip())
    found = behind.search(text)
    return -1 if found is None else found.start(1)


class Calls(PromptedSyntax):
    """The syntax `calls`: one call per line. Tool names may hold letters, digits and `_ . - : /`.

    * A call line holds a tool name, `(`, named arguments and `)`, and white space around them.
      `I will call f (n = 5)` and `f(n=5) is next` are text.
    * A line that begins as one (name, `(`, then `word=`, `**{` or a literal) but cannot be read, or
      has punctuation or another call behind it, is a broken call: `UNCLOSED` if it is the last line
      and ends too early, `BAD_ARGUMENTS` if an argument has no name or a name occurs twice, else
      `NOT_JSON`.
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
        return "\n".join([*([text] if text.strip() or not calls else []), *map(write_call, calls)])

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        lines = text.split("\n")
        last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
        checks = [_read_line(line, last=index == last) for index, line in enumerate(lines)]
        found = [check for check in checks if check is not None]
        if not found:
            return ParsedReply(text)
        plain = [(k, line) for k, line in enumerate(lines) if checks[k] is None]
        if any(line.strip() for k, line in plain if k > checks.index(found[0])):
            found.append(FoundCalls(0, (), ParseProblem.STRAY_TEXT))
        return reply_of(text, ["\n".join(line for _, line in plain)], found)


def write_call(call: ToolCall) -> str:
    if not _TOOL_NAME.fullmatch(call.name):
        raise DialectError(
            f"the syntax calls cannot write the tool name {call.name!r}: "
            "it must be of letters, digits and _ . - : /"
        )
    named = {key: value for key, value in call.arguments.items() if is_keyword_name(key)}
    odd = {key: value for key, value in call.arguments.items() if key not in named}
    parts = [f"{key}={write_literal(value)}" for key, value in named.items()]
    return f"{call.name}({', '.join([*parts, *([f'**{write_literal(odd)}'] if odd else [])])})"


def is_keyword_name(name: str) -> bool:
    """Whether Python can write an argument with this name as `name=value`."""
    return re.fullmatch(r"[^\W\d]\w*", name) is not None and not keyword.iskeyword(name)


def _read_line(line: str, last: bool) -> FoundCalls | None:
    """Read the call on this line, or find its problem; None if the line is text."""
    head = CALL_HEAD.match(line)
    if head is None or not CALL_SIGN.match(line, head.end()):
        return None
    reader = LiteralReader(line, head.end())
    try:
        named, placed = reader.arguments()
    except LiteralError as error:
        early = error.problem is ParseProblem.UNCLOSED and not last
        return FoundCalls(0, (), ParseProblem.NOT_JSON if early else error.problem)
    if not reader.at_end():
        second = _read_line(line[reader.position :].lstrip(" \t,;"), last)
        twice = not placed and second is not None and second.calls
        broken = _NO_WORD.fullmatch(line, reader.position) or twice
        return FoundCalls(0, (), ParseProblem.NOT_JSON) if broken else None
    if placed:
        return FoundCalls(0, (), ParseProblem.BAD_ARGUMENTS)
    return FoundCalls(0, (ToolCall(head[1], named),))


_TYPES = {"object": "dict", "number": "float"}
_VALUES = ("default", "enum", "const", "examples")
_BEGIN = re.compile(r"\[?\s*")
_LIST_BEHIND_TEXT = re.compile(r"^[ \t]*(\[)(?=\s*[^\W\d][\w.:/-]*\()", re.MULTILINE)


class PythonList(PromptedSyntax):
    """A reply is a list of calls, or else text.

    As in the official decoder, backticks around a reply are ignored and the outer brackets may be
    missing. Text in front of the list or behind it is `STRAY_TEXT`: that decoder reads no call
    there.
    """

    name = "bfcl"

    def tool_list(self, tools: Sequence[Tool]) -> str:
        listed = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": bfcl_types(dict(tool.parameters)),
            }
            for tool in tools
        ]
        return json.dumps(listed, indent=4)

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Write the calls as one list, or the content. Refuse both, and what reads as a call."""
        if calls and (content or "").strip():
            raise DialectError(
                "the syntax bfcl has no place for text beside calls; "
                f"the message says {content!r:.60}"
            )
        if not calls and self.read_body(content or "") != ParsedReply(content or ""):
            raise DialectError(
                f"the syntax bfcl would read the assistant's text as calls: {content!r:.80}"
            )
        return f"[{', '.join(map(write_call, calls))}]" if calls else content or ""

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        body = text.strip("`\n ")
        before = ""
        if not _begins_call(body):
            found = _LIST_BEHIND_TEXT.search(body)
            if found is None or not _begins_call(body, found.start(1)):
                return ParsedReply(text)
            before, body = body[: found.start()], body[found.start(1) :]
        read, end = _read_list(body)
        if (before or body[end:].strip()) and read[-1].problem is ParseProblem.NONE:
            read.append(FoundCalls(end, (), ParseProblem.STRAY_TEXT))
        return reply_of(text, [before, body[end:]], read)


def bfcl_types(schema: Json) -> Json:
    """A JSON Schema with BFCL's names of types: dict for object, float for number."""
    if isinstance(schema, list):
        return [bfcl_types(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {key: value if key in _VALUES else bfcl_types(value) for key, value in schema.items()}
    kind = schema.get("type")
    return renamed | {"type": _TYPES.get(kind, kind)} if isinstance(kind, str) else renamed


def _begins_call(text: str, start: int = 0) -> bool:
    begin = _BEGIN.match(text, start)
    head = begin and CALL_HEAD.match(text, begin.end())
    return head is not None and CALL_SIGN.match(text, head.end()) is not None


def _read_list(text: str) -> tuple[list[FoundCalls], int]:
    """Read the calls of the list at the start, at least one, and where it ends.

    The first that cannot be read is the last: what follows it is part of it.
    """
    reader = LiteralReader(text)
    has_bracket = reader.take("[")
    read: list[FoundCalls] = []
    try:
        while not reader.take("]") if has_bracket else not reader.at_end():
            reader.skip_space()
            head = reader.match(CALL_HEAD)
            if head is None:
                raise LiteralError(unclosed=reader.at_end())
            named, placed = reader.arguments()
            problem = ParseProblem.BAD_ARGUMENTS if placed else ParseProblem.NONE
            calls = () if placed else (ToolCall(head[1], named),)
            read.append(FoundCalls(reader.position, calls, problem))
            if not reader.take(","):
                if has_bracket:
                    reader.expect("]")
                break
    except LiteralError as error:
        read.append(FoundCalls(len(text), (), error.problem))
        return read, len(text)
    return read, reader.position
