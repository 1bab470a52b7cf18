"""Plays tasks with a policy and scores what it says.

    evaluation = evaluate(policy, tasks, Registry([...]))
    evaluation.metrics["exact_match"]          Score(value, low, high, n)

A task with an expected `answer` is played to its end with live tools; of any other only the first turn with calls counts, whose
calls are run once where the tools have implementations. Without a registry no tool is run, and `execution_success` and
`answer_quality` are not measured. What the scores mean is said in `metrics`; writing them to disk is the business of `folder`.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.episodes.driver import play
from toolhone.episodes.episode import Episode, Rules
from toolhone.episodes.policy import Policy
from toolhone.errors import DataError
from toolhone.evaluation.metrics import Circumstances, Evaluation, judge
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
    rules = [Rules(max_turns, first_call_only=task.expect.answer is None or registry is None) for task in tasks]
    known = circumstances(registry, policy.seed)
    progress = progress or Silent()
    progress.start("evaluating", len(tasks))

    def ended(index: int, episode: Episode) -> None:  # noqa: ARG001 (the driver's callback)
        progress.advance()

    episodes = play(policy, tasks, registry or Registry([]), rules, ended)
    return Evaluation(tuple(judge(task, episode, known) for task, episode in zip(tasks, episodes, strict=True)))


def circumstances(registry: Registry | None, seed: int = 0, raw_text: bool = True) -> Circumstances:
    """What metrics have to know about the tools."""
    tools = () if registry is None else registry.tools
    runnable = frozenset(tool.name for tool in tools if tool.function is not None)
    return Circumstances(seed, runnable, live=registry is not None, raw_text=raw_text)


def check_ids(tasks: Sequence[Task]) -> None:
    """Refuse an empty list of tasks, and two tasks with one id: samples and predictions are joined on it."""
    if not tasks:
        raise DataError("there are no tasks; wanted at least one")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise DataError(f"the task id {task.id!r} occurs more than once; ids must differ, since answers are joined on them")
        seen.add(task.id)
