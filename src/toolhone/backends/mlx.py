"""`MlxTrainer`: trains mlx-lm's models, in full or by LoRA, on Apple silicon and on Linux.

    trainer = open_trainer("path/to/model", lora=Lora(rank=16), options=EngineOptions())
    metrics = train_step(trainer, [rows], cross_entropy(), Adam(learning_rate=1e-4))

On disk as with the torch backend: a transformers folder, or a PEFT folder with LoRA; beside it
`optimizer.safetensors` for resuming.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from toolhone.backends.base import (
    Adam,
    Batch,
    Capabilities,
    Done,
    Lora,
    Loss,
    Metrics,
    Muon,
    Ops,
    Optimizer,
    pad_rows,
)
from toolhone.backends.mlx_engine import MlxEngine, Weights, open_mlx
from toolhone.backends.mlx_stream import MlxSampler
from toolhone.backends.torch.engine import EngineOptions
from toolhone.errors import ModelError
from toolhone.rows import Array, Row, micro_batches
from toolhone.runs.run import whole_folder

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


MLX_OPS = Ops(
    exp=mx.exp,
    clip=mx.clip,
    minimum=mx.minimum,
    maximum=mx.maximum,
    where=mx.where,
    logaddexp=mx.logaddexp,
    sum=mx.sum,
    stop_gradient=mx.stop_gradient,
)
OUTER = frozenset({"model.embed_tokens.weight", "lm_head.weight"})
"""Matrices that Muon leaves to AdamW."""


class MlxTrainer:
    """`weights` are the trained ones as they are now; a step makes new arrays."""

    def __init__(self, engine: MlxEngine) -> None:
        self.engine, self.info = engine, engine.info
        self.can = Capabilities(full_training=not engine.quantised, max_context=engine.max_context)
        self.weights: Weights = engine.start
        self._gradient: Weights | None = None
        self._optimizer = MlxOptimizer(OUTER)
        self._passes = 0

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Done[Metrics]:
        """Accumulate gradients over micro-batches of similar lengths."""
        engine, limit = self.engine, self.engine.micro_batch_tokens
        engine.check_length(max(map(len, rows), default=0))
        drops = loss.dropout and engine.lora is not None and engine.lora.dropout > 0
        self._passes += 1
        key = mx.random.key((engine.options.seed << 20) + self._passes)
        totals: Metrics = {"loss": 0.0}
        for batch in micro_batches(rows, limit, loss.whole_groups):
            key, own = mx.random.split(key)
            engine.set_dropout(own if drops else None)
            for name, value in self._pass([rows[i] for i in batch], loss, drops).items():
                totals[name] = totals.get(name, 0.0) + value
        engine.set_dropout(None)
        return Done(totals)

    def _pass(self, rows: Sequence[Row], loss: Loss, drops: bool) -> Metrics:
        """Add the gradient of one micro-batch; its metrics."""
        _, mask, arrays = pad_rows(rows)
        values = {name: mx.array(array) for name, array in arrays.items()}
        batch = Batch(mx.array(mask), values, [row.group for row in rows])

        def total(weights: Weights) -> tuple[Any, dict[str, Any]]:
            logp = self.engine.logprobs(rows, loss.temperature, weights, drops)
            value, metrics = loss.fn(MLX_OPS, logp, batch)
            return mx.array(value), {name: mx.array(one) for name, one in metrics.items()}

        if mask.any():
            (value, metrics), gradient = mx.value_and_grad(total)(self.weights)
            if self._gradient is not None:
                gradient = {name: self._gradient[name] + slope for name, slope in gradient.items()}
            self._gradient = gradient
        else:
            value, metrics = total(self.weights)
        mx.eval(value, metrics, self._gradient)
        self.engine.put(self.weights)  # in place of what was differentiated
        return {"loss": float(value), **{name: float(one) for name, one in metrics.items()}}

    def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:
        gradient, self._gradient = self._gradient, None
        self.weights, metrics = self._optimizer.step(self.weights, gradient, optimizer)
        return Done(metrics)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Done[list[Array]]:
        return Done(self.snapshot().logprobs(rows, temperature))

    def snapshot(self) -> MlxSampler:
        """The policy now: it holds the arrays that the next step replaces."""
        return MlxSampler(self.engine, self.weights)

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Write into the folder `name`, all or nothing; an existing folder is replaced."""
        with whole_folder(Path(name)) as partial:
            if self.engine.lora:
                self.engine.write_adapter(partial, self.weights)
            else:
                self.engine.write_model(partial, self.weights)
            if optimizer:
                self._optimizer.save(partial, self._passes)
        return str(name)

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights of the folder `ref`; accumulated gradients are dropped."""
        folder = Path(ref)
        if optimizer and not (folder / FILE).is_file():
            raise ModelError(
                f"{folder} holds no {FILE}; "
                "only a checkpoint that this backend saved with its optimizer can be resumed from"
            )
        weights = self.engine.read(folder)
        if optimizer:
            self._passes = self._optimizer.load(folder)
        self.weights, self._gradient = weights, None


def open_trainer(
    model: str | Path,
    lora: Lora | None = None,
    options: EngineOptions | None = None,
    adapter: Path | None = None,
) -> MlxTrainer:
    """A trainer for a model folder or hub name; `adapter` is a PEFT folder to start from."""
    return MlxTrainer(open_mlx(model, options or EngineOptions(), lora, adapter))


def open_sampler(
    ref: str | Path, options: EngineOptions | None = None, adapter: Path | None = None
) -> MlxSampler:
    """A sampler for a model folder, a hub name (with a PEFT folder `adapter`), or a PEFT folder."""
    engine = open_mlx(ref, options or EngineOptions(), adapter=adapter, learns=False)
    return MlxSampler(engine, engine.start)
