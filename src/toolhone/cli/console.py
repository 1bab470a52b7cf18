"""What a person sees: tables, evaluations, the events of a conversation, and a terminal to chat on.

Text that a model or a tool wrote never controls the terminal: `clean` replaces control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from textwrap import indent

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolhone.backends.base import StopReason
from toolhone.config.user_code import USER_CODE
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.chat_session import Event
from toolhone.episodes.policy import Turn
from toolhone.evaluation.display import (
    GROUP_OF,
    clean,
    legacy_table,
    metrics_table,
    mismatches,
    predictions,
    shorten,
    spread,
)
from toolhone.evaluation.legacy_metrics import known_metrics
from toolhone.evaluation.metrics import Evaluation
from toolhone.rewards.matching import show
from toolhone.tools.result import ToolStatus

WIDTH = 200
"""Columns when standard output is no terminal, so that tables are not cut."""
YOU, ASSISTANT = "you        ", "assistant  "
LONGEST_VALUE = 2000
"""Characters of an argument that are shown."""


def console() -> Console:
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    title: str | None = None,
    right: Sequence[str] = (),
    lines: bool = False,
) -> None:
    """Print rows under headings; the columns in `right` are aligned to the right."""
    table = Table(title=title, title_justify="left", show_lines=lines)
    for heading in headings:
        side = "right" if heading in right else "left"
        table.add_column(heading, overflow="fold", justify=side)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(table)


def print_note(text: str) -> None:
    """Print a remark to standard error, so that standard output holds results alone."""
    print(text, file=sys.stderr)


def show_evaluation(
    evaluation: Evaluation, count: int, metrics: Sequence[str] = (), dialect: str | None = None
) -> None:
    """Print the metrics (all, or those that an experiment names), `count` predictions and `count`
    mismatches, and the metrics that another system has for the dialect."""
    out = console()
    own = [name.rpartition(":")[2] for name in metrics if USER_CODE.fullmatch(name)]
    known = known_metrics([name for name in metrics if not USER_CODE.fullmatch(name)])
    out.print(metrics_table(evaluation, [*known, *own]))
    if count:
        out.print(predictions(evaluation, count))
        shown = {sample.id for sample in spread(evaluation, count)}
        out.print(mismatches(evaluation, count, shown))
    if dialect in GROUP_OF:
        out.print(legacy_table(evaluation, [GROUP_OF[dialect]]))


def show_event(event: Event) -> None:
    """Print one event of a conversation; in colours on a terminal."""
    out = Console(highlight=False, markup=False)
    for line in event_lines(event):
        if out.is_terminal:
            out.print(line, soft_wrap=not line.plain.startswith(ASSISTANT))
        else:
            print(line.plain)


def event_lines(event: Event) -> Iterator[Text]:
    """Yield the lines that show a model's turn, or a call with its result."""
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
        values = {}
        for name, value in call.arguments.items():
            if isinstance(value, str) and "\n" in value.strip():  # a program, on its own lines
                lines = indent(value.strip("\n")[:LONGEST_VALUE], "    | ")
                values[name] = f"\n{lines}\n  "
            elif isinstance(value, str | list | dict):
                values[name] = repr(value)[:LONGEST_VALUE]
            else:
                values[name] = show(value)
        arguments = ", ".join(f"{name[:80]}={value}" for name, value in values.items())
        written = clean(f"{call.name[:80]}({arguments})")
        yield Text.assemble(("  calls ", "dim"), (written, "cyan"))
    if event.message.content:
        yield Text.assemble((ASSISTANT, "bold magenta"), clean(event.message.content))
    wrote = ""
    if event.problem is not ParseProblem.NONE:
        wrote = f"; the model wrote: {shorten(repr(event.text))}"
    if event.stop_reason is StopReason.LENGTH:
        yield Text(f"  (cut off: evaluation.max_new_tokens reached{wrote})", "yellow")
    elif wrote:
        yield Text(f"  (could not be read: {event.problem.value}{wrote})", "yellow")


class Terminal:
    """Standard input and output of a chat, whether they are a terminal or not.

    Remarks of the program are dimmed on a terminal; elsewhere they go to standard error, so that
    standard output holds the conversation alone. `readline` edits lines where Python has it."""

    event = staticmethod(show_event)

    def __init__(self) -> None:
        self._out = Console(highlight=False, markup=False)
        self.types = sys.stdin.isatty()
        self.live = self.types and self._out.is_terminal

    def note(self, text: str) -> None:
        """Print a remark of the program."""
        if self.live:
            self.show(text, "dim")
        else:
            print_note(clean(text))

    def show(self, text: str, style: str = "") -> None:
        """Print lines that the person asked for."""
        if self.live:
            self._out.print(Text(clean(text), style))
        else:
            print(clean(text))

    def raw(self, text: str) -> None:
        """Print a text without line breaks of our own."""
        print(clean(text))

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Show a spinner, on a terminal."""
        words = "[dim]thinking (Ctrl-C stops the answer)[/]"
        spinner = self._out.status(words, spinner="dots", spinner_style="magenta")
        with spinner if self.live else nullcontext():
            yield

    def echo(self, text: str) -> None:
        """Print a line that was not typed here as if it had been."""
        print(f"{YOU}{clean(text)}")

    def lines(self, completions: Sequence[str] = ()) -> Iterator[str]:
        """Yield the lines that the person types, until the end of input; Ctrl-C clears the line."""
        prompt = ""
        if self.types:
            edits = edit_lines(completions)
            # \x01 and \x02 keep the line editor from counting the colours
            prompt = f"\x01\x1b[1;34m\x02{YOU}\x01\x1b[0m\x02" if self.live and edits else YOU
        while True:
            try:
                text = input(prompt)
            except EOFError:
                if self.types:
                    print()
                return
            except KeyboardInterrupt:
                if not self.types:
                    raise
                print()
                self.note("Ctrl-D or an empty line ends the chat")
                continue
            if not self.types and text.strip():
                self.echo(text)
            yield text


def edit_lines(completions: Sequence[str]) -> bool:
    """Switch on arrow keys, history and Tab completion; return whether Python has `readline`."""
    try:
        import readline
    except ImportError:
        return False

    def complete(text: str, state: int) -> str | None:
        return next(islice((w for w in completions if w.startswith(text)), state, None), None)

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    return True
