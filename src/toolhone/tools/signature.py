"""A function's parameters: conversion of arguments to its type hints, and other names for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from toolhone.errors import ConfigError
from toolhone.schema.tool import Json, Tool, schema_of_callable
from toolhone.tools.result import CallError, ToolStatus

Adapters = Mapping[str, TypeAdapter[Any] | None]
"""The type of each parameter by name; None accepts any value."""
COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")
"""Keys of a schema whose parameters cannot be read from `properties` alone."""


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


def convert(adapters: Adapters, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arguments to their hinted types. Raises pydantic's `ValidationError`."""
    return {
        name: value if (adapter := adapters.get(name)) is None else adapter.validate_python(value)
        for name, value in arguments.items()
    }


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
