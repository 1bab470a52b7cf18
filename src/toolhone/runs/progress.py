"""Progress of long work on standard error: a live display on a terminal, plain lines elsewhere.

with open_progress("auto") as progress:
    progress.start("training", total=1000)
    progress.advance(1, "loss 0.700")
    progress.report("Iteration 10/1000 | Loss 0.71")
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress as bars
from rich.console import Console

T = TypeVar("T")


class Progress:
    """Shows long work; this one shows nothing."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Start a piece of work of `total` parts, `done` of which are complete."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished parts; the bar shows `note`."""

    def report(self, line: str) -> None:
        """Print a line that remains."""


class SilentProgress(Progress):
    """Shows nothing."""


class PlainProgress(Progress):
    """Prints each report, and the state of work that takes long."""

    def __init__(self) -> None:
        self._what, self._total, self._done, self._next = "", 0, 0, 0.0

    def start(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done = what, total, done
        self._next = time.monotonic() + 10

    def advance(self, count: int = 1, note: str = "") -> None:  # noqa: ARG002 (the note is for the live display)
        self._done += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 30
            self.report(f"{self._what}: {self._done}/{self._total}")

    def report(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._next = max(self._next, time.monotonic() + 10)


class LiveProgress(Progress):
    """A rich bar with elapsed time, remaining time and a note; reports scroll above it."""

    def __init__(self, bar: bars.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, note="", visible=False)

    def start(self, what: str, total: int, done: int = 0) -> None:
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        self._bar.update(self._task, advance=count)
        if note:
            self._bar.update(self._task, note=note)

    def report(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def open_progress(kind: str = "auto") -> Iterator[Progress]:
    """Open a display of this kind: auto, rich, plain or off."""
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "plain"
    if kind != "rich":
        yield PlainProgress() if kind == "plain" else SilentProgress()
        return
    columns = (
        bars.TextColumn("[bold]{task.description}"),
        bars.BarColumn(bar_width=28),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("ETA"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        yield LiveProgress(bar)


def track(items: Iterable[T], progress: Progress, what: str, total: int) -> Iterator[T]:
    """Iterate over items and advance the progress."""
    progress.start(what, total)
    for item in items:
        yield item
        progress.advance()
