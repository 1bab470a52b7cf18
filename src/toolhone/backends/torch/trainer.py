"""`TorchTrainer`: trains any transformers causal model, in full or by LoRA. `open_trainer` and `open_sampler` are the way in.

    trainer = open_trainer("path/to/model", lora=Lora(rank=16), options=EngineOptions())
    trainer.forward_backward(rows, cross_entropy()).result()
    trainer.optim_step(Adam(learning_rate=1e-4)).result()
    sampler = trainer.snapshot()

On disk: full training writes a transformers folder, LoRA a PEFT folder; beside either, `optimizer.pt` for resuming. One process,
one or several devices through `device_map`; sharded training is not covered here.
"""

from __future__ import annotations

import math
import pickle
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from toolhone.backends.base import Batch, Capabilities, Done, Lora, Loss, Metrics, Optimizer, padded
from toolhone.backends.torch.engine import (
    Engine,
    EngineOptions,
    load_causal_model,
    open_engine,
    quiet,
)
from toolhone.backends.torch.lora import read_peft, write_peft
from toolhone.backends.torch.ops import TorchOps
from toolhone.backends.torch.optimizers import OptimizerState
from toolhone.backends.torch.sampler import TorchSampler
from toolhone.backends.torch.value_head import TorchValueHead
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Array, Row, micro_batches
from toolhone.runs.run import whole_folder

OPTIMIZER = "optimizer.pt"


class TorchTrainer:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.info = engine, engine.info
        self.can = Capabilities(
            muon=True, value_head=engine.head.split, max_context=engine.max_context
        )
        self._stepper = OptimizerState(engine)
        self._snapshots: weakref.WeakSet[TorchSampler] = weakref.WeakSet()
        self._passes = 0

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Done[Metrics]:
        """Accumulate gradients over micro-batches of similar lengths. Metrics: `loss` and the loss's own, as sums."""
        self.engine.learning(True)
        self._passes += 1
        totals: dict[str, torch.Tensor | float] = {"loss": 0.0}
        with self.engine.one_thread_if_small() as threads:
            workers = threads if self._order_is_free() else 1
            limit = self.engine.options.micro_batch_tokens
            if workers > 1:
                limit = min(limit, math.ceil(sum(map(len, rows)) / (2 * workers)))
            self.engine.check_length(max(map(len, rows), default=0))
            batches = [[rows[i] for i in batch] for batch in micro_batches(rows, limit)]
            for metrics in (
                self._side_by_side(batches, loss, workers)
                if workers > 1
                else self._one_by_one(batches, loss)
            ):
                for name, value in metrics.items():
                    totals[name] = totals.get(name, 0.0) + value
        return Done({name: float(value) for name, value in totals.items()})

    def _order_is_free(self) -> bool:
        """Whether micro-batches may run at once: not with dropout, whose random numbers come from one stream."""
        return self.engine.small and (self.engine.lora is None or self.engine.lora.dropout == 0)

    def _one_by_one(
        self, batches: Sequence[Sequence[Row]], loss: Loss
    ) -> Iterator[dict[str, torch.Tensor]]:
        with torch.random.fork_rng(
            devices=[self.engine.device] if self.engine.device.type == "cuda" else []
        ):
            torch.manual_seed((self.engine.options.seed << 20) + self._passes)
            for batch in batches:
                total, metrics = self._loss(batch, loss)
                if total.requires_grad:
                    total.backward()  # type: ignore[no-untyped-call]
                yield metrics

    def _side_by_side(
        self, batches: Sequence[Sequence[Row]], loss: Loss, workers: int
    ) -> Iterator[dict[str, torch.Tensor]]:
        """One thread for each micro-batch; gradients are added in the order of the batches, so that the sum is always the same."""
        weights = [value for _, value in self.engine.trained()]

        def work(
            batch: Sequence[Row],
        ) -> tuple[dict[str, torch.Tensor], Sequence[torch.Tensor | None]]:
            total, metrics = self._loss(batch, loss)
            return metrics, torch.autograd.grad(
                total, weights, allow_unused=True
            ) if total.requires_grad else []

        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as threads:
            for metrics, gradients in threads.map(work, batches):
                for value, gradient in zip(weights, gradients, strict=False):
                    if gradient is not None:
                        value.grad = (
                            gradient.clone() if value.grad is None else value.grad.add_(gradient)
                        )
                yield metrics

    def _loss(
        self, rows: Sequence[Row], loss: Loss
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The scaled loss of one micro-batch, and its metrics."""
        _, mask, arrays = padded(rows)
        device = self.engine.device
        tensors = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
        batch = Batch(torch.from_numpy(mask).to(device), tensors, [row.group for row in rows])
        total, metrics = loss.fn(TorchOps(), self.engine.logprobs(rows, loss.temperature), batch)
        told = {
            "loss": total.detach(),
            **{name: torch.as_tensor(value).detach() for name, value in metrics.items()},
        }
        return total * self._stepper.loss_scale, told

    def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:
        self._keep_snapshots()
        with self.engine.one_thread_if_small():
            return Done(self._stepper.step(optimizer))

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Done[list[Array]]:
        return Done(TorchSampler(self.engine).logprobs(rows, temperature))

    def snapshot(self) -> TorchSampler:
        sampler = TorchSampler(self.engine)
        self._snapshots.add(sampler)
        return sampler

    def critic(self, kind: str) -> TorchValueHead:
        """A critic of this model; `kind` is "value_head"."""
        if kind != "value_head" or not self.can.value_head:
            why = (
                "this model cannot be cut before its head"
                if kind == "value_head"
                else f"got {kind!r}"
            )
            raise CapabilityError(
                f"torch has critics of the kind 'value_head' alone, for models of transformers; {why}"
            )
        return TorchValueHead(self.engine)

    def _keep_snapshots(self) -> None:
        """Before the weights change: give every living snapshot that still reads them one copy, shared by all."""
        live = [sampler for sampler in self._snapshots if sampler.weights is None]
        if live:
            copy = {name: value.detach().clone() for name, value in self.engine.trained()}
            for sampler in live:
                sampler.weights = copy

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Write into the folder `name`, all or nothing; an existing folder is replaced."""
        with whole_folder(Path(name)) as partial:
            self._write_weights(partial)
            if optimizer:
                torch.save(
                    {"stepper": self._stepper.state(), "passes": self._passes}, partial / OPTIMIZER
                )
        return str(name)

    def _write_weights(self, folder: Path) -> None:
        engine = self.engine
        if engine.lora:
            write_peft(engine.model, engine.lora, engine.lora_layers, engine.name, folder)
        else:
            with quiet():
                engine.model.save_pretrained(folder)

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights of the folder `ref`; gradients that were accumulated before are forgotten."""
        folder = Path(ref)
        if optimizer and not (folder / OPTIMIZER).is_file():
            raise ModelError(
                f"{folder} holds no {OPTIMIZER}; only a checkpoint saved with its optimizer can be resumed from"
            )
        self._keep_snapshots()
        if self.engine.lora:
            read_peft(self.engine.model, folder)
        else:
            _read_weights(self.engine, folder)
        for _, value in self.engine.trained():
            value.grad = None
        if not optimizer:
            return
        state = _read_optimizer(folder / OPTIMIZER)
        self._stepper.load_state(state["stepper"])
        self._passes = state["passes"]


def _read_optimizer(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} is damaged ({' '.join(str(error).split())[:100]}); resume from another checkpoint"
        ) from None
    return state


def _read_weights(engine: Engine, folder: Path) -> None:
    """Copy a checkpoint's weights, read as transformers reads them (some are stored in another form than they are used in)."""
    stored = load_causal_model(
        str(folder), EngineOptions(device_map="cpu"), torch.float32
    ).state_dict()
    own = dict(engine.model.named_parameters())
    odd = sorted(
        name for name in own if name not in stored or stored[name].shape != own[name].shape
    )
    if odd:
        raise ModelError(
            f"{folder}: its weights are not those of this model; {len(odd)} differ, first {odd[0]}"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(stored[name])


def open_trainer(
    model: str | Path,
    lora: Lora | None = None,
    options: EngineOptions | None = None,
    adapter: Path | None = None,
) -> TorchTrainer:
    """A trainer for a model folder or hub name: with fresh adapters (`lora`), those of a PEFT folder (`adapter`), or in full."""
    return TorchTrainer(open_engine(model, options or EngineOptions(), lora, adapter))


def open_sampler(
    ref: str | Path, options: EngineOptions | None = None, adapter: Path | None = None
) -> TorchSampler:
    """A sampler for a model folder, a hub name (with the adapter of a PEFT folder), or a PEFT folder whose base model it loads."""
    return TorchSampler(open_engine(ref, options or EngineOptions(), adapter=adapter, learns=False))
