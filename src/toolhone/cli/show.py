"""How results look on a terminal: evaluations as tables, turns of a talk as they happen. Used by several verbs."""

from __future__ import annotations

from rich.console import Console

from toolhone.backends.base import StopReason
from toolhone.dialects.base import Problem
from toolhone.episodes.dialogue import Event
from toolhone.episodes.policy import Turn
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.tables import clean, mismatches, predictions, table
from toolhone.rewards.matching import show_call

WIDTH = 200
"""Columns when standard output is no terminal, so that tables are not cut."""


def console() -> Console:
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def show_evaluation(evaluation: Evaluation, count: int) -> None:
    """The table of metrics, then `count` sample predictions and `count` mismatches."""
    out = console()
    out.print(table(evaluation))
    if count:
        out.print(predictions(evaluation, count))
        out.print(mismatches(evaluation, count))


def show_event(event: Event) -> None:
    """One thing that happens in a talk."""
    if not isinstance(event, Turn):
        call, result = event
        outcome = "" if result.outcome == "ok" else f" [{result.outcome}]"
        print(clean(f"  {call.name} ->{outcome} {result.content}"))
        return
    for call in event.message.tool_calls:
        print(clean(f"  calls {show_call(call)}"))
    if event.message.content:
        print(clean(f"assistant  {event.message.content}"))
    if event.problem is not Problem.NONE:
        print(f"  (could not be read: {event.problem.value}; the model wrote: {event.text!r})")
    elif event.stop_reason is StopReason.LENGTH:
        print("  (cut off: evaluation.max_new_tokens reached)")
