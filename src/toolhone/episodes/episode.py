"""One played task, as a generator that yields wishes and is sent the answers. There is no I/O in here.

    play = episode(task, policy, Rules())
    wish = next(play)                      Say(prompt): "have this continued"     answer with a Turn
    wish = play.send(turn)                 Run(calls):  "run these calls"         answer with one ToolResult for each
    ...                                    StopIteration carries the Episode

`driver.play` fulfils the wishes of many episodes at once; a test answers them by hand. A tool that fails is no end: its result,
an error or not, goes back to the model. What a turn with a fault leads to is said by the rules (`outcome`). Tasks with several user
turns, or whose world is judged, are not played.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count

from toolhone.episodes.outcome import (
    FAULTS,
    EpisodeRules,
    OnFault,
    TurnOutcome,
    complaint,
    final_answer,
    outcome_of,
)
from toolhone.episodes.policy import Policy, Prompt, Turn
from toolhone.schema import Message, Task, ToolCall
from toolhone.tools.result import ToolResult


class EpisodeStatus(StrEnum):
    """How an episode ended."""

    ANSWERED = "answered"
    """The last turn is plain text: the final answer."""
    CALLED = "called"
    """Stopped after the first turn with calls, on purpose."""
    MALFORMED = "malformed"
    """A turn could not be read without a problem; its calls were not run."""
    BAD_CALL = "bad_call"
    """A call of an unknown tool, or with arguments that break its schema, where the rules end the episode for it."""
    TRUNCATED = "truncated"
    """A turn was cut off by the limit on new tokens or by the end of the context; its calls were not run."""
    TOO_MANY_TURNS = "too_many_turns"
    """The last turn that the rules allow still called tools."""
    NO_ROOM = "no_room"
    """The prompt of the next turn leaves no room in the context."""
    FAILED = "failed"
    """The program failed, not the model; `Episode.reason` says how."""


@dataclass(frozen=True)
class Episode:
    """One played task. `results[i]` are the results of the calls of `turns[i]`, in their order; empty where none were run.

    `outcomes[i]` is what turn i came to; `penalties` counts the turns for which the rules say `PENALISE`. `said_by_call` is the
    answer that a stop tool was given.
    """

    task_id: str
    turns: tuple[Turn, ...]
    results: tuple[tuple[ToolResult, ...], ...]
    ending: EpisodeStatus
    reason: str = ""
    outcomes: tuple[TurnOutcome, ...] = ()
    penalties: int = 0
    said_by_call: str | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls that could be read, over all turns."""
        return tuple(call for turn in self.turns for call in turn.message.tool_calls)

    @property
    def answer(self) -> str | None:
        """The final text, when the episode ended with one."""
        if self.said_by_call is not None:
            return self.said_by_call
        return (
            self.turns[-1].message.content or "" if self.ending is EpisodeStatus.ANSWERED else None
        )


@dataclass(frozen=True)
class SampleRequest:
    """The wish to have a prompt continued; the answer is a `Turn`."""

    prompt: Prompt
    turn: int


@dataclass(frozen=True)
class ToolRequest:
    """The wish to have calls run; the answer is one `ToolResult` for each, in their order."""

    calls: tuple[ToolCall, ...]


Wish = SampleRequest | ToolRequest
Answer = Turn | Sequence[ToolResult]
Play = Generator[Wish, Answer, Episode]


def episode(task: Task, policy: Policy, rules: EpisodeRules) -> Play:
    """Play one task; the return value of the generator is the `Episode`. `policy` is asked to write prompts, never to sample.

    What the program gets wrong once the task is under way (and what the driver throws in) ends the episode as `FAILED`; only a
    first prompt that cannot be written is raised.
    """
    told = _Told()
    prompt = policy.open(task.messages, task.tools)
    prompt = replace(prompt, given=rules.given) if rules.given else prompt
    try:
        ending, reason = (yield from _turns(prompt, policy, rules, told)), ""
    except Exception as error:
        ending, reason = EpisodeStatus.FAILED, f"{type(error).__name__}: {error}"
    said = (
        final_answer(told.turns[-1], rules.stop_tools)
        if told.outcomes[-1:] == [TurnOutcome.FINAL_CALL]
        else None
    )
    penalties = sum(
        rules.after(outcome) is OnFault.PENALISE
        for outcome in told.outcomes
        if outcome in (*FAULTS, TurnOutcome.TRUNCATED)
    )
    penalties += ending is EpisodeStatus.TOO_MANY_TURNS and rules.too_many_turns is OnFault.PENALISE
    return Episode(
        task.id,
        tuple(told.turns),
        tuple(told.results),
        ending,
        reason,
        tuple(told.outcomes),
        penalties,
        said,
    )


@dataclass
class _Told:
    """What has happened so far."""

    turns: list[Turn] = field(default_factory=list)
    results: list[tuple[ToolResult, ...]] = field(default_factory=list)
    outcomes: list[TurnOutcome] = field(default_factory=list)

    def add(self, turn: Turn) -> Turn:
        """Note a turn, with an id on each call, so that results can name their call: what the model wrote, if no call had it yet,
        else one counted over the episode."""
        taken = [call.id for earlier in self.turns for call in earlier.message.tool_calls]
        calls: list[ToolCall] = []
        for call in turn.message.tool_calls:
            counted = (
                name for number in count(len(taken)) if (name := f"call{number:05d}") not in taken
            )
            calls.append(
                call
                if call.id is not None and call.id not in taken
                else replace(call, id=next(counted))
            )
            taken.append(calls[-1].id)
        self.turns.append(replace(turn, message=replace(turn.message, tool_calls=tuple(calls))))
        self.results.append(())
        return self.turns[-1]


def _turns(
    prompt: Prompt, policy: Policy, rules: EpisodeRules, told: _Told
) -> Generator[Wish, Answer, EpisodeStatus]:
    while policy.fits(prompt):
        answer = yield SampleRequest(prompt, len(told.turns))
        assert isinstance(answer, Turn), f"Say is answered with a Turn, got {type(answer).__name__}"
        turn = told.add(answer)
        outcome = outcome_of(turn, prompt.tools, rules.stop_tools)
        told.outcomes.append(outcome)
        if (ending := _ending(outcome, rules)) is not None:
            return ending
        if outcome is TurnOutcome.MALFORMED:
            messages = [complaint(turn)]
        else:
            calls = turn.message.tool_calls
            answer = yield ToolRequest(calls)
            assert not isinstance(answer, Turn), "Run is answered with results"
            assert len(answer) == len(calls), (
                f"{len(calls)} calls need as many results, got {len(answer)}"
            )
            told.results[-1] = tuple(answer)
            messages = _messages(calls, answer)
            if rules.first_call_only:
                return EpisodeStatus.CALLED
        if len(told.turns) == rules.max_turns:
            return EpisodeStatus.TOO_MANY_TURNS
        prompt = policy.extend(prompt, turn, messages)
    return EpisodeStatus.NO_ROOM


def _ending(outcome: TurnOutcome, rules: EpisodeRules) -> EpisodeStatus | None:
    """How a turn with this outcome ends the episode, or None when it goes on."""
    if outcome is TurnOutcome.TRUNCATED:
        return EpisodeStatus.TRUNCATED
    if outcome in (TurnOutcome.ANSWER, TurnOutcome.FINAL_CALL):
        return EpisodeStatus.ANSWERED
    if outcome is TurnOutcome.VALID_CALLS or rules.after(outcome) is OnFault.FEED_BACK:
        return None
    return EpisodeStatus.MALFORMED if outcome is TurnOutcome.MALFORMED else EpisodeStatus.BAD_CALL


def _messages(calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
    pairs = zip(calls, results, strict=True)
    return [
        Message("tool", result.content, tool_call_id=call.id, name=call.name)
        for call, result in pairs
    ]
