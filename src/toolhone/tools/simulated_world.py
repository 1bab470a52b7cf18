"""The world `simulated`: invented results that fit a tool, so that any data set can be played.

    SimulatedWorld(task.tools, returns={"get_user": {"type": "object", "properties": {...}}})

A result obeys the tool's result schema where one is given; else its fields follow from the tool's
name and parameters. The same call gives the same answer for the same seed, arguments come back as
they were given, and what a call wrote under an id is found again by a call that names that id.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jsonschema.validators import validator_for

from toolhone.schema import Json, Tool, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.worlds import WorldError, draw

_DEPTH = 5
_WRITES = re.compile(
    r"(?i)^(?:add|book|buy|cancel|create|delete|insert|make|modify|order|place|post|put|record"
    r"|register|remove|reserve|save|schedule|send|set|store|submit|update|write)"
)
_REMOVES = re.compile(r"(?i)^(?:cancel|delete|remove)")
_ID = re.compile(r"(?i)(?:^|_)(?:id|key|code|number|name)$|Id$")
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade")
_FORMATS: Final[Mapping[str, str]] = {
    "date": "20{:02d}-{:02d}-{:02d}",
    "date-time": "20{:02d}-{:02d}-{:02d}T09:00:00Z",
    "time": "{1:02d}:{2:02d}:00",
    "email": "{0}{1}@example.org",
    "uri": "https://example.org/{0}/{1}/{2}",
    "url": "https://example.org/{0}/{1}/{2}",
}
"""Texts by JSON Schema format, from a year, a month and a day."""
_NAMED = {"date": "date", "time": "time", "email": "email", "url": "uri", "link": "uri"}
"""Words in the name of a field that say its format."""
_NUMBERS = ("price", "cost", "amount", "total", "count", "age", "temperature", "rate", "score")


class SimulatedWorld:
    """Invented results of these tools; `returns`: result schemas by name of the tool."""

    in_order = True

    def __init__(self, tools: Sequence[Tool], returns: Mapping[str, Json] | None = None) -> None:
        self._tools, self._returns = {tool.name: tool for tool in tools}, dict(returns or {})
        self._seed, self._written = 0, dict[str, dict[str, Json]]()
        self._validators = {name: validator_for(one)(one) for name, one in self._returns.items()}

    def reset(self, seed: int) -> None:
        self._seed, self._written = seed, {}

    def call(self, call: ToolCall) -> ToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolResult(ToolStatus.UNKNOWN_TOOL, f"there is no tool {call.name!r}")
        if problems := tool.problems(call.arguments):
            wrong = f"{call.name}: {'; '.join(problems[:3])}"
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, wrong)
        value = self._answer(call)
        return ToolResult(ToolStatus.OK, json.dumps(value, ensure_ascii=False), value)

    def _answer(self, call: ToolCall) -> Json:
        chance = draw(self._seed, call.name, dict(call.arguments))
        schema = self._returns.get(call.name)
        known = {
            name: value
            for key in _ids(call.arguments)
            for name, value in self._written.get(key, {}).items()
        }
        known |= call.arguments
        if schema is None:
            value: Json = {**known, "status": "ok"} if known else {"status": "ok"}
        else:
            value = _sample(schema, known, chance, _DEPTH, call.name)
            if error := next(self._validators[call.name].iter_errors(value), None):
                raise WorldError(
                    f"no result of {call.name} can be simulated: its result schema asks for "
                    f"{error.validator!r}; types, enums, bounds, lengths and formats are obeyed"
                )
        if _WRITES.search(call.name) and isinstance(value, dict):
            if schema is None and not _ids(call.arguments):
                value = {"id": f"{call.name[:1].lower()}{chance.randint(1000, 9999)}", **value}
            for key in _ids(value):
                if _REMOVES.search(call.name):
                    self._written.pop(key, None)
                else:
                    self._written[key] = {**self._written.get(key, {}), **call.arguments}
        return value

    def state(self) -> dict[str, Json]:
        """What was written, by id."""
        return {key: dict(value) for key, value in self._written.items()}

    def describe(self) -> str:
        given = len(self._returns)
        return f"simulated: {len(self._tools)} tools, {given} of them with a result schema"


def _ids(values: Mapping[str, Json]) -> list[str]:
    """The values that name a thing: of fields such as `id`, `order_id`, `userId`, `name`."""
    return [
        str(value)
        for name, value in values.items()
        if _ID.search(name) and isinstance(value, str | int) and not isinstance(value, bool)
    ]


def _sample(
    schema: Json, known: Mapping[str, Json], chance: random.Random, depth: int, name: str
) -> Json:
    """A value that obeys a schema; a field that is known keeps its value where its type fits."""
    if not isinstance(schema, Mapping):
        return _text({}, chance, name)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return chance.choice(list(schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _sample(schema[key][0], known, chance, depth, name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        found: dict[str, Any] = {}
        for key, inner in (schema.get("properties") or {}).items():
            wanted = key in (schema.get("required") or ())
            if depth > 0 or wanted:
                fits = key in known and _fits(known[key], inner)
                found[key] = known[key] if fits else _sample(inner, known, chance, depth - 1, key)
        return found
    if kind == "array":
        least = schema.get("minItems", 1)
        count = max(least, min(schema.get("maxItems", 2), 2)) if depth > 0 else least
        return [_sample(schema.get("items"), {}, chance, depth - 1, name) for _ in range(count)]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 1), schema.get("maximum", 100)
        low, high = (low, max(low, high)) if "minimum" in schema else (min(low, high), high)
        whole = kind == "integer" or isinstance(low, int)
        return chance.randint(int(low), int(high)) if whole else chance.uniform(low, high)
    if kind == "boolean":
        return chance.random() < 0.5
    return None if kind == "null" else _text(schema, chance, name)


def _text(schema: Mapping[str, Json], chance: random.Random, name: str) -> str:
    """A text by its format, or by the name of its field."""
    words = name.lower()
    form = schema.get("format") or next((_NAMED[one] for one in _NAMED if one in words), None)
    numbers = chance.randint(20, 39), chance.randint(1, 12), chance.randint(1, 28)
    if isinstance(form, str) and form in _FORMATS:
        return _FORMATS[form].format(*numbers)
    if "format" not in schema and any(one in words for one in _NUMBERS):
        return str(numbers[0] * numbers[1])
    text = f"{chance.choice(_WORDS)}-{numbers[1]}{numbers[2]}"
    text += "x" * (int(schema.get("minLength", 0)) - len(text))
    most: int = schema.get("maxLength", len(text))
    return text[:most]


def _fits(value: Json, schema: Json) -> bool:
    """Whether a value has the type, and is one of the values, that a schema of one field names."""
    if not isinstance(schema, Mapping):
        return True
    kinds = {"string": str, "integer": int, "number": int | float, "boolean": bool}
    kind = schema.get("type")
    own = kinds.get(kind) if isinstance(kind, str) else None
    if own is None or not isinstance(value, own) or (own is not bool and isinstance(value, bool)):
        return False
    return not schema.get("enum") or value in schema["enum"]
