"""Worlds by name: the one that a task names, wrapped in the failures that it asks for.

    task.world   {"name": "shop", "state": {...}, "seed": 0, "failures": {"rate": 0.2}}
                 {"name": "replay", "recorded": [{"tool", "arguments", "content"}], "unrecorded"}
                 {"name": "simulated", "returns": {tool: schema}}
    world = open_world(task, registry)

A task without a world has the live tools of the registry. `goal` in a world is for its solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Task, ToolCall
from toolhone.tools.calendar_world import CalendarWorld
from toolhone.tools.failing_world import FailingWorld, Failures
from toolhone.tools.files_world import FilesWorld
from toolhone.tools.registry import Registry
from toolhone.tools.replay_world import ReplayWorld, recordings_of
from toolhone.tools.result import ToolResult
from toolhone.tools.shop_world import ShopWorld
from toolhone.tools.simulated_world import SimulatedWorld
from toolhone.tools.worlds import StateWorld, World

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
    world = _open(spec, task, registry)
    if spec.get("failures"):
        failures = Failures.of(spec["failures"], f"{where}: 'failures'")
        world = FailingWorld(world, failures, task.id)
    world.reset(spec.get("seed") or 0)
    return world


def _open(spec: Mapping[str, Json], task: Task, registry: Registry) -> World:
    if (kind := STATE_WORLDS.get(spec["name"])) is not None:
        if missing := [tool.name for tool in task.tools if tool.name not in kind.tool_names]:
            right = f"{nearest(missing[0], kind.tool_names)}; its tools: "
            right += ", ".join(kind.tool_names)
            raise DataError(
                f"task {task.id!r} offers {missing[0]!r}, which the world {kind.name!r} "
                f"does not have{right}"
            )
        return kind(spec.get("state") or {})
    simulated = SimulatedWorld(task.tools, spec.get("returns"))
    if spec["name"] == "replay":
        recorded = recordings_of(spec.get("recorded") or (), f"the world of task {task.id!r}")
        return ReplayWorld(recorded, spec.get("unrecorded", "error"), simulated)
    return simulated if spec["name"] == "simulated" else LiveWorld(registry)
