"""The ids of a chat whose earlier turns have been said already: `assemble`.

    row = assemble(dialect.prompt(messages, tools), kept, tokenizer, stop_ids)

What a template writes is encoded; what the assistant said is never encoded again. Of a turn that was said those ids are kept whose
text the template keeps: all of them, or all behind the place where the template leaves something out or writes something else (the
thought of an earlier turn), as far as a token begins there. What stands before that place, and the end mark, are the template's.
A turn of which the template keeps nothing is the template's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from toolhone.dialects.base import Span, Spans
from toolhone.rows import Origin, Row, Tokens
from toolhone.tokenizer import TextTokenizer


def assemble(
    spans: Spans, kept: Mapping[int, Tokens], tokenizer: TextTokenizer, stop_ids: Sequence[int]
) -> Row:
    """The row of these spans, with the ids of `kept` (by turn) where a span belongs to one of those turns."""
    tokens: list[int] = []
    mask: list[bool] = []
    origins: list[int] = []
    for turn, group in groupby(spans, key=lambda span: span.turn if span.turn in kept else None):
        part = list(group)
        if turn is None:
            row = tokenizer.encode_spans(part if not tokens else [Span("", Origin.SAMPLED), *part])
            ids, trained = row.tokens.tolist(), row.mask.tolist()
            kinds = [int(Origin.PROMPT)] * len(ids) if row.origin is None else row.origin.tolist()
        else:
            ids = kept_ids("".join(span.text for span in part), kept[turn], tokenizer, stop_ids)
            trained, kinds = [False] * len(ids), [int(Origin.SAMPLED)] * len(ids)
        tokens += ids
        mask += trained
        origins += kinds
    return Row.of(tokens, np.array(mask, bool), origins)


def kept_ids(
    written: str, said: Tokens, tokenizer: TextTokenizer, stop_ids: Sequence[int]
) -> list[int]:
    """The ids of a turn that was said, as far as the template's text for it keeps it."""
    body, ending = list(said), []
    if body and body[-1] in stop_ids:
        body, ending = body[:-1], body[-1:]
    wanted = written
    for text, index in sorted(
        {tokenizer.decode([index]): index for index in stop_ids}.items(),
        key=lambda item: -len(item[0]),
    ):
        if written.endswith(text):
            wanted, ending = written.removesuffix(text), [index]
            break
    text = tokenizer.decode(body)
    if text == wanted:
        return [*body, *ending]
    shared = _common_end(text, wanted)
    first = _token_at(body, len(text) - shared, tokenizer)
    kept = body[first:]
    missing = len(wanted) - len(tokenizer.decode(kept))
    return [*tokenizer.encode(wanted[:missing], control=True), *kept, *ending]


def _common_end(first: str, second: str) -> int:
    """How many characters both texts share at their ends."""
    count = 0
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        count += 1
    return count


def _token_at(ids: Sequence[int], place: int, tokenizer: TextTokenizer) -> int:
    """The first token whose text begins at or behind this character."""
    total = len(tokenizer.decode(ids))
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if total - len(tokenizer.decode(ids[middle:])) < place:
            low = middle + 1
        else:
            high = middle
    return low
