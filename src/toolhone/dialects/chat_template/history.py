"""Token ids of a chat whose earlier turns were sampled: `assemble`.

    row = assemble(dialect.prompt(messages, tools), kept, tokenizer, stop_ids)

The template's text is encoded; sampled text never is. Of a sampled turn, those ids are kept whose
text the template keeps: all, or all after the place where the template changes it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from toolhone.dialects.chat_template.turns import common_start
from toolhone.rows import Origin, Row, Tokens
from toolhone.tokenizer import Span, Spans, TextTokenizer


def assemble(
    spans: Spans, kept: Mapping[int, Tokens], tokenizer: TextTokenizer, stop_ids: Sequence[int]
) -> Row:
    """Return the row of these spans, with the ids in `kept` (by turn) for spans of those turns."""
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
    written: str, sampled: Tokens, tokenizer: TextTokenizer, stop_ids: Sequence[int]
) -> list[int]:
    """Return the ids of a sampled turn, as far as the template's text for it keeps them."""
    body, ending = list(sampled), []
    if body and body[-1] in stop_ids:
        body, ending = body[:-1], body[-1:]
    wanted = written
    stops = {tokenizer.decode([index]): index for index in stop_ids}
    for text in sorted(stops, key=len, reverse=True):
        if written.endswith(text):
            wanted, ending = written.removesuffix(text), [stops[text]]
            break
    text = tokenizer.decode(body)
    if text == wanted:
        return [*body, *ending]
    shared = len(common_start(text[::-1], wanted[::-1]))

    def begin(index: int) -> int:
        """The character at which a token begins."""
        return len(text) - len(tokenizer.decode(body[index:]))

    kept = body[bisect_left(range(len(body)), len(text) - shared, key=begin) :]
    missing = len(wanted) - len(tokenizer.decode(kept))
    return [*tokenizer.encode(wanted[:missing], control=True), *kept, *ending]
