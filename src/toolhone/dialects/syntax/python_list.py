"""The syntax `bfcl`: the prompt and the form of calls of BFCL's prompting models.

[get_weather(city="Paris"), get_time(zone="CET")]    calls: one list, nothing beside it

The instructions are those of bfcl-eval 2026.3.23 (`formulate_system_prompt`, its default format).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import FoundCalls, PromptedSyntax, reply_of
from toolhone.dialects.syntax.unmarked import CALL_HEAD, CALL_SIGN, write_call
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool, ToolCall

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
