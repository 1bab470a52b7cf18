"""One played task, as a generator that yields requests and is sent the answers; it does no I/O.

    play = episode(task, policy, EpisodeRules())
    request = next(play)            # SampleRequest(prompt): answer with a Turn
    request = play.send(turn)       # ToolRequest(calls): answer with one ToolResult for each
    ...                             # StopIteration carries the Episode

A tool that fails does not end an episode: its result goes back to the model.
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
    """A call of an unknown tool or against its schema, where the rules end the episode for it."""
    TRUNCATED = "truncated"
    """A turn reached the limit on new tokens or the context; its calls were not run."""
    TOO_MANY_TURNS = "too_many_turns"
    """The last turn that the rules allow still called tools."""
    NO_ROOM = "no_room"
    """The prompt of the next turn leaves no room in the context."""
    FAILED = "failed"
    """The program failed, not the model; `Episode.reason` says how."""


@dataclass(frozen=True)
class Episode:
    """One played task; `outcomes[i]` and `results[i]` belong to `turns[i]`.

    `penalties` counts the turns that the rules penalise; `final_call` is the answer to a stop tool.
    """

    task_id: str
    turns: tuple[Turn, ...]
    results: tuple[tuple[ToolResult, ...], ...]
    ending: EpisodeStatus
    reason: str = ""
    outcomes: tuple[TurnOutcome, ...] = ()
    penalties: int = 0
    final_call: str | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls that could be read, over all turns."""
        return tuple(call for turn in self.turns for call in turn.message.tool_calls)

    @property
    def answer(self) -> str | None:
        """The final text, when the episode ended with one."""
        if self.final_call is not None or self.ending is not EpisodeStatus.ANSWERED:
            return self.final_call
        return self.turns[-1].message.content or ""


@dataclass(frozen=True)
class SampleRequest:
    """A prompt to continue; the answer is a `Turn`."""

    prompt: Prompt
    turn: int


@dataclass(frozen=True)
class ToolRequest:
    """Calls to run; the answer is one `ToolResult` for each, in their order."""

    calls: tuple[ToolCall, ...]


Request = SampleRequest | ToolRequest
Answer = Turn | Sequence[ToolResult]
Play = Generator[Request, Answer, Episode]


def episode(task: Task, policy: Policy, rules: EpisodeRules) -> Play:
    """Play one task; the return value of the generator is the `Episode`.

    Errors of the program once the task is under way (or that the driver throws in) end the episode
    as `FAILED`; a first prompt that cannot be written is raised.
    """
    history = _PlayState()
    prompt = policy.open(task.messages, task.tools)
    prompt = replace(prompt, prefill=rules.prefill) if rules.prefill else prompt
    try:
        ending, reason = (yield from _turns(prompt, policy, rules, history)), ""
    except Exception as error:
        ending, reason = EpisodeStatus.FAILED, f"{type(error).__name__}: {error}"
    final_call = None
    if history.outcomes[-1:] == [TurnOutcome.FINAL_CALL]:
        final_call = final_answer(history.turns[-1], rules.stop_tools)
    faults = [one for one in history.outcomes if one in (*FAULTS, TurnOutcome.TRUNCATED)]
    penalties = sum(rules.after(fault) is OnFault.PENALISE for fault in faults)
    penalties += ending is EpisodeStatus.TOO_MANY_TURNS and rules.too_many_turns is OnFault.PENALISE
    turns, results = tuple(history.turns), tuple(history.results)
    outcomes = tuple(history.outcomes)
    return Episode(task.id, turns, results, ending, reason, outcomes, penalties, final_call)


@dataclass
class _PlayState:
    """The turns so far."""

    turns: list[Turn] = field(default_factory=list)
    results: list[tuple[ToolResult, ...]] = field(default_factory=list)
    outcomes: list[TurnOutcome] = field(default_factory=list)

    def add(self, turn: Turn) -> Turn:
        """Append a turn, with an id on each call: the model's if it is new, else a counted one."""
        used = [call.id for earlier in self.turns for call in earlier.message.tool_calls]
        calls: list[ToolCall] = []
        for call in turn.message.tool_calls:
            if call.id is None or call.id in used:
                names = (f"call{number:05d}" for number in count(len(used)))
                call = replace(call, id=next(name for name in names if name not in used))
            calls.append(call)
            used.append(call.id)
        self.turns.append(replace(turn, message=replace(turn.message, tool_calls=tuple(calls))))
        self.results.append(())
        return self.turns[-1]


def _turns(
    prompt: Prompt, policy: Policy, rules: EpisodeRules, history: _PlayState
) -> Generator[Request, Answer, EpisodeStatus]:
    while policy.fits(prompt):
        answer = yield SampleRequest(prompt, len(history.turns))
        assert isinstance(answer, Turn), "a sample request needs a Turn"
        turn = history.add(answer)
        outcome = outcome_of(turn, prompt.tools, rules.stop_tools)
        history.outcomes.append(outcome)
        if (ending := _ending(outcome, rules)) is not None:
            return ending
        if outcome is TurnOutcome.MALFORMED:
            messages = [complaint(turn)]
        else:
            calls = turn.message.tool_calls
            answer = yield ToolRequest(calls)
            assert not isinstance(answer, Turn), "a tool request needs results"
            assert len(answer) == len(calls), (
                f"{len(calls)} calls need as many results, got {len(answer)}"
            )
            history.results[-1] = tuple(answer)
            messages = [
                Message("tool", result.content, tool_call_id=call.id, name=call.name)
                for call, result in zip(calls, answer, strict=True)
            ]
            if rules.first_call_only:
                return EpisodeStatus.CALLED
        if len(history.turns) == rules.max_turns:
            return EpisodeStatus.TOO_MANY_TURNS
        prompt = policy.extend(prompt, turn, messages)
    return EpisodeStatus.NO_ROOM


def _ending(outcome: TurnOutcome, rules: EpisodeRules) -> EpisodeStatus | None:
    """How a turn with this outcome ends the episode; None when it continues."""
    if outcome is TurnOutcome.TRUNCATED:
        return EpisodeStatus.TRUNCATED
    if outcome in (TurnOutcome.ANSWER, TurnOutcome.FINAL_CALL):
        return EpisodeStatus.ANSWERED
    if outcome is TurnOutcome.VALID_CALLS or rules.after(outcome) is OnFault.FEED_BACK:
        return None
    return EpisodeStatus.MALFORMED if outcome is TurnOutcome.MALFORMED else EpisodeStatus.BAD_CALL
