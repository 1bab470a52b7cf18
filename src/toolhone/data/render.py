"""Conversations to rows: what a dialect writes, as token ids with the positions that are trained.

    rendered = render_rows(conversations, dialect, tokenizer, loss_on="completion", max_length=1024, too_long="drop")

Every conversation gives one row, or one for each assistant turn where its template rewrites history. A row that is longer than
`max_length` is dropped whole and counted, or stops; it is never cut. A conversation without a supervised token stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolhone.dialects.base import Dialect
from toolhone.errors import DataError, DialectError
from toolhone.progress import Progress, Silent, track
from toolhone.rows import Row
from toolhone.schema import Conversation
from toolhone.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Rendered:
    """Rows ready for a trainer, and the count of rows that were dropped because they are too long."""

    rows: list[Row]
    too_long: int
    longest: int

    def counts(self) -> dict[str, int]:
        trained = sum(int(row.mask.sum()) for row in self.rows)
        return {"rows": len(self.rows), "too_long": self.too_long, "longest": self.longest, "trained_tokens": trained}


def render_rows(
    conversations: Sequence[Conversation],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    *,
    loss_on: str = "completion",
    max_length: int,
    too_long: str = "drop",
    progress: Progress | None = None,
) -> Rendered:
    """Render and encode. `loss_on`: "completion" trains what the assistant says, "all" every token but the first."""
    rows: list[Row] = []
    dropped, longest = 0, 0
    for conversation in track(conversations, progress or Silent(), "rendering", len(conversations)):
        for row in _rows_of(conversation, dialect, tokenizer):
            longest = max(longest, len(row))
            if len(row) <= max_length:
                rows.append(row if loss_on == "completion" else Row.of(row.tokens, np.ones(len(row), bool)))
                continue
            if too_long == "error":
                raise DataError(
                    f"conversation {conversation.id!r} has {len(row)} tokens, more than training.max_length={max_length}"
                )
            dropped += 1
    if not rows:
        raise DataError(
            f"all {dropped} rows are longer than training.max_length={max_length} (the longest has {longest} tokens); raise it"
        )
    return Rendered(rows, dropped, longest)


def _rows_of(conversation: Conversation, dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    try:
        rows = [tokenizer.encode_spans(spans) for spans in dialect.render(conversation)]
    except DialectError as error:
        raise DialectError(f"conversation {conversation.id!r}: {error}") from None
    if not any(row.mask.any() for row in rows):
        raise DataError(f"conversation {conversation.id!r} has no supervised token: no assistant message with text or a call")
    return rows
