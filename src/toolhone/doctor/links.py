"""Tool results against the calls they answer: results without a call, calls without a result, results in another order.

    faults = link_faults(conversation.messages)

Each result answers an open call; calls are answered before the assistant or the user speaks again. The end of a conversation is
free: a row may end with its calls. A result answers the call with its id, where both have ids; else the first call that bears
its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolhone.doctor.findings import Fault, FindingKind
from toolhone.schema import Message, ToolCall


@dataclass(frozen=True)
class OpenCall:
    """A call that waits for its result; `place` is its field."""

    place: str
    call: ToolCall


def link_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Orphaned and missing results."""
    waiting: list[OpenCall] = []
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if message.role == "tool":
            position = answered(message, [one.call for one in waiting])
            if position is None:
                yield (
                    FindingKind.RESULT_WITHOUT_CALL,
                    field,
                    _stray(message),
                    f"open calls: {_named(waiting)}",
                )
            else:
                waiting.pop(position)
        elif message.role == "user" or (message.role == "assistant" and not message.tool_calls):
            for one in waiting:
                what = (
                    f"the call of {one.call.name!r} has no result before {field} ({message.role})"
                )
                yield (
                    FindingKind.CALL_WITHOUT_RESULT,
                    one.place,
                    what,
                    "wanted a tool message for it",
                )
            waiting = []
        waiting += [
            OpenCall(f"{field}.tool_calls[{number}]", call)
            for number, call in enumerate(message.tool_calls)
        ]


def order_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Runs of results that stand in another order than the calls in front of them."""
    for start, end, order in _runs(messages):
        if order != sorted(order):
            told = ", ".join(str(place + 1) for place in order)
            yield (
                FindingKind.REORDERED_RESULTS,
                f"messages[{start}]" if end == start + 1 else f"messages[{start}:{end}]",
                f"the results answer the calls in the order {told}",
                "wanted the order of the calls",
            )


def in_order(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with each run of results in the order of its calls."""
    result = list(messages)
    for start, end, order in _runs(messages):
        result[start:end] = [
            message
            for _, message in sorted(
                zip(order, messages[start:end], strict=True), key=lambda pair: pair[0]
            )
        ]
    return tuple(result)


def _runs(messages: Sequence[Message]) -> Iterator[tuple[int, int, list[int]]]:
    """Start and end of the results behind each turn with several calls, and which call each answers; none with a stray one."""
    for index, message in enumerate(messages):
        if len(message.tool_calls) < 2:
            continue
        end = index + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        order = _order(message.tool_calls, messages[index + 1 : end])
        if order:
            yield index + 1, end, order


def _order(calls: Sequence[ToolCall], results: Sequence[Message]) -> list[int]:
    left, order = list(range(len(calls))), list[int]()
    for result in results:
        position = answered(result, [calls[place] for place in left])
        if position is None:
            return []
        order.append(left.pop(position))
    return order


def answered(message: Message, calls: Sequence[ToolCall]) -> int | None:
    """Which of the open calls a result answers; None for a stray one."""
    for position, call in enumerate(calls):
        linked = message.tool_call_id is not None and call.id is not None
        if (
            str(message.tool_call_id) == call.id
            if linked
            else message.name in (None, "", call.name)
        ):
            return position
    return None


def _stray(message: Message) -> str:
    told = [f"id {message.tool_call_id!r}"] if message.tool_call_id is not None else []
    told += [f"name {message.name!r}"] if message.name else []
    return (
        f"the tool result with {' and '.join(told)} answers no open call"
        if told
        else "the tool result answers no open call"
    )


def _named(waiting: Sequence[OpenCall]) -> str:
    calls = [one.call for one in waiting]
    return (
        ", ".join(
            call.name if call.id is None else f"{call.name} (id {call.id!r})" for call in calls
        )
        or "none"
    )
