"""Draws tokens for samples in progress, each with a random stream of its own.

    draw(logits, rows)    # each row takes its next token

What a row draws depends on its logits and its stream alone, not on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from toolhone.backends.base import (
    Constraint,
    Sample,
    SamplingParams,
    StopReason,
    allowed_ids,
    random_stream,
)

BLOCK = 512
"""Ids whose weights are added before one of them is looked for."""


@dataclass(eq=False)
class SampleRow:
    """One sample in progress. `limit`: most tokens; `uniforms`: float64 [max_tokens]."""

    prompt: tuple[int, ...]
    params: SamplingParams
    limit: int
    uniforms: np.ndarray | None
    constraint: Constraint | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason = StopReason.LENGTH

    @property
    def ended(self) -> bool:
        return self.reason is StopReason.STOP or len(self.tokens) >= self.limit

    @property
    def sample(self) -> Sample:
        return Sample(self.tokens, self.logprobs, self.reason)

    def take(self, token: int, logprob: float) -> None:
        """Append the token that was drawn."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self.constraint is not None:
            self.constraint.advance(token)
        if token in self.params.stop_ids:
            self.reason = StopReason.STOP


def sample_row(
    prompt: tuple[int, ...],
    params: SamplingParams,
    place: tuple[int, int],
    max_context: int,
    constraint: Constraint | None,
) -> SampleRow:
    """A new row. place: the key of its prompt and its number, which name its random stream."""
    room = max_context - len(prompt) if max_context else params.max_tokens
    uniforms = None
    if params.temperature > 0:
        uniforms = random_stream(params.seed, *place).random(params.max_tokens)
    return SampleRow(prompt, params, min(params.max_tokens, room), uniforms, constraint)


def draw(logits: torch.Tensor, rows: Sequence[SampleRow]) -> None:
    """Draw the next token of each row. logits: float32 [rows, vocabulary]."""
    kinds: dict[tuple[SamplingParams, bool], list[int]] = {}
    for line, row in enumerate(rows):
        kinds.setdefault((row.params, row.constraint is not None), []).append(line)
    for (params, _), lines in kinds.items():
        chosen_rows = [rows[line] for line in lines]
        part = logits if len(kinds) == 1 else logits[lines]
        chosen, logprobs = _choose(part, chosen_rows, params)
        for row, token, logprob in zip(
            chosen_rows, chosen.tolist(), logprobs.tolist(), strict=True
        ):
            row.take(token, logprob)


def _choose(
    logits: torch.Tensor, rows: Sequence[SampleRow], params: SamplingParams
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next id of each row, and its log-probability before grammar and truncation."""
    scaled = logits / params.temperature if params.temperature not in (0.0, 1.0) else logits
    logprobs = torch.log_softmax(scaled, dim=-1)
    bound = logprobs
    if rows[0].constraint is not None:
        allowed = allowed_ids([row.constraint for row in rows], logits.shape[1])
        masked = logprobs.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
        bound = torch.log_softmax(masked, dim=-1)
    if params.temperature == 0:
        chosen = (logits if bound is logprobs else bound).argmax(dim=-1)
    else:
        drawn = [row.uniforms[len(row.tokens)] for row in rows if row.uniforms is not None]
        uniform = torch.tensor(drawn, dtype=torch.float64).to(logits.device, torch.float32)
        chosen = _inverse(_truncate(bound.exp(), params), uniform)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]


def _truncate(probabilities: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Zero what top-k and top-p (arXiv:1904.09751) cut off, without renormalising."""
    if params.top_k <= 0 and params.top_p >= 1:
        return probabilities
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if params.top_k > 0:
        keep[:, params.top_k :] = False
    if params.top_p < 1:
        keep &= ordered.cumsum(dim=-1) - ordered < params.top_p
        keep[:, 0] = True
    return torch.zeros_like(probabilities).scatter(1, index, ordered * keep)


def _inverse(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first id of each row whose cumulative weight exceeds uniform * total.

    Weights are added in float64 where the device has it, in blocks of ids: only the block that
    holds the answer is searched id by id.
    """
    wide = torch.float32 if weights.device.type == "mps" else torch.float64
    whole = weights.shape[1] // BLOCK * BLOCK
    sums = weights[:, :whole].reshape(len(weights), -1, BLOCK).sum(dim=-1, dtype=wide)
    rest = weights[:, whole:].sum(dim=-1, dtype=wide)[:, None]
    ends = torch.cat([sums, rest], dim=1).cumsum(dim=1)
    target = uniform.to(wide)[:, None] * ends[:, -1:] * (1 - 1e-7)
    block = torch.searchsorted(ends, target, right=True).clamp(max=ends.shape[1] - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    ids = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    inside = weights.gather(1, ids.clamp(max=weights.shape[1] - 1)).to(wide)
    cumulative = inside.masked_fill(ids >= weights.shape[1], 0.0).cumsum(dim=1)
    target = torch.minimum(target - before, cumulative[:, -1:] * (1 - 1e-12))
    place = torch.searchsorted(cumulative, target, right=True)
    return (block * BLOCK + place)[:, 0].clamp(max=weights.shape[1] - 1)
