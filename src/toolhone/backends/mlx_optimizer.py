"""Optimizer steps of the MLX backend, equal to torch's: AdamW, Muon, clipping, skipped steps.

state = MlxOptimizer(engine)
weights, metrics = state.step(weights, gradient, Adam(learning_rate=1e-4))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from toolhone.backends.base import Adam, Metrics, Muon, Optimizer
from toolhone.backends.mlx_engine import Weights
from toolhone.errors import ModelError

FILE = "optimizer.safetensors"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS, MUON_EPS = 5, 1e-7
"""torch.optim.Muon's own numbers."""


class MlxOptimizer:
    """The state of AdamW, or of Muon on the matrices with AdamW on the rest."""

    def __init__(self, outer: frozenset[str] = frozenset()) -> None:
        """outer: matrices that Muon leaves to AdamW, the embedding and the head."""
        self._outer = outer
        self._kind = ""
        self._steps = 0
        self._state: dict[str, Weights] = {}

    def step(
        self, weights: Weights, gradient: Weights | None, optimizer: Optimizer
    ) -> tuple[Weights, Metrics]:
        """New weights; `grad_norm` is taken before clipping, a gradient not finite is skipped."""
        if gradient is None:
            return weights, {"grad_norm": 0.0, "skipped": 1.0}
        if self._kind != type(optimizer).__name__:
            self._kind, self._steps, self._state = type(optimizer).__name__, 0, {}
        norms = mx.stack([mx.linalg.norm(slope.reshape(-1)) for slope in gradient.values()])
        norm, limit = float(mx.linalg.norm(norms)), optimizer.clip_norm
        if not mx.isfinite(mx.array(norm)):
            return weights, {"grad_norm": norm, "skipped": 1.0}
        if 0 < limit < norm:
            gradient = {name: slope * (limit / (norm + 1e-6)) for name, slope in gradient.items()}
        self._steps += 1
        weights = {
            name: self._moved(name, value, gradient[name], optimizer)
            for name, value in weights.items()
        }
        mx.eval(weights, self._state)
        return weights, {"grad_norm": norm, "skipped": 0.0}

    def _moved(self, name: str, value: Any, slope: Any, optimizer: Optimizer) -> Any:
        if isinstance(optimizer, Adam):
            return self._adam(name, value, slope, optimizer)
        if value.ndim != 2 or name in self._outer:
            return self._adam(name, value, slope, optimizer.adam)
        return self._muon(name, value, slope, optimizer)

    def _mean(self, kind: str, name: str, value: Any, decay: float) -> Any:
        """The running mean of this kind, moved towards a value."""
        means = self._state.setdefault(kind, {})
        before = means.get(name, mx.zeros_like(value))
        means[name] = before + (1 - decay) * (value - before)
        return means[name]

    def _adam(self, name: str, value: Any, slope: Any, adam: Adam) -> Any:
        """AdamW with bias correction (arXiv:1711.05101)."""
        mean = self._mean("mean", name, slope, adam.beta1)
        square = self._mean("square", name, slope * slope, adam.beta2)
        first, second = 1 - adam.beta1**self._steps, 1 - adam.beta2**self._steps
        value = value * (1 - adam.learning_rate * adam.weight_decay)
        root = mx.sqrt(square) / second**0.5 + adam.eps
        return value - adam.learning_rate / first * mean / root

    def _muon(self, name: str, value: Any, slope: Any, muon: Muon) -> Any:
        """Muon with Nesterov momentum (kellerjordan.github.io/posts/muon)."""
        mean = self._mean("momentum", name, slope, muon.momentum)
        update = orthogonal(slope + muon.momentum * (mean - slope))
        scale = max(1, value.shape[0] / value.shape[1]) ** 0.5
        value = value * (1 - muon.learning_rate * muon.weight_decay)
        return value - muon.learning_rate * scale * update

    def save(self, folder: Path, passes: int) -> None:
        """Write the state, and how many passes were made, into an existing folder."""
        arrays = {f"{kind}/{n}": v for kind, own in self._state.items() for n, v in own.items()}
        numbers = {"kind": self._kind, "steps": str(self._steps), "passes": str(passes)}
        mx.save_safetensors(str(folder / FILE), arrays or {"none": mx.zeros(1)}, numbers)

    def load(self, folder: Path) -> int:
        """Take the state that `save` wrote; returns the passes."""
        try:
            stored: Any = mx.load(str(folder / FILE), return_metadata=True)
            arrays, numbers = stored
            self._kind, self._steps = numbers["kind"], int(numbers["steps"])
            passes = int(numbers["passes"])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder / FILE} is damaged ({' '.join(str(error).split())[:100]}); "
                "resume from another checkpoint"
            ) from None
        self._state = {}
        for key, value in arrays.items():
            kind, _, name = key.partition("/")
            if name:
                self._state.setdefault(kind, {})[name] = value
        mx.eval(self._state)
        return passes


def orthogonal(matrix: Any) -> Any:
    """`backends.torch.optimizer.orthogonalise`, in MLX: float32 Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / mx.maximum(mx.linalg.norm(x), MUON_EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x
