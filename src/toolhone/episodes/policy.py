"""A policy continues a conversation: one of our models behind a dialect.

    policy = TokenPolicy(sampler, dialect, tokenizer, SamplingParams(max_tokens=128, temperature=0))
    policy = open_policy(sampler, dialect, tokenizer, plan, max_context, registry.tools)
    turn = policy.complete(policy.open(messages, tools))

Token ids are the only truth: what was sampled is never decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Protocol

from toolhone.backends.base import Sample, Sampler, SamplingParams, StopReason, Stream
from toolhone.backends.constraint import Grammars
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import ToolDetail
from toolhone.dialects.interface import Dialect, History, ParseProblem
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool
from toolhone.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Prompt:
    """What to continue: messages and tools, and their ids for a token policy.

    `prefill` are the ids that the reply begins with: not sampled, and read as part of the turn.
    `turn_ids` are those of the assistant's turns so far, by their number.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tokens: tuple[int, ...] = ()
    turn_ids: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    prefill: tuple[int, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One turn of a policy, which `prefill` and `tokens` spell together.

    `text` is raw, without the stop mark; `message` and `problem` are how it was read. `tokens` are
    the ids as sampled (the stop id included) with their `logprobs`; `prompt` are those before it.
    """

    message: Message
    text: str
    problem: ParseProblem = ParseProblem.NONE
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason = StopReason.STOP
    prompt: tuple[int, ...] = ()
    prefill: tuple[int, ...] = ()


class PolicyStream(Protocol):
    """`backends.base.Stream` for turns."""

    def submit(self, key: int, prompt: Prompt) -> None:
        """Queue a prompt; `key` names it in `poll`, and its random stream."""

    def poll(self) -> list[tuple[int, Turn]]:
        """Work until a prompt is answered; returns all that are, and [] only when none is left."""

    def close(self) -> None:
        """Drop all prompts."""


class Policy(Protocol):
    """What episodes and evaluations need: one of our models, or `ChatPolicy` behind an address."""

    @property
    def seed(self) -> int: ...
    def describe(self) -> dict[str, Json]: ...
    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt: ...
    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt: ...
    def fits(self, prompt: Prompt) -> bool: ...
    def check_tools(self, offers: Iterable[Sequence[Tool]]) -> None: ...
    def stream(self) -> PolicyStream: ...


class TokenPolicy:
    """A policy made of a sampler with its dialect and tokenizer; `seed` is that of its sampling.

    Empty `params.stop_ids` become the dialect's stop marks. `max_context` 0 is unbounded. `grammar`
    writes the grammar of a turn with these tools. `opening` is the prefill of every reply. `shown`
    are the tools that the prompt shows of those on offer.
    """

    shown: Callable[[Sequence[Tool]], Sequence[Tool]] = staticmethod(tuple)

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
        assert params.num_samples == 1, f"a turn is one sample, got {params.num_samples}"
        assert grammar is None or not opening, "a grammar covers whole turns, so no prefill"
        self.sampler, self.dialect, self.tokenizer = sampler, dialect, tokenizer
        self.max_context, self.grammar, self.opening = max_context, grammar, opening
        self._opened: Prompt | None = None
        stop_ids = params.stop_ids or tokenizer.stop_ids(dialect.stop)
        self.params, self.seed = replace(params, stop_ids=stop_ids), params.seed

    def describe(self) -> dict[str, Json]:
        """How turns are sampled, for a report."""
        return {
            "template_switches": getattr(self.dialect, "switches", None),
            "temperature": self.params.temperature,
            "max_new_tokens": self.params.max_tokens,
            "seed": self.seed,
            "constrained": self.grammar is not None,
        }

    def showing(self, shown: Callable[[Sequence[Tool]], Sequence[Tool]]) -> TokenPolicy:
        """The same policy, whose prompts show other tools."""
        twin = copy(self)
        twin.shown, twin._opened = shown, None
        return twin

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        """The prompt for the first turn; the same object again for the same tuples."""
        opened = self._opened
        if opened is None or opened.messages is not messages or opened.tools is not tools:
            row = self.tokenizer.encode_spans(self.dialect.prompt(messages, self.shown(tools)))
            ids = tuple(row.tokens.tolist())
            opened = Prompt(tuple(messages), tuple(tools), ids, prefill=self.opening)
            self._opened = opened
        return opened

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:
        """The prompt for the next turn, after `turn` and the results of its tools."""
        messages, tools = (*prompt.messages, turn.message), self.shown(prompt.tools)
        number = sum(message.role == "assistant" for message in prompt.messages)
        turn_ids = {**prompt.turn_ids, number: (*turn.prefill, *turn.tokens)}
        if self.dialect.history is History.TEMPLATE:
            spans = self.dialect.prompt([*messages, *results], tools)
            ends = self.tokenizer.stop_ids(self.dialect.ends)
            row = self.tokenizer.encode_spans(spans, turn_ids, ends)
            tokens = tuple(row.tokens.tolist())
        else:
            spans = self.dialect.suffix(messages, tools, results)
            suffix = self.tokenizer.encode_spans(spans).tokens.tolist()
            tokens = (*prompt.tokens, *turn_ids[number], *suffix)
        return Prompt((*messages, *results), prompt.tools, tokens, turn_ids, self.opening)

    def encode_reply(self, prompt: Prompt, message: Message) -> tuple[int, ...]:
        """The ids of a reply as the dialect writes it for training, its end mark included.

        `DialectError` if the dialect has no place for it, or writes the prompt in another way.
        """
        conversation = Conversation((*prompt.messages, message), tuple(self.shown(prompt.tools)))
        spans = self.dialect.render(conversation)[-1]
        row, start = self.tokenizer.encode_spans(spans), len(prompt.tokens)
        if tuple(row.tokens[:start].tolist()) != prompt.tokens:
            raise DialectError(
                "the template writes the prompt in two ways, depending on what follows it"
            )
        return tuple(row.tokens[start:][row.mask[start:]].tolist())

    def fits(self, prompt: Prompt) -> bool:
        """Whether the context has room for at least one more token."""
        return not self.max_context or len(prompt.tokens) + len(prompt.prefill) < self.max_context

    def check_tools(self, offers: Iterable[Sequence[Tool]]) -> None:
        """Refuse the first of these tools that has no grammar, where turns are constrained."""
        if self.grammar is not None:
            for tools in offers:
                self.grammar(tools)

    def stream(self) -> TurnStream:
        return TurnStream(self, self.sampler.stream())

    def complete(self, prompt: Prompt, key: int = 0) -> Turn:
        """One turn after this prompt; `key` names its random stream."""
        stream = self.stream()
        stream.submit(key, prompt)
        ((_, turn),) = stream.poll()
        return turn

    def read(self, prompt: Prompt, sample: Sample) -> Turn:
        """Read a sample as a turn; never raises."""
        text = self.tokenizer.decode([*prompt.prefill, *sample.tokens], self.params.stop_ids)
        read = self.dialect.parse(text, prompt.tools)
        ids = sample.tokens, sample.logprobs, sample.stop_reason, prompt.tokens, prompt.prefill
        message = Message("assistant", read.content, read.reasoning, read.calls)
        return Turn(message, text, read.problem, *ids)


@dataclass(frozen=True)
class TurnStream:
    """`backends.base.Stream` for turns."""

    policy: TokenPolicy
    samples: Stream
    prompts: dict[int, Prompt] = field(default_factory=dict)

    def submit(self, key: int, prompt: Prompt) -> None:
        """Queue a prompt; `key` names it in `poll`, and its random stream."""
        grammar = self.policy.grammar and self.policy.grammar(prompt.tools)
        assert grammar is None or not prompt.prefill, "a grammar covers whole turns, so no prefill"
        self.prompts[key] = prompt
        tokens = (*prompt.tokens, *prompt.prefill)
        self.samples.submit(key, tokens, self.policy.params, grammar)

    def poll(self) -> list[tuple[int, Turn]]:
        """Work until a prompt is answered; returns all that are, and [] only when none is left."""
        done = self.samples.poll()
        return [(key, self.policy.read(self.prompts.pop(key), one[0])) for key, one in done]

    def close(self) -> None:
        """Drop all prompts."""
        self.prompts.clear()
        self.samples.close()


@dataclass(frozen=True)
class KnownTools:
    """`known` are shown in this detail; a tool that differs from them in anything, in full.

    Turns are read with the whole tools either way, and grammars are written with them.
    """

    detail: ToolDetail
    known: Sequence[Tool]

    @staticmethod
    def of(plan: Experiment, tools: Sequence[Tool]) -> KnownTools:
        """As an evaluation shows the tools of the experiment: as after the baking, if it bakes."""
        bake = plan.training.bake
        usual = ToolDetail.FULL if bake is None else bake.goal
        return KnownTools(plan.evaluation.tools_in_prompt or usual, tools)

    def __call__(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """The tools as the prompt shows them."""
        if self.detail is ToolDetail.FULL:
            return tuple(tools)
        by_name = {tool.name: tool for tool in self.known}
        shown = []
        for tool in tools:
            if by_name.get(tool.name) != tool:
                shown.append(tool)
            elif self.detail is ToolDetail.NAMES:
                shown.append(Tool(tool.name))
        return tuple(shown)


def open_policy(
    sampler: Sampler,
    dialect: Dialect,
    tokenizer: TextTokenizer,
    plan: Experiment,
    context: int,
    tools: Sequence[Tool],
) -> TokenPolicy:
    """A policy that samples as the `evaluation` section says; `tools` are the experiment's."""
    wanted = plan.evaluation
    params = SamplingParams(
        wanted.max_new_tokens, wanted.temperature, wanted.top_p, wanted.top_k, seed=plan.seed
    )
    grammars = Grammars(dialect, tokenizer).text if wanted.constrained else None
    policy = TokenPolicy(sampler, dialect, tokenizer, params, context, grammars)
    return policy.showing(KnownTools.of(plan, tools))
