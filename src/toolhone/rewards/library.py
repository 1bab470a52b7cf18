"""Every reward that has a name: what it pays for, where it comes from, and the holes it is known to have.

    LIBRARY["tool_use"].function(task, episode)      {"tools": 0.3, "arguments": 0.4, "exact": 0.3, ...}
    describe("tool_call_function")                   all about it, as JSON
    warnings_for(["tool_call_function"])             what to say before training on it alone

A hole is an attack of `attacks` that earns as much as a right answer, or far more than it is worth; the suite finds them, and a test
holds that those listed here are those found. Our own rewards have none. Rewards of the user's own are not here: see `own`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from toolhone.episodes.episode import Episode
from toolhone.owncode import is_own_code
from toolhone.rewards import guided, tool_use
from toolhone.rewards.json_answer import json_answer
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.playground import legacy_playground_format
from toolhone.schema import Json, Task

Function = Callable[[Task, Episode], float | Mapping[str, float]]
"""A reward: a number, or named parts whose sum it is."""


class Kind(StrEnum):
    """Where a reward stands."""

    OWN = "own"
    """Ours: a right answer earns strictly most, and no attack passes its bound."""
    COMPATIBLE = "compatible"
    """Another system's, exactly, holes included."""


@dataclass(frozen=True)
class Named:
    """A reward of the library. `low` and `high` bound what it pays; `syntax` is the call syntax it reads by itself, if any."""

    name: str
    function: Function
    kind: Kind
    formula: str
    source: str
    low: float
    high: float
    judges: Callable[[Task], bool] = judges_calls
    syntax: str | None = None
    holes: Mapping[str, str] = field(default_factory=dict)


_HERE = "Toolhone"
_GUIDED = "mlx-guided-grpo (MIT), examples/tool_calling_training.md"

OWN: tuple[Named, ...] = (
    Named(
        "tool_use",
        tool_use.tool_use,
        Kind.OWN,
        "0.3 tools + 0.4 arguments + 0.3 exact, or 1 for no call where none is wanted; the final answer; each half where both are; fines",
        _HERE,
        -2.85,
        1.0,
        tool_use.judges,
    ),
    Named("right_calls", tool_use.right_calls, Kind.OWN, "0.3 tools + 0.4 arguments + 0.3 exact, fines", _HERE, -2.85, 1.0),
    Named("right_tools", tool_use.right_tools, Kind.OWN, "0.5 tools + 0.25 arguments + 0.25 exact, fines", _HERE, -2.85, 1.0),
    Named("exact_calls", tool_use.exact_calls, Kind.OWN, "1 for exactly the wanted calls, fines", _HERE, -2.85, 1.0),
    Named(
        "working_calls",
        tool_use.working_calls,
        Kind.OWN,
        "0.5 wanted calls that ran + 0.5 those of them that are right, by the larger number of calls, fines",
        _HERE,
        -2.85,
        1.0,
    ),
    Named(
        "right_answer",
        tool_use.right_answer,
        Kind.OWN,
        "1 for the expected answer in the final text, 1/k among k candidates, fines",
        _HERE,
        -2.85,
        1.0,
        tool_use.judges_answers,
    ),
)

COMPATIBLE: tuple[Named, ...] = ()

LIBRARY: Mapping[str, Named] = {named.name: named for named in (*OWN, *COMPATIBLE)}


def describe(name: str) -> dict[str, Json]:
    """All about a reward of the library."""
    named = LIBRARY[name]
    return {
        "name": named.name,
        "kind": named.kind.value,
        "formula": named.formula,
        "source": named.source,
        "low": named.low,
        "high": named.high,
        "syntax": named.syntax,
        "holes": dict(named.holes),
    }


def warnings_for(names: Sequence[str]) -> list[str]:
    """What to say before training on these rewards: the holes of compatible ones, unless another reward stands beside them.

    Another reward is one of ours or of the user's own.
    """
    found = [LIBRARY[name] for name in names if name in LIBRARY]
    if any(is_own_code(name) for name in names) or any(named.kind is Kind.OWN for named in found):
        return []
    beside = "used alone" if len(found) == 1 else "used without a reward that has none"
    return [
        f"the reward {named.name} has known holes and is {beside}: {', '.join(named.holes)} (toolhone rewards list); "
        "put tool_use beside it, or in its place"
        for named in found
        if named.holes
    ]


def syntax_of(names: Sequence[str]) -> str | None:
    """The call syntax that all these rewards read by themselves; None where they read none, or not the same."""
    found = {LIBRARY[name].syntax if name in LIBRARY else None for name in names}
    return found.pop() if len(found) == 1 else None
