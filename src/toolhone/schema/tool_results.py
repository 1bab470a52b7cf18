"""Which call each tool message answers; rules and rendering ask here.

for run in result_runs(conversation.messages):
    run.answers                        # of each result the number of its call in `run.calls`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from toolhone.errors import Fault, FindingKind
from toolhone.schema import Message, ToolCall


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


def open_calls(messages: Sequence[Message]) -> Iterator[tuple[int, int, int]]:
    """Yield each call without a result: index of its message, its number, where the result is due.

    A result is due before the user speaks again, or the assistant without a call, or at the end.
    """
    answered = set[tuple[int, int]]()
    for run in result_runs(messages):
        answered |= {run.calls[number] for number in run.answers if number is not None}
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
