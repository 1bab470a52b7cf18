"""`TorchSampler`: samples from one fixed policy, with the log-probability of every sampled token.

Rows join a stream and leave it between two tokens; each has a random stream of its own. A sampler
reads the trainer's live weights or, once training has moved on, its own copy of the trained ones.
What it has run is kept, so that the next turn of an episode runs its new tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from toolhone.backends.base import Constraint, Sample, SamplingParams, sample_all
from toolhone.backends.constraint import compile_grammar
from toolhone.backends.torch.cascade_decoder import CascadeDecoder, is_exact
from toolhone.backends.torch.decoding_engine import decoding_engine
from toolhone.backends.torch.device import trim_heap
from toolhone.backends.torch.draw import SampleRow, draw, sample_row
from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.lora import write_peft
from toolhone.backends.torch.padded_decoder import PaddedDecoder
from toolhone.backends.torch.prefix_cache import PrefixCache
from toolhone.errors import CapabilityError
from toolhone.rows import Array, Row, Tokens


class TorchSampler:
    """`merges`: whether adapters may be put into a copy of their layers to decode."""

    def __init__(self, engine: Engine, merges: bool = True) -> None:
        self._live, self.info, self._merges = engine, engine.info, merges
        self._frozen: Engine | None = None
        self.weights: dict[str, torch.Tensor] | None = None
        """None: the engine's current weights. The trainer sets this before it changes them."""
        self._decoding: tuple[Engine, Engine] | None = None
        self._cache = PrefixCache()
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

    def decoder(self) -> Decoder:
        """What decodes rows with this sampler's weights."""
        if not is_exact(self._live):
            return PaddedDecoder(self._engine)
        engine = self._engine
        if self._decoding is None or self._decoding[0] is not engine:
            trim_heap(engine.device)  # of the holes that gradients left
            self._decoding = engine, decoding_engine(engine, self._merges)
        return CascadeDecoder(self._decoding[1], self._cache)

    def forget(self) -> None:
        """Drop what is kept of former samples for prompts that go on with them."""
        self._cache.clear()

    def rest(self) -> bool:
        """Free merged weights, and cached keys where no row runs, until the next sample; return
        whether there were any."""
        held = self._decoding is not None or self._cache.tokens > 0
        self._decoding = None
        if not any(reader.nodes for reader in self._cache.readers):
            self.forget()
        return held

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


class Decoder(Protocol):
    """Runs the model for rows that decode side by side; it draws nothing."""

    @property
    def rows(self) -> list[SampleRow]:
        """Those that run, in the order of the logits of `step`."""

    def admit(self, waiting: Sequence[Sequence[SampleRow]], limit: int) -> int:
        """How many of the waiting requests, from the first on, may start within `limit` tokens."""

    def join(self, rows: Sequence[SampleRow]) -> torch.Tensor:
        """Start rows; returns float32 logits [rows, vocabulary] of their first tokens."""

    def step(self) -> torch.Tensor:
        """Run the last token of every row; returns the logits of the next ones."""

    def leave(self, rows: Sequence[SampleRow]) -> None:
        """Stop rows."""

    def shrink(self, limit: int) -> None:
        """Forget what no row reads, as far as all that is kept has more than `limit` tokens."""


@dataclass(eq=False)
class _Request:
    key: int
    rows: list[SampleRow]
    """One for each sample."""

    @property
    def ended(self) -> bool:
        return all(row.ended for row in self.rows)


class TorchStream:
    """Prompts that wait, and rows that are decoded (`backends.base.Stream`).

    A prompt starts before the next token, in the order of arrival, if its rows fit the cache beside
    those that run. Which rows run together changes the last bits of log-probabilities.
    """

    def __init__(self, sampler: TorchSampler) -> None:
        self._sampler = sampler
        self._decoder: Decoder | None = None
        self._waiting: dict[int, _Request] = {}
        self._running: dict[int, _Request] = {}

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        assert key not in self._waiting | self._running, f"key {key} is queued already"
        if len(prompt) == 0:
            raise CapabilityError(
                "an empty prompt cannot be sampled from; it needs at least one token"
            )
        sampler, ids, rows = self._sampler, tuple(map(int, prompt)), list[SampleRow]()
        sampler._live.check_length(len(ids) + 1)
        for number in range(params.num_samples):
            constraint = None
            if grammar is not None:
                constraint = sampler.compile_grammar(grammar, params.stop_ids)
            room = sampler.info.max_context
            rows.append(sample_row(ids, params, (key, number), room, constraint))
        self._waiting[key] = _Request(key, rows)

    def poll(self) -> list[tuple[int, list[Sample]]]:
        while self._waiting or self._running:
            if self._decoder is None:
                self._decoder = self._sampler.decoder()
            started = self._start(self._decoder)
            if started:
                self._draw(self._decoder.join(started), started, self._decoder)
            if not any(request.ended for request in self._running.values()):
                self._draw(self._decoder.step(), self._decoder.rows, self._decoder)
            if finished := [request for request in self._running.values() if request.ended]:
                for request in finished:
                    del self._running[request.key]
                return [(one.key, [row.sample for row in one.rows]) for one in finished]
        return []

    def cancel(self, key: int) -> None:
        self._waiting.pop(key, None)
        request = self._running.pop(key, None)
        if request is not None and self._decoder is not None:
            self._decoder.leave(request.rows)

    def close(self) -> None:
        for key in [*self._waiting, *self._running]:
            self.cancel(key)

    def _start(self, decoder: Decoder) -> list[SampleRow]:
        """The rows of the waiting requests that start now."""
        waiting = list(self._waiting.values())
        limit = self._sampler._live.cache_tokens
        count = decoder.admit([request.rows for request in waiting], limit) if waiting else 0
        for request in waiting[:count]:
            self._running[request.key] = self._waiting.pop(request.key)
        return [row for request in waiting[:count] for row in request.rows]

    def _draw(self, logits: torch.Tensor, rows: Sequence[SampleRow], decoder: Decoder) -> None:
        """Draw the next token of each row; those that end with it leave."""
        draw(logits, rows)
        if ended := [row for row in rows if row.ended]:
            decoder.leave(ended)
            decoder.shrink(self._sampler._live.cache_tokens)
