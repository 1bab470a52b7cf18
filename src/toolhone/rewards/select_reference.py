"""Which of several right answers an episode is judged by: the one that it comes closest to.

    task = settled(task, episode)              # as it was, but with one right answer and no alternatives

Closest is the one with the most parts (calls, answer) wholly right; among those, the one whose parts are right to the largest sum;
among equals, the first. Our rewards, our metrics and those of other systems all ask here, so that they speak of the same answer.
How right something is, is the business of `matching`, `answers` and `final_answer`.
"""

from __future__ import annotations

from dataclasses import replace

from toolhone.episodes.episode import Episode
from toolhone.rewards.answers import carries
from toolhone.rewards.episode_view import EpisodeView
from toolhone.rewards.final_answer import stated
from toolhone.rewards.matching import judges_calls
from toolhone.schema import Task


def select_reference(task: Task, episode: Episode) -> Task:
    """The task with the right answer that the episode comes closest to as its only one."""
    if not task.expect.alternatives:
        return task
    return max(
        (replace(task, expect=choice) for choice in task.expect.choices),
        key=lambda one: _closeness(EpisodeView(one, episode)),
    )


def _closeness(seen: EpisodeView) -> tuple[int, float]:
    """How many parts are wholly right, and the sum of how right each is."""
    parts = [_calls(seen)] if judges_calls(seen.task.expect) else []
    if seen.task.expect.answer is not None:
        parts.append(_answer(seen, seen.task.expect.answer))
    return sum(right for right, _ in parts), sum(share for _, share in parts)


def _calls(seen: EpisodeView) -> tuple[bool, float]:
    if seen.task.expect.no_call:
        right = not seen.made and not seen.unreadable and not seen.blank
        return right, float(right)
    return seen.match.exact, (seen.match.tool_score + seen.match.argument_score) / 2


def _answer(seen: EpisodeView, answer: str) -> tuple[bool, float]:
    said = seen.episode.answer or ""
    return carries(said, answer), stated(said, answer, seen.before, seen.around)
