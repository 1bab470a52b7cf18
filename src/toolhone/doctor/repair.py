"""Repairs that are certain: in the record as the file has it, and in the conversation.

    for fault in record_faults(record): ...
    record = repair_record(record)                         # so that its source can read it
    conversation, repairs = repair_conversation(conversation, {})

Nothing is guessed: what has two readings stays as it is. Rows are never shortened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode
from toolhone.doctor.typed_calls import read_typed, typed_results
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.rules import Fault, FindingKind, null_padding, result_runs, without_paths
from toolhone.sources.tool_specs import fit_call

_DEEPEST = 4
"""Encodings inside each other that are decoded, at most."""
_VALUE_KEYWORDS = frozenset({"default", "const", "example", "examples"})
"""Keywords of JSON Schema whose value may be null."""


def is_chat(record: Record) -> bool:
    """Return whether a record holds chat messages; other formats repair theirs in their sources."""
    return "messages" in record and not record.keys() >= {"query", "tools", "answers"}


def record_faults(record: Record) -> Iterator[Fault]:
    """Yield the faults of a record of chat messages that reading would hide or refuse."""
    tools = _from_json(record.get("tools"))
    plain = [_from_json(tool) for tool in tools] if isinstance(tools, list) else []
    if "null" in json.dumps(plain) and [_plain_tool(tool) for tool in plain] != plain:
        what = "tools have null parameters or null keywords of JSON Schema"
        yield Fault(FindingKind.NULL_PADDING, "tools", what, "wanted them left out")
    messages = _from_json(record.get("messages"))
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            for place, call in _calls(message):
                yield from _call_faults(f"messages[{index}].{place}", call)


def _calls(message: Record) -> list[tuple[str, Json]]:
    """Return the calls of a message with their fields, in any of the spellings."""
    calls, old = _from_json(message.get("tool_calls")), _from_json(message.get("function_call"))
    listed = enumerate(calls if isinstance(calls, list) else ())
    found = [(f"tool_calls[{number}]", call) for number, call in listed]
    return [*found, ("function_call", old)] if old else found


def _call_faults(field: str, call: Json) -> Iterator[Fault]:
    body = call.get("function", call) if isinstance(call, dict) else call
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(name, str) or not name.strip():
        what = f"an empty call: {json.dumps(call)[:80]}"
        yield Fault(FindingKind.NO_NAME, field, what, "wanted a name and arguments")
        return
    arguments = body.get("arguments", body.get("parameters"))
    if not isinstance(arguments, str) or not arguments.strip():
        return
    value, depth = _decode_nested(arguments)
    if not isinstance(value, dict) or depth < 0:
        kind, problem = FindingKind.ARGUMENTS_NOT_JSON, "text that holds no JSON object"
    elif depth > 1:
        kind, problem = FindingKind.ENCODED_TWICE, f"text inside text, encoded {depth} times"
    else:
        kind, problem = FindingKind.ARGUMENTS_AS_TEXT, "JSON text"
    what = f"{name}: {arguments[:60]!r} is {problem}"
    yield Fault(kind, f"{field}.arguments", what, "wanted an object")


def _from_json(value: Json) -> Json:
    """Return what a JSON text says; any other value as it is."""
    if not isinstance(value, str):
        return value
    found = decode(value, 0)
    whole = found.problem is ParseProblem.NONE and not value[found.end :].strip()
    return found.value if whole else value


def _decode_nested(text: str) -> tuple[Json, int]:
    """Return what a text says, and how many JSON encodings it had; -1 for Python literals."""
    value: Json = text
    for depth in range(_DEEPEST):
        if not isinstance(value, str):
            return value, depth
        inner = _from_json(value)
        if inner is value:
            reader = LiteralReader(value)
            try:
                literal = reader.value()
            except LiteralError:
                return value, -1
            return literal if reader.at_end() else value, -1
        value = inner
    return value, _DEEPEST


def repair_record(record: Record) -> Record:
    """Return the record with arguments as objects and with tools without nulls."""
    result = dict(record)
    tools, messages = _from_json(record.get("tools")), _from_json(record.get("messages"))
    if isinstance(tools, list):
        result["tools"] = [_plain_tool(_from_json(tool)) for tool in tools]
    if isinstance(messages, list):
        result["messages"] = [_repair_calls(message) for message in messages]
    return result


def _repair_calls(message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    result, calls = dict(message), _from_json(message.get("tool_calls"))
    if isinstance(calls, list):
        result["tool_calls"] = [_decode_arguments(call) for call in calls]
    if message.get("function_call"):
        result["function_call"] = _decode_arguments(_from_json(message["function_call"]))
    return result


def _decode_arguments(call: Json) -> Json:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _decode_arguments(call["function"])}
    result = dict(call)
    for key in ("arguments", "parameters"):
        if isinstance(result.get(key), str) and result[key].strip():
            value, _ = _decode_nested(result[key])
            result[key] = value if isinstance(value, dict) else result[key]
    return result


def _plain_tool(tool: Json) -> Json:
    """Return a tool object without nulls in its parameters."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _plain_tool(tool["function"])}
    if "parameters" not in tool:
        return tool
    return {**tool, "parameters": without_schema_nulls(tool["parameters"])}


def without_schema_nulls(schema: Json) -> Json:
    """Return a schema without the nulls that a merged table left; a null default stays."""
    if isinstance(schema, list):
        return [without_schema_nulls(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            named = {name: inner for name, inner in value.items() if inner is not None}
            kept[key] = {name: without_schema_nulls(inner) for name, inner in named.items()}
        elif key in _VALUE_KEYWORDS or (key == "enum" and value is not None):
            kept[key] = value
        elif value is not None:
            kept[key] = without_schema_nulls(value)
    return kept


def repair_conversation(
    conversation: Conversation, plain_tools: dict[int, Tool]
) -> tuple[Conversation, frozenset[str]]:
    """Return the conversation and the kinds of its repairs; without any, the same object.

    plain_tools: a cache of tools without nulls by the id of the tool; rows repeat their tools.
    """
    repairs: set[str] = set()
    for tool in conversation.tools:
        if id(tool) not in plain_tools:
            parameters = without_schema_nulls(dict(tool.parameters))
            same = parameters == tool.parameters
            plain_tools[id(tool)] = tool if same else replace(tool, parameters=parameters)
    tools = tuple(plain_tools[id(tool)] for tool in conversation.tools)
    if any(new is not old for new, old in zip(tools, conversation.tools, strict=True)):
        repairs.add(FindingKind.NULL_PADDING.value)
    named = {tool.name: tool for tool in tools}
    messages = [
        repaired
        for message in conversation.messages
        for repaired in _repair_message(message, named, repairs)
    ]
    for start, end, order in result_runs(messages):
        if order != sorted(order):
            by_call = sorted(zip(order, range(start, end), strict=True))
            messages[start:end] = [messages[place] for _, place in by_call]
            repairs.add(FindingKind.REORDERED_RESULTS.value)
    if repairs:
        conversation = replace(conversation, messages=tuple(messages), tools=tools)
    return conversation, frozenset(repairs)


def _repair_message(
    message: Message, tools: Mapping[str, Tool], repairs: set[str]
) -> Iterator[Message]:
    if message.role == "user" and (results := typed_results(message.content or "")):
        repairs.add(FindingKind.TYPED_RESULT.value)
        yield from (Message("tool", result) for result in results)
        return
    if message.role == "assistant":
        found, own = read_typed(message.content or "", tools), message.tool_calls
        # Typed calls beside calls of the message must be the same ones.
        if found is not None and (not own or list(found.calls) == list(own)):
            repairs.add(FindingKind.TYPED_CALL.value)
            message = replace(message, content=found.content, tool_calls=own or found.calls)
        calls = tuple(_repair_call(call, tools, repairs) for call in message.tool_calls)
        if any(new is not old for new, old in zip(calls, message.tool_calls, strict=True)):
            message = replace(message, tool_calls=calls)
    yield message


def _repair_call(call: ToolCall, tools: Mapping[str, Tool], repairs: set[str]) -> ToolCall:
    """Return the call with the name of its tool and with arguments that fit, where certain."""
    tool = tools.get(call.name)
    if tool is None:
        letters = _letters(call.name)
        alike = [other for name, other in tools.items() if letters and _letters(name) == letters]
        if len(alike) != 1:
            return call
        tool = alike[0]
    arguments: Mapping[str, Json] = call.arguments
    padding = tuple(null_padding(arguments, tool.parameters))
    if padding:
        arguments = without_paths(arguments, padding)
        repairs.add(FindingKind.NULL_PADDING.value)
    if tool.problems(arguments):
        fitting, _ = fit_call(ToolCall(tool.name, dict(arguments)), [tool])
        if not tool.problems(fitting.arguments):
            arguments = fitting.arguments
            repairs.add(FindingKind.BAD_ARGUMENTS.value)
    if tool.name != call.name:
        repairs.add(FindingKind.UNKNOWN_TOOL.value)
    elif arguments is call.arguments:
        return call
    return ToolCall(tool.name, dict(arguments), call.id)


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
