"""`Row`: token ids plus per-token arrays, ready for a trainer; and the split of rows into
micro-batches.

Alignment: every per-token array is as long as `tokens`; entry t is about the prediction of token t
from the tokens before it; entry 0 is never trained. Only backends shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[int]
Array = NDArray[np.float32]


class Origin(IntEnum):
    """Where a token comes from."""

    PROMPT = 0
    """Rendered: headers, system text, user text."""
    SAMPLED = 1
    """Sampled from the model, or written by the assistant that it imitates."""
    TOOL = 2
    """A tool's result."""
    GIVEN = 3
    """A prefill: the beginning of a reply that the model continues; never trained."""


@dataclass(frozen=True)
class Row:
    """One sequence.

    tokens: int64 [T]. mask: bool [T], the positions whose log-probability the loss sees. arrays by
    name: float32 [T], or a scalar for the whole row. `behavior_logprobs` are the sampler's,
    `old_logprobs` those of the policy before the update, `ref_logprobs` those of the reference;
    `turn_weights` are the weights of messages in the loss, where one is not 1. origin: uint8 [T] of
    `Origin`. group: rows with the same group (a DPO pair, the episodes of one task) are never split
    between micro-batches. targets: int64 [T], predicted in place of `tokens` (torch, MLX).
    """

    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]
    arrays: Mapping[str, Array] = field(default_factory=dict)
    origin: NDArray[np.uint8] | None = None
    group: str | None = None
    targets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        length = len(self.tokens)
        assert len(self.mask) == length, f"mask has {len(self.mask)} entries for {length} tokens"
        assert length == 0 or not self.mask[0], "entry 0 is never trained"
        for name, values in self.arrays.items():
            assert np.ndim(values) == 0 or len(values) == length, (
                f"{name} has {len(values)} entries for {length} tokens"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def turn_weights(self) -> Array:
        """The weight of each token's message in the loss: [T], or the one number 1."""
        return self.arrays.get("turn_weights", np.ones((), np.float32))

    @staticmethod
    def of(
        tokens: Tokens,
        mask: Sequence[bool] | NDArray[np.bool_],
        origin: Sequence[int] | None = None,
    ) -> Row:
        """Make a row from plain lists; clear entry 0 of the mask."""
        flags = np.array(mask, dtype=bool)
        flags[:1] = False
        origins = None if origin is None else np.array(origin, dtype=np.uint8)
        return Row(np.array(tokens, dtype=np.int64), flags, {}, origins)

    def with_arrays(self, **arrays: Array | float) -> Row:
        """Return the row with further per-token arrays, or numbers for the whole row."""
        added = {name: np.asarray(values, dtype=np.float32) for name, values in arrays.items()}
        return replace(self, arrays={**self.arrays, **added})

    def with_mask(self, mask: NDArray[np.bool_]) -> Row:
        """Return the row with another mask, without entry 0 and messages of weight 0."""
        mask = mask & (self.turn_weights > 0)
        mask[:1] = False
        return replace(self, mask=mask)


def padded_targets(rows: Sequence[Row], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [rows, width]: what each place of the padded `tokens` is to predict."""
    if all(row.targets is None for row in rows):
        return tokens
    wanted = tokens.copy()
    for line, row in zip(wanted, rows, strict=True):
        if row.targets is not None:
            line[: len(row)] = row.targets
    return wanted


def different_rows(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The rows without repeats of tokens, mask, targets; the place of each row among them."""
    places: dict[tuple[bytes, ...], int] = {}
    lines = []
    for row in rows:
        targets = row.tokens if row.targets is None else row.targets
        key = (row.tokens.tobytes(), row.mask.tobytes(), targets.tobytes())
        lines.append(places.setdefault(key, len(places)))
    return [rows[lines.index(place)] for place in range(len(places))], lines


def micro_batches(
    rows: Sequence[Row], max_tokens: int, whole_groups: bool = True
) -> list[list[int]]:
    """Split rows into batches of at most `max_tokens` padded tokens; returns row indices.

    Similar lengths are neighbours. Rows of a group stay together; those of a group of a quarter of
    the limit or more are with no others, since a backend runs the prompt that they share once. A
    group above the limit is one batch, or is split where `whole_groups` is False. Sums do not
    depend on the split.
    """
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.group if row.group is not None else index, []).append(index)
    alone: list[list[int]] = []
    others: list[list[int]] = []
    for members in groups.values():
        parts = [members]
        if not whole_groups:
            by_length = sorted(members, key=lambda i: len(rows[i]))
            parts = _fill([[i] for i in by_length], rows, max_tokens)
        large = 4 * len(members) * _width(members, rows) >= max_tokens
        (alone if large and len(members) > 1 else others).extend(parts)
    others.sort(key=lambda part: (_width(part, rows), part[0]))
    batches = [*alone, *_fill(others, rows, max_tokens)]
    return sorted(batches, key=lambda batch: (_width(batch, rows), batch[0]))


def _width(part: Sequence[int], rows: Sequence[Row]) -> int:
    return max(len(rows[i]) for i in part)


def _fill(parts: Sequence[list[int]], rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Join neighbouring parts, in order of length, as long as the padded batch fits."""
    batches: list[list[int]] = []
    for part in parts:
        joined = len(batches[-1]) + len(part) if batches else 0
        if batches and joined * _width(part, rows) <= max_tokens:
            batches[-1].extend(part)
        else:
            batches.append(list(part))
    return batches
