"""The toy's policy: a softmax over hashed contexts, in NumPy, with its gradient by hand.

The logits of position t are a sum of one row of each table; order n hashes the last n tokens before
t to a row of its table, order 0 is a bias. The gradient is dL/dlogits = dL/dlogp * (onehot(token) -
softmax) / temperature. The arithmetic is float64; log-probabilities leave as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolhone.backends.base import pad_rows, random_stream
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Array, Row, Tokens

Real = NDArray[np.float64]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

NO_TOKEN = -1
"""The entry of a window before the sequence begins."""
_INIT_SCALE = 0.1
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@dataclass(frozen=True)
class ToyShape:
    """The size of a toy. `orders`: tokens that each table looks back; `buckets`: its rows."""

    vocab_size: int
    orders: tuple[int, ...] = (0, 1, 2, 3)
    buckets: int = 1024
    max_context: int = 2048

    @property
    def reach(self) -> int:
        """The longest look back, in tokens."""
        return max(self.orders)


@dataclass
class ToyPolicy:
    """The weights: `tables[i]` is float64 [1 or buckets, vocab_size] for `shape.orders[i]`."""

    shape: ToyShape
    tables: list[Real]

    @staticmethod
    def fresh(shape: ToyShape, seed: int) -> ToyPolicy:
        """Small random weights, a pure function of the shape and the seed."""
        tables = []
        for i, order in enumerate(shape.orders):
            size = (shape.buckets if order else 1, shape.vocab_size)
            tables.append(random_stream(seed, i).normal(0.0, _INIT_SCALE, size))
        return ToyPolicy(shape, tables)

    def zeros(self) -> list[Real]:
        return [np.zeros_like(table) for table in self.tables]

    def copy(self) -> ToyPolicy:
        return ToyPolicy(self.shape, [table.copy() for table in self.tables])

    def buckets(self, windows: Ids) -> Ids:
        """The row of each table for windows [n, reach], oldest token first: int64 [n, orders]."""
        result = np.zeros((len(windows), len(self.shape.orders)), dtype=np.int64)
        for column, order in enumerate(self.shape.orders):
            if order:
                hashes = _hash(windows[:, self.shape.reach - order :])
                result[:, column] = hashes % np.uint64(self.shape.buckets)
        return result

    def log_softmax(self, buckets: Ids, temperature: float) -> Real:
        """float64 [n, vocab_size]: log p of every token after the contexts in these buckets."""
        logits = np.zeros((len(buckets), self.shape.vocab_size))
        for table, index in zip(self.tables, buckets.T, strict=True):
            logits += table[index]
        logits = (logits - logits.max(axis=1, keepdims=True)) / temperature
        normalised: Real = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return normalised

    def check(self, tokens: Tokens | Ids) -> None:
        """Refuse a sequence that does not fit this policy."""
        if len(tokens) > self.shape.max_context:
            raise CapabilityError(
                f"a sequence of {len(tokens)} tokens does not fit the model's context of "
                f"{self.shape.max_context}"
            )
        ids = np.asarray(tokens)
        odd = ids[(ids < 0) | (ids >= self.shape.vocab_size)]
        if len(odd):
            raise ModelError(
                f"token id {odd[0]} is outside the model's vocabulary of "
                f"{self.shape.vocab_size} ids; use its tokenizer"
            )


def _hash(windows: Ids) -> NDArray[np.uint64]:
    """64-bit FNV-1a over the columns of token ids [n, order], high bits mixed into low ones."""
    state = np.full(len(windows), _FNV_OFFSET, dtype=np.uint64)
    for column in (windows - NO_TOKEN).astype(np.uint64).T:
        state = (state ^ column) * _FNV_PRIME
    return state ^ (state >> np.uint64(29))


def windows_before(tokens: Ids, reach: int) -> Ids:
    """int64 [rows, T, reach]: the tokens before each position, `NO_TOKEN` before the first."""
    rows, length = tokens.shape
    led = np.concatenate([np.full((rows, reach), NO_TOKEN, dtype=np.int64), tokens], axis=1)
    windows: Ids = np.lib.stride_tricks.sliding_window_view(led, reach, axis=1)[:, :length]
    return windows


@dataclass(frozen=True)
class Forward:
    """The masked positions of padded rows: `index` [n, orders], `targets` [n], `logp` [n, V]."""

    mask: Flags
    index: Ids
    targets: Ids
    logp: Real

    @staticmethod
    def of(policy: ToyPolicy, rows: Sequence[Row], temperature: float) -> Forward:
        for row in rows:
            policy.check(row.tokens)
        tokens, mask, _ = pad_rows(rows)
        index = policy.buckets(windows_before(tokens, policy.shape.reach)[mask])
        return Forward(mask, index, tokens[mask], policy.log_softmax(index, temperature))

    def target_logp(self) -> Array:
        """float32 [rows, T]: the log-probability of each row's own tokens, 0 outside the mask."""
        result = np.zeros(self.mask.shape, dtype=np.float32)
        result[self.mask] = self.logp[np.arange(len(self.targets)), self.targets]
        return result

    def dlogits(self, dlogp: Array, temperature: float) -> Real:
        """dL/dlogits [n, vocab_size] from dL/dlogp [rows, T]."""
        result = -np.exp(self.logp)
        result[np.arange(len(self.targets)), self.targets] += 1.0
        result *= (dlogp[self.mask] / temperature)[:, None]
        return result
