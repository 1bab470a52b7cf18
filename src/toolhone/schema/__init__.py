"""The data types of every room: `Tool`, `ToolCall`, `Message`, `Conversation`, `Expect`, `Task`.

`from_dict` accepts the forms in use, `to_dict` writes the one form on disk; arguments of a call are
always a mapping. A problem in the input is a `DataError` that names the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from toolhone.errors import DataError, nearest
from toolhone.schema.json_input import LABELS, check_keys
from toolhone.schema.json_input import WEIGHT_KEYS as WEIGHT_KEYS
from toolhone.schema.json_input import read_weight as read_weight
from toolhone.schema.message import ENCODE as ENCODE
from toolhone.schema.message import ROLES as ROLES
from toolhone.schema.message import Message as Message
from toolhone.schema.message import ToolCall as ToolCall
from toolhone.schema.message import decode_text as decode_text
from toolhone.schema.message import dicts_of as dicts_of
from toolhone.schema.message import need, without_none
from toolhone.schema.tool import Json as Json
from toolhone.schema.tool import Tool as Tool


class ListTexts:
    """Writes lists of messages and tools as JSON; what several lists share is encoded once."""

    def __init__(self) -> None:
        self._messages: dict[int, tuple[Message, str]] = {}
        self._tools: dict[int, tuple[Tool, str]] = {}

    def __call__(self, items: Sequence[Message] | Sequence[Tool]) -> str:
        texts = []
        for item in items:
            known: dict[int, Any] = self._tools if isinstance(item, Tool) else self._messages
            found = known.get(id(item))
            if found is None:
                found = known[id(item)] = item, ENCODE(item.to_dict())
            texts.append(found[1])
        return f"[{', '.join(texts)}]"

    def start_row(self) -> None:
        """Forget the messages, and the tools where they are many."""
        self._messages.clear()
        if len(self._tools) > _KNOWN_TOOLS:
            self._tools.clear()


_KNOWN_TOOLS = 1000
_ROW_KEYS = frozenset({"id", "messages", "tools", *LABELS})


@dataclass(frozen=True)
class Conversation:
    """Messages with their own tools: the unit of supervised training."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    id: str = ""
    source: str = ""

    @property
    def is_learned(self) -> bool:
        """Whether there are turns of the assistant to learn: not if all of them have weight 0."""
        weights = [one.weight for one in self.messages if one.role == "assistant"]
        return not weights or any(weights)

    @staticmethod
    def from_dict(source: Mapping[str, Json], unread: set[str] | None = None) -> Conversation:
        messages = _messages(source.get("messages"), unread)
        if "assistant" not in (roles := [message.role for message in messages]):
            found = ", ".join(roles)
            raise DataError(f"a conversation needs an assistant message; found roles {found}")
        check_keys(source, _ROW_KEYS, "a row", unread)
        tools = _tools(source, unread)
        return Conversation(messages, tools, _word(source, "id"), _word(source, "source"))

    def to_dict(self) -> dict[str, Json]:
        messages, tools = dicts_of(self.messages), dicts_of(self.tools)
        return {"id": self.id, "messages": messages, "tools": tools, "source": self.source}

    def to_json(self, texts: ListTexts) -> str:
        """Return `to_dict` as JSON."""
        source, messages, tools = ENCODE(self.source), texts(self.messages), texts(self.tools)
        start = f'{{"id": {ENCODE(self.id)}, "messages": {messages}'
        return f'{start}, "tools": {tools}, "source": {source}}}'


@dataclass(frozen=True)
class ExpectedCall:
    """A correct call.

    accept: further correct values per parameter. optional: parameters that may be absent.
    any_arguments: all arguments that fit the tool's schema are correct.
    """

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    accept: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    any_arguments: bool = False

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> ExpectedCall:
        call = ToolCall.from_dict(source, more=("accept", "optional", "any_arguments"))
        given = {**source.get("function", {}), **source}
        accept, optional = given.get("accept") or {}, given.get("optional") or ()
        free = given.get("any_arguments", False)
        need(accept, Mapping, "'accept' must be an object of lists")
        for values in accept.values():
            need(values, list | tuple, "'accept' must hold a list for each parameter")
        need(optional, list | tuple, "'optional' must be a list of parameters")
        for name in optional:
            need(name, str, "'optional' must be a list of parameters")
        need(free, bool, "'any_arguments' must be true or false")
        if free and (call.arguments or accept or optional):
            both = "'any_arguments' and arguments"
            raise DataError(f"the expected call of {call.name!r} has both {both}; leave one out")
        return ExpectedCall(call.name, call.arguments, dict(accept), tuple(optional), free)

    def to_dict(self) -> dict[str, Json]:
        if self.any_arguments:
            return {"name": self.name, "any_arguments": True}
        result: dict[str, Json] = {"name": self.name, "arguments": dict(self.arguments)}
        if self.accept:
            result["accept"] = {name: list(values) for name, values in self.accept.items()}
        return {**result, "optional": list(self.optional)} if self.optional else result


ANY_CALL = ExpectedCall("", any_arguments=True)
"""The expected call of `Expect.any_call`; the empty name means any tool of the task."""
_EXPECT_TYPES: dict[str, tuple[Any, str]] = {
    "calls": (list | tuple | None, "a list"),
    "no_call": (bool, "true or false"),
    "any_call": (bool, "true or false"),
    "state": (Mapping | None, "an object"),
    "alternatives": (list | tuple | None, "a list"),
    "answer": (str | int | float | None, "text or a number"),
}


@dataclass(frozen=True)
class Expect:
    """The correct result of a task: calls, any one call, or no call; the answer or state if known.

    `calls` is None when calls are not judged; `()` never occurs on disk. `alternatives` are other
    complete correct results: they have no alternatives of their own and judge the same aspects.
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
        """Each correct answer alone, this one first."""
        alone = replace(self, alternatives=()) if self.alternatives else self
        return alone, *self.alternatives

    @property
    def wanted(self) -> tuple[ExpectedCall, ...]:
        """The expected calls; empty where none is expected or calls are not judged."""
        return (ANY_CALL,) if self.any_call else self.calls or ()

    @property
    def speaks_of(self) -> tuple[str, ...]:
        """The aspects that it judges, out of "calls", "answer" and "state"."""
        calls = self.calls is not None or self.any_call or self.no_call
        judges = {"calls": calls or None, "answer": self.answer, "state": self.state}
        return tuple(name for name, value in judges.items() if value is not None)

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Expect:
        known = (*_EXPECT_TYPES, "order")
        need(source, Mapping, f"'expect' must be an object with {', '.join(known)}")
        for key, value in source.items():
            if key not in known:
                right = f"{nearest(key, known)}; known: {', '.join(known)}"
                raise DataError(f"'expect' has an unknown key {key!r}{right}")
            if key in _EXPECT_TYPES:
                kind, right = _EXPECT_TYPES[key]
                need(value, kind, f"'expect.{key}' must be {right}")
        calls, order, answer = source.get("calls"), source.get("order", "any"), source.get("answer")
        if calls is not None and not calls:
            raise DataError("'expect.calls' is empty; for a task without a call, set 'no_call'")
        present = [repr(key) for key in ("calls", "no_call", "any_call") if source.get(key)]
        if len(present) > 1:
            raise DataError(f"'expect' has both {present[0]} and {present[1]}")
        if order not in ("any", "strict"):
            raise DataError(f"'expect.order' must be 'any' or 'strict', got {order!r}")
        calls = None if calls is None else tuple(ExpectedCall.from_dict(call) for call in calls)
        no_call, any_call = bool(source.get("no_call")), bool(source.get("any_call"))
        answer = None if answer is None else str(answer)
        first = Expect(calls, order, no_call, answer, source.get("state"), any_call)
        if not first.speaks_of:
            raise DataError(f"'expect' is empty; it needs one of {', '.join(known)}")
        others = tuple(Expect.from_dict(other) for other in source.get("alternatives") or ())
        for other in others:
            if other.alternatives:
                raise DataError("'expect.alternatives' cannot be nested; write them into one list")
            if other.speaks_of != first.speaks_of:
                here, there = (" and ".join(one.speaks_of) for one in (first, other))
                raise DataError(f"'expect' judges {here}, one 'alternatives' entry {there}")
        return replace(first, alternatives=others)

    def to_dict(self) -> dict[str, Json]:
        calls = {} if self.calls is None else {"calls": dicts_of(self.calls), "order": self.order}
        return calls | without_none(
            no_call=self.no_call or None,
            any_call=self.any_call or None,
            answer=self.answer,
            state=None if self.state is None else dict(self.state),
            alternatives=dicts_of(self.alternatives) or None,
        )


_TASK_KEYS = frozenset(
    {"id", "messages", "turns", "tools", "expect", "world", "category", "source", "cluster"}
)


@dataclass(frozen=True)
class Task:
    """The start of an episode: `messages` and `expect`, or `turns` and `expects` per user turn.

    `cluster` names what it shares with other tasks (a conversation, a template), so that statistics
    do not count them as independent; "": nothing.
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
    cluster: str = ""

    @property
    def unplayable(self) -> str:
        """Why an episode cannot play it, as what such tasks are; "" where it can."""
        if self.turns:
            return "tasks with several user turns"
        lost = self.expect.state is not None and self.world is None
        return "tasks whose right answer is the state of no known world" if lost else ""

    @staticmethod
    def from_dict(source: Mapping[str, Json], unread: set[str] | None = None) -> Task:
        if "expect" not in source:
            raise DataError(f"a task needs 'expect'; got keys {sorted(map(str, source))}")
        names = ("id", "category", "source", "cluster")
        identity, category, origin, cluster = (_word(source, key) for key in names)
        if not identity:
            raise DataError("a task needs an 'id' (predictions are joined on it)")
        world = source.get("world")
        need(world, Mapping | None, "'world' must be an object with a 'name'")
        check_keys(source, _TASK_KEYS, "a task", unread)
        tools = _tools(source, unread)
        task = Task(identity, (), tools, Expect(), (), (), world, category, origin, cluster)
        expect, turns = source["expect"], source.get("turns", ())
        if "turns" not in source:
            messages = _messages(source.get("messages"), unread)
            return replace(task, messages=messages, expect=Expect.from_dict(expect))
        if not isinstance(turns, list | tuple) or not turns:
            raise DataError(f"'turns' must be a list of lists of messages, got {turns!r:.60}")
        need(expect, list | tuple, "with 'turns', 'expect' must be a list with one entry per turn")
        if len(turns) != len(expect):
            found = f"{len(turns)} and {len(expect)}"
            raise DataError(f"a task needs as many 'expect' entries as 'turns', got {found}")
        if source.get("messages"):
            raise DataError("a task has both 'messages' and 'turns'; wanted one of them")
        expects = tuple(Expect.from_dict(each) for each in expect)
        played = tuple(_messages(turn, unread) for turn in turns)
        return replace(task, turns=played, expects=expects)

    def to_dict(self) -> dict[str, Json]:
        turns = [dicts_of(turn) for turn in self.turns]
        return without_none(
            id=self.id,
            turns=turns or None,
            messages=None if turns else dicts_of(self.messages),
            tools=dicts_of(self.tools),
            expect=dicts_of(self.expects) if turns else self.expect.to_dict(),
            world=None if self.world is None else dict(self.world),
            category=self.category,
            source=self.source,
            cluster=self.cluster or None,
        )

    def to_json(self, texts: ListTexts) -> str:
        """Return `to_dict` as JSON."""
        turns = ", ".join(map(texts, self.turns))
        expect = dicts_of(self.expects) if turns else self.expect.to_dict()
        parts = without_none(
            id=ENCODE(self.id),
            turns=f"[{turns}]" if turns else None,
            messages=None if turns else texts(self.messages),
            tools=texts(self.tools),
            expect=ENCODE(expect),
            world=None if self.world is None else ENCODE(dict(self.world)),
            category=ENCODE(self.category),
            source=ENCODE(self.source),
            cluster=ENCODE(self.cluster) if self.cluster else None,
        )
        return "{" + ", ".join([f'"{key}": {text}' for key, text in parts.items()]) + "}"


def texts_in(value: Json) -> Iterator[str]:
    """Yield all texts that are values, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(inner)


def _word(source: Mapping[str, Json], key: str) -> str:
    value = source.get(key)
    return "" if value is None else str(value)


def _messages(messages: Json, unread: set[str] | None = None) -> tuple[Message, ...]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(f"'messages' must be a non-empty list of messages; got {messages!r:.60}")
    return tuple(Message.from_dict(message, unread) for message in messages)


def _tools(source: Mapping[str, Json], unread: set[str] | None = None) -> tuple[Tool, ...]:
    tools = decode_text(source.get("tools") or [], "'tools'")
    need(tools, Sequence, "'tools' must be a list of tools")
    return tuple(Tool.of(tool, unread) for tool in tools)
