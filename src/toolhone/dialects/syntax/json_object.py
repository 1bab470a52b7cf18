"""The assistant writes one JSON object and nothing else: `{"tool": NAME, "args": {...}}` to call, `{"final": TEXT}` to answer.

Several calls are several objects, one per line. The form has no place for text beside a call: `write` refuses it, and reading it
gives the text as content and `STRAY_TEXT` as the problem. Plain text that is no object is also `STRAY_TEXT`, and objects with other
keys are `NOT_A_CALL`. An object behind text is found only at the start of a line (a code fence, for instance).
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
from toolhone.schema import Json, Message, Tool, ToolCall

_BEHIND_TEXT = re.compile(r'^[ \t]*(\{\s*"(?:tool|args|final)"\s*:)', re.MULTILINE)

_TOOLS = """\
You may call these tools:
{tools}

"""
_FORM = """\
Always write JSON and nothing else. To call a tool: {"tool": "<tool name>", "args": {"<parameter>": <value>}}
Several calls go on several lines. After a call, stop and wait for its result. To answer: {"final": "<your answer>"}"""


class JsonObject:
    """The syntax `json`."""

    name = "json"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """The calls, one object per line; or the answer. Text beside a call has no place and is refused."""
        if not calls:
            return write_json({"final": content or ""})
        if (content or "").strip():
            raise DialectError(
                f"the syntax json has no place for text beside a call; the message says {content!r:.60}"
            )
        return "\n".join(
            write_json({"tool": call.name, "args": dict(call.arguments)}) for call in calls
        )

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, _read)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return (_TOOLS.format(tools=list_tools(tools)) if tools else "") + _FORM

    def result(self, message: Message) -> str:
        name = "" if message.name is None else f'"tool": {write_json(message.name)}, '
        return f'{{{name}"result": {result_value(message)}}}'


def _read(text: str) -> ParsedReply:
    start = len(text) - len(text.lstrip())
    if not text.startswith("{", start):
        found = _BEHIND_TEXT.search(text)
        if found is None:
            return ParsedReply(text.strip() or None, problem=ParseProblem.STRAY_TEXT)
        start = found.start(1)
    calls: list[ToolCall] = []
    texts = [text[:start].strip()]
    problems: list[ParseProblem] = []
    finals = 0
    end = start
    for found_object in decode_sequence(text, start, ""):
        end = found_object.end
        if found_object.problem is not ParseProblem.NONE:
            problems.append(
                ParseProblem.UNCLOSED if open_at_end(text, end) else ParseProblem.NOT_JSON
            )
            end = len(text)
        elif isinstance(found_object.value, Mapping) and set(found_object.value) == {"final"}:
            finals += 1
            texts.append(_final(found_object.value["final"]))
        else:
            call, problem = _call(found_object.value)
            calls.extend(call)
            problems.extend(problem)
    rest = text[end:].strip()
    if texts[0] or rest or finals + bool(calls) > 1:
        problems.append(ParseProblem.STRAY_TEXT)
    content = (
        texts[1]
        if finals == 1 and not texts[0] and not rest
        else "\n".join(filter(None, [*texts, rest])) or None
    )
    return ParsedReply(content, tuple(calls), None, problems[0] if problems else ParseProblem.NONE)


def _final(value: Json) -> str:
    return value if isinstance(value, str) else write_json(value)


def _call(value: Json) -> tuple[list[ToolCall], list[ParseProblem]]:
    if not isinstance(value, Mapping) or not set(value) <= {"tool", "args"}:
        return [], [ParseProblem.NOT_A_CALL]
    judged = as_call(value, "tool", ("args",))
    return ([judged.call], []) if judged.call is not None else ([], [judged.problem])
