"""A policy: something that continues a conversation. `TokenPolicy` is one of our models behind a dialect.

    policy = TokenPolicy(sampler, dialect, tokenizer, SamplingParams(max_tokens=128, temperature=0))
    turn = reply(policy, messages, tools)

Token ids are the only truth: the prompt of the next turn is the prompt of the last one, the ids exactly as sampled, and the
encoded suffix that the dialect puts after them; where a template rewrites history and may (`History.TEMPLATE`), it is the
template's text around the kept ids. What was sampled is never decoded and encoded again. A reply may have a *given* beginning:
ids that stand behind the prompt before anything is sampled, and are read as a part of the turn. Reading a turn as text and
calls is the dialect's business; playing a task to its end is that of `episode` and `driver`. A policy behind an HTTP address
keeps the same protocol with prompts that hold messages alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from toolhone.backends.base import Sample, Sampler, SamplingParams, StopReason, Stream
from toolhone.dialects.base import Dialect, History, ParseProblem
from toolhone.dialects.chat_template.history import assemble
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Message, Tool
from toolhone.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: the messages with the tools on offer, and for a token policy the ids that stand for them.

    `given` are the ids that the reply begins with; what is sampled follows `tokens` and `given`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tokens: tuple[int, ...] = ()
    said: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """The ids of the assistant's turns so far, given and sampled, by their number among the assistant's turns."""
    given: tuple[int, ...] = ()


@dataclass(frozen=True)
class Turn:
    """What a policy said, once.

    `text` is raw, without the stop mark; `message` is how it was read and `problem` how that ended. `tokens` are the ids as
    sampled (the stop id included), `logprobs` one number for each, `prompt` the ids of what the turn answers, `given` those that
    were put between the two: the turn is what `given` and `tokens` say together. All are empty where there are no ids.
    """

    message: Message
    text: str
    problem: ParseProblem = ParseProblem.NONE
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason = StopReason.STOP
    prompt: tuple[int, ...] = ()
    given: tuple[int, ...] = ()


class TurnStream(Protocol):
    """Turns without a barrier: prompts join at any time, finished turns leave."""

    def submit(self, key: int, prompt: Prompt) -> None:
        """Queue a prompt; `key` names it in `poll` and names its random stream."""

    def poll(self) -> list[tuple[int, Turn]]:
        """Work until a prompt is answered; returns those that are, and none only when nothing is left."""

    def close(self) -> None:
        """Drop all prompts."""


class Policy(Protocol):
    """Something that continues conversations."""

    @property
    def seed(self) -> int:
        """The seed of its sampling, for the record."""

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        """The prompt for the first turn."""

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:
        """The prompt for the next turn, after `turn` answered `prompt` and the tools answered `turn`."""

    def fits(self, prompt: Prompt) -> bool:
        """Whether the context has room for at least one more token."""

    def stream(self) -> TurnStream: ...


class TokenPolicy:
    """A sampler with its dialect and tokenizer.

    `params.stop_ids` are taken from the dialect's stop marks when empty; `params.num_samples` must be 1. `max_context` is the
    longest sequence in tokens, 0 when unbounded. `grammar` writes the grammar of a turn with these tools
    (`backends.constraint.Grammars.text`); None leaves turns free. `opening` are ids that every reply is given to begin with.
    """

    def __init__(
        self,
        sampler: Sampler,
        dialect: Dialect,
        tokenizer: TextTokenizer,
        params: SamplingParams,
        max_context: int = 0,
        grammar: Callable[[Sequence[Tool]], str] | None = None,
        opening: tuple[int, ...] = (),
    ) -> None:
        assert params.num_samples == 1, (
            f"a turn is one sample, got num_samples={params.num_samples}"
        )
        assert grammar is None or not opening, (
            "a grammar speaks of whole turns, so that none may begin with what is given"
        )
        self.sampler, self.dialect, self.tokenizer, self.max_context = (
            sampler,
            dialect,
            tokenizer,
            max_context,
        )
        self.grammar, self.opening = grammar, opening
        self._opened: Prompt | None = None
        self.params = (
            params
            if params.stop_ids
            else replace(params, stop_ids=tokenizer.stop_ids(dialect.stop))
        )

    @property
    def seed(self) -> int:
        return self.params.seed

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        """The prompt for the first turn; for the very same tuples once more, as for a group of episodes, the same object."""
        known = self._opened
        if known is None or known.messages is not messages or known.tools is not tools:
            known = self._opened = self._open(messages, tools)
        return known

    def _open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        row = self.tokenizer.encode_spans(self.dialect.prompt(messages, tools))
        return Prompt(tuple(messages), tuple(tools), tuple(row.tokens.tolist()), given=self.opening)

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:
        messages = (*prompt.messages, turn.message)
        number = sum(message.role == "assistant" for message in prompt.messages)
        said = {**prompt.said, number: (*turn.given, *turn.tokens)}
        if self.dialect.history is History.TEMPLATE:
            spans = self.dialect.prompt([*messages, *results], prompt.tools)
            row = assemble(spans, said, self.tokenizer, self.tokenizer.stop_ids(self.dialect.ends))
            return Prompt(
                (*messages, *results), prompt.tools, tuple(row.tokens.tolist()), said, self.opening
            )
        suffix = self.tokenizer.encode_spans(self.dialect.suffix(messages, prompt.tools, results))
        tokens = (*prompt.tokens, *said[number], *suffix.tokens.tolist())
        return Prompt((*messages, *results), prompt.tools, tokens, said, self.opening)

    def written(self, prompt: Prompt, message: Message) -> tuple[int, ...]:
        """The ids of this reply to a prompt as the dialect writes it for training, its end mark included.

        `DialectError` where the dialect has no place for the reply, or would write the prompt before it in another way.
        """
        spans = self.dialect.render(Conversation((*prompt.messages, message), prompt.tools))[-1]
        row, start = self.tokenizer.encode_spans(spans), len(prompt.tokens)
        if tuple(row.tokens[:start].tolist()) != prompt.tokens:
            raise DialectError(
                "the template writes the prompt in two ways, depending on what follows it"
            )
        return tuple(row.tokens[start:][row.mask[start:]].tolist())

    def fits(self, prompt: Prompt) -> bool:
        return not self.max_context or len(prompt.tokens) + len(prompt.given) < self.max_context

    def check_tools(self, offers: Iterable[Sequence[Tool]]) -> None:
        """Refuse now, in one sentence, the first of these tools that turns cannot be constrained to."""
        if self.grammar is not None:
            for tools in offers:
                self.grammar(tools)

    def stream(self) -> TurnStream:
        return _TokenStream(self, self.sampler.stream())

    def read(self, prompt: Prompt, sample: Sample) -> Turn:
        """A sample as a turn; never raises, whatever was sampled."""
        text = self.tokenizer.decode([*prompt.given, *sample.tokens], self.params.stop_ids)
        read = self.dialect.parse(text, prompt.tools)
        message, before = read.to_message(), (prompt.tokens, prompt.given)
        return Turn(
            message, text, read.problem, sample.tokens, sample.logprobs, sample.stop_reason, *before
        )


class _TokenStream:
    def __init__(self, policy: TokenPolicy, stream: Stream) -> None:
        self._policy, self._stream = policy, stream
        self._prompts: dict[int, Prompt] = {}

    def submit(self, key: int, prompt: Prompt) -> None:
        assert not prompt.given or self._policy.grammar is None, (
            "a grammar speaks of whole turns, not of the rest of one"
        )
        self._prompts[key] = prompt
        grammar = self._policy.grammar and self._policy.grammar(prompt.tools)
        tokens = (*prompt.tokens, *prompt.given)
        self._stream.submit(key, tokens, self._policy.params, grammar)

    def poll(self) -> list[tuple[int, Turn]]:
        return [
            (key, self._policy.read(self._prompts.pop(key), samples[0]))
            for key, samples in self._stream.poll()
        ]

    def close(self) -> None:
        self._prompts.clear()
        self._stream.close()


def reply(
    policy: Policy, messages: Sequence[Message], tools: Sequence[Tool] = (), key: int = 0
) -> Turn:
    """One turn of a policy after these messages, waited for."""
    return speak(policy, policy.open(messages, tools), key)


def speak(policy: Policy, prompt: Prompt, key: int = 0) -> Turn:
    """One turn of a policy after this prompt, waited for; `key` names its random stream."""
    stream = policy.stream()
    stream.submit(key, prompt)
    answered = stream.poll()
    while not answered:
        answered = stream.poll()
    return answered[0][1]
