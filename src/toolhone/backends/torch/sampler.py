"""`TorchSampler`: samples from one fixed policy, with the log-probability of every sampled token.

A stream decodes batches of prompts side by side, a token at a time. Equal prompts are prefilled
once, rows that stop leave their batch, each row has a random stream of its own. A sampler reads the
trainer's live weights or, once training has moved on, its own copy of the trained ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolhone.backends.base import (
    Constraint,
    Sample,
    SamplingParams,
    StopReason,
    allowed_ids,
    random_stream,
    sample_all,
)
from toolhone.backends.constraint import compile_grammar
from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.lora import write_peft
from toolhone.errors import CapabilityError
from toolhone.rows import Array, Row, Tokens

COMPACT_BELOW = 0.85
"""Rows that have stopped leave the cache once fewer than this share is running."""
JOIN_STEPS = 64
"""Waiting prompts start beside running rows only if these may take more steps than this."""


class TorchSampler:
    def __init__(self, engine: Engine) -> None:
        self._live, self.info = engine, engine.info
        self._frozen: Engine | None = None
        self.weights: dict[str, torch.Tensor] | None = None
        """None: the engine's current weights. The trainer sets this before it changes them."""
        self.compile_grammar: Callable[[str, Sequence[int]], Constraint] = partial(
            compile_grammar, engine.name, trust_remote_code=engine.options.trust_remote_code
        )

    @property
    def _engine(self) -> Engine:
        """The engine with this sampler's weights, ready to run."""
        if self.weights is not None and self._frozen is None:
            self._frozen = self._live.with_weights(self.weights)
        engine = self._frozen or self._live
        engine.set_learning(False)
        return engine

    def write_merged(self, folder: Path) -> None:
        """Write a plain transformers model into an existing folder, adapters merged."""
        self._engine.write_merged(folder)

    def write_adapter(self, folder: Path) -> None:
        """Write the adapters into an existing folder, as PEFT has them."""
        engine = self._engine
        if engine.lora is None:
            raise CapabilityError(
                "this model has no adapter: all its weights were trained; write it merged"
            )
        write_peft(engine.model, engine.lora, engine.lora_layers, engine.name, folder)

    def stream(self) -> TorchStream:
        return TorchStream(self)

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        return sample_all(self.stream(), prompts, params, keys)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        results: list[Array] = [np.zeros(len(row), dtype=np.float32) for row in rows]
        engine = self._engine
        with torch.no_grad():
            for batch in engine.batches(rows, engine.micro_batch_tokens, whole_groups=False):
                values = engine.logprobs([rows[i] for i in batch], temperature).cpu().numpy()
                for line, i in enumerate(batch):
                    results[i] = values[line, : len(rows[i])]
        return results


@dataclass(eq=False)
class _Request:
    key: int
    prompt: tuple[int, ...]
    params: SamplingParams
    constraints: list[Constraint | None]
    """One for each sample."""
    rows: list[_SampleRow] = field(default_factory=list)

    @property
    def kind(self) -> tuple[SamplingParams, bool]:
        """What the requests of a batch share: the params, and whether grammars bind them."""
        return self.params, self.constraints[0] is not None

    @property
    def cost(self) -> int:
        """Prompt and new tokens of one row."""
        return len(self.prompt) + self.params.max_tokens


@dataclass(eq=False)
class _SampleRow:
    """One sample in progress. `limit`: most tokens; `uniforms`: float64 [max_tokens]."""

    limit: int
    uniforms: np.ndarray | None
    constraint: Constraint | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason = StopReason.LENGTH

    @property
    def ended(self) -> bool:
        return self.reason is StopReason.STOP or len(self.tokens) >= self.limit


class TorchStream:
    """Prompts that wait, and batches that are decoded (`backends.base.Stream`).

    Which prompts share a batch changes the last bits of a log-probability, so it follows from the
    prompts and their order of arrival. A batch starts when nothing runs, or beside running rows
    when it has at least as many and these may take more than `JOIN_STEPS`.
    """

    def __init__(self, sampler: TorchSampler) -> None:
        self._sampler = sampler
        self._keys: set[int] = set()
        self._waiting: dict[int, _Request] = {}
        self._batches: list[_RunningBatch] = []

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        assert key not in self._keys, f"key {key} is queued already"
        if len(prompt) == 0:
            raise CapabilityError(
                "an empty prompt cannot be sampled from; it needs at least one token"
            )
        self._sampler._live.check_length(len(prompt) + 1)
        constraints: list[Constraint | None] = [None] * params.num_samples
        if grammar is not None:
            compiler, stop_ids = self._sampler.compile_grammar, params.stop_ids
            constraints = [compiler(grammar, stop_ids) for _ in constraints]
        self._waiting[key] = _Request(key, tuple(prompt), params, constraints)
        self._keys.add(key)

    def poll(self) -> list[tuple[int, list[Sample]]]:
        finished: list[_Request] = []
        while not finished:
            while (requests := self._next_batch()) is not None:
                for request in requests:
                    del self._waiting[request.key]
                self._batches.append(_RunningBatch(requests, self._sampler.info.max_context))
            if not self._batches:
                return []
            with torch.no_grad():
                engine = self._sampler._engine
                for batch in self._batches:
                    finished += batch.step(engine)
            self._batches = [batch for batch in self._batches if batch.requests]
        self._keys -= {request.key for request in finished}
        return [
            (request.key, [Sample(row.tokens, row.logprobs, row.reason) for row in request.rows])
            for request in finished
        ]

    def cancel(self, key: int) -> None:
        self._keys.discard(key)
        self._waiting.pop(key, None)
        for batch in self._batches:
            batch.cancel(key)
        self._batches = [batch for batch in self._batches if batch.requests]

    def close(self) -> None:
        self._keys, self._waiting, self._batches = set(), {}, []

    def _next_batch(self) -> list[_Request] | None:
        """Waiting prompts that start now: similar lengths, equal params, within the cache."""
        limit = self._sampler._live.cache_tokens
        steps_left = max((batch.steps_left for batch in self._batches), default=0)
        if not self._waiting or 0 < steps_left <= JOIN_STEPS:
            return None
        running = sum(len(batch.running) for batch in self._batches)
        used = sum(batch.cost for batch in self._batches)
        params, bound = next(iter(self._waiting.values())).kind
        alike = [one for one in self._waiting.values() if one.kind == (params, bound)]
        chosen: list[_Request] = []
        for request in sorted(alike, key=lambda request: (len(request.prompt), request.key)):
            rows = (len(chosen) + 1) * params.num_samples
            if (chosen or running) and used + rows * request.cost > limit:
                break
            chosen.append(request)
        return chosen if len(chosen) * params.num_samples >= max(1, running) else None


class _RunningBatch:
    """Prompts with equal params, decoded in step. `alive` lists the rows in the cache."""

    def __init__(self, requests: list[_Request], max_context: int) -> None:
        self.requests = requests
        self.params, self.bound = requests[0].kind
        self.stop = frozenset(self.params.stop_ids)
        self.ragged = len({len(request.prompt) for request in requests}) > 1
        self.width = max(request.cost for request in requests)
        self.alive: list[_SampleRow] = []
        self.cache: Any
        self.steps, self.cache = 0, None
        self.chosen = self.mask = torch.zeros(0, dtype=torch.long)
        for request in requests:
            room = max_context - len(request.prompt) if max_context else self.params.max_tokens
            for number in range(self.params.num_samples):
                request.rows.append(self._row(request, number, min(self.params.max_tokens, room)))
            self.alive += request.rows

    def _row(self, request: _Request, number: int, limit: int) -> _SampleRow:
        params, uniforms = self.params, None
        if params.temperature > 0:
            uniforms = random_stream(params.seed, request.key, number).random(params.max_tokens)
        return _SampleRow(limit, uniforms, request.constraints[number])

    @property
    def running(self) -> list[_SampleRow]:
        return [row for row in self.alive if not row.ended]

    @property
    def steps_left(self) -> int:
        """Most steps that this batch can still take."""
        return max((row.limit - len(row.tokens) for row in self.running), default=0)

    @property
    def cost(self) -> int:
        return len(self.alive) * self.width

    def cancel(self, key: int) -> None:
        for request in self.requests:
            if request.key == key:
                for row in request.rows:
                    row.limit = len(row.tokens)
        self.requests = [request for request in self.requests if request.key != key]

    def step(self, engine: Engine) -> list[_Request]:
        """Sample one token for each running row; returns the requests that have ended."""
        if self.steps == 0:
            logits = self._prefill(engine)
        else:
            self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], dim=1)
            logits = self._run_model(engine, self.chosen[:, None])
        chosen, logprobs = self._choose(logits)
        self.steps += 1
        for row, token, logprob in zip(self.alive, chosen.tolist(), logprobs.tolist(), strict=True):
            if not row.ended:
                row.tokens.append(token)
                row.logprobs.append(logprob)
                if row.constraint is not None:
                    row.constraint.advance(token)
                if token in self.stop:
                    row.reason = StopReason.STOP
        self.chosen = chosen
        running = [place for place, row in enumerate(self.alive) if not row.ended]
        if 0 < len(running) < COMPACT_BELOW * len(self.alive):
            self.alive = [self.alive[place] for place in running]
            index = torch.tensor(running, device=engine.device)
            self.cache.batch_select_indices(index)
            self.chosen, self.mask = chosen[index], self.mask[index]
        ended = [request for request in self.requests if all(row.ended for row in request.rows)]
        self.requests = [request for request in self.requests if request not in ended]
        return ended

    def _prefill(self, engine: Engine) -> torch.Tensor:
        from transformers import DynamicCache

        places: dict[tuple[int, ...], int] = {}
        lines = [places.setdefault(request.prompt, len(places)) for request in self.requests]
        width = max(map(len, places))
        ids = torch.zeros((len(places), width), dtype=torch.long)
        mask = torch.zeros((len(places), width), dtype=torch.long)
        for line, prompt in enumerate(places):
            ids[line, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[line, width - len(prompt) :] = 1
        self.cache = DynamicCache(config=engine.model.config)
        self.mask = mask.to(engine.device)
        logits = self._run_model(engine, ids.to(engine.device))
        if len(self.alive) > len(places):
            each = [line for line in lines for _ in range(self.params.num_samples)]
            index = torch.tensor(each, device=engine.device)
            self.cache.batch_select_indices(index)
            logits, self.mask = logits[index], self.mask[index]
        return logits

    def _run_model(self, engine: Engine, ids: torch.Tensor) -> torch.Tensor:
        """float32 logits [rows, vocabulary] after the last id; `mask` covers the cache."""
        last_place = engine.max_context - 1 if engine.max_context else None
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0, max=last_place)
        inputs = {
            "input_ids": ids,
            "position_ids": positions[:, -ids.shape[1] :],
            "past_key_values": self.cache,
            "use_cache": True,
        }
        if self.ragged:
            inputs["attention_mask"] = self.mask
        with engine.autocast():
            if engine.split:
                last = engine.model.base_model(**inputs).last_hidden_state[:, -1]
            else:
                last = engine.model(**inputs).logits[:, -1]
        return engine.logits(last)

    def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next id of each row, and its log-probability before grammar and truncation."""
        params = self.params
        scaled = logits / params.temperature if params.temperature > 0 else logits
        logprobs = torch.log_softmax(scaled, dim=-1)
        bound = self._bind(logprobs) if self.bound else logprobs
        if params.temperature == 0:
            chosen = (bound if self.bound else logits).argmax(dim=-1)
        else:
            drawn = [row.uniforms[self.steps] for row in self.alive if row.uniforms is not None]
            uniform = torch.tensor(drawn, dtype=torch.float64).to(logits.device, torch.float32)
            chosen = _draw(_truncate(bound.exp(), params), uniform)
        return chosen, logprobs.gather(1, chosen[:, None])[:, 0]

    def _bind(self, logprobs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities among what each running row's grammar allows; -inf elsewhere."""
        constraints = [None if row.ended else row.constraint for row in self.alive]
        allowed = torch.from_numpy(allowed_ids(constraints, logprobs.shape[1])).to(logprobs.device)
        return torch.log_softmax(logprobs.masked_fill(~allowed, float("-inf")), dim=-1)


def _truncate(probabilities: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Zero what top-k and top-p (arXiv:1904.09751) cut off, without renormalising."""
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
    """The first id of each row whose cumulative weight exceeds uniform * total."""
    wide = weights if weights.device.type == "mps" else weights.double()
    cumulative = wide.cumsum(dim=-1)
    total = cumulative[:, -1:]
    targets = uniform.to(wide.dtype)[:, None] * total * (1 - 1e-7)
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=weights.shape[1] - 1)
