"""One optimiser step with every number given by the caller: AdamW, or Muon on the matrices with AdamW on the rest.

Both come from torch. `OptimizerState` owns their state (moments, the float16 loss scale), clips by global norm, and skips a step whose
gradient is not finite (a float16 overflow; or a learning rate that is far too high).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toolhone.backends.base import Adam, Metrics, Muon, Optimizer
from toolhone.backends.torch.engine import Engine
from toolhone.errors import CapabilityError

_GROW_EVERY = 2000
"""Steps without overflow after which the float16 loss scale is doubled (Micikevicius et al. 2018, arXiv:1710.03740)."""


class OptimizerState:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kind: type[Optimizer] | None = None
        self._parts: list[torch.optim.Optimizer] = []
        self._loss_scaled = engine.compute_dtype is torch.float16
        self.loss_scale = 2.0**16 if self._loss_scaled else 1.0
        self._clean_steps = 0

    def step(self, optimizer: Optimizer) -> Metrics:
        """Apply and clear the accumulated gradients. Metrics: `grad_norm` before clipping, `skipped` 1.0 when it was not finite."""
        weights = [value for _, value in self._engine.trained() if value.grad is not None]
        if not weights:
            return {"grad_norm": 0.0, "skipped": 1.0}
        self._prepare(optimizer)
        for value in weights:
            assert value.grad is not None
            value.grad.div_(self.loss_scale)
        device = self._engine.device
        norms = [
            torch.linalg.vector_norm(value.grad.float()).to(device)
            for value in weights
            if value.grad is not None
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        finite = bool(torch.isfinite(norm))
        if finite:
            self._clip(weights, norm, optimizer.clip_norm)
            for part in self._parts:
                part.step()
        self._adapt_scale(finite)
        for value in weights:
            value.grad = None
        return {"grad_norm": float(norm), "skipped": 0.0 if finite else 1.0}

    def _clip(self, weights: list[nn.Parameter], norm: torch.Tensor, limit: float) -> None:
        if limit > 0 and norm > limit:
            for value in weights:
                assert value.grad is not None
                value.grad.mul_(limit / (float(norm) + 1e-6))

    def _adapt_scale(self, finite: bool) -> None:
        if not self._loss_scaled:
            return
        self._clean_steps = self._clean_steps + 1 if finite else 0
        if not finite:
            self.loss_scale = max(1.0, self.loss_scale / 2)
        elif self._clean_steps % _GROW_EVERY == 0:
            self.loss_scale *= 2

    def _prepare(self, optimizer: Optimizer) -> None:
        """Make the torch optimisers on first use (or when the kind changes) and set this step's numbers."""
        if self._kind is not type(optimizer):
            self._kind = type(optimizer)
            self._parts = self._make(optimizer)
        for part in self._parts:
            for group in part.param_groups:
                _set_numbers(group, optimizer, isinstance(part, torch.optim.AdamW))

    def _make(self, optimizer: Optimizer) -> list[torch.optim.Optimizer]:
        trained = self._engine.trained()
        if isinstance(optimizer, Adam):
            return [torch.optim.AdamW([value for _, value in trained], lr=0.0)]
        if not hasattr(torch.optim, "Muon"):
            raise CapabilityError(
                f"training.optimizer 'muon' needs torch 2.9 or newer; this is {torch.__version__}; use 'adamw'"
            )
        outer = {
            id(part.weight)
            for part in (
                self._engine.model.get_input_embeddings(),
                self._engine.model.get_output_embeddings(),
            )
            if part
        }
        matrices = [value for _, value in trained if value.ndim == 2 and id(value) not in outer]
        rest = [value for _, value in trained if value.ndim != 2 or id(value) in outer]
        parts: list[torch.optim.Optimizer] = (
            [torch.optim.Muon(matrices, lr=0.0)] if matrices else []
        )
        return parts + ([torch.optim.AdamW(rest, lr=0.0)] if rest else [])

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain values."""
        kind = None if self._kind is None else self._kind.__name__
        states = [part.state_dict() for part in self._parts]
        return {
            "kind": kind,
            "parts": states,
            "loss_scale": self.loss_scale,
            "clean_steps": self._clean_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.loss_scale, self._clean_steps = state["loss_scale"], state["clean_steps"]
        if state["kind"] is None:
            self._kind, self._parts = None, []
            return
        nothing = Adam(0.0)
        optimizer = nothing if state["kind"] == "Adam" else Muon(0.0, nothing)
        self._kind, self._parts = type(optimizer), self._make(optimizer)
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def _set_numbers(group: dict[str, Any], optimizer: Optimizer, is_adam: bool) -> None:
    if is_adam:
        adam = optimizer.adam if isinstance(optimizer, Muon) else optimizer
        group.update(
            lr=adam.learning_rate,
            betas=(adam.beta1, adam.beta2),
            eps=adam.eps,
            weight_decay=adam.weight_decay,
        )
    else:
        assert isinstance(optimizer, Muon)
        group.update(
            lr=optimizer.learning_rate,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
        )
