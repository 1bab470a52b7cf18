"""Our own rewards: for every task they judge, a right answer earns 1 and everything else less.

    tool_use        all that a task asks for: calls, no call, final answer (each counts half where there are two)
    right_calls     the calls alone, graded: 0.3 tools + 0.4 arguments + 0.3 exact
    right_tools     the same, milder on arguments (0.5, 0.25, 0.25): for the beginning
    exact_calls     the calls alone, all or nothing: for the end
    working_calls   the calls alone: 0.3 wanted calls that ran without an error, 0.4 those of them that are right, 0.3 if all are
    right_answer    the final answer alone

Wanted and given calls are aligned in the best way and compared as `matching` and `values` say, nested values included; both
scores are divided by the larger number of calls. Arguments that break the schema count half (`"5"` for 5 means the same and does
not run); credit for a last turn that could not be read, or was cut off, is halved; neither is ever exact. Where no call is
wanted, plain text earns 1, a call -1, a broken attempt -0.5, and nothing at all (blank, only the question again, cut off, a call
hidden in the text) 0. Where several answers are right, an episode is judged by the one that it comes closest to (`choosing`).

What was done besides costs, in parts of their own (`FINES`): silence where a call is wanted, each call too many, each call that
failed, each turn that could not be read, marks that only templates write, long text where text was not asked for. `final_answer`
says how an answer is looked for. A reward gives no parts for a task that it does not judge. Ways to be wrong that look right
cannot be told apart: another text where no call is wanted, another true answer than the expected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolhone.episodes.episode import Episode
from toolhone.rewards.episode_view import EpisodeView
from toolhone.rewards.final_answer import stated
from toolhone.rewards.injected_text import hidden_call
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.select_reference import select_reference
from toolhone.schema import Task

Parts = dict[str, float]


@dataclass(frozen=True)
class Fine:
    """Points off for each occurrence, for at most `most` of them."""

    each: float
    most: float = 1.0

    def of(self, count: float) -> float:
        return -self.each * min(count, self.most) if count else 0.0


FINES: Mapping[str, Fine] = {
    "silence": Fine(0.25),
    "spurious": Fine(0.5, 2),
    "failed": Fine(0.1, 10),
    "form": Fine(0.1, 5),
    "forged": Fine(0.5),
    "chatter": Fine(0.1),
}
CHATTER_UNIT = 1000
"""Characters beyond the free ones at which the whole fine is due."""


@dataclass(frozen=True)
class Shares:
    """What of a right call is worth how much; they sum to 1."""

    tools: float
    arguments: float
    exact: float


MILD, GRADED, STRICT = Shares(0.5, 0.25, 0.25), Shares(0.3, 0.4, 0.3), Shares(0.0, 0.0, 1.0)


def wants_calls_or_none(task: Task) -> bool:
    """Whether the task says anything about calls."""
    return judges_calls(task.expect)


def judges_answers(task: Task) -> bool:
    """Whether the task has an expected final answer."""
    return task.expect.answer is not None


def judges(task: Task) -> bool:
    """Whether the task expects something that is seen in an episode."""
    return judges_calls(task.expect) or judges_answers(task)


def tool_use(task: Task, episode: Episode) -> Parts:
    """Everything the task asks for."""
    if not judges(task):
        return {}
    seen = EpisodeView(select_reference(task, episode), episode)
    calls = _calls(seen, GRADED) if judges_calls(task.expect) else {}
    answer = {"answer": _answer(seen)} if judges_answers(task) else {}
    share = 0.5 if calls and answer else 1.0
    return {**{name: share * value for name, value in (calls | answer).items()}, **_fines(seen)}


def right_calls(task: Task, episode: Episode) -> Parts:
    """The calls, graded."""
    return _judged(task, episode, GRADED)


def right_tools(task: Task, episode: Episode) -> Parts:
    """The calls, graded, with most of the worth on the right tools."""
    return _judged(task, episode, MILD)


def exact_calls(task: Task, episode: Episode) -> Parts:
    """The calls, all or nothing."""
    return _judged(task, episode, STRICT)


def working_calls(task: Task, episode: Episode) -> Parts:
    """The wanted calls that worked, and those of them that are right."""
    if not judges_calls(task.expect):
        return {}
    seen = EpisodeView(select_reference(task, episode), episode)
    if seen.task.expect.no_call:
        return {"no_call": _no_call(seen), **_fines(seen)}
    size = max(len(seen.calls), len(seen.task.expect.wanted))
    working = [
        pair
        for pair in seen.match.pairs
        if pair.wanted is not None and pair.got is not None and seen.counted[pair.got].works
    ]
    whole = 0.5 if seen.broken else 1.0
    ran, right = len(working) / size, sum(pair.share == 1.0 for pair in working) / size
    return {
        "ran": 0.3 * whole * ran,
        "right": 0.4 * whole * right,
        "exact": 0.3 * (right == whole == 1.0),
        **_fines(seen),
    }


def right_answer(task: Task, episode: Episode) -> Parts:
    """The final answer."""
    if not judges_answers(task):
        return {}
    seen = EpisodeView(select_reference(task, episode), episode)
    return {"answer": _answer(seen), **_fines(seen)}


def _judged(task: Task, episode: Episode, shares: Shares) -> Parts:
    if not judges_calls(task.expect):
        return {}
    seen = EpisodeView(select_reference(task, episode), episode)
    return {**_calls(seen, shares), **_fines(seen)}


def _calls(seen: EpisodeView, shares: Shares) -> Parts:
    """What the calls are worth, fines apart; where none is wanted, what their absence is worth."""
    if seen.task.expect.no_call:
        return {"no_call": _no_call(seen)}
    match, whole = seen.match, 0.5 if seen.broken else 1.0
    size = max(len(seen.calls), len(seen.task.expect.wanted))
    fitting = sum(
        pair.share * (1.0 if seen.counted[pair.got].fits else 0.5)
        for pair in match.pairs
        if pair.got is not None
    )
    parts = {
        "tools": shares.tools * match.tool_score * whole,
        "arguments": shares.arguments * fitting / size * whole,
        "exact": shares.exact
        * (match.exact and not seen.broken and all(one.fits for one in seen.counted)),
    }
    return {name: value for name, value in parts.items() if getattr(shares, name)}


def _no_call(seen: EpisodeView) -> float:
    if seen.made:
        return -1.0
    if seen.unreadable:
        return -0.5
    return float(not seen.blank and not seen.broken and not hidden_call(seen.text, seen.task))


def _answer(seen: EpisodeView) -> float:
    return stated(
        seen.episode.answer or "", seen.task.expect.answer or "", seen.before, seen.around
    )


def _fines(seen: EpisodeView) -> Parts:
    calls_wanted = bool(seen.task.expect.wanted)
    counts = {
        "silence": float(calls_wanted and not seen.made and not seen.unreadable),
        "spurious": 0 if seen.task.expect.no_call else seen.excess,
        "failed": seen.failed,
        "form": seen.unreadable,
        "forged": float(seen.forged),
        "chatter": seen.chatter / CHATTER_UNIT,
    }
    return {name: FINES[name].of(count) for name, count in counts.items()}
