"""Results of tool calls on disk: a log of all, a cache, and replay from recorded results.

A line is {"time", "tool", "arguments", "outcome", "content", "seconds"}, with "value" where it
differs from the content. A line with "exact": false holds a value that JSON cannot write as a text;
it never answers a call.
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
from toolhone.runs.run import writing
from toolhone.schema import Json, ToolCall
from toolhone.tools.registry import Implementation, Journal
from toolhone.tools.result import ToolResult, ToolStatus, to_text

MAX_DEPTH = 50
"""Values nested deeper are not kept."""
_REPLAYED = (ToolStatus.OK, ToolStatus.ERROR, ToolStatus.TIMEOUT, ToolStatus.INVALID_ARGUMENTS)


class CallLog(Journal):
    """Appends every call to a file; threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(max(0, file.tell() - 1))
                if file.read(1) not in (b"", b"\n"):
                    file.write(b"\n")  # the last line was cut off

    def record(self, call: ToolCall, result: ToolResult, own: Implementation | None) -> None:
        self.append(_to_dict(call, result) | ({"replayed": True} if result.recalled else {}))

    def append(self, line: Mapping[str, Json]) -> None:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode("utf-8", "backslashreplace")
        with writing(self._path), self._lock, self._path.open("ab", buffering=0) as file:
            size = file.write(data)
        if size != len(data):
            raise RunError(f"{self._path}: a tool result was cut off; is the disk full?")


class Cache(Journal):
    """OK results by tool, arguments and definition (address, command, source of the function)."""

    def __init__(self, path: Path, all_tools: bool = False) -> None:
        self._log, self._all, self._lock = CallLog(path), all_tools, threading.Lock()
        self._known: dict[str | None, str] = {}
        self.account = Account()
        for entry in _read(path, self.account):
            if entry.definition is None or entry.result.outcome is not ToolStatus.OK:
                self.account.skipped["not from a cache"] += 1
            else:
                key = json.dumps([entry.tool, entry.arguments, entry.definition])
                self._known[key] = json.dumps(entry.result.value)

    def recall(self, call: ToolCall, own: Implementation | None) -> ToolResult | None:
        known = self._known.get(self._key_of(call, own))
        value = None if known is None else json.loads(known)
        return None if known is None else ToolResult(ToolStatus.OK, to_text(value), value)

    def record(self, call: ToolCall, result: ToolResult, own: Implementation | None) -> None:
        key = self._key_of(call, own)
        if key is None or result.outcome is not ToolStatus.OK or not _is_exact(result.value):
            return
        with self._lock:
            if key in self._known:
                return
            self._known[key] = json.dumps(result.value)
        self._log.append(_to_dict(call, result) | {"definition": json.loads(key)[-1]})

    def _key_of(self, call: ToolCall, own: Implementation | None) -> str | None:
        """The tool, the arguments and a digest of the definition; None for what is not kept."""
        arguments = _canonical(call.arguments)
        if arguments is None or own is None or not (self._all or own.cache):
            return None
        definition = own.definition or source_of(own.function)
        digest = sha256(definition.encode("utf-8", "backslashreplace")).hexdigest()[:32]
        return json.dumps([call.name, arguments, digest])


class ReplayCache(Journal):
    """Answers every call from a log or a cache; the last record of a call counts."""

    answers_all = True

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            right = "a run with tool_results.log writes one"
            raise DataError(f"{path}: no such file to replay tool results from; {right}")
        self.account = Account()
        self._known: dict[tuple[str, str], ToolResult] = {}
        skipped = self.account.skipped
        for entry in _read(path, self.account):
            if entry.result.outcome not in _REPLAYED:
                skipped[f"the call was {entry.result.outcome}"] += 1
                continue
            if (entry.tool, entry.arguments) in self._known:
                skipped["recorded again later"] += 1
            self._known[entry.tool, entry.arguments] = entry.result
        if self.account.read and not self._known:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
            raise DataError(f"{path}: no line is a tool result that can be replayed ({reasons})")

    def recall(self, call: ToolCall, own: Implementation | None) -> ToolResult | None:
        arguments = _canonical(call.arguments)
        found = None if arguments is None else self._known.get((call.name, arguments))
        missing = f"no recorded result for this call of {call.name!r}"
        return found or ToolResult(ToolStatus.ERROR, missing)


@dataclass
class Account:
    """Number of lines in a file, and of those not used, by reason."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])

    @property
    def kept(self) -> int:
        return self.read - self.skipped.total()


def _to_dict(call: ToolCall, result: ToolResult) -> dict[str, Json]:
    def describe(value: Json) -> Json:
        what = f"(a value of type {type(value).__name__} that is not written as JSON)"
        return value if _is_exact(value) else what

    line: dict[str, Json] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tool": call.name,
        "arguments": {name: describe(value) for name, value in call.arguments.items()},
        "outcome": result.outcome.value,
        "content": result.content,
        "seconds": round(result.seconds, 6),
    }
    if result.outcome is ToolStatus.OK and result.value != result.content:
        line["value"] = describe(result.value)
    if _canonical(call.arguments) is None or not _is_exact(result.value):
        line["exact"] = False
    return line


def _is_exact(value: Json, depth: int = 0) -> bool:
    """Whether strict JSON can write the value, and every reader can read it."""
    if depth == 0:
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            return False
    parts = value.values() if isinstance(value, Mapping) else value
    nested = isinstance(value, Mapping | list | tuple)
    return depth < MAX_DEPTH and (not nested or all(_is_exact(part, depth + 1) for part in parts))


def _canonical(arguments: Mapping[str, Json]) -> str | None:
    """Return one text for equal arguments in any order; None where JSON cannot write them."""
    if not all(_is_exact(value) for value in arguments.values()):
        return None
    return json.dumps(dict(arguments), sort_keys=True, separators=(",", ":"))


def source_of(function: Callable[..., Json]) -> str:
    """Return what identifies a version of a function: its name and, where available, its source."""
    qualified = getattr(function, "__qualname__", type(function).__qualname__)
    name = f"{getattr(function, '__module__', '')}.{qualified}"
    try:
        return f"{name}\n{inspect.getsource(function)}"
    except (OSError, TypeError):
        return name


@dataclass(frozen=True)
class _CacheEntry:
    tool: str
    arguments: str
    result: ToolResult
    definition: str | None


def _read(path: Path, account: Account) -> Iterator[_CacheEntry]:
    """Yield the exact entries of a file; count the other lines."""
    try:
        lines = list(filter(bytes.strip, path.read_bytes().split(b"\n")))
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot read the tool results: {reason}") from None
    for line in lines:
        account.read += 1
        entry = _parse(line)
        if isinstance(entry, _CacheEntry):
            yield entry
        else:
            account.skipped[entry] += 1


def _parse(line: bytes) -> _CacheEntry | str:
    """Return the entry of a line, or the reason why it has none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    try:
        outcome, tool, content = ToolStatus(data["outcome"]), data["tool"], data["content"]
        arguments, definition = _canonical(data["arguments"]), data.get("definition")
        if not isinstance(tool, str) or not isinstance(content, str):
            raise TypeError
        if not isinstance(definition, str | None):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        return "not a tool result"
    if arguments is None or data.get("exact") is False:
        return "not exact"
    result = ToolResult(outcome, content)
    if outcome is ToolStatus.OK:
        value = data.get("value", content)
        result = ToolResult(outcome, to_text(value), value)
    return _CacheEntry(tool, arguments, result, definition)
