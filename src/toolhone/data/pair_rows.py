"""Preference pairs as rows: two rows of one group, the chosen one first, with the same ids up to where the assistant decides.

    rows = pair_rows(pairs, dialect, tokenizer, max_length=1024)
    rows.rows, rows.report                 # report: pairs, identical, unwritable, too_long, kinds

Only what the assistant says behind the prompt is trained: its turns with their stop marks, never the results of tools between them,
never turns of the prompt. A side goes through the dialect as any conversation does, tools included. A `raw` one is encoded as it
stands, its marks as the marks they are, and gets the stop mark that the chosen one ends in; a sampled one keeps its ids. A pair
whose sides have the same ids is refused and counted; one that is too long is dropped whole and counted. Where a template rewrites
earlier turns, a side must be one turn, or the history `kept`: there would be no single row for it.
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
    """Rows in pairs, the chosen one first, and the account of where every pair went."""

    rows: list[Row]
    report: dict[str, Any]


def pair_rows(
    pairs: Iterable[PreferencePair],
    dialect: Dialect,
    tokenizer: TextTokenizer,
    max_length: int,
    too_long: Literal["drop", "error"] = "drop",
) -> PairRows:
    """The rows of all pairs. Of a made pair whose rejected side the dialect cannot write none; of a pair from a file, an error."""
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
            f"in all {identical} pairs chosen and rejected are the same once they are written; there is nothing to prefer"
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
    """The chosen row, and the rejected one; None where a rejected side that was made cannot be written."""
    preference = pair.preference
    try:
        chosen = _row_of(preference, preference.chosen, dialect, tokenizer)
    except DialectError as error:
        raise DialectError(f"pair {preference.id!r}, chosen: {error}") from None
    prompt = chosen.tokens[: _begin(chosen)].tolist()
    if pair.tokens:
        return chosen, _continued(prompt, pair.tokens)
    try:
        if preference.raw:
            return chosen, _raw_row(prompt, preference, chosen, dialect, tokenizer)
        rejected = _row_of(preference, preference.rejected, dialect, tokenizer)
    except DialectError as error:
        if pair.kind is not PairKind.FILE:
            return chosen, None
        raise DialectError(f"pair {preference.id!r}, rejected: {error}") from None
    if rejected.tokens[: _begin(rejected)].tolist() != prompt:
        raise DialectError(
            f"pair {preference.id!r}: the template writes the prompt in two ways, depending on what follows it"
        )
    return chosen, rejected


def _row_of(
    preference: Preference, side: Sequence[Message], dialect: Dialect, tokenizer: TextTokenizer
) -> Row:
    """The row of the prompt and a side, trained on the side alone, up to its last trained token."""
    lists = dialect.render(
        Conversation((*preference.prompt, *side), preference.tools, preference.id)
    )
    turns = sum(message.role == "assistant" for message in side)
    if len(lists) > 1 and turns > 1:
        raise DialectError(
            f"it has {turns} turns of the assistant, and this model's template rewrites earlier turns, so that there is no one row "
            "for them; use model.history=kept, or pairs of one turn"
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


def _begin(row: Row) -> int:
    """Where the trained part begins."""
    return int(np.flatnonzero(row.mask)[0])


def _continued(prompt: Sequence[int], said: Sequence[int]) -> Row:
    """A prompt's ids and what was said after it."""
    origins = [int(Origin.PROMPT)] * len(prompt) + [int(Origin.SAMPLED)] * len(said)
    return Row.of([*prompt, *said], [False] * len(prompt) + [True] * len(said), origins)


def _raw_row(
    prompt: Sequence[int],
    preference: Preference,
    chosen: Row,
    dialect: Dialect,
    tokenizer: TextTokenizer,
) -> Row:
    """A raw text as the turn: its marks are marks, and the stop mark is the chosen side's."""
    stops = tokenizer.stop_ids(dialect.stop)
    text = Span(preference.rejected[0].content or "", Origin.SAMPLED, trained=True)
    said = tokenizer.encode_spans([Span("", Origin.SAMPLED), text]).tokens.tolist()
    if any(token in stops for token in said):
        raise DialectError(
            f"its raw text holds the stop mark ({' or '.join(dialect.stop)}), behind which nothing is said"
        )
    last = int(chosen.tokens[-1])
    return _continued(prompt, [*said, last if last in stops else stops[0]])
