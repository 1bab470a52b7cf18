"""The words of the house: `Tool`, `ToolCall`, `Message`, `Conversation`, `Task`.

Frozen values with `from_dict` (accepts what people already have) and `to_dict` (writes the one form on disk, one JSON object per
line). Arguments of a call are always a mapping inside the program; a JSON string is converted on the way in. Nested
schemas are kept whole. Nothing here reads files, renders text or runs a tool.

    conversation  {"id", "messages", "tools", "source"}
    task          {"id", "messages" | "turns": [[message]], "tools", "expect", "world"?, "category", "source"}

Every problem found in the input is a `DataError` whose text names the field; callers add the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from toolhone.errors import DataError, nearest
from toolhone.schema.tool import Json, Tool

__all__ = [
    "ANY_CALL",
    "ROLES",
    "Conversation",
    "Expect",
    "ExpectedCall",
    "Json",
    "Message",
    "Task",
    "Tool",
    "ToolCall",
]

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolCall:
    """A call: name and arguments (always a mapping). `id` links a tool result to it where the data has one."""

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    id: str | None = field(default=None, compare=False)

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> ToolCall:
        """Read `{"name", "arguments"}` or the OpenAI form `{"id", "type", "function": {...}}`; arguments may be a JSON string."""
        body = source.get("function", source) if isinstance(source, Mapping) else source
        if (
            not isinstance(body, Mapping)
            or not isinstance(body.get("name"), str)
            or not body["name"]
        ):
            raise DataError(f"a tool call needs a 'name' (a string); got {source!r:.80}")
        identity = source.get("id")
        return ToolCall(body["name"], _arguments(body), None if identity is None else str(identity))

    def to_dict(self) -> dict[str, Json]:
        return {"name": self.name, "arguments": dict(self.arguments)}

    def to_openai(self, index: int = 0) -> dict[str, Json]:
        """The OpenAI form, but with the arguments as a mapping (chat templates want it so; see `dialects.native`)."""
        function = {"name": self.name, "arguments": dict(self.arguments)}
        return {"id": self.id or f"call{index:05d}", "type": "function", "function": function}


def _arguments(body: Mapping[str, Json]) -> dict[str, Json]:
    value = body.get("arguments", body.get("parameters"))
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except ValueError:
            raise DataError(
                f"call of {body['name']!r}: 'arguments' is a string but not JSON: {value!r:.80}"
            ) from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(
            f"call of {body['name']!r}: 'arguments' must be an object, got {value!r:.80}"
        )
    return dict(value)


@dataclass(frozen=True)
class Message:
    """One message. `content` is text or None; `name` on a tool message is the tool that answered."""

    role: str
    content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Message:
        if not isinstance(source, Mapping) or source.get("role") not in ROLES:
            role = source.get("role") if isinstance(source, Mapping) else source
            raise DataError(
                f"a message needs a 'role' out of {', '.join(ROLES)}; got {role!r:.40}{nearest(str(role), ROLES)}"
            )
        calls = source.get("tool_calls") or []
        _need(calls, list | tuple, "'tool_calls' must be a list")
        reasoning = source.get("reasoning", source.get("reasoning_content"))
        return Message(
            role=source["role"],
            content=_text(source.get("content")),
            reasoning=None if reasoning is None else str(reasoning),
            tool_calls=tuple(ToolCall.from_dict(call) for call in calls),
            tool_call_id=source.get("tool_call_id"),
            name=source.get("name"),
        )

    def to_dict(self) -> dict[str, Json]:
        result: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            result["reasoning"] = self.reasoning
        if self.tool_calls:
            ids = [{} if call.id is None else {"id": call.id} for call in self.tool_calls]
            result["tool_calls"] = [
                {**call.to_dict(), **extra}
                for call, extra in zip(self.tool_calls, ids, strict=True)
            ]
        if self.tool_call_id is not None:
            result["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            result["name"] = self.name
        return result


def _text(content: Json) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text", part.get("value", ""))) for part in content)
    raise DataError(f"'content' must be text, null or a list of text parts; got {content!r:.60}")


@dataclass(frozen=True)
class Conversation:
    """Messages with the tools that were on offer. The unit of supervised training."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    id: str = ""
    source: str = ""

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Conversation:
        messages = _messages(source, "messages")
        if not any(message.role == "assistant" for message in messages):
            raise DataError(
                "a conversation needs an assistant message; found roles "
                + ", ".join(m.role for m in messages)
            )
        return Conversation(messages, _tools(source), _word(source, "id"), _word(source, "source"))

    def to_dict(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "messages": [message.to_dict() for message in self.messages],
            "tools": [tool.to_dict() for tool in self.tools],
            "source": self.source,
        }


@dataclass(frozen=True)
class ExpectedCall:
    """One call that counts as right.

    `accept` lists, per parameter, further values that are right; `optional` names parameters that may be left out. With
    `any_arguments` nothing is said of the arguments but that they must obey the tool's schema.
    """

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    accept: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    any_arguments: bool = False

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> ExpectedCall:
        call = ToolCall.from_dict(source)
        accept, optional = source.get("accept") or {}, source.get("optional") or ()
        _need(accept, Mapping, "'accept' must be an object of lists")
        for values in accept.values():
            _need(values, list | tuple, "'accept' must hold a list for each parameter")
        _need(optional, list | tuple, "'optional' must be a list of parameters")
        free = source.get("any_arguments", False)
        _need(free, bool, "'any_arguments' must be true or false")
        if free and (call.arguments or accept or optional):
            raise DataError(
                f"the expected call of {call.name!r} has 'any_arguments' and says which ones; leave one out"
            )
        return ExpectedCall(call.name, call.arguments, dict(accept), tuple(optional), free)

    def to_dict(self) -> dict[str, Json]:
        if self.any_arguments:
            return {"name": self.name, "any_arguments": True}
        result: dict[str, Json] = {"name": self.name, "arguments": dict(self.arguments)}
        if self.accept:
            result["accept"] = {name: list(values) for name, values in self.accept.items()}
        if self.optional:
            result["optional"] = list(self.optional)
        return result


ANY_CALL = ExpectedCall("", any_arguments=True)
"""The wanted call of `Expect.any_call`: the empty name stands for every tool on offer."""


@dataclass(frozen=True)
class Expect:
    """What counts as right: calls, one call no matter which, or no call; and, where known, the final answer or the final state.

    `calls` is None when nothing is said about calls; `()` never occurs on disk (that is `no_call`). `alternatives` are other
    whole right answers, which have none themselves; they speak of an answer, of a state and of calls where this one does.
    """

    calls: tuple[ExpectedCall, ...] | None = None
    order: Literal["any", "strict"] = "any"
    no_call: bool = False
    answer: str | None = None
    state: Mapping[str, Json] | None = None
    any_call: bool = False
    alternatives: tuple[Expect, ...] = ()

    @property
    def choices(self) -> tuple[Expect, ...]:
        """Every right answer by itself, this one first."""
        return (
            (replace(self, alternatives=()), *self.alternatives) if self.alternatives else (self,)
        )

    @property
    def wanted(self) -> tuple[ExpectedCall, ...]:
        """The wanted calls; empty where none is wanted or nothing is said about calls."""
        return (ANY_CALL,) if self.any_call else self.calls or ()

    @property
    def speaks_of(self) -> tuple[str, ...]:
        """Of which of "calls" (or none, or any), "answer" and "state" it says something."""
        said = {
            "calls": self.calls is not None or self.any_call or self.no_call,
            "answer": self.answer is not None,
        }
        return tuple(
            name for name, holds in {**said, "state": self.state is not None}.items() if holds
        )

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Expect:
        known = ("calls", "order", "no_call", "any_call", "answer", "state", "alternatives")
        _need(source, Mapping, f"'expect' must be an object with {', '.join(known)}")
        for key in source:
            if key not in known:
                raise DataError(
                    f"'expect' has an unknown key {key!r}{nearest(key, known)}; known: {', '.join(known)}"
                )
        calls = source.get("calls")
        _need(calls, list | tuple | None, "'expect.calls' must be a list")
        _need(source.get("state"), Mapping | None, "'expect.state' must be an object")
        if calls is not None and not calls:
            raise DataError(
                "'expect.calls' is empty; a task that wants no call says {\"no_call\": true}"
            )
        for key in ("no_call", "any_call"):
            _need(source.get(key, False), bool, f"'expect.{key}' must be true or false")
        said = [repr(key) for key in ("calls", "no_call", "any_call") if source.get(key)]
        if len(said) > 1:
            raise DataError(f"'expect' has both {said[0]} and {said[1]}")
        order = source.get("order", "any")
        if order not in ("any", "strict"):
            raise DataError(f"'expect.order' must be 'any' or 'strict', got {order!r}")
        answer = source.get("answer")
        first = Expect(
            None if calls is None else tuple(ExpectedCall.from_dict(call) for call in calls),
            order,
            bool(source.get("no_call", False)),
            None if answer is None else str(answer),
            source.get("state"),
            bool(source.get("any_call", False)),
        )
        if not first.speaks_of:
            raise DataError(
                "'expect' says nothing; it needs 'calls', 'no_call', 'any_call', 'answer' or 'state'"
            )
        return replace(
            first, alternatives=_alternatives(source.get("alternatives") or (), first.speaks_of)
        )

    def to_dict(self) -> dict[str, Json]:
        result: dict[str, Json] = {}
        if self.calls is not None:
            result = {"calls": [call.to_dict() for call in self.calls], "order": self.order}
        if self.no_call:
            result["no_call"] = True
        if self.any_call:
            result["any_call"] = True
        if self.answer is not None:
            result["answer"] = self.answer
        if self.state is not None:
            result["state"] = dict(self.state)
        if self.alternatives:
            result["alternatives"] = [other.to_dict() for other in self.alternatives]
        return result


def _alternatives(source: Json, speaks_of: tuple[str, ...]) -> tuple[Expect, ...]:
    """Other right answers, each judged by the same things as the first, so that a metric is measured on a task or is not."""
    _need(source, list | tuple, "'expect.alternatives' must be a list")
    others = tuple(Expect.from_dict(other) for other in source)
    for other in others:
        if other.alternatives:
            raise DataError(
                "one of 'expect.alternatives' has 'alternatives' itself; write them into one list"
            )
        if other.speaks_of != speaks_of:
            said = [" and ".join(names) or "nothing" for names in (speaks_of, other.speaks_of)]
            raise DataError(
                f"'expect' speaks of {said[0]}, one of its 'alternatives' of {said[1]}; all must speak of the same"
            )
    return others


@dataclass(frozen=True)
class Task:
    """What an evaluation or an episode starts from.

    A task has `messages` with one `expect`, or `turns` (lists of messages, one per user turn) with as many `expects`.
    """

    id: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    expect: Expect = field(default_factory=Expect)
    turns: tuple[tuple[Message, ...], ...] = ()
    expects: tuple[Expect, ...] = ()
    world: Mapping[str, Json] | None = None
    category: str = ""
    source: str = ""

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Task:
        if "expect" not in source:
            raise DataError(f"a task needs 'expect'; got keys {sorted(map(str, source))}")
        if not _word(source, "id"):
            raise DataError("a task needs an 'id' (predictions are joined on it)")
        common: dict[str, Any] = {
            "id": _word(source, "id"),
            "tools": _tools(source),
            "world": source.get("world"),
            "category": _word(source, "category"),
            "source": _word(source, "source"),
        }
        if "turns" not in source:
            return Task(
                messages=_messages(source, "messages"),
                expect=Expect.from_dict(source["expect"]),
                **common,
            )
        _need(source["turns"], list | tuple, "'turns' must be a list of lists of messages")
        _need(
            source["expect"],
            list | tuple,
            "with 'turns', 'expect' must be a list with one entry for each turn",
        )
        turns = tuple(_messages({"messages": turn}, "messages") for turn in source["turns"])
        expects = tuple(Expect.from_dict(expect) for expect in source["expect"])
        if len(turns) != len(expects):
            raise DataError(
                f"a task with {len(turns)} 'turns' needs as many 'expect' entries, got {len(expects)}"
            )
        return Task(turns=turns, expects=expects, **common)

    def to_dict(self) -> dict[str, Json]:
        result: dict[str, Json] = {"id": self.id}
        if self.turns:
            result["turns"] = [[message.to_dict() for message in turn] for turn in self.turns]
        else:
            result["messages"] = [message.to_dict() for message in self.messages]
        result["tools"] = [tool.to_dict() for tool in self.tools]
        result["expect"] = (
            [expect.to_dict() for expect in self.expects] if self.turns else self.expect.to_dict()
        )
        if self.world is not None:
            result["world"] = dict(self.world)
        return {**result, "category": self.category, "source": self.source}


def _word(source: Mapping[str, Json], key: str) -> str:
    value = source.get(key)
    return "" if value is None else str(value)


def _need(value: Json, kind: Any, right: str) -> None:
    if not isinstance(value, kind):
        raise DataError(f"{right}, got {value!r:.60}")


def _messages(source: Mapping[str, Json], key: str) -> tuple[Message, ...]:
    messages = source.get(key)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(f"'{key}' must be a non-empty list of messages; got {messages!r:.60}")
    return tuple(Message.from_dict(message) for message in messages)


def _tools(source: Mapping[str, Json]) -> tuple[Tool, ...]:
    tools = source.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise DataError(f"'tools' is a string but not JSON: {tools!r:.60}") from None
    if not isinstance(tools, Sequence):
        raise DataError(f"'tools' must be a list of tools, got {tools!r:.60}")
    return tuple(Tool.of(tool) for tool in tools)
