"""dL/dlogp of a loss, from torch autograd on the log-probabilities alone.

    metrics, dlogp = loss_gradient(loss, logp, batch)

For backends that do not differentiate losses themselves (the toy, a remote service): they compute
the log-probabilities their own way and carry dL/dlogp on to their weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from toolhone.backends.base import Batch, Loss, Metrics
from toolhone.backends.torch.trainer import TORCH_OPS
from toolhone.rows import Array


def loss_gradient(loss: Loss, logp: Array, batch: Batch) -> tuple[Metrics, Array]:
    """The value of a loss and its derivative by the log-probabilities.

    `logp` and all arrays of `batch` are NumPy [rows, tokens]. Returns the metrics (sums) and
    dL/dlogp, float32 [rows, tokens]; zeros where the loss does not depend on `logp`.
    """
    leaf = torch.tensor(logp, requires_grad=True)
    total, metrics = loss_value(loss, leaf, batch)
    slope = None
    if isinstance(total, torch.Tensor) and total.requires_grad:
        (slope,) = torch.autograd.grad(total, leaf, allow_unused=True)
    return metrics, np.zeros_like(logp) if slope is None else slope.numpy()


def loss_value(loss: Loss, logp: torch.Tensor, batch: Batch) -> tuple[Any, Metrics]:
    """The value of a loss, to be differentiated by `logp`, and its metrics as numbers."""
    arrays = {name: torch.tensor(values) for name, values in batch.arrays.items()}
    total, metrics = loss.fn(TORCH_OPS, logp, Batch(torch.tensor(batch.mask), arrays, batch.groups))
    return total, {
        name: float(value.detach()) if isinstance(value, torch.Tensor) else float(value)
        for name, value in {"loss": total, **metrics}.items()
    }
