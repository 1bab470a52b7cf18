"""How results look on a terminal: evaluations as tables, turns of a talk as they happen. Used by several verbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import indent

from rich.console import Console
from rich.text import Text

from toolhone.backends.base import StopReason
from toolhone.config.user_code import is_user_code
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.chat_session import Event
from toolhone.episodes.policy import Turn
from toolhone.evaluation.display import clean, mismatches, predictions, shortened, table
from toolhone.evaluation.legacy_metrics import known_metrics
from toolhone.evaluation.metrics import Evaluation
from toolhone.rewards.matching import show
from toolhone.schema import Json, ToolCall
from toolhone.tools.registry import ToolStatus

WIDTH = 200
"""Columns when standard output is no terminal, so that tables are not cut."""
ASSISTANT = "assistant  "
LONGEST_VALUE = 2000
"""Characters of an argument that are shown."""


def console() -> Console:
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def show_evaluation(evaluation: Evaluation, count: int, metrics: Sequence[str] = ()) -> None:
    """The table of metrics (all, or those that an experiment names), then `count` sample predictions and `count` mismatches."""
    out = console()
    own = [name.rpartition(":")[2] for name in metrics if is_user_code(name)]
    out.print(
        table(
            evaluation, [*known_metrics([name for name in metrics if not is_user_code(name)]), *own]
        )
    )
    if count:
        out.print(predictions(evaluation, count))
        out.print(mismatches(evaluation, count))


def show_event(event: Event) -> None:
    """One thing that happens in a talk; in colours on a terminal."""
    out = Console(highlight=False, markup=False)
    for line in event_lines(event):
        if out.is_terminal:
            out.print(line, soft_wrap=not line.plain.startswith(ASSISTANT))
        else:
            print(line.plain)


def event_lines(event: Event) -> Iterator[Text]:
    """What is shown of it, line by line. Nothing that a model or a tool wrote can control a terminal."""
    if not isinstance(event, Turn):
        call, result = event
        failed = result.outcome is not ToolStatus.OK
        yield Text.assemble(
            (f"  {clean(call.name)} -> ", "dim"),
            (f"[{result.outcome.value}] ", "bold red") if failed else "",
            (clean(result.content), "red" if failed else "green"),
        )
        return
    for call in event.message.tool_calls:
        yield Text.assemble(("  calls ", "dim"), (clean(_whole_call(call)), "cyan"))
    if event.message.content:
        yield Text.assemble((ASSISTANT, "bold magenta"), clean(event.message.content))
    wrote = (
        f"; the model wrote: {shortened(repr(event.text))}"
        if event.problem is not ParseProblem.NONE
        else ""
    )
    if event.stop_reason is StopReason.LENGTH:
        yield Text(f"  (cut off: evaluation.max_new_tokens reached{wrote})", "yellow")
    elif wrote:
        yield Text(f"  (could not be read: {event.problem.value}{wrote})", "yellow")


def _whole_call(call: ToolCall) -> str:
    """A call as it would stand in Python, a program in it as lines of its own."""
    values = {
        name: show(value) if _is_small(value) else repr(value)[:LONGEST_VALUE]
        for name, value in call.arguments.items()
    }
    for name, value in call.arguments.items():
        if isinstance(value, str) and "\n" in value.strip():
            values[name] = "\n" + indent(value.strip("\n")[:LONGEST_VALUE], "    | ") + "\n  "
    return (
        f"{call.name[:80]}({', '.join(f'{name[:80]}={value}' for name, value in values.items())})"
    )


def _is_small(value: Json) -> bool:
    return not isinstance(value, str | list | dict)
