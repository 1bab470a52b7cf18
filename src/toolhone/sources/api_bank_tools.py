"""The APIs of API-Bank as tools: from its table, from what its tool searcher tells, or from the calls themselves. For `api_bank`.

    known = read_table(Path("all_apis.csv")) | searched(calls)
    tool, by_calls = tool_of(known["AddAlarm"], calls_of_it)

A row of the table holds the name of a class, its parameters as a Python signature, and a text in Python with `description` and
`input_parameters`; the two often name different parameters, and both count. That text is read as literals and never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.errors import DataError
from toolhone.schema import Json, Tool
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import typed
from toolhone.sources.python_types import UnknownType, read_type

SEARCHER = Tool(
    "ToolSearcher",
    "Finds an API by keywords and tells its name, what it does and its parameters.",
    {
        "type": "object",
        "properties": {"keywords": {"type": "string", "description": "Words to search for."}},
        "required": ["keywords"],
    },
)
_CLASS, _SIGNATURE, _INFO = "类名", "input_parameters", "api_info"
_PARAMETER = re.compile(r"(\w+)\s*:\s*(\w+(?:\[[^\]]*\])?)")
_KINDS = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


@dataclass(frozen=True)
class Api:
    """An API as it is described: a schema for each parameter."""

    name: str
    description: str
    parameters: Mapping[str, Record]


@dataclass(frozen=True)
class Called:
    """A call: its arguments as the dialogue writes them, and as the API received them; and what it gave."""

    name: str
    written: Record
    received: Record
    output: Json = None

    @staticmethod
    def of(turn: Record) -> Called:
        """Values that were received in another type (`"2"` as 2, `"['a']"` as a list) are taken so."""
        written = turn["param_dict"] if isinstance(turn["param_dict"], dict) else {}
        result = turn["result"] if isinstance(turn["result"], dict) else {}
        given = result.get("input")
        got: Record = given if isinstance(given, dict) else {}
        received = {
            name: got[name] if name in got and str(got[name]) == value else value
            for name, value in written.items()
        }
        return Called(str(turn["api_name"]), written, received, result.get("output"))


def read_table(path: Path) -> dict[str, Api]:
    """The APIs of `all_apis.csv` by name."""
    known = {}
    for line, row in read_records(path):
        if not row.keys() >= {_CLASS, _SIGNATURE, _INFO}:
            raise DataError(
                f"{line}: not the table of API-Bank; wanted the columns {_CLASS}, {_SIGNATURE} and {_INFO}"
            )
        described = {name: {"type": kind} for name, kind in _PARAMETER.findall(row[_SIGNATURE])}
        for name, told in _literal(row[_INFO], "input_parameters", {}).items():
            described[name] = told if isinstance(told, dict) else {}
        parameters = {name: _schema(line, name, told) for name, told in described.items()}
        known[row[_CLASS]] = Api(
            row[_CLASS], str(_literal(row[_INFO], "description", "")), parameters
        )
    return known


def _literal(text: str, name: str, otherwise: Json) -> Json:
    """The value that is given to a name in Python text; `otherwise` where there is none."""
    found = re.search(rf"^\s*{name}\s*=", text, re.MULTILINE)
    if found is None:
        return otherwise
    try:
        value = LiteralReader(text, found.end()).value()
    except LiteralError:
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def _schema(line: FileLine | str, name: str, told: Mapping[str, Json]) -> Record:
    try:
        schema: Record = dict(read_type(str(told.get("type", "any"))).schema)
    except UnknownType:
        raise DataError(
            f"{line}: parameter {name!r} has the unknown type {told.get('type')!r:.40}"
        ) from None
    return (
        {**schema, "description": str(told["description"])} if told.get("description") else schema
    )


def searched(calls: Iterable[Called]) -> dict[str, Api]:
    """The APIs that `ToolSearcher` found, by name; what it gave that is no description is left to the dialogue."""
    known = {}
    for called in calls:
        given = called.output if called.name == SEARCHER.name else None
        for found in given if isinstance(given, list) else [given]:
            if isinstance(found, dict) and isinstance(found.get("name"), str):
                told = found.get("input_parameters") or {}
                parameters = {
                    name: _schema(f"ToolSearcher on {found['name']}", name, each)
                    for name, each in told.items()
                }
                known[found["name"]] = Api(
                    found["name"], str(found.get("description") or ""), parameters
                )
    return known


def tool_of(api: Api, calls: Sequence[Called]) -> tuple[Tool, bool]:
    """The tool, and whether its parameters had to be taken from its calls."""
    given = list(dict.fromkeys(name for called in calls for name in called.received))
    by_calls = any(name not in api.parameters for name in given)
    names = given if by_calls else list(api.parameters)
    parameters = {name: _fitting(name, api.parameters.get(name), calls) for name in names}
    by_calls = by_calls or any(parameters[name] is not api.parameters[name] for name in names)
    required = [name for name in parameters if all(name in called.received for called in calls)]
    schema = {"type": "object", "properties": parameters, "required": required}
    return Tool(api.name, api.description, schema), by_calls


def _fitting(name: str, described: Record | None, calls: Sequence[Called]) -> Record:
    """The described schema of a parameter where all its values fit it, else what their types say."""
    if described is None:
        return _seen(name, calls)
    tool = Tool("", "", {"type": "object", "properties": {name: described}})
    values = [called.received[name] for called in calls if name in called.received]
    fits = not any(tool.problems({name: typed(value, described.get("type"))}) for value in values)
    return (
        described
        if fits
        else {
            **_seen(name, calls),
            **{key: described[key] for key in ("description",) if key in described},
        }
    )


def _seen(name: str, calls: Sequence[Called]) -> Record:
    """The types that the values of a parameter have."""
    kinds = dict.fromkeys(
        _kind(called.received[name]) for called in calls if name in called.received
    )
    return {"type": list(kinds) if len(kinds) > 1 else next(iter(kinds))}


def _kind(value: Json) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
