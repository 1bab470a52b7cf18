"""Which call each tool message answers; rules and rendering ask here.

for run in result_runs(conversation.messages):
    run.answers                        # of each result the number of its call in `run.calls`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
