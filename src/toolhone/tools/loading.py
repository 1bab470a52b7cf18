"""The tools that an experiment file names, as objects or as the names of functions:

    "calculator", "tools.py:area", "tools.py", "pkg.mod:area"     built in, functions, marked ones
    {"name", "description", "parameters"}                         a schema alone; nothing runs
    {..., "implementation" or "function": text}                   a schema and what runs for it
    {"name", "mcp": {"command" or "url"}}                         all tools of an MCP server
A Python file or module is executed: it is user code.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from toolhone.config.sections import Experiment
from toolhone.config.user_code import USER_CODE, import_callable, module_in_file
from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Task, Tool
from toolhone.schema.json_input import SCHEMAS, first_value, is_number
from toolhone.schema.tool import schema_of_callable
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.command import CommandTool
from toolhone.tools.http import HttpTool
from toolhone.tools.mcp_server import McpServer, mcp_tools, read_server
from toolhone.tools.registry import (
    TOOL_MARK,
    Implementation,
    Journal,
    Registry,
    ToolLimits,
    builtin_tool,
)
from toolhone.tools.result import CallError, ToolStatus
from toolhone.tools.tool_cache import Cache, CallLog, ReplayCache, source_of

Spec = str | Mapping[str, Json]
"""One entry of `tools` in an experiment file."""
_KEYS = {
    kind: ("name", "description", *SCHEMAS, "type", "strict", *keys, "limits", "cache")
    for kind, keys in {
        "function": ("function", "implementation"),
        "api": ("url", "method", "headers", "timeout", "max_bytes"),
        "command": ("command", "env", "cwd", "timeout", "max_bytes"),
    }.items()
}
COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")
"""Keys of a schema whose parameters cannot be read from `properties` alone."""
_GRACE = 5.0
"""Seconds that the registry waits longer than a tool with its own time limit."""


def open_registry(plan: Experiment) -> Registry:
    """Make the tools of an experiment's `tools`, `allowed_tools` and `tool_results`."""
    files = (plan.tool_results.log, plan.tool_results.cache, plan.tool_results.replay)
    log, cache, replay = (None if file is None else Path(file) for file in files)
    return make_registry(plan.tools, Path.cwd(), plan.allowed_tools, log, cache, replay)


def make_registry(
    specs: Iterable[Spec],
    base: Path,
    allowed: Collection[str] = (),
    log: Path | None = None,
    cache: Path | None = None,
    replay: Path | None = None,
) -> Registry:
    """Make the tools of an experiment.

    log: gets every call. cache: keeps the results of tools with `"cache": true`. replay: a log or
    cache that answers every call; nothing has to be allowed. A name in `allowed` needs its tool.
    """
    if replay is not None and cache is not None:
        right = "a replay answers every call, so leave 'cache' out"
        raise ConfigError(f"tool_results has both 'cache' and 'replay'; {right}")
    if replay is not None and log is not None and log.resolve() == replay.resolve():
        wrong = f"tool_results.log and tool_results.replay are the same file {log}"
        raise ConfigError(f"{wrong}; write the log to another")
    may_run, specs = () if replay else allowed, list(specs)
    tools = [tool for spec in specs for tool in load_tools(spec, base, may_run)]
    servers = [spec for spec in specs if isinstance(spec, Mapping) and "mcp" in spec]
    names = [tool.name for tool in tools]
    names += [str(spec.get("name") or read_server(spec["mcp"], base).name) for spec in servers]
    for name in allowed:
        if name not in names:
            known = f"{nearest(name, names)}; tools: {', '.join(names) or 'none'}"
            raise ConfigError(f"allowed_tools names {name!r}, but there is no such tool{known}")
    functions = [tool.function for tool in tools]
    caches = any(isinstance(one, Implementation) and one.cache for one in functions)
    if cache is not None and not caches:
        raise ConfigError('tool_results.cache names a file, but no tool says "cache": true')
    journals: list[Journal] = []
    journals += [ReplayCache(replay)] if replay else []
    journals += [Cache(cache)] if cache else []
    journals += [CallLog(log)] if log else []
    return Registry(tools, journals=journals)


def load_tools(spec: Spec, base: Path, allowed: Collection[str] = ()) -> list[Tool]:
    """Load the tools of one entry; one that reaches outside needs its name in `allowed`.

    A Python file or module is executed: it is the user's own code, with all rights.
    """
    if isinstance(spec, Mapping) and "mcp" in spec:
        return [_of_server(tool, spec, server) for tool, server in mcp_tools(spec, base, allowed)]
    if isinstance(spec, Mapping):
        return [_from_object(spec, base, allowed)]
    code = USER_CODE.fullmatch(spec)
    if code is None:
        return [builtin_tool(spec)]
    if code["name"]:
        return [Tool.of(import_callable(spec, base, "a tool"))]
    path = base / Path(code["file"]).expanduser()
    values = vars(module_in_file(path, "a tool")).values()
    marked = [value for value in values if getattr(value, TOOL_MARK, False)]
    if not marked:
        right = f"mark one, or name one as '{code['file']}:function'"
        raise ConfigError(f"{path} has no function marked with @tool; {right}")
    return [Tool.of(value) for value in marked]


def _of_server(tool: Tool, spec: Mapping[str, Json], server: McpServer) -> Tool:
    _check_keys(f"the MCP server {server.name!r} has", spec, ("name", "mcp", "limits", "cache"))
    limits, cache = _terms(server.name, spec)
    limits = replace(limits, timeout=server.timeout + _GRACE)

    def ask(**arguments: Json) -> Json:
        return server.call(tool.name, arguments)

    definition = json.dumps(dict(spec), sort_keys=True, default=str)
    accepts = None if any(key in tool.parameters for key in COMPOSED) else tuple(tool.properties)
    function = Implementation(ask, limits, cache, "", definition, accepts)
    return replace(tool, function=function)


def _from_object(spec: Mapping[str, Json], base: Path, allowed: Collection[str]) -> Tool:
    kind = spec.get("type", "function")
    if kind not in _KEYS:
        known, near = f"types: {', '.join(_KEYS)}", nearest(str(kind), _KEYS)
        raise ConfigError(f"tool {spec.get('name')!r}: no type {kind!r}{near}; {known}")
    if kind == "function":
        return _function_tool(spec, base)
    _check_keys(f"tool {spec.get('name')!r} has", spec, _KEYS[kind])
    keys = ("name", "description", *SCHEMAS)
    tool = Tool.of({key: spec[key] for key in keys if key in spec})
    properties = {name: dict(schema) for name, schema in tool.properties.items()}
    marks = {name: schema.pop("allow_dash", None) for name, schema in properties.items()}
    if dashes := frozenset(name for name, mark in marks.items() if mark is True):
        tool = replace(tool, parameters={**tool.parameters, "properties": properties})
    for key in ("timeout", "max_bytes"):
        _check_number(tool.name, key, spec.get(key, 1), whole=key == "max_bytes")
    outside = HttpTool.of(tool, spec) if kind == "api" else CommandTool.of(tool, spec, base, dashes)
    (limits, cache), where = _terms(tool.name, spec), f"tool {tool.name!r}"
    if limits.timeout is not None:
        right = "'timeout', not by limits.timeout"
        raise ConfigError(f"{where}: the time of a tool of type {kind!r} is limited by {right}")
    what = "asks an address" if kind == "api" else "runs a command"
    right = f'allow it by name: allowed_tools=["{tool.name}"]'
    refusal = f"{where} {what} and is not allowed; {right}"
    if tool.name in allowed:
        outside.check()
        refusal = ""
    open_ended = any(key in tool.parameters for key in (*COMPOSED, "additionalProperties"))
    limits = replace(limits, timeout=outside.timeout + _GRACE)
    definition = json.dumps(dict(spec), sort_keys=True, default=str)
    accepts = None if open_ended else tuple(tool.properties)
    implementation = Implementation(outside, limits, cache, refusal, definition, accepts)
    return replace(tool, function=implementation)


def _function_tool(spec: Mapping[str, Json], base: Path) -> Tool:
    """Load a tool object that names what runs for it, or a schema alone (also in OpenAI's form)."""
    sources = [key for key in ("implementation", "function") if isinstance(spec.get(key), str)]
    body = spec["function"] if isinstance(spec.get("function"), Mapping) else spec
    schema = {key: body[key] for key in ("name", "description") if body.get(key)}
    if parameters := first_value(body, SCHEMAS, f"tool {schema.get('name')!r}"):
        schema["parameters"] = parameters
    where = f"tool {schema.get('name')!r}"
    if not sources:
        remedies = {"url": '"type": "api"', "command": '"type": "command"'}
        for key in ("url", "command", "limits", "cache", "implementation"):
            if key in spec:
                right = remedies.get(key, "an 'implementation'")
                raise ConfigError(f"{where} has {key!r}, but nothing that runs; it needs {right}")
        tool = Tool.of(schema)
        return _with_builtin(tool) if tool.name in BUILTIN else tool
    _check_keys(f"{where} has", spec, _KEYS["function"])
    if len(sources) > 1:
        raise ConfigError(f"{where} has both 'implementation' and 'function'; give one of them")
    source = spec[sources[0]]
    found = load_tools(source, base)
    if len(found) != 1:
        names = f"{len(found)}: {', '.join(other.name for other in found)}"
        raise ConfigError(f"{where} needs one {sources[0]!r}, but {source!r} holds {names}")
    loaded, function = found[0], found[0].function
    own = {key: getattr(loaded, key) for key in ("name", "description", "parameters")}
    tool = Tool.of({**own, **schema})
    assert function is not None, spec
    inner = function if isinstance(function, Implementation) else Implementation(function)
    adapted = adapt_function(tool, inner.function)
    limits, cache = _terms(tool.name, spec)
    if limits == ToolLimits() and not cache and inner is not function:
        return replace(tool, function=adapted)
    limits = replace(limits, at_once=limits.at_once or inner.limits.at_once)
    definition = f"{source}\n{inner.definition or source_of(inner.function)}"
    return replace(tool, function=Implementation(adapted, limits, cache, definition=definition))


def _with_builtin(tool: Tool) -> Tool:
    """Return the schema with the built-in function of its name, where its parameters fit."""
    inner = builtin_tool(tool.name).function
    assert isinstance(inner, Implementation), tool.name
    try:
        adapted = adapt_function(tool, inner.function)
    except ConfigError:
        return tool
    own = schema_of_callable(adapted)[2]["properties"]
    fits = not any(key in tool.parameters for key in COMPOSED)
    for name, declared in tool.properties.items():
        kind, choices = own[name].get("type"), own[name].get("enum", [])
        fits = fits and declared.get("type", kind) == kind
        if choices:  # a value that the function refuses must not be allowed
            fits = fits and all(value in choices for value in declared.get("enum", [None]))
    return replace(tool, function=replace(inner, function=adapted)) if fits else tool


def tool_notes(plan: Experiment, registry: Registry, tasks: Iterable[Task]) -> Iterator[str]:
    """Yield a sentence on schemas that a built-in function runs, and one on tools that cannot
    run."""
    if plan.tool_results.replay is not None:
        return
    for spec in plan.tools:
        if isinstance(spec, Mapping) and not any(
            isinstance(spec.get(key), str) for key in ("implementation", "function")
        ):
            body = spec["function"] if isinstance(spec.get("function"), Mapping) else spec
            if (name := body.get("name")) in BUILTIN and name in registry.runnable:
                yield f"note: tool {name!r} is a schema alone: the built-in {name} runs its calls"
    live = [task for task in tasks if (task.world or {}).get("name", "live") == "live"]
    missing = {tool.name for task in live for tool in task.tools} - {t.name for t in registry.tools}
    reasons = [
        *registry.refusals.values(),
        *(f"tool {n!r} is not in tools" for n in sorted(missing)),
    ]
    if reasons:
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        effect = "calls get no result, and execution_success leaves tasks that want them out"
        yield f"note: {'; '.join(reasons[:3])}{more}: {effect}"


def adapt_function(tool: Tool, function: Callable[..., Json]) -> Callable[..., Json]:
    """Return the function with its parameters as the tool declares them, or raise `ConfigError`.

    The tool may leave out what the function does not need. One parameter that only the tool has is
    matched with one that only the function has where their types allow it.
    """
    if any(key in tool.parameters for key in COMPOSED):
        return function
    declared, own = tool.properties, schema_of_callable(function)[2]
    unknown = [name for name in declared if name not in own["properties"]]
    missing = [name for name in own["required"] if name not in declared]
    if not unknown and not missing:
        return function
    if len(unknown) == len(missing) == 1:
        first = declared[unknown[0]].get("type")
        second = own["properties"][missing[0]].get("type")
        named = isinstance(first, str) and isinstance(second, str)
        if not named or first == second or {first, second} == {"integer", "number"}:
            return _rename_parameter(function, unknown[0], missing[0], tool.name)
    wrong = []
    if unknown:
        wrong.append(f"declares {', '.join(map(repr, unknown))}, which its function does not take")
    if missing:
        wrong.append(f"lacks {', '.join(map(repr, missing))}, which its function needs")
    known = ", ".join(own["properties"]) or "none"
    raise ConfigError(
        f"tool {tool.name!r} {' and '.join(wrong)}; parameters of the function: {known} "
        "(one name may differ where all others agree)"
    )


def _rename_parameter(
    function: Callable[..., Json], declared: str, own: str, tool: str
) -> Callable[..., Json]:
    """Return the function with its parameter `own` named `declared`, in its signature too."""

    def renamed(**arguments: Json) -> Any:
        if declared not in arguments:
            wrong = f"{tool}: arguments: {declared!r} is a required property"
            raise CallError(ToolStatus.INVALID_ARGUMENTS, wrong)
        arguments[own] = arguments.pop(declared)
        return function(**arguments)

    signature, names = inspect.signature(function), {own: declared}
    parameters = [
        parameter.replace(name=names.get(key, key), kind=inspect.Parameter.KEYWORD_ONLY)
        for key, parameter in signature.parameters.items()
    ]
    hints = get_type_hints(function, include_extras=True)
    renamed.__annotations__ = {names.get(key, key): hint for key, hint in hints.items()}
    renamed.__name__, renamed.__doc__ = function.__name__, function.__doc__
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return renamed


def _check_keys(subject: str, keys: Iterable[str], known: Collection[str]) -> None:
    for key in keys:
        if key not in known:
            right = f"{nearest(key, known)}; known: {', '.join(known)}"
            raise ConfigError(f"{subject} an unknown key {key!r}{right}")


def _terms(name: str, spec: Mapping[str, Json]) -> tuple[ToolLimits, bool]:
    """Return the limits of a tool, and whether its results may be cached."""
    limits, known = spec.get("limits", {}), tuple(ToolLimits.__dataclass_fields__)
    if not isinstance(limits, Mapping):
        right = f"an object with {', '.join(known)}"
        raise ConfigError(f"tool {name!r}: 'limits' must be {right}, got {limits!r:.60}")
    _check_keys(f"tool {name!r}: 'limits' has", limits, known)
    for key, value in limits.items():
        _check_number(name, f"limits.{key}", value, whole=key != "timeout")
    cache = spec.get("cache", False)
    if not isinstance(cache, bool):
        raise ConfigError(f"tool {name!r}: 'cache' must be true or false, got {cache!r:.60}")
    return ToolLimits(**cast(Mapping[str, Any], limits)), cache


def _check_number(name: str, key: str, value: Json, whole: bool) -> None:
    if not is_number(value, whole) or not 0 < value < 1e9:
        right = f"a {'whole ' if whole else ''}number above 0"
        raise ConfigError(f"tool {name!r}: {key!r} must be {right}, got {value!r:.40}")


def tools_of(experiment: Experiment) -> list[Tool]:
    """The tools of an experiment as a model sees them; none of them is run."""
    allowed = experiment.allowed_tools
    return [
        tool
        for spec in experiment.tools
        for tool in load_tools(spec, Path.cwd(), allowed if "mcp" in spec else ())
    ]
