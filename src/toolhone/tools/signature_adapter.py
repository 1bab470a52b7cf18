"""A function under a schema that was written for it by hand, or for another one.

    fitted(tool, weather)      # `tool` declares `location`, `weather(city, unit)` takes `city`: the two are paired

The model sees the declared schema, which may leave out what the function does not need. A parameter that the function does not take
and one that it needs but the schema lacks are paired when there is exactly one of each; else they are a mistake. Of types, only the
names are compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import get_type_hints

from toolhone.errors import ConfigError
from toolhone.schema import Json, Tool
from toolhone.tools.placeholders import properties_of
from toolhone.tools.registry import CallError, ToolStatus
from toolhone.tools.signature import schema_of_callable

COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")
"""Keys of a schema that does not say by itself which parameters there are."""


def fitted(tool: Tool, function: Callable[..., Json]) -> Callable[..., Json]:
    """The function, taking the parameters as the tool declares them; a schema that cannot be its own is a `ConfigError`."""
    if any(key in tool.parameters for key in COMPOSED):
        return function
    declared = properties_of(tool)
    _, _, own = schema_of_callable(function)
    unknown = [name for name in declared if name not in own["properties"]]
    missing = [name for name in own["required"] if name not in declared]
    if not unknown and not missing:
        return function
    if len(unknown) == len(missing) == 1 and _may_be_one(
        declared[unknown[0]], own["properties"][missing[0]]
    ):
        return _renamed(function, unknown[0], missing[0], tool.name)
    wrong = (
        [f"declares {', '.join(map(repr, unknown))}, which its function does not take"]
        if unknown
        else []
    )
    wrong += [f"lacks {', '.join(map(repr, missing))}, which its function needs"] if missing else []
    raise ConfigError(
        f"tool {tool.name!r} {' and '.join(wrong)}; parameters of the function: {', '.join(own['properties']) or 'none'} "
        "(one name may differ where all others agree)"
    )


def _may_be_one(declared: Mapping[str, Json], own: Mapping[str, Json]) -> bool:
    """Whether two schemas may speak of the same value, as far as their types say."""
    first, second = declared.get("type"), own.get("type")
    numbers = (
        {first, second} <= {"integer", "number"}
        if isinstance(first, str) and isinstance(second, str)
        else True
    )
    return first is None or second is None or first == second or numbers


def _renamed(
    function: Callable[..., Json], declared: str, own: str, name: str
) -> Callable[..., Json]:
    """The function with its parameter `own` called `declared`, for callers and for whoever reads its signature."""

    def renamed(**arguments: Json) -> Json:
        if declared not in arguments:
            raise CallError(
                ToolStatus.INVALID_ARGUMENTS,
                f"{name}: arguments: {declared!r} is a required property",
            )
        return function(
            **{own if key == declared else key: value for key, value in arguments.items()}
        )

    signature = inspect.signature(function)
    parameters = [
        inspect.Parameter(
            declared if parameter.name == own else parameter.name,
            parameter.KEYWORD_ONLY,
            default=parameter.default,
        )
        for parameter in signature.parameters.values()
    ]
    hints = get_type_hints(function, include_extras=True)
    renamed.__annotations__ = {declared if key == own else key: hint for key, hint in hints.items()}
    renamed.__name__, renamed.__doc__ = function.__name__, function.__doc__
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return renamed
