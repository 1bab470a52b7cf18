"""The tools of a task or a run: checks the arguments of a call and runs its function.

    registry = Registry(["calculator", area])    # a built-in tool and a Python function
    registry.run(ToolCall("area", {"width": 2, "height": 3}))    # ToolResult(OK, "6.0", ...)

Functions of users run in threads of this process; built-in tools run code in `sandbox.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import to_jsonable_python

from toolhone.errors import ConfigError, UserError, nearest
from toolhone.schema import Json, Tool, ToolCall
from toolhone.tools.result import CallError, ToolResult, ToolStatus, to_text, truncate

F = TypeVar("F", bound=Callable[..., Any])
Source = Tool | Mapping[str, Json] | Callable[..., Json] | str
"""A tool, a tool object, a Python function, or the name of a built-in tool."""
Adapters = Mapping[str, TypeAdapter[Any] | None]
"""The type of each parameter by name; None accepts any value."""
TOOL_MARK = "__toolhone_tool__"
_THREADS = 16


@dataclass(frozen=True)
class ToolLimits:
    """Limits of one tool in one registry; None means the registry's limit.

    at_once: calls that run at the same time; others wait, which `timeout` does not count.
    """

    timeout: float | None = None
    max_chars: int | None = None
    max_calls: int | None = None
    at_once: int | None = None


@dataclass(frozen=True)
class Implementation:
    """A function with the terms of its calls, to use as the function of a `Tool`.

    cache: whether results may be reused. refusal: why it may not run here, or "". definition: what
    its results depend on beside name and arguments. accepts: its arguments; None reads its
    signature.
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


class Journal:
    """Keeps the results of calls (`tool_cache.py`); this one keeps none.

    `answers_all`: `recall` always answers, so no tool runs.
    """

    answers_all = False

    def recall(self, call: ToolCall, own: Implementation | None) -> ToolResult | None:
        """The kept result of a call of the tool with this implementation."""

    def record(self, call: ToolCall, result: ToolResult, own: Implementation | None) -> None:
        """Keep the result of a call."""


class Registry:
    """The tools of a task or a run, by name. A call never raises, except for a `UserError`.

    timeout: seconds per call; the thread of a late function runs on until it returns. max_chars:
    longest `content`. seed: of `weather` and `search`. journals: asked in order before a tool runs;
    each records every call. runnable: names of the tools whose calls get a result, from an
    implementation or a journal; refusals: why the others cannot run.
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
        self._counts, self._lock = Counter[str](), threading.Lock()
        for source in sources:
            tool = builtin_tool(source, seed) if isinstance(source, str) else Tool.of(source)
            if tool.name in self._entries:
                right = "give one of them another name"
                raise ConfigError(f"two tools are named {tool.name!r}; {right}")
            self._entries[tool.name] = _Entry.of(tool)
        entries, is_answered = self._entries.items(), any(one.answers_all for one in journals)
        self.tools = tuple(entry.tool for _, entry in entries)
        refusals = {name: entry.own.refusal for name, entry in entries if entry.own.refusal}
        self.refusals = {} if is_answered else refusals
        self.runnable = frozenset(name for name, _ in entries if name not in self.refusals)

    def run(self, call: ToolCall) -> ToolResult:
        """Check the call and make it."""
        start, entry = time.perf_counter(), self._entries.get(call.name)
        result, own = self._refuse(call, entry), entry.own if entry else None
        limits = own.limits if own else ToolLimits()
        if entry is not None and result is None:
            found = (journal.recall(call, own) for journal in self._journals)
            result = next((replace(each, recalled=True) for each in found if each), None)
            if result is None:
                timeout = self._timeout if limits.timeout is None else limits.timeout
                with entry.gate:
                    result = _in_thread(functools.partial(entry.call, call.arguments), timeout)
        assert result is not None, call.name
        # A lone surrogate, which no tokenizer accepts, becomes "?".
        content = result.content.encode("utf-8", "replace").decode("utf-8")
        content = truncate(content, limits.max_chars or self._max_chars)
        result = replace(result, content=content, seconds=time.perf_counter() - start)
        for journal in self._journals:
            journal.record(call, result, own)
        return result

    def run_all(self, calls: Iterable[ToolCall]) -> list[ToolResult]:
        """Make the calls at the same time, up to 16 at once; results keep their order."""
        todo = list(calls)
        if len(todo) < 2:
            return [self.run(call) for call in todo]
        with ThreadPoolExecutor(min(_THREADS, len(todo)), thread_name_prefix="tools") as pool:
            return list(pool.map(self.run, todo))

    def _refuse(self, call: ToolCall, entry: _Entry | None) -> ToolResult | None:
        """Return the result of a call that may not run."""
        if entry is None:
            near, names = nearest(call.name, self._entries), ", ".join(self._entries) or "none"
            known = f"{near}; tools: {names}"
            return ToolResult(ToolStatus.UNKNOWN_TOOL, f"there is no tool {call.name!r}{known}")
        if call.name not in self.runnable:
            return ToolResult(ToolStatus.REFUSED, entry.own.refusal)
        if problems := entry.problems(call.arguments):
            shown = "; ".join(truncate(problem, 300) for problem in problems[:3])
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, f"{call.name}: {shown}")
        most = entry.own.limits.max_calls
        if most is not None:
            with self._lock:
                self._counts[call.name] += 1
                count = self._counts[call.name]
            if count > most:
                wrong = f"tool {call.name!r} has reached its limit of {most} calls"
                return ToolResult(ToolStatus.REFUSED, wrong)
        return None


@dataclass(frozen=True)
class _Entry:
    """A tool and the types of its parameters (None: unknown); `gate` limits calls at once."""

    tool: Tool
    own: Implementation
    accepts: Adapters | None
    gate: AbstractContextManager[object]

    @staticmethod
    def of(tool: Tool) -> _Entry:
        wrong = f"tool {tool.name!r} cannot be run here: it has no implementation"
        function = tool.function or Implementation(dict, refusal=wrong)
        own = function if isinstance(function, Implementation) else Implementation(function)
        names, at_once = own.accepts, own.limits.at_once
        accepts = adapters_of(own.function) if names is None else dict.fromkeys(names)
        gate = threading.Semaphore(at_once) if at_once else nullcontext()
        return _Entry(tool, own, accepts, gate)

    def problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """Check arguments against the schema and against the parameters of the function."""
        problems = self.tool.problems(arguments)
        if problems or self.accepts is None:
            return problems
        known = ", ".join(self.accepts) or "none"
        return [
            f"unknown argument {name!r}{nearest(name, self.accepts)}; arguments: {known}"
            for name in arguments
            if name not in self.accepts
        ]

    def call(self, arguments: Mapping[str, Json]) -> ToolResult:
        """Call the function with a copy of the arguments, converted to its types."""
        try:
            typed = copy.deepcopy(dict(arguments))
            for name, value in typed.items():
                if adapter := (self.accepts or {}).get(name):
                    typed[name] = adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            wrong = f"{self.tool.name}: {where}: {first['msg']}"
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, wrong)
        value = self.own(**typed)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        value = _in_order(value)
        value = to_jsonable_python(value, inf_nan_mode="constants", fallback=_plain)
        return ToolResult(ToolStatus.OK, to_text(value), value)


def adapters_of(function: Callable[..., Json]) -> Adapters | None:
    """Return the type of each parameter; None if the signature does not list them."""
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    adapters: dict[str, TypeAdapter[Any] | None] = {}
    for parameter in parameters:
        try:
            adapters[parameter.name] = TypeAdapter(hints.get(parameter.name, Any))
        except (PydanticSchemaGenerationError, PydanticUserError):
            adapters[parameter.name] = None
    return adapters


def _in_thread(work: Callable[[], ToolResult], timeout: float) -> ToolResult:
    """Work in a daemon thread; a late thread runs on and its result is dropped.

    What the tool raises becomes its result, except for a `UserError`.
    """
    ends: list[ToolResult | UserError] = []

    def target() -> None:
        try:
            ends.append(work())
        except UserError as error:
            ends.append(error)
        except CallError as error:
            ends.append(ToolResult(error.outcome, str(error)))
        except TimeoutError as error:
            late = str(error) or "the tool ran out of time"
            ends.append(ToolResult(ToolStatus.TIMEOUT, late))
        except BaseException as error:  # SystemExit too: a tool cannot end this process
            try:
                text = " ".join(str(error).split())
            except Exception:  # __str__ of the tool's own exception fails
                text = ""
            if not text or not isinstance(error, ValueError):
                text = f"{type(error).__name__}: {text}".rstrip(": ")
            ends.append(ToolResult(ToolStatus.ERROR, text))

    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(target,), daemon=True, name="tool")
    thread.start()
    thread.join(timeout)
    if not ends:
        return ToolResult(ToolStatus.TIMEOUT, f"the tool did not answer within {timeout:g} s")
    if isinstance(ends[0], UserError):
        raise ends[0]
    return ends[0]


def _in_order(value: Any) -> Any:
    """The value with its sets as sorted lists: the order of a set differs between processes."""
    if isinstance(value, set | frozenset):
        return sorted(map(_in_order, value), key=repr)
    if type(value) is dict:
        return {key: _in_order(inner) for key, inner in value.items()}
    return [_in_order(inner) for inner in value] if type(value) in (list, tuple) else value


def _plain(value: Any) -> Json:
    """Convert an array to lists; refuse other values that JSON cannot write."""
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"the tool returned a {type(value).__name__}, which JSON cannot write")


@overload
def tool(function: F) -> F: ...


@overload
def tool(*, name: str = "", description: str = "") -> Callable[[F], F]: ...


def tool(
    function: F | None = None, *, name: str = "", description: str = ""
) -> F | Callable[[F], F]:
    """Mark a function as a tool, with `@tool` or `@tool(name=..., description=...)`.

    Registers nothing; `load_tools("file.py")` finds marked functions.
    """

    def mark(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        wrapper.__name__ = name or function.__name__
        if description:
            _, arguments, notes = (inspect.getdoc(function) or "").partition("Args:")
            wrapper.__doc__ = f"{description}\n\n{arguments}{notes}"
        setattr(wrapper, TOOL_MARK, True)
        return cast(F, wrapper)

    return mark if function is None else mark(function)


def builtin_tool(name: str, seed: int = 0) -> Tool:
    """Return the built-in tool `name`; `seed` selects the world of `weather` and `search`."""
    # Imported here: the sandbox and its library are needed for built-in tools alone.
    from toolhone.tools.builtin import BUILTIN, calculator, python
    from toolhone.tools.fake_services import SearchWorld, WeatherWorld
    from toolhone.tools.sandbox import PATIENCE, WORKERS

    functions: Mapping[str, Callable[..., Json]] = {
        "calculator": calculator,
        "python": python,
        "weather": WeatherWorld(seed).weather,
        "search": SearchWorld(seed).search,
    }
    if name not in functions:
        known = f"built in: {', '.join(BUILTIN)}; a tool of your own is named 'file.py:function'"
        raise ConfigError(f"no built-in tool {name!r}{nearest(name, BUILTIN)}; {known}")
    # The sandbox limits the CPU time of a call, which waits for a worker and a processor for free.
    limits = ToolLimits()
    if name in ("calculator", "python"):
        limits = ToolLimits(timeout=3 * PATIENCE, at_once=WORKERS)
    tool = Tool.of(functions[name])
    definition = f"built in: {name}, seed {seed}"
    return replace(tool, function=Implementation(functions[name], limits, definition=definition))
