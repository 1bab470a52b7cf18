"""The world `replay`: the results that a conversation or a log recorded.

    ReplayWorld(recorded_calls(conversation.messages), "nearest")

A call that was recorded several times gets its results in their order, and then the last one
again. `unrecorded` says what a call gets that was never recorded: an error, the result of the
nearest recorded call of its tool, or a simulated one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Message, ToolCall
from toolhone.schema.message import answered_calls
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.worlds import World

POLICIES = ("error", "nearest", "simulate")
Recording = tuple[ToolCall, ToolResult]


def recorded_calls(messages: Sequence[Message]) -> list[Recording]:
    """The calls of a conversation that have a result, in their order."""
    found = []
    for (place, number), message in answered_calls(messages):
        content = message.content or ""
        result = ToolResult(ToolStatus.OK, content, content)
        found.append((messages[place].tool_calls[number], result))
    return found


def recordings_of(source: Iterable[Mapping[str, Json]], where: str) -> list[Recording]:
    """Read `{"tool", "arguments", "content", "outcome"?}` of a task's world; `DataError` at
    `where`."""
    found = []
    for number, entry in enumerate(source, start=1):
        try:
            call = ToolCall(str(entry["tool"]), dict(entry.get("arguments") or {}))
            status = ToolStatus(entry.get("outcome", "ok"))
            content = str(entry["content"])
        except (KeyError, TypeError, ValueError) as error:
            right = "a recorded call has 'tool', 'arguments', 'content' and maybe 'outcome'"
            raise DataError(f"{where}: recorded call {number}: {error}; {right}") from None
        found.append((call, ToolResult(status, content, content)))
    return found


def recording_dicts(recordings: Iterable[Recording]) -> list[dict[str, Json]]:
    """Write recorded calls for a task's world."""
    return [
        {"tool": call.name, "arguments": dict(call.arguments), "content": result.content}
        | ({} if result.outcome is ToolStatus.OK else {"outcome": result.outcome.value})
        for call, result in recordings
    ]


class ReplayWorld:
    """Recorded results. `others` answers calls that were not recorded, under `simulate`."""

    in_order = True

    def __init__(
        self,
        recordings: Sequence[Recording],
        unrecorded: str = "error",
        others: World | None = None,
    ) -> None:
        if unrecorded not in POLICIES:
            right = f"{nearest(unrecorded, POLICIES)}; known: {', '.join(POLICIES)}"
            raise DataError(f"'unrecorded' of a replay is {unrecorded!r}{right}")
        self._unrecorded, self._others = unrecorded, others
        self._known: dict[str, list[Recording]] = {}
        for call, result in recordings:
            self._known.setdefault(_key(call), []).append((call, result))
        self._made = Counter[str]()

    def reset(self, seed: int) -> None:
        self._made = Counter[str]()
        if self._others is not None:
            self._others.reset(seed)

    def call(self, call: ToolCall) -> ToolResult:
        key = _key(call)
        if key not in self._known and self._unrecorded == "simulate" and self._others is not None:
            return self._others.call(call)
        if key not in self._known and self._unrecorded == "nearest":
            key = self._nearest(call) or key
        found = self._known.get(key)
        if found is None:
            missing = f"no recorded result for this call of {call.name!r}"
            return ToolResult(ToolStatus.ERROR, missing)
        place = min(self._made[key], len(found) - 1)
        self._made[key] += 1
        return found[place][1]

    def _nearest(self, call: ToolCall) -> str | None:
        """The key of the recorded call of the same tool with the most equal arguments."""

        def equal(key: str) -> int:
            own = self._known[key][0][0].arguments
            return sum(name in own and own[name] == value for name, value in call.arguments.items())

        keys = [key for key, found in self._known.items() if found[0][0].name == call.name]
        return max(keys, key=equal, default=None)

    def state(self) -> None:
        return None

    def describe(self) -> str:
        calls = sum(map(len, self._known.values()))
        return f"replay: {calls} recorded calls; others: {self._unrecorded}"


def _key(call: ToolCall) -> str:
    return json.dumps([call.name, dict(call.arguments)], sort_keys=True, default=str)
