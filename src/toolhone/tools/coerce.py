"""Arguments of a call, turned into what a function's type hints ask for: nested models, dataclasses, dates, enums.

    accepts = adapters_of(function)             # one for each parameter; None where nothing can be said
    convert(accepts, {"at": {"x": 1, "y": 2}})  # {"at": Point(x=1, y=2)}

A value that does not fit raises pydantic's `ValidationError`. Nothing here knows JSON Schemas or runs a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from toolhone.schema import Json

Adapters = Mapping[str, TypeAdapter[Any] | None]
"""The type of each parameter by name; None: any value."""


def adapters_of(function: Callable[..., Json]) -> Adapters | None:
    """What the parameters of a function take, or None where its signature does not tell which parameters it has."""
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name: _adapter(hints.get(parameter.name, Any)) for parameter in parameters}


def convert(adapters: Adapters, arguments: Mapping[str, Json]) -> dict[str, Any]:
    """The arguments with those that have a known type converted to it."""
    return {name: _converted(adapters.get(name), value) for name, value in arguments.items()}


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _converted(adapter: TypeAdapter[Any] | None, value: Json) -> Any:
    return value if adapter is None else adapter.validate_python(value)
