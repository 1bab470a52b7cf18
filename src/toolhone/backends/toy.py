"""The toy backend: a softmax over hashed contexts, in NumPy, that keeps the whole contract.

    trainer = open_toy(vocab_size=64, seed=0)
    metrics = train_step(trainer, [rows], cross_entropy(), Adam(learning_rate=0.1))

It remembers a few tokens and knows nothing of language. No adapters, no Muon, no micro-batches.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolhone.backends.base import (
    Adam,
    Batch,
    Capabilities,
    Constraint,
    Done,
    Loss,
    Metrics,
    ModelInfo,
    Optimizer,
    Sample,
    SamplingParams,
    StopReason,
    allowed_ids,
    check_prompt,
    pad_rows,
    random_stream,
    sample_all,
)
from toolhone.backends.constraint import compile_grammar
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.toy_policy import NO_TOKEN, Forward, Real, ToyPolicy, ToyShape
from toolhone.errors import CapabilityError, ModelError, RunError
from toolhone.rows import Array, Row, Tokens

FILE = "toy.npz"
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)
"""What reading a damaged file raises."""


class ToySampler:
    """One fixed toy policy (`backends.base.Sampler`)."""

    def __init__(self, policy: ToyPolicy, info: ModelInfo) -> None:
        self._policy, self.info = policy, info
        self.compile_grammar: Callable[[str, Sequence[int]], Constraint] = partial(
            compile_grammar, info.tokenizer
        )

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        return sample_all(self.stream(), prompts, params, keys)

    def stream(self) -> ToyStream:
        return ToyStream(self)

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        if not rows:
            return []
        values = Forward.of(self._policy, rows, temperature).target_logp()
        return [line[: len(row)] for line, row in zip(values, rows, strict=True)]


@dataclass(eq=False)
class _SampleState:
    """One sample in progress. `window`: the last tokens; `limit`: most tokens."""

    window: list[int]
    limit: int
    random: np.random.Generator
    constraint: Constraint | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason = StopReason.LENGTH

    @property
    def ended(self) -> bool:
        return self.reason is StopReason.STOP or len(self.tokens) >= self.limit


class ToyStream:
    """Prompts in any number, each sampled a token at a time (`backends.base.Stream`)."""

    def __init__(self, sampler: ToySampler) -> None:
        self._sampler, self._policy = sampler, sampler._policy
        self._running: dict[int, tuple[SamplingParams, list[_SampleState]]] = {}

    def submit(
        self, key: int, prompt: Tokens, params: SamplingParams, grammar: str | None = None
    ) -> None:
        assert key not in self._running, f"key {key} is queued already"
        shape = self._policy.shape
        check_prompt(prompt)
        if len(prompt) >= shape.max_context:
            raise CapabilityError(
                f"a prompt of {len(prompt)} tokens leaves no room in the model's context of "
                f"{shape.max_context}; "
                f"give at most {shape.max_context - 1} tokens"
            )
        self._policy.check(prompt)
        window = ([NO_TOKEN] * shape.reach + [int(token) for token in prompt])[len(prompt) :]
        limit = min(params.max_tokens, shape.max_context - len(prompt))
        states = []
        for number in range(params.num_samples):
            constraint = None
            if grammar is not None:
                constraint = self._sampler.compile_grammar(grammar, params.stop_ids)
            random = random_stream(params.seed, key, number)
            states.append(_SampleState(window, limit, random, constraint))
        self._running[key] = (params, states)

    def poll(self) -> list[tuple[int, list[Sample]]]:
        while self._running:
            for params in dict.fromkeys(params for params, _ in self._running.values()):
                alike = [states for own, states in self._running.values() if own == params]
                self._advance([one for states in alike for one in states if not one.ended], params)
            ended = [
                key for key, (_, states) in self._running.items() if all(s.ended for s in states)
            ]
            if ended:
                drawn = [(key, self._running.pop(key)[1]) for key in ended]
                return [
                    (key, [Sample(one.tokens, one.logprobs, one.reason) for one in states])
                    for key, states in drawn
                ]
        return []

    def cancel(self, key: int) -> None:
        self._running.pop(key, None)

    def close(self) -> None:
        self._running.clear()

    def _advance(self, states: list[_SampleState], params: SamplingParams) -> None:
        """Sample one token for each."""
        index = self._policy.buckets(np.array([one.window for one in states], dtype=np.int64))
        logp = self._policy.log_softmax(index, params.temperature or 1.0)
        bound = logp
        if any(one.constraint is not None for one in states):
            allowed = allowed_ids([one.constraint for one in states], logp.shape[1])
            bound = np.where(allowed, logp, -np.inf)
            bound = bound - bound.max(axis=1, keepdims=True)
            bound = bound - np.log(np.exp(bound).sum(axis=1, keepdims=True))
        if params.temperature == 0:
            chosen = bound.argmax(axis=1)
        else:
            uniform = np.array([one.random.random() for one in states])
            cumulative = np.cumsum(_truncate(np.exp(bound), params), axis=1)
            targets = np.minimum(uniform * cumulative[:, -1], np.nextafter(cumulative[:, -1], 0.0))
            chosen = (cumulative <= targets[:, None]).sum(axis=1)
        values = logp[np.arange(len(states)), chosen].astype(np.float32)
        for one, token, value in zip(states, chosen.tolist(), values.tolist(), strict=True):
            one.window = [*one.window, token][1:]
            one.tokens.append(token)
            one.logprobs.append(value)
            if one.constraint is not None:
                one.constraint.advance(token)
            if token in params.stop_ids:
                one.reason = StopReason.STOP


def _truncate(probabilities: Real, params: SamplingParams) -> Real:
    """Zero what top-k and top-p (arXiv:1904.09751) cut off, ties to the lower id."""
    if params.top_k <= 0 and params.top_p >= 1:
        return probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    keep = np.cumsum(ordered, axis=1) - ordered < params.top_p
    keep[:, 0] = True
    if params.top_k > 0:
        keep[:, params.top_k :] = False
    result = np.zeros_like(probabilities)
    np.put_along_axis(result, order, ordered * keep, axis=1)
    return result


@dataclass
class _Moments:
    """Adam's state: steps, and the running means of gradient and squared gradient by table."""

    steps: int
    mean: list[Real]
    square: list[Real]

    def step(self, tables: list[Real], gradient: list[Real], adam: Adam) -> None:
        """Change the tables in place by one AdamW step (arXiv:1711.05101)."""
        self.steps += 1
        first, second = 1 - adam.beta1**self.steps, 1 - adam.beta2**self.steps
        each = zip(tables, gradient, self.mean, self.square, strict=True)
        for table, slope, mean, square in each:
            mean += (1 - adam.beta1) * (slope - mean)
            square += (1 - adam.beta2) * (slope * slope - square)
            table *= 1 - adam.learning_rate * adam.weight_decay
            table -= adam.learning_rate * (mean / first) / (np.sqrt(square / second) + adam.eps)


class ToyTrainer:
    """A toy policy that learns (`backends.base.Trainer`)."""

    def __init__(self, policy: ToyPolicy, tokenizer: str = "") -> None:
        context = policy.shape.max_context
        self.info = ModelInfo(policy.shape.vocab_size, context, tokenizer=tokenizer)
        self.can = Capabilities(lora=False, muon=False, max_context=context)
        self._policy = policy
        self._gradient: list[Real] | None = None
        self._moments = _Moments(0, policy.zeros(), policy.zeros())
        self._readers: weakref.WeakSet[ToySampler] = weakref.WeakSet()

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Done[Metrics]:
        """Add the gradient of the loss over these rows, all in one batch."""
        if not rows:
            return Done({"loss": 0.0})
        forward = Forward.of(self._policy, rows, loss.temperature)
        batch = Batch(forward.mask, pad_rows(rows)[2], [row.group for row in rows])
        metrics, dlogp = loss_gradient(loss, forward.target_logp(), batch)
        if self._gradient is None:
            self._gradient = self._policy.zeros()
        dlogits = forward.dlogits(dlogp, loss.temperature)
        for slope, index in zip(self._gradient, forward.index.T, strict=True):
            np.add.at(slope, index, dlogits)
        return Done(metrics)

    def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:
        """One AdamW step; without a gradient nothing changes and `grad_norm` is 0."""
        if not isinstance(optimizer, Adam):
            raise CapabilityError(
                "the toy backend cannot train with Muon; "
                "use Adam here, or the torch backend for Muon"
            )
        if self._gradient is None:
            return Done({"grad_norm": 0.0})
        gradient, self._gradient = self._gradient, None
        norm = float(np.sqrt(sum(np.vdot(slope, slope) for slope in gradient)))
        if 0 < optimizer.clip_norm < norm:
            gradient = [slope * (optimizer.clip_norm / norm) for slope in gradient]
        if self._readers:
            self._move_to(self._policy.copy())
        self._moments.step(self._policy.tables, gradient, optimizer)
        return Done({"grad_norm": norm})

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> Done[list[Array]]:
        return Done(ToySampler(self._policy, self.info).logprobs(rows, temperature))

    def snapshot(self) -> ToySampler:
        """The policy now; its weights are copied at the next `optim_step` if it is still alive."""
        sampler = ToySampler(self._policy, self.info)
        self._readers.add(sampler)
        return sampler

    def save(self, name: str | Path, optimizer: bool = True) -> str:
        """Write one file into the folder `name`, all or nothing."""
        moments = self._moments
        tables = {"table": self._policy.tables}
        if optimizer:
            tables |= {"mean": moments.mean, "square": moments.square}
        settings = {**asdict(self._policy.shape), "steps": moments.steps if optimizer else None}
        arrays: dict[str, Real | NDArray[np.str_]] = {"settings": np.array(json.dumps(settings))}
        arrays |= {f"{kind}{i}": one for kind, own in tables.items() for i, one in enumerate(own)}
        folder = Path(name)
        partial = folder / f".{FILE}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(folder / FILE)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise RunError(
                f"could not save into {folder} ({error.strerror}); "
                "free some space or choose another folder"
            ) from error
        return str(name)

    def load(self, ref: str | Path, optimizer: bool = True) -> None:
        """Take the weights (and Adam's state) that `save` wrote; drop accumulated gradients."""
        folder = Path(ref)
        policy, moments = _read(folder, optimizer)
        if policy.shape != self._policy.shape:
            raise ModelError(
                f"{folder} holds a toy model of another shape: {policy.shape}; "
                f"this one is {self._policy.shape}"
            )
        self._move_to(policy)
        self._moments = moments or self._moments
        self._gradient = None

    def _move_to(self, policy: ToyPolicy) -> None:
        """Leave the present weights to the snapshots that read them."""
        self._policy = policy
        self._readers.clear()


def _read(folder: Path, optimizer: bool) -> tuple[ToyPolicy, _Moments | None]:
    try:
        with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            settings = json.loads(str(stored["settings"]))
            steps = settings.pop("steps")
            shape = ToyShape(**{**settings, "orders": tuple(settings["orders"])})
            if optimizer and steps is None:
                raise ModelError(
                    f"{folder} holds no optimizer state; load it with optimizer=False, "
                    "or save with optimizer=True"
                )
            names = ("table", "mean", "square") if optimizer else ("table",)
            tables = [[stored[f"{name}{i}"] for i in range(len(shape.orders))] for name in names]
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no {FILE}; give a folder that the toy backend has saved"
        ) from None
    except DAMAGED as error:
        raise ModelError(
            f"{folder / FILE} cannot be read as a toy model ({error}); save it again"
        ) from None
    return ToyPolicy(shape, tables[0]), _Moments(steps, tables[1], tables[2]) if optimizer else None


def open_toy(
    vocab_size: int,
    seed: int = 0,
    orders: Sequence[int] = (0, 1, 2, 3),
    buckets: int = 1024,
    max_context: int = 2048,
    tokenizer: str = "",
) -> ToyTrainer:
    """A fresh toy; a table takes 8 * buckets * vocab_size bytes, and Adam's state twice that."""
    if vocab_size < 1 or buckets < 1 or max_context < 2 or not orders or min(orders) < 0:
        raise ModelError(
            "a toy model needs vocab_size and buckets of at least 1, max_context of at least 2 "
            "and orders that are not negative; "
            f"got vocab_size={vocab_size}, buckets={buckets}, max_context={max_context}, "
            f"orders={tuple(orders)}"
        )
    return ToyTrainer(
        ToyPolicy.fresh(ToyShape(vocab_size, tuple(orders), buckets, max_context), seed), tokenizer
    )


def open_sampler(folder: Path) -> ToySampler:
    """A sampler for the weights that `ToyTrainer.save` wrote."""
    return ToyTrainer(_read(folder, optimizer=False)[0]).snapshot()
