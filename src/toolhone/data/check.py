"""The fast check before training: does every conversation say what it should, and does every row fit?

    findings = check(loaded.conversations, loaded.places)    # no tokenizer, no model
    findings.raise_if_any()                                  # one sentence: the first finding, and how many there are
    lengths = check_lengths(rows, max_length=2048)           # rendered rows: drop (and count) what is too long

Each finding says where (file and line, id, field), what is wrong and what would be right. Rows are never changed and never cut: a
call that ends in the middle would teach exactly that. Mending data and checking a dialect are not done here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

from toolhone.data.files import Line
from toolhone.data.tasks import fingerprint
from toolhone.errors import DataError, nearest
from toolhone.rows import Row
from toolhone.schema import Conversation, Message, Tool, ToolCall

Fault = tuple["Kind", str, str, str]
"""Kind, field, what is wrong, what would be right."""
_SHOWN = 5
_REMEDY = "raise the maximum length or shorten the rows"


class Kind(StrEnum):
    """What can be wrong with a conversation."""

    NO_ASSISTANT = "no assistant message"
    EMPTY_TURN = "an assistant turn that says and calls nothing"
    NO_NAME = "a call without a name"
    UNKNOWN_TOOL = "a call of a tool that is not on offer"
    BAD_ARGUMENTS = "arguments that break the tool's schema"
    UNDECLARED_ARGUMENT = "an argument that the tool does not declare"
    TOOL_TWICE = "two different tools of one name"
    RESULT_WITHOUT_CALL = "a tool result without a call"
    CALL_WITHOUT_RESULT = "a call without a result"
    DUPLICATE_ROW = "a row that occurs before"
    """Teaches nothing false, but weighs twice; does not stop a training."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `row` counts from 0; `place` is the file and line; `field` is a path inside the row."""

    kind: Kind
    row: int
    place: str
    id: str
    field: str
    what: str
    right: str

    def __str__(self) -> str:
        name = f" (id {self.id!r})" if self.id else ""
        return f"{self.place}{name}, {self.field}: {self.what}; {self.right}"


@dataclass(frozen=True)
class Findings:
    """All findings, in the order of the rows; `rows` were checked."""

    rows: int
    findings: Sequence[Finding]

    @cached_property
    def counts(self) -> Counter[Kind]:
        """Findings by kind."""
        return Counter(finding.kind for finding in self.findings)

    def raise_if_any(self, allow: Collection[Kind] = (Kind.DUPLICATE_ROW,)) -> None:
        """Raise one `DataError` about the first finding whose kind is not allowed, with the number of the others."""
        first = next((finding for finding in self.findings if finding.kind not in allow), None)
        if first is None:
            return
        same = self.counts[first.kind] - 1
        others = sum(count for kind, count in self.counts.items() if kind not in allow) - same - 1
        counted = [(same, "more of this kind"), (others, "of other kinds")]
        more = " and ".join(f"{count} {text}" for count, text in counted if count)
        raise DataError(f"{first} (… and {more})" if more else str(first))


def check(conversations: Sequence[Conversation], where: str | Sequence[Line]) -> Findings:
    """Check each conversation; `where` is the file's name, or the place of each row as a source gives it."""
    places = [f"{where}, row {row + 1}" if isinstance(where, str) else str(where[row]) for row in range(len(conversations))]
    findings: list[Finding] = []
    seen: dict[bytes, int] = {}
    for row, conversation in enumerate(conversations):
        faults = list(_faults(conversation))
        first = seen.setdefault(_digest(conversation), row)
        if first != row:
            faults.append((Kind.DUPLICATE_ROW, "messages", f"says the same as {places[first]}", "wanted each row once"))
        for kind, field, what, right in faults:
            findings.append(Finding(kind, row, places[row], conversation.id, field, what, right))
    return Findings(len(conversations), findings)


def _digest(conversation: Conversation) -> bytes:
    tools = json.dumps([tool.to_dict() for tool in conversation.tools])
    return hashlib.sha256((fingerprint(conversation.messages) + tools).encode()).digest()


def _faults(conversation: Conversation) -> Iterator[Fault]:
    tools: dict[str, Tool] = {}
    for index, tool in enumerate(conversation.tools):
        if tools.setdefault(tool.name, tool) != tool:
            yield (
                Kind.TOOL_TWICE,
                f"tools[{index}]",
                f"a second, different tool is named {tool.name!r}",
                "wanted one tool for each name",
            )
    if all(message.role != "assistant" for message in conversation.messages):
        yield Kind.NO_ASSISTANT, "messages", "there is no assistant message", "wanted one to learn from"
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant":
            yield from _turn_faults(f"messages[{index}]", message, tools)
    yield from _link_faults(conversation.messages)


def _turn_faults(field: str, message: Message, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    if not message.tool_calls and not (message.content or "").strip():
        yield Kind.EMPTY_TURN, field, "the assistant says nothing and calls nothing", "wanted content or tool_calls"
    for index, call in enumerate(message.tool_calls):
        yield from _call_faults(f"{field}.tool_calls[{index}]", call, tools)


def _call_faults(field: str, call: ToolCall, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    tool = tools.get(call.name)
    if not call.name.strip():
        yield Kind.NO_NAME, f"{field}.name", "the call has no name", f"wanted {_one_of(tools)}"
    elif tool is None:
        what = f"calls the unknown tool {call.name!r}{nearest(call.name, tools)}"
        yield Kind.UNKNOWN_TOOL, f"{field}.name", what, f"wanted {_one_of(tools)}"
    else:
        for problem in tool.problems(call.arguments):
            yield Kind.BAD_ARGUMENTS, f"{field}.arguments", f"{call.name}, {problem[:200]}", _wanted(tool, problem)
        properties = tool.parameters.get("properties") or {}
        for name in call.arguments if _is_closed(tool) else ():
            if name not in properties:
                what = f"{call.name} declares no argument {name!r}{nearest(name, properties)}"
                right = f"wanted {_one_of(properties)}, or 'additionalProperties': true in its schema"
                yield Kind.UNDECLARED_ARGUMENT, f"{field}.arguments", what, right


def _is_closed(tool: Tool) -> bool:
    """Whether the schema names all arguments: it says nothing that could let others in."""
    return "properties" in tool.parameters and not tool.parameters.keys() & {
        "additionalProperties",
        "patternProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
    }


def _one_of(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:_SHOWN]]
    if not shown:
        return "none, since none is declared"
    rest = f" or one of {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ("one of " if len(shown) > 1 else "") + ", ".join(shown) + rest


def _wanted(tool: Tool, problem: str) -> str:
    """The schema of the argument that the problem names, or the names that are required."""
    schema = (tool.parameters.get("properties") or {}).get(problem.partition(":")[0].partition(".")[0])
    if isinstance(schema, dict):
        return "wanted " + json.dumps({key: value for key, value in schema.items() if key != "description"})[:200]
    return f"required are {', '.join(map(repr, tool.parameters.get('required') or [])) or 'none'}"


def _link_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Each result answers an open call; calls are answered before the assistant or the user speaks again. The end is free."""
    waiting: list[tuple[str, ToolCall]] = []
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if message.role == "tool":
            position = _answered(message, [call for _, call in waiting])
            if position is None:
                yield Kind.RESULT_WITHOUT_CALL, field, _stray(message), f"open calls: {_named(waiting)}"
            else:
                waiting.pop(position)
        elif message.role == "user" or (message.role == "assistant" and not message.tool_calls):
            for place, call in waiting:
                what = f"the call of {call.name!r} has no result before {field} ({message.role})"
                yield Kind.CALL_WITHOUT_RESULT, place, what, "wanted a tool message for it"
            waiting = []
        waiting += [(f"{field}.tool_calls[{number}]", call) for number, call in enumerate(message.tool_calls)]


def _answered(message: Message, calls: Sequence[ToolCall]) -> int | None:
    """Which of the open calls a result answers: the one with its id, where both have ids; else the first that bears its name."""
    for position, call in enumerate(calls):
        linked = message.tool_call_id is not None and call.id is not None
        if str(message.tool_call_id) == call.id if linked else message.name in (None, "", call.name):
            return position
    return None


def _stray(message: Message) -> str:
    told = [f"id {message.tool_call_id!r}"] if message.tool_call_id is not None else []
    told += [f"name {message.name!r}"] if message.name else []
    return f"the tool result with {' and '.join(told)} answers no open call" if told else "the tool result answers no open call"


def _named(waiting: Sequence[tuple[str, ToolCall]]) -> str:
    return ", ".join(call.name if call.id is None else f"{call.name} (id {call.id!r})" for _, call in waiting) or "none"


@dataclass(frozen=True)
class Lengths:
    """Rows that fit; how many did not; and the longest row seen, in tokens."""

    rows: list[Row]
    dropped: int
    longest: int


def check_lengths(rows: Sequence[Row], max_length: int, policy: Literal["drop", "error"] = "drop") -> Lengths:
    """Keep the rows of at most `max_length` tokens (0: any length), whole; a row with nothing to learn is an error.

    A longer row is dropped and counted, or, with policy `error`, is an error. Rows of one group stand or fall together.
    """
    for number, row in enumerate(rows, start=1):
        if not row.mask.any():
            raise DataError(f"row {number} of {len(rows)} has {len(row)} tokens and none to learn from; wanted an assistant turn")
    longest = max(map(len, rows), default=0)
    too_long = [row for row in rows if 0 < max_length < len(row)]
    if too_long and policy == "error":
        raise DataError(
            f"{len(too_long)} of {len(rows)} rows are longer than {max_length} tokens, the longest has {longest}; {_REMEDY}"
        )
    lost = {row.group for row in too_long if row.group is not None}
    kept = [row for row in rows if not 0 < max_length < len(row) and row.group not in lost]
    if rows and not kept:
        shortest = min(map(len, rows))
        raise DataError(
            f"no row is left: all {len(rows)} are longer than {max_length} tokens, the shortest has {shortest}; {_REMEDY}"
        )
    return Lengths(kept, len(rows) - len(kept), longest)
