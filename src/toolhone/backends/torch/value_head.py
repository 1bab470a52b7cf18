"""What a value head of torch reads: the policy's hidden state at the last token of a prompt.

    head = trainer.critic("value_head")
    inputs = head.inputs(prompts)                        # float32 [prompts, width + 1]

No gradient goes into the policy. Prompts that begin with another prompt share
its forward pass. The head's weights are those of `training.critic`; a critic with a backbone of its
own is not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.forest import Forest, split
from toolhone.rows import Array, Row, Tokens, micro_batches


class TorchValueHead:
    def __init__(self, engine: Engine) -> None:
        assert engine.split, "a value head needs a model that can be split before its own head"
        self._engine = engine
        self.width = int(engine.model.get_output_embeddings().weight.shape[1]) + 1

    def inputs(self, prompts: Sequence[Tokens]) -> Array:
        """float32 [prompts, width]: normalised states after each prompt, and a 1."""
        engine = self._engine
        engine.set_learning(False)
        engine.check_length(max(map(len, prompts), default=0))
        states = torch.zeros((len(prompts), self.width - 1), device=engine.device)
        with torch.no_grad():
            for places, found in (
                self._forest(prompts) if engine.shares_prefixes else self._padded(prompts)
            ):
                states[places] = found.float()
        states = torch.nn.functional.normalize(states - states.mean(dim=1, keepdim=True), dim=1)
        inputs: Array = torch.cat([states, torch.ones_like(states[:, :1])], dim=1).cpu().numpy()
        return inputs

    def _forest(self, prompts: Sequence[Tokens]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Some of the prompts, and the states after them, until all were there."""
        ids = [np.asarray(prompt, np.int64) for prompt in prompts]
        for batch in split(ids, self._engine.micro_batch_tokens, [None] * len(ids)):
            forest = Forest.of([ids[i] for i in batch])
            ends = np.array([places[-1] for places in forest.places])
            yield batch, self._engine.forest_states(forest, ends)

    def _padded(self, prompts: Sequence[Tokens]) -> Iterator[tuple[list[int], torch.Tensor]]:
        engine = self._engine
        hosts, rows = shared_passes(prompts)
        guests: list[list[int]] = [[] for _ in rows]
        for guest, host in enumerate(hosts):
            guests[host].append(guest)
        empty = [Row.of(row, [False] * len(row)) for row in rows]
        for batch in micro_batches(empty, engine.micro_batch_tokens):
            with engine.autocast():
                hidden = engine.trunk(_padded_ids([rows[i] for i in batch]).to(engine.device))
            for line, i in enumerate(batch):
                yield guests[i], hidden[line, [len(prompts[guest]) - 1 for guest in guests[i]]]


def shared_passes(prompts: Sequence[Tokens]) -> tuple[list[int], list[tuple[int, ...]]]:
    """The row that each prompt is a prefix of, and those rows, none a prefix of another."""
    order = sorted({tuple(prompt) for prompt in prompts})
    rows: list[tuple[int, ...]] = []
    host: dict[tuple[int, ...], int] = {}
    for prompt in reversed(order):  # what begins with a prompt stands right behind it
        if not rows or rows[-1][: len(prompt)] != prompt:
            rows.append(prompt)
        host[prompt] = len(rows) - 1
    return [host[tuple(prompt)] for prompt in prompts], rows


def _padded_ids(rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """int64 [rows, longest], padded with 0 on the right, where a causal model does not look."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
