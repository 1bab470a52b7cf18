"""What is known about a reward that has a name. The list of them is in `library`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from toolhone.episodes.episode import Episode
from toolhone.schema import Json, Task

Function = Callable[[Task, Episode], float | Mapping[str, float]]
"""A reward: a number, or named parts whose sum it is."""


class RewardOrigin(StrEnum):
    """Where a reward stands."""

    OWN = "own"
    """Ours: a right answer earns strictly most, and no attack passes its bound."""
    COMPATIBLE = "compatible"
    """Another system's, exactly, holes included."""


@dataclass(frozen=True)
class RewardSpec:
    """A reward of the library.

    `bounds` are the least and the most it pays; `judges` says on which tasks it means something; `syntax` is the call syntax that
    it reads by itself, if any; `holes` says for each attack that it pays too well why it does.
    """

    name: str
    function: Function
    kind: RewardOrigin
    formula: str
    source: str
    bounds: tuple[float, float]
    judges: Callable[[Task], bool]
    syntax: str | None = None
    holes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "formula": self.formula,
            "source": self.source,
            "bounds": list(self.bounds),
            "syntax": self.syntax,
            "holes": dict(self.holes),
        }
