"""The models and samplers of the Tinker server. Everything here runs in the engine's thread.

    models = TinkerModels({"pico": folder}, Checkpoints(root), memory=2 * 10**9)
    models.create(model_id, RunRecord("pico", rank=8))

A model is a set of adapters with its optimizer on a base that all share. A sampler is a snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from toolhone.backends.base import (
    Adam,
    Batch,
    Lora,
    Sample,
    Sampler,
    SamplingParams,
    StopReason,
    Trainer,
    pad_rows,
)
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.open import open_shared
from toolhone.config.sections import ModelSection
from toolhone.errors import CapabilityError, DataError, ModelError, UserError
from toolhone.rows import Array, Row
from toolhone.runs.run import writing
from toolhone.schema import Json
from toolhone.serve.tinker_checkpoints import Checkpoints, RunRecord, TinkerPath
from toolhone.serve.tinker_custom import (
    CustomLoss,
    custom_wire_loss,
    mean_metrics,
    read_custom_loss,
)
from toolhone.serve.tinker_losses import Seen, find_loss, wire_loss
from toolhone.serve.tinker_queue import Job
from toolhone.serve.tinker_wire import WirePass, logprobs_of, rows_of, write_pass, write_samples
from toolhone.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from toolhone.backends.open import SharedBase

ALPHA = 32.0
"""LoRA's alpha, which a request does not name; the update is scaled by alpha / rank."""
MODEL_BYTES = 4
"""A model holds weights, gradient and two moments: this many times its adapters."""


class ServedBase:
    """The base model. `tokenizer_id`: the folder or hub name that clients load a tokenizer from."""

    def __init__(self, name: str, folder: str, tokenizer_id: str, section: ModelSection) -> None:
        self.name, self.folder, self.tokenizer_id = name, folder, tokenizer_id
        self._section = section

    @cached_property
    def shared(self) -> SharedBase:
        return open_shared(self.folder, self._section)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer.load(self.tokenizer_id)

    def lora(self, record: RunRecord) -> Lora:
        parts = (record.train_mlp, record.train_attn, record.train_unembed)
        return Lora(record.rank, ALPHA, target_modules=self.shared.targets(*parts))


@dataclass(eq=False)
class TrainedModel:
    base: ServedBase
    record: RunRecord
    trainer: Trainer
    size: int


@dataclass(eq=False)
class OpenSampler:
    base: ServedBase
    sampler: Sampler
    size: int


@dataclass(frozen=True)
class SamplerSource:
    """Where a sampler comes from: a checkpoint, or its base where `path` is None."""

    base: ServedBase
    path: TinkerPath | None


@dataclass(frozen=True)
class WireSample:
    """`key` names the random stream; `stop_texts` end a sample where its text holds one.

    `source` None: the sampler is a snapshot in memory.
    """

    sampler_id: str
    source: SamplerSource | None
    prompt: tuple[int, ...]
    params: SamplingParams
    key: int
    stop_texts: tuple[str, ...] = ()
    prompt_logprobs: bool = False


class TinkerModels:
    """All models and samplers. `memory`: bytes that they may take beside the bases.

    custom_losses: run the losses that clients upload.
    """

    def __init__(
        self,
        bases: Mapping[str, ServedBase],
        checkpoints: Checkpoints,
        memory: int,
        custom_losses: bool = False,
    ) -> None:
        self.bases, self.checkpoints, self.memory = bases, checkpoints, memory
        self.custom_losses = custom_losses
        self.models: dict[str, TrainedModel] = {}
        self.losses: dict[str, CustomLoss] = {}
        self.samplers: dict[str, OpenSampler] = {}
        """The least recently used one first."""

    # ------------------------------------------------------------------------------- models

    def base(self, name: str) -> ServedBase:
        if name not in self.bases:
            names = ", ".join(map(repr, dict.fromkeys(one.name for one in self.bases.values())))
            raise ModelError(f"there is no model {name!r} here; this server has {names}")
        return self.bases[name]

    def create(self, model_id: str, record: RunRecord) -> dict[str, Json]:
        """Make a model of new adapters."""
        base = self.base(record.base_model)
        if not 1 <= record.rank <= 4096:
            raise DataError(f"lora_config.rank is from 1 to 4096, got {record.rank}")
        lora = base.lora(record)
        size = MODEL_BYTES * base.shared.adapter_bytes(lora)
        self._make_room(size, f"a model of rank {record.rank}")
        trainer = base.shared.trainer(lora, record.seed)
        self.checkpoints.add_run(model_id, record)
        self.models[model_id] = TrainedModel(base, record, trainer, size)
        return {"model_id": model_id, "type": "create_model"}

    def create_from(
        self, model_id: str, uri: str, optimizer: bool, metadata: Mapping[str, Json]
    ) -> dict[str, Json]:
        """Make a model from a checkpoint, with its optimizer or a new one."""
        path = TinkerPath.read(uri)
        self.checkpoints.find(path)
        record, _ = self.checkpoints.run(path.run)
        self.create(model_id, replace(record, user_metadata=metadata))
        try:
            return self.load(model_id, uri, optimizer)
        except UserError:
            del self.models[model_id]
            raise

    def load(self, model_id: str, uri: str, optimizer: bool) -> dict[str, Json]:
        folder = self.checkpoints.find(TinkerPath.read(uri))
        self.model(model_id).trainer.load(folder, optimizer)
        return {"path": uri, "model_id": model_id, "type": "load_weights"}

    def model(self, model_id: str) -> TrainedModel:
        if model_id not in self.models:
            raise ModelError(
                f"there is no model {model_id!r:.120} here: its session has ended, or the server "
                "was started anew; create_training_client_from_state continues from a checkpoint"
            )
        return self.models[model_id]

    def release(self, session_id: str) -> dict[str, Json]:
        """Drop the models and samplers of a session."""
        for table in (self.models, self.samplers, self.losses):
            for identity in [each for each in table if each.startswith(f"{session_id}:")]:
                del table[identity]
        return {}

    def _make_room(self, size: int, what: str) -> None:
        """Drop the samplers that were not used for the longest time; refuse what does not fit."""
        while self._used() + size > self.memory and self.samplers:
            del self.samplers[next(iter(self.samplers))]
        if self._used() + size > self.memory:
            raise CapabilityError(
                f"{what} needs {size / 1e6:.1f} MB beside {len(self.models)} other models with "
                f"{self._used() / 1e6:.1f} MB, and the limit is {self.memory / 1e6:.1f} MB; "
                "close a client, lower the rank, or start the server with a larger --memory"
            )

    def _used(self) -> int:
        models = sum(each.size for each in self.models.values())
        return models + sum(each.size for each in self.samplers.values())

    # ----------------------------------------------------------------------------- training

    def run_pass(self, request: WirePass) -> bytes:
        """Forward and backward, or forward alone; the reply holds log-probabilities and loss."""
        trainer, seen = self.model(request.model_id).trainer, Seen()
        data = request.data()
        if request.loss_fn == "custom":
            custom = self.custom_loss(request)
            loss, wanted = custom_wire_loss(custom, seen), custom.inputs
            data = [custom.spread(datum) for datum in data]
        else:
            loss = wire_loss(request.loss_fn, request.config, seen)
            wanted = find_loss(request.loss_fn).inputs
        rows = rows_of(data, request.loss_fn, wanted, trainer.info.vocab_size)
        if not rows:
            raise DataError("a pass needs at least one datum")
        if request.forward_only:
            logp = trainer.logprobs(rows).result()
            _, mask, arrays = pad_rows(rows)
            padded = np.stack([np.pad(each, (0, mask.shape[1] - len(each))) for each in logp])
            metrics, _ = loss_gradient(loss, padded, Batch(mask, arrays))
        else:
            metrics = trainer.forward_backward(rows, loss).result()
        sums = {"loss:sum": metrics["loss"], **mean_metrics(metrics, len(data))}
        return write_pass(logprobs_of(seen, data), sums)

    def add_loss(self, loss_id: str, request: Any) -> dict[str, Json]:
        """Keep an uploaded loss (`CreateCustomLossRequest`) until its session ends."""
        self.losses[loss_id] = read_custom_loss(request)
        return {"loss_id": loss_id, "type": "create_custom_loss"}

    def custom_loss(self, request: WirePass) -> CustomLoss:
        loss_id = request.config.get("loss_id")
        session = request.model_id.partition(":")[0]
        if not self.custom_losses:
            find_loss("custom")
        if loss_id not in self.losses or not str(loss_id).startswith(f"{session}:"):
            raise DataError(f"there is no uploaded loss {loss_id!r:.80} here; create it again")
        return self.losses[str(loss_id)]

    def step(self, model_id: str, adam: Adam) -> dict[str, Json]:
        """One step of AdamW; a gradient that is not finite is skipped, and dropped."""
        numbers = self.model(model_id).trainer.optim_step(adam).result()
        return {"metrics": {key: each for key, each in numbers.items() if math.isfinite(each)}}

    def save(
        self, path: TinkerPath, ttl: int | None, overwrite: bool, metadata: Mapping[str, Json]
    ) -> dict[str, Json]:
        """Write a checkpoint, with the optimizer unless it is for a sampler."""
        trainer, folder = self.model(path.run).trainer, self.checkpoints.free(path, overwrite)
        with writing(folder):
            trainer.save(folder, optimizer=path.kind == "weights")
        self.checkpoints.add(path, ttl, metadata)
        return {"path": str(path)}

    # ----------------------------------------------------------------------------- sampling

    def snapshot(self, model_id: str, sampler_id: str) -> dict[str, Json]:
        """A sampler of the model as it is now, which exists in memory alone."""
        model = self.model(model_id)
        size = model.size // MODEL_BYTES
        self._make_room(size, "a snapshot")
        sampler = model.trainer.snapshot()
        self.samplers[sampler_id] = OpenSampler(model.base, sampler, size)
        return {"sampling_session_id": sampler_id}

    def sampler(self, sampler_id: str, source: SamplerSource | None) -> OpenSampler:
        """The sampler of an id, opened from its source unless it is open."""
        if sampler_id not in self.samplers:
            if source is None:
                raise ModelError(
                    f"there is no sampler {sampler_id!r:.120} here: its session has ended, or it "
                    "made room for others; create it again"
                )
            self.samplers[sampler_id] = self._open(source)
        self.samplers[sampler_id] = opened = self.samplers.pop(sampler_id)
        return opened

    def _open(self, source: SamplerSource) -> OpenSampler:
        shared = source.base.shared
        if source.path is None:
            return OpenSampler(source.base, shared.sampler(), 0)
        folder, (record, _) = (
            self.checkpoints.find(source.path),
            self.checkpoints.run(source.path.run),
        )
        size = shared.adapter_bytes(source.base.lora(record))
        self._make_room(size, "a sampler")
        return OpenSampler(source.base, shared.sampler(folder), size)

    def sample(self, jobs: Sequence[Job]) -> None:
        """Answer requests to one sampler, side by side; equal keys go one after another."""
        opened = self.sampler(jobs[0].request.sampler_id, jobs[0].request.source)
        scores = self._prompt_logprobs(opened, jobs)
        waiting = [job for job in jobs if not job.future.done()]
        while waiting:
            batch = {job.request.key: job for job in reversed(waiting)}
            waiting = [job for job in waiting if batch[job.request.key] is not job]
            stream = opened.sampler.stream()
            for key, job in [*batch.items()][::-1]:
                stream.submit(key, job.request.prompt, job.request.params)
            while finished := stream.poll():
                for key, samples in finished:
                    job = batch[key]
                    if texts := job.request.stop_texts:
                        samples = [_cut(one, texts, opened.base.tokenizer) for one in samples]
                    job.future.set_result(write_samples(samples, scores.get(id(job))))

    def _prompt_logprobs(self, opened: OpenSampler, jobs: Sequence[Job]) -> dict[int, Array]:
        """Check all prompts; return the log-probabilities of those that want them, by job."""
        info, rows = opened.sampler.info, {}
        for job in jobs:
            prompt, longest = job.request.prompt, info.max_context or math.inf
            if not prompt or min(prompt) < 0 or max(prompt) >= info.vocab_size:
                wrong = f"a prompt has at least one token, each from 0 to {info.vocab_size - 1}"
                job.future.set_exception(DataError(wrong))
            elif len(prompt) >= longest:
                wrong = f"the prompt has {len(prompt)} tokens and the context {longest}"
                job.future.set_exception(DataError(f"{wrong}, which leaves none for a sample"))
            elif job.request.prompt_logprobs:
                rows[id(job)] = Row.of(prompt, [True] * len(prompt))
        scores = opened.sampler.logprobs([*rows.values()]) if rows else []
        for score in scores:
            score[0] = math.nan
        return dict(zip(rows, scores, strict=True))


def _cut(sample: Sample, texts: Sequence[str], tokenizer: TextTokenizer) -> Sample:
    """End a sample with the token that completes one of the texts."""
    for length in range(1, len(sample.tokens) + 1):
        text = tokenizer.decode(sample.tokens[:length])
        if any(each in text for each in texts):
            return Sample(sample.tokens[:length], sample.logprobs[:length], StopReason.STOP)
    return sample
