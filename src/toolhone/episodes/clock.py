"""Where wall time goes: `with clock.on("sample"): ...`.

    clock = Clock()
    with clock.on("sample"):
        with clock.on("tools"):        # stops the time of "sample" until it is left
            ...
    clock.take()                       # {"sample": 1.2, "tools": 0.3}

What is inside something else is counted there alone, so that all times together are the time that passed inside the outermost. One
thread only: what other threads do at the same time is not seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by what was done in them. `now` tells the time, in seconds from anywhere."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._since = now, 0.0
        self._seconds: dict[str, float] = {}
        self._doing: list[str] = []

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time until this is left, but for what is counted inside of it."""
        self._count()
        self._doing.append(what)
        try:
            yield
        finally:
            self._count()
            self._doing.pop()

    def take(self) -> dict[str, float]:
        """Seconds by what was done, since the last call."""
        self._count()
        taken, self._seconds = self._seconds, {}
        return taken

    def _count(self) -> None:
        """Give the time since the last look to what is being done."""
        now = self._now()
        if self._doing:
            what = self._doing[-1]
            self._seconds[what] = self._seconds.get(what, 0.0) + now - self._since
        self._since = now
