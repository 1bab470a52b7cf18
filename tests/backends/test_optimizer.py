"""Tests of `backends/torch/optimizer.py`: Muon in float32 against torch's own."""

import torch

from toolhone.backends.torch.optimizer import Float32Muon, orthogonalise

COEFFICIENTS = (3.4445, -4.775, 2.0315)
SHAPES = ((8, 8), (24, 8), (8, 24), (1, 5))


def problem() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return weights, [torch.randn(shape, generator=generator) for shape in SHAPES]


def stepped(optimizer: type[torch.optim.Optimizer], steps: int) -> list[torch.Tensor]:
    weights, gradients = problem()
    parameters = [torch.nn.Parameter(weight) for weight in weights]
    settings = {"lr": 0.1, "weight_decay": 0.5, "momentum": 0.9}
    muon = optimizer(parameters, **settings)
    for _ in range(steps):
        for value, gradient in zip(parameters, gradients, strict=True):
            value.grad = gradient.clone()
        muon.step()
    return [value.detach() for value in parameters]


def test_newton_schulz_brings_every_singular_value_near_one() -> None:
    for matrix in problem()[1]:
        update = orthogonalise(matrix * 1e-4, COEFFICIENTS, 5, 1e-7)
        values = torch.linalg.svdvals(update)
        assert update.dtype == torch.float32
        assert update.shape == matrix.shape
        assert float(values.min()) > 0.6, values
        assert float(values.max()) < 1.3, values


def test_float32_muon_is_torchs_muon_up_to_bfloat16_rounding() -> None:
    start = problem()[0]
    ours, theirs = stepped(Float32Muon, 3), stepped(torch.optim.Muon, 3)
    for before, mine, torchs in zip(start, ours, theirs, strict=True):
        moved = (torchs - before).norm()
        assert (mine - torchs).norm() < 0.02 * moved
        assert not torch.equal(mine, torchs), "torch iterates in bfloat16"


def test_state_of_torchs_muon_loads_into_float32_muon() -> None:
    weights, gradients = problem()
    parameters = [torch.nn.Parameter(weight) for weight in weights]
    saved = torch.optim.Muon(parameters, lr=0.1)
    for value, gradient in zip(parameters, gradients, strict=True):
        value.grad = gradient
    saved.step()
    resumed = Float32Muon(parameters, lr=0.0)
    resumed.load_state_dict(saved.state_dict())
    for value in parameters:
        momentum = resumed.state[value]["momentum_buffer"]
        assert torch.equal(momentum, saved.state[value]["momentum_buffer"])
    resumed.step()
