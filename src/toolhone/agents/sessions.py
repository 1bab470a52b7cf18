"""A session: the requests of one agent, recorded with exact token ids as they become an `Episode`.

    request = session.ask(chat)         # the prompt that continues the recorded ids; sample it
    turn = session.add(chat, turn)      # what is answered, with ids on its calls
    session.episode("task-7")

A request continues a recorded turn where its messages begin with what that turn was asked and
answered; nothing is guessed. Any other is a prefix break: a row of its own, counted by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from toolhone.agents.openai import ChatRequest, answer_of
from toolhone.backends.base import SamplingParams
from toolhone.episodes.episode import (
    Episode,
    EpisodeRules,
    EpisodeStatus,
    OnFault,
    PlayState,
    Recording,
    SampleRequest,
    TurnOutcome,
    ending_after,
)
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import DialectError, UserError
from toolhone.schema import Message, Tool
from toolhone.tools.result import ToolResult, ToolStatus

RULES = EpisodeRules(max_turns=1024, then={TurnOutcome.MALFORMED: OnFault.FEED_BACK})
"""Those of a session that is only recorded: what the agent does after a fault is its own part."""
SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "seed")


class PrefixBreak(StrEnum):
    """Why a request does not continue the ids of the last recorded turn."""

    BRANCHED = "branched"
    """It continues an earlier turn, exactly."""
    REPEATED = "repeated"
    """It asks what an earlier request asked."""
    REPLY_CHANGED = "reply_changed"
    """The reply in it is not the one that was given."""
    TOOLS_CHANGED = "tools_changed"
    """It continues the messages and offers other tools."""
    HISTORY_CHANGED = "history_changed"
    """Its messages do not begin with those of any earlier request."""
    NOT_APPENDABLE = "not_appendable"
    """The format cannot write its new messages behind the last turn."""


class SessionEndedError(UserError):
    """A request to a session that has ended."""

    code = "episode_ended"


@dataclass(frozen=True)
class RecordedTurn:
    """A recorded turn: what it was asked, what the agent was given, and what it continues."""

    asked: tuple[Message, ...]
    given: Message
    prompt: Prompt
    turn: Turn
    number: int

    def continues_in(self, messages: Sequence[Message]) -> bool:
        """Whether messages begin with what was asked and answered here; an agent may leave the
        reasoning out."""
        count, given = len(self.asked), self.given
        if tuple(messages[:count]) != self.asked or len(messages) <= count:
            return False
        sent = messages[count]
        words = (sent.content or "") == (given.content or "")
        thought = sent.reasoning is None or sent.reasoning == given.reasoning
        return (
            sent.role == "assistant" and words and thought and sent.tool_calls == given.tool_calls
        )


@dataclass
class AgentSession:
    """The requests of one agent so far. `ended`: the rules end the episode, so that no request
    follows. `ignored` counts settings of requests that are not those of the policy."""

    policy: TokenPolicy
    rules: EpisodeRules = RULES
    ended: EpisodeStatus | None = None
    breaks: Counter[PrefixBreak] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    params: list[SamplingParams] = field(default_factory=list)
    _play: PlayState = field(default_factory=PlayState)
    _positions: list[RecordedTurn] = field(default_factory=list)
    _seen: tuple[tuple[Message, ...], tuple[Tool, ...]] = ((), ())

    def ask(self, chat: ChatRequest) -> SampleRequest:
        """The prompt of a request. `SessionEndedError` where the rules end the episode before."""
        position = self._find(chat)
        if self.ended is None:
            if position is not None:
                self._add_results(position, chat.messages)
            self.ended = self._ending_before()
        prompt = None if self.ended else self._prompt(position, chat)
        if prompt is not None and not self.policy.fits(prompt):
            self.ended = EpisodeStatus.NO_ROOM
        if prompt is None or self.ended is not None:
            raise SessionEndedError(f"the episode of this session has ended: {self.ended}")
        for name in SETTINGS:
            if getattr(chat.params, name) != getattr(self.policy.params, name):
                self.ignored[name] += 1
        number = len(self.params)
        self.params.append(chat.params)
        self._seen = chat.messages, chat.tools
        return SampleRequest(prompt, number)

    def add(self, chat: ChatRequest, request: SampleRequest, turn: Turn) -> Turn:
        """Record what was sampled for a request; returns it as it is answered."""
        outcome = self._play.add(turn, chat.tools, self.rules)
        turn = self._play.turns[-1]
        given = dict(answer_of(turn, chat).message)
        given.pop("toolhone", None)
        reply, number = Message.from_dict(given), len(self._play.turns) - 1
        self._positions.append(RecordedTurn(chat.messages, reply, request.prompt, turn, number))
        self._seen = (*chat.messages, reply), chat.tools
        if outcome is not TurnOutcome.ANSWER:  # the agent may ask on after an answer
            self.ended = ending_after(outcome, self.rules)
        return turn

    def episode(
        self,
        task_id: str,
        reward: float | Mapping[str, float] | None = None,
        failure: str = "",
        reason: str = "",
    ) -> Episode:
        """The episode so far; `failure` and its `reason` say how the agent failed."""
        ending = EpisodeStatus.FAILED if failure else self.ended or self._ending_here()
        messages, tools = self._seen
        breaks = {kind.value: count for kind, count in self.breaks.items()}
        record = Recording(messages, tools, reward, breaks, dict(self.ignored), failure)
        episode = self._play.episode(task_id, self.rules, ending, reason)
        states = (None,) * sum(bool(results) for results in episode.results)
        return replace(episode, states=states, recording=record)

    def _find(self, chat: ChatRequest) -> RecordedTurn | None:
        """The recorded turn that a request continues: the latest of those that fit."""
        if not self._positions:
            return None
        found = [one for one in self._positions if one.continues_in(chat.messages)]
        longest = max(found, key=lambda one: (len(one.asked), one.number), default=None)
        if longest is not None and longest.prompt.tools == chat.tools:
            self.breaks.update([] if longest is self._positions[-1] else [PrefixBreak.BRANCHED])
            return longest
        if longest is not None:
            kind = PrefixBreak.TOOLS_CHANGED
        elif any(one.asked == chat.messages for one in self._positions):
            kind = PrefixBreak.REPEATED
        elif any(
            one.asked == chat.messages[: len(one.asked)]
            and [m.role for m in chat.messages[len(one.asked) :][:1]] == ["assistant"]
            for one in self._positions
        ):
            kind = PrefixBreak.REPLY_CHANGED
        else:
            kind = PrefixBreak.HISTORY_CHANGED
        self.breaks[kind] += 1
        return None

    def _prompt(self, position: RecordedTurn | None, chat: ChatRequest) -> Prompt:
        messages = with_names(chat.messages)
        if position is None:
            return self.policy.open(messages, chat.tools)
        try:
            results = messages[len(position.asked) + 1 :]
            return self.policy.extend(position.prompt, position.turn, results)
        except DialectError:
            self.breaks[PrefixBreak.NOT_APPENDABLE] += 1
            return self.policy.open(messages, chat.tools)

    def _add_results(self, position: RecordedTurn, messages: Sequence[Message]) -> None:
        """Note the results of a turn's calls; a call without one counts as refused."""
        calls = position.turn.message.tool_calls
        sent = messages[len(position.asked) + 1 :]
        texts = {one.tool_call_id: one.content or "" for one in sent if one.role == "tool"}
        if not texts or position.given.tool_calls == ():
            return
        tools, results = {tool.name: tool for tool in position.prompt.tools}, []
        for call in calls:
            tool, status = tools.get(call.name), ToolStatus.OK
            if call.id not in texts:
                status = ToolStatus.REFUSED
            elif tool is None:
                status = ToolStatus.UNKNOWN_TOOL
            elif tool.problems(call.arguments):
                status = ToolStatus.INVALID_ARGUMENTS
            results.append(ToolResult(status, texts.get(call.id, "")))
        self._play.results[position.number] = tuple(results)

    def _ending_before(self) -> EpisodeStatus | None:
        """How the rules end the episode before a further turn."""
        outcomes, results = self._play.outcomes, self._play.results
        if self.rules.first_call_only and results and results[-1]:
            return EpisodeStatus.CALLED
        if len(outcomes) < self.rules.max_turns:
            return None
        answered = outcomes[-1] is TurnOutcome.ANSWER
        return EpisodeStatus.ANSWERED if answered else EpisodeStatus.TOO_MANY_TURNS

    def _ending_here(self) -> EpisodeStatus:
        """How the episode ended if the agent asks no more."""
        if not self._play.outcomes:
            return EpisodeStatus.FAILED
        ends = {
            TurnOutcome.ANSWER: EpisodeStatus.ANSWERED,
            TurnOutcome.MALFORMED: EpisodeStatus.MALFORMED,
        }
        return ends.get(self._play.outcomes[-1], EpisodeStatus.CALLED)


def with_names(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages, with the name of its tool on each result that has none."""
    names = {call.id: call.name for one in messages for call in one.tool_calls}
    if all(one.role != "tool" or one.name for one in messages):
        return messages
    return tuple(
        replace(one, name=one.name or names.get(one.tool_call_id)) if one.role == "tool" else one
        for one in messages
    )
