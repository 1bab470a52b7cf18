"""What rows are rendered with to see how long they are: a tokenizer and a dialect, and how many tokens the model takes.

    parts = ModelParts(dialect, tokenizer, context=32768)
    measure(conversation, parts)             # Measured(tokens, supervised, problem)

Opening them is the business of whoever asks; weights are not needed. Which length is too long is said in `lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolhone.data.render import encode_rows
from toolhone.dialects.base import Dialect
from toolhone.errors import DataError, DialectError
from toolhone.schema import Conversation
from toolhone.tokenizer import TextTokenizer


@dataclass(frozen=True)
class ModelParts:
    """`context`: the most tokens the model takes, None where nothing says it."""

    dialect: Dialect
    tokenizer: TextTokenizer
    context: int | None = None


@dataclass(frozen=True)
class Measured:
    """How a conversation was rendered: tokens of its longest row, tokens to learn from, or why it could not be."""

    tokens: int
    supervised: int
    problem: str = ""


def measure(conversation: Conversation, parts: ModelParts) -> Measured:
    """Render and encode, as a training does."""
    try:
        rows = encode_rows(parts.dialect.render(conversation), parts.dialect, parts.tokenizer)
    except (DialectError, DataError) as error:
        return Measured(0, 0, str(error))
    return Measured(max(map(len, rows), default=0), sum(int(row.mask.sum()) for row in rows))
