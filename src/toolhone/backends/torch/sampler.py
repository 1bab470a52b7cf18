"""`TorchSampler`: batched sampling from one fixed policy, with the log-probability of every sampled token.

Prompts are left-padded, and each different one is prefilled once (its samples share the prefill, and so do the episodes of a
group), rows that have stopped leave the batch, and each row has a random stream of its own, so that what else is in the batch does
not change a sample. It holds either the
trainer's live weights or, once training has moved on, its own copy of those it was made with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolhone.backends.base import (
    BatchStream,
    Constraint,
    Sample,
    SamplingParams,
    StopReason,
    Stream,
    allowed_ids,
    random_stream,
)
from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.lora import write_peft
from toolhone.backends.torch.merged_weights import write_merged
from toolhone.errors import CapabilityError
from toolhone.rows import Array, Row, Tokens, micro_batches

ROW_TOKENS = 32768
"""Prompt and new tokens, over all rows, in one sampling batch (bounds the cache)."""
COMPACT_BELOW = 0.85
"""Rows that have stopped are dropped from the cache once fewer than this share is alive."""


class TorchSampler:
    def __init__(self, engine: Engine) -> None:
        self._engine, self.info = engine, engine.info
        self.weights: dict[str, torch.Tensor] | None = None
        """None: the engine's current weights. The trainer fills this in before it changes them."""

    def write_merged(self, folder: Path) -> None:
        """Write the policy as a plain transformers model into an existing folder, adapters merged into the weights."""
        with self._engine.using(self.weights):
            write_merged(self._engine, folder)

    def write_adapter(self, folder: Path) -> None:
        """Write the adapters into an existing folder, as PEFT has them."""
        engine = self._engine
        if engine.lora is None:
            raise CapabilityError(
                "this model has no adapter: all its weights were trained; write it merged"
            )
        with engine.using(self.weights):
            write_peft(engine.model, engine.lora, engine.lora_layers, engine.name, folder)

    def stream(self) -> Stream:
        """Each poll samples one batch: what is in it can go on (its tools run) before the next is begun."""
        return BatchStream(self, lambda prompts, params: next(_prompt_batches(prompts, params)))

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        results: list[Array] = [np.zeros(len(row), dtype=np.float32) for row in rows]
        self._engine.learning(False)
        with torch.no_grad(), self._engine.one_thread_if_small(), self._engine.using(self.weights):
            for batch in micro_batches(rows, self._engine.options.micro_batch_tokens):
                values = self._engine.logprobs([rows[i] for i in batch], temperature).cpu().numpy()
                for line, i in enumerate(batch):
                    results[i] = values[line, : len(rows[i])]
        return results

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        keys = range(len(prompts)) if keys is None else keys
        results: list[list[Sample]] = [[] for _ in prompts]
        for prompt in prompts:
            if not prompt:
                raise CapabilityError(
                    "an empty prompt cannot be sampled from; it needs at least one token"
                )
            self._engine.check_length(len(prompt) + 1)
        self._engine.learning(False)
        with torch.no_grad(), self._engine.one_thread_if_small(), self._engine.using(self.weights):
            for batch in _prompt_batches(prompts, params):
                decode = _Decode(
                    self._engine, [prompts[i] for i in batch], [keys[i] for i in batch], params
                )
                for i, samples in zip(batch, decode.run(), strict=True):
                    results[i] = samples
        return results


def _prompt_batches(prompts: Sequence[Tokens], params: SamplingParams) -> Iterator[list[int]]:
    """Prompts of similar length together, at most `ROW_TOKENS` in the cache of one batch."""
    current: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        rows = (len(current) + 1) * params.num_samples
        if current and rows * (len(prompts[i]) + params.max_tokens) > ROW_TOKENS:
            yield current
            current = []
        current = [*current, i]
    if current:
        yield current


class _Decode:
    """One batch of prompts on its way. Row r belongs to prompt r // num_samples; `alive` lists the rows still in the cache."""

    def __init__(
        self, engine: Engine, prompts: Sequence[Tokens], keys: Sequence[int], params: SamplingParams
    ) -> None:
        self.engine, self.prompts, self.params = engine, prompts, params
        self.copies = params.num_samples
        self.rows = len(prompts) * self.copies
        self.alive = list(range(self.rows))
        self.tokens: list[list[int]] = [[] for _ in range(self.rows)]
        self.logprobs: list[list[float]] = [[] for _ in range(self.rows)]
        self.reasons = [StopReason.LENGTH] * self.rows
        self.stop = frozenset(params.stop_ids)
        self.limits = [self._limit(len(prompts[row // self.copies])) for row in range(self.rows)]
        self.ragged = len({len(prompt) for prompt in prompts}) > 1
        self.constraints: list[Constraint | None] = [None] * self.rows
        if params.constrain is not None:
            self.constraints = [
                params.constrain(keys[row // self.copies]) for row in range(self.rows)
            ]
        self.uniforms = None
        if params.temperature > 0:
            streams = (
                random_stream(params.seed, keys[row // self.copies], row % self.copies)
                for row in range(self.rows)
            )
            self.uniforms = np.stack([stream.random(params.max_tokens) for stream in streams])

    def _limit(self, prompt: int) -> int:
        room = (
            self.engine.max_context - prompt if self.engine.max_context else self.params.max_tokens
        )
        return min(self.params.max_tokens, room)

    def run(self) -> list[list[Sample]]:
        logits, cache, mask = self._prefill()
        for step in range(self.params.max_tokens):
            chosen, logprobs = self._choose(logits, step)
            finished = self._record(chosen, logprobs)
            if len(finished) == len(self.alive):
                break
            if (len(self.alive) - len(finished)) < COMPACT_BELOW * len(self.alive):
                kept = [line for line in range(len(self.alive)) if line not in finished]
                self.alive = [self.alive[line] for line in kept]
                index = torch.tensor(kept, device=self.engine.device)
                cache.batch_select_indices(index)
                chosen, mask = chosen[index], mask[index]
            logits, mask = self._forward(chosen[:, None], cache, mask)
        samples = [
            Sample(*row) for row in zip(self.tokens, self.logprobs, self.reasons, strict=True)
        ]
        return [samples[start : start + self.copies] for start in range(0, self.rows, self.copies)]

    def _prefill(self) -> tuple[torch.Tensor, Any, torch.Tensor]:
        from transformers import DynamicCache

        places: dict[tuple[int, ...], int] = {}
        lines = [places.setdefault(tuple(prompt), len(places)) for prompt in self.prompts]
        width = max(map(len, places))
        ids = torch.zeros((len(places), width), dtype=torch.long)
        mask = torch.zeros((len(places), width), dtype=torch.long)
        for line, prompt in enumerate(places):
            ids[line, width - len(prompt) :] = torch.as_tensor(list(prompt))
            mask[line, width - len(prompt) :] = 1
        cache = DynamicCache(config=self.engine.model.config)
        device = self.engine.device
        logits, mask = self._run_model(ids.to(device), cache, mask.to(device))
        if self.rows > len(places):
            index = torch.tensor(
                [line for line in lines for _ in range(self.copies)], device=device
            )
            cache.batch_select_indices(index)
            logits, mask = logits[index], mask[index]
        return logits, cache, mask

    def _forward(
        self, ids: torch.Tensor, cache: Any, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._run_model(ids, cache, torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1))

    def _run_model(
        self, ids: torch.Tensor, cache: Any, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 logits [rows, vocabulary] after the last of these ids, and the mask [rows, cached tokens] that was used."""
        last_place = self.engine.max_context - 1 if self.engine.max_context else None
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0, max=last_place)[:, -ids.shape[1] :]
        inputs = {
            "input_ids": ids,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        if self.ragged:
            inputs["attention_mask"] = mask
        with self.engine.autocast():
            if self.engine.head.split:
                last = self.engine.model.base_model(**inputs).last_hidden_state[:, -1]
            else:
                last = self.engine.model(**inputs).logits[:, -1]
        return self.engine.logits(last), mask

    def _choose(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The next id of each living row, and its log-probability before constraint and truncation."""
        temperature = self.params.temperature
        scaled = logits / temperature if temperature > 0 else logits
        logprobs = torch.log_softmax(scaled, dim=-1)
        bound = logprobs if self.params.constrain is None else self._bound(logprobs)
        if self.uniforms is None:
            chosen = (logits if self.params.constrain is None else bound).argmax(dim=-1)
        else:
            uniform = torch.from_numpy(self.uniforms[self.alive, step]).to(
                logits.device, torch.float32
            )
            chosen = _draw(_truncate(bound.exp(), self.params), uniform)
        return chosen, logprobs.gather(1, chosen[:, None])[:, 0]

    def _bound(self, logprobs: torch.Tensor) -> torch.Tensor:
        """The log-probabilities among what each living row's constraint allows; all else is -inf."""
        asked = [None if self._is_finished(row) else self.constraints[row] for row in self.alive]
        allowed = torch.from_numpy(allowed_ids(asked, logprobs.shape[1])).to(logprobs.device)
        return torch.log_softmax(logprobs.masked_fill(~allowed, float("-inf")), dim=-1)

    def _is_finished(self, row: int) -> bool:
        return self.reasons[row] is StopReason.STOP or len(self.tokens[row]) >= self.limits[row]

    def _record(self, chosen: torch.Tensor, logprobs: torch.Tensor) -> set[int]:
        """Note the new tokens; returns the lines (indices into `alive`) that are finished, now or earlier."""
        finished = set()
        for line, (row, token, logprob) in enumerate(
            zip(self.alive, chosen.tolist(), logprobs.tolist(), strict=True)
        ):
            if self._is_finished(row):
                finished.add(line)
                continue
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
            constraint = self.constraints[row]
            if constraint is not None:
                constraint.advance(token)
            if token in self.stop:
                self.reasons[row] = StopReason.STOP
            if self._is_finished(row):
                finished.add(line)
        return finished


def _truncate(probabilities: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Zero what top-k and top-p (Holtzman et al. 2020, arXiv:1904.09751) cut off, without renormalising. [rows, vocabulary]"""
    if params.top_k <= 0 and params.top_p >= 1:
        return probabilities
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if params.top_k > 0:
        keep[:, params.top_k :] = False
    if params.top_p < 1:
        keep &= ordered.cumsum(dim=-1) - ordered < params.top_p
        keep[:, 0] = True
    return torch.zeros_like(probabilities).scatter(1, index, ordered * keep)


def _draw(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF draw: for each row the first id whose cumulative weight exceeds uniform * total (never one of weight 0)."""
    wide = weights if weights.device.type == "mps" else weights.double()
    cumulative = wide.cumsum(dim=-1)
    total = cumulative[:, -1:]
    targets = uniform.to(wide.dtype)[:, None] * total * (1 - 1e-7)
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=weights.shape[1] - 1)
