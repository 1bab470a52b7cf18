"""Conversations to rows: what a dialect writes, as token ids with the positions that are trained.

    lengths = render_rows(conversations, dialect, tokenizer, training)

A conversation gives one row, or one for each assistant turn where its template rewrites history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from toolhone.config.sections import TrainingSection
from toolhone.dialects.interface import Dialect
from toolhone.errors import DataError, DialectError
from toolhone.rows import Row
from toolhone.runs.progress import Progress, track
from toolhone.schema import Conversation
from toolhone.tokenizer import Spans, TextTokenizer

_TOO_LONG_FIX = "raise the maximum length or shorten the rows"


def render_rows(
    conversations: Sequence[Conversation],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    training: TrainingSection,
    too_long: Literal["drop", "error"] = "drop",
    progress: Progress | None = None,
    may_be_empty: bool = False,
) -> Lengths:
    """Render, encode and check the lengths; `loss_on="all"` trains every token but the first.

    Turns of weight 0 are not trained. `may_be_empty`: no row need be left, as of rows that are held
    out.
    """
    rows: list[Row] = []
    not_learned = 0
    progress = progress or Progress()
    for conversation in track(conversations, progress, "rendering", len(conversations)):
        where = f"conversation {conversation.id!r}"
        if not conversation.is_learned:
            not_learned += 1
            continue
        if training.loss_on == "all":
            check_weights(conversation, where)
        try:
            own = encode_rows(dialect.render(conversation), dialect, tokenizer)
        except DialectError as error:
            raise DialectError(f"{where}: {error}") from None
        if not any(row.mask.any() for row in own):
            raise DataError(
                f"{where} has no supervised token: wanted an assistant message with text or a call"
            )
        rows += own
    if not_learned and not rows and not may_be_empty:
        what = f"all {not_learned} conversations have only turns of weight 0"
        raise DataError(f"no row is left: {what}; wanted a turn to learn")
    if training.loss_on == "all":
        rows = [row.with_mask(np.ones(len(row), bool)) for row in rows]
    lengths = check_lengths(rows, training.max_length, too_long, may_be_empty)
    return replace(lengths, not_learned=not_learned)


def check_weights(conversation: Conversation, where: str) -> None:
    """Refuse weights that `loss_on="all"` cannot obey: those of users, systems and tools."""
    for index, message in enumerate(conversation.messages):
        if message.role != "assistant" and message.weight != 1:
            raise DataError(
                f"{where}: messages[{index}] ({message.role}) has the weight {message.weight}, "
                "which training.loss_on 'all' cannot obey; use loss_on 'assistant'"
            )


def encode_rows(lists: Sequence[Spans], dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    """Return the rows of a rendered conversation; a turn has the same ids in every row.

    Turns of weight 0 are not in the mask; a row for such a turn alone is left out.
    """
    trained: dict[int, list[int]] = {}
    rows = []
    for number, spans in enumerate(lists):
        ends = tokenizer.stop_ids(dialect.ends) if number else ()
        row = tokenizer.encode_spans(spans, trained, ends)
        trained[number] = row.tokens[row.mask].tolist()
        learned = row.with_mask(row.mask)
        rows += [learned] if learned.mask.any() or not row.mask.any() else []
    return rows


@dataclass(frozen=True)
class Lengths:
    """Rows that fit; how many did not; and the longest row seen, in tokens.

    not_learned: conversations without a row, since their turns have weight 0.
    """

    rows: list[Row]
    dropped: int
    longest: int
    not_learned: int = 0


def check_lengths(
    rows: Sequence[Row],
    max_length: int,
    policy: Literal["drop", "error"] = "drop",
    may_be_empty: bool = False,
) -> Lengths:
    """Keep the rows of at most `max_length` tokens (0: any length); policy "error" refuses others.

    Rows of one group are dropped together. A row without a trained token is a `DataError`.
    """
    for number, row in enumerate(rows, start=1):
        if not row.mask.any():
            raise DataError(
                f"row {number} of {len(rows)} has {len(row)} tokens and none to learn from; "
                "wanted an assistant turn"
            )
    longest = max(map(len, rows), default=0)
    too_long = [row for row in rows if 0 < max_length < len(row)]
    if too_long and policy == "error":
        raise DataError(
            f"{len(too_long)} of {len(rows)} rows are longer than {max_length} tokens, the longest "
            f"has {longest}; {_TOO_LONG_FIX}"
        )
    lost = {row.group for row in too_long if row.group is not None}
    kept = [row for row in rows if not 0 < max_length < len(row) and row.group not in lost]
    if rows and not kept and not may_be_empty:
        shortest = min(map(len, rows))
        raise DataError(
            f"no row is left: all {len(rows)} are longer than {max_length} tokens, the shortest "
            f"has {shortest}; {_TOO_LONG_FIX}"
        )
    return Lengths(kept, len(rows) - len(kept), longest)
