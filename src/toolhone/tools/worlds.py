"""What answers the calls of an episode: a world of its own, which may have a state.

world = open_world(task, registry)       # open_world.py: the one that `task.world` names
world.call(ToolCall("add_to_cart", {"product": "p17", "quantity": 2}))     # a ToolResult
world.state()                            # {"cart": {"p17": 2}, ...}
"""

from __future__ import annotations

import copy
import hashlib
import json
import operator
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from toolhone.errors import DataError
from toolhone.schema import Json, Tool, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

Plan = Generator[ToolCall, Any, str]
"""A solver: yields calls, is sent the value of each result, and returns the final answer."""


class WorldError(Exception):
    """The environment broke, not the model: the episode ends as failed and is not learned from."""


class World(Protocol):
    """One instance belongs to one episode. `in_order`: calls of a turn run one after the other."""

    in_order: bool

    def reset(self, seed: int) -> None:
        """Return to the start. What is drawn later depends on `seed` and on the calls alone."""
        ...

    def call(self, call: ToolCall) -> ToolResult:
        """Make a call of a tool on offer. `WorldError` where the environment broke."""
        ...

    def state(self) -> dict[str, Json] | None:
        """A copy of the state now; None where there is none to judge."""
        ...

    def describe(self) -> str:
        """One line for logs."""
        ...


@dataclass(frozen=True)
class Assignment:
    """What a generator of tasks makes: a start, and its goal in a form for the solver.

    expected: the sections of the final state that change. answer: what the final text must carry.
    words: what the request says, by the names in braces of `StateWorld.requests`.
    """

    state: dict[str, Json]
    goal: dict[str, Json]
    words: Mapping[str, Json]
    expected: dict[str, Json] = field(default_factory=dict)
    answer: str | None = None


class StateWorld:
    """A small world whose tools are methods that read and change `now`, a JSON object.

    A method raises `ValueError` for a call that the world refuses; nothing changes then.
    levels: kinds of tasks by difficulty, the easiest first. requests: phrasings of each kind.
    """

    in_order = True
    name: ClassVar[str]
    about: ClassVar[str]
    tool_names: ClassVar[tuple[str, ...]]
    levels: ClassVar[tuple[tuple[str, ...], ...]]
    requests: ClassVar[Mapping[str, Sequence[str]]]

    def __init__(self, state: Mapping[str, Json]) -> None:
        self._start = copy.deepcopy(dict(state))
        self.now: dict[str, Any] = {}
        self.reset(0)

    @classmethod
    def tools(cls) -> tuple[Tool, ...]:
        """The tools as the model sees them."""
        return tuple(_tool_of(cls, name) for name in cls.tool_names)

    @classmethod
    def assign(cls, level: int, rng: random.Random, held_out: bool) -> tuple[str, Assignment]:
        """Make a task of difficulty `level` (from 1), with its request."""
        kind = rng.choice(cls.levels[level - 1])
        made = cls.draft(kind, rng, held_out)
        return rng.choice(cls.requests[kind]).format(**made.words), made

    @classmethod
    def draft(cls, kind: str, rng: random.Random, held_out: bool) -> Assignment:
        """Make a task of one of the kinds. Held-out tasks have words of their own (`part`)."""
        raise NotImplementedError

    @classmethod
    def solve(cls, goal: Mapping[str, Json]) -> Plan:
        """Reach a goal by calls; what a call needs from an earlier result is read from it."""
        raise NotImplementedError

    def reset(self, seed: int) -> None:  # noqa: ARG002 (nothing is drawn after the start)
        self.now = copy.deepcopy(self._start)

    def call(self, call: ToolCall) -> ToolResult:
        tool = _tool_of(type(self), call.name)
        problems = tool.problems(call.arguments)
        problems += [f"unknown argument {key!r}" for key in call.arguments.keys() - tool.properties]
        if problems:
            wrong = f"{call.name}: {'; '.join(problems[:3])}"
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, wrong)
        try:
            value = getattr(self, call.name)(**call.arguments)
        except ValueError as error:
            return ToolResult(ToolStatus.ERROR, str(error))
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return ToolResult(ToolStatus.OK, value if isinstance(value, str) else text, value)

    def state(self) -> dict[str, Json]:
        return copy.deepcopy(self.now)

    def describe(self) -> str:
        return f"{self.name}: {self.about}"

    def entry(self, section: str, key: str) -> Any:
        """What a section of the state has under a key; `ValueError` where there is nothing."""
        if key not in self.now[section]:
            raise ValueError(f"there is no {key!r} in {section}")
        return self.now[section][key]


_TOOLS: dict[tuple[type[StateWorld], str], Tool] = {}


def _tool_of(world: type[StateWorld], name: str) -> Tool:
    """The tool of a method, made once; its function is left out, since it needs an instance."""
    if name not in world.tool_names:
        known = ", ".join(world.tool_names)
        raise DataError(f"the world {world.name!r} has no tool {name!r}; its tools: {known}")
    if (world, name) not in _TOOLS:
        made = Tool.of(getattr(world, name).__get__(object()))
        _TOOLS[world, name] = Tool(made.name, made.description, made.parameters)
    return _TOOLS[world, name]


_NAME_LETTERS = ("bdfgklmnprstvz", "aeiou", "bdfgklmnprstvz", "aeiou", "lnrstx")


def draw(*key: Json) -> random.Random:
    """A random stream that depends on these values alone, on every machine."""
    text = json.dumps(key, sort_keys=True, default=str).encode("utf-8", "replace")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def flat(state: Mapping[str, Json], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Json]:
    """The values of a state by their path; a list is one value."""
    found: dict[tuple[str, ...], Json] = {}
    for name, value in state.items():
        inner = (*path, str(name))
        found |= flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return found


def new_names(rng: random.Random, count: int, held_out: bool) -> list[str]:
    """Different invented names such as `belan`; those of held-out tasks (every fifth) are in no
    other task. There are 29,000, so that a model has to copy them.
    """
    found = dict[str, None]()
    while len(found) < count:
        places = [rng.randrange(len(letters)) for letters in _NAME_LETTERS]
        name = "".join(map(operator.getitem, _NAME_LETTERS, places))
        if (sum(places) % 5 == 4) is held_out:
            found[name] = None
    return list(found)


def phrasings(actions: Sequence[str], things: Sequence[str]) -> tuple[str, ...]:
    """Requests of each action with each way to name the thing, which is `{what}` in the action."""
    made = (action.replace("{what}", thing) for action in actions for thing in things)
    return tuple(dict.fromkeys(made))
