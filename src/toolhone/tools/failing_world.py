"""Failures that a world makes up, so that a model learns to recover: by rate and kind, seeded.

    FailingWorld(world, Failures(rate=0.2, kinds=("timeout", "rate_limit")), key=task.id)

Whether a call fails depends on the seed, the key (a task), the call, and how often it was made. A
call that fails has no effect, and fails at most `MOST_IN_A_ROW` times, so a retry is always safe.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.worlds import World, WorldError, draw

MOST_IN_A_ROW = 2
"""Times that one call fails before it goes through."""


class FailureKind(StrEnum):
    """What happens in place of a call."""

    TIMEOUT = "timeout"
    """The model reads that the tool did not answer in time."""
    ERROR = "error"
    """An internal error."""
    RATE_LIMIT = "rate_limit"
    """Too many requests."""
    EMPTY = "empty"
    """An answer without content."""
    MALFORMED = "malformed"
    """The beginning of an answer in JSON."""
    SLOW = "slow"
    """The right answer, `slow_seconds` later."""
    BROKEN = "broken"
    """The world itself breaks: the episode is left out of training."""


DEFAULT_KINDS = ("timeout", "error", "rate_limit", "empty", "malformed")
_RESULTS: Mapping[FailureKind, ToolResult] = {
    kind: ToolResult(status, text, injected=kind.value)
    for kind, status, text in (
        (FailureKind.TIMEOUT, ToolStatus.TIMEOUT, "the tool did not answer in time"),
        (FailureKind.ERROR, ToolStatus.ERROR, "internal error"),
        (FailureKind.RATE_LIMIT, ToolStatus.ERROR, "too many requests, try again"),
        (FailureKind.EMPTY, ToolStatus.OK, ""),
        (FailureKind.MALFORMED, ToolStatus.OK, '{"result": ['),
    )
}


@dataclass(frozen=True)
class Failures:
    """How often calls fail, and how. A kind is drawn from `kinds` for each failure."""

    rate: float = 0.0
    kinds: tuple[str, ...] = DEFAULT_KINDS
    slow_seconds: float = 0.5

    @staticmethod
    def of(source: Mapping[str, Json], where: str) -> Failures:
        """Read `{"rate", "kinds"?, "slow_seconds"?}`; `ConfigError` at `where`."""
        known, kinds = list(Failures.__dataclass_fields__), [kind.value for kind in FailureKind]
        for key in source:
            if key not in known:
                right = f"{nearest(key, known)}; known: {', '.join(known)}"
                raise ConfigError(f"{where} has an unknown key {key!r}{right}")
        found = Failures(**{**source, "kinds": tuple(source.get("kinds") or DEFAULT_KINDS)})
        for key in ("rate", "slow_seconds"):
            value, most = getattr(found, key), 1.0 if key == "rate" else 60.0
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ConfigError(f"{where}: {key!r} must be from 0 to {most:g}, got {value!r:.40}")
        for kind in found.kinds:
            if kind not in kinds:
                right = f"{nearest(str(kind), kinds)}; known: {', '.join(kinds)}"
                raise ConfigError(f"{where}: there is no kind of failure {kind!r}{right}")
        return found


class FailingWorld:
    """A world some of whose calls fail. `in_order`, since a failure depends on earlier calls."""

    in_order = True

    def __init__(self, world: World, failures: Failures, key: str = "") -> None:
        self._world, self._failures, self._key = world, failures, key
        self._made, self._seed = Counter[str](), 0

    def reset(self, seed: int) -> None:
        self._world.reset(seed)
        self._made, self._seed = Counter[str](), seed

    def call(self, call: ToolCall) -> ToolResult:
        name = repr(call.to_dict())
        times = self._made[name]
        self._made[name] += 1
        chance = draw(self._seed, self._key, call.to_dict(), times)
        if chance.random() >= self._failures.rate or times >= MOST_IN_A_ROW:
            return self._world.call(call)
        kind = FailureKind(chance.choice(self._failures.kinds))
        if kind is FailureKind.BROKEN:
            raise WorldError(f"the world broke at a call of {call.name!r} (an injected failure)")
        if kind is FailureKind.SLOW:
            time.sleep(self._failures.slow_seconds)
            return self._world.call(call)
        return _RESULTS[kind]

    def state(self) -> dict[str, Json] | None:
        return self._world.state()

    def describe(self) -> str:
        kinds = ", ".join(self._failures.kinds)
        return f"{self._world.describe()}; {self._failures.rate:.0%} of calls fail: {kinds}"
