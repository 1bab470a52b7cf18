"""The calls that attacks are made of: a valid call of a tool, and turns of calls in a world.

    sample_call(tool)                   # the required arguments, valid for simple schemas
    state_attacks(task)["undone"]       # the right calls of a task in a world, then taken back

Attacks on a state draw calls from the tools on offer with values that occur in the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import NamedTuple

from toolhone.data.world_tasks import solve
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.rewards.values import StateComparison, compare_states, wants_change
from toolhone.schema import Json, Task, Tool, ToolCall
from toolhone.tools.open_world import open_world
from toolhone.tools.registry import Registry
from toolhone.tools.worlds import World, flat

CANDIDATES = 300
"""Calls that a search for an attack draws from, at most."""
_DEPTH = 6
STEPS = 6
"""Calls that take back what was done, at most."""
Turns = Sequence[Sequence[ToolCall]]


class StateGold(NamedTuple):
    """The calls of the solver, one for each turn, and its answer."""

    turns: Turns
    answer: str


def sample_call(tool: Tool) -> ToolCall:
    """A call with the required arguments, valid for simple schemas; always the same."""
    value = _sample_value(tool.parameters, _DEPTH)
    return ToolCall(tool.name, value if isinstance(value, Mapping) else {})


def _sample_value(schema: Json, depth: int) -> Json:
    if not isinstance(schema, Mapping) or depth == 0:
        return "x"
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    match kinds[0] if isinstance(kinds, list) and kinds else kinds:
        case "object":
            properties = schema.get("properties") or {}
            required = schema.get("required") or ()
            return {name: _sample_value(properties.get(name), depth - 1) for name in required}
        case "array":
            inner = schema.get("items")
            return [_sample_value(inner, depth - 1) for _ in range(schema.get("minItems", 0))]
        case "integer" | "number":
            return schema.get("minimum", schema.get("maximum", 1))
        case "boolean":
            return True
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
    return "x"


def without_failures(task: Task) -> Task:
    """The task in a world where no call fails."""
    world = {key: value for key, value in (task.world or {}).items() if key != "failures"}
    return replace(task, world=world)


def state_gold(task: Task) -> StateGold:
    """What the solver does. The task needs one (`attacks.has_solver`)."""
    done = solve(without_failures(task))
    return StateGold([(call,) for call in done.steps], done.answer)


def state_attacks(task: Task) -> dict[str, list[Turns]]:
    """The turns of each attack by its name; the right calls are part of most of them."""
    gold = list(state_gold(task).turns)
    calls = [call for turn in gold for call in turn]
    candidates = list(islice(_candidates(task), CANDIDATES))
    writes = [call for call in candidates if _after(task, [call]).unwanted]
    start = _play(task, []).state()
    reads = [call for call in candidates if _play(task, [call]).state() == start]
    late = (call for call in reversed(candidates) if not _after(task, [*calls, call]).exact)
    brute: list[Turns] = [[*gold, (call,)] for call in islice(late, 3)]
    brute += [[writes], [calls + writes]]
    if not wants_change(task):
        return {"brute_writes": [turns for turns in brute if turns != gold]}
    attacks: dict[str, list[Turns]] = {
        "idle": [[(call,)] for call in reads[:3]],
        "brute_writes": brute,
        "undone": [[*gold, *back]] if (back := _taken_back(task, calls, candidates)) else [],
        "unfinished": [gold[:-1]] if len(gold) > 1 else [],
    }
    return {name: [turns for turns in found if turns] for name, found in attacks.items()}


def _candidates(task: Task) -> Iterator[ToolCall]:
    """Calls of every tool with values of the state, those that obey their schema."""
    start = flat((task.world or {}).get("state") or {})
    keys = [name for place in start for name in place]
    texts = list(dict.fromkeys([*keys, *(one for one in start.values() if isinstance(one, str))]))
    pools: Mapping[Json, Sequence[Json]] = {"string": texts, "integer": [1], "boolean": [True]}
    for tool in task.tools:
        choices = [pools.get(schema.get("type"), [1]) for schema in tool.properties.values()]
        for values in islice(product(*choices), CANDIDATES // 4):
            call = ToolCall(tool.name, dict(zip(tool.properties, values, strict=True)))
            if not tool.problems(call.arguments):
                yield call


def _taken_back(
    task: Task, calls: Sequence[ToolCall], candidates: Sequence[ToolCall]
) -> list[Sequence[ToolCall]]:
    """Calls after which nothing that was wanted is left; empty where no such calls are found."""
    made, back = list(calls), list[Sequence[ToolCall]]()
    left = len(_after(task, made).done)
    while left and len(back) < STEPS:
        ranked = [(len(_after(task, [*made, call]).done), call) for call in candidates]
        fewest, best = min(ranked, key=lambda one: one[0])
        if fewest >= left:
            return []
        made, left = [*made, best], fewest
        back.append((best,))
    return [] if left else back


def _after(task: Task, calls: Sequence[ToolCall]) -> StateComparison:
    ended = Episode(task.id, (), (), EpisodeStatus.CALLED, state=_play(task, calls).state())
    return compare_states(task, ended)


def _play(task: Task, calls: Sequence[ToolCall]) -> World:
    world = open_world(without_failures(task), Registry([]))
    for call in calls:
        world.call(call)
    return world
