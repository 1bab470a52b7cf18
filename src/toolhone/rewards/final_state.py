"""How the final state of an episode's world compares with the start and the expected state.

    found = compare_states(task, episode)
    found.share, found.exact        # of the wanted changes and of all changes made; whether equal

A state is compared value by value (`worlds.flat`); a list is one value. A section that
`expect.state` does not name is expected to stay as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolhone.episodes.episode import Episode
from toolhone.rewards.values import MISSING
from toolhone.schema import Json, Task
from toolhone.tools.worlds import flat

Place = tuple[str, ...]


@dataclass(frozen=True)
class StateComparison:
    """Places whose value should change, those of them that have the wanted value, and places whose
    value is neither that of the start nor wanted, or was wanted as it was."""

    wanted: frozenset[Place]
    done: frozenset[Place]
    unwanted: frozenset[Place]

    @property
    def share(self) -> float:
        """Wanted changes made / (wanted changes + unwanted ones): the Jaccard index."""
        both = len(self.wanted | self.unwanted)
        return len(self.done) / both if both else 1.0

    @property
    def exact(self) -> bool:
        return self.done == self.wanted and not self.unwanted


def compare_states(task: Task, episode: Episode) -> StateComparison:
    """Compare the state at the end of an episode; without any it is that of the start."""
    start = _start(task)
    first, wanted = flat(start), flat({**start, **(task.expect.state or {})})
    last = flat(start if episode.state is None else episode.state)

    def differing(one: Mapping[Place, Json], other: Mapping[Place, Json]) -> frozenset[Place]:
        places = {**one, **other}
        return frozenset(
            place for place in places if one.get(place, MISSING) != other.get(place, MISSING)
        )

    changes, missed = differing(first, wanted), differing(last, wanted)
    return StateComparison(changes, changes - missed, missed & differing(first, last))


def wants_change(task: Task) -> bool:
    """Whether the expected state differs from the start."""
    expected, start = task.expect.state, _start(task)
    return expected is not None and flat({**start, **expected}) != flat(start)


def _start(task: Task) -> Mapping[str, Json]:
    return (task.world or {}).get("state") or {}
