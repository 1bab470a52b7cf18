"""What a value head of torch reads: the policy's hidden state at the last token of a prompt.

    head = trainer.critic("value_head")
    inputs = head.inputs(prompts)                        # float32 [prompts, width + 1]

No gradient goes into the policy. Prompts that begin with another prompt share
its forward pass. The head's weights are those of `training.critic`; a critic with a backbone of its
own is not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from toolhone.backends.torch.engine import Engine
from toolhone.rows import Array, Row, Tokens, micro_batches


class TorchValueHead:
    def __init__(self, engine: Engine) -> None:
        assert engine.split, "a value head needs a model that can be split before its own head"
        self._engine = engine
        self.width = int(engine.model.get_output_embeddings().weight.shape[1]) + 1

    def inputs(self, prompts: Sequence[Tokens]) -> Array:
        """float32 [prompts, width]: normalised states after each prompt, and a 1."""
        hosts, rows = shared_passes(prompts)
        engine = self._engine
        engine.set_learning(False)
        engine.check_length(max(map(len, rows), default=0))
        states = torch.zeros((len(prompts), self.width - 1), device=engine.device)
        guests: list[list[int]] = [[] for _ in rows]
        for guest, host in enumerate(hosts):
            guests[host].append(guest)
        empty = [Row.of(row, [False] * len(row)) for row in rows]
        with torch.no_grad(), engine.autocast():
            for batch in micro_batches(empty, engine.micro_batch_tokens):
                hidden = engine.trunk(_padded([rows[i] for i in batch]).to(engine.device))
                for line, i in enumerate(batch):
                    for guest in guests[i]:
                        states[guest] = hidden[line, len(prompts[guest]) - 1].float()
        states = torch.nn.functional.normalize(states - states.mean(dim=1, keepdim=True), dim=1)
        inputs: Array = torch.cat([states, torch.ones_like(states[:, :1])], dim=1).cpu().numpy()
        return inputs


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


def _padded(rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """int64 [rows, longest], padded with 0 on the right, where a causal model does not look."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
