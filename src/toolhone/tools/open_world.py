"""Worlds by name: the one that a task names, wrapped in the failures that it asks for.

task.world   {"name": "shop", "state": {...}, "seed": 0, "failures": {"rate": 0.2}}
             {"name": "replay", "recorded": [{"tool", "arguments", "content"}], "unrecorded"}
             {"name": "simulated", "returns": {tool: schema}}    # invented results that fit
world = open_world(task, registry)    # without `task.world` the live tools of the registry
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Task, Tool, ToolCall
from toolhone.schema.json_schema import fits_plainly
from toolhone.tools.calendar_world import CalendarWorld
from toolhone.tools.failing_world import FailingWorld, Failures
from toolhone.tools.files_world import FilesWorld
from toolhone.tools.number_maker import Undrawable
from toolhone.tools.registry import Registry
from toolhone.tools.replay_world import ReplayWorld, recordings_of
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.schema_sampler import Maker, Schemas, SchemaSampler, of_type
from toolhone.tools.shop_world import ShopWorld
from toolhone.tools.worlds import StateWorld, World, WorldError, draw

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
        self._drawn = dict[str, tuple[Maker, Validator]]()

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
        if name not in self._drawn:
            self._drawn[name] = _drawing(name, json.dumps(schema))
        maker, validator = self._drawn[name]
        value = maker(chance, False)
        with_known = _with_known(value, schema, known, Schemas(schema))
        for found in (with_known, value):
            if fits_plainly(found, schema) or validator.is_valid(found):
                return found
        keyword = next(validator.iter_errors(value)).validator
        raise WorldError(f"{_NONE.format(name)} {keyword!r}, which drawn values do not obey")

    def state(self) -> dict[str, Json]:
        """What was written, by id."""
        return {key: dict(value) for key, value in self._written.items()}

    def describe(self) -> str:
        given = len(self._returns)
        return f"simulated: {len(self._tools)} tools, {given} of them with a result schema"


_NONE = "no result of {} can be simulated: its result schema asks for"


@lru_cache(maxsize=4096)
def _drawing(name: str, text: str) -> tuple[Maker, Validator]:
    """Maker and validator for a tool's results, from the text of their schema; made once, since
    every episode has a world of its own."""
    schema = json.loads(text)
    try:
        return SchemaSampler(Tool(name, "", schema)).maker(schema, ()), validator_for(schema)(
            schema
        )
    except Undrawable as undrawable:
        raise WorldError(f"{_NONE.format(name)} {undrawable}") from None


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


STATE_WORLDS: Mapping[str, type[StateWorld]] = {
    world.name: world for world in (ShopWorld, FilesWorld, CalendarWorld)
}
"""The worlds with generators of tasks, by name."""
_KEYS: Mapping[str, tuple[str, ...]] = {
    "live": (),
    "replay": ("recorded", "unrecorded", "returns"),
    "simulated": ("returns",),
    **dict.fromkeys(STATE_WORLDS, ("state", "goal")),
}
"""The keys of each world beside `name`, `seed` and `failures`."""


@dataclass
class LiveWorld:
    """The tools of a registry, which has no state of its own to judge."""

    registry: Registry
    in_order = False

    def reset(self, seed: int) -> None:
        """Nothing: live tools have no start to return to."""

    def call(self, call: ToolCall) -> ToolResult:
        return self.registry.run(call)

    def state(self) -> None:
        return None

    def describe(self) -> str:
        return f"live: {', '.join(tool.name for tool in self.registry.tools)}"


def open_world(task: Task, registry: Registry) -> World:
    """Make the world of one episode of a task, reset to its start.

    `DataError` for a world that does not exist, or a task whose tools it lacks.
    """
    spec = task.world or {"name": "live"}
    where, name = f"the world of task {task.id!r}", str(spec.get("name"))
    if name not in _KEYS:
        right = f"{nearest(name, _KEYS)}; known: {', '.join(_KEYS)}"
        raise DataError(f"{where} is {name!r}, and there is none of that name{right}")
    keys = ("name", "seed", "failures", *_KEYS[name])
    for key in spec:
        if key not in keys:
            right = f"{nearest(str(key), keys)}; known: {', '.join(keys)}"
            raise DataError(f"{where} has an unknown key {key!r}{right}")
    for key, kind, right in (("seed", int, "a whole number"), ("state", Mapping, "an object")):
        if spec.get(key) is not None and not isinstance(spec[key], kind):
            raise DataError(f"{where}: {key!r} must be {right}, got {spec[key]!r:.60}")
    world: World
    if name in STATE_WORLDS:
        own = STATE_WORLDS[name]
        if missing := [tool.name for tool in task.tools if tool.name not in own.tool_names]:
            right = f"{nearest(missing[0], own.tool_names)}; its tools: {', '.join(own.tool_names)}"
            what = f"{missing[0]!r}, which the world {own.name!r} does not have{right}"
            raise DataError(f"task {task.id!r} offers {what}")
        world = own(spec.get("state") or {})
    else:
        simulated = SimulatedWorld(task.tools, spec.get("returns"))
        if name == "replay":
            recorded = recordings_of(spec.get("recorded") or (), where)
            world = ReplayWorld(recorded, spec.get("unrecorded", "error"), simulated)
        else:
            world = simulated if name == "simulated" else LiveWorld(registry)
    if spec.get("failures"):
        failures = Failures.of(spec["failures"], f"{where}: 'failures'")
        world = FailingWorld(world, failures, task.id)
    world.reset(spec.get("seed") or 0)
    return world
