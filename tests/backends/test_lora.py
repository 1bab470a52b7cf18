"""Adapters beside weights of lower precision: one product, rounded once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from backends.test_torch_models import CONFIGS, learn, save_model
from toolhone.backends.base import Lora, SamplingParams
from toolhone.backends.torch.decoding_engine import decoding_bytes
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.kernels import AdaptedLinear
from toolhone.backends.torch.lora import CONFIG, LoraLayer, read_lora_config
from toolhone.backends.torch.trainer import open_trainer
from toolhone.errors import ModelError

OPTIONS = {
    name: EngineOptions(device_map="cpu", torch_dtype=name) for name in ("float32", "bfloat16")
}
LOW = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(CONFIGS["qwen3"], tmp_path_factory.mktemp("qwen3"))


def layer(dtype: torch.dtype, base: nn.Module | None = None, dropout: float = 0.0) -> LoraLayer:
    """An adapter with an effect as large as that of the layer."""
    torch.manual_seed(0)
    base = base or nn.Linear(64, 48)
    found = LoraLayer(base, Lora(rank=4, dropout=dropout), torch.Generator())
    if getattr(base, "bias", None) is not None:
        nn.init.normal_(base.bias)
    nn.init.normal_(found.lora_A.weight, std=0.2)
    nn.init.normal_(found.lora_B.weight, std=0.05)
    base.to(dtype).requires_grad_(False)
    return found


@pytest.mark.parametrize("dtype", LOW)
def test_a_change_below_half_a_step_of_the_precision_is_kept_on_average(dtype: torch.dtype) -> None:
    part, x = layer(dtype, nn.Linear(64, 512, bias=False)), torch.rand(256, 64).to(dtype)
    a, b = 1e-3, torch.finfo(dtype).eps / 40
    nn.init.constant_(part.lora_A.weight, a)
    nn.init.constant_(part.lora_B.weight, b)
    plain, changed = part.base(x), part(x).detach()
    wanted = part.scale * 4 * a * b * x.double().sum(1, keepdim=True)
    assert wanted.mean() < 0.2 * torch.finfo(dtype).eps * plain.double().abs().median()
    as_peft = (plain + wanted.float()).to(dtype)
    kept = [(one.double() - plain).mean() / wanted.mean() for one in (changed, as_peft)]
    assert kept[0] == pytest.approx(1, rel=0.15)
    assert 0.1 < kept[1] < 0.25


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("kind", ["linear", "without bias", "Conv1D"])
def test_low_precision_has_the_output_and_gradients_of_float32(
    kind: str, dtype: torch.dtype
) -> None:
    bases = {"linear": nn.Linear(64, 48), "Conv1D": Conv1D(48, 64)}
    part = layer(torch.float32, bases.get(kind, nn.Linear(64, 48, bias=False)))
    x, found = torch.randn(2, 5, 64), []
    for precision in (None, torch.float32, dtype):
        part.base.to(precision or torch.float32)
        inputs = x.to(precision or torch.float32).requires_grad_()
        formula = part.base(inputs) + part.scale * part.lora_B(part.lora_A(inputs.float()))
        result = part(inputs) if precision else formula
        assert result.dtype is (precision or torch.float32)
        slopes = torch.autograd.grad(
            result.float().square().sum(), [inputs, part.lora_A.weight, part.lora_B.weight]
        )
        found.append([result.detach(), *slopes])
    for exact, single, ours in zip(*found, strict=True):
        assert torch.allclose(single, exact, rtol=1e-4, atol=1e-4)
        assert (ours.float() - exact).norm() < 0.01 * exact.norm()


def test_dropout_drops_inputs_of_the_adapter_alone() -> None:
    part = layer(torch.bfloat16, dropout=0.5)
    x = torch.randn(4000, 64).to(torch.bfloat16)
    part.dropout.train()
    dropped = part(x).float()
    part.dropout.eval()
    whole = part(x).float()
    assert not torch.equal(dropped, whole)
    assert (dropped - whole).mean(0).abs().max() < 0.2 * whole.std()


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
def test_no_tokens_give_no_results(dtype: torch.dtype) -> None:
    assert layer(dtype)(torch.zeros(0, 64, dtype=dtype)).shape == (0, 48)


class Doubled(nn.Linear):
    """A layer with a forward pass of its own, as quantised ones have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def test_a_layer_with_its_own_forward_pass_or_a_hook_gives_its_own_result() -> None:
    x = torch.randn(3, 64).to(torch.bfloat16)
    hooked = nn.Linear(64, 48)
    hooked.register_forward_hook(lambda _, __, found: found * 2)
    for base in (Doubled(64, 48), hooked):
        part = layer(torch.bfloat16, base)
        nn.init.zeros_(part.lora_B.weight)
        assert torch.equal(part(x), base(x))


def test_a_float32_layer_of_a_model_in_bfloat16_has_an_adapter() -> None:
    part, x = layer(torch.float32), torch.randn(3, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = part(x)
    assert found.dtype is torch.bfloat16
    assert torch.allclose(found.float(), part(x), atol=0.1)


def test_an_adapted_product_has_the_gradients_of_its_formula() -> None:
    torch.manual_seed(0)
    x, low, weight, b, bias = (
        torch.randn(shape, dtype=torch.double, requires_grad=learns)
        for shape, learns in (
            *(((3, 2, 5), True), ((3, 2, 2), True), ((4, 5), False)),
            *(((4, 2), True), ((4,), False)),
        )
    )
    assert torch.autograd.gradcheck(
        lambda x, low, b: AdaptedLinear.apply(x, low, weight, b, bias), (x, low, b)
    )
    expected = x @ weight.T + low @ b.T + bias
    assert torch.allclose(AdaptedLinear.apply(x, low, weight, b, bias), expected)
    single = AdaptedLinear.apply(*(one.float() for one in (x, low, weight, b, bias)))
    assert torch.allclose(single, expected.float(), atol=1e-6)


def test_sampling_in_bfloat16_shares_all_weights_and_stays_apart_from_the_trainer(
    qwen: Path,
) -> None:
    trainer = open_trainer(qwen, Lora(rank=4), OPTIONS["bfloat16"])
    learn(trainer, 3, 0.01)
    sampler, params = trainer.snapshot(), SamplingParams(max_tokens=4)
    before = sampler.sample([[3, 4]], params, [1])[0][0]
    learn(trainer, 3, 0.01)
    again = sampler.sample([[3, 4]], params, [1])[0][0]
    assert (again.tokens, again.logprobs) == (before.tokens, before.logprobs)
    assert sampler._decoding is not None
    ours, theirs = trainer.engine.model, sampler._decoding[1].model
    layers = [name for name, part in ours.named_modules() if isinstance(part, LoraLayer)]
    assert layers
    for name in layers:
        assert theirs.get_submodule(name).weight is ours.get_submodule(name).weight
    assert decoding_bytes(trainer.engine) == 0


@pytest.mark.parametrize("start", ["pissa_niter_4", "olora", "loftq", True, "gaussian"])
def test_an_adapter_beside_a_changed_base_is_refused(start: str | bool, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / CONFIG).write_text(json.dumps({**config, "init_lora_weights": start}))
    if start in (True, "gaussian"):
        assert read_lora_config(tmp_path)[0].rank == 2
        return
    with pytest.raises(ModelError, match=f"init_lora_weights='{start}' .* no adapter of the model"):
        read_lora_config(tmp_path)
