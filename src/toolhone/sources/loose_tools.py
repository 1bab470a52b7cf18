"""Tools whose schemas are JSON Schema in all but small things, put right before `offered` reads them. For sets made for evaluation.

    tools, repairs = LooseTools().read([{"name": "f", "description": "...", "arguments": {"type": "dict", "properties": {...}}}])

Put right, at any depth, each counted: a schema under `arguments` instead of `parameters`; a default of null, which is none; a
type without a name; `required` as a truth value inside a property, which goes into the list of the object; choices (`enum`)
written as texts where the type is a number or a truth value; a `pattern` that is no regular expression. The rest, names of types
among it, is the work of `offered`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from toolhone.schema import Json, Tool
from toolhone.sources.base import Skip
from toolhone.sources.offered import OfferedTools, Reason, from_text, typed
from toolhone.sources.python_types import UnknownType, read_type

_ONE = ("items", "additionalProperties")
_SEVERAL = ("anyOf", "oneOf", "allOf")


class Repair(StrEnum):
    """How a tool was mended; besides these, the repairs of `offered`."""

    ARGUMENTS = "a tool whose schema stands under 'arguments'"
    NULL_DEFAULT = "a default of null left out"
    NO_TYPE = "a type without a name left out"
    REQUIRED = "required marks inside parameters put into the tool's list"
    CHOICES = "choices of a parameter written as values of another type"
    PATTERN = "a pattern that is no regular expression left out"


class LooseTools:
    """Reads the tools of rows, as `OfferedTools` does."""

    def __init__(self) -> None:
        self._offered = OfferedTools()

    def read(self, value: Json) -> tuple[tuple[Tool, ...], set[str]]:
        """The tools of one row and how they were mended; `Skip` for what is no list of tools."""
        repairs: set[str] = set()
        listed = from_text(value, Reason.BAD_TOOLS, "tools")
        try:
            tools, mended = self._offered.read(_tidied(listed, repairs))
        except RecursionError:
            raise Skip(Reason.BAD_TOOLS, "nested too deeply") from None
        return tools, repairs | mended


def _tidied(listed: Json, repairs: set[str]) -> Json:
    if not isinstance(listed, list):
        return listed
    return [_tool(from_text(entry, Reason.BAD_TOOLS, "tools"), repairs) for entry in listed]


def _tool(entry: Json, repairs: set[str]) -> Json:
    if not isinstance(entry, dict):
        return entry
    made = dict(entry)
    if "parameters" not in made and isinstance(made.get("arguments"), dict):
        repairs.add(Repair.ARGUMENTS)
        made["parameters"] = made.pop("arguments")
    return (
        {**made, "parameters": _schema(made["parameters"], repairs)}
        if isinstance(made.get("parameters"), dict)
        else made
    )


def _schema(schema: Mapping[str, Json], repairs: set[str]) -> dict[str, Json]:
    plain = _level(dict(schema), repairs)
    for key in _ONE:
        if isinstance(plain.get(key), dict):
            plain[key] = _schema(plain[key], repairs)
    for key in _SEVERAL:
        if isinstance(plain.get(key), list):
            plain[key] = [
                _schema(inner, repairs) if isinstance(inner, dict) else inner
                for inner in plain[key]
            ]
    if isinstance(plain.get("properties"), dict):
        made = {
            name: _schema(inner, repairs) if isinstance(inner, dict) else inner
            for name, inner in plain["properties"].items()
        }
        plain["properties"] = made
        _lift_marks(plain, repairs)
    return plain


def _level(schema: dict[str, Json], repairs: set[str]) -> dict[str, Json]:
    """One level of a schema: its type, default, choices and pattern."""
    if "default" in schema and schema["default"] is None:
        repairs.add(Repair.NULL_DEFAULT)
        del schema["default"]
    if isinstance(schema.get("type"), str) and not schema["type"].strip():
        repairs.add(Repair.NO_TYPE)
        del schema["type"]
    if isinstance(schema.get("enum"), list):
        made = [typed(value, _json_type(schema.get("type"))) for value in schema["enum"]]
        if made != schema["enum"]:
            repairs.add(Repair.CHOICES)
            schema["enum"] = made
    if isinstance(schema.get("pattern"), str) and not _is_expression(schema["pattern"]):
        repairs.add(Repair.PATTERN)
        del schema["pattern"]
    return schema


def _lift_marks(schema: dict[str, Json], repairs: set[str]) -> None:
    """Tell what properties say of themselves, `required: true`, in the list of their object."""
    properties = schema["properties"]
    marks = {name: inner.pop("required") for name, inner in properties.items() if _is_marked(inner)}
    if marks:
        repairs.add(Repair.REQUIRED)
        given = schema.get("required")
        listed = given if isinstance(given, list) else []
        schema["required"] = [
            *listed,
            *(name for name, needs in marks.items() if needs and name not in listed),
        ]


def _is_marked(schema: Json) -> bool:
    return isinstance(schema, dict) and isinstance(schema.get("required"), bool)


def _json_type(name: Json) -> Json:
    try:
        return read_type(name).schema.get("type") if isinstance(name, str) else None
    except UnknownType:
        return None


def _is_expression(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
