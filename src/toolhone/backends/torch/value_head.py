"""A value head: one linear layer on the policy's hidden state at the last token of a prompt, for the critic of PPO.

    head = trainer.critic("value_head")
    values = head.predict(prompts)                       # float32 [prompts]
    head.fit(prompts, returns, values, clip=0.2)

The hidden state is that of the policy as it is now, brought to mean 0 and variance 1 over its width; no gradient goes into the
policy. Prompts that begin with another prompt share its forward pass. A fit takes `PASSES` AdamW steps over all prompts on PPO's
clipped value loss. A head larger than one layer is not worth its memory here, and a critic with a backbone of its own is not here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from toolhone.backends.torch.engine import Engine
from toolhone.errors import RunError
from toolhone.rows import Array, Row, Tokens, micro_batches

PASSES = 24
RATE = 0.05
"""AdamW's learning rate; inputs are divided by the width, so that it is right for any model: a guess moves by it at most."""


class TorchValueHead:
    def __init__(self, engine: Engine) -> None:
        assert engine.head.split, "a value head needs a model that can be cut before its own head"
        self._engine = engine
        self._width = int(engine.model.get_output_embeddings().weight.shape[1])
        self._weights = torch.zeros(self._width + 1, device=engine.device, requires_grad=True)
        self._moments = [torch.zeros_like(self._weights.detach()) for _ in range(2)]
        self._steps = 0

    def predict(self, prompts: Sequence[Tokens]) -> Array:
        if not prompts:
            return np.zeros(0, np.float32)
        with torch.no_grad():
            values: Array = (self._inputs(prompts) @ self._weights).cpu().numpy()
        return values

    def fit(self, prompts: Sequence[Tokens], returns: Array, old: Array, clip: float | None) -> None:
        inputs = self._inputs(prompts)
        wanted, before = (torch.from_numpy(values).to(self._engine.device) for values in (returns, old))
        for _ in range(PASSES):
            loss = clipped_value_loss(inputs @ self._weights, wanted, before, clip)
            (gradient,) = torch.autograd.grad(loss, [self._weights])
            self._step(gradient)

    def _step(self, gradient: torch.Tensor) -> None:
        """One step of Adam (Kingma & Ba 2015, arXiv:1412.6980) with betas 0.9 and 0.95."""
        self._steps += 1
        mean, square = self._moments
        with torch.no_grad():
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient * gradient, 0.05)
            corrected, spread = mean / (1 - 0.9**self._steps), square / (1 - 0.95**self._steps)
            self._weights -= RATE * corrected / (spread.sqrt() + 1e-8)

    def _inputs(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """float32 [prompts, width + 1]: hidden states after each prompt, and a 1."""
        hosts, rows = shared_passes(prompts)
        engine = self._engine
        engine.learning(False)
        engine.check_length(max(map(len, rows)))
        states = torch.zeros((len(prompts), self._width), device=engine.device)
        guests: dict[int, list[int]] = {}
        for guest, host in enumerate(hosts):
            guests.setdefault(host, []).append(guest)
        with torch.no_grad(), engine.one_thread_if_small(), engine.autocast():
            empty = [Row.of(row, [False] * len(row)) for row in rows]
            for batch in micro_batches(empty, engine.options.micro_batch_tokens):
                hidden = engine.head.trunk(_padded([rows[i] for i in batch]).to(engine.device))
                for line, i in enumerate(batch):
                    for guest in guests[i]:
                        states[guest] = hidden[line, len(prompts[guest]) - 1].float()
        normal = torch.nn.functional.layer_norm(states, (self._width,)) / self._width
        return torch.cat([normal, torch.ones_like(normal[:, :1])], dim=1)

    def state(self) -> dict[str, Any]:
        packed = torch.stack([self._weights.detach(), *self._moments]).cpu().numpy().astype("<f4")
        return {"width": self._width, "steps": self._steps, "float32": base64.b64encode(packed.tobytes()).decode()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["width"] != self._width:
            raise RunError(
                f"the checkpoint's value head is {state['width']} wide, the model {self._width}; resume with the run's own"
            )
        packed = np.frombuffer(base64.b64decode(state["float32"]), "<f4").reshape(3, self._width + 1).astype(np.float32)
        weights, mean, square = (values.to(self._engine.device) for values in torch.from_numpy(packed.copy()))
        self._weights, self._moments, self._steps = weights.clone().requires_grad_(), [mean.clone(), square.clone()], state["steps"]


def clipped_value_loss(values: torch.Tensor, returns: torch.Tensor, old: torch.Tensor, clip: float | None) -> torch.Tensor:
    """The mean over turns of max((v - R)^2, (old + clamp(v - old, -clip, clip) - R)^2); float32 [turns] each."""
    free = (values - returns) ** 2
    if clip is None:
        return free.mean()
    return torch.maximum(free, (old + (values - old).clamp(-clip, clip) - returns) ** 2).mean()


def shared_passes(prompts: Sequence[Tokens]) -> tuple[list[int], list[tuple[int, ...]]]:
    """For each prompt, the number of the row that it is the beginning of; and the rows, which no other begins with."""
    order = sorted({tuple(prompt) for prompt in prompts})
    rows: list[tuple[int, ...]] = []
    host: dict[tuple[int, ...], int] = {}
    for prompt in reversed(order):  # what begins with a prompt stands right behind it
        if not rows or rows[-1][: len(prompt)] != prompt:
            rows.append(prompt)
        host[prompt] = len(rows) - 1
    return [host[tuple(prompt)] for prompt in prompts], rows


def _padded(rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """int64 [rows, longest], padded with 0 on the right, where a causal model does not look."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
