"""Optimizer steps of the torch backend: AdamW and Muon, gradient clipping, the float16 loss scale.

state = OptimizerState(engine)
metrics = state.step(Adam(learning_rate=1e-4))       # applies and clears the gradients
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from toolhone.backends.base import Adam, Metrics, Muon, Optimizer
from toolhone.backends.torch.engine import Engine
from toolhone.errors import ModelError

GROW_EVERY = 2000
"""Steps without overflow after which the float16 loss scale doubles (arXiv:1710.03740)."""


class Float32Muon(torch.optim.Muon):
    """torch's Muon with a Newton-Schulz iteration in float32.

    torch iterates in bfloat16, which takes 15 times as long on a processor without fast bfloat16.
    State and settings are torch's, so a checkpoint of either loads into the other.
    workers: matrices that are updated at once.
    """

    workers = 1

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Apply one update."""
        for group in self.param_groups:
            known = [value for value in group["params"] if value.grad is not None]
            with ThreadPoolExecutor(self.workers, "matrix") as threads:
                list(threads.map(partial(self._update, group), known))

    @torch.no_grad()
    def _update(self, group: dict[str, Any], value: torch.Tensor) -> None:
        assert value.grad is not None
        state = self.state[value]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(value.grad)
        moving, momentum = state["momentum_buffer"], group["momentum"]
        moving.lerp_(value.grad, 1 - momentum)
        update = value.grad.lerp(moving, momentum) if group["nesterov"] else moving
        update = orthogonalise(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = value.shape
        scale = max(1, rows / columns) ** 0.5
        value.mul_(1 - group["lr"] * group["weight_decay"])
        value.add_(update, alpha=-group["lr"] * scale)


def orthogonalise(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Map the singular values of a matrix to about 1 by the Newton-Schulz iteration of Muon.

    Jordan 2024, kellerjordan.github.io/posts/muon; float32, on the smaller Gram matrix.
    """
    a, b, c = coefficients
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.float().T if tall else matrix.float()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class OptimizerState:
    """AdamW, or Muon on the matrices with AdamW on the rest, with clipping and the loss scale.

    A step whose gradient is not finite is skipped: a float16 overflow, or too high a learning rate.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kind: type[Optimizer] | None = None
        self._parts: list[torch.optim.Optimizer] = []
        self._scales_loss = engine.compute_dtype is torch.float16
        self.loss_scale = 2.0**16 if self._scales_loss else 1.0
        self._clean_steps = 0

    def step(self, optimizer: Optimizer) -> Metrics:
        """Apply and clear the gradients; `grad_norm` is taken before clipping."""
        weights = [value for _, value in self._engine.trainable() if value.grad is not None]
        gradients = [value.grad for value in weights if value.grad is not None]
        if not weights:
            return {"grad_norm": 0.0, "skipped": 1.0}
        self._prepare(optimizer)
        for gradient in gradients:
            gradient.div_(self.loss_scale)
        device, limit = self._engine.device, optimizer.clip_norm
        norms = [torch.linalg.vector_norm(gradient.float()).to(device) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        finite = bool(torch.isfinite(norm))
        if finite:
            if 0 < limit < norm:
                for gradient in gradients:
                    gradient.mul_(limit / (float(norm) + 1e-6))
            for part in self._parts:
                part.step()
        self._adapt_scale(finite)
        for value in weights:
            value.grad = None
        return {"grad_norm": float(norm), "skipped": 0.0 if finite else 1.0}

    def _adapt_scale(self, finite: bool) -> None:
        if not self._scales_loss:
            return
        self._clean_steps = self._clean_steps + 1 if finite else 0
        if not finite:
            self.loss_scale = max(1.0, self.loss_scale / 2)
        elif self._clean_steps % GROW_EVERY == 0:
            self.loss_scale *= 2

    def _prepare(self, optimizer: Optimizer) -> None:
        """Create the optimisers on first use, or when the kind changes; set this step's numbers."""
        if self._kind is not type(optimizer):
            self._kind, self._parts = type(optimizer), self._create(optimizer)
        for part in self._parts:
            for group in part.param_groups:
                if isinstance(part, torch.optim.AdamW):
                    adam = optimizer.adam if isinstance(optimizer, Muon) else optimizer
                    group.update(betas=(adam.beta1, adam.beta2), eps=adam.eps)
                    group.update(lr=adam.learning_rate, weight_decay=adam.weight_decay)
                else:
                    assert isinstance(optimizer, Muon)
                    group.update(lr=optimizer.learning_rate, momentum=optimizer.momentum)
                    group.update(weight_decay=optimizer.weight_decay)

    def _create(self, optimizer: Optimizer) -> list[torch.optim.Optimizer]:
        trained = [value for _, value in self._engine.trainable()]
        if isinstance(optimizer, Adam):
            return [torch.optim.AdamW(trained, lr=0.0)]
        model = self._engine.model
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        outer = {id(part.weight) for part in ends if part}
        matrices = [value for value in trained if value.ndim == 2 and id(value) not in outer]
        rest = [value for value in trained if value.ndim != 2 or id(value) in outer]
        parts: list[torch.optim.Optimizer] = []
        kind = Float32Muon if self._engine.device.type == "cpu" else torch.optim.Muon
        parts += [kind(matrices, lr=0.0)] if matrices else []
        for part in parts:
            if isinstance(part, Float32Muon):
                part.workers = self._engine.workers
        return parts + ([torch.optim.AdamW(rest, lr=0.0)] if rest else [])

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain values."""
        return {
            "kind": None if self._kind is None else self._kind.__name__,
            "parts": [part.state_dict() for part in self._parts],
            "loss_scale": self.loss_scale,
            "clean_steps": self._clean_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.loss_scale, self._clean_steps = state["loss_scale"], state["clean_steps"]
        if state["kind"] is None:
            self._kind, self._parts = None, []
            return
        optimizer = Adam(0.0) if state["kind"] == "Adam" else Muon(0.0, Adam(0.0))
        self._kind, self._parts = type(optimizer), self._create(optimizer)
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def read_optimizer(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} is damaged ({' '.join(str(error).split())[:100]}); "
            "resume from another checkpoint"
        ) from None
    return state
