"""The five tool-calling rewards of mlx-guided-grpo (MIT), exactly: for runs that are to be compared with runs made there.

    tool_call_exact       1 if the reply is the wanted text: trimmed, lower-cased, runs of white space as one space
    tool_call_function    wanted names that were called / wanted names, as sets; where no call is wanted, 1 if none was made
    tool_call_params      `params_match` of `python_calls.compare_function_calls`
    tool_call_overall     `overall` of the same
    tool_call_parseable   1 if there is a call at all

All are in [0, 1], and 0 for a reply with `<think>`, `</think>` or `\\boxed{` (in any case). They look at the raw text of the
first reply alone; calls are read by `python_calls`, wherever they stand. Their holes are theirs and are kept: see `library`. One
case does not occur there: a task that wants no call has no text to be equal to. Then `tool_call_exact` is 1 if no call is found,
unless the task has an answer.
"""

from __future__ import annotations

import re

from toolhone.dialects.syntax.python_calls import Calls
from toolhone.episodes.episode import Episode
from toolhone.rewards.legacy_python_calls import compare_function_calls, extract_function_calls
from toolhone.rewards.legacy_texts import reply_text, wanted_calls, wanted_text
from toolhone.schema import Task

_FORBIDDEN = re.compile(r"</?think>|\\boxed\{", re.IGNORECASE)


def tool_call_exact(task: Task, episode: Episode) -> float:
    """Equality of texts, not of calls."""
    text = _said(episode)
    if text is None:
        return 0.0
    wanted = wanted_text(task.expect)
    if wanted is None:
        return float(not task.expect.calls and not extract_function_calls(text))
    return float(_normal(text) == _normal(wanted))


def tool_call_function(task: Task, episode: Episode) -> float:
    """The share of wanted names that occur among the called ones."""
    text = _said(episode)
    if text is None:
        return 0.0
    called = {call["name"] for call in extract_function_calls(text)}
    wanted = {call["name"] for call in wanted_calls(task.expect)}
    return len(wanted & called) / len(wanted) if wanted else float(not called)


def tool_call_params(task: Task, episode: Episode) -> float:
    """The mean share of wanted parameters, place by place."""
    return _compared(task, episode, "params_match")


def tool_call_overall(task: Task, episode: Episode) -> float:
    """0.4 names + 0.4 parameters + 0.2 all the same, place by place."""
    return _compared(task, episode, "overall")


def tool_call_parseable(task: Task, episode: Episode) -> float:  # noqa: ARG001 (a reward gets the task)
    """Whether there is anything that looks like a call."""
    text = _said(episode)
    return float(text is not None and bool(extract_function_calls(text)))


def _said(episode: Episode) -> str | None:
    """The text of the reply, or None where it holds what those rewards forbid."""
    text = reply_text(episode, Calls())
    return None if _FORBIDDEN.search(text) else text


def _compared(task: Task, episode: Episode, score: str) -> float:
    text = _said(episode)
    return (
        0.0
        if text is None
        else compare_function_calls(extract_function_calls(text), wanted_calls(task.expect))[score]
    )


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
