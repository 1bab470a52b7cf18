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

from jsonschema.validators import validator_for

from toolhone.schema import Json, Tool, ToolCall
from toolhone.tools.number_maker import Undrawable
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.schema_sampler import Maker, Schemas, SchemaSampler, of_type
from toolhone.tools.worlds import WorldError, draw

WRITES = re.compile(
    r"(?i)^(?:add|book|buy|cancel|charge|close|create|delete|insert|issue|make|modify|notify|open"
    r"|order|pay|place|post|publish|put|record|refund|register|remove|rename|reply|reserve|save"
    r"|schedule|send|set|start|stop|store|submit|transfer|update|upload|write)"
)
"""Names of tools that change something."""
_REMOVES = re.compile(r"(?i)^(?:cancel|delete|remove)")
_ID = re.compile(r"(?i)(?:^|_)(?:id|key|code|number|name)$|Id$")


class SimulatedWorld:
    """Invented results of these tools; `returns`: result schemas by name of the tool."""

    in_order = True

    def __init__(self, tools: Sequence[Tool], returns: Mapping[str, Json] | None = None) -> None:
        self._tools, self._returns = {tool.name: tool for tool in tools}, dict(returns or {})
        self._seed, self._written = 0, dict[str, dict[str, Json]]()
        self._makers = dict[str, Maker]()
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
            value: Json = {**known, "status": known.get("status", "ok")}
        else:
            value = self._sample(call.name, schema, known, chance)
        if WRITES.search(call.name) and isinstance(value, dict):
            if schema is None and not _ids(call.arguments):
                value = {"id": f"{call.name[:1].lower()}{chance.randint(1000, 9999)}", **value}
            for key in _ids(value):
                if _REMOVES.search(call.name):
                    self._written.pop(key, None)
                else:
                    self._written[key] = {**self._written.get(key, {}), **call.arguments}
        return value

    def _sample(
        self, name: str, schema: Json, known: Mapping[str, Json], chance: random.Random
    ) -> Json:
        """A value that obeys the result schema; known fields keep their values where these fit."""
        trouble = f"no result of {name} can be simulated: its result schema asks for"
        if name not in self._makers:
            try:
                self._makers[name] = SchemaSampler(Tool(name, "", schema)).maker(schema, ())
            except Undrawable as undrawable:
                raise WorldError(f"{trouble} {undrawable}") from None
        value, validator = self._makers[name](chance, False), self._validators[name]
        with_known = _with_known(value, schema, known, Schemas(schema))
        if with_known != value and validator.is_valid(with_known):
            return with_known
        if error := next(validator.iter_errors(value), None):
            raise WorldError(f"{trouble} {error.validator!r}, which drawn values do not obey")
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


def _with_known(value: Json, schema: Json, known: Mapping[str, Json], schemas: Schemas) -> Json:
    """The value with the known fields of its objects, outside lists, whose type fits."""
    if not known or not isinstance(value, Mapping):
        return value
    found, plain = dict(value), schemas.fitting(schema, value)
    for key in plain.get("properties") or {}:
        inner = schemas.property(plain, key)
        if key in known and of_type(known[key], schemas.fitting(inner, known[key]).get("type")):
            found[key] = known[key]
        elif key in found:
            found[key] = _with_known(found[key], inner, known, schemas)
    return found
