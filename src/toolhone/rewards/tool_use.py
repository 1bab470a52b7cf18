"""Toolhone's own rewards: a correct answer earns 1 and everything else less.

    tool_use(task, episode)       # {"tools": 0.3, "arguments": 0.4, "exact": 0.3, ...}

A reward returns no parts for a task that it does not judge. docs/rewards.md explains each reward
and each penalty. They cannot judge the quality of a text where no call is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolhone.episodes.episode import Episode
from toolhone.rewards.episode_view import EpisodeView, calls_in_prose
from toolhone.rewards.matching import judges_calls
from toolhone.schema import Task

Parts = dict[str, float]


PENALTIES: Mapping[str, tuple[float, float]] = {
    "silence": (0.25, 1),
    "spurious": (0.5, 2),
    "failed": (0.1, 10),
    "form": (0.1, 5),
    "forged": (0.5, 1),
    "chatter": (0.1, 1),
}
"""Points off for each occurrence, and the largest number of occurrences that count."""
CHATTER_UNIT = 1000
"""Excess characters at which the full `chatter` penalty is due."""


MILD = {"tools": 0.5, "arguments": 0.25, "exact": 0.25}
GRADED = {"tools": 0.3, "arguments": 0.4, "exact": 0.3}
STRICT = {"exact": 1.0}
"""How a correct call's credit is split."""


def judges_call_tasks(task: Task) -> bool:
    return judges_calls(task.expect)


def judges_answer_tasks(task: Task) -> bool:
    return task.expect.answer is not None


def judges(task: Task) -> bool:
    """Whether the task covers calls or a final answer."""
    return judges_call_tasks(task) or judges_answer_tasks(task)


def tool_use(task: Task, episode: Episode) -> Parts:
    """Reward calls and answer; each counts half where a task asks for both."""
    if not judges(task):
        return {}
    view = EpisodeView.closest(task, episode)
    calls = _call_parts(view, GRADED) if judges_call_tasks(task) else {}
    answer = {"answer": view.answer_credit} if judges_answer_tasks(task) else {}
    share = 0.5 if calls and answer else 1.0
    parts = {name: share * value for name, value in (calls | answer).items()}
    return {**parts, **_penalties(view)}


def right_calls(task: Task, episode: Episode) -> Parts:
    """Reward the calls, graded."""
    return _reward_calls(task, episode, GRADED)


def right_tools(task: Task, episode: Episode) -> Parts:
    """Reward the calls, with most of the credit on the correct tools."""
    return _reward_calls(task, episode, MILD)


def exact_calls(task: Task, episode: Episode) -> Parts:
    """Reward the calls, all or nothing."""
    return _reward_calls(task, episode, STRICT)


def working_calls(task: Task, episode: Episode) -> Parts:
    """Reward the wanted calls that ran without an error, and those of them that are correct."""
    if not judges_call_tasks(task):
        return {}
    view = EpisodeView.closest(task, episode)
    if view.task.expect.no_call:
        return {"no_call": _no_call_credit(view), **_penalties(view)}
    size = max(len(view.calls), len(view.task.expect.wanted))
    working = [
        pair
        for pair in view.match.pairs
        if pair.wanted is not None and pair.got is not None and view.compared[pair.got].ran_ok
    ]
    whole = 0.5 if view.is_broken else 1.0
    ran, right = len(working) / size, sum(pair.share == 1.0 for pair in working) / size
    return {
        "ran": 0.3 * whole * ran,
        "right": 0.4 * whole * right,
        "exact": 0.3 * (right == whole == 1.0),
        **_penalties(view),
    }


def right_answer(task: Task, episode: Episode) -> Parts:
    """Reward the final answer."""
    if not judges_answer_tasks(task):
        return {}
    view = EpisodeView.closest(task, episode)
    return {"answer": view.answer_credit, **_penalties(view)}


def _reward_calls(task: Task, episode: Episode, shares: Mapping[str, float]) -> Parts:
    if not judges_call_tasks(task):
        return {}
    view = EpisodeView.closest(task, episode)
    return {**_call_parts(view, shares), **_penalties(view)}


def _call_parts(view: EpisodeView, shares: Mapping[str, float]) -> Parts:
    """Credit for the calls, without penalties; where none is wanted, for making none.

    Arguments that break the schema count half. A broken last turn halves the credit.
    """
    if view.task.expect.no_call:
        return {"no_call": _no_call_credit(view)}
    match, whole = view.match, 0.5 if view.is_broken else 1.0
    size = max(len(view.calls), len(view.task.expect.wanted))
    arguments = sum(
        pair.share * (1.0 if view.compared[pair.got].schema_valid else 0.5)
        for pair in match.pairs
        if pair.got is not None
    )
    exact = match.exact and not view.is_broken and all(one.schema_valid for one in view.compared)
    earned = {
        "tools": shares.get("tools", 0.0) * match.tool_score * whole,
        "arguments": shares.get("arguments", 0.0) * arguments / size * whole,
        "exact": shares["exact"] * exact,
    }
    return {name: earned[name] for name in shares}


def _no_call_credit(view: EpisodeView) -> float:
    """1 for plain text, -1 for a call, -0.5 for a broken attempt, 0 for no real reply."""
    if view.records:
        return -1.0
    if view.unreadable:
        return -0.5
    in_prose = calls_in_prose(view.final_text, view.task)
    return float(not (view.is_blank or view.is_broken or in_prose))


def _penalties(view: EpisodeView) -> Parts:
    expect = view.task.expect
    counts = {
        "silence": float(bool(expect.wanted) and not view.records and not view.unreadable),
        "spurious": 0 if expect.no_call else view.excess,
        "failed": view.failed,
        "form": view.unreadable,
        "forged": float(view.has_control_text),
        "chatter": view.excess_characters / CHATTER_UNIT,
    }
    return {
        name: -each * min(counts[name], most) if counts[name] else 0.0
        for name, (each, most) in PENALTIES.items()
    }
