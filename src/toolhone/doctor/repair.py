"""A conversation mended as far as that is certain: calls and results typed as text, nulls of merged tables, types, names, order.

    mended, repairs = Mender().mend(conversation)        # the same object and no repairs where nothing had to be done

Nothing is guessed: what has two readings stays as it is, for `cleaning` to drop. Rows are never shortened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.json_reading import decode
from toolhone.doctor.links import in_order
from toolhone.doctor.raw import without_schema_nulls
from toolhone.doctor.text_checks import typed_results
from toolhone.doctor.typed_calls import read_typed
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.offered import fitted
from toolhone.sources.rules import FindingKind, null_padding, without_paths


class Mender:
    """Mends conversations; tools are looked at once each, since rows repeat them."""

    def __init__(self) -> None:
        self._tools: dict[int, tuple[Tool, Tool]] = {}

    def mend(self, conversation: Conversation) -> tuple[Conversation, frozenset[str]]:
        """The conversation, and the kinds of what was mended."""
        repairs: set[str] = set()
        tools = tuple(self._tool(tool) for tool in conversation.tools)
        if any(new is not old for new, old in zip(tools, conversation.tools, strict=True)):
            repairs.add(FindingKind.NULL_PADDING.value)
        named = {tool.name: tool for tool in tools}
        messages = [
            one for message in conversation.messages for one in _message(message, named, repairs)
        ]
        ordered = in_order(messages)
        if any(new is not old for new, old in zip(ordered, messages, strict=True)):
            repairs.add(FindingKind.REORDERED_RESULTS.value)
        mended = replace(conversation, messages=ordered, tools=tools) if repairs else conversation
        return mended, frozenset(repairs)

    def _tool(self, tool: Tool) -> Tool:
        if id(tool) not in self._tools:
            plain = without_schema_nulls(dict(tool.parameters))
            self._tools[id(tool)] = (
                tool,
                tool if plain == tool.parameters else replace(tool, parameters=plain),
            )
        return self._tools[id(tool)][1]


def _message(message: Message, tools: Mapping[str, Tool], repairs: set[str]) -> Iterator[Message]:
    if message.role == "user" and (results := typed_results(message.content or "")):
        repairs.add(FindingKind.TYPED_RESULT.value)
        yield from (Message("tool", result) for result in results)
        return
    if message.role != "assistant":
        yield message
        return
    message = _untyped(message, tools, repairs)
    calls = tuple(_call(call, tools, repairs) for call in message.tool_calls)
    changed = any(new is not old for new, old in zip(calls, message.tool_calls, strict=True))
    yield replace(message, tool_calls=calls) if changed else message


def _untyped(message: Message, tools: Mapping[str, Tool], repairs: set[str]) -> Message:
    """The message with typed calls as calls. Beside calls of its own they must be the same ones again."""
    found = read_typed(message.content or "", tools)
    if found is None or (message.tool_calls and list(found.calls) != list(message.tool_calls)):
        return message
    repairs.add(FindingKind.TYPED_CALL.value)
    return replace(message, content=found.content, tool_calls=message.tool_calls or found.calls)


def _call(call: ToolCall, tools: Mapping[str, Tool], repairs: set[str]) -> ToolCall:
    """The call under the name of its tool and with arguments that fit, as far as that is certain."""
    tool = tools.get(call.name) or _same_letters(call.name, tools)
    if tool is None:
        return call
    arguments: Mapping[str, Json] = call.arguments
    padding = tuple(null_padding(arguments, tool.parameters))
    if padding:
        arguments = without_paths(arguments, padding)
        repairs.add(FindingKind.NULL_PADDING.value)
    if tool.problems(arguments):
        decoded = {name: _decoded(value, tool, name) for name, value in arguments.items()}
        fitting, _ = fitted(ToolCall(tool.name, decoded), [tool])
        if not tool.problems(fitting.arguments):
            arguments = fitting.arguments
            repairs.add(FindingKind.BAD_ARGUMENTS.value)
    if tool.name != call.name:
        repairs.add(FindingKind.UNKNOWN_TOOL.value)
    same = arguments is call.arguments and tool.name == call.name
    return call if same else ToolCall(tool.name, dict(arguments), call.id)


def _decoded(value: Json, tool: Tool, name: str) -> Json:
    """An object or list that was written as JSON text, where the schema wants an object or a list."""
    schema = (tool.parameters.get("properties") or {}).get(name)
    wanted = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(value, str) or wanted not in ("object", "array"):
        return value
    found = decode(value, 0)
    whole = found.problem is ParseProblem.NONE and not value[found.end :].strip()
    return (
        found.value
        if whole and isinstance(found.value, dict if wanted == "object" else list)
        else value
    )


def _same_letters(name: str, tools: Mapping[str, Tool]) -> Tool | None:
    """The only tool whose name differs in case and separators alone."""
    alike = [
        tool
        for known, tool in tools.items()
        if _letters(known) == _letters(name) and _letters(name)
    ]
    return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
