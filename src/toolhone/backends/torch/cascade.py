"""Cascade attention: queries meet what they share once, and what is their own one by one.

Both products are merged by their log-sum-exp, which is exact (Juravsky et al. 2024,
arXiv:2402.05099). A pass lays the tokens of all rows on one line and is called by each attention
layer of a plain transformers model, through transformers' `AttentionInterface`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from toolhone.backends.torch.device import trim_heap
from toolhone.backends.torch.kernels import (
    HIDDEN_SCORE,
    CpuKernel,
    GpuKernel,
    PlainKernel,
    kernel_of,
)
from toolhone.backends.torch.prefix_cache import PrefixNode

NAME = "toolhone_cascade"
"""Of this attention among those of transformers."""
Array = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Kernel:
    """How a layer attends. window: the keys that a query sees, itself included; None: all."""

    run: CpuKernel | GpuKernel | PlainKernel
    window: int | None


class Pass(Protocol):
    """One forward pass of a model: which queries see which keys, and where new keys are kept."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: Kernel
    ) -> torch.Tensor:
        """q [kv heads, repeats, tokens, width]; k and v [kv heads, tokens, width].

        Returns [tokens, heads, width].
        """


def cascade_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 (the signature of transformers)
    scaling: float | None = None,
    sliding_window: int | None = None,
    cascade: Pass | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of a layer as transformers calls it: one line of tokens, batch size 1."""
    if cascade is None or others.get("s_aux") is not None:
        raise RuntimeError(f"{type(module).__name__} is not called as cascade attention needs it")
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    q, k = query[0].to(value.dtype), key[0].to(value.dtype)
    each = q.reshape(len(k), -1, *q.shape[1:])
    how = Kernel(kernel_of(q, value, scale, others.get("softcap")), sliding_window)
    return cascade.attend(module.layer_idx, each, k, value[0], how)[None], None


def merge(
    out: torch.Tensor, total: torch.Tensor, other: torch.Tensor, other_total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join attention over two sets of keys: outputs [..., width], log-sum-exps [...]."""
    share = torch.sigmoid(other_total - total)[..., None].to(out.dtype)
    return torch.lerp(out, other, share), torch.logaddexp(total, other_total)


def _hidden(like: torch.Tensor) -> np.float32:
    """What is added to the score of a key that a query does not see."""
    return np.float32(max(HIDDEN_SCORE, torch.finfo(like.dtype).min / 2))


def window_mask(
    queries: Array, keys: Array, window: int | None, like: torch.Tensor
) -> torch.Tensor | None:
    """[1, 1, queries, keys] for positions int64 [queries] and [keys]; None where all is seen."""
    seen = keys <= queries[:, None]
    if window is not None:
        seen &= keys > queries[:, None] - window
    if seen.all():
        return None
    mask = np.where(seen, np.float32(0), _hidden(like))
    return torch.from_numpy(mask)[None, None].to(like.device, like.dtype)


class Slots:
    """Keys and values that rows have for themselves: by layer [slots, kv heads, room, width]."""

    def __init__(self) -> None:
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self.count, self.room = 0, 0

    def reserve(self, count: int, room: int) -> None:
        """Make room for so many rows of so many tokens; what is in them stays."""
        if count <= self.count and room <= self.room:
            return
        if count > self.count:
            self.count = count + count // 4 if self.count else count
        if room > self.room:
            self.room = room + max(16, room // 4)
        for stored in (self.keys, self.values):
            for layer, old in stored.items():
                new = old.new_zeros(self.count, old.shape[1], self.room, old.shape[3])
                new[: len(old), :, : old.shape[2]] = old
                stored[layer] = new
        if self.keys:
            trim_heap(next(iter(self.keys.values())).device)

    def layer(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The tensors of a layer, made like k and v [kv heads, tokens, width] at first."""
        if layer not in self.keys:
            for stored, like in ((self.keys, k), (self.values, v)):
                stored[layer] = like.new_zeros(self.count, len(like), self.room, like.shape[2])
        return self.keys[layer], self.values[layer]

    def copy(self, source: int, target: int, length: int) -> None:
        for stored in (self.keys, self.values):
            for part in stored.values():
                part[target, :, :length] = part[source, :, :length]

    def shift(self, slot: int, by: int, length: int) -> None:
        """Make room for `by` tokens in front of the `length` tokens of a slot."""
        for stored in (self.keys, self.values) if by else ():
            for part in stored.values():
                part[slot, :, by : by + length] = part[slot, :, :length].clone()

    def store(self, slot: int, node: PrefixNode) -> None:
        """Copy the beginning of a slot into a new node."""
        for layer, keys in self.keys.items():
            length, values = len(node.tokens), self.values[layer]
            node.put(layer, keys[slot, :, :length].clone(), values[slot, :, :length].clone())

    def load(self, slot: int, start: int, node: PrefixNode) -> None:
        """Copy a node into a slot, from token `start` of it on."""
        for layer, keys in node.keys.items():
            own = self.layer(layer, keys, node.values[layer])
            own[0][slot, :, start : start + len(node.tokens)] = keys
            own[1][slot, :, start : start + len(node.tokens)] = node.values[layer]


@dataclass
class Segment:
    """Tokens that run in one go. They follow `path`, then `filled` tokens of the slot if any.

    slot: where keys go; None: into the node at the end of `path`.
    """

    tokens: Sequence[int]
    start: int
    path: Sequence[PrefixNode]
    slot: int | None = None
    filled: int = 0


class PrefillPass:
    """Runs segments side by side; one may follow a node that another one fills."""

    def __init__(self, segments: Sequence[Segment], slots: Slots) -> None:
        self._slots, self._parts, end = slots, list[tuple[Segment, slice]](), 0
        for segment in segments:
            self._parts.append((segment, slice(end, end := end + len(segment.tokens))))
        self.tokens = [token for segment in segments for token in segment.tokens]
        self.positions = [
            segment.start + i for segment in segments for i in range(len(segment.tokens))
        ]

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: Kernel
    ) -> torch.Tensor:
        outs = []
        for segment, at in self._parts:
            queries = np.arange(segment.start, segment.start + len(segment.tokens))
            keys, values, above = k[:, at], v[:, at], segment.path
            if segment.slot is None:
                *above, node = segment.path
                node.put(layer, keys.clone(), values.clone())
            else:
                all_keys, all_values = self._slots.layer(layer, k, v)
                end = segment.filled + len(segment.tokens)
                all_keys[segment.slot, :, segment.filled : end] = keys
                all_values[segment.slot, :, segment.filled : end] = values
                keys, values = all_keys[segment.slot, :, :end], all_values[segment.slot, :, :end]
            first = segment.start - segment.filled
            mask = None
            if segment.filled or (how.window is not None and len(queries) > how.window):
                mask = window_mask(queries, np.arange(first, queries[-1] + 1), how.window, k)
            own, causal = q[:, :, at], mask is None and not segment.filled
            out, total = how.run.forward(own, keys[:, None], values[:, None], causal, mask)
            for node in above:
                if how.window is not None and node.end <= queries[0] - how.window + 1:
                    continue
                mask = window_mask(queries, np.arange(node.start, node.end), how.window, k)
                above_keys, above_values = node.keys[layer][:, None], node.values[layer][:, None]
                seen = how.run.forward(own, above_keys, above_values, False, mask)
                out, total = merge(out, total, *seen)
            outs.append(out.flatten(0, 1))
        return torch.cat(outs, dim=1).transpose(0, 1)


@dataclass
class Level:
    """Nodes that rows share, one for a row. order: rows by node; None: as they are.

    spans: a node and where its rows are in that order.
    """

    order: torch.Tensor | None
    rows: Array
    spans: list[tuple[PrefixNode, int, int]]


class DecodePass:
    """Runs one token for each row. Row i has slot i; `filled` int64 [rows]: tokens in it."""

    def __init__(
        self, slots: Slots, levels: Sequence[Level], positions: Array, filled: Array
    ) -> None:
        self._slots, self._levels, self._positions, self._filled = slots, levels, positions, filled
        self._masks: dict[tuple[int | None, int], torch.Tensor | None] = {}
        self._places: tuple[torch.Tensor, torch.Tensor] | None = None

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: Kernel
    ) -> torch.Tensor:
        count, longest = len(self._filled), int(self._filled.max()) + 1
        all_keys, all_values = self._slots.layer(layer, k, v)
        if self._places is None:
            lines = torch.arange(count, device=k.device)
            self._places = lines, torch.from_numpy(self._filled).to(k.device)
        lines, ends = self._places
        all_keys[lines, :, ends] = k.transpose(0, 1)
        all_values[lines, :, ends] = v.transpose(0, 1)
        own = q.permute(2, 0, 1, 3)  # rows, kv heads, repeats, width
        keys, values = all_keys[:count, :, :longest], all_values[:count, :, :longest]
        mask = self._own_mask(how.window, longest, k)
        mask = None if mask is None else mask.expand(-1, -1, q.shape[1], -1)
        out, total = how.run.forward(own, keys, values, False, mask)
        shared = q.transpose(1, 2)  # kv heads, rows, repeats, width
        out, total = out.transpose(0, 1), total.transpose(0, 1)
        for level in self._levels:
            part = shared if level.order is None else shared[:, level.order]
            seen, seen_total = self._level(layer, level, part, how)
            if level.order is None:
                out, total = merge(out, total, seen, seen_total)
            else:
                joined = merge(out[:, level.order], total[:, level.order], seen, seen_total)
                out[:, level.order], total[:, level.order] = joined
        return out.transpose(0, 1).flatten(1, 2)

    def _level(
        self, layer: int, level: Level, q: torch.Tensor, how: Kernel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q and the result [kv heads, rows of the level, repeats, width]; log-sum-exps without
        width."""
        each = q.shape[2]
        flat, outs, totals = q.reshape(1, len(q), -1, q.shape[3]), [], []
        for node, start, end in level.spans:
            mask = self._node_mask(node, level.rows[start:end], how.window, each, q)
            keys, values = node.keys[layer][None], node.values[layer][None]
            queries = flat[:, :, start * each : end * each]
            out, total = how.run.forward(queries, keys, values, False, mask)
            outs.append(out[0])
            totals.append(total[0])
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        total = totals[0] if len(totals) == 1 else torch.cat(totals, dim=1)
        return out.view(*q.shape[:3], -1), total.reshape(q.shape[:3])

    def _own_mask(
        self, window: int | None, longest: int, like: torch.Tensor
    ) -> torch.Tensor | None:
        """[rows, 1, 1, longest]: the tokens of each slot, of those the last `window`."""
        if (window, 0) not in self._masks:
            ends, places = self._filled[:, None], np.arange(longest)
            seen = places <= ends
            if window is not None:
                seen &= places > ends - window
            mask = np.where(seen, np.float32(0), _hidden(like))
            tensor = torch.from_numpy(mask)[:, None, None].to(like.device, like.dtype)
            self._masks[window, 0] = None if seen.all() else tensor
        return self._masks[window, 0]

    def _node_mask(
        self, node: PrefixNode, rows: Array, window: int | None, each: int, like: torch.Tensor
    ) -> torch.Tensor | None:
        if window is None:
            return None
        if (window, id(node)) not in self._masks:
            queries, keys = self._positions[rows].repeat(each), np.arange(node.start, node.end)
            self._masks[window, id(node)] = window_mask(queries, keys, window, like)
        return self._masks[window, id(node)]
