"""The weights of a model as plain transformers files: `write_merged` puts LoRA's adapters into the layers that they stand beside.

    write_merged(engine, Path("out"))        # config.json, generation_config.json, *.safetensors

W + alpha / rank * B A is computed in float32 and rounded once to the precision of W. The engine is what it was before, also when
writing fails. A model without adapters is written as it is. Tokenizer and certificate are the caller's business.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from toolhone.backends.torch.engine import Engine, quiet
from toolhone.backends.torch.lora import LoraLayer


def write_merged(engine: Engine, folder: Path) -> None:
    """Write the whole model into an existing folder."""
    with merged(engine.model, engine.lora_layers), quiet():
        engine.model.save_pretrained(folder)


@contextlib.contextmanager
def merged(model: nn.Module, layers: list[str]) -> Iterator[None]:
    """The model with plain layers whose weights hold the adapters' change; its own layers come back at the end."""
    kept: dict[str, tuple[LoraLayer, torch.Tensor]] = {}
    try:
        for name in layers:
            layer = model.get_submodule(name)
            assert isinstance(layer, LoraLayer)
            weight = layer.base.weight
            assert isinstance(weight, nn.Parameter)
            kept[name] = (layer, weight.data)
            weight.data = _merged_weight(layer, weight.data)
            _put(model, name, layer.base)
        yield
    finally:
        for name, (layer, weight_before) in kept.items():
            assert isinstance(layer.base.weight, nn.Parameter)
            layer.base.weight.data = weight_before
            _put(model, name, layer)


def _merged_weight(layer: LoraLayer, weight: torch.Tensor) -> torch.Tensor:
    """[out, in], or [in, out] where the base is a `Conv1D`, as the weight itself."""
    change = layer.lora_B.weight.data @ layer.lora_A.weight.data * layer.scale
    change = change.T if isinstance(layer.base, Conv1D) else change
    return (weight.float() + change.float()).to(weight.dtype)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
