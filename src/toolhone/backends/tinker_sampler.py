"""Sampling from fixed weights on a Tinker service.

    stream = TinkerSampler(service, client, info).stream()

All prompts are submitted at once; the service decides what runs side by side.
"""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.backends.base import (
    ModelInfo,
    Sample,
    SamplingParams,
    StopReason,
    check_prompt,
    sample_all,
)
from toolhone.backends.tinker_connection import (
    PROBE_SECONDS,
    ServiceCheckpoint,
    TinkerConnection,
    plain_future,
)
from toolhone.errors import CapabilityError, ServiceError
from toolhone.rows import Array, Row, Tokens


class TinkerSampler:
    """Fixed weights on the service (`backends.base.Sampler`)."""

    def __init__(self, service: TinkerConnection, client: Any, info: ModelInfo) -> None:
        self._service, self._client, self.info = service, client, info
        self.usage = service.usage

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        return sample_all(self.stream(), prompts, params, keys)

    def stream(self) -> TinkerStream:
        return TinkerStream(self)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        """All rows are submitted at once; a row costs the service the reading of a prompt."""
        check_temperature(temperature)
        types, asked = self._service.sdk.types, dict[int, Any]()
        for place, row in enumerate(rows):
            if row.mask.any():
                check_length(len(row), self.info.max_context)
                prompt = types.ModelInput.from_ints(row.tokens.tolist())
                asked[place] = self._client.compute_logprobs(prompt)
                self.usage.prefilled += len(row)
        found = [np.zeros(len(row), np.float32) for row in rows]
        for place, future in asked.items():
            values = self._service.result(future)
            logp = np.array([np.nan if one is None else one for one in values[1:]], np.float32)
            mask = rows[place].mask[1:]
            if len(logp) != len(mask) or np.isnan(logp[mask]).any():
                raise ServiceError(
                    f"{self._service.url} gave no log-probability for some of the {len(mask)} "
                    "tokens of a row; every token after the first needs one"
                )
            found[place][1:] = np.where(mask, logp, np.float32(0))
        return found

    def _submit(self, key: int, prompt: Tokens, params: SamplingParams) -> Any:
        room = self.info.max_context - len(prompt) if self.info.max_context else params.max_tokens
        asked = self._service.sdk.types.SamplingParams(
            max_tokens=min(params.max_tokens, room),
            seed=(params.seed % 2**31) << 32 | key % 2**32,  # our server takes both apart again
            temperature=params.temperature,
            top_k=params.top_k or -1,
            top_p=params.top_p,
            stop=list(params.stop_ids),
        )
        tokens = self._service.sdk.types.ModelInput.from_ints([int(token) for token in prompt])
        with self._service.errors():
            return self._client.sample(tokens, params.num_samples, asked)


class TinkerCheckpoint(TinkerSampler):
    """A saved checkpoint, whose adapter can be written (`backends.base.WeightSampler`)."""

    saved: ServiceCheckpoint
    base: str
    """The base model's folder or hub name."""

    def write_adapter(self, folder: Path) -> None:
        """Download the adapter into an existing folder; `CapabilityError` where that is not on
        offer."""
        self._service.download(self.saved, folder)

    def write_merged(self, folder: Path) -> None:
        """Download the adapter and merge it into the base model, which must be on this machine."""
        from toolhone.backends.torch.trainer import open_sampler as open_torch

        with tempfile.TemporaryDirectory() as place:
            self.write_adapter(Path(place))
            open_torch(self.base, adapter=Path(place)).write_merged(folder)


class TinkerStream:
    """Prompts on the service, all submitted at once (`backends.base.Stream`)."""

    def __init__(self, sampler: TinkerSampler) -> None:
        self._sampler, self._service = sampler, sampler._service
        self._running: dict[int, tuple[Future[Any], SamplingParams]] = {}
        self._ended: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        assert key not in self._running, f"key {key} is queued already"
        if grammar is not None:
            raise CapabilityError("a Tinker service samples without grammars; leave them out")
        check_prompt(prompt)
        check_length(len(prompt) + 1, self._sampler.info.max_context)
        future = plain_future(self._sampler._submit(key, prompt, params))
        assert future is not None, "SamplingClient.sample returns a future"
        self._sampler.usage.prefilled += len(prompt)
        self._running[key] = (future, params)
        future.add_done_callback(lambda done: self._ended.put((key, done)))

    def poll(self) -> list[tuple[int, list[Sample]]]:
        found: list[tuple[int, list[Sample]]] = []
        while self._running and not (found and self._ended.empty()):
            try:
                key, future = self._ended.get(timeout=PROBE_SECONDS)
            except queue.Empty:
                self._service.check_alive()
                continue
            if key in self._running and self._running[key][0] is future:
                found.append((key, self._samples(future, self._running.pop(key)[1])))
        return found

    def cancel(self, key: int) -> None:
        future, _ = self._running.pop(key, (None, None))
        if future is not None:
            future.cancel()

    def close(self) -> None:
        for key in list(self._running):
            self.cancel(key)

    def _samples(self, future: Future[Any], params: SamplingParams) -> list[Sample]:
        samples = []
        for one in self._service.wait(future).sequences:
            tokens = [int(token) for token in one.tokens]
            if one.logprobs is None or len(one.logprobs) != len(tokens):
                raise ServiceError(
                    f"{self._service.url} sampled {len(tokens)} tokens with "
                    f"{len(one.logprobs or [])} log-probabilities; every token needs one"
                )
            stopped = bool(tokens) and tokens[-1] in params.stop_ids
            reason = StopReason.STOP if stopped else StopReason.LENGTH
            samples.append(Sample(tokens, [float(value) for value in one.logprobs], reason))
            self._sampler.usage.sampled += len(tokens)
        return samples


def check_temperature(temperature: float) -> None:
    if temperature != 1:
        raise CapabilityError(
            f"a Tinker service computes log-probabilities at temperature 1, not {temperature}"
        )


def check_length(length: int, max_context: int) -> None:
    if 0 < max_context < length:
        raise CapabilityError(
            f"{length} tokens do not fit the context of {max_context} tokens of this model on the "
            "service; give fewer"
        )
