"""A JSON Schema from a Python function's type hints and docstring.

`schema_of_callable(f)` gives (name, description, parameters). The schema of each hint comes from pydantic, so nested models,
dataclasses, TypedDicts, Literal, Optional, lists and dicts all work; descriptions come from a Google-style `Args:` block or
from `Annotated[T, "text"]`. `*args` and `**kwargs` are refused: a model cannot fill them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from toolhone.errors import DataError

_ARGUMENT = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s*(.+)$")


def schema_of_callable(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Name, description and JSON Schema of the arguments of a function with type hints."""
    name = getattr(function, "__name__", type(function).__name__)
    description, notes = _read_docstring(inspect.getdoc(function) or "")
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DataError(f"tool {name!r}: a type hint cannot be resolved: {error}") from None
    properties: dict[str, Any] = {}
    required: list[str] = []
    definitions: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise DataError(
                f"tool {name!r}: parameter {parameter.name!r} has no name a model could use; give it one"
            )
        schema = _schema_of_hint(name, parameter, hints.get(parameter.name, Any))
        definitions.update(schema.pop("$defs", {}))
        if parameter.name in notes:
            schema.setdefault("description", notes[parameter.name])
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if definitions:
        parameters["$defs"] = definitions
    return name, description, parameters


def _schema_of_hint(tool: str, parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    text = (
        next((note for note in get_args(hint)[1:] if isinstance(note, str)), None)
        if get_origin(hint) is Annotated
        else None
    )
    try:
        schema = TypeAdapter(hint).json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        raise DataError(
            f"tool {tool!r}: no JSON Schema for parameter {parameter.name!r} of type {hint!r}: {error}"
        ) from None
    schema.pop("title", None)
    if text:
        schema["description"] = text
    default = parameter.default
    if default is not inspect.Parameter.empty and isinstance(default, str | int | float | bool):
        schema["default"] = default
    return schema


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description (up to a blank line before `Args:`) and the text for each argument."""
    head, _, rest = text.partition("Args:")
    notes = {}
    for line in rest.splitlines():
        if re.match(r"^\S", line):
            break
        if match := _ARGUMENT.match(line):
            notes[match[1]] = match[2].strip()
    return " ".join(head.split()), notes
