"""The tools that an experiment file names, ready for a `Registry`.

    "calculator"                       a built-in tool
    "tools.py:area"                    a function in a Python file, relative to `base`
    "tools.py"                         all functions in it that are marked with `@tool`
    "package.module:area"              a function in a module that Python can import
    {"name", "description", "parameters"}                         a schema, which the model is shown; nothing runs
    {..., "implementation" or "function": one of the texts above} a schema and what runs for it
    {..., "type": "api", "url": ...}                              asks an address (`http.py`)
    {..., "type": "command", "command": ...}                      runs a program (`command.py`)

    registry = make_registry(["calculator", "tools.py:area"], Path.cwd())

An object with something to run may also hold `"limits": {"timeout", "max_chars", "max_calls", "at_once"}` and `"cache": true`
(`journal.py`). Tools that ask an address or run a program are off until they are allowed by name: their calls end as REFUSED, and
neither a variable of the environment nor the program is looked for. A Python file or module is executed: it is the user's own code,
with all rights. Mistakes are a `ConfigError` or a `DataError`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from toolhone.config.sections import Experiment
from toolhone.config.user_code import file_of, import_callable, is_user_code, module_in_file
from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.command import CommandTool
from toolhone.tools.http import HttpTool
from toolhone.tools.registry import (
    TOOL_MARK,
    Implementation,
    Journal,
    Registry,
    ToolLimits,
    builtin_tool,
)
from toolhone.tools.signature import COMPOSED, adapt_function
from toolhone.tools.tool_cache import Cache, CallLog, ReplayCache, source_of

Spec = str | Mapping[str, Json]
"""One entry of `tools` in an experiment file."""

_COMMON = ("name", "description", "parameters", "type", "strict")
_KEYS = {
    "function": (*_COMMON, "function", "implementation", "limits", "cache"),
    "api": (*_COMMON, "url", "method", "headers", "timeout", "max_bytes", "limits", "cache"),
    "command": (*_COMMON, "command", "env", "cwd", "timeout", "max_bytes", "limits", "cache"),
}
_GRACE = 5.0
"""Seconds that the registry waits longer than a tool that keeps its own time."""


def open_registry(plan: Experiment) -> Registry:
    """The tools that may run, by an experiment's `tools`, `allowed_tools` and `tool_results`."""
    kept = plan.tool_results
    log, cache, replay = (
        None if path is None else Path(path) for path in (kept.log, kept.cache, kept.replay)
    )
    return make_registry(plan.tools, Path.cwd(), plan.allowed_tools, log, cache, replay)


def make_registry(
    specs: Iterable[Spec],
    base: Path,
    allowed: Collection[str] = (),
    log: Path | None = None,
    cache: Path | None = None,
    replay: Path | None = None,
    cache_all: bool = False,
) -> Registry:
    """The tools of an experiment.

    log: file to which every call and its result is appended. cache: file that keeps the results of tools with `"cache": true`, or
    of all (`cache_all`). replay: log or cache from which every call is answered; nothing runs then, and nothing has to be allowed.
    """
    specs = list(specs)
    if replay is not None and cache is not None:
        raise ConfigError(
            "tool_results has both 'cache' and 'replay'; a replay answers every call, so leave 'cache' out"
        )
    if replay is not None and log is not None and log.resolve() == replay.resolve():
        raise ConfigError(
            f"tool_results.log and tool_results.replay are the same file {log}; write the log to another"
        )
    tools = [tool for spec in specs for tool in load_tools(spec, base, () if replay else allowed)]
    check_allowed(tools, allowed)
    if (
        cache is not None
        and not cache_all
        and not any(
            isinstance(tool.function, Implementation) and tool.function.cache for tool in tools
        )
    ):
        raise ConfigError('tool_results.cache names a file, but no tool says "cache": true')
    journals: list[Journal] = []
    journals += [ReplayCache(replay)] if replay else []
    journals += [Cache(cache, cache_all)] if cache else []
    journals += [CallLog(log)] if log else []
    return Registry(tools, journals=journals)


def load_tools(spec: Spec, base: Path, allowed: Collection[str] = ()) -> list[Tool]:
    """The tools that one entry names; those that ask an address or run a program can be called if `allowed` has their name."""
    if isinstance(spec, Mapping):
        return [_from_object(spec, base, allowed)]
    if not is_user_code(spec):
        return [builtin_tool(spec)]
    file = file_of(spec)
    if file is None or not spec.endswith(".py"):
        return [Tool.of(import_callable(spec, base, "a tool"))]
    path = base / file.expanduser()
    marked = [
        value
        for value in vars(module_in_file(path, "a tool")).values()
        if getattr(value, TOOL_MARK, False)
    ]
    if not marked:
        raise ConfigError(
            f"{path} has no function marked with @tool; mark one, or name one as '{file}:function'"
        )
    return [Tool.of(value) for value in marked]


def check_allowed(tools: Sequence[Tool], allowed: Collection[str]) -> None:
    """Stop at a name in `allowed_tools` that no tool has."""
    names = [tool.name for tool in tools]
    for name in allowed:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(
                f"allowed_tools names {name!r}, but there is no such tool{nearest(name, names)}; tools: {known}"
            )


def reaches_outside(spec: Spec) -> str:
    """What an entry would do beyond calling a function, as in "runs a command (rm {file})"; empty for functions and schemas."""
    if isinstance(spec, str):
        return ""
    match spec.get("type"):
        case "command":
            command = spec.get("command")
            words = (
                command
                if isinstance(command, str)
                else " ".join(map(str, command))
                if isinstance(command, list)
                else command
            )
            return f"runs a command ({words!s:.120})"
        case "api":
            return f"asks an address ({spec.get('url')!s:.120})"
    return ""


def _from_object(spec: Mapping[str, Json], base: Path, allowed: Collection[str]) -> Tool:
    kind = spec.get("type", "function")
    if kind not in _KEYS:
        raise ConfigError(
            f"tool {spec.get('name')!r}: no type {kind!r}{nearest(str(kind), _KEYS)}; types: {', '.join(_KEYS)}"
        )
    if kind == "function":
        return _function_tool(spec, base)
    _check_keys(spec, kind)
    tool, dashes = _without_dashes(
        Tool.of({key: spec[key] for key in ("name", "description", "parameters") if key in spec})
    )
    for key in ("timeout", "max_bytes"):
        _check_number(tool.name, key, spec.get(key, 1), whole=key == "max_bytes")
    made = HttpTool.of(tool, spec) if kind == "api" else CommandTool.of(tool, spec, base, dashes)
    limits = _limits(tool.name, spec)
    if limits.timeout is not None:
        raise ConfigError(
            f"tool {tool.name!r}: the time of a tool of type {kind!r} is limited by 'timeout', not by limits.timeout"
        )
    refusal = ""
    if tool.name in allowed:
        made.check()
    else:
        what = reaches_outside(spec).partition(" (")[0]
        refusal = f'tool {tool.name!r} {what} and is not allowed; allow it by name: allowed_tools=["{tool.name}"]'
    open_ended = any(key in tool.parameters for key in (*COMPOSED, "additionalProperties"))
    accepts = None if open_ended else tuple(tool.properties)
    definition = json.dumps(dict(spec), sort_keys=True, default=str)
    limits = replace(limits, timeout=made.timeout + _GRACE)
    return replace(
        tool,
        function=Implementation(
            made, limits, _cache(tool.name, spec), refusal, definition, accepts
        ),
    )


def _function_tool(spec: Mapping[str, Json], base: Path) -> Tool:
    """A tool object with the text of what runs for it, or a schema alone (also in OpenAI's form)."""
    named = [key for key in ("implementation", "function") if isinstance(spec.get(key), str)]
    body = spec["function"] if isinstance(spec.get("function"), Mapping) else spec
    schema = {key: body[key] for key in ("name", "description", "parameters") if body.get(key)}
    if not named:
        tool = Tool.of(schema)
        for key in ("url", "command", "limits", "cache", "implementation"):
            if key in spec:
                right = {"url": '"type": "api"', "command": '"type": "command"'}.get(
                    key, "an 'implementation'"
                )
                raise ConfigError(
                    f"tool {tool.name!r} has {key!r}, but nothing that runs; it needs {right}"
                )
        return tool
    _check_keys(spec, "function")
    if len(named) > 1:
        raise ConfigError(
            f"tool {schema.get('name')!r} has both 'implementation' and 'function'; give one of them"
        )
    found = load_tools(spec[named[0]], base)
    if len(found) != 1:
        names = ", ".join(other.name for other in found)
        raise ConfigError(
            f"tool {schema.get('name')!r} needs one {named[0]!r}, but {spec[named[0]]!r} holds {len(found)}: {names}"
        )
    own = {
        "name": found[0].name,
        "description": found[0].description,
        "parameters": found[0].parameters,
    }
    tool = Tool.of({**own, **schema})
    loaded = found[0].function
    assert loaded is not None, spec
    inner = loaded if isinstance(loaded, Implementation) else Implementation(loaded)
    function = adapt_function(tool, inner.function)
    limits, cache = _limits(tool.name, spec), _cache(tool.name, spec)
    if limits == ToolLimits() and not cache and inner is not loaded:
        return replace(tool, function=function)
    limits = replace(limits, at_once=limits.at_once or inner.limits.at_once)
    definition = f"{spec[named[0]]}\n{inner.definition or source_of(inner.function)}"
    return replace(tool, function=Implementation(function, limits, cache, definition=definition))


def _check_keys(spec: Mapping[str, Json], kind: str) -> None:
    for key in spec:
        if key not in _KEYS[kind]:
            known = ", ".join(_KEYS[kind])
            raise ConfigError(
                f"tool {spec.get('name')!r} has an unknown key {key!r}{nearest(key, _KEYS[kind])}; known: {known}"
            )


def _without_dashes(tool: Tool) -> tuple[Tool, frozenset[str]]:
    """The tool without our own mark `allow_dash` in its schema, and the names of the parameters that had it."""
    marked = frozenset(
        name for name, schema in tool.properties.items() if schema.get("allow_dash") is True
    )
    properties = {
        name: {key: value for key, value in schema.items() if key != "allow_dash"}
        for name, schema in tool.properties.items()
    }
    return replace(
        tool, parameters={**tool.parameters, "properties": properties}
    ) if marked else tool, marked


def _limits(name: str, spec: Mapping[str, Json]) -> ToolLimits:
    limits = spec.get("limits", {})
    known = tuple(ToolLimits.__dataclass_fields__)
    if not isinstance(limits, Mapping):
        raise ConfigError(
            f"tool {name!r}: 'limits' must be an object with {', '.join(known)}, got {limits!r:.60}"
        )
    for key, value in limits.items():
        if key not in known:
            raise ConfigError(
                f"tool {name!r}: 'limits' has an unknown key {key!r}{nearest(key, known)}; known: {', '.join(known)}"
            )
        _check_number(name, f"limits.{key}", value, whole=key != "timeout")
    return ToolLimits(**cast(Mapping[str, Any], limits))


def _cache(name: str, spec: Mapping[str, Json]) -> bool:
    cache = spec.get("cache", False)
    if not isinstance(cache, bool):
        raise ConfigError(f"tool {name!r}: 'cache' must be true or false, got {cache!r:.60}")
    return cache


def _check_number(name: str, key: str, value: Json, whole: bool) -> None:
    right = (
        isinstance(value, int if whole else int | float)
        and not isinstance(value, bool)
        and 0 < value < 1e9
    )
    if not right:
        raise ConfigError(
            f"tool {name!r}: {key!r} must be a {'whole ' if whole else ''}number above 0, got {value!r:.40}"
        )
