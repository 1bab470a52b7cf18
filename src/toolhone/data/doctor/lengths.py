"""Rows against a model: can its format write them, is there something to learn from, and do they fit?

    parts = open_parts("Qwen/Qwen3-0.6B")                  # tokenizer and dialect, as a training opens them; no weights
    Yardstick(parts, max_length).faults(conversation)

Without a model only an estimate is possible, where a limit is given: a token of everyday tokenizers stands for three to five
characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolhone.data.doctor.findings import Fault, Kind
from toolhone.data.doctor.repeats import ToolTexts
from toolhone.dialects.base import Dialect
from toolhone.dialects.choose import open_dialect
from toolhone.errors import DataError, DialectError
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import TextTokenizer

CHARACTERS = 5
"""Characters that a token stands for at most, on the average of a row."""
_ENDLESS = 10**9


@dataclass(frozen=True)
class ModelParts:
    """What rows are rendered with; `context`: the most tokens the model takes, None where nothing says it."""

    tokenizer: TextTokenizer
    dialect: Dialect
    context: int | None = None


def open_parts(model: str | Path, dialect: str = "auto", markup: str = "auto", trust_remote_code: bool = False) -> ModelParts:
    """Tokenizer and dialect of a model folder or hub name; its weights are not loaded."""
    tokenizer = TextTokenizer.load(model, trust_remote_code)
    return ModelParts(tokenizer, open_dialect(tokenizer, dialect, markup), _context(model, tokenizer, trust_remote_code))


def _context(model: str | Path, tokenizer: TextTokenizer, trust_remote_code: bool) -> int | None:
    """What the model's own configuration says, else what its tokenizer says."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code).get_text_config()
    except (OSError, ValueError):
        limit = tokenizer.wrapped.model_max_length
    else:
        limit = getattr(config, "max_position_embeddings", None) or tokenizer.wrapped.model_max_length
    return int(limit) if 0 < limit < _ENDLESS else None


@dataclass(frozen=True)
class Measured:
    """How a conversation was rendered: tokens of its longest row, tokens to learn from, or why it could not be."""

    tokens: int
    supervised: int
    problem: str = ""

    def faults(self, limit: int | None) -> Iterator[Fault]:
        """What is wrong with it, for a limit in tokens."""
        if self.problem:
            yield Kind.CANNOT_RENDER, "messages", self.problem, "wanted a row that the format of this model can write"
        elif not self.supervised:
            yield Kind.NO_SUPERVISED, "messages", f"none of its {self.tokens} tokens is learnt from", "wanted an assistant turn"
        elif limit and self.tokens > limit:
            yield Kind.TOO_LONG, "messages", f"it has {self.tokens} tokens", f"at most {limit} fit"


def measure(conversation: Conversation, parts: ModelParts) -> Measured:
    """Render and encode, as a training does."""
    try:
        rows = [parts.tokenizer.encode_spans(spans) for spans in parts.dialect.render(conversation)]
    except (DialectError, DataError) as error:
        return Measured(0, 0, str(error))
    return Measured(max(map(len, rows), default=0), sum(int(row.mask.sum()) for row in rows))


class Yardstick:
    """Measures rows against a model, or estimates them against a limit in tokens; what was rendered is remembered.

    `limit`: max_length where it is given, else what the model takes; None: nothing is too long.
    """

    def __init__(self, parts: ModelParts | None = None, max_length: int | None = None) -> None:
        self.parts = parts
        self.limit = max_length or (parts.context if parts is not None else None)
        self._known: dict[int, tuple[Conversation, Measured]] = {}
        self._texts = ToolTexts()

    def faults(self, conversation: Conversation) -> Iterator[Fault]:
        if self.parts is not None:
            yield from self._measured(conversation, self.parts).faults(self.limit)
        elif self.limit:
            yield from self._estimated(conversation, self.limit)

    def _measured(self, conversation: Conversation, parts: ModelParts) -> Measured:
        if id(conversation) not in self._known:
            self._known[id(conversation)] = (conversation, measure(conversation, parts))
        return self._known[id(conversation)][1]

    def _estimated(self, conversation: Conversation, limit: int) -> Iterator[Fault]:
        characters = len(self._texts.of(conversation.tools)) + sum(map(_length, conversation.messages))
        if characters > CHARACTERS * limit:
            what = f"it has {characters} characters, probably more than {characters // CHARACTERS} tokens"
            yield Kind.MAYBE_TOO_LONG, "messages", what, f"at most {limit} tokens fit"


def _length(message: Message) -> int:
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
    return len(message.content or "") + len(message.reasoning or "") + calls
