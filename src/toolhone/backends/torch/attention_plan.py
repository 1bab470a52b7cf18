"""Which tokens of a prefix forest attend to which.

plan = AttentionPlan.of(Forest.of(rows), device)
for part, mask in plan.masked(window=None, dtype=torch.float32): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from toolhone.backends.torch.forest import Forest
from toolhone.backends.torch.kernels import HIDDEN_SCORE


@dataclass(frozen=True)
class Part:
    """Queries and keys of a forest, as spans; `causal`: the tokens of one node among themselves."""

    queries: slice
    keys: slice
    causal: bool


@dataclass(frozen=True)
class AttentionPlan:
    """The parts of a forest's attention: first each node's own, then those of its descendants.

    `wanted`: the places whose states are asked for, ascending; None: all.
    """

    parts: list[Part]
    positions: torch.Tensor
    wanted: torch.Tensor | None = None
    windows: dict[int, int | None] = field(default_factory=dict)
    """The sliding window that each layer asked for."""
    masks: dict[tuple[int, int, torch.dtype], torch.Tensor | None] = field(default_factory=dict)

    @staticmethod
    def of(
        forest: Forest, device: torch.device, wanted: torch.Tensor | None = None
    ) -> AttentionPlan:
        own = [Part(slice(n.start, n.end), slice(n.start, n.end), True) for n in forest.nodes]
        deeper = [
            Part(slice(node.end, node.stop), slice(node.start, node.end), False)
            for node in forest.nodes
            if node.stop > node.end
        ]
        return AttentionPlan(own + deeper, torch.from_numpy(forest.positions).to(device), wanted)

    def masked(self, window: int | None, dtype: torch.dtype) -> Iterator[tuple[Part, Any]]:
        """The parts, each with its mask [queries, keys] where a sliding window hides keys."""
        for place, part in enumerate(self.parts):
            yield part, self._mask(place, part, window, dtype) if window else None

    def _mask(self, place: int, part: Part, window: int, dtype: torch.dtype) -> torch.Tensor | None:
        key = (place, window, dtype)
        if key not in self.masks:
            near = self.positions[part.queries, None] - self.positions[None, part.keys]
            hidden = near >= window
            if part.causal:
                hidden = hidden | (near < 0)
            far = bool((near >= window).any())
            mask = torch.zeros(near.shape, dtype=dtype, device=near.device)
            low = max(HIDDEN_SCORE, torch.finfo(dtype).min / 2)
            self.masks[key] = mask.masked_fill_(hidden, low) if far else None
        return self.masks[key]
