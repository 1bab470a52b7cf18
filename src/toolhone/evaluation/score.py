"""Score answers that were produced anywhere; no model is needed.

    score(tasks, [{"id": "t1", "text": "..."}], "tool_call_tags")
    score(tasks, [{"id": "t1", "calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}])

Every task needs one prediction. Where only calls are known, the rates on raw text are not measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from toolhone.backends.base import StopReason
from toolhone.data.task_files import check_ids, refuse_unplayable
from toolhone.dialects.choose import SYNTAXES, open_syntax
from toolhone.dialects.interface import ParseProblem, Syntax
from toolhone.episodes.driver import NO_TOOLS, run_calls
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import DataError
from toolhone.evaluation.evaluate import Metric, judge_episode
from toolhone.evaluation.metrics import EpisodeContext, Evaluation
from toolhone.rewards.matching import show
from toolhone.rewards.reward_registry import Reward
from toolhone.schema import Json, Message, Task, ToolCall
from toolhone.schema.json_input import HARMLESS, check_keys, is_empty
from toolhone.tools.open_world import open_world
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult
from toolhone.tools.worlds import WorldError

Prediction = Mapping[str, Json]
_CALLS = ("tool_calls", "function_call", "toolInvocations")
"""Keys of other systems that hold calls; without `calls`, any list or object may hold some."""
_UNREAD = Turn(Message("assistant"), "", ParseProblem.NOT_A_CALL)
"""Stands for a prediction that cannot be read."""


def score(
    tasks: Sequence[Task],
    predictions: Sequence[Prediction],
    dialect_syntax: str | None = None,
    registry: Registry | None = None,
    rewards: Sequence[Reward] = (),
    report: Callable[[str], None] = lambda _: None,
    unreadable: Sequence[str] = (),
    own: Mapping[str, Metric] | None = None,
) -> Evaluation:
    """Score one prediction for each task.

    `dialect_syntax` (json, calls, bfcl, tagged, tool_call_tags, bare_json) is needed for texts.
    Calls run only where a registry is given. `report` gets a sentence on the keys that are not
    read, and on predictions that cannot be read, which count as wrong. unreadable: what was wrong
    with each row of their file that is no prediction; as many tasks may be without one. own:
    further metrics.
    """
    check_ids(tasks)
    refuse_unplayable(tasks)
    found = _join(tasks, predictions, len(unreadable), report)
    syntax = None if dialect_syntax is None else open_syntax(dialect_syntax)
    runnable = frozenset[str]() if registry is None else registry.runnable
    samples, bad = [], list(unreadable)
    for task in tasks:
        has_text = "text" in found.get(task.id, {})
        context = EpisodeContext(0, runnable, live=has_text, raw_text=has_text)
        episode = Episode(task.id, (_UNREAD,), ((),), EpisodeStatus.MALFORMED)
        try:
            if task.id in found:
                episode = _to_episode(task, found[task.id], syntax, registry)
        except UnreadCallError as error:
            bad.append(str(error))
        samples.append(judge_episode(task, episode, context, own, rewards))
    if len(bad) - len(unreadable) == len(tasks):
        raise DataError(bad[len(unreadable)])
    if bad:
        counted = f"predictions that cannot be read, and count as wrong: {len(bad)}"
        report(f"{counted}; {'; '.join(bad[:3])}")
    return Evaluation(tuple(samples))


def _join(
    tasks: Sequence[Task],
    predictions: Sequence[Prediction],
    unreadable: int,
    report: Callable[[str], None],
) -> dict[str, Prediction]:
    """Return the predictions by the id of their task; this many tasks may be without one."""
    found: dict[str, Prediction] = {}
    unread = Counter[str]()
    for number, prediction in enumerate(predictions, start=1):
        _check_prediction(number, prediction)
        keys = set[str]()
        check_keys(prediction, ("id", "text", "calls"), "a prediction", keys)
        unread.update(keys)
        identity = str(prediction["id"])
        if identity in found:
            wrong = f"prediction {number}: the id {identity!r} occurs already"
            raise DataError(f"{wrong}; each task needs one prediction")
        found[identity] = prediction
    if unread:
        counts = ", ".join(f"{name} ({count})" for name, count in sorted(unread.items()))
        report(f"keys not read: {counts}; a prediction has 'id' and 'text' or 'calls'")
    ids = {task.id: task for task in tasks}
    faults = []
    missing = [name for name in ids if name not in found]
    missing = [] if found and len(missing) <= unreadable else missing
    for names, total, what in (
        (missing, len(tasks), "tasks have no prediction"),
        ([name for name in found if name not in ids], len(found), "predictions have no task"),
    ):
        if names:
            some = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
            faults.append(f"{len(names)} of {total} {what} ({some})")
    if faults:
        wrong = f"tasks and predictions do not fit together: {' and '.join(faults)}"
        raise DataError(f"{wrong}; their ids must be the same")
    return found


class UnreadCallError(DataError):
    """A prediction with a call that cannot be read."""


def _to_episode(
    task: Task, prediction: Prediction, syntax: Syntax | None, registry: Registry | None
) -> Episode:
    """The episode of one turn that a prediction is; its calls run where there is a registry."""
    if "calls" in prediction:
        try:
            calls = tuple(ToolCall.from_dict(call) for call in prediction["calls"])
        except DataError as error:
            raise UnreadCallError(f"the prediction {prediction['id']!r}: {error}") from None
        turn = Turn(Message("assistant", None, tool_calls=calls), "")
    elif syntax is None:
        raise DataError(
            f"the prediction {prediction['id']!r} is a text; "
            f"name the call syntax it is written in (--dialect): {', '.join(SYNTAXES)}"
        )
    else:
        reply, text = syntax.read(prediction["text"], task.tools), prediction["text"]
        turn = Turn(reply.to_message(), text, reply.problem, stop_reason=StopReason.STOP)
    is_readable = turn.problem is ParseProblem.NONE
    calls = turn.message.tool_calls if is_readable else ()
    results, state = tuple[ToolResult, ...](), None
    if registry is not None or task.world is not None:
        world = open_world(task, registry or NO_TOOLS)
        try:
            results = tuple(run_calls(world, task, calls))
        except WorldError as error:
            return Episode(task.id, (turn,), ((),), EpisodeStatus.FAILED, str(error))
        state = world.state()
    status = EpisodeStatus.CALLED if calls else EpisodeStatus.ANSWERED
    status = status if is_readable else EpisodeStatus.MALFORMED
    return Episode(task.id, (turn,), (results,), status, state=state)


def _check_prediction(number: int, prediction: Prediction) -> None:
    """Refuse any other shape than `{"id", "text"}` or `{"id", "calls"}`."""
    identity = prediction.get("id") if isinstance(prediction, Mapping) else None
    if not isinstance(identity, str | int) or not str(identity):
        raise DataError(f"prediction {number}: a prediction needs an 'id'; got {show(prediction)}")
    where = f"prediction {number} ({identity!r})"
    for key, value in prediction.items():
        says = prediction.get("calls") or prediction.get("text")
        hidden = not says and isinstance(value, list | Mapping) and value
        if key not in {"calls", *HARMLESS} and (hidden or (key in _CALLS and not is_empty(value))):
            raise DataError(f"{where} has {key!r}, which is not read; write its calls as 'calls'")
    keys = [key for key in ("text", "calls") if key in prediction]
    if len(keys) != 1:
        wrong = f"wanted either 'text' or 'calls', got {' and '.join(keys) or 'neither'}"
        raise DataError(f"{where}: {wrong}")
    kinds = {"text": (str, "a string"), "calls": (list | tuple, "a list of {'name', 'arguments'}")}
    kind, right = kinds[keys[0]]
    if not isinstance(prediction[keys[0]], kind):
        raise DataError(f"{where}: {keys[0]!r} must be {right}, got {show(prediction[keys[0]])}")
