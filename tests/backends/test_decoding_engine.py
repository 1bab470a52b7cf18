"""Weights that are packed to decode give the same logits, and are packed where that is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backends.test_torch_models import CONFIGS, CPU, save_model
from toolhone.backends.base import Adam, Lora, SamplingParams, train_step
from toolhone.backends.torch import decoding_engine
from toolhone.backends.torch.decoding_engine import (
    PackedLinear,
    can_pack,
    decoding_bytes,
    pack_layers,
)
from toolhone.backends.torch.engine import Engine, EngineOptions, open_engine
from toolhone.backends.torch.sampler import TorchSampler
from toolhone.backends.torch.trainer import open_trainer
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch has no packed products")


@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_engine, "SMALL_WEIGHT", 0)


def packed(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, PackedLinear)]


@pytest.mark.parametrize("rows", [1, 5, 32, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_product_is_that_of_the_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(70, 90, bias=bias), torch.randn(1, rows, 70)
    ours = PackedLinear(layer.weight, layer.bias)
    torch.testing.assert_close(ours(x), layer(x), rtol=0.0, atol=1e-5)
    assert not ours(x).requires_grad


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.usefixtures("small_ones_too")
def test_samples_of_packed_weights_have_the_trainers_own_probabilities(
    family: str, adapted: bool, tmp_path: Path
) -> None:
    lora = Lora(rank=2) if adapted else None
    trainer = open_trainer(save_model(CONFIGS[family], tmp_path), lora, CPU)
    rows = [Row.of([3, 4, 5, 6, 7], [True] * 5).with_arrays(weights=1.0)]
    train_step(trainer, [rows], cross_entropy(), Adam(0.05))
    live, expected = trainer.engine.model, decoding_bytes(trainer.engine)
    sampler = TorchSampler(trainer.engine)
    ((sample,),) = sampler.sample([[3, 4]], SamplingParams(max_tokens=12))
    assert sampler._decoding is not None
    twin = sampler._decoding[1].model
    assert packed(twin), "nothing was packed"
    assert packed(live) == []
    places = {value.data_ptr() for value in live.parameters()}
    own = [value for value in twin.parameters() if value.data_ptr() not in places]
    own += [twin.get_submodule(name).weight for name in packed(twin)]
    assert expected == 4 * sum(value.numel() for value in own)
    row = Row.of([3, 4, *sample.tokens], [False] * 2 + [True] * 12)
    np.testing.assert_allclose(trainer.logprobs([row]).value[0][2:], sample.logprobs, atol=1e-5)


def test_only_large_plain_float32_layers_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        pass

    def model() -> nn.ModuleDict:
        parts = {"large": nn.Linear(600, 500), "small": nn.Linear(60, 50), "own": Own(600, 500)}
        parts |= {"bf16": nn.Linear(600, 500, dtype=torch.bfloat16), "hooked": nn.Linear(600, 500)}
        parts["hooked"].register_forward_hook(lambda *_: None)
        return nn.ModuleDict(parts)

    pack_layers(first := model())
    assert packed(first) == ["large"]
    monkeypatch.setattr(decoding_engine, "can_pack", lambda: False)
    pack_layers(second := model())
    assert packed(second) == []


@pytest.mark.parametrize(
    "why", ["no room", "bfloat16", "too small", "reads weights", "cannot be tried"]
)
def test_what_cannot_be_packed_is_sampled_from_as_it_is(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"device_map": "cpu"}
    if why != "too small":
        monkeypatch.setattr(decoding_engine, "SMALL_WEIGHT", 0)
    if why == "no room":
        monkeypatch.setattr(decoding_engine, "PACKED_SHARE", 0.0)
    if why == "bfloat16":
        options["torch_dtype"] = "bfloat16"
    if why == "cannot be tried":
        monkeypatch.setattr(Engine, "widened", lambda _: [][0])
    if why in ("no room", "bfloat16", "too small"):
        monkeypatch.setattr(decoding_engine, "packs", lambda _: pytest.fail("tried in vain"))
    engine = open_engine(save_model(CONFIGS["qwen3"], tmp_path), EngineOptions(**options))
    if why == "reads weights":
        reads = type(engine.model.model.layers[0].mlp)

        def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
            gate = self.act_fn(nn.functional.linear(x, self.gate_proj.weight))
            return nn.functional.linear(gate, self.down_proj.weight)

        monkeypatch.setattr(reads, "forward", forward)
    twin = decoding_engine.decoding_engine(engine, merges=True)
    assert packed(twin.model) == []
    if why == "no room":
        assert decoding_bytes(engine) == 0
    TorchSampler(engine).sample([[3, 4]], SamplingParams(max_tokens=2))
