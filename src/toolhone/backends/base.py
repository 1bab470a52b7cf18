"""The seam: two protocols, `Sampler` and `Trainer`, that every training method is written against.

All per-token arrays are as long as `tokens`; entry t speaks of predicting token t; only backends
shift. Losses and metrics are sums, so two half batches equal one. Every optimiser number is passed
on every step. A backend refuses what it cannot do with `CapabilityError`. `toy.py` and `torch/`
implement the protocols; `tests/contracts/test_backends.py` holds their rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from toolhone.errors import CapabilityError, ConfigError
from toolhone.rows import Array, Row, Tokens

Metrics = dict[str, float]
T = TypeVar("T")


class StopReason(StrEnum):
    STOP = "stop"
    """A stop id was sampled; it is the last token."""
    LENGTH = "length"
    """`max_tokens` were sampled, or the context is full."""


class Constraint(Protocol):
    """What one sample may consist of."""

    def allowed(self) -> NDArray[np.bool_]:
        """bool [ids]: which ids may come next, at least one; ids beyond its end may not."""

    def advance(self, token: int) -> None:
        """Take the id that was sampled."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    The random stream of sample j of the prompt with key k depends on (`seed`, k, j) alone.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()
    num_samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.num_samples < 1:
            raise ConfigError(
                "max_tokens and num_samples must be 1 or more, "
                f"got {self.max_tokens} and {self.num_samples}"
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            seen = f"{self.temperature}, {self.top_p} and {self.top_k}"
            raise ConfigError(f"wanted temperature >= 0, 0 < top_p <= 1 and top_k >= 0, got {seen}")


def check_unconstrained(params: SamplingParams, method: str, grammar: bool = False) -> None:
    """Refuse sampling that does not follow the log-probabilities that a method learns from."""
    cut = {"top_p": params.top_p < 1, "top_k": params.top_k > 0}
    for what, is_used in {"a grammar (constrained calls)": grammar, **cut}.items():
        if is_used:
            raise CapabilityError(
                f"{method} learns from the log-probabilities of its samples, and with {what} "
                "they are not those of the policy; "
                "sample without it in training, and use it in evaluation"
            )


@dataclass(frozen=True)
class Sample:
    """Token ids, the stop id included, and their log-probabilities before truncation."""

    tokens: list[int]
    logprobs: list[float]
    stop_reason: StopReason


@dataclass(frozen=True)
class Ops:
    """The few array functions that a loss may use besides + - * / and comparisons.

    Scalars are allowed everywhere: `clip(x, low, high)`, `where(condition, x, y)`, `sum(x, axis)`.
    """

    exp: Callable[[Any], Any]
    clip: Callable[[Any, Any, Any], Any]
    minimum: Callable[[Any, Any], Any]
    maximum: Callable[[Any, Any], Any]
    where: Callable[[Any, Any, Any], Any]
    logaddexp: Callable[[Any, Any], Any]
    sum: Callable[..., Any]
    stop_gradient: Callable[[Any], Any]


@dataclass(frozen=True)
class Batch:
    """A micro-batch as a loss sees it: arrays [rows, tokens], right-padded with 0 (mask False)."""

    mask: Any
    arrays: Mapping[str, Any]
    groups: Sequence[str | None] = ()

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]


LossFunction = Callable[[Ops, Any, Batch], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Loss:
    """A loss: `fn(ops, logp, batch) -> (sum, metrics)`; `logp` is float32 [rows, tokens].

    `config` holds its numbers. `temperature` divides the logits, as when the rows were sampled.
    `whole_groups`: the loss compares rows of a group, so a backend must never split one.
    `dropout`: the loss compares log-probabilities with no others, so LoRA dropout may be on.
    """

    name: str
    fn: LossFunction
    config: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    whole_groups: bool = False
    dropout: bool = False


@dataclass(frozen=True)
class Adam:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101). `clip_norm` 0 is off."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Muon:
    """Muon on matrices (Jordan 2024, kellerjordan.github.io/posts/muon), `adam` on the rest."""

    learning_rate: float
    adam: Adam
    momentum: float = 0.95
    weight_decay: float = 0.0
    clip_norm: float = 1.0


Optimizer = Adam | Muon


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): W + alpha / rank * B A.

    `target_modules`: last parts of module names; empty means every linear layer but the head,
    which learns where it is named.
    `last_layers` 0 means all layers.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    last_layers: int = 0
    target_modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """The model of a sampler or trainer. `max_context` 0 is unbounded; `tokenizer`: a name.

    `micro_batch_tokens`: tokens of one forward pass, 0 where a backend does not split so.
    `note`: a sentence on what this backend cannot do with this model, empty where there is nothing.
    """

    vocab_size: int
    max_context: int = 0
    has_adapter: bool = False
    tokenizer: str = ""
    micro_batch_tokens: int = 0
    note: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a trainer can do; `open.check_plan` refuses the rest at the start."""

    full_training: bool = True
    lora: bool = True
    muon: bool = True
    temperature: bool = True
    custom_loss: bool = True
    grammar: bool = True
    value_head: bool = False
    max_context: int = 0
    repeatable: bool = True
    """Whether equal rows in equal order have equal log-probabilities, to the bit."""
    fixed: tuple[str, ...] = ()
    """Keys of the experiment that the backend decides by itself."""
    absent: tuple[str, ...] = ()
    """Keys of which it knows the default alone."""


class Pending(Protocol[T]):  # type: ignore[misc]
    """A handle on work that may still run. Local backends return it done."""

    def result(self) -> T: ...


@dataclass(frozen=True)
class Done(Generic[T]):
    """Work that is done already."""

    value: T

    def result(self) -> T:
        return self.value


class Stream(Protocol):
    """Sampling without a barrier: prompts join while others run, and leave when they finish."""

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        """Queue one prompt; `key` names it in `poll` and names its random stream.

        No token is sampled that `grammar` (Lark text for llguidance) forbids; top-k and top-p count
        what it allows.
        """

    def poll(self) -> list[tuple[int, list[Sample]]]:
        """Work until a prompt finishes; returns all that have, and [] only when none is left."""

    def cancel(self, key: int) -> None:
        """Drop a prompt, waiting or running; its key is free again. Unknown keys are ignored."""

    def close(self) -> None:
        """Drop all prompts."""


class Sampler(Protocol):
    """One fixed policy."""

    info: ModelInfo

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        """`params.num_samples` samples for each prompt; distinct `keys` name the random streams."""

    def stream(self) -> Stream: ...

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        """float32 [T] for each row: log p of token t where masked, 0 elsewhere. May be refused."""


@runtime_checkable
class WeightSampler(Sampler, Protocol):
    """A sampler whose weights can be written for other programs."""

    def write_merged(self, folder: Path) -> None:
        """Write a plain transformers model into an existing folder."""

    def write_adapter(self, folder: Path) -> None:
        """Write a PEFT adapter into an existing folder. `CapabilityError` where there is none."""


class Trainer(Protocol):
    """A policy that learns; gradients accumulate until `optim_step`."""

    info: ModelInfo
    can: Capabilities

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Pending[Metrics]:
        """Add the gradient of the loss. Metrics: `loss` and the loss's own, as sums."""

    def optim_step(self, optimizer: Optimizer) -> Pending[Metrics]:
        """Apply and clear the gradient. Metrics: `grad_norm` unclipped, `skipped` (not finite)."""

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Pending[list[Array]]:
        """float32 [T] for each row, by the policy as it is now: as `Sampler.logprobs`."""

    def snapshot(self) -> Sampler:
        """The policy now. It does not move when training continues, nor change the trainer."""

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Save weights (and optimizer state) as `name`, all or nothing; returns the reference.

        A local backend takes `name` as a folder and returns it; a service returns its own URI.
        """

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights (and the optimizer's state) of a reference that `save` returned."""


def train_step(
    trainer: Trainer, batches: Sequence[Sequence[Row]], loss: Loss, optimizer: Optimizer
) -> Metrics:
    """Train on all batches in one optimizer step; submit everything before waiting for any result.

    Returns the sums over the batches and the metrics of the optimizer step.
    """
    passes = [trainer.forward_backward(rows, loss) for rows in batches]
    step = trainer.optim_step(optimizer)
    totals: Metrics = {}
    for pending in passes:
        for name, value in pending.result().items():
            totals[name] = totals.get(name, 0.0) + value
    return totals | step.result()


class ValueHead(Protocol):
    """The features of a linear value head: the policy's state after a prompt."""

    width: int

    def inputs(self, prompts: Sequence[Tokens]) -> Array:
        """float32 [prompts, width], by the policy as it is now."""


class HeadTrainer(Trainer, Protocol):
    """A trainer with `Capabilities.value_head`."""

    def critic(self, kind: str) -> ValueHead:
        """`kind` is "value_head"."""


def check_prompt(prompt: Tokens) -> None:
    """Refuse a prompt without a token."""
    if len(prompt) == 0:
        raise CapabilityError("an empty prompt cannot be sampled from; it needs at least one token")


def sample_all(
    stream: Stream,
    prompts: Sequence[Tokens],
    params: SamplingParams,
    keys: Sequence[int] | None = None,
) -> list[list[Sample]]:
    """`Sampler.sample` by a stream."""
    keys = range(len(prompts)) if keys is None else keys
    for key, prompt in zip(keys, prompts, strict=True):
        stream.submit(key, prompt, params)
    results: dict[int, list[Sample]] = {}
    while len(results) < len(prompts):
        results.update(stream.poll())
    return [results[key] for key in keys]


def allowed_ids(constraints: Sequence[Constraint | None], vocabulary: int) -> NDArray[np.bool_]:
    """bool [rows, vocabulary]: what each row's constraint allows; any id without one."""
    mask = np.ones((len(constraints), vocabulary), dtype=bool)
    for line, constraint in zip(mask, constraints, strict=True):
        if constraint is not None:
            allowed = constraint.allowed()[:vocabulary]
            line[: len(allowed)] = allowed
            line[len(allowed) :] = False
    return mask


def random_stream(seed: int, *path: int) -> np.random.Generator:
    """The random stream of one place in a run: a function of seed and path (step, row, ...)."""
    words = [word & 0xFFFFFFFF for word in (seed, *path)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def pad_rows(
    rows: Sequence[Row], width: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], dict[str, Array]]:
    """Right-pad rows to arrays [rows, width]: tokens, mask, and each named array (0 if missing).

    A scalar of a row is broadcast over the row's tokens.
    """
    width = width or max(len(row) for row in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    names = sorted({name for row in rows for name in row.arrays})
    arrays = {name: np.zeros((len(rows), width), dtype=np.float32) for name in names}
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row.tokens
        mask[i, : len(row)] = row.mask
        for name, values in row.arrays.items():
            arrays[name][i, : len(row)] = values
    return tokens, mask, arrays
