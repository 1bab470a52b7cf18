"""Benchmarks with a played user and tools that are not in the file.

    tools = tools_of_calls(calls)          # a tool for each name, with the arguments and types seen
    world = read_world(record, "initial_config")

A source counts such tools as `FROM_CALLS`. What the model that plays the user is told may stand for
the request; that is counted as `PLAYED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from toolhone.schema import Json, Tool, ToolCall
from toolhone.sources.base import Skip
from toolhone.sources.files import Record

FROM_CALLS = "tools put together from the calls of the file"
BAD_WORLD = "a world that is no object"
NO_LIST = "something else where a list should be"
PLAYED = "what a model that plays the user is told, taken for the request"


def tools_of_calls(calls: Iterable[ToolCall]) -> tuple[Tool, ...]:
    """Return a tool for each called name; every one of these calls obeys it."""
    seen: dict[str, list[Mapping[str, Json]]] = {}
    for call in calls:
        seen.setdefault(call.name, []).append(call.arguments)
    return tuple(Tool(name, "", _object(given)) for name, given in seen.items())


def read_world(record: Record, key: str) -> Mapping[str, Json] | None:
    """Return the world in which a task begins; `Skip` for one that is no object."""
    world = record.get(key)
    if world is not None and not isinstance(world, dict):
        raise Skip(BAD_WORLD, f"wanted an object in {key!r}, got {world!r:.60}")
    return world


def read_list(record: Record, key: str, where: str) -> list[Json]:
    """Return a list that may be left out; `Skip` for anything else."""
    value = record.get(key)
    if value is not None and not isinstance(value, list):
        raise Skip(NO_LIST, f"wanted a list in '{where}.{key}', got {value!r:.60}")
    return value or []


def schema_of(values: Sequence[Json]) -> dict[str, Json]:
    """Return a schema that all these values obey."""
    kinds = list(dict.fromkeys(map(json_type, values)))
    if "number" in kinds:
        kinds = [kind for kind in kinds if kind != "integer"]
    if not kinds:
        return {}
    made: dict[str, Json] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if kinds == ["object"]:
        return _object(values)
    if "array" in kinds:
        inner = schema_of([item for value in values if isinstance(value, list) for item in value])
        made |= {"items": inner} if inner else {}
    return made


def _object(values: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    names = list(dict.fromkeys(name for value in values for name in value))
    properties = {
        name: schema_of([value[name] for value in values if name in value]) for name in names
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [n for n in names if all(n in value for value in values)],
    }


def json_type(value: Json) -> str:
    """Return the name that JSON Schema has for the type of a value."""
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")
