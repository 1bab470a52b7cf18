"""Log-probabilities of targets, some positions at a time, so that full logits are never in memory.

    values = chunked(project, hidden, targets, temperature, size)

`project(hidden, targets, temperature)` gives float32 [n] for hidden states [n, width].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

LOGIT_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20, "mps": 256 * 2**20}
"""Size of one chunk of float32 logits."""
KEPT_CHUNKS = 3
"""Chunks that are kept for the backward pass; it computes further ones again."""


class FrozenHead(torch.autograd.Function):
    """Log-probabilities of targets by a head that does not learn, `size` positions at a time.

    A position's gradient by its own hidden state is computed with its value, while its logits are
    there; so none are kept, and none made twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        project: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        values, slopes = [], torch.empty_like(hidden)
        for start in range(0, len(hidden), size):
            part = hidden[start : start + size].detach().requires_grad_()
            with torch.enable_grad():
                found = project(part, targets[start : start + size])
                (slopes[start : start + size],) = torch.autograd.grad(found.sum(), part)
            values.append(found.detach())
        ctx.save_for_backward(slopes)
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None]).to(slopes.dtype), None, None, None


def chunked(
    project: Callable[..., torch.Tensor],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    size: int,
) -> torch.Tensor:
    """Apply `project` to `size` positions at a time; few chunks are kept for the backward pass."""
    if len(hidden) <= size:
        return project(hidden, targets, temperature)
    parts = []
    for start in range(0, len(hidden), size):
        inputs = (hidden[start : start + size], targets[start : start + size], temperature)
        again = torch.is_grad_enabled() and start >= KEPT_CHUNKS * size
        parts.append(
            checkpoint(project, *inputs, use_reentrant=False) if again else project(*inputs)
        )
    return torch.cat(parts)
