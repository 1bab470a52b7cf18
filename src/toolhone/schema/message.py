"""`Message` and `ToolCall`: what is said and called, read from the forms in use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolhone.errors import DataError, nearest
from toolhone.schema.json_text import parse_json
from toolhone.schema.keys import (
    ARGUMENTS,
    CALL_KEYS,
    IDS,
    MESSAGE_KEYS,
    check_flags,
    check_keys,
    first_value,
    identity_of,
    read_reasoning,
    read_texts,
    read_weight,
)
from toolhone.schema.references import Json

ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""Writes a value as JSON, as all files of ours have it; a `ValueError` where JSON has no such."""
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolCall:
    """A call. `id` links a tool result to it where the data has one."""

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    id: str | None = field(default=None, compare=False)

    @staticmethod
    def from_dict(
        source: Mapping[str, Json], unread: set[str] | None = None, more: Sequence[str] = ()
    ) -> ToolCall:
        """Read `{"name", "arguments"}` or the OpenAI form; arguments may be a JSON string.

        unread: gets the keys that are not read; a call without arguments has none of these. more:
        further keys that are known.
        """
        body = source.get("function", source) if isinstance(source, (dict, Mapping)) else source
        name = body.get("name") if isinstance(body, (dict, Mapping)) else None
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"a tool call needs a 'name' (a string); got {source!r:.80}")
        where = f"call of {name!r}: 'arguments'"
        arguments = decode_text(first_value(body, ARGUMENTS, f"the call of {name!r}"), where, 80)
        blank = arguments is None or (isinstance(arguments, str) and not arguments.strip())
        arguments = {} if blank else arguments
        need(arguments, (dict, Mapping), f"{where} must be an object", 80)
        unread = unread if arguments else None
        check_keys(body, {*CALL_KEYS, *more}, "a call", unread)
        if body is not source:
            check_keys(source, {*IDS, "type", "function", *more}, "a call", unread)
        return ToolCall(name, dict(arguments), identity_of({**body, **source}))

    def to_dict(self) -> dict[str, Json]:
        return {"name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class Message:
    """One message. `name` on a tool message is the tool that answered.

    weight: how much an assistant's message counts in training; one of weight 0 is context only.
    """

    role: str
    content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: float = 1

    @staticmethod
    def from_dict(source: Mapping[str, Json], unread: set[str] | None = None) -> Message:
        """Read a message; a `refusal` is the text of one that says nothing else.

        unread: gets the keys that are not read; an empty message has none.
        """
        role = source.get("role") if isinstance(source, (dict, Mapping)) else source
        if role is source or role not in ROLES:
            known = f"{', '.join(ROLES)}; got {role!r:.40}{nearest(str(role), ROLES)}"
            raise DataError(f"a message needs a 'role' out of {known}")
        calls = source.get("tool_calls") or []
        need(calls, (list, tuple), "'tool_calls' must be a list")
        content = source.get("content")
        if content is not None and not isinstance(content, str):
            content = read_texts(content, "content")
        if not content and not calls and isinstance(source.get("refusal"), str):
            content = source["refusal"]
        reasoning = read_reasoning(source, unread)
        calls = tuple(ToolCall.from_dict(call, unread) for call in calls)
        says = content or reasoning or calls
        keys = MESSAGE_KEYS | {*IDS} if role == "tool" else MESSAGE_KEYS
        check_keys(source, keys, "a message", unread if says else None)
        weight, answers = read_weight(source), source.get("tool_call_id")
        if role == "tool":
            answers = identity_of({**source, "id": None})
        if role != "assistant" and weight:
            check_flags(source, str(role), unread)
            weight = 1
        return Message(str(role), content, reasoning, calls, answers, source.get("name"), weight)

    def to_dict(self) -> dict[str, Json]:
        written: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            written["reasoning"] = self.reasoning
        if self.tool_calls:
            calls = [call.to_dict() | without_none(id=call.id) for call in self.tool_calls]
            written["tool_calls"] = calls
        if self.tool_call_id is not None:
            written["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            written["name"] = self.name
        if self.weight != 1:
            written["weight"] = self.weight
        return written


def dicts_of(items: Iterable[Any]) -> list[dict[str, Json]]:
    """Write messages, tools, calls or expectations for the disk."""
    return [item.to_dict() for item in items]


def decode_text(value: Json, what: str, width: int = 60) -> Json:
    """Return the value of a JSON string; an empty string and any other value as it is."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        why = "" if isinstance(error, json.JSONDecodeError) else f" ({error})"
        raise DataError(f"{what} is a string but not JSON{why}: {value!r:.{width}}") from None


def without_none(**values: Json) -> dict[str, Json]:
    """Return the values that are not null."""
    return {key: value for key, value in values.items() if value is not None}


def need(value: Json, kind: Any, expected: str, width: int = 60) -> None:
    """Raise `DataError` for a value of another type."""
    if not isinstance(value, kind):
        raise DataError(f"{expected}, got {value!r:.{width}}")
