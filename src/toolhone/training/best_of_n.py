"""Rejection sampling: play each task several times and keep the best of the model's own episodes.

    for record in OwnSamples(env, experiment).write(sampler, number=1, first=0): ...

Kept are episodes with at least `min_reward`, one for each distinct answer; their token ids are
trained on exactly as sampled. Best of n as in RFT (Yuan et al. 2023, arXiv:2308.01825) and ReST
(Gulcehre et al. 2023, arXiv:2308.08998), by reward.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from toolhone.backends.base import Sampler
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import TeacherSection
from toolhone.episodes.episode import Episode
from toolhone.rows import Row
from toolhone.training.rollout import RLEnv, RolloutGroup, rollout, rows_of, score
from toolhone.training.update import TASK_ORDER, seeded_batch

STREAMS = 1_000_000
"""Random streams of a round: more than it has tasks."""


class OwnSamples:
    """The lessons (`teacher.Lessons`) that a model draws from its own episodes."""

    def __init__(self, env: RLEnv, experiment: Experiment) -> None:
        self.env, self.experiment, self.hooks = env, experiment, env.hooks
        wanted = experiment.teacher.tasks
        self.size = min(wanted or len(env.tasks), len(env.tasks))
        self.labelled: Sequence[Row] = env.labelled
        self.held_out: Sequence[Row] = ()

    def write(self, sampler: Sampler, number: int, first: int) -> Iterator[dict[str, Any]]:
        """A record for each task; tasks are played `training.batch_size` at a time."""
        plan, seed = self.experiment.training, self.experiment.seed
        tasks = seeded_batch(self.env.tasks, self.size, seed, number - 1, TASK_ORDER)
        for start in range(first - first % plan.batch_size, self.size, plan.batch_size):
            part = tasks[start : start + plan.batch_size]
            groups = rollout(self.env, sampler, part, self.experiment, number * STREAMS + start)
            for place, group in enumerate(score(groups, self.env), start):
                if place >= first:
                    yield record_of(group, self.experiment.teacher)


def record_of(group: RolloutGroup, plan: TeacherSection) -> dict[str, Any]:
    """What became of the episodes of a task; episodes that failed count in no mean."""
    kept, reasons = best_episodes(group, plan)
    rows = [row for episode in kept for row in rows_of(episode)]
    stored = [
        {"tokens": row.tokens.tolist(), "origin": np.asarray(row.origin).tolist()} for row in rows
    ]
    played = group.without_failures()
    best = [max(played.rewards)] if played.episodes else []
    return {
        "id": group.task.id,
        "proposed": len(group.episodes),
        "ran": len(played.episodes),
        "kept": len(kept),
        "means": {"reward": played.rewards, "best_reward": best, "solved": [int(bool(kept))]},
        "reasons": dict(reasons),
        "texts": [[turn.text for turn in episode.turns] for episode in kept],
        "rows": stored,
    }


def best_episodes(group: RolloutGroup, plan: TeacherSection) -> tuple[list[Episode], Counter[str]]:
    """The episodes to learn from, best first, and why the others are not."""
    played = group.without_failures()
    reasons = Counter[str]()
    if lost := len(group.episodes) - len(played.episodes):
        reasons["episodes that failed or timed out"] = lost
    ranked = sorted(range(len(played.episodes)), key=lambda i: -played.rewards[i])
    kept: dict[str, Episode] = {}
    for place in ranked:
        episode, answer = played.episodes[place], answer_of(played.episodes[place])
        if played.rewards[place] < plan.min_reward:
            reasons["episodes below min_reward"] += 1
        elif answer in kept:
            reasons["episodes with the answer of a kept one"] += 1
        elif len(kept) == plan.keep:
            reasons["episodes beyond keep"] += 1
        else:
            kept[answer] = episode
    return list(kept.values()), reasons


def answer_of(episode: Episode) -> str:
    """Calls and final answer: episodes with equal ones say the same."""
    calls = [call.to_dict() for call in episode.calls]
    return json.dumps([calls, episode.answer], sort_keys=True)
