"""`TorchOps`: the array functions a loss may use (`backends.base.Ops`), for torch. Scalars are allowed everywhere."""

from __future__ import annotations

from typing import Any

import torch


class TorchOps:
    def exp(self, x: Any) -> Any:
        return torch.exp(x)

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        return torch.clamp(x, low, high)

    def minimum(self, x: Any, y: Any) -> Any:
        return torch.minimum(*_same(x, y))

    def maximum(self, x: Any, y: Any) -> Any:
        return torch.maximum(*_same(x, y))

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return torch.where(condition, x, y)

    def logaddexp(self, x: Any, y: Any) -> Any:
        return torch.logaddexp(*_same(x, y))

    def sum(self, x: Any, axis: int | None = None) -> Any:
        return x.sum() if axis is None else x.sum(dim=axis)

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()


def _same(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    like = x if isinstance(x, torch.Tensor) else y
    return torch.as_tensor(x, dtype=like.dtype, device=like.device), torch.as_tensor(
        y, dtype=like.dtype, device=like.device
    )
