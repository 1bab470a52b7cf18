"""`PaddedDecoder`: decodes models that `CascadeDecoder` cannot: batches padded on the left.

Prompts that start together are a batch with a cache of its own; equal ones run once. Nothing is
kept when a row leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toolhone.backends.torch.draw import SampleRow
from toolhone.backends.torch.engine import Engine

COMPACT_BELOW = 0.85
"""Rows that have left make room in the cache once fewer than this share is running."""
JOIN_STEPS = 64
"""Waiting rows start beside running ones only if these may take more steps than this."""


class PaddedDecoder:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._batches = engine, list[_PaddedBatch]()

    @property
    def rows(self) -> list[SampleRow]:
        """Those that run, in the order of the logits of `step`."""
        return [row for batch in self._batches for row in batch.rows]

    def admit(self, waiting: Sequence[Sequence[SampleRow]], limit: int) -> int:
        """How many of the waiting requests, from the first on, may start within `limit` tokens.

        One may where nothing runs; beside running rows it must be as many as these, or none.
        """
        running = self.rows
        if running and max(row.limit - len(row.tokens) for row in running) <= JOIN_STEPS:
            return 0
        cost = sum(len(batch.lines) * batch.width for batch in self._batches)
        count, width = 0, 0
        for number, rows in enumerate(waiting):
            count, width = count + len(rows), max(width, _cost(rows))
            if (running or number) and cost + count * width > limit:
                return number if count - len(rows) >= len(running) else 0
        return len(waiting) if count >= len(running) else 0

    @torch.inference_mode()
    def join(self, rows: Sequence[SampleRow]) -> torch.Tensor:
        """Start rows; returns the logits of their first tokens."""
        batch = _PaddedBatch(self._engine, rows)
        self._batches.append(batch)
        return batch.prefill()

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """Run the last token of every row; returns the logits of the next ones."""
        return torch.cat([batch.step() for batch in self._batches])

    def leave(self, rows: Sequence[SampleRow]) -> None:
        """Stop rows."""
        for batch in self._batches:
            batch.running = [
                line for line in batch.running if not any(batch.lines[line] is row for row in rows)
            ]
        self._batches = [batch for batch in self._batches if batch.running]

    def shrink(self, limit: int) -> None:
        """Nothing is kept."""


def _cost(rows: Sequence[SampleRow]) -> int:
    """Most tokens of one row."""
    return max(len(row.prompt) + row.limit for row in rows)


class _PaddedBatch:
    """`lines`: the rows in the cache. `running`: the places of those that have not left."""

    def __init__(self, engine: Engine, rows: Sequence[SampleRow]) -> None:
        self._engine, self.lines, self.running = engine, list(rows), list(range(len(rows)))
        self.width = _cost(rows)
        self._ragged = len({len(row.prompt) for row in rows}) > 1
        self._mask = torch.zeros(0, dtype=torch.long)
        self._cache: Any = None

    @property
    def rows(self) -> list[SampleRow]:
        return [self.lines[line] for line in self.running]

    def prefill(self) -> torch.Tensor:
        from transformers import DynamicCache

        places: dict[tuple[int, ...], int] = {}
        lines = [places.setdefault(row.prompt, len(places)) for row in self.lines]
        width = max(map(len, places))
        ids = torch.zeros((len(places), width), dtype=torch.long)
        mask = torch.zeros((len(places), width), dtype=torch.long)
        for line, prompt in enumerate(places):
            ids[line, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[line, width - len(prompt) :] = 1
        self._cache = DynamicCache(config=self._engine.model.config)
        self._mask = mask.to(self._engine.device)
        logits = self._run(ids.to(self._engine.device))
        if len(self.lines) > len(places):
            index = torch.tensor(lines, device=self._engine.device)
            self._cache.batch_select_indices(index)
            logits, self._mask = logits[index], self._mask[index]
        return logits

    def step(self) -> torch.Tensor:
        if len(self.running) < COMPACT_BELOW * len(self.lines):
            index = torch.tensor(self.running, device=self._engine.device)
            self._cache.batch_select_indices(index)
            self._mask, self.lines = self._mask[index], self.rows
            self.running = list(range(len(self.lines)))
        last = torch.tensor([[row.tokens[-1]] for row in self.lines], device=self._engine.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._mask), 1))], dim=1)
        return self._run(last)[self.running]

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 logits [lines, vocabulary] after the last id; the mask covers the cache."""
        engine = self._engine
        last_place = engine.max_context - 1 if engine.max_context else None
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0, max=last_place)
        inputs = {
            "input_ids": ids,
            "position_ids": positions[:, -ids.shape[1] :],
            "past_key_values": self._cache,
            "use_cache": True,
        }
        if self._ragged:
            inputs["attention_mask"] = self._mask
        with engine.autocast():
            if engine.split:
                last = engine.model.base_model(**inputs).last_hidden_state[:, -1]
            else:
                last = engine.model(**inputs).logits[:, -1]
        return engine.logits(last)
