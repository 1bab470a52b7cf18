"""`SharedBase`: one base model under many trainers and samplers, each with adapters of its own.

    base = SharedBase("path/to/model", EngineOptions())
    trainer = base.trainer(Lora(rank=8), seed=0)    # its adapters are new, the base is shared

The base is frozen; it is in memory once.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from toolhone.backends.base import Lora
from toolhone.backends.torch.device import device_bytes, in_use
from toolhone.backends.torch.engine import EngineOptions, open_engine
from toolhone.backends.torch.sampler import TorchSampler
from toolhone.backends.torch.trainer import TorchTrainer
from toolhone.errors import CapabilityError


class SharedBase:
    """`stop_ids`: the end-of-text ids of the model. `arch`: the class of the model."""

    def __init__(self, name: str, options: EngineOptions) -> None:
        self._engine = open_engine(name, options, learns=False)
        self.info = self._engine.info
        model = self._engine.model
        self.arch = type(model).__name__
        ends = getattr(model, "generation_config", None) or model.config
        ids = getattr(ends, "eos_token_id", None)
        self.stop_ids: tuple[int, ...] = tuple([ids] if isinstance(ids, int) else ids or ())

    def trainer(self, lora: Lora, seed: int) -> TorchTrainer:
        """A trainer of new adapters, drawn from `seed`."""
        options = replace(self._engine.options, loader=self._copy, seed=seed)
        return TorchTrainer(open_engine(self._engine.name, options, lora))

    def sampler(self, adapter: Path | None = None) -> TorchSampler:
        """A sampler of the base, or of the adapters in a PEFT folder, which stay apart from it."""
        if adapter is None:
            return TorchSampler(self._engine)
        options = replace(self._engine.options, loader=self._copy)
        engine = open_engine(self._engine.name, options, adapter=adapter, learns=False)
        return TorchSampler(engine, merges=False)

    def targets(self, mlp: bool, attention: bool, head: bool) -> tuple[str, ...]:
        """The names of linear layers in these parts, for `Lora.target_modules`."""
        model = self._engine.model
        output = model.get_output_embeddings()
        wanted, others = set[str](), set[str]()
        for path, part in model.named_modules():
            if isinstance(part, nn.Linear | Conv1D):
                is_attention = "attn" in path or "attention" in path
                chosen = head if part is output else attention if is_attention else mlp
                (wanted if chosen else others).add(path.rpartition(".")[2])
        if wanted & others:
            odd = ", ".join(sorted(wanted & others))
            raise CapabilityError(
                f"layers inside and outside of the wanted parts of this model are named {odd}; "
                "train attention and mlp together"
            )
        return tuple(sorted(wanted))

    def adapter_bytes(self, lora: Lora) -> int:
        """Bytes of the adapters' weights, which are float32."""
        sizes = [
            sum(part.weight.shape)
            for path, part in self._engine.model.named_modules()
            if isinstance(part, nn.Linear | Conv1D)
            and path.rpartition(".")[2] in lora.target_modules
        ]
        return 4 * lora.rank * sum(sizes)

    def memory(self) -> tuple[int, int]:
        """Bytes in use on the device of the base, and those that it has."""
        return in_use(self._engine.device), device_bytes(self._engine.device)

    def _copy(self, name: str, dtype: torch.dtype) -> Any:  # noqa: ARG002 (a loader's signature)
        """A model of new modules around the same weights."""
        model = self._engine.model
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        return copy.deepcopy(model, shared)
