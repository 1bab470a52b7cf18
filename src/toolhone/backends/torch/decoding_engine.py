"""The engine that a sampler decodes with: adapters merged, weights laid out for the processor.

    twin = decoding_engine(engine, merges=True)     # the engine stays as it is
    size = decoding_bytes(engine)                   # of the weights that the twin has for itself

A product of a few rows with a large float32 matrix spends more time on laying out the matrix than
on multiplying. On a CPU, oneDNN keeps a weight in its own layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import nn
from transformers import AttentionInterface

from toolhone.backends.torch.cascade import NAME, cascade_attention
from toolhone.backends.torch.device import device_bytes
from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.lora import merge_adapters

SMALL_WEIGHT = 2**18
"""Numbers of a weight up to which it is not packed: a call costs more than it saves."""
ROWS = 32
"""Rows that the layout is made for; others may come."""
PACKED_SHARE = 1 / 8
"""Of the device's memory: packed copies of weights that a sampler may have."""


def decoding_engine(engine: Engine, merges: bool) -> Engine:
    """A twin of the engine, with cascade attention, that shares its weights; where it `merges`,
    float32 adapters go into weights of its own. In lower precision merging would round.
    Large weights are packed if that copies no more than `PACKED_SHARE` of the device's memory.
    """
    AttentionInterface.register(NAME, cascade_attention)
    engine.set_learning(False)
    twin = engine.with_weights(dict(engine.trainable()))
    if merges and engine.model.dtype is torch.float32:
        merge_adapters(twin.model, twin.lora_layers)
        if _packed_bytes(engine) is not None and packs(twin):
            pack_layers(twin.model)
    twin.model.set_attn_implementation(NAME)
    return twin


def decoding_bytes(engine: Engine) -> int:
    """Bytes of the weights that `decoding_engine` makes: merged ones, and packed copies."""
    if engine.model.dtype is not torch.float32:
        return 0
    adapted = (engine.model.get_submodule(name).weight for name in engine.lora_layers)
    return sum(int(weight.nbytes) for weight in adapted) + (_packed_bytes(engine) or 0)


def _packed_bytes(engine: Engine) -> int | None:
    """Bytes of packed copies of weights without adapters; None where nothing is packed."""
    if engine.compute_dtype is not torch.float32:
        return None
    adapted, layers = set(engine.lora_layers), list(packable(engine.model))
    own = (layer for name, layer in layers if name.rpartition(".")[0] not in adapted)
    size = sum(layer.weight.nbytes for layer in own)
    fits = size <= PACKED_SHARE * device_bytes(engine.device)
    return size if layers and fits else None


def packs(engine: Engine) -> bool:
    """Whether packed layers give this model's own logits, tried on its first layers: a model's
    code may read the weight of a layer itself.
    """
    try:
        model = engine.widened().model
        ids = torch.arange(1, 9)[None] % model.get_input_embeddings().weight.shape[0]
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
            pack_layers(model)
            ours = model(input_ids=ids, use_cache=False).logits
    except (AttributeError, TypeError, RuntimeError, ValueError, LookupError):
        return False
    return torch.allclose(ours, expected, rtol=0.0, atol=1e-3 * float(expected.abs().max()))


class PackedLinear(nn.Module):
    """x W^T + bias, without gradients. weight: float32 [out, in] in oneDNN's layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        with torch.inference_mode(False), torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach().contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        run = torch.ops.mkldnn._linear_pointwise
        result: torch.Tensor = run(x, self.weight, self.bias, "none", [], "")
        return result


def packable(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that are worth it: on a CPU, in float32, large, without hooks."""
    for name, layer in model.named_modules() if can_pack() else ():
        plain = type(layer) is nn.Linear and "forward" not in vars(layer)
        if not plain or layer._forward_hooks or layer._forward_pre_hooks:
            continue
        assert isinstance(layer, nn.Linear)
        weight = layer.weight
        fits = weight.device.type == "cpu" and weight.dtype is torch.float32
        if fits and weight.numel() > SMALL_WEIGHT:
            yield name, layer


def pack_layers(model: nn.Module) -> None:
    """Replace linear layers by packed ones, one after the other; their weights are let go."""
    for name in [name for name, _ in packable(model)]:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        layer = getattr(owner, child)
        setattr(owner, child, PackedLinear(layer.weight, layer.bias))


@lru_cache
def can_pack() -> bool:
    """Whether this torch has oneDNN's products of packed weights, with the right values."""
    made = torch.Generator().manual_seed(0)
    weight, rows = (torch.randn(n, 48, generator=made) for n in (80, 5))
    bias = weight[:, 0]
    try:
        ours = PackedLinear(weight, bias)(rows)
    except (AttributeError, RuntimeError):  # built without oneDNN, or for another processor
        return False
    return torch.allclose(ours, nn.functional.linear(rows, weight, bias), atol=1e-4)
