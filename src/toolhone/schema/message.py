"""`Message` and `ToolCall`, read from the forms in use; and which call each tool message answers.

for run in result_runs(conversation.messages):
    run.answers                        # of each result the number of its call in `run.calls`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolhone.errors import DataError, Fault, FindingKind, nearest
from toolhone.schema.json_input import (
    ARGUMENTS,
    CALL_KEYS,
    IDS,
    MESSAGE_KEYS,
    check_flags,
    check_keys,
    first_value,
    identity_of,
    parse_json,
    read_reasoning,
    read_texts,
    read_weight,
)
from toolhone.schema.json_schema import Json


def _encoder() -> Callable[[Any], str]:
    """Return the encoder of `json` with its parts made once, not for each value, where it is in C.

    `JSONEncoder.encode` makes them anew each time, which takes longer than to write a message.
    """
    plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    text = json.encoder.encode_basestring
    parts = make(None, plain.default, text, None, ": ", ", ", False, False, False)
    return lambda value: text(value) if isinstance(value, str) else "".join(parts(value, 0))


ENCODE = _encoder()
"""Writes a value as JSON, as all files of ours have it; a `ValueError` where JSON has no such."""
ROLES = ("system", "developer", "user", "assistant", "tool")


_CALL_WRAPPER, _RESULT_KEYS = frozenset({*IDS, "type", "function"}), MESSAGE_KEYS | {*IDS}
_PLAIN, _SPEAKERS = frozenset({"role", "content"}), ("system", "developer", "user", "assistant")


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
        check_keys(body, CALL_KEYS.union(more) if more else CALL_KEYS, "a call", unread)
        if body is not source:
            check_keys(source, _CALL_WRAPPER.union(more), "a call", unread)
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
        plain = isinstance(source, dict) and source.keys() == _PLAIN
        if plain and source["role"] in _SPEAKERS and isinstance(source["content"], str | None):
            return Message(source["role"], source["content"])
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
        keys = _RESULT_KEYS if role == "tool" else MESSAGE_KEYS
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


class ResultRun(NamedTuple):
    """Tool messages in a row: `messages[start:end]`.

    calls: the open calls before them, as (index of the message, number of the call in it). answers:
    of each result the place of its call in `calls`; None where it answers none of them.
    """

    start: int
    end: int
    calls: list[tuple[int, int]]
    answers: list[int | None]


def result_runs(messages: Sequence[Message]) -> Iterator[ResultRun]:
    """Yield each run of results.

    Calls stay open until they are answered, or the user speaks, or the assistant without a call.
    """
    waiting: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            if index and messages[index - 1].role == "tool":
                continue
            places = range(index, len(messages))
            end = next((i for i in places if messages[i].role != "tool"), len(messages))
            calls = [messages[place].tool_calls[number] for place, number in waiting]
            answers = match_results(calls, messages[index:end])
            yield ResultRun(index, end, waiting, answers)
            waiting = [call for place, call in enumerate(waiting) if place not in answers]
        elif message.role == "user" or (message.role == "assistant" and not message.tool_calls):
            waiting = []
        waiting = [*waiting, *((index, number) for number in range(len(message.tool_calls)))]


def answered_calls(messages: Sequence[Message]) -> Iterator[tuple[tuple[int, int], Message]]:
    """Yield each call that has a result, as (index of its message, number), and the result."""
    for run in result_runs(messages):
        for result, number in zip(messages[run.start : run.end], run.answers, strict=True):
            if number is not None:
                yield run.calls[number], result


def open_calls(messages: Sequence[Message]) -> Iterator[tuple[int, int, int]]:
    """Yield each call without a result: index of its message, its number, where the result is due.

    A result is due before the user speaks again, or the assistant without a call, or at the end.
    """
    answered = {place for place, _ in answered_calls(messages)}
    ends = [
        index
        for index, one in enumerate(messages)
        if one.role == "user" or (one.role == "assistant" and not one.tool_calls)
    ]
    for index, message in enumerate(messages):
        due = next((at for at in ends if at > index), len(messages))
        for number in range(len(message.tool_calls)):
            if (index, number) not in answered:
                yield index, number, due


def match_results(calls: Sequence[ToolCall], results: Sequence[Message]) -> list[int | None]:
    """Return of each result the place of the call that it answers, None for a stray result.

    That is the call with its id where both have ids, else one with its name, else, for a result
    without a name, the first that is left.
    """
    answers: list[int | None] = [None] * len(results)
    for rule in ("id", "name", "order"):
        for place, result in enumerate(results):
            for number, call in enumerate(calls):
                if answers[place] is not None or number in answers:
                    continue
                if result.tool_call_id is not None and call.id is not None:
                    fits = rule == "id" and str(result.tool_call_id) == call.id
                elif result.name:
                    fits = rule == "name" and result.name == call.name
                else:
                    fits = rule == "order"
                if fits:
                    answers[place] = number
    return answers


def link_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Yield tool results without a call, and calls without a result.

    Calls must be answered before the user speaks again, or the assistant without a call; a row may
    end with open calls.
    """
    for run in result_runs(messages):
        for place, number in enumerate(run.answers):
            if number is not None:
                continue
            left = [at for k, at in enumerate(run.calls) if k not in run.answers[:place]]
            calls = [messages[at].tool_calls[own] for at, own in left]
            names = [f"{one.name} (id {one.id!r})" if one.id else one.name for one in calls]
            message = messages[run.start + place]
            labels = [f"id {message.tool_call_id!r}"] if message.tool_call_id is not None else []
            labels += [f"name {message.name!r}"] if message.name else []
            with_labels = f" with {' and '.join(labels)}" if labels else ""
            what = f"the tool result{with_labels} answers no open call"
            right, field = (
                f"open calls: {', '.join(names) or 'none'}",
                f"messages[{run.start + place}]",
            )
            yield Fault(FindingKind.RESULT_WITHOUT_CALL, field, what, right)
    for index, number, due in open_calls(messages):
        if due < len(messages):
            name = messages[index].tool_calls[number].name
            what = f"the call of {name!r} has no result before messages[{due}]"
            what += f" ({messages[due].role})"
            at = f"messages[{index}].tool_calls[{number}]"
            yield Fault(FindingKind.CALL_WITHOUT_RESULT, at, what, "wanted a tool message for it")


def order_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Yield runs of results in another order than the calls in front of them, and runs whose order
    alone says which call each result answers, although calls or results have ids."""
    for start, end, calls, answers in result_runs(messages):
        order = [number for number in answers if number is not None]
        for result, number in zip(messages[start:end], answers, strict=True):
            if number is None or result.name or len(calls) == 1:
                continue
            at, own = calls[number]
            if (result.tool_call_id is None) != (messages[at].tool_calls[own].id is None):
                what = "only the calls have ids" if result.tool_call_id is None else ""
                what = what or f"no call has an id, but the result has {result.tool_call_id!r}"
                right = "wanted the id of a call in each of its results"
                yield Fault(FindingKind.UNNAMED_RESULTS, f"messages[{start}]", what, right)
                break
        if order != sorted(order):
            field = f"messages[{start}]" if end == start + 1 else f"messages[{start}:{end}]"
            seen = ", ".join(str(place + 1) for place in order)
            what = f"the results answer the calls in the order {seen}"
            right = "wanted the order of the calls"
            yield Fault(FindingKind.REORDERED_RESULTS, field, what, right)
