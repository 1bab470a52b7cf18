"""Where wall time goes: `with clock.on("sample"): ...`, then `clock.take()`.

Time inside a nested activity counts there alone, so all times together are the time that passed.
One thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by activity. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._since = now, 0.0
        self._seconds: dict[str, float] = {}
        self._active: list[str] = []

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time inside, except that of nested activities."""
        self._count()
        self._active.append(name)
        try:
            yield
        finally:
            self._count()
            self._active.pop()

    def take(self) -> dict[str, float]:
        """Seconds by activity since the last call."""
        self._count()
        taken, self._seconds = self._seconds, {}
        return taken

    def _count(self) -> None:
        """Count the time since the last change for the innermost activity."""
        now = self._now()
        if self._active:
            name = self._active[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now
