"""How a call of a tool ends: `ToolStatus`, `ToolResult`, and `CallError` for a tool to raise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ToolStatus(StrEnum):
    """How a call or a program ended."""

    OK = "ok"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    """The arguments do not fit the schema; the function did not run."""
    ERROR = "error"
    """The tool raised, or its return value cannot be written as JSON."""
    TIMEOUT = "timeout"
    """The tool did not answer in time; of a program in the sandbox: it used up its CPU time."""
    UNREACHABLE = "unreachable"
    """No connection to the service behind the tool."""
    REFUSED = "refused"
    """The tool has no implementation here, is not allowed to run, or reached its limit of calls."""


BROKEN = (ToolStatus.TIMEOUT, ToolStatus.UNREACHABLE)
"""What the environment does and not the model, unless the failure was injected."""


class CallError(Exception):
    """A tool's function raises it to end its call with a status and a line for the model."""

    def __init__(self, outcome: ToolStatus, content: str) -> None:
        assert outcome is not ToolStatus.OK, content
        super().__init__(content)
        self.outcome = outcome


@dataclass(frozen=True)
class ToolResult:
    """The result of a call.

    content: what the model reads: a text as it is, other values as JSON, or a line about the error.
    value: the full value, also where `content` is cut; None unless OK. seconds: wall-clock time.
    recalled: a journal had the result, the tool did not run. injected: the kind of a failure that
    the world made up for the model to handle, or "".
    """

    outcome: ToolStatus
    content: str
    value: Any = None
    seconds: float = 0.0
    recalled: bool = field(default=False, compare=False)
    injected: str = ""


def to_text(value: Any) -> str:
    """Write a value as the model reads it: a text as it is, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def truncate(text: str, limit: int, total: int | None = None) -> str:
    """Cut a text to `limit` characters with a visible mark; `total` is its size before any cut."""
    size = len(text) if total is None else total
    if size <= limit:
        return text
    mark = f"… [cut: {size:,} characters in all]"
    return (text[: max(0, limit - len(mark))] + mark)[:limit]
