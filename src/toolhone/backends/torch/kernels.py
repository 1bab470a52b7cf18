"""Softmax attention with its log-sum-exp, to join the attention of several parts; the head; LoRA.

    out, norm = kernel_of(query, value, scale, cap).forward(q, k, v, causal, mask)
    values = chunked(project, hidden, targets, temperature, size)    # no full logits in memory

Shapes are [kv heads, repeats, tokens, width]; a causal part has as many queries as keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from toolhone.backends.torch.recompute import kept_result
from toolhone.config.experiment import to_stderr

SCORE_BYTES = 64 * 2**20
"""Scores that are in memory at once where no kernel of torch keeps them out of it."""
HIDDEN_SCORE = -1e30
"""Score of a key that a query does not see; finite, so that a query may see none of a part."""

FLASH_ERROR = 0.02
"""How far flash attention in half precision may be from float32, relative to the norm."""


def kernel_of(
    query: torch.Tensor, value: torch.Tensor, scale: float, cap: float | None
) -> CpuKernel | GpuKernel | PlainKernel:
    alike = query.shape[-1] == value.shape[-1] and not cap
    if alike and query.device.type == "cpu":
        return CpuKernel(scale)
    half = query.dtype in (torch.bfloat16, torch.float16)
    if alike and half and query.is_cuda and proven(query.device, query.dtype, query.shape[-1]):
        return GpuKernel(scale)
    return PlainKernel(scale, cap or 0.0)


@lru_cache
def proven(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether flash attention of this device gives what `PlainKernel` gives in float32."""
    try:
        with torch.autocast(device.type, enabled=False):
            gaps = _flash_gaps(device, dtype, width)
            wrong = "" if all(gap <= FLASH_ERROR for gap in gaps) else "it differs from float32"
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # not built for this device, or for this width
        wrong = " ".join(str(error).split())[:80]
    if wrong:
        to_stderr(f"attention runs as products, which is slower: flash attention: {wrong}")
    return not wrong


def _flash_gaps(device: torch.device, dtype: torch.dtype, width: int) -> Iterator[float]:
    """Differences of outputs and gradients from float32, relative to the norm."""
    made = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 70, width), *((2, 1, 70, width),) * 2, (2, 3, 70, width))
    q, k, v, slope = (torch.randn(shape, generator=made).to(device, dtype) for shape in shapes)
    k, v = (each.expand(-1, 3, -1, -1) for each in (k, v))
    flash, plain = GpuKernel(width**-0.5), PlainKernel(width**-0.5, 0.0)
    for keys, causal in ((70, True), (40, False)):
        own, exact = (q, k[:, :, :keys], v[:, :, :keys]), list[torch.Tensor]()
        wide = own[0].float(), own[1].float(), own[2].float()
        exact += (joint := plain.forward(*wide, causal, None))
        exact += plain.backward((slope.float(), *joint), wide, causal, None)
        found = [*(joint := flash.forward(*own, causal, None))]
        found += flash.backward((slope, *joint), own, causal, None)
        for a, b in zip(found, exact, strict=True):
            yield float((a.float() - b).norm() / b.norm())


Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class CpuKernel:
    """torch's flash attention for a CPU."""

    scale: float

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [.., queries, width] and log-sum-exp [.., queries] of the scores."""
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        causal = causal and mask is None
        out, norm = run(q, k, v, 0.0, causal, attn_mask=mask, scale=self.scale)
        return out, norm

    def backward(self, joint: Tensors, inputs: Tensors, causal: bool, mask: Any) -> Tensors:
        """Gradients by q, k, v; `joint`: gradient of the output, output and log-sum-exp."""
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        causal = causal and mask is None
        slope, out, norm = joint
        found: Tensors = run(
            slope, *inputs, out, norm, 0.0, causal, attn_mask=mask, scale=self.scale
        )
        return found


@dataclass(frozen=True)
class GpuKernel:
    """torch's flash attention for a GPU, in half precision; parts with a mask run as products."""

    scale: float

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [.., queries, width] and log-sum-exp [.., queries] of the scores."""
        if mask is not None:
            return PlainKernel(self.scale, 0.0).forward(q, k, v, causal, mask)
        run = torch.ops.aten._scaled_dot_product_flash_attention
        out, norm = run(q, k, v, 0.0, causal, scale=self.scale)[:2]
        return out, norm

    def backward(self, joint: Tensors, inputs: Tensors, causal: bool, mask: Any) -> Tensors:
        """Gradients by q, k, v; `joint`: gradient of the output, output and log-sum-exp."""
        if mask is not None:
            return PlainKernel(self.scale, 0.0).backward(joint, inputs, causal, mask)
        run = torch.ops.aten._scaled_dot_product_flash_attention_backward
        slope, out, norm = joint
        lengths = None, None, *(each.shape[2] for each in inputs[:2])
        unused = (torch.empty(n, dtype=torch.uint64, device=slope.device) for n in ((2,), ()))
        of = *inputs, out.contiguous(), norm.contiguous(), *lengths, 0.0, causal, *unused
        found: Tensors = run(slope.contiguous(), *of, scale=self.scale)
        return found


@dataclass(frozen=True)
class PlainKernel:
    """Products and a softmax, some queries at a time; for any device, and with soft caps."""

    scale: float
    cap: float

    def _blocks(self, q: torch.Tensor, k: torch.Tensor) -> Iterator[slice]:
        each = max(1, SCORE_BYTES // (4 * q.shape[0] * q.shape[1] * k.shape[2]))
        for start in range(0, q.shape[2], each):
            yield slice(start, min(start + each, q.shape[2]))

    def _scores(
        self, q: torch.Tensor, k: torch.Tensor, at: slice, causal: bool, mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores of a block of queries, and the derivative of the soft cap."""
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = (q[:, :, at] @ k.mT).to(wide) * self.scale
        slope = None
        if self.cap:
            bent = torch.tanh(scores / self.cap)
            scores, slope = bent * self.cap, 1 - bent * bent
        if mask is not None:
            scores = scores + mask[..., at, :].to(wide)
        elif causal:
            places = torch.arange(k.shape[2], device=k.device)
            scores = scores.masked_fill(places > places[at, None], HIDDEN_SCORE)
        return scores, slope

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [.., queries, width] and log-sum-exp [.., queries] of the scores."""
        outs, norms = [], []
        for at in self._blocks(q, k):
            scores, _ = self._scores(q, k, at, causal, mask)
            norms.append(scores.logsumexp(-1))
            outs.append((scores - norms[-1][..., None]).exp_().to(v.dtype) @ v)
        return torch.cat(outs, 2), torch.cat(norms, 2)

    def backward(self, joint: Tensors, inputs: Tensors, causal: bool, mask: Any) -> Tensors:
        """Gradients by q, k, v; `joint`: gradient of the output, output and log-sum-exp."""
        (slope, out, norm), (q, k, v) = joint, inputs
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for at in self._blocks(q, k):
            scores, bend = self._scores(q, k, at, causal, mask)
            share = (scores - norm[:, :, at, None]).exp_()
            above = slope[:, :, at]
            dv += share.to(v.dtype).mT @ above
            change = (above * out[:, :, at]).sum(-1, keepdim=True)
            change = share * ((above @ v.mT) - change) * self.scale
            change = (change if bend is None else change * bend).to(q.dtype)
            dq[:, :, at] = change @ k
            dk += change.mT @ q[:, :, at]
        return dq, dk, dv


LOGIT_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20, "mps": 256 * 2**20}
"""Size of one chunk of float32 logits."""
KEPT_CHUNKS = 3
"""Chunks that are kept for the backward pass; it computes further ones again."""


class FrozenHead(torch.autograd.Function):
    """Log-probabilities of targets by a head that does not learn, `size` positions at a time.

    A position's gradient by its own hidden state is computed with its value, while its logits are
    there; so none are kept, and none made twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        project: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        values, slopes = [], torch.empty_like(hidden)
        for start in range(0, len(hidden), size):
            part = hidden[start : start + size].detach().requires_grad_()
            with torch.enable_grad():
                found = project(part, targets[start : start + size])
                (slopes[start : start + size],) = torch.autograd.grad(found.sum(), part)
            values.append(found.detach())
        ctx.save_for_backward(slopes)
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None]).to(slopes.dtype), None, None, None


def chunked(
    project: Callable[..., torch.Tensor],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    size: int,
) -> torch.Tensor:
    """Apply `project` to `size` positions at a time; few chunks are kept for the backward pass."""
    if len(hidden) <= size:
        return project(hidden, targets, temperature)
    parts = []
    for start in range(0, len(hidden), size):
        inputs = (hidden[start : start + size], targets[start : start + size], temperature)
        again = torch.is_grad_enabled() and start >= KEPT_CHUNKS * size
        parts.append(
            checkpoint(project, *inputs, use_reentrant=False) if again else project(*inputs)
        )
    return torch.cat(parts)


class AdaptedLinear(torch.autograd.Function):
    """low B^T + x W^T + bias; W is frozen.

    The product by W is added to that of the adapter before it is rounded. The other way round, as
    PEFT has it, a change below half a step of bfloat16 (0.2 to 0.4 % of the number) is added to a
    number that is rounded already, and lost, each time: a young adapter has no effect there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        low: torch.Tensor,
        weight: torch.Tensor,
        b: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(low, weight, b)

        def product() -> tuple[torch.Tensor]:
            out = (low.flatten(0, -2) @ b.T).addmm_(x.flatten(0, -2), weight.T)
            out = out if bias is None else out.add_(bias)
            shaped = out.view(*x.shape[:-1], out.shape[-1])
            return (shaped.detach(),)  # a view may not be changed in place, as OLMo does

        return kept_result(product)[0]

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low, weight, b = ctx.saved_tensors
        of_b = slope.flatten(0, -2).T @ low.flatten(0, -2)
        of_x = slope @ weight if ctx.needs_input_grad[0] else None
        return of_x, slope @ b, None, of_b, None
