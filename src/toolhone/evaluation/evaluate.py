"""Plays tasks with a policy and scores what it says.

    evaluation = evaluate(policy, tasks, Registry([...]))
    evaluation.metrics["exact_match"]          Score(value, low, high, n)

A task with an expected `answer` whose tools have implementations is played to its end; of any other task only the first turn with
calls counts, whose calls are run once. What cannot be run is not measured (`execution_success`, `answer_quality`). What the scores
mean is said in `metrics`; writing them to disk is the business of `folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolhone.episodes.driver import play
from toolhone.episodes.episode import Episode, Rules, refuse_unplayable
from toolhone.episodes.policy import Policy
from toolhone.errors import DataError
from toolhone.evaluation.metrics import Circumstances, Evaluation, can_run, judge
from toolhone.progress import Progress, Silent
from toolhone.schema import Task
from toolhone.tools.registry import Registry

MAX_TURNS = 8


def evaluate(
    policy: Policy,
    tasks: Sequence[Task],
    registry: Registry | None = None,
    progress: Progress | None = None,
    max_turns: int = MAX_TURNS,
) -> Evaluation:
    """Play each task once and judge it. The same policy, tasks and seed give the same evaluation."""
    check_ids(tasks)
    known = Circumstances(policy.seed, runnable_names(registry))
    live = [task.expect.answer is not None and can_run(task, known.runnable) for task in tasks]
    rules = [Rules(max_turns, first_call_only=not to_the_end) for to_the_end in live]
    progress = progress or Silent()
    progress.start("evaluating", len(tasks))

    def ended(index: int, episode: Episode) -> None:  # noqa: ARG001 (the driver's callback)
        progress.advance()

    episodes = play(policy, tasks, registry or Registry([]), rules, ended)
    played = zip(tasks, episodes, live, strict=True)
    return Evaluation(tuple(judge(task, episode, replace(known, live=whole)) for task, episode, whole in played))


def runnable_names(registry: Registry | None) -> frozenset[str]:
    """The tools that have an implementation."""
    return frozenset(tool.name for tool in (() if registry is None else registry.tools) if tool.function is not None)


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
            raise DataError(f"the task id {task.id!r} occurs more than once; ids must differ, since answers are joined on them")
        seen.add(task.id)
