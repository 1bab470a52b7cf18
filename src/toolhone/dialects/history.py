"""The ids of a chat whose earlier turns have been said already: `assemble`.

    row = assemble(dialect.prompt(messages, tools), kept, tokenizer, stop_ids)

What a template writes is encoded; what the assistant said is never encoded again. A kept turn comes back whole, or without its
beginning where the template leaves that out (a thought of an earlier turn) and a token ends there; a turn that the template would
write in another way stays as it was said. Only its end mark is the template's, which may have another one for earlier turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from toolhone.dialects.base import Span, Spans
from toolhone.rows import Origin, Row, Tokens
from toolhone.tokenizer import TextTokenizer


def assemble(spans: Spans, kept: Mapping[int, Tokens], tokenizer: TextTokenizer, stop_ids: Sequence[int]) -> Row:
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


def kept_ids(written: str, said: Tokens, tokenizer: TextTokenizer, stop_ids: Sequence[int]) -> list[int]:
    """The ids of a turn that was said, as far as the template's text for it keeps it."""
    body, ending = list(said), []
    if body and body[-1] in stop_ids:
        body, ending = body[:-1], body[-1:]
    text, wanted = tokenizer.decode(body), written
    for index in sorted({tokenizer.decode([index]): index for index in stop_ids}.items(), key=lambda item: -len(item[0])):
        if written.endswith(index[0]):
            wanted, ending = written.removesuffix(index[0]), [index[1]]
            break
    if text == wanted or not text.endswith(wanted) or not wanted:
        return [*body, *ending]
    low, high = 0, len(body)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(body[middle:])) > len(wanted):
            low = middle + 1
        else:
            high = middle
    return [*(body[low:] if tokenizer.decode(body[low:]) == wanted else body), *ending]
