"""Activation checkpointing: layers run again in the backward pass, without their products.

    room = checkpoint_layers(model)             # once, when the model is opened
    (out,) = kept_result(lambda: (x @ w.T,))    # in an autograd function of a layer

A layer that runs again takes the results that `kept_result` stored in its first pass: the outputs
of attention always, those of linear layers with adapters while there is room (`kept_bytes`). The
norms, products of gates and rotations between them cost little. The bits are the same.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from toolhone.backends.torch.device import kept_bytes, trim_heap

TRIMMED = 5
"""Checkpointed layers after which a heap gives freed memory back."""
Results = tuple[torch.Tensor, ...]


class Room:
    """Bytes that are free for results; layers of several threads take from it."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._lock = threading.RLock()  # a collector may free a layer anywhere

    def take(self, size: int) -> bool:
        """Take so many bytes, if they are there."""
        with self._lock:
            fits = size <= 0 or size <= min(self.free, self.size)
            self.free -= size if fits else 0
        return fits

    def close(self) -> bool:
        """Give nothing away from now on; whether there was anything to give."""
        before, self.size = self.size, 0
        return before > 0


class LayerPass:
    """A layer's pass forward and the one that repeats it: kept results in their order."""

    def __init__(self, room: Room) -> None:
        self.room, self.taken = room, 0
        self.results: list[tuple[Results, list[int]] | None] = []
        self.runs, self.at = 0, 0

    def __call__(self, function: Callable[..., Any], *inputs: Any) -> Any:
        self.runs, self.at = self.runs + 1, 0
        before, CURRENT.layer = CURRENT.layer, self
        try:
            return function(*inputs)
        finally:
            CURRENT.layer = before
            if self.runs > 1:
                self.forget()

    def result(self, compute: Callable[[], Results], always: bool) -> Results:
        if self.runs > 1:
            found = self.results[self.at] if self.at < len(self.results) else None
            self.at += 1
            # computed again: what had no room, or was changed in place since
            if found is None or [one._version for one in found[0]] != found[1]:
                return compute()
            return tuple(one.detach() for one in found[0])
        made = compute()
        size = 0 if always else sum(one.nbytes for one in made)
        fits = self.room.take(size)
        self.taken += size if fits else 0
        views = tuple(one.detach() for one in made)
        self.results.append((views, [one._version for one in views]) if fits else None)
        return made

    def forget(self) -> None:
        self.room.take(-self.taken)
        self.results, self.taken = [], 0

    def __del__(self) -> None:  # where no backward pass came
        self.forget()


class Current(threading.local):
    """The checkpointed layer that runs in this thread."""

    layer: LayerPass | None = None


CURRENT = Current()


def kept_result(compute: Callable[[], Results], always: bool = False) -> Results:
    """Results that a checkpointed layer keeps; `compute` runs outside of one, or without room.

    always: whatever room is left.
    """
    layer = CURRENT.layer
    return compute() if layer is None else layer.result(compute, always)


def checkpoint_layers(model: Any) -> Room:
    """Recompute a transformers model's layers in the backward pass; returns what they share."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    # transformers 5 renamed the method
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    calls, room = itertools.count(), Room(kept_bytes(model.device))

    def run(function: Callable[..., Any], *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*inputs)
        layer = LayerPass(room)

        def one_pass(*given: Any) -> Any:
            if next(calls) % TRIMMED == 0:
                trim_heap(model.device)
            return layer(function, *given)

        return checkpoint(one_pass, *inputs, use_reentrant=False)

    for part in model.modules():
        if isinstance(part, GradientCheckpointingLayer):
            part._gradient_checkpointing_func = run
    return room
