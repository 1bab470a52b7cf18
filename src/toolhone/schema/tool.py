"""A tool as the model sees it: made of what people have, written in one form, and the check of arguments against its schema.

    tool = Tool.of({"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}})
    tool.problems({"city": 3})                 # ["city: 3 is not of type 'string'"]

Nothing here runs a tool: see `tools.registry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from toolhone.errors import DataError
from toolhone.tools.signature import schema_of_callable

Json = Any
"""A value that JSON can write."""

NO_PARAMETERS: dict[str, Json] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """A tool as the model sees it: name, description, JSON Schema of the arguments; the implementation is optional."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = field(default_factory=lambda: dict(NO_PARAMETERS))
    function: Callable[..., Json] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(source: Tool | Mapping[str, Json] | Callable[..., Json]) -> Tool:
        """Make a tool of an OpenAI tool object, a bare function object, a Python callable with type hints, or a tool."""
        if isinstance(source, Tool):
            return source
        if isinstance(source, Mapping):
            return _tool_from_mapping(source)
        if callable(source):
            name, description, parameters = schema_of_callable(source)
            return Tool(name, description, parameters, source)
        raise DataError(
            f"a tool must be an object with a 'name', or a Python function; got {type(source).__name__}"
        )

    def to_dict(self) -> dict[str, Json]:
        """The OpenAI tool object: `{"type": "function", "function": {"name", "description", "parameters"}}`."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    def problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """What is wrong with these arguments against the schema, one short sentence each; empty when they are right.

        Never raises and never fetches anything: a reference that leads out of the schema is a problem too.
        """
        try:
            errors = sorted(
                self._validator.iter_errors(dict(arguments)),
                key=lambda error: list(map(str, error.path)),
            )
        except (OverflowError, ValueError, RecursionError, Unresolvable, re.error) as error:
            return [f"arguments: cannot be checked: {error}"]
        return [
            f"{'.'.join(map(str, error.path)) or 'arguments'}: {error.message}" for error in errors
        ]

    @cached_property
    def _validator(self) -> jsonschema.protocols.Validator:
        return jsonschema.Draft202012Validator(dict(self.parameters), registry=Registry())


def _tool_from_mapping(source: Mapping[str, Json]) -> Tool:
    body = source.get("function", source)
    if not isinstance(body, Mapping) or not isinstance(body.get("name"), str) or not body["name"]:
        raise DataError(f"a tool needs a 'name' (a string); got keys {sorted(map(str, source))}")
    parameters = body.get("parameters") or NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        raise DataError(
            f"tool {body['name']!r}: 'parameters' must be a JSON Schema object, got {parameters!r:.60}"
        )
    try:
        jsonschema.Draft202012Validator.check_schema(dict(parameters))
    except jsonschema.SchemaError as error:
        where = ".".join(map(str, error.path)) or "parameters"
        raise DataError(
            f"tool {body['name']!r}: not a JSON Schema at {where}: {error.message}"
        ) from None
    return Tool(body["name"], str(body.get("description") or ""), dict(parameters))
