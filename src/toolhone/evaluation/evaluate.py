"""Play tasks with a policy and score the episodes.

    evaluation = evaluate(policy, tasks, Registry([...]))
    evaluation.metrics["exact_match"]          # Score(value, low, high, n)

A task in a world, or with an expected `answer` whose tools can run, is played to its end. Of any
other task only the first turn with calls counts, and its calls run once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from toolhone.data.task_files import check_ids
from toolhone.episodes.driver import PlayTasks, run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules
from toolhone.episodes.policy import Policy
from toolhone.errors import ConfigError
from toolhone.evaluation.legacy_metrics import OURS, legacy_scores
from toolhone.evaluation.metrics import (
    EpisodeContext,
    Evaluation,
    JudgedEpisode,
    judge,
    plays_to_the_end,
)
from toolhone.rewards.matching import show
from toolhone.rewards.reward_registry import Reward, compute_reward
from toolhone.rewards.values import scalar
from toolhone.runs.progress import Progress
from toolhone.schema import Task
from toolhone.tools.registry import Registry

MAX_TURNS = 8
Metric = Callable[[Task, Episode], float | None]
"""A user's metric: a number in [0, 1], or None where it does not apply."""


def evaluate(
    policy: Policy,
    tasks: Sequence[Task],
    registry: Registry | None = None,
    progress: Progress | None = None,
    max_turns: int = MAX_TURNS,
    own: Mapping[str, Metric] | None = None,
    rewards: Sequence[Reward] = (),
    play: PlayTasks = run_episodes,
) -> Evaluation:
    """Play each task once and score it; the same policy, tasks and seed give the same result.

    `own` metrics join the scores, for example `{"brief": lambda task, episode: 1.0}`. `rewards` are
    computed too and change no score. `play` plays the tasks in another way, such as by agents.
    """
    check_ids(tasks)
    if taken := [name for name in own or {} if name in OURS]:
        wrong = f"a metric of your own cannot be named {taken[0]!r}, which is one of ours"
        raise ConfigError(f"{wrong}; rename the function")
    registry, progress = registry or Registry([]), progress or Progress()
    context = EpisodeContext(policy.seed, registry.runnable)
    live = [plays_to_the_end(task, context.runnable) for task in tasks]
    rules = [EpisodeRules(max_turns, first_call_only=not to_the_end) for to_the_end in live]
    with progress.inside("evaluating", len(tasks)):
        episodes = play(policy, tasks, registry, rules, lambda *_: progress.advance())
    return Evaluation(
        tuple(
            judge_episode(task, episode, replace(context, live=to_the_end), own, rewards)
            for task, episode, to_the_end in zip(tasks, episodes, live, strict=True)
        )
    )


def judge_episode(
    task: Task,
    episode: Episode,
    context: EpisodeContext,
    own: Mapping[str, Metric] | None = None,
    rewards: Sequence[Reward] = (),
) -> JudgedEpisode:
    """Score one episode by our metrics, the legacy ones and the user's; compute its rewards."""
    sample = judge(task, episode, context)
    scores = dict(sample.scores)
    for name, metric in (own or {}).items():
        try:
            value: object = metric(task, episode)
        except (Exception, SystemExit) as error:
            wrong = f"failed on the task {task.id!r}: {type(error).__name__}: {error}"
            raise ConfigError(f"the metric {name!r} {wrong}") from error
        if value is None:
            continue
        number = scalar(value)
        if number is None or not 0 <= number <= 1:
            wrong = f"on the task {task.id!r} it gave {show(value)}"
            raise ConfigError(f"the metric {name!r} must give a number in [0, 1] or None; {wrong}")
        scores[name] = float(number)
    earned: dict[str, float] = {}
    if rewards:
        result = compute_reward(rewards, task, episode)
        earned = {"reward": result.total}
        earned |= {f"reward/{name}": value for name, value in result.parts.items()}
    legacy = legacy_scores(task, episode, context)
    return replace(sample, scores=scores, legacy_scores=legacy, rewards=earned)
