"""Scores answers that were produced anywhere; no model is needed.

    evaluation = score(tasks, [{"id": "t1", "text": "..."}], "tool_call_tags")
    evaluation = score(tasks, [{"id": "t1", "calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}])

A prediction holds the whole raw text of one reply, to be read with a named call syntax, or the calls themselves. Every task needs
one prediction and every prediction its task. Calls are run only when a registry is given. The text of a task with an expected
`answer` is taken as the final text. Where only the calls are known, the rates on raw text are not measured and `valid_format`
speaks of the calls alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem, Syntax
from toolhone.dialects.prompted import SYNTAXES, open_syntax
from toolhone.episodes.driver import run_call
from toolhone.episodes.episode import Episode, EpisodeStatus, refuse_unplayable
from toolhone.episodes.policy import Turn
from toolhone.errors import DataError
from toolhone.evaluation.evaluate import check_ids, judged, runnable_names
from toolhone.evaluation.metrics import Circumstances, Evaluation, JudgedEpisode
from toolhone.rewards.matching import show
from toolhone.rewards.registry import Reward
from toolhone.schema import Json, Message, Task, ToolCall
from toolhone.tools.registry import Registry

Prediction = Mapping[str, Json]


def score(
    tasks: Sequence[Task],
    predictions: Sequence[Prediction],
    dialect_syntax: str | None = None,
    registry: Registry | None = None,
    rewards: Sequence[Reward] = (),
) -> Evaluation:
    """Judge one prediction for each task. `dialect_syntax` (json, calls, tagged, tool_call_tags, bare_json) is needed for texts."""
    check_ids(tasks)
    refuse_unplayable(tasks)
    found = _by_id(predictions)
    _check_complete([task.id for task in tasks], list(found))
    syntax = None if dialect_syntax is None else open_syntax(dialect_syntax)
    return Evaluation(
        tuple(_judged(task, found[task.id], syntax, registry, rewards) for task in tasks)
    )


def _judged(
    task: Task,
    prediction: Prediction,
    syntax: Syntax | None,
    registry: Registry | None,
    rewards: Sequence[Reward],
) -> JudgedEpisode:
    turn = _turn(prediction, syntax)
    calls = turn.message.tool_calls if turn.problem is ParseProblem.NONE else ()
    results = () if registry is None else tuple(run_call(registry, task, call) for call in calls)
    ending = (
        EpisodeStatus.MALFORMED
        if turn.problem is not ParseProblem.NONE
        else EpisodeStatus.CALLED
        if calls
        else EpisodeStatus.ANSWERED
    )
    has_text = "text" in prediction
    known = Circumstances(0, runnable_names(registry), live=has_text, raw_text=has_text)
    return judged(task, Episode(task.id, (turn,), (results,), ending), known, rewards=rewards)


def _turn(prediction: Prediction, syntax: Syntax | None) -> Turn:
    if "calls" in prediction:
        calls = tuple(_call(prediction["id"], call) for call in prediction["calls"])
        return Turn(Message("assistant", None, tool_calls=calls), "")
    if syntax is None:
        raise DataError(
            f"the prediction {prediction['id']!r} is a text; name the call syntax it is written in (--dialect): "
            + ", ".join(SYNTAXES)
        )
    reply = syntax.read(prediction["text"])
    return Turn(reply.to_message(), prediction["text"], reply.problem, stop_reason=StopReason.STOP)


def _call(identity: Json, source: Json) -> ToolCall:
    try:
        return ToolCall.from_dict(source)
    except DataError as error:
        raise DataError(f"the prediction {identity!r}: {error}") from None


def _by_id(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for number, prediction in enumerate(predictions, start=1):
        _check(number, prediction)
        identity = str(prediction["id"])
        if identity in found:
            raise DataError(
                f"prediction {number}: the id {identity!r} occurs already; each task needs one prediction"
            )
        found[identity] = prediction
    return found


def _check(number: int, prediction: Prediction) -> None:
    """Refuse a prediction of another shape than `{"id", "text"}` or `{"id", "calls"}`."""
    where = f"prediction {number}"
    if (
        not isinstance(prediction, Mapping)
        or not isinstance(prediction.get("id"), str | int)
        or not str(prediction["id"])
    ):
        raise DataError(f"{where}: a prediction needs an 'id'; got {show(prediction)}")
    given = [key for key in ("text", "calls") if key in prediction]
    if len(given) != 1:
        raise DataError(
            f"{where} ({prediction['id']!r}): wanted either 'text' or 'calls', got {' and '.join(given) or 'neither'}"
        )
    value = prediction[given[0]]
    if given == ["text"] and not isinstance(value, str):
        raise DataError(
            f"{where} ({prediction['id']!r}): 'text' must be a string, got {show(value)}"
        )
    if given == ["calls"] and not isinstance(value, list | tuple):
        raise DataError(
            f"{where} ({prediction['id']!r}): 'calls' must be a list of {{'name', 'arguments'}}, got {show(value)}"
        )


def _check_complete(tasks: Sequence[str], predictions: Sequence[str]) -> None:
    wanted, given = set(tasks), set(predictions)
    missing, unknown = (
        [task for task in tasks if task not in given],
        [name for name in predictions if name not in wanted],
    )
    faults = []
    if missing:
        faults.append(
            f"{len(missing)} of {len(tasks)} tasks have no prediction ({_first(missing)})"
        )
    if unknown:
        faults.append(
            f"{len(unknown)} of {len(predictions)} predictions have no task ({_first(unknown)})"
        )
    if faults:
        raise DataError(
            f"tasks and predictions do not fit together: {' and '.join(faults)}; their ids must be the same"
        )


def _first(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")
