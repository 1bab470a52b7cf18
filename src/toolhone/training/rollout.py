"""Episodes for learning: play a group for each task, score them, and turn what was sampled into rows.

    played = play_groups(policy, tasks, 8, registry, rewards, rules, step=12)
    rows = [row for group in played for row in group.rows(advantages)]

Token ids and log-probabilities go from the sampler into rows as they are. An episode is one row where history is only added to;
where a template rewrites it, each turn is a row behind the prompt that it was sampled from, and all share the advantage. Tokens
of tools, users and templates are never trained, nor are those that a reply was given to begin with. Nothing here updates a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from toolhone.episodes.clock import Clock
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.outcome import EpisodeRules
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.rewards.registry import Reward, RewardResult, compute_reward
from toolhone.rows import Origin, Row
from toolhone.schema import Task
from toolhone.tools.registry import Registry


@dataclass(frozen=True)
class RolloutGroup:
    """A task with the episodes that were played of it, and what each earned. The last `again` of them are second tries."""

    task: Task
    episodes: tuple[Episode, ...]
    paid: tuple[RewardResult, ...]
    again: int = 0

    @property
    def rewards(self) -> list[float]:
        return [one.total for one in self.paid]

    def whole(self) -> RolloutGroup:
        """Without episodes that the program broke off, or that hold no turn: what they earn says nothing about the policy."""
        kept = [
            i
            for i, episode in enumerate(self.episodes)
            if episode.turns and episode.ending is not EpisodeStatus.FAILED
        ]
        again = sum(i >= self.firsts for i in kept)
        return RolloutGroup(
            self.task,
            tuple(self.episodes[i] for i in kept),
            tuple(self.paid[i] for i in kept),
            again,
        )

    @property
    def firsts(self) -> int:
        """How many of the episodes, from the front, are first tries."""
        return len(self.episodes) - self.again

    def first_tries(self) -> RolloutGroup:
        """The group without second tries."""
        return RolloutGroup(self.task, self.episodes[: self.firsts], self.paid[: self.firsts])

    def joined_by(
        self, again: Sequence[Episode], score: Callable[[Task, Episode], RewardResult]
    ) -> RolloutGroup:
        """The group with these second tries."""
        paid = tuple(score(self.task, episode) for episode in again)
        return RolloutGroup(
            self.task, (*self.episodes, *again), (*self.paid, *paid), self.again + len(again)
        )

    def rows(self, advantages: Sequence[float]) -> list[Row]:
        """The rows of all episodes, each with its advantage at every sampled token."""
        return [
            row.with_arrays(advantages=row.mask.astype(np.float32) * np.float32(advantage))
            for episode, advantage in zip(self.episodes, advantages, strict=True)
            for row in rows_of(episode)
        ]


def rollout(
    policy: TokenPolicy,
    tasks: Sequence[Task],
    size: int,
    registry: Registry,
    score: Callable[[Task, Episode], RewardResult],
    rules: Callable[[Task], EpisodeRules],
    clock: Clock | None = None,
) -> list[RolloutGroup]:
    """Play each task `size` times at once, by the same rules; groups come in the order of the tasks.

    `clock` is told of the time that only tools took (`tools`) and that scoring took (`reward`).
    """
    clock = clock or Clock()
    many = [task for task in tasks for _ in range(size)]
    episodes = run_episodes(
        policy, many, registry, [own for own in map(rules, tasks) for _ in range(size)], clock=clock
    )
    groups = []
    with clock.on("reward"):
        for number, task in enumerate(tasks):
            own = tuple(episodes[number * size : (number + 1) * size])
            groups.append(RolloutGroup(task, own, tuple(score(task, episode) for episode in own)))
    return groups


def scorer(rewards: Sequence[Reward]) -> Callable[[Task, Episode], RewardResult]:
    """What an episode earns by these rewards."""
    return lambda task, episode: compute_reward(rewards, task, episode)


def rows_of(episode: Episode) -> list[Row]:
    """The rows of one episode: tokens as sampled, trained where the model spoke, with `behavior_logprobs` there.

    A turn joins the row before it when its prompt begins with all that stands in that row; else it begins a row of its own.
    """
    rows: list[_Growing] = []
    for turn in episode.turns:
        if not turn.tokens:
            continue
        if rows and list(turn.prompt[: len(rows[-1].tokens)]) == rows[-1].tokens:
            rows[-1].follow(turn)
        else:
            rows.append(_Growing.begin(turn))
    return [row.done() for row in rows]


@dataclass
class _Growing:
    """A row that turns are added to."""

    tokens: list[int]
    mask: list[bool]
    logprobs: list[float]
    origins: list[int]

    @staticmethod
    def begin(turn: Turn) -> _Growing:
        count = len(turn.prompt)
        row = _Growing(
            list(turn.prompt), [False] * count, [0.0] * count, [int(Origin.PROMPT)] * count
        )
        row._say(turn)
        return row

    def follow(self, turn: Turn) -> None:
        added = turn.prompt[len(self.tokens) :]
        self._add(added, [0.0] * len(added), False, Origin.TOOL)
        self._say(turn)

    def _say(self, turn: Turn) -> None:
        self._add(turn.given, [0.0] * len(turn.given), False, Origin.GIVEN)
        self._add(turn.tokens, turn.logprobs, True, Origin.SAMPLED)

    def _add(
        self, tokens: Sequence[int], logprobs: Sequence[float], trained: bool, origin: Origin
    ) -> None:
        self.tokens += tokens
        self.mask += [trained] * len(tokens)
        self.logprobs += logprobs
        self.origins += [int(origin)] * len(tokens)

    def done(self) -> Row:
        return Row.of(self.tokens, self.mask, self.origins).with_arrays(
            behavior_logprobs=np.asarray(self.logprobs, dtype=np.float32)
        )


def provenance(episode: Episode, decode: Callable[[Sequence[int]], str]) -> list[dict[str, Any]]:
    """The episode as pieces of text with where they come from: what a reader of logged episodes sees."""
    pieces: list[dict[str, Any]] = []
    for row in rows_of(episode):
        origin = np.zeros(len(row), np.uint8) if row.origin is None else row.origin
        edges = [0, *(np.flatnonzero(np.diff(origin)) + 1).tolist(), len(row)]
        for start, end in pairwise(edges):
            text = decode(row.tokens[start:end].tolist())
            pieces.append(
                {
                    "origin": Origin(int(origin[start])).name.lower(),
                    "tokens": end - start,
                    "text": text,
                }
            )
    return pieces
