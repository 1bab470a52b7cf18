"""The Tinker backend: trains and samples LoRA models on a service, through the Tinker SDK.

    trainer = open_trainer(model, training, "Qwen/Qwen3-8B", None, seed=0)
    metrics = train_step(trainer, [rows], cross_entropy(), Adam(learning_rate=1e-4))

The service is Thinking Machines' or any that speaks its protocol (TINKER_BASE_URL). It has no full
training, Muon, value head or grammar, and trains at temperature 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from toolhone.backends.base import (
    Adam,
    Capabilities,
    Done,
    Loss,
    Metrics,
    ModelInfo,
    Optimizer,
    Pending,
)
from toolhone.backends.tinker_connection import ServiceCheckpoint, TinkerConnection, connect
from toolhone.backends.tinker_rows import LossBatch, built_in, datums, output_logprobs, unweighted
from toolhone.backends.tinker_sampler import (
    TinkerCheckpoint,
    TinkerSampler,
    check_length,
    check_temperature,
)
from toolhone.config.sections import ModelSection, TrainingSection
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Array, Row
from toolhone.tokenizer import TextTokenizer

T = TypeVar("T")
FIXED = (
    *("model.torch_dtype", "model.device_map", "model.micro_batch_tokens"),
    *("training.gradient_checkpointing", "training.lora.alpha"),
)
ABSENT = (
    *("model.model_class", "training.lora.dropout", "training.lora.last_layers"),
    "training.lora.target_modules",
)


@dataclass(frozen=True)
class Submitted(Generic[T]):
    """Work that runs on the service (`backends.base.Pending`)."""

    service: TinkerConnection
    future: Any
    convert: Callable[[Any], T]

    def result(self) -> T:
        return self.convert(self.service.result(self.future))


class TinkerTrainer:
    """LoRA weights that learn on the service (`backends.base.Trainer`).

    The training client is created when it is first needed.
    """

    def __init__(
        self, service: TinkerConnection, base_model: str, rank: int, seed: int, info: ModelInfo
    ) -> None:
        self._service, self._base_model, self._rank, self._seed = service, base_model, rank, seed
        self.info, self.usage = info, service.usage
        self.can = Capabilities(
            full_training=False,
            muon=False,
            temperature=False,
            grammar=False,
            max_context=info.max_context,
            repeatable=False,
            fixed=FIXED,
            absent=ABSENT,
        )
        self._opened: Any = None
        self._passes = 0
        self._saves: Counter[str] = Counter()

    @property
    def _client(self) -> Any:
        if self._opened is None:
            create = self._service.client.create_lora_training_client
            self._opened = self._service.call(
                lambda: create(
                    self._base_model,
                    rank=self._rank,
                    seed=self._seed,
                    train_attn=True,
                    train_mlp=True,
                    train_unembed=False,
                )
            )
        return self._opened

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Pending[Metrics]:
        """Add the gradient by the service's own loss, or else by a custom one, which costs one more
        forward pass."""
        check_temperature(loss.temperature)
        if not rows:
            return Done({"loss": 0.0})
        check_length(max(map(len, rows)), self.info.max_context)
        batch = LossBatch(rows)
        sent = [rows[place] for place in batch.sent]
        if not sent:
            return Done(batch.metrics(loss, []))
        self._passes += 1
        own, tokens = built_in(loss, sent), sum(map(len, sent)) - len(sent)
        self.usage.trained += tokens
        if own is not None:
            data = datums(self._service.sdk, sent, own.inputs)
            with self._service.errors():
                future = self._client.forward_backward(data, own.name, own.config or None)
            return self._submitted(
                future, lambda output: batch.metrics(loss, output_logprobs(output, sent))
            )
        self.usage.prefilled += tokens
        found = Metrics()
        data = datums(self._service.sdk, sent, unweighted(sent))
        with self._service.errors():
            future = self._client.forward_backward_custom(data, batch.function(loss, found))
        return self._submitted(future, lambda _: found)

    def optim_step(self, optimizer: Optimizer) -> Pending[Metrics]:
        """One AdamW step; without a gradient nothing is sent. Metrics are those that the service
        tells."""
        if not isinstance(optimizer, Adam):
            raise CapabilityError("a Tinker service cannot train with Muon; use Adam")
        if not self._passes:
            return Done({"grad_norm": 0.0})
        self._passes = 0
        params = self._service.sdk.types.AdamParams(
            learning_rate=optimizer.learning_rate,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            grad_clip_norm=optimizer.clip_norm,
        )
        with self._service.errors():
            future = self._client.optim_step(params)
        return self._submitted(future, _step_metrics)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Pending[list[Array]]:
        check_temperature(temperature)
        check_length(max(map(len, rows), default=0), self.info.max_context)
        sent = [place for place, row in enumerate(rows) if row.mask.any()]
        values = [np.zeros(len(row), np.float32) for row in rows]
        if not sent:
            return Done(values)
        chosen = [rows[place] for place in sent]
        self.usage.prefilled += sum(map(len, chosen)) - len(chosen)
        data = datums(self._service.sdk, chosen, unweighted(chosen))
        with self._service.errors():
            future = self._client.forward(data, "cross_entropy")

        def convert(output: Any) -> list[Array]:
            for place, logp in zip(sent, output_logprobs(output, chosen), strict=True):
                values[place] = logp
            return values

        return self._submitted(future, convert)

    def snapshot(self) -> TinkerSampler:
        """A sampler of the weights now, which the service keeps as long as this session."""
        client = self._service.call(self._client.save_weights_and_get_sampling_client)
        return TinkerSampler(self._service, client, self.info)

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Save on the service under the name of the folder, and note the URIs in the folder.

        The service always keeps the optimizer's state. A name that was used before in this session
        gets a number for the sampler's weights.
        """
        label = re.sub(r"^\.(.*)\.partial-\d+$", r"\1", Path(name).name)  # not yet complete
        label = re.sub(r"[^A-Za-z0-9._-]", "-", label) or "checkpoint"
        self._saves[label] += 1
        count = self._saves[label]
        client = self._client
        with self._service.errors():
            state = client.save_state(label, overwrite=True)
            sampler = client.save_weights_for_sampler(label if count == 1 else f"{label}-{count}")
        weights = self._service.result(state).path
        uri = self._service.result(sampler).path
        saved = ServiceCheckpoint(weights, uri, self._base_model, self._rank, optimizer)
        saved.write(Path(name))
        return str(weights)

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights of a URI or of a folder that names one, in a new training client."""
        uri = str(ref)
        if not uri.startswith("tinker://"):
            saved = ServiceCheckpoint.read(Path(ref))
            if optimizer and not saved.optimizer:
                raise ModelError(
                    f"{ref} was saved without its optimizer; "
                    "only a checkpoint saved with its optimizer can be resumed from"
                )
            uri = saved.weights
        self._opened = self._service.open_training(uri, optimizer)
        self._passes = 0

    def _submitted(self, future: Any, convert: Callable[[Any], T]) -> Submitted[T]:
        return Submitted(self._service, future, convert)


def _step_metrics(output: Any) -> Metrics:
    """The norm of the gradient and skipped steps, under the names that services give them."""
    told = {name.partition(":")[0]: value for name, value in (output.metrics or {}).items()}
    names = {"grad_norm": ("grad_norm", "unclipped_grad_l2"), "skipped": ("skipped",)}
    return {
        own: float(told[name]) for own, known in names.items() for name in known if name in told
    }


def _model_names(model: ModelSection, name: str) -> list[str]:
    """What a service may call this model: as written, the resolved folder, or its last part."""
    return list(dict.fromkeys([model.name, name, Path(name).name]))


def _info(service: TinkerConnection, base_model: str, tokenizer: TextTokenizer) -> ModelInfo:
    """The model as this backend uses it: to score a sequence the service samples one token more,
    for which one place of the context stays free."""
    context = max(0, service.models[base_model] - 1)
    return ModelInfo(tokenizer.vocab_size, context, has_adapter=True, tokenizer=base_model)


def open_tokenizer(model: ModelSection, name: str) -> TextTokenizer:
    """The tokenizer of the model `name` on this machine, else the one that the service names."""
    try:
        return TextTokenizer.load(name, model.trust_remote_code)
    except ModelError as error:
        service = connect()
        base_model = service.model_name(_model_names(model, name))
        create = service.client.create_lora_training_client
        client = service.call(lambda: create(base_model, rank=1))
        try:
            return TextTokenizer(client.get_tokenizer())
        except (ValueError, OSError) as failure:
            wrong = f"{error}, and the service's own cannot be loaded: {failure}"
            raise ModelError(wrong) from None


def open_trainer(
    model: ModelSection, training: TrainingSection, name: str, adapter: Path | None, seed: int
) -> TinkerTrainer:
    """A trainer for a model of the service, starting from the checkpoint that `adapter` names."""
    saved = None if adapter is None else ServiceCheckpoint.read(adapter)
    service = connect()
    base_model = service.model_name(_model_names(model, name))
    info = _info(service, base_model, open_tokenizer(model, name))
    rank = training.lora.rank if training.lora is not None else 0
    trainer = TinkerTrainer(service, base_model, rank, seed, info)
    if adapter is not None and saved is not None:
        trainer.load(adapter, optimizer=False)
    return trainer


def open_sampler(model: ModelSection, name: str, adapter: Path | None) -> TinkerSampler:
    """A sampler for a model of the service, with the weights that `adapter` names."""
    saved = None if adapter is None else ServiceCheckpoint.read(adapter)
    service = connect()
    base_model = service.model_name(_model_names(model, name))
    info = _info(service, base_model, open_tokenizer(model, name))
    create = service.client.create_sampling_client
    if saved is None:
        return TinkerSampler(service, service.call(lambda: create(base_model=base_model)), info)
    client = service.call(lambda: create(model_path=saved.sampler))
    sampler = TinkerCheckpoint(service, client, info)
    sampler.saved, sampler.base = saved, name
    return sampler
