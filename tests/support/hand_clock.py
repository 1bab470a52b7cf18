"""A clock of the driver that stands still until a test moves it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from toolhone.episodes.driver import Clock


class HandClock(Clock):
    def __init__(self) -> None:
        self.moment, self._waits, self._lock = 0.0, threading.Event(), threading.Lock()
        super().__init__(lambda: self.moment)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        with super().on(name):
            if name != "tools":
                yield
                return
            self._waits.set()
            try:
                yield
            finally:
                with self._lock:
                    self._waits.clear()

    def move(self, seconds: float) -> None:
        self.moment += seconds

    def move_while_tools_run(self, seconds: float) -> None:
        """Move it from a tool, at a moment when the driver waits for tools."""
        while True:
            assert self._waits.wait(60), "the driver never waited for tools"
            with self._lock:
                if self._waits.is_set():
                    self.move(seconds)
                    return
