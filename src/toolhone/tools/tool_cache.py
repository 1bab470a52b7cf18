"""What calls of tools came to, on disk: a log of all, results kept for later, and a run on recorded results alone.

    Registry(tools, journals=[CallLog(path)])     # appends one line for each call
    Registry(tools, journals=[Cache(path)])       # a call of a tool with "cache": true (or of any: all_tools) is made once
    Registry(tools, journals=[Replay(path)])      # answers from a log or a cache; nothing runs

    {"time", "tool", "arguments", "outcome", "content", "seconds", "value"?, "replayed"?, "definition"?, "exact"?}

One JSON object a line, written whole. `value` stands where `content` does not say it all; with it a recorded result is the one
that the tool gave, to the last bit. What JSON cannot write (numbers that are not finite or too long, values nested too deeply) is
replaced by a text, and the line says `"exact": false`: it is for reading, and never answers a call.

A cache keeps results that are OK, by tool, arguments and definition (the address, the command, the source of the function): after a
change of those the tool is asked again. Files and services behind a tool may change unseen; that is why `cache` is said by tool. A
replay looks for tool and arguments, and the last record of a call counts. Its calls are checked as always, and end as ERROR where
nothing was recorded. Two calls at the same time may both be made before one is kept.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from toolhone.errors import DataError, RunError
from toolhone.schema import Json, ToolCall
from toolhone.tools.registry import FinishedCall, Implementation
from toolhone.tools.result import ToolResult, ToolStatus, to_text

MAX_DEPTH = 50
"""Values nested deeper are not kept."""
_REPLAYED = (ToolStatus.OK, ToolStatus.ERROR, ToolStatus.TIMEOUT, ToolStatus.INVALID_ARGUMENTS)


class CallLog:
    """Appends every call to a file; several threads, and several processes, may write to one."""

    answers_all = False

    def __init__(self, path: Path) -> None:
        self._lines = _Lines(path)

    def recall(self, call: ToolCall, implementation: Implementation | None) -> ToolResult | None:
        """Nothing: a log is only written."""

    def record(self, finished: FinishedCall) -> None:
        self._lines.append(
            _record(finished) | ({"replayed": True} if finished.from_journal else {})
        )


class Cache:
    """Results by tool, arguments and definition, in memory and in a file. `account` says what was found in the file."""

    answers_all = False

    def __init__(self, path: Path, all_tools: bool = False) -> None:
        self._lines, self._all, self._lock = _Lines(path), all_tools, threading.Lock()
        self._known: dict[str, str] = {}
        self.account = Account()
        for record in _read(path, self.account):
            if record.definition is None or record.result.outcome is not ToolStatus.OK:
                self.account.skipped["not from a cache"] += 1
            else:
                self._known[_key(record.tool, record.arguments, record.definition)] = json.dumps(
                    record.result.value
                )

    def recall(self, call: ToolCall, implementation: Implementation | None) -> ToolResult | None:
        key = self._key_of(call, implementation)
        if key not in self._known:
            return None
        value = json.loads(self._known[key])
        return ToolResult(ToolStatus.OK, to_text(value), value)

    def record(self, finished: FinishedCall) -> None:
        key = self._key_of(finished.call, finished.implementation)
        if (
            key is None
            or finished.result.outcome is not ToolStatus.OK
            or not _is_exact(finished.result.value)
        ):
            return
        with self._lock:
            if key in self._known:
                return
            self._known[key] = json.dumps(finished.result.value)
        assert finished.implementation is not None, finished.call.name
        self._lines.append(_record(finished) | {"definition": _digest(finished.implementation)})

    def _key_of(self, call: ToolCall, implementation: Implementation | None) -> str | None:
        if implementation is None or not (self._all or implementation.cache):
            return None
        arguments = _canonical(call.arguments)
        return None if arguments is None else _key(call.name, arguments, _digest(implementation))


class ReplayCache:
    """Answers every call from a log or a cache. `account` says what was found in the file."""

    answers_all = True

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(
                f"{path}: there is no such file to replay tool results from; a run with tool_results.log writes one"
            )
        self.account = Account()
        self._known: dict[tuple[str, str], ToolResult] = {}
        for record in _read(path, self.account):
            if record.result.outcome not in _REPLAYED:
                self.account.skipped[f"the call was {record.result.outcome}"] += 1
                continue
            if (record.tool, record.arguments) in self._known:
                self.account.skipped["recorded again later"] += 1
            self._known[record.tool, record.arguments] = record.result
        if self.account.read and not self._known:
            reasons = ", ".join(
                f"{reason}: {count}" for reason, count in self.account.skipped.items()
            )
            raise DataError(f"{path}: no line is a tool result that can be replayed ({reasons})")

    def recall(self, call: ToolCall, implementation: Implementation | None) -> ToolResult | None:  # noqa: ARG002
        arguments = _canonical(call.arguments)
        found = None if arguments is None else self._known.get((call.name, arguments))
        return found or ToolResult(
            ToolStatus.ERROR, f"no recorded result for this call of {call.name!r}"
        )

    def record(self, finished: FinishedCall) -> None:
        """Nothing: a replay is only read."""


@dataclass
class Account:
    """Lines read, and those not used, by reason; what is left was kept."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])

    @property
    def kept(self) -> int:
        return self.read - self.skipped.total()


@dataclass(frozen=True)
class _Record:
    tool: str
    arguments: str
    result: ToolResult
    definition: str | None


class _Lines:
    """A file to append whole lines to."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(max(0, file.tell() - 1))
                if file.read(1) not in (b"", b"\n"):
                    file.write(b"\n")  # the last line was cut off
        except OSError as error:
            raise RunError(
                f"{path}: tool results cannot be written there: {error.strerror or error}"
            ) from None

    def append(self, record: Mapping[str, Json]) -> None:
        line = (
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode(
                "utf-8", "backslashreplace"
            )
            + b"\n"
        )
        try:
            with self._lock, self._path.open("ab", buffering=0) as file:
                written = file.write(line)
        except OSError as error:
            raise RunError(
                f"{self._path}: a tool result was not written: {error.strerror or error}"
            ) from None
        if written != len(line):
            raise RunError(f"{self._path}: a tool result was not written whole; is the disk full?")


def _record(finished: FinishedCall) -> dict[str, Json]:
    call, result = finished.call, finished.result
    arguments = {name: _or_words(value) for name, value in call.arguments.items()}
    record: dict[str, Json] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tool": call.name,
        "arguments": arguments,
        "outcome": result.outcome.value,
        "content": result.content,
        "seconds": round(result.seconds, 6),
    }
    if result.outcome is ToolStatus.OK and result.value != result.content:
        record["value"] = _or_words(result.value)
    if _canonical(call.arguments) is None or not _is_exact(result.value):
        record["exact"] = False
    return record


def _is_exact(value: Json) -> bool:
    """Whether strict JSON can write the value, and every reader can read it."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return False
    return _is_shallow(value, MAX_DEPTH)


def _is_shallow(value: Json, left: int) -> bool:
    inner = (
        value.values()
        if isinstance(value, Mapping)
        else value
        if isinstance(value, list | tuple)
        else ()
    )
    return left > 0 and all(_is_shallow(each, left - 1) for each in inner)


def _or_words(value: Json) -> Json:
    return (
        value
        if _is_exact(value)
        else f"(a value of type {type(value).__name__} that is not written as JSON)"
    )


def _canonical(arguments: Mapping[str, Json]) -> str | None:
    """One text for equal arguments, whatever their order; None where they cannot be written."""
    if not all(_is_exact(value) for value in arguments.values()):
        return None
    return json.dumps(dict(arguments), sort_keys=True, separators=(",", ":"))


def _key(tool: str, arguments: str, definition: str) -> str:
    return json.dumps([tool, arguments, definition])


def _digest(implementation: Implementation) -> str:
    definition = implementation.definition or source_of(implementation.function)
    return sha256(definition.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def source_of(function: Callable[..., Json]) -> str:
    """What tells one version of a function from another: its name and, where it can be had, its source."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    try:
        return f"{name}\n{inspect.getsource(function)}"
    except (OSError, TypeError):
        return name


def _read(path: Path, account: Account) -> Iterator[_Record]:
    """The exact records of a file; others are counted."""
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                account.read += 1
                record = _parsed(line)
                if isinstance(record, _Record):
                    yield record
                else:
                    account.skipped[record] += 1
    except OSError as error:
        raise DataError(
            f"{path}: the tool results cannot be read: {error.strerror or error}"
        ) from None


def _parsed(line: bytes) -> _Record | str:
    """A record, or the reason why this line is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    try:
        outcome, content, definition = (
            ToolStatus(record["outcome"]),
            record["content"],
            record.get("definition"),
        )
        tool, arguments = record["tool"], _canonical(record["arguments"])
        value = record.get("value", content) if outcome is ToolStatus.OK else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return "not a tool result"
    if (
        not isinstance(tool, str)
        or not isinstance(content, str)
        or not isinstance(definition, str | None)
    ):
        return "not a tool result"
    if arguments is None or record.get("exact") is False:
        return "not exact"
    return _Record(
        tool,
        arguments,
        ToolResult(outcome, to_text(value) if outcome is ToolStatus.OK else content, value),
        definition,
    )
