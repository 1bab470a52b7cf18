"""What rows are rendered with to see how long they are: tokenizer and dialect, opened as a training opens them, without weights.

    parts = open_parts("Qwen/Qwen3-0.6B")
    measure(conversation, parts)             # Measured(tokens, supervised, problem)

Which length is too long is said in `lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolhone.dialects.base import Dialect
from toolhone.dialects.choose import open_dialect
from toolhone.errors import DataError, DialectError
from toolhone.schema import Conversation
from toolhone.tokenizer import TextTokenizer

_ENDLESS = 10**9


@dataclass(frozen=True)
class ModelName:
    """How a model's parts are opened, so that another process can open them again."""

    path: str
    dialect: str = "auto"
    markup: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class ModelParts:
    """`context`: the most tokens the model takes, None where nothing says it. `name`: None for parts that were made by hand."""

    tokenizer: TextTokenizer
    dialect: Dialect
    context: int | None = None
    name: ModelName | None = None


def open_parts(model: str | Path, dialect: str = "auto", markup: str = "auto", trust_remote_code: bool = False) -> ModelParts:
    """Tokenizer and dialect of a model folder or hub name."""
    return reopen(ModelName(str(model), dialect, markup, trust_remote_code))


def reopen(name: ModelName) -> ModelParts:
    """The parts of a model that was named before."""
    tokenizer = TextTokenizer.load(name.path, name.trust_remote_code)
    return ModelParts(tokenizer, open_dialect(tokenizer, name.dialect, name.markup), _context(name, tokenizer), name)


def _context(name: ModelName, tokenizer: TextTokenizer) -> int | None:
    """What the model's own configuration says, else what its tokenizer says."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name.path, trust_remote_code=name.trust_remote_code).get_text_config()
    except (OSError, ValueError):  # a folder that holds a tokenizer alone
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


def measure(conversation: Conversation, parts: ModelParts) -> Measured:
    """Render and encode, as a training does."""
    try:
        rows = [parts.tokenizer.encode_spans(spans) for spans in parts.dialect.render(conversation)]
    except (DialectError, DataError) as error:
        return Measured(0, 0, str(error))
    return Measured(max(map(len, rows), default=0), sum(int(row.mask.sum()) for row in rows))
