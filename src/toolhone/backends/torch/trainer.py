"""`TorchTrainer`: trains any transformers causal model, in full or by LoRA.

    trainer = open_trainer("path/to/model", lora=Lora(rank=16), options=EngineOptions())
    metrics = train_step(trainer, [rows], cross_entropy(), Adam(learning_rate=1e-4))

On disk: a transformers folder, or a PEFT folder with LoRA; beside it `optimizer.pt` for resuming.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolhone.backends.base import (
    Batch,
    Capabilities,
    Done,
    Lora,
    Loss,
    Metrics,
    Ops,
    Optimizer,
    pad_rows,
)
from toolhone.backends.torch.device import empty_cache, is_out_of_memory, trim_heap
from toolhone.backends.torch.engine import Engine, EngineOptions, load_causal_model, open_engine
from toolhone.backends.torch.forest import Forest, split
from toolhone.backends.torch.lora import read_peft, save_model, write_peft
from toolhone.backends.torch.optimizer import OptimizerState, read_optimizer
from toolhone.backends.torch.sampler import TorchSampler
from toolhone.config.experiment import to_stderr
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Array, Row, Tokens, micro_batches
from toolhone.runs.run import whole_folder


class TorchValueHead:
    """What a value head reads: the policy's hidden state at the last token of a prompt.

    Prompts that begin with another prompt share its forward pass. No gradient goes into the policy;
    the head's weights are those of `training.critic`.
    """

    def __init__(self, engine: Engine) -> None:
        assert engine.split, "a value head needs a model that can be split before its own head"
        self._engine = engine
        self.width = int(engine.model.get_output_embeddings().weight.shape[1]) + 1

    def inputs(self, prompts: Sequence[Tokens]) -> Array:
        """float32 [prompts, width]: normalised states after each prompt, and a 1."""
        engine = self._engine
        engine.set_learning(False)
        engine.check_length(max(map(len, prompts), default=0))
        states = torch.zeros((len(prompts), self.width - 1), device=engine.device)
        with torch.no_grad():
            for places, found in (
                self._forest(prompts) if engine.shares_prefixes else self._padded(prompts)
            ):
                states[places] = found.float()
        states = torch.nn.functional.normalize(states - states.mean(dim=1, keepdim=True), dim=1)
        inputs: Array = torch.cat([states, torch.ones_like(states[:, :1])], dim=1).cpu().numpy()
        return inputs

    def _forest(self, prompts: Sequence[Tokens]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Some of the prompts, and the states after them, until all were there."""
        ids = [np.asarray(prompt, np.int64) for prompt in prompts]
        for batch in split(ids, self._engine.micro_batch_tokens, [None] * len(ids)):
            forest = Forest.of([ids[i] for i in batch])
            ends = np.array([places[-1] for places in forest.places])
            yield batch, self._engine.forest_states(forest, ends)

    def _padded(self, prompts: Sequence[Tokens]) -> Iterator[tuple[list[int], torch.Tensor]]:
        engine = self._engine
        hosts, rows = shared_passes(prompts)
        guests: list[list[int]] = [[] for _ in rows]
        for guest, host in enumerate(hosts):
            guests[host].append(guest)
        empty = [Row.of(row, [False] * len(row)) for row in rows]
        for batch in micro_batches(empty, engine.micro_batch_tokens):
            with engine.autocast():
                hidden = engine.trunk(_padded_ids([rows[i] for i in batch]).to(engine.device))
            for line, i in enumerate(batch):
                yield guests[i], hidden[line, [len(prompts[guest]) - 1 for guest in guests[i]]]


def shared_passes(prompts: Sequence[Tokens]) -> tuple[list[int], list[tuple[int, ...]]]:
    """The row that each prompt is a prefix of, and those rows, none a prefix of another."""
    order = sorted({tuple(prompt) for prompt in prompts})
    rows: list[tuple[int, ...]] = []
    host: dict[tuple[int, ...], int] = {}
    for prompt in reversed(order):  # what begins with a prompt stands right behind it
        if not rows or rows[-1][: len(prompt)] != prompt:
            rows.append(prompt)
        host[prompt] = len(rows) - 1
    return [host[tuple(prompt)] for prompt in prompts], rows


def _padded_ids(rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """int64 [rows, longest], padded with 0 on the right, where a causal model does not look."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


OPTIMIZER = "optimizer.pt"
SHARES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Largest micro-batches to try where several run at once, in shares of what each worker has."""


class TorchTrainer:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.info = engine, engine.info
        self.can = Capabilities(value_head=engine.split, max_context=engine.max_context)
        self._optimizer = OptimizerState(engine)
        self._snapshots: weakref.WeakSet[TorchSampler] = weakref.WeakSet()
        self._passes = 0
        threads = engine.workers
        self._threads = ThreadPoolExecutor(threads, "micro-batch") if threads > 1 else None

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Done[Metrics]:
        """Accumulate gradients over micro-batches of similar lengths."""
        drops = self.engine.set_learning(True, loss.dropout)
        self._passes += 1
        rested = [sampler.rest() for sampler in self._snapshots]
        if any(rested):
            trim_heap(self.engine.device)
        # Dropout draws from one stream of random numbers, so its micro-batches run in order.
        run, workers = self._side_by_side, self.engine.workers
        if self._threads is None or drops:
            run, workers = self._one_by_one, 1
        self.engine.check_length(max(map(len, rows), default=0))
        weights = [value for _, value in self.engine.trainable()]
        before, parts = [weight.grad for weight in weights], 0
        while True:
            for weight in weights:
                weight.grad = None
            totals: dict[str, torch.Tensor | float] = {"loss": 0.0}
            batches = self._batches(rows, loss.whole_groups, workers)
            if parts and len(batches) == parts:
                longest = max(map(len, rows))
                raise CapabilityError(
                    f"the device has no memory left for rows of {longest} tokens; lower "
                    "training.max_length, set training.gradient_checkpointing, or train adapters "
                    "(training.lora)"
                )
            try:
                for metrics in run(batches, loss):
                    for name, value in metrics.items():
                        totals[name] = totals.get(name, 0.0) + value
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            if self.engine.lora and self.engine.room and self.engine.room.close():
                empty_cache(self.engine.device)
                to_stderr(
                    "out of memory: the step runs again, and layers recompute the products of "
                    "adapters from now on"
                )
                continue
            self._halve(max(map(self.engine.count, batches)))
            parts = len(batches)
        for weight, earlier in zip(weights, before, strict=True):
            if earlier is not None:
                weight.grad = earlier if weight.grad is None else earlier.add_(weight.grad)
        return Done({name: float(value) for name, value in totals.items()})

    def _halve(self, largest: int) -> None:
        """Run micro-batches of half as many tokens from now on, since `largest` did not fit."""
        limit = self.engine.micro_batch_tokens = max(1, largest // 2)
        empty_cache(self.engine.device)
        to_stderr(
            f"out of memory in a micro-batch of {largest} tokens: the step runs again with at most "
            f"{limit} (model.micro_batch_tokens), and so do those that follow"
        )

    def _batches(self, rows: Sequence[Row], whole_groups: bool, workers: int) -> list[list[Row]]:
        """The micro-batches of a pass; where several run at once, those that end first.

        Smaller ones spread better, but what they have in common runs in each of them.
        """
        engine, found = self.engine, []
        share = engine.count(rows) / workers
        for part in SHARES if workers > 1 else (math.inf,):
            limit = min(engine.micro_batch_tokens, max(1, part * share))
            batches = [[rows[i] for i in one] for one in engine.batches(rows, limit, whole_groups)]
            loads = [0] * workers
            for batch in batches if workers > 1 else ():
                loads[loads.index(min(loads))] += engine.count(batch)
            found.append((max(loads), len(batches), batches))
        return min(found, key=lambda one: one[:2])[2]

    def kept_tokens(self, rows: Sequence[Row], whole_groups: bool) -> int:
        """Most tokens of a forward pass on these rows; a prefix that its rows share counts once."""
        engine, limit = self.engine, self.engine.micro_batch_tokens
        if not rows:
            return limit
        batches = engine.batches(rows, limit, whole_groups)
        return max(engine.count([rows[i] for i in batch]) for batch in batches)

    def _one_by_one(
        self, batches: Sequence[Sequence[Row]], loss: Loss
    ) -> Iterator[dict[str, torch.Tensor]]:
        cuda = [self.engine.device] if self.engine.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed((self.engine.options.seed << 20) + self._passes)
            for batch in batches:
                total, metrics = self._loss(batch, loss)
                if total.requires_grad:
                    total.backward()  # type: ignore[no-untyped-call]
                yield metrics

    def _side_by_side(
        self, batches: Sequence[Sequence[Row]], loss: Loss
    ) -> Iterator[dict[str, torch.Tensor]]:
        """One thread for each micro-batch; gradients are added in the order of the batches."""
        weights = [value for _, value in self.engine.trainable()]

        def work(
            batch: Sequence[Row],
        ) -> tuple[dict[str, torch.Tensor], Sequence[torch.Tensor | None]]:
            total, metrics = self._loss(batch, loss)
            if not total.requires_grad:
                return metrics, []
            return metrics, torch.autograd.grad(total, weights, allow_unused=True)

        assert self._threads is not None
        for metrics, gradients in self._threads.map(work, batches):
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
        _, mask, arrays = pad_rows(rows)
        device = self.engine.device
        tensors = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
        batch = Batch(torch.from_numpy(mask).to(device), tensors, [row.group for row in rows])
        total, metrics = loss.fn(TORCH_OPS, self.engine.logprobs(rows, loss.temperature), batch)
        sums = {name: torch.as_tensor(value).detach() for name, value in metrics.items()}
        return total * self._optimizer.loss_scale, {"loss": total.detach(), **sums}

    def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:
        self._detach_snapshots()
        return Done(self._optimizer.step(optimizer))

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Done[list[Array]]:
        return Done(TorchSampler(self.engine).logprobs(rows, temperature))

    def snapshot(self) -> TorchSampler:
        sampler = TorchSampler(self.engine)
        self._snapshots.add(sampler)
        return sampler

    def critic(self, kind: str) -> TorchValueHead:
        """A critic of this model; `kind` is "value_head"."""
        if kind == "value_head" and self.can.value_head:
            return TorchValueHead(self.engine)
        why = f"got {kind!r}"
        if kind == "value_head":
            why = "this model cannot be split before its head"
        raise CapabilityError(
            f"torch has critics of the kind 'value_head' alone, for models of transformers; {why}"
        )

    def _detach_snapshots(self) -> None:
        """Before the weights change: give the living snapshots that read them one copy."""
        live = [sampler for sampler in self._snapshots if sampler.weights is None]
        if live:
            copy = {name: value.detach().clone() for name, value in self.engine.trainable()}
            for sampler in live:
                sampler.weights = copy

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Write into the folder `name`, all or nothing; an existing folder is replaced."""
        engine = self.engine
        with whole_folder(Path(name)) as partial:
            if engine.lora:
                write_peft(engine.model, engine.lora, engine.lora_layers, engine.name, partial)
            else:
                save_model(engine.model, partial)
            if optimizer:
                state = {"stepper": self._optimizer.state(), "passes": self._passes}
                torch.save(state, partial / OPTIMIZER)
        return str(name)

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights of the folder `ref`; accumulated gradients are dropped."""
        folder = Path(ref)
        if optimizer and not (folder / OPTIMIZER).is_file():
            raise ModelError(
                f"{folder} holds no {OPTIMIZER}; "
                "only a checkpoint saved with its optimizer can be resumed from"
            )
        self._detach_snapshots()
        if self.engine.lora:
            read_peft(self.engine.model, folder)
        else:
            _read_weights(self.engine, folder)
        for _, value in self.engine.trainable():
            value.grad = None
        if optimizer:
            state = read_optimizer(folder / OPTIMIZER)
            self._optimizer.load_state(state["stepper"])
            self._passes = state["passes"]


def _with_tensors(function: Callable[..., torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
    """Let a function of two tensors take a scalar for one of them."""

    def call(x: Any, y: Any) -> torch.Tensor:
        like = x if isinstance(x, torch.Tensor) else y
        pair = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (x, y))
        return function(*pair)

    return call


TORCH_OPS = Ops(
    exp=torch.exp,
    clip=torch.clamp,
    minimum=_with_tensors(torch.minimum),
    maximum=_with_tensors(torch.maximum),
    where=torch.where,
    logaddexp=_with_tensors(torch.logaddexp),
    sum=torch.sum,
    stop_gradient=torch.Tensor.detach,
)


def _read_weights(engine: Engine, folder: Path) -> None:
    """Copy a checkpoint's weights, read by transformers, which stores some in another form."""
    options = EngineOptions(device_map="cpu")
    stored = load_causal_model(str(folder), options, torch.float32).state_dict()
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
    """A trainer for a model folder or hub name; `adapter` is a PEFT folder to start from."""
    return TorchTrainer(open_engine(model, options or EngineOptions(), lora, adapter))


def open_sampler(
    ref: str | Path, options: EngineOptions | None = None, adapter: Path | None = None
) -> TorchSampler:
    """A sampler for a model folder, a hub name (with a PEFT folder `adapter`), or a PEFT folder."""
    return TorchSampler(open_engine(ref, options or EngineOptions(), adapter=adapter, learns=False))
