"""Calls that use what an earlier call of the same reply gives: references as texts in the place of values.

    for text in texts_of(call.arguments): ...                    # every text, however deep
    tools = [taking_references(tool, pattern) for tool in tools]     # schemas that take a reference as well as a value

For the sources whose rows hold such calls. How a reference is written, and what it may refer to, is up to the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolhone.schema import Json, Tool
from toolhone.sources.files import Record


def texts_of(value: Json) -> Iterator[str]:
    """All texts that are values in here."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from texts_of(inner)


def taking_references(tool: Tool, pattern: str) -> Tool:
    """The tool with a reference as a further value of every parameter that is not any text already."""
    properties = {
        name: _or_reference(schema, pattern)
        for name, schema in tool.parameters["properties"].items()
    }
    return Tool(tool.name, tool.description, {**tool.parameters, "properties": properties})


def _or_reference(schema: Record, pattern: str) -> Record:
    said: Record = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in said}
    if not rest or rest == {"type": "string"}:
        return schema
    return {**said, "anyOf": [rest, {"type": "string", "pattern": pattern}]}
