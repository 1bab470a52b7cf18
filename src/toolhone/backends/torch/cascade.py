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

from toolhone.backends.torch.prefix_cache import PrefixNode

NAME = "toolhone_cascade"
"""Of this attention among those of transformers."""
Array = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class AttentionForm:
    """What a layer does with its scores. window: keys that a query sees, itself included."""

    scale: float
    window: int | None = None
    cap: float | None = None


class Pass(Protocol):
    """One forward pass of a model: which queries see which keys, and where new keys are kept."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, form: AttentionForm
    ) -> torch.Tensor:
        """q [heads, tokens, width], k and v [kv heads, tokens, width] of the tokens of the pass.

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
    form = AttentionForm(scale, sliding_window, others.get("softcap"))
    return cascade.attend(module.layer_idx, q, k, value[0], form)[None], None


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    form: AttentionForm,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(scale * q k^T + mask) v, and the log-sum-exp of the scores.

    q [batch, heads, queries, width]; k, v [batch, kv heads, keys, width]; the mask is added to the
    scores [batch, 1, queries, keys]. Returns [batch, heads, queries, width] and float32
    [batch, heads, queries].
    """
    if q.device.type == "cpu" and form.cap is None and k.shape[-1] == v.shape[-1]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        if mask is not None:
            mask = mask.expand(len(q), -1, q.shape[2], k.shape[2])
        out, total = kernel(q, k, v, 0.0, causal, attn_mask=mask, scale=form.scale)
        return out, total
    each = q.reshape(len(q), k.shape[1], -1, *q.shape[2:])
    scores = torch.matmul(each, k[:, :, None].transpose(-1, -2)).float() * form.scale
    if form.cap is not None:
        scores = torch.tanh(scores / form.cap) * form.cap
    if causal:
        places = torch.arange(q.shape[2], device=q.device)
        scores = scores.masked_fill(places[:, None] < places, wall(torch.float32))
    if mask is not None:
        scores = scores + mask[:, None].float()
    total = torch.logsumexp(scores, dim=-1)
    out = torch.matmul((scores - total[..., None]).exp().to(v.dtype), v[:, :, None])
    return out.flatten(1, 2), total.flatten(1, 2)


def merge(
    out: torch.Tensor, total: torch.Tensor, other: torch.Tensor, other_total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join attention over two sets of keys: outputs [..., width], log-sum-exps [...]."""
    share = torch.sigmoid(other_total - total)[..., None].to(out.dtype)
    return torch.lerp(out, other, share), torch.logaddexp(total, other_total)


def wall(dtype: torch.dtype) -> float:
    """What is added to the score of a key that a query does not see; finite, so that a query that
    sees none of some keys has a log-sum-exp that counts for nothing."""
    return max(-1e30, torch.finfo(dtype).min / 2)


def window_mask(
    queries: Array, keys: Array, window: int | None, like: torch.Tensor
) -> torch.Tensor | None:
    """[1, 1, queries, keys] for positions int64 [queries] and [keys]; None where all is seen."""
    seen = keys <= queries[:, None]
    if window is not None:
        seen &= keys > queries[:, None] - window
    if seen.all():
        return None
    mask = np.where(seen, np.float32(0), np.float32(wall(like.dtype)))
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
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, form: AttentionForm
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
            if segment.filled or (form.window is not None and len(queries) > form.window):
                mask = window_mask(queries, np.arange(first, queries[-1] + 1), form.window, k)
            own, causal = q[None, :, at], mask is None and not segment.filled
            out, total = attend(own, keys[None], values[None], form, mask, causal)
            for node in above:
                if form.window is not None and node.end <= queries[0] - form.window + 1:
                    continue
                mask = window_mask(queries, np.arange(node.start, node.end), form.window, k)
                seen = attend(own, node.keys[layer][None], node.values[layer][None], form, mask)
                out, total = merge(out, total, *seen)
            outs.append(out[0])
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
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, form: AttentionForm
    ) -> torch.Tensor:
        count, longest = len(self._filled), int(self._filled.max()) + 1
        all_keys, all_values = self._slots.layer(layer, k, v)
        if self._places is None:
            lines = torch.arange(count, device=k.device)
            self._places = lines, torch.from_numpy(self._filled).to(k.device)
        lines, ends = self._places
        all_keys[lines, :, ends] = k.transpose(0, 1)
        all_values[lines, :, ends] = v.transpose(0, 1)
        own = q.transpose(0, 1).reshape(
            count, len(k), -1, q.shape[2]
        )  # rows, kv heads, queries, width
        keys, values = all_keys[:count, :, :longest], all_values[:count, :, :longest]
        out, total = attend(own, keys, values, form, self._own_mask(form.window, longest, k))
        shared = own.transpose(0, 1)  # kv heads, rows, queries, width
        out, total = out.transpose(0, 1), total.transpose(0, 1)
        for level in self._levels:
            part = shared if level.order is None else shared[:, level.order]
            seen, seen_total = self._level(layer, level, part, form, len(shared))
            if level.order is None:
                out, total = merge(out, total, seen, seen_total)
            else:
                joined = merge(out[:, level.order], total[:, level.order], seen, seen_total)
                out, total = out.clone(), total.clone()
                out[:, level.order], total[:, level.order] = joined
        return out.transpose(0, 1).flatten(1, 2)

    def _level(
        self, layer: int, level: Level, q: torch.Tensor, form: AttentionForm, heads: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q and the result [kv heads, rows of the level, queries, width]; log-sum-exps without
        width."""
        each = q.shape[2]
        flat, outs, totals = q.reshape(1, heads, -1, q.shape[3]), [], []
        for node, start, end in level.spans:
            mask = self._node_mask(node, level.rows[start:end], form.window, each, q)
            keys, values = node.keys[layer][None], node.values[layer][None]
            out, total = attend(flat[:, :, start * each : end * each], keys, values, form, mask)
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
            mask = np.where(seen, np.float32(0), np.float32(wall(like.dtype)))
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
