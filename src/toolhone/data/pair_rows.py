"""Preference pairs as rows: two rows of one group, the chosen one first, after the same prompt.

    rows = pair_rows(pairs, dialect, tokenizer, max_length=1024)
    rows.rows, rows.report                 # pairs, identical, unwritable, too_long, kinds

Turns of the assistant after the prompt are trained, with their stop marks. A `raw` side keeps its
marks, a sampled one its ids. Pairs with equal sides, or too long ones, are dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from toolhone.data.preferences import PairKind, PreferencePair
from toolhone.data.render import check_lengths
from toolhone.dialects.base import Dialect
from toolhone.errors import DataError, DialectError
from toolhone.rows import Origin, Row
from toolhone.schema import Conversation, Message
from toolhone.schema.preference import Preference
from toolhone.tokenizer import Span, TextTokenizer


@dataclass(frozen=True)
class PairRows:
    """Rows in pairs, the chosen one first, and a count of all pairs."""

    rows: list[Row]
    report: dict[str, Any]


def pair_rows(
    pairs: Iterable[PreferencePair],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    max_length: int,
    too_long: Literal["drop", "error"] = "drop",
) -> PairRows:
    """Return the rows of all pairs.

    A rejected side that the dialect cannot write drops a made pair; in a file it is an error.
    """
    rows: list[Row] = []
    kinds: list[PairKind] = []
    identical = unwritable = 0
    for number, pair in enumerate(pairs):
        chosen, rejected = _sides(pair, dialect, tokenizer)
        if rejected is None:
            unwritable += 1
        elif chosen.tokens.tolist() == rejected.tokens.tolist():
            identical += 1
        else:
            rows += [replace(row, group=f"pair-{number}") for row in (chosen, rejected)]
            kinds.append(pair.kind)
    if identical and not rows:
        raise DataError(
            f"in all {identical} pairs chosen and rejected are the same once they are written; "
            "there is nothing to prefer"
        )
    lengths = check_lengths(rows, max_length, too_long)
    left = {row.group for row in lengths.rows}
    kept = Counter(
        kind.value for kind, row in zip(kinds, rows[::2], strict=True) if row.group in left
    )
    report = {
        "pairs": len(lengths.rows) // 2,
        "identical": identical,
        "unwritable": unwritable,
        "too_long": lengths.dropped // 2,
        "longest_row": lengths.longest,
        "kinds": dict(sorted(kept.items())),
    }
    return PairRows(lengths.rows, report)


def _sides(
    pair: PreferencePair, dialect: Dialect, tokenizer: TextTokenizer
) -> tuple[Row, Row | None]:
    """Return the chosen row and the rejected one, or None if that is made and unwritable."""
    preference = pair.preference
    try:
        chosen = _row_of(preference, preference.chosen, dialect, tokenizer)
    except DialectError as error:
        raise DialectError(f"pair {preference.id!r}, chosen: {error}") from None
    prompt = chosen.tokens[: int(chosen.mask.argmax())].tolist()
    if pair.tokens:
        return chosen, _continue(prompt, pair.tokens)
    try:
        if preference.raw:
            raw = _raw_tokens(preference, chosen, dialect, tokenizer)
            return chosen, _continue(prompt, raw)
        rejected = _row_of(preference, preference.rejected, dialect, tokenizer)
    except DialectError as error:
        if pair.kind is not PairKind.FILE:
            return chosen, None
        raise DialectError(f"pair {preference.id!r}, rejected: {error}") from None
    if rejected.tokens[: int(rejected.mask.argmax())].tolist() != prompt:
        raise DialectError(
            f"pair {preference.id!r}: the template writes the prompt in two ways, depending on "
            "what follows it"
        )
    return chosen, rejected


def _row_of(
    preference: Preference, side: Sequence[Message], dialect: Dialect, tokenizer: TextTokenizer
) -> Row:
    """Return the prompt and a side up to its last trained token; only the side is trained."""
    messages = (*preference.prompt, *side)
    lists = dialect.render(Conversation(messages, preference.tools, preference.id))
    turns = sum(message.role == "assistant" for message in side)
    if len(lists) > 1 and turns > 1:
        raise DialectError(
            f"it has {turns} turns of the assistant, and this model's template rewrites earlier "
            "turns, so that there is no one row for them; use model.history=kept, or pairs of one "
            "turn"
        )
    row = tokenizer.encode_spans(lists[-1])
    starts = np.flatnonzero(np.diff(row.mask.astype(np.int8), prepend=0) == 1)
    if len(starts) < turns:
        raise DialectError(
            f"it has {turns} turns of the assistant, of which the rendered text shows {len(starts)}"
        )
    mask = row.mask.copy()
    mask[: starts[len(starts) - turns]] = False
    end = int(np.flatnonzero(mask)[-1]) + 1
    origin = None if row.origin is None else row.origin[:end]
    return Row(row.tokens[:end], mask[:end], {}, origin)


def _continue(prompt: Sequence[int], tokens: Sequence[int]) -> Row:
    """Return a row of the prompt and the sampled tokens after it, which are trained."""
    origins = [int(Origin.PROMPT)] * len(prompt) + [int(Origin.SAMPLED)] * len(tokens)
    return Row.of([*prompt, *tokens], [False] * len(prompt) + [True] * len(tokens), origins)


def _raw_tokens(
    preference: Preference, chosen: Row, dialect: Dialect, tokenizer: TextTokenizer
) -> list[int]:
    """Encode a raw text, its marks as marks; the stop mark is the chosen side's."""
    stops = tokenizer.stop_ids(dialect.stop)
    text = Span(preference.rejected[0].content or "", Origin.SAMPLED, trained=True)
    tokens: list[int] = tokenizer.encode_spans([Span("", Origin.SAMPLED), text]).tokens.tolist()
    if any(token in stops for token in tokens):
        raise DialectError(
            f"its raw text holds the stop mark ({' or '.join(dialect.stop)}), behind which nothing "
            "is said"
        )
    last = int(chosen.tokens[-1])
    return [*tokens, last if last in stops else stops[0]]
