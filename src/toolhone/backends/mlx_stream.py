"""`MlxSampler`: samples from one fixed policy through mlx-lm's `BatchGenerator`.

Rows join and leave its batch at every token. Equal prompts that start together are prefilled once.
Each row has a random stream of its own, the same as with the torch backend: with equal policies
both draw the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from toolhone.backends.base import (
    Constraint,
    Sample,
    SamplingParams,
    StopReason,
    allowed_ids,
    check_prompt,
    random_stream,
    sample_all,
)
from toolhone.backends.constraint import compile_grammar
from toolhone.backends.mlx_engine import MlxEngine, Weights
from toolhone.errors import CapabilityError
from toolhone.rows import Array, Row, Tokens, micro_batches

MANY = 2**20
"""More rows than are ever decoded at once: `MlxStream` decides which start, not the generator."""


class MlxSampler:
    """`weights`: the trained ones; arrays are never changed, so holding them is a snapshot."""

    def __init__(self, engine: MlxEngine, weights: Weights) -> None:
        self._shared, self.info = engine, engine.info
        self._weights, self._own = weights, False
        self.compile_grammar: Callable[[str, Sequence[int]], Constraint] = partial(
            compile_grammar, engine.name, trust_remote_code=engine.options.trust_remote_code
        )

    @property
    def engine(self) -> MlxEngine:
        """A model of its own with this sampler's weights, made when it is first used."""
        if not self._own:
            self._shared, self._own = self._shared.twin(), True
            self._shared.put(self._weights)
            self._shared.set_dropout(None)
        return self._shared

    def write_merged(self, folder: Path) -> None:
        """Write a plain transformers model into an existing folder, adapters merged."""
        self._shared.write_model(folder, self._weights)

    def write_adapter(self, folder: Path) -> None:
        """Write the adapters into an existing folder, as PEFT has them."""
        if self._shared.lora is None:
            raise CapabilityError(
                "this model has no adapter: all its weights were trained; write it merged"
            )
        self._shared.write_adapter(folder, self._weights)

    def stream(self) -> MlxStream:
        return MlxStream(self)

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        return sample_all(self.stream(), prompts, params, keys)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        results: list[Array] = [np.zeros(len(row), dtype=np.float32) for row in rows]
        for batch in micro_batches(rows, self._shared.micro_batch_tokens):
            chosen = [rows[i] for i in batch]
            values = np.array(self.engine.logprobs(chosen, temperature, self._weights))
            for line, i in enumerate(batch):
                results[i] = values[line, : len(rows[i])]
        return results


@dataclass(eq=False)
class _MlxRequest:
    key: int
    prompt: tuple[int, ...]
    params: SamplingParams
    rows: list[_MlxRow]
    uids: list[int] = field(default_factory=list)
    """The generator's numbers of the rows that run."""

    @property
    def cost(self) -> int:
        """Prompt and new tokens of all rows."""
        return len(self.rows) * (len(self.prompt) + self.params.max_tokens)


@dataclass(eq=False)
class _MlxRow:
    """One sample in progress. `limit`: most tokens; `uniforms`: float64 [max_tokens].

    `drawn`: for each token drawn its batch of log-probabilities and its line there; the generator
    draws one token ahead of those that it has returned.
    """

    drawer: _Drawer
    params: SamplingParams
    limit: int
    uniforms: np.ndarray
    constraint: Constraint | None
    drawn: list[tuple[list[Any], int]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason | None = None

    @property
    def sample(self) -> Sample:
        return Sample(self.tokens, self.logprobs, self.reason or StopReason.LENGTH)

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """Announce that this row draws next: a logits processor of mlx-lm.

        tokens: all of the row so far.
        """
        if self.constraint is not None and self.drawn:
            last = int(tokens[-1].item())
            if last in self.params.stop_ids or len(self.drawn) >= self.limit:
                self.constraint = None  # this draw comes to nothing
            else:
                self.constraint.advance(last)
        self.drawer.rows.append(self)
        return logits.astype(mx.float32)

    def take(self, token: int, finish: str | None) -> None:
        """Take a token that the generator returns."""
        batch, line = self.drawn[len(self.tokens)]
        if not isinstance(batch[0], list):
            batch[0] = batch[0].tolist()
        self.tokens.append(token)
        self.logprobs.append(batch[0][line])
        if finish is not None:
            self.reason = StopReason.STOP if finish == "stop" else StopReason.LENGTH


class _Drawer:
    """Draws a token for each row that has announced itself: a sampler of mlx-lm."""

    def __init__(self) -> None:
        self.rows: list[_MlxRow] = []

    def __call__(self, logprobs: Any) -> Any:
        """logprobs: float32 [rows, vocabulary], the policy's at temperature 1. Returns [rows]."""
        rows, self.rows = self.rows, []
        chosen: list[Any] = [None] * len(rows)
        for params in dict.fromkeys(row.params for row in rows):
            lines = [line for line, row in enumerate(rows) if row.params == params]
            whole = len(lines) == len(rows)
            part = logprobs if whole else logprobs[mx.array(lines)]
            tokens = _draw_rows(part, [rows[line] for line in lines], params)
            if whole:
                return tokens
            for place, line in enumerate(lines):
                chosen[line] = tokens[place]
        return mx.stack(chosen)


def _draw_rows(logprobs: Any, rows: Sequence[_MlxRow], params: SamplingParams) -> Any:
    """The next id of each row; keeps its log-probability before grammar and truncation."""
    if params.temperature not in (0.0, 1.0):
        logprobs = logprobs / params.temperature
        logprobs = logprobs - mx.logsumexp(logprobs, axis=-1, keepdims=True)
    bound = logprobs
    if any(row.constraint is not None for row in rows):
        allowed = allowed_ids([row.constraint for row in rows], logprobs.shape[1])
        bound = mx.where(mx.array(allowed), logprobs, -mx.inf)
        bound = bound - mx.logsumexp(bound, axis=-1, keepdims=True)
    if params.temperature == 0:
        chosen = mx.argmax(bound, axis=-1)
    else:
        ends = [row.uniforms[min(len(row.drawn), len(row.uniforms) - 1)] for row in rows]
        chosen = _inverse(_cut(mx.exp(bound), params), np.array(ends, dtype=np.float32))
    batch = [mx.take_along_axis(logprobs, chosen[:, None], axis=1)[:, 0]]
    for line, row in enumerate(rows):
        row.drawn.append((batch, line))
    return chosen


def _cut(probabilities: Any, params: SamplingParams) -> Any:
    """Zero what top-k and top-p (arXiv:1904.09751) cut off, without renormalising."""
    if params.top_k <= 0 and params.top_p >= 1:
        return probabilities
    order = mx.argsort(-probabilities, axis=-1)
    ordered = mx.take_along_axis(probabilities, order, axis=-1)
    rank = mx.arange(probabilities.shape[-1])
    keep = (mx.cumsum(ordered, axis=-1) - ordered < params.top_p) | (rank == 0)
    if params.top_k > 0:
        keep = keep & (rank < params.top_k)
    kept = mx.take_along_axis(keep, mx.argsort(order, axis=-1), axis=-1)
    return mx.where(kept, probabilities, 0.0)


def _inverse(weights: Any, uniform: np.ndarray) -> Any:
    """The first id of each row whose cumulative weight exceeds uniform * total.

    In float64, which MLX has on the processor alone: float32 sums would lose rare ids.
    """
    with mx.stream(mx.cpu):
        cumulative = mx.cumsum(weights.astype(mx.float64), axis=-1)
        share = mx.array(uniform[:, None].astype(np.float64) * (1 - 1e-7), dtype=mx.float64)
        chosen = mx.sum(cumulative <= share * cumulative[:, -1:], axis=-1)
        return mx.minimum(chosen, weights.shape[-1] - 1).astype(mx.uint32)


class MlxStream:
    """Prompts that wait, and rows that are decoded together (`backends.base.Stream`).

    A prompt starts as soon as its rows fit the cache beside those that run.
    """

    def __init__(self, sampler: MlxSampler) -> None:
        self._sampler, self._drawer = sampler, _Drawer()
        self._waiting: dict[int, _MlxRequest] = {}
        self._running: dict[int, _MlxRequest] = {}
        self._rows: dict[int, _MlxRow] = {}
        self._generator: Any = None

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        assert key not in self._waiting | self._running, f"key {key} is queued already"
        check_prompt(prompt)
        engine, rows = self._sampler._shared, []
        engine.check_length(len(prompt) + 1)
        room = engine.max_context - len(prompt) if engine.max_context else params.max_tokens
        for number in range(params.num_samples):
            constraint = None
            if grammar is not None:
                constraint = self._sampler.compile_grammar(grammar, params.stop_ids)
            uniforms = random_stream(params.seed, key, number).random(params.max_tokens)
            limit = min(params.max_tokens, room)
            rows.append(_MlxRow(self._drawer, params, limit, uniforms, constraint))
        self._waiting[key] = _MlxRequest(key, tuple(map(int, prompt)), params, rows)

    def poll(self) -> list[tuple[int, list[Sample]]]:
        while self._waiting or self._running:
            self._start()
            for response in self._generator.next_generated():
                row = self._rows[response.uid]
                row.take(response.token, response.finish_reason)
                if row.reason is not None:
                    del self._rows[response.uid]
            ended = [
                request
                for request in self._running.values()
                if all(row.reason is not None for row in request.rows)
            ]
            for request in ended:
                del self._running[request.key]
            if ended:
                return [(request.key, [row.sample for row in request.rows]) for request in ended]
        return []

    def cancel(self, key: int) -> None:
        self._waiting.pop(key, None)
        request = self._running.pop(key, None)
        if request is not None:
            self._generator.remove([uid for uid in request.uids if uid in self._rows])
            for uid in request.uids:
                self._rows.pop(uid, None)

    def close(self) -> None:
        for key in [*self._waiting, *self._running]:
            self.cancel(key)
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def _start(self) -> None:
        """Start waiting prompts, in their order, as long as their rows fit the cache."""
        from mlx_lm.generate import BatchGenerator, StopSequences

        engine, prefixes = self._sampler.engine, dict[tuple[int, ...], Any]()
        if self._generator is None:
            self._generator = BatchGenerator(
                engine.model,
                sampler=self._drawer,
                completion_batch_size=MANY,
                prefill_batch_size=MANY,
            )
        used = sum(request.cost for request in self._running.values())
        for request in list(self._waiting.values()):
            used += request.cost
            if used > engine.cache_tokens and self._running:
                break
            *prefix, last = request.prompt
            cache = prefixes.get(request.prompt) or _prefill(engine, prefix)
            prefixes[request.prompt] = cache
            count = len(request.rows)
            request.uids = self._generator.insert(
                [[last]] * count,
                max_tokens=[row.limit for row in request.rows],
                caches=[cache] * count,
                all_tokens=[list(prefix) for _ in request.rows],
                logits_processors=[[row] for row in request.rows],
                stop_sequences=[StopSequences([[stop] for stop in request.params.stop_ids])]
                * count,
            )
            self._rows |= dict(zip(request.uids, request.rows, strict=True))
            self._running[request.key] = self._waiting.pop(request.key)


def _prefill(engine: MlxEngine, prefix: Sequence[int]) -> Any:
    """The keys and values of the tokens before a prompt's last."""
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(engine.model)
    if prefix:
        engine.model(mx.array([prefix]), cache=cache)
        mx.eval([part.state for part in cache])
    return cache
