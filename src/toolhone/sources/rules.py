"""The rules of a row: its tools, turns, calls and results. Sources and the doctor apply the same.

    for fault in conversation_faults(conversation):
        print(fault.kind, fault.field, fault.what, fault.right)

The rules look at one row and need no model. They change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from toolhone.errors import nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall

_SHOWN = 5
_OPEN_KEYWORDS = frozenset(
    {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
)
"""Keywords that may allow arguments which `properties` does not name."""


class FindingKind(StrEnum):
    """What can be wrong with training data."""

    UNREADABLE = "a row that cannot be read"
    REFUSED = "a row that its format cannot use"
    REPAIRED = "repaired while reading"
    UNCHECKED = "kept, though something could not be checked"
    NOTHING_TO_LEARN = "nothing to learn from"

    NO_ASSISTANT = "no assistant message"
    EMPTY_TURN = "an assistant turn that says and calls nothing"
    NO_NAME = "a call without a name"
    UNKNOWN_TOOL = "a call of a tool that is not on offer"
    BAD_ARGUMENTS = "arguments that break the tool's schema"
    UNDECLARED_ARGUMENT = "an argument that the tool does not declare"
    NULL_PADDING = "nulls of a merged table"
    TOOL_TWICE = "two different tools of one name"
    RESULT_WITHOUT_CALL = "a tool result without a call"
    CALL_WITHOUT_RESULT = "a call without a result"
    REORDERED_RESULTS = "results in another order than their calls"

    ARGUMENTS_AS_TEXT = "arguments written as JSON text"
    ENCODED_TWICE = "arguments encoded twice"
    ARGUMENTS_NOT_JSON = "arguments that are text and no JSON"

    TYPED_CALL = "a call typed by hand as text"
    STRAY_MARK = "a mark of a call that begins or ends nothing"
    TYPED_RESULT = "a tool result typed by hand as text"
    CONTROL_TEXT = "text that reads as a control token"

    DUPLICATE_ROW = "a row that occurs before"
    NEAR_DUPLICATE = "a row that occurs before in other spelling or with other tools"
    CONFLICT = "different calls for one prompt"
    LEAK = "a held-out prompt that is trained on"
    BENCHMARK = "a question of BFCL"

    CANNOT_RENDER = "a row that the model's format cannot write"
    NO_SUPERVISED = "a row without a token to learn from"
    TOO_LONG = "a row longer than the model takes"
    MAYBE_TOO_LONG = "a row that is probably longer than the limit"
    NO_LIMIT = "no limit to check lengths against"

    NO_CALLS = "no row calls a tool"
    ONLY_CALLS = "hardly a row answers without a call"
    FEW_CALLS = "hardly a row calls a tool"
    ONE_TOOL = "every row offers exactly one tool"


class Fault(NamedTuple):
    """One fault of a row: `field` is a path inside the row, `right` says what would be right."""

    kind: FindingKind
    field: str
    what: str
    right: str


def conversation_faults(conversation: Conversation) -> Iterator[Fault]:
    """Yield the faults of one conversation: its tools, its turns, its calls, its results."""
    tools: dict[str, Tool] = {}
    for index, tool in enumerate(conversation.tools):
        known = tools.setdefault(tool.name, tool)
        if known is not tool and known != tool:
            what = f"a second, different tool is named {tool.name!r}"
            right = "wanted one tool for each name"
            yield Fault(FindingKind.TOOL_TWICE, f"tools[{index}]", what, right)
    if all(message.role != "assistant" for message in conversation.messages):
        what = "there is no assistant message"
        yield Fault(FindingKind.NO_ASSISTANT, "messages", what, "wanted one to learn from")
    for index, message in enumerate(conversation.messages):
        field = f"messages[{index}]"
        if message.role != "assistant":
            continue
        if not message.tool_calls and not (message.content or "").strip():
            what = "the assistant says nothing and calls nothing"
            yield Fault(FindingKind.EMPTY_TURN, field, what, "wanted content or tool_calls")
        for number, call in enumerate(message.tool_calls):
            yield from call_faults(f"{field}.tool_calls[{number}]", call, tools)
    yield from link_faults(conversation.messages)


def call_faults(field: str, call: ToolCall, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    """Yield the faults of a call; `tools` are those on offer, by name."""
    tool = tools.get(call.name)
    if tool is not None and call.name.strip():
        yield from _argument_faults(f"{field}.arguments", call, tool)
    elif call.name.strip():
        what = f"calls the unknown tool {call.name!r}{nearest(call.name, tools)}"
        right = f"wanted {_one_of(tools)}"
        yield Fault(FindingKind.UNKNOWN_TOOL, f"{field}.name", what, right)
    else:
        right = f"wanted {_one_of(tools)}"
        yield Fault(FindingKind.NO_NAME, f"{field}.name", "the call has no name", right)


def _argument_faults(field: str, call: ToolCall, tool: Tool) -> Iterator[Fault]:
    arguments: Json = call.arguments
    padding = list(null_padding(arguments, tool.parameters))
    if padding:
        arguments = without_paths(arguments, padding)
        names = ", ".join(map(repr, padding[:_SHOWN]))
        what = f"{call.name} has null for {names}, which its schema does not allow"
        yield Fault(FindingKind.NULL_PADDING, field, what, "wanted them left out")
    for problem in tool.problems(arguments):
        what = f"{call.name}, {problem[:200]}"
        yield Fault(FindingKind.BAD_ARGUMENTS, field, what, _wanted(tool, problem))
    properties = tool.parameters.get("properties")
    if properties is None or tool.parameters.keys() & _OPEN_KEYWORDS:
        return
    for name in arguments:
        if name not in properties:
            what = f"{call.name} declares no argument {name!r}{nearest(name, properties)}"
            right = f"wanted {_one_of(properties)}, or 'additionalProperties': true in its schema"
            yield Fault(FindingKind.UNDECLARED_ARGUMENT, field, what, right)


def _one_of(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:_SHOWN]]
    if not shown:
        return "none, since none is declared"
    rest = f" or one of {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ("one of " if len(shown) > 1 else "") + ", ".join(shown) + rest


def _wanted(tool: Tool, problem: str) -> str:
    """Name the schema of the argument that the problem names, or the required arguments."""
    name = problem.partition(":")[0].partition(".")[0]
    schema = (tool.parameters.get("properties") or {}).get(name)
    if isinstance(schema, dict):
        shown = {key: value for key, value in schema.items() if key != "description"}
        return "wanted " + json.dumps(shown)[:200]
    return f"required are {', '.join(map(repr, tool.parameters.get('required') or [])) or 'none'}"


def null_padding(value: Json, schema: Json, path: str = "") -> Iterator[str]:
    """Yield the paths of nulls that a merged table left.

    The schema does not name such a field, or makes it optional and allows no null there.
    """
    if not isinstance(schema, Mapping):
        return
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(value, Mapping) and isinstance(properties, Mapping):
        for name, inner in value.items():
            here = f"{path}.{name}" if path else name
            if inner is None and _is_padding(name, schema, properties):
                yield here
            elif isinstance(inner, dict | list):
                yield from null_padding(inner, properties.get(name), here)
    elif isinstance(value, list) and isinstance(items, Mapping):
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from null_padding(inner, items, f"{path}[{index}]")


def _is_padding(name: str, schema: Mapping[str, Json], properties: Mapping[str, Json]) -> bool:
    if name not in properties:
        return not schema.keys() & _OPEN_KEYWORDS or schema.get("additionalProperties") is False
    return name not in (schema.get("required") or ()) and not allows_null(properties[name])


def allows_null(schema: Json) -> bool:
    """Return whether null may be a value here; a schema with a reference counts as allowing it."""
    if (
        not isinstance(schema, Mapping)
        or schema.keys() & {"$ref", "allOf", "not", "if"}
        or schema.get("nullable") is True
    ):
        return True
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return any(allows_null(option) for option in schema[keyword])
    if "enum" in schema or "const" in schema:
        return None in (schema.get("enum") or ()) or ("const" in schema and schema["const"] is None)
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def without_paths(value: Json, paths: Collection[str], path: str = "") -> Json:
    """Return the value without the fields that `null_padding` names."""
    if isinstance(value, Mapping):
        inner = {name: (f"{path}.{name}" if path else name, one) for name, one in value.items()}
        return {
            name: without_paths(one, paths, here)
            for name, (here, one) in inner.items()
            if here not in paths
        }
    if isinstance(value, list):
        return [without_paths(one, paths, f"{path}[{index}]") for index, one in enumerate(value)]
    return value


def link_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Yield tool results without a call, and calls without a result.

    Calls must be answered before the assistant or the user speaks again; a row may end with open
    calls.
    """
    waiting: list[tuple[str, ToolCall]] = []
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if message.role == "tool":
            position = answered_call(message, [call for _, call in waiting])
            if position is not None:
                waiting.pop(position)
                continue
            names = [
                one.name if one.id is None else f"{one.name} (id {one.id!r})" for _, one in waiting
            ]
            labels = [f"id {message.tool_call_id!r}"] if message.tool_call_id is not None else []
            labels += [f"name {message.name!r}"] if message.name else []
            with_labels = f" with {' and '.join(labels)}" if labels else ""
            what = f"the tool result{with_labels} answers no open call"
            right = f"open calls: {', '.join(names) or 'none'}"
            yield Fault(FindingKind.RESULT_WITHOUT_CALL, field, what, right)
        elif message.role == "user" or (message.role == "assistant" and not message.tool_calls):
            for place, call in waiting:
                what = f"the call of {call.name!r} has no result before {field} ({message.role})"
                right = "wanted a tool message for it"
                yield Fault(FindingKind.CALL_WITHOUT_RESULT, place, what, right)
            waiting = []
        waiting += [
            (f"{field}.tool_calls[{number}]", call)
            for number, call in enumerate(message.tool_calls)
        ]


def answered_call(message: Message, calls: Sequence[ToolCall]) -> int | None:
    """Return the position of the open call that a result answers, None for a stray result.

    That is the call with its id where both have ids, else the first call with its name.
    """
    for position, call in enumerate(calls):
        if message.tool_call_id is not None and call.id is not None:
            matches = str(message.tool_call_id) == call.id
        else:
            matches = message.name in (None, "", call.name)
        if matches:
            return position
    return None


def order_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Yield runs of results in another order than the calls in front of them."""
    for start, end, order in result_runs(messages):
        if order != sorted(order):
            field = f"messages[{start}]" if end == start + 1 else f"messages[{start}:{end}]"
            seen = ", ".join(str(place + 1) for place in order)
            what = f"the results answer the calls in the order {seen}"
            right = "wanted the order of the calls"
            yield Fault(FindingKind.REORDERED_RESULTS, field, what, right)


def result_runs(messages: Sequence[Message]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield start and end of the results behind each turn with several calls, and their order.

    The order has the number of the call that each result answers. Runs with a stray result are
    left out.
    """
    for index, message in enumerate(messages):
        if len(message.tool_calls) < 2:
            continue
        start = end = index + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        left, order = list(range(len(message.tool_calls))), list[int]()
        for result in messages[start:end]:
            position = answered_call(result, [message.tool_calls[place] for place in left])
            if position is None:
                break
            order.append(left.pop(position))
        if order and len(order) == end - start:
            yield start, end, order
