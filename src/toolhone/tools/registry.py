"""Tools that can be run: checks the arguments of a call, calls the function, and tells how it ended.

    @tool
    def area(width: float, height: float) -> float:
        "The area of a rectangle."
        return width * height

    registry = Registry(["calculator", area])
    registry.run(ToolCall("area", {"width": 2, "height": 3}))    # ToolResult(outcome=OK, content="6.0", ...)

A call never raises for what a model did or a tool's function did: both are told by `ToolResult`. Only a `UserError` goes
through (the sandbox cannot start, say): then no call would do better.

The functions of users run in this process, in threads, with all its rights; the built-in tools run model-written code in
`sandbox.py`. Arguments of a call are converted to the function's type hints (nested models, dataclasses, dates). What an experiment
file calls a tool is made in `loading.py`; recorded and cached results are in `journal.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, TypeVar, cast, overload

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from toolhone.errors import ConfigError, UserError, nearest
from toolhone.schema import Json, Tool, ToolCall
from toolhone.tools.coerce import Adapters, adapters_of, convert

F = TypeVar("F", bound=Callable[..., Any])
Source = Tool | Mapping[str, Json] | Callable[..., Json] | str
"""What a tool is made of: a tool, a tool object, a Python function, or the name of a built-in tool."""

TOOL_MARK = "__toolhone_tool__"
AT_ONCE_MARK = "__toolhone_at_once__"
"""On a function: `ToolLimits.at_once` where nothing else is said."""
_THREADS = 16


class ToolStatus(StrEnum):
    """How a call or a program ended."""

    OK = "ok"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    """The arguments do not fit the schema; the function was not called."""
    ERROR = "error"
    """The tool raised, or what it returned cannot be written as JSON."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """The tool has no implementation here, is not allowed to run, or was called too often."""


class CallError(Exception):
    """Raised by a tool's function to say how its call ended, and the line that the model reads."""

    def __init__(self, outcome: ToolStatus, content: str) -> None:
        assert outcome is not ToolStatus.OK, content
        super().__init__(content)
        self.outcome = outcome


@dataclass(frozen=True)
class ToolResult:
    """What a call came to. `content` is what the model reads: a text the tool returned, other values as JSON, or one line that
    says what was wrong. `value` is the whole value, also where `content` was cut; None unless OK. `seconds` is wall-clock time."""

    outcome: ToolStatus
    content: str
    value: Json = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ToolLimits:
    """Limits of one tool. None: those of the registry, and any number of calls. `max_calls` counts the calls in one registry.

    at_once: how many calls run at the same time in one registry; the others wait, and their waiting is no part of `timeout`.
    """

    timeout: float | None = None
    max_chars: int | None = None
    max_calls: int | None = None
    at_once: int | None = None


@dataclass(frozen=True)
class Implementation:
    """A function with the terms on which it is called; it may stand in the place of the function of a `Tool`.

    refusal: why it may not run here; empty when it may. definition: what its results depend on beside name and arguments.
    cache: whether results may be kept and used again. accepts: names of its arguments; None: as its signature says.
    """

    function: Callable[..., Json]
    limits: ToolLimits = ToolLimits()
    cache: bool = False
    refusal: str = ""
    definition: str = ""
    accepts: tuple[str, ...] | None = None

    def __call__(self, /, **arguments: Json) -> Json:
        if self.refusal:
            raise CallError(ToolStatus.REFUSED, self.refusal)
        return self.function(**arguments)


@dataclass(frozen=True)
class FinishedCall:
    """A call that has ended. `recalled`: a journal knew the result. `implementation`: what runs for the tool, if anything does."""

    call: ToolCall
    result: ToolResult
    recalled: bool
    implementation: Implementation | None


class Journal(Protocol):
    """Keeps what calls came to (`journal.py`). `answers_all`: its `recall` always has an answer, so that no tool is ever run."""

    answers_all: bool

    def recall(
        self, call: ToolCall, implementation: Implementation | None
    ) -> ToolResult | None: ...

    def note(self, made: FinishedCall) -> None: ...


class Registry:
    """The tools of a task or a run, by name.

    timeout: seconds that a call may take. A function that does not return in time yields TIMEOUT, but its thread is not ended: it
    goes on in the background, with what it holds, until it returns by itself. Code that may hang belongs into the sandbox.
    max_chars: longest `content` in characters; longer ones are cut with a visible mark.
    seed: seed of the built-in tools that have a world.
    journals: asked in their order before a tool runs, and told of every call.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        timeout: float = 10.0,
        max_chars: int = 4000,
        seed: int = 0,
        journals: Sequence[Journal] = (),
    ) -> None:
        self._entries: dict[str, _Entry] = {}
        self._timeout, self._max_chars, self._journals = timeout, max_chars, tuple(journals)
        self._calls, self._lock = Counter[str](), threading.Lock()
        for source in sources:
            tool = _builtin(source, seed) if isinstance(source, str) else Tool.of(source)
            if tool.name in self._entries:
                raise ConfigError(
                    f"two tools are named {tool.name!r}; give one of them another name"
                )
            self._entries[tool.name] = _Entry.of(tool)

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(entry.tool for entry in self._entries.values())

    @property
    def runnable(self) -> frozenset[str]:
        """Names of the tools whose calls get a result: an implementation that may run here, or a journal that answers all."""
        return frozenset(name for name, entry in self._entries.items() if not self._refusal(entry))

    def run(self, call: ToolCall) -> ToolResult:
        """Check the call and make it."""
        started = time.perf_counter()
        entry = self._entries.get(call.name)
        (outcome, content, value), recalled = (
            (self._unknown(call), False) if entry is None else self._answer(entry, call)
        )
        content = clipped(_readable(content), (entry and entry.limits.max_chars) or self._max_chars)
        result = ToolResult(outcome, content, value, time.perf_counter() - started)
        for journal in self._journals:
            journal.note(
                FinishedCall(
                    call, result, recalled, None if entry is None else entry.implementation
                )
            )
        return result

    def run_all(self, calls: Iterable[ToolCall]) -> list[ToolResult]:
        """Make the calls at the same time, up to 16 at once; the results are in the order of the calls."""
        todo = list(calls)
        if len(todo) < 2:
            return [self.run(call) for call in todo]
        with ThreadPoolExecutor(min(_THREADS, len(todo)), thread_name_prefix="tools") as pool:
            return list(pool.map(self.run, todo))

    def _unknown(self, call: ToolCall) -> _Ended:
        known = ", ".join(self._entries) or "none"
        return (
            ToolStatus.UNKNOWN_TOOL,
            f"there is no tool {call.name!r}{nearest(call.name, self._entries)}; tools: {known}",
            None,
        )

    def _answer(self, entry: _Entry, call: ToolCall) -> tuple[_Ended, bool]:
        """How the call ended, and whether a journal knew it."""
        if refusal := self._refusal(entry):
            return (ToolStatus.REFUSED, refusal, None), False
        if problems := entry.problems(call.arguments):
            told = "; ".join(clipped(problem, 300) for problem in problems[:3])
            return (ToolStatus.INVALID_ARGUMENTS, f"{call.name}: {told}", None), False
        if self._too_often(entry):
            told = f"tool {call.name!r} may be called {entry.limits.max_calls} times here, and has been"
            return (ToolStatus.REFUSED, told, None), False
        for journal in self._journals:
            if found := journal.recall(call, entry.implementation):
                return (found.outcome, found.content, found.value), True
        timeout = self._timeout if entry.limits.timeout is None else entry.limits.timeout
        with entry.gate:
            return _in_thread(functools.partial(entry.called, call.arguments), timeout), False

    def _refusal(self, entry: _Entry) -> str:
        if any(journal.answers_all for journal in self._journals):
            return ""
        if entry.implementation is None:
            return f"tool {entry.tool.name!r} cannot be run here: it has no implementation"
        return entry.implementation.refusal

    def _too_often(self, entry: _Entry) -> bool:
        """Count a call; whether it is one too many."""
        if entry.limits.max_calls is None:
            return False
        with self._lock:
            self._calls[entry.tool.name] += 1
            return self._calls[entry.tool.name] > entry.limits.max_calls


_Ended = tuple[ToolStatus, str, Json]
"""Outcome, content, value."""


@dataclass(frozen=True)
class _Entry:
    """A tool, what runs for it, and what that takes: the type of each parameter (None: any), or nothing known.

    `gate` is open for as many calls as may run at the same time.
    """

    tool: Tool
    implementation: Implementation | None
    accepts: Adapters | None
    gate: AbstractContextManager[object] = field(default_factory=nullcontext)

    @staticmethod
    def of(tool: Tool) -> _Entry:
        if tool.function is None:
            return _Entry(tool, None, None)
        made = (
            tool.function
            if isinstance(tool.function, Implementation)
            else Implementation(tool.function)
        )
        accepts = (
            adapters_of(made.function) if made.accepts is None else dict.fromkeys(made.accepts)
        )
        at_once = made.limits.at_once or getattr(made.function, AT_ONCE_MARK, None)
        return _Entry(
            tool, made, accepts, threading.Semaphore(at_once) if at_once else nullcontext()
        )

    @property
    def limits(self) -> ToolLimits:
        return ToolLimits() if self.implementation is None else self.implementation.limits

    def problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """What is wrong with these arguments: against the schema, and against what the function takes."""
        problems = self.tool.problems(arguments)
        if problems or self.accepts is None:
            return problems
        unknown = [name for name in arguments if name not in self.accepts]
        known = ", ".join(self.accepts) or "none"
        return [
            f"unknown argument {name!r}{nearest(name, self.accepts)}; arguments: {known}"
            for name in unknown
        ]

    def called(self, arguments: Mapping[str, Json]) -> _Ended:
        """Call the function with arguments converted to its types."""
        assert self.implementation is not None, self.tool.name
        try:
            converted = convert(self.accepts or {}, arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            return ToolStatus.INVALID_ARGUMENTS, f"{self.tool.name}: {where}: {first['msg']}", None
        return _result_of(functools.partial(self.implementation, **converted))


def _in_thread(work: Callable[[], _Ended], timeout: float) -> _Ended:
    """Work in a daemon thread; a thread that is late is left alone and its result is dropped."""
    ended: list[_Ended | UserError] = []
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=lambda: ended.append(context.run(_guarded, work)), daemon=True, name="tool"
    )
    thread.start()
    thread.join(timeout)
    if not ended:
        return ToolStatus.TIMEOUT, f"the tool did not answer within {timeout:g} s", None
    if isinstance(ended[0], UserError):
        raise ended[0]
    return ended[0]


def _guarded(work: Callable[[], _Ended]) -> _Ended | UserError:
    try:
        return work()
    except UserError as error:
        return error
    except CallError as error:
        return error.outcome, str(error), None
    except TimeoutError as error:
        return ToolStatus.TIMEOUT, str(error) or "the tool ran out of time", None
    except BaseException as error:  # SystemExit from a tool is that tool's error, not our end
        return ToolStatus.ERROR, _one_line(error), None


def _result_of(function: Callable[[], Json]) -> _Ended:
    value = function()
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    value = to_jsonable_python(value, inf_nan_mode="constants", fallback=_plain)
    return ToolStatus.OK, text_of(value), value


def text_of(value: Json) -> str:
    """What the model reads of a value: a text as it is, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Json:
    """An array as lists; other values that JSON cannot write are the tool's error."""
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"the tool returned a {type(value).__name__}, which JSON cannot write")


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception class of the tool's own, whose __str__ is broken
        text = ""
    return (
        text
        if text and isinstance(error, ValueError)
        else f"{type(error).__name__}: {text}".rstrip(": ")
    )


def _readable(text: str) -> str:
    """The text with lone surrogates, which no tokenizer takes, replaced by '?'."""
    return text.encode("utf-8", "replace").decode("utf-8")


def clipped(text: str, limit: int, total: int | None = None) -> str:
    """At most `limit` characters of a text, with a visible mark where it was cut; `total` is its size if part is cut already."""
    size = len(text) if total is None else total
    if size <= limit:
        return text
    mark = f"… [cut: {size:,} characters in all]"
    return (text[: max(0, limit - len(mark))] + mark)[:limit]


@overload
def tool(function: F) -> F: ...


@overload
def tool(*, name: str = "", description: str = "") -> Callable[[F], F]: ...


def tool(
    function: F | None = None, *, name: str = "", description: str = ""
) -> F | Callable[[F], F]:
    """Mark a function as a tool, so that `load_tools("file.py")` finds it; give it another name or description if wanted.

    Used as `@tool` or `@tool(name=..., description=...)`. The result is called as before. Nothing is registered anywhere.
    """
    if function is not None:
        return _marked(function, name, description)
    return lambda wrapped: _marked(wrapped, name, description)


def _marked(function: F, name: str, description: str) -> F:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapper.__name__ = name or function.__name__
    if description:
        _, arguments, notes = (inspect.getdoc(function) or "").partition("Args:")
        wrapper.__doc__ = f"{description}\n\n{arguments}{notes}"
    setattr(wrapper, TOOL_MARK, True)
    return cast(F, wrapper)


def _builtin(name: str, seed: int) -> Tool:
    from toolhone.tools.builtin import (
        builtin,  # here, because that module needs this one, and the sandbox with it
    )

    made = builtin(name, seed)
    assert made.function is not None, name
    return replace(
        made, function=Implementation(made.function, definition=f"built in: {name}, seed {seed}")
    )
