"""What a reward of ours sees in an episode: the calls that count, how they compare, and what was done besides.

    seen = Seen(task, episode)
    seen.match, seen.excess, seen.failed, seen.broken

A call that was rejected (its tool is unknown, or its arguments break the schema) and that a later turn follows is taken back: it
is not compared, it only costs. So a model that mends a mistake earns more than one that does not. The same holds for calls of a
turn that could not be read. Where no other call is left, those count after all, so that a near miss stays worth something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.episode import Episode
from toolhone.rewards.final_answer import without_echoes
from toolhone.rewards.injected_text import forged
from toolhone.rewards.matching import Match, judges_calls, match_calls
from toolhone.schema import ExpectedCall, Json, Task, Tool, ToolCall
from toolhone.tools.result import ToolStatus

REJECTED = (ToolStatus.UNKNOWN_TOOL, ToolStatus.INVALID_ARGUMENTS)
LONG_TEXT = 200
"""Characters of a text that may hold a description of a tool."""
FREE_CHARACTERS = 400
"""Of a text beside calls; longer ones cost."""


@dataclass(frozen=True)
class CallRecord:
    """A call of an episode.

    fits: its tool is on offer and its arguments obey the schema, or it is, word for word, what the task wants (a task whose right
    answer breaks the schema is no fault of the model). works: that, and it did not fail when it was run, if it could be. stands:
    it was not taken back.
    """

    call: ToolCall
    fits: bool
    works: bool
    stands: bool


@dataclass(frozen=True)
class EpisodeView:
    """One episode of a task. Nothing here is paid yet: the numbers of calls and turns are plain counts."""

    task: Task
    episode: Episode

    @cached_property
    def made(self) -> list[CallRecord]:
        """All calls that could be read, in their order; those of a last turn that answers by a call are the answer, not calls."""
        tools, last = {tool.name: tool for tool in self.task.tools}, len(self.episode.turns) - 1
        wanted = self.task.expect.wanted
        made = []
        for index, turn in enumerate(self.episode.turns):
            results = self.episode.results[index] if index < len(self.episode.results) else ()
            answers = index == last and self.episode.said_by_call is not None
            for place, call in enumerate(turn.message.tool_calls):
                if answers and all(call.name != one.name for one in wanted):
                    continue
                outcome = results[place].outcome if place < len(results) else ToolStatus.REFUSED
                fits = _asked_for(call, wanted) or (
                    _fits(call, tools) if outcome is ToolStatus.REFUSED else outcome not in REJECTED
                )
                works = fits and outcome not in (ToolStatus.ERROR, ToolStatus.TIMEOUT)
                made.append(
                    CallRecord(
                        call,
                        fits,
                        works,
                        index == last or (fits and turn.problem is ParseProblem.NONE),
                    )
                )
        return made

    @cached_property
    def counted(self) -> list[CallRecord]:
        """The calls that are compared with the wanted ones."""
        return [one for one in self.made if one.stands] or self.made

    @cached_property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(one.call for one in self.counted)

    @cached_property
    def match(self) -> Match:
        """How `calls` compare with the wanted ones; its pairs are indices into both."""
        return match_calls(self.calls, self.task.expect, self.task.tools)

    @cached_property
    def excess(self) -> int:
        """Calls beyond the number of wanted ones; where nothing is said about calls, repetitions of the same call."""
        if not judges_calls(self.task.expect):
            return sum(call in self.calls[:index] for index, call in enumerate(self.calls))
        return max(0, len(self.calls) - len(self.task.expect.wanted))

    @property
    def failed(self) -> int:
        """Calls that did not work, those that were taken back included."""
        return sum(not one.works for one in self.made)

    @property
    def broken(self) -> bool:
        """Whether the last turn could not be read, or was cut off before it was clear what it would call."""
        last = self.episode.turns[-1] if self.episode.turns else None
        if last is None or last.problem is not ParseProblem.NONE:
            return last is not None
        return last.stop_reason is StopReason.LENGTH and (
            bool(last.message.tool_calls) or not self.made
        )

    @property
    def unreadable(self) -> int:
        """Turns that could not be read."""
        return sum(turn.problem is not ParseProblem.NONE for turn in self.episode.turns)

    @cached_property
    def before(self) -> list[str]:
        """The texts of the task's messages."""
        return [message.content for message in self.task.messages if message.content]

    @cached_property
    def around(self) -> list[str]:
        """The descriptions in the task's tools; none where what was said at the end is too short to repeat one of note."""
        tools = self.task.tools if len(self.text) > LONG_TEXT else ()
        return [
            text
            for tool in tools
            for text in (tool.description, *_descriptions(tool.parameters))
            if text
        ]

    @property
    def text(self) -> str:
        """What was said at the end, as text or by a call that answers."""
        said = self.episode.turns[-1].message.content if self.episode.turns else None
        return self.episode.said_by_call or said or ""

    @property
    def blank(self) -> bool:
        """Whether the end says nothing of its own."""
        return not without_echoes(self.text, self.before)

    @cached_property
    def forged(self) -> bool:
        """Whether a turn's text holds marks that only templates write."""
        return any(
            forged(turn.message.content, self.before)
            for turn in self.episode.turns
            if turn.message.content
        )

    @property
    def chatter(self) -> int:
        """Characters of text beyond the free ones, where text is not what was asked for: beside calls and around an answer."""
        turns = self.episode.turns
        texts = [
            turn.message.content or ""
            for turn in turns
            if turn.message.tool_calls or self.task.expect.answer is not None
        ]
        return sum(max(0, len(text) - FREE_CHARACTERS) for text in texts)


def _descriptions(schema: Json) -> Iterator[str]:
    """The texts under `description`, however deep."""
    for key, value in schema.items() if isinstance(schema, Mapping) else ():
        if key == "description" and isinstance(value, str):
            yield value
        for inner in value if isinstance(value, list) else [value]:
            yield from _descriptions(inner)


def _asked_for(call: ToolCall, wanted: Sequence[ExpectedCall]) -> bool:
    known = [one for one in wanted if not one.any_arguments]
    return any(call.name == one.name and call.arguments == one.arguments for one in known)


def _fits(call: ToolCall, tools: Mapping[str, Tool]) -> bool:
    return call.name in tools and not tools[call.name].problems(call.arguments)
