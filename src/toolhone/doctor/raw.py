"""Rows of chat messages before they are read: arguments as text, empty calls, tools full of nulls; and the same rows mended.

    for kind, field, what, right in raw_faults(record): ...
    mended = mended_record(record)            # the same spelling of the row, with these faults taken out where that is certain

A row that breaks so is refused by its source, or read without a word; here it is named. Only rows with `messages` are looked
at: the other formats are read, and mended, by sources of their own. Whether the calls are right is not looked at yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import cast

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.json_reading import decode
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.schema import Json
from toolhone.sources.files import Record
from toolhone.sources.rules import Fault, FindingKind

_VALUE_KEYWORDS = frozenset({"default", "const", "example", "examples"})
"""Keywords of JSON Schema whose value may be null."""
_DEEPEST = 4
"""Encodings inside each other that are taken off, at most."""


class NullTools:
    """Finds nulls in the tools of rows; what was looked at before is remembered by its JSON text."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def has_nulls(self, tools: list[Json]) -> bool:
        key = json.dumps(tools)
        if "null" not in key:
            return False
        if key not in self._known:
            self._known[key] = [_plain_tool(tool) for tool in tools] != tools
        return self._known[key]


def is_chat(record: Record) -> bool:
    """Whether a row is one of chat messages."""
    return "messages" in record and not record.keys() >= {"query", "tools", "answers"}


def raw_faults(record: Record, nulls: NullTools) -> Iterator[Fault]:
    """What is wrong with a row as it stands in the file."""
    tools = _from_json(record.get("tools"))
    if isinstance(tools, list) and nulls.has_nulls([_from_json(tool) for tool in tools]):
        yield Fault(
            FindingKind.NULL_PADDING,
            "tools",
            "tools have null parameters or null words of JSON Schema",
            "wanted them left out",
        )
    messages = _from_json(record.get("messages"))
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and (
            message.get("tool_calls") or message.get("function_call")
        ):
            yield from _call_faults(f"messages[{index}]", message)


def _call_faults(field: str, message: Record) -> Iterator[Fault]:
    for place, call in _calls(message):
        body = call.get("function", call) if isinstance(call, dict) else call
        if (
            not isinstance(body, dict)
            or not isinstance(body.get("name"), str)
            or not body["name"].strip()
        ):
            yield Fault(
                FindingKind.NO_NAME,
                f"{field}.{place}",
                f"an empty call: {json.dumps(call)[:80]}",
                "wanted a name and arguments",
            )
            continue
        arguments = body.get("arguments", body.get("parameters"))
        if isinstance(arguments, str) and arguments.strip():
            yield _text_fault(f"{field}.{place}.arguments", body["name"], arguments)


def _text_fault(field: str, name: str, text: str) -> Fault:
    value, depth = _decoded(text)
    told = f"{name}: {text[:60]!r}"
    if not isinstance(value, dict) or depth < 0:
        return Fault(
            FindingKind.ARGUMENTS_NOT_JSON,
            field,
            f"{told} is text that holds no JSON object",
            "wanted an object",
        )
    if depth > 1:
        return Fault(
            FindingKind.ENCODED_TWICE,
            field,
            f"{told} is text inside text, encoded {depth} times",
            "wanted an object",
        )
    return Fault(FindingKind.ARGUMENTS_AS_TEXT, field, f"{told} is JSON text", "wanted an object")


def _decoded(text: str) -> tuple[Json, int]:
    """What a text says as JSON, encodings inside each other taken off, and how many there were; -1 for Python literals."""
    value: Json = text
    for depth in range(_DEEPEST):
        if not isinstance(value, str):
            return value, depth
        found = decode(value, 0)
        if found.problem is not ParseProblem.NONE or value[found.end :].strip():
            return _literal(value), -1
        value = found.value
    return value, _DEEPEST


def _literal(text: str) -> Json:
    """What a text says as a Python literal; the text itself when it is none."""
    reader = LiteralReader(text)
    try:
        value = reader.value()
    except LiteralError:
        return text
    return value if reader.at_end() else text


def _calls(message: Record) -> list[tuple[str, Json]]:
    """The calls of a message with their fields, in any of the spellings."""
    calls = _from_json(message.get("tool_calls"))
    found = (
        [(f"tool_calls[{index}]", call) for index, call in enumerate(calls)]
        if isinstance(calls, list)
        else []
    )
    old = _from_json(message.get("function_call"))
    return [*found, ("function_call", old)] if old else found


def _from_json(value: Json) -> Json:
    """The value, or what it says when it is a JSON text; a text that is none stays."""
    if not isinstance(value, str):
        return value
    found = decode(value, 0)
    return (
        value
        if found.problem is not ParseProblem.NONE or value[found.end :].strip()
        else found.value
    )


def mended_record(record: Record) -> Record:
    """The row with arguments as objects and without nulls in its tools; all that is not certain stays as it is."""
    result = dict(record)
    tools, messages = _from_json(record.get("tools")), _from_json(record.get("messages"))
    if isinstance(tools, list):
        result["tools"] = [_plain_tool(_from_json(tool)) for tool in tools]
    if isinstance(messages, list):
        result["messages"] = [_mended_message(message) for message in messages]
    return result


def _plain_tool(tool: Json) -> Json:
    """A tool without nulls; the object around `function` and the tool's own fields are kept."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _plain_tool(tool["function"])}
    return {
        key: without_schema_nulls(value) if key == "parameters" else value
        for key, value in tool.items()
    }


def without_schema_nulls(schema: Json) -> Json:
    """Return a schema without the nulls that a merged table left; a null default stays."""
    if isinstance(schema, list):
        return [without_schema_nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            kept[key] = {
                name: without_schema_nulls(one) for name, one in value.items() if one is not None
            }
        elif key in _VALUE_KEYWORDS or (key == "enum" and value is not None):
            kept[key] = value
        elif value is not None:
            kept[key] = without_schema_nulls(value)
    return kept


def _mended_message(message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    result = dict(message)
    calls = _from_json(message.get("tool_calls"))
    if isinstance(calls, list):
        result["tool_calls"] = [_mended_call(call) for call in calls]
    if message.get("function_call"):
        result["function_call"] = _mended_call(_from_json(message["function_call"]))
    return result


def _mended_call(call: Json) -> Json:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _mended_call(call["function"])}
    result = dict(cast(Record, call))
    for key in ("arguments", "parameters"):
        if isinstance(result.get(key), str) and result[key].strip():
            value, _ = _decoded(result[key])
            result[key] = value if isinstance(value, dict) else result[key]
    return result
