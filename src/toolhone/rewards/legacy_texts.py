"""What rewards of other systems look at: the raw text of the first reply, and the text of a right answer in their own writing.

    said = reply_text(episode, Calls())
    wanted_calls(task.expect)                 # as `python_calls` reads them
    as_known(reward)                          # the reward where the right answer is known word for word

Those systems never show a tool's result to the model, so only the first reply counts. An episode of which only the calls are
known (a prediction `{"id", "calls"}`) is taken as if they had been written in the system's own form. They know one right answer,
with its arguments: a task with several is judged by the one that the episode comes closest to, one that leaves calls or their
arguments open is not judged. The rewards themselves are in `guided`, `json_answer` and `playground`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolhone.dialects.base import Syntax
from toolhone.dialects.syntax.python_calls import Calls
from toolhone.episodes.episode import Episode
from toolhone.errors import DialectError
from toolhone.rewards.legacy_python_calls import extract_function_calls
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.reward_spec import Function
from toolhone.rewards.select_reference import select_reference
from toolhone.schema import Expect, Json, Task, ToolCall


def reply_text(episode: Episode, syntax: Syntax) -> str:
    """The raw text of the first reply; calls that are known without a text are written in `syntax`."""
    if not episode.turns:
        return ""
    turn = episode.turns[0]
    if turn.text or not turn.message.tool_calls:
        return turn.text
    return written(turn.message.tool_calls, syntax) or ""


def is_known(task: Task) -> bool:
    """Whether the task wants calls, all with their arguments, or none."""
    return judges_calls(task.expect) and not _is_open(task)


def _is_open(task: Task) -> bool:
    return any(call.any_arguments for choice in task.expect.choices for call in choice.wanted)


def as_known(reward: Function) -> Function:
    """A reward that judges by one right answer, and gives no parts where that leaves calls or their arguments open."""

    def judged(task: Task, episode: Episode) -> float | Mapping[str, float]:
        return {} if _is_open(task) else reward(select_reference(task, episode), episode)

    return judged


def written(calls: Sequence[ToolCall], syntax: Syntax) -> str | None:
    """The calls as text, or None where this syntax cannot write them."""
    try:
        return syntax.write(None, calls)
    except DialectError:
        return None


def wanted_text(expect: Expect) -> str | None:
    """A right answer as those data sets have it: the calls in Python's way, one per line, or the final answer; None for neither."""
    if not expect.calls:
        return expect.answer
    return written([ToolCall(call.name, call.arguments) for call in expect.calls], Calls())


def wanted_calls(expect: Expect) -> list[dict[str, Json]]:
    """The calls in the right answer as it is written, read back; those that cannot be written so are taken as they are."""
    text = wanted_text(expect)
    if text is None:
        return [
            {"name": call.name, "parameters": dict(call.arguments)} for call in expect.calls or ()
        ]
    return extract_function_calls(text)
