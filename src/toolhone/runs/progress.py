"""Progress of long work on standard error: a live display on a terminal, plain lines elsewhere.

with open_progress("auto") as progress:
    progress.start("training", total=1000)
    progress.advance(1, "loss 0.700")
    progress.report("Iteration 10/1000 | Loss: 0.71")
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich import progress as bars
from rich.console import Console

T = TypeVar("T")


@dataclass
class Progress:
    """Shows long work as `plain` lines or as a live `bar`, above which reports scroll; by default
    it shows nothing. Plain lines are the reports, and the state of work that takes long."""

    plain: bool = False
    bar: bars.Progress | None = None
    _task: bars.TaskID | None = field(default=None, init=False)
    _what, _total, _done, _next = "", 0, 0, 0.0

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Start a piece of work of `total` parts, `done` of which are complete."""
        self._what, self._total, self._done = what, total, done
        self._next = time.monotonic() + 10
        if self.bar is not None:
            if self._task is not None:
                self.bar.remove_task(self._task)
            self._task = self.bar.add_task(what, total=total, completed=done, note="")

    @contextmanager
    def inside(self, what: str, total: int) -> Iterator[None]:
        """Show a piece of work inside the current one, which goes on afterwards."""
        outer = self._what, self._total, self._done, self._task
        self._task = None
        self.start(what, total)
        try:
            yield
        finally:
            if self.bar is not None and self._task is not None:
                self.bar.remove_task(self._task)
            self._what, self._total, self._done, self._task = outer

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished parts; the bar shows `note`."""
        self._done += count
        if self.bar is not None and self._task is not None:
            self.bar.update(self._task, advance=count)
            if note:
                self.bar.update(self._task, note=note)
        elif self.plain and time.monotonic() >= self._next:
            self._next = time.monotonic() + 30
            self.report(f"{self._what}: {self._done}/{self._total}")

    def report(self, line: str) -> None:
        """Print a line that remains."""
        if self.bar is not None:
            self.bar.console.print(line, highlight=False, markup=False)
        elif self.plain:
            print(line, file=sys.stderr, flush=True)
            self._next = max(self._next, time.monotonic() + 10)


@contextmanager
def open_progress(kind: str = "auto") -> Iterator[Progress]:
    """Open a display of this kind: auto, rich, plain or off."""
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "plain"
    if kind != "rich":
        yield Progress(plain=kind == "plain")
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
        yield Progress(bar=bar)


def track(items: Iterable[T], progress: Progress, what: str, total: int) -> Iterator[T]:
    """Iterate over items and advance the progress."""
    progress.start(what, total)
    for item in items:
        yield item
        progress.advance()
