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
`sandbox.py`. Arguments of a call are converted to the function's type hints (nested models, dataclasses, dates).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import to_jsonable_python

from toolhone.errors import ConfigError, UserError, nearest
from toolhone.schema import Json, Tool, ToolCall

F = TypeVar("F", bound=Callable[..., Any])
Source = Tool | Mapping[str, Json] | Callable[..., Json] | str
"""What a tool is made of: a tool, a tool object, a Python function, or the name of a built-in tool."""

_MARK = "__toolhone_tool__"
_THREADS = 16


class Outcome(StrEnum):
    """How a call or a program ended."""

    OK = "ok"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    """The arguments do not fit the schema; the function was not called."""
    ERROR = "error"
    """The tool raised, or what it returned cannot be written as JSON."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """The tool has no implementation here."""


@dataclass(frozen=True)
class ToolResult:
    """What a call came to. `content` is what the model reads: a text the tool returned, other values as JSON, or one line that
    says what was wrong. `value` is the whole value, also where `content` was cut; None unless OK. `seconds` is wall-clock time."""

    outcome: Outcome
    content: str
    value: Json = None
    seconds: float = 0.0


class Registry:
    """The tools of a task or a run, by name.

    timeout: seconds that a call may take. A function that does not return in time yields TIMEOUT, but its thread is not ended: it
    goes on in the background, with what it holds, until it returns by itself. Code that may hang belongs into the sandbox.
    max_chars: longest `content` in characters; longer ones are cut with a visible mark.
    seed: seed of the built-in tools that have a world.
    """

    def __init__(self, sources: Iterable[Source], timeout: float = 10.0, max_chars: int = 4000, seed: int = 0) -> None:
        self._entries: dict[str, _Entry] = {}
        self._timeout, self._max_chars = timeout, max_chars
        for source in sources:
            tool = _builtin(source, seed) if isinstance(source, str) else Tool.of(source)
            if tool.name in self._entries:
                raise ConfigError(f"two tools are named {tool.name!r}; give one of them another name")
            self._entries[tool.name] = _Entry.of(tool)

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(entry.tool for entry in self._entries.values())

    def run(self, call: ToolCall) -> ToolResult:
        """Check the call and make it."""
        started = time.perf_counter()
        outcome, content, value = self._run(call)
        return ToolResult(outcome, clipped(_readable(content), self._max_chars), value, time.perf_counter() - started)

    def run_all(self, calls: Iterable[ToolCall]) -> list[ToolResult]:
        """Make the calls at the same time, up to 16 at once; the results are in the order of the calls."""
        todo = list(calls)
        if len(todo) < 2:
            return [self.run(call) for call in todo]
        with ThreadPoolExecutor(min(_THREADS, len(todo)), thread_name_prefix="tools") as pool:
            return list(pool.map(self.run, todo))

    def _run(self, call: ToolCall) -> _Ended:
        entry = self._entries.get(call.name)
        if entry is None:
            known = ", ".join(self._entries) or "none"
            return Outcome.UNKNOWN_TOOL, f"there is no tool {call.name!r}{nearest(call.name, self._entries)}; tools: {known}", None
        if entry.tool.function is None:
            return Outcome.REFUSED, f"tool {call.name!r} cannot be run here: it has no implementation", None
        problems = entry.problems(call.arguments)
        if problems:
            return Outcome.INVALID_ARGUMENTS, f"{call.name}: {'; '.join(clipped(problem, 300) for problem in problems[:3])}", None
        return _in_thread(functools.partial(entry.called, call.arguments), self._timeout)


_Ended = tuple[Outcome, str, Json]
"""Outcome, content, value."""


@dataclass(frozen=True)
class _Entry:
    """A tool and what its function takes: the type of each parameter (None: any), or nothing known."""

    tool: Tool
    accepts: Mapping[str, TypeAdapter[Any] | None] | None

    @staticmethod
    def of(tool: Tool) -> _Entry:
        return _Entry(tool, None if tool.function is None else _accepts(tool.function))

    def problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """What is wrong with these arguments: against the schema, and against what the function takes."""
        problems = self.tool.problems(arguments)
        if problems or self.accepts is None:
            return problems
        unknown = [name for name in arguments if name not in self.accepts]
        known = ", ".join(self.accepts) or "none"
        return [f"unknown argument {name!r}{nearest(name, self.accepts)}; arguments: {known}" for name in unknown]

    def called(self, arguments: Mapping[str, Json]) -> _Ended:
        """Call the function with arguments converted to its types."""
        function, adapters = self.tool.function, self.accepts or {}
        assert function is not None
        try:
            converted = {name: _converted(adapters.get(name), value) for name, value in arguments.items()}
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            return Outcome.INVALID_ARGUMENTS, f"{self.tool.name}: {where}: {first['msg']}", None
        return _result_of(functools.partial(function, **converted))


def _converted(adapter: TypeAdapter[Any] | None, value: Json) -> Any:
    return value if adapter is None else adapter.validate_python(value)


def _accepts(function: Callable[..., Json]) -> dict[str, TypeAdapter[Any] | None] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name: _adapter(hints.get(parameter.name, Any)) for parameter in parameters}


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _in_thread(work: Callable[[], _Ended], timeout: float) -> _Ended:
    """Work in a daemon thread; a thread that is late is left alone and its result is dropped."""
    ended: list[_Ended | UserError] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: ended.append(context.run(_guarded, work)), daemon=True, name="tool")
    thread.start()
    thread.join(timeout)
    if not ended:
        return Outcome.TIMEOUT, f"the tool did not answer within {timeout:g} s", None
    if isinstance(ended[0], UserError):
        raise ended[0]
    return ended[0]


def _guarded(work: Callable[[], _Ended]) -> _Ended | UserError:
    try:
        return work()
    except UserError as error:
        return error
    except TimeoutError as error:
        return Outcome.TIMEOUT, str(error) or "the tool ran out of time", None
    except BaseException as error:  # SystemExit from a tool is that tool's error, not our end
        return Outcome.ERROR, _one_line(error), None


def _result_of(function: Callable[[], Json]) -> _Ended:
    value = function()
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    value = to_jsonable_python(value, inf_nan_mode="constants", fallback=_plain)
    return Outcome.OK, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), value


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
    return text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}".rstrip(": ")


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


def tool(function: F | None = None, *, name: str = "", description: str = "") -> F | Callable[[F], F]:
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
    setattr(wrapper, _MARK, True)
    return cast(F, wrapper)


def load_tools(spec: str | Mapping[str, Json], base: Path) -> list[Tool]:
    """The tools that one entry of an experiment file names.

    "calculator"            a built-in tool
    "tools.py:area"         a function in a Python file, relative to `base`
    "tools.py"              all functions in it that are marked with `@tool`
    {"name", ...}           a tool object; with a key "implementation" (one of the above) it can be run, too

    A Python file is executed: it is the user's own code, with all rights. Mistakes are a `ConfigError` or a `DataError`.
    """
    if isinstance(spec, Mapping):
        return [_from_mapping(spec, base)]
    file, _, function = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    if not file.endswith(".py"):
        return [_builtin(spec, 0)]
    path = base / file
    module = _imported(path)
    if function:
        return [Tool.of(_function(module, function, path))]
    marked = [value for value in vars(module).values() if getattr(value, _MARK, False)]
    if not marked:
        raise ConfigError(f"{path} has no function marked with @tool; mark one, or name one as '{file}:function'")
    return [Tool.of(value) for value in marked]


def _from_mapping(spec: Mapping[str, Json], base: Path) -> Tool:
    tool = Tool.of({key: value for key, value in spec.items() if key != "implementation"})
    if "implementation" not in spec:
        return tool
    found = load_tools(str(spec["implementation"]), base)
    if len(found) != 1:
        names = ", ".join(other.name for other in found)
        raise ConfigError(
            f"tool {tool.name!r} needs one 'implementation', but {spec['implementation']!r} holds {len(found)}: {names}"
        )
    return replace(tool, function=found[0].function)


def _builtin(name: str, seed: int) -> Tool:
    from toolhone.tools.builtin import builtin  # here, because that module needs this one, and the sandbox with it

    return builtin(name, seed)


def _function(module: ModuleType, name: str, path: Path) -> Callable[..., Json]:
    value = getattr(module, name, None)
    if callable(value):
        return cast(Callable[..., Json], value)
    names = [key for key, other in vars(module).items() if inspect.isfunction(other)]
    raise ConfigError(f"{path} has no function {name!r}{nearest(name, names)}; functions: {', '.join(names) or 'none'}")


def _imported(path: Path) -> ModuleType:
    """The module in this file. A file is executed once, and again after it has changed."""
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"there is no tool file {path}{nearest(path.name, siblings)}")
    version = hashlib.blake2b(f"{path.resolve()}|{path.stat().st_mtime_ns}".encode(), digest_size=8).hexdigest()
    name = f"toolhone_tools_{path.stem}_{version}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None, path
    assert found.loader is not None, path
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" (line {lines[-1]})" if lines else ""
        raise ConfigError(f"tool file {path} cannot be imported: {type(error).__name__}: {error}{where}") from None
    return module
