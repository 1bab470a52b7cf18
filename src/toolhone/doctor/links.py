"""Tool results against the calls they answer: results without a call, calls without a result, results in another order.

    faults = link_faults(conversation.messages)

Each result answers an open call; calls are answered before the assistant or the user speaks again. The end of a conversation is
free: a row may end with its calls. A result answers the call with its id, where both have ids; else the first call that bears
its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolhone.schema import Message, ToolCall
from toolhone.sources.rules import Fault, FindingKind, answered_call


def order_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """Runs of results that stand in another order than the calls in front of them."""
    for start, end, order in _runs(messages):
        if order != sorted(order):
            told = ", ".join(str(place + 1) for place in order)
            yield Fault(
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
        position = answered_call(result, [calls[place] for place in left])
        if position is None:
            return []
        order.append(left.pop(position))
    return order
