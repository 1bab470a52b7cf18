"""Adapters beside weights of lower precision: one product, rounded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.backends.test_torch_models import CONFIGS, learn, save_model, some_rows
from torch import nn
from transformers.pytorch_utils import Conv1D

from toolhone.backends.base import Adam, Lora, SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.lora import JoinedLinear, LoraLayer
from toolhone.backends.torch.trainer import open_trainer
from toolhone.training.losses import cross_entropy

OPTIONS = {
    name: EngineOptions(device_map="cpu", torch_dtype=name) for name in ("float32", "bfloat16")
}
LOW = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(CONFIGS["qwen3"], tmp_path_factory.mktemp("qwen3"))


def layer(
    dtype: torch.dtype, base: nn.Module | None = None, a: float = 0.02, b: float = 1.0
) -> LoraLayer:
    """An adapter with the same number everywhere in A and in B."""
    base = base or nn.Linear(64, 512)
    found = LoraLayer(base.to(dtype).requires_grad_(False), Lora(rank=4), torch.Generator())
    nn.init.constant_(found.lora_A.weight, a)
    nn.init.constant_(found.lora_B.weight, b)
    return found


@pytest.mark.parametrize("dtype", LOW)
def test_a_change_below_half_a_step_of_the_precision_is_kept_on_average(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.rand(256, 64).to(dtype)
    a, b = 1e-3, torch.finfo(dtype).eps / 40
    part = layer(dtype, a=a, b=b)
    plain, changed = part.base(x).double(), part(x).detach().double()
    wanted = (part.scale * 4 * a * b * x.double().sum(1)).mean()
    assert wanted < 0.2 * torch.finfo(dtype).eps * plain.abs().median()
    assert (changed - plain).mean() == pytest.approx(wanted.item(), rel=0.15)


@pytest.mark.parametrize("kind", ["linear", "without bias", "Conv1D"])
def test_low_precision_has_the_output_and_gradients_of_float32(kind: str) -> None:
    torch.manual_seed(0)
    bases = {"linear": nn.Linear(64, 48), "Conv1D": Conv1D(48, 64)}
    base = bases.get(kind, nn.Linear(64, 48, bias=False))
    wide = layer(torch.float32, base)
    x = torch.randn(2, 5, 64)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        wide.base.to(dtype)
        inputs = x.to(dtype).requires_grad_()
        result = wide(inputs)
        assert result.dtype is dtype
        slopes = torch.autograd.grad(
            result.float().square().sum(), [inputs, wide.lora_A.weight, wide.lora_B.weight]
        )
        found.append([result.detach(), *slopes])
    for exact, ours in zip(*found, strict=True):
        assert (ours.float() - exact).norm() < 0.02 * exact.norm()


def test_the_joined_product_has_the_gradients_of_its_formula() -> None:
    torch.manual_seed(0)
    x, low, weight, b, bias = (
        torch.randn(shape, dtype=torch.double, requires_grad=learns)
        for shape, learns in (
            *(((3, 2, 5), True), ((3, 2, 2), True), ((4, 5), False)),
            *(((4, 2), True), ((4,), False)),
        )
    )
    assert torch.autograd.gradcheck(
        lambda x, low, b: JoinedLinear.apply(x, low, weight, b, bias, None), (x, low, b)
    )
    expected = x @ weight.T + low @ b.T + bias
    assert torch.allclose(JoinedLinear.apply(x, low, weight, b, bias, None), expected)


def test_what_is_kept_side_by_side_gives_the_same_bits() -> None:
    part, x = layer(torch.bfloat16), torch.randn(7, 64).to(torch.bfloat16)
    before = part(x)
    part.join()
    assert part.joined is not None
    assert torch.equal(part(x), before)


def test_first_steps_in_bfloat16_gain_what_they_gain_in_float32(qwen: Path) -> None:
    gained = {}
    for dtype in ("float32", "bfloat16"):
        trainer = open_trainer(qwen, Lora(rank=4), OPTIONS[dtype])
        losses = []
        for _ in range(3):
            losses.append(trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"])
            trainer.optim_step(Adam(3e-4))
        gained[dtype] = losses[0] - losses[-1]
    assert gained["bfloat16"] == pytest.approx(gained["float32"], rel=0.25)


def test_sampling_in_bfloat16_keeps_adapters_side_by_side_and_apart_from_the_trainer(
    qwen: Path,
) -> None:
    trainer = open_trainer(qwen, Lora(rank=4), OPTIONS["bfloat16"])
    learn(trainer, 3, 0.01)
    sampler, params = trainer.snapshot(), SamplingParams(max_tokens=4)
    before = sampler.sample([[3, 4]], params, [1])[0][0]
    learn(trainer, 3, 0.01)
    again = sampler.sample([[3, 4]], params, [1])[0][0]
    assert (again.tokens, again.logprobs) == (before.tokens, before.logprobs)
    layers = [part for part in trainer.engine.model.modules() if isinstance(part, LoraLayer)]
    assert layers
    assert all(part.joined is None for part in layers)
