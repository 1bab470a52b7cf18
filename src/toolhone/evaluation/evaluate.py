"""Plays tasks with a policy and scores what it says.

    evaluation = evaluate(policy, tasks, Registry([...]))
    evaluation.metrics["exact_match"]          Score(value, low, high, n)

A task with an expected `answer` whose tools have implementations is played to its end; of any other task only the first turn with
calls counts, whose calls are run once. What cannot be run is not measured (`execution_success`, `answer_quality`). What the scores
mean is said in `metrics` and `familiar`; writing them to disk is the business of `folder`.

A metric of one's own is a function of (task, episode) that gives a number in [0, 1], or None where it does not apply:

    evaluate(policy, tasks, own={"brief": lambda task, episode: float(len(episode.answer or "") < 100)})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real

from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, refuse_unplayable
from toolhone.episodes.outcome import EpisodeRules
from toolhone.episodes.policy import Policy
from toolhone.errors import ConfigError, DataError
from toolhone.evaluation.legacy_metrics import OURS, familiar_scores
from toolhone.evaluation.metrics import Circumstances, Evaluation, JudgedEpisode, can_run, judge
from toolhone.rewards.matching import show
from toolhone.rewards.registry import Reward, compute_reward
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.schema import Task
from toolhone.tools.registry import Registry

MAX_TURNS = 8
Metric = Callable[[Task, Episode], float | None]
"""A metric of the user's own: a number in [0, 1], or None where it is not measured."""


def evaluate(
    policy: Policy,
    tasks: Sequence[Task],
    registry: Registry | None = None,
    progress: Progress | None = None,
    max_turns: int = MAX_TURNS,
    own: Mapping[str, Metric] | None = None,
    rewards: Sequence[Reward] = (),
) -> Evaluation:
    """Play each task once and judge it; `own` metrics are added to the scores. The same policy, tasks and seed give the same.

    `rewards` are paid besides, and change no score.
    """
    check_ids(tasks)
    own = _unclaimed(own or {})
    known = Circumstances(policy.seed, runnable_names(registry))
    live = [task.expect.answer is not None and can_run(task, known.runnable) for task in tasks]
    rules = [EpisodeRules(max_turns, first_call_only=not to_the_end) for to_the_end in live]
    progress = progress or SilentProgress()
    progress.start("evaluating", len(tasks))

    def ended(index: int, episode: Episode) -> None:  # noqa: ARG001 (the driver's callback)
        progress.advance()

    episodes = run_episodes(policy, tasks, registry or Registry([]), rules, ended)
    played = zip(tasks, episodes, live, strict=True)
    return Evaluation(
        tuple(
            judged(task, episode, replace(known, live=whole), own, rewards)
            for task, episode, whole in played
        )
    )


def judged(
    task: Task,
    episode: Episode,
    known: Circumstances,
    own: Mapping[str, Metric] | None = None,
    rewards: Sequence[Reward] = (),
) -> JudgedEpisode:
    """One episode by every definition: ours, those of other systems, and the user's own; and what it earns."""
    sample = judge(task, episode, known)
    mine = {
        name: value
        for name, metric in (own or {}).items()
        if (value := _measured(name, metric, task, episode)) is not None
    }
    paid = compute_reward(rewards, task, episode) if rewards else None
    earned = (
        {}
        if paid is None
        else {
            "reward": paid.total,
            **{f"reward/{name}": value for name, value in paid.parts.items()},
        }
    )
    return replace(
        sample,
        scores={**sample.scores, **mine},
        familiar=familiar_scores(task, episode, known),
        rewards=earned,
    )


def _measured(name: str, metric: Metric, task: Task, episode: Episode) -> float | None:
    """What a metric of the user's own says, which must be a number in [0, 1] or None."""
    try:
        value: object = metric(task, episode)
    except Exception as error:
        raise ConfigError(
            f"the metric {name!r} failed on the task {task.id!r}: {type(error).__name__}: {error}"
        ) from error
    if value is None:
        return None
    if not isinstance(value, Real) or value < 0 or not value <= 1:
        raise ConfigError(
            f"the metric {name!r} must give a number in [0, 1] or None; on the task {task.id!r} it gave {show(value)}"
        )
    return float(value)


def _unclaimed(own: Mapping[str, Metric]) -> Mapping[str, Metric]:
    """The metrics of the user's own; a name that is one of ours is refused."""
    for name in own:
        if name in OURS:
            raise ConfigError(
                f"a metric of your own cannot be named {name!r}, which is one of ours; rename the function"
            )
    return own


def runnable_names(registry: Registry | None) -> frozenset[str]:
    """The tools that have an implementation."""
    return frozenset() if registry is None else registry.runnable


def check_playable(tasks: Sequence[Task]) -> None:
    """Refuse, before anything is played, what `evaluate` would refuse. No tasks at all are fine here."""
    check_ids(tasks)
    refuse_unplayable(tasks)


def check_ids(tasks: Sequence[Task]) -> None:
    """Refuse an empty list of tasks, and two tasks with one id: samples and predictions are joined on it."""
    if not tasks:
        raise DataError("there are no tasks; wanted at least one")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise DataError(
                f"the task id {task.id!r} occurs more than once; ids must differ, since answers are joined on them"
            )
        seen.add(task.id)
