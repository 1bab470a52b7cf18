"""Conversations to rows: what a dialect writes, as token ids with the positions that are trained.

    lengths = render_rows(conversations, dialect, tokenizer, training)

Every conversation gives one row, or one for each assistant turn where its template rewrites history. Which rows fit, and what
happens to those that do not, is said in `check.check_lengths`: a row is dropped whole and counted, or stops; it is never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from toolhone.config.sections import TrainingSection
from toolhone.dialects.base import Dialect, Spans
from toolhone.dialects.chat_template.history import assemble
from toolhone.doctor.row_checks import Lengths, check_lengths
from toolhone.errors import DataError, DialectError
from toolhone.rows import Row
from toolhone.runs.progress import Progress, SilentProgress, track
from toolhone.schema import Conversation
from toolhone.tokenizer import TextTokenizer


def render_rows(
    conversations: Sequence[Conversation],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    training: TrainingSection,
    too_long: Literal["drop", "error"] = "drop",
    progress: Progress | None = None,
) -> Lengths:
    """Render, encode and check the lengths. With `loss_on="all"` every token but the first is trained."""
    rows: list[Row] = []
    for conversation in track(
        conversations, progress or SilentProgress(), "rendering", len(conversations)
    ):
        rows += _rows_of(conversation, dialect, tokenizer)
    if training.loss_on == "all":
        rows = [Row.of(row.tokens.tolist(), np.ones(len(row), bool)) for row in rows]
    return check_lengths(rows, training.max_length, too_long)


def encode_rows(lists: Sequence[Spans], dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    """The rows of a rendered conversation. Earlier turns have in each row the ids that they were trained with."""
    if len(lists) == 1:
        return [tokenizer.encode_spans(lists[0])]
    said: dict[int, list[int]] = {}
    rows = []
    for number, spans in enumerate(lists):
        row = assemble(spans, said, tokenizer, tokenizer.stop_ids(dialect.ends))
        said[number] = row.tokens[row.mask].tolist()
        rows.append(row)
    return rows


def _rows_of(conversation: Conversation, dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    try:
        rows = encode_rows(dialect.render(conversation), dialect, tokenizer)
    except DialectError as error:
        raise DialectError(f"conversation {conversation.id!r}: {error}") from None
    if not any(row.mask.any() for row in rows):
        raise DataError(
            f"conversation {conversation.id!r} has no supervised token: wanted an assistant message with text or a call"
        )
    return rows
