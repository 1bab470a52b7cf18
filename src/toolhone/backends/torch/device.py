"""The device of a model: which one, how much memory it has, and what fits into it.

    device, mapped = find_device("auto")
    tokens = default_micro_batch(config, device, size=4)  # tokens of one forward pass

A prediction counts weights, optimizer and hidden states, and on a CPU a tenth of slack of its heap.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolhone.errors import ModelError

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
# oneDNN keeps about 1 MB of code for each shape that it has multiplied in bfloat16, 1,024 of them;
# every batch has its own number of tokens, so a long run grows by a gigabyte.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Large tensors in pages of 2 MB, where Linux gives them: a step of SmolLM2 takes 7 % less. Without
# effect where torch has made a tensor before.

CPU_MICRO_BATCHES = (1024, 4096)
CPU_BATCH_BYTES = 256 * 2**20
"""Hidden states of one forward pass on a CPU, where that is more than 1,024 tokens."""
SMALLEST_BATCH = 128
GPU_MICRO_BATCHES = (1024, 16384)
CPU_CACHE_BYTES = 512 * 2**20
MAX_CACHE_TOKENS = 32768
"""Keys and values of a sampling batch: their size on a CPU, and their tokens at most."""
LAYER_WIDTHS = (13, 5)
"""Floats that a decoder layer keeps per token for its backward pass, in hidden and MLP widths.

Measured by LoRA on a Llama of 135M parameters in float32: 1.6 MB a token in batches of 7,700
tokens, 2.3 MB in one row of 700 (docs/log.md); this gives 1.8 MB."""
CPU_SLACK = 1.1
"""Resident bytes by bytes of hidden states: a heap keeps more than is in use (docs/log.md)."""
CPU_KEPT_BYTES = 512 * 2**20
"""Products that checkpointed layers keep on a CPU; at most a sixteenth of any device."""
TRAINED_BYTES = 4 + 8
"""Gradient and two float32 moments of each trained weight."""


def token_bytes(config: Any, size: int, gradient_checkpointing: bool) -> int:
    """Bytes kept per token for the backward pass; `size`: bytes of one activation.

    A checkpointed layer keeps its input and its attention.
    """
    width, layers = _number(config, "hidden_size"), _number(config, "num_hidden_layers")
    inner = _number(config, "intermediate_size", 4 * width)
    layer = size * (LAYER_WIDTHS[0] * width + LAYER_WIDTHS[1] * inner)
    heads = _number(config, "num_attention_heads")
    attention = heads * (size * _head_width(config) + 4)  # its output, and a float32 norm
    kept = size * width + attention
    return layer + layers * kept if gradient_checkpointing else layers * layer


@dataclass(frozen=True)
class PassBytes:
    """Bytes that a forward pass keeps for the backward pass.

    least, most: for each token, with and without checkpointed layers. room: for products that
    checkpointed layers keep as well.
    """

    least: int
    most: int
    room: int

    def of(self, tokens: int) -> int:
        return min(tokens * self.most, tokens * self.least + self.room)

    def tokens(self, free: float) -> int:
        """The most tokens whose bytes fit."""
        return int(max(free / self.most, (free - self.room) / self.least))


def _number(config: Any, name: str, default: int = 1) -> int:
    return int(getattr(config, name, None) or default)


def _head_width(config: Any) -> int:
    width = _number(config, "hidden_size") // _number(config, "num_attention_heads")
    return _number(config, "head_dim", width)


def find_device(device_map: str | dict[str, Any]) -> tuple[torch.device, bool]:
    """The device to use, and whether accelerate must spread the model instead."""
    if isinstance(device_map, dict) or device_map in ("balanced", "balanced_low_0", "sequential"):
        return torch.device("cpu"), True
    if device_map == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps), False
    try:
        device = torch.device(device_map)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ModelError(
            f"model.device_map: {device_map!r} cannot be used here ({reason:.120}); "
            "use 'auto' or 'cpu'"
        ) from None
    return device, False


def device_bytes(device: torch.device) -> int:
    """Memory of the device; of a CPU, what the machine or its control group allows."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def default_micro_batch(config: Any, device: torch.device, size: int) -> int:
    """Tokens of one forward pass, by rule: it changes bits, so no stopwatch chooses it.

    The power of two whose hidden states fill at most half of a GPU. On a CPU at most
    `CPU_BATCH_BYTES`, but 1,024 tokens where those fill at most a quarter of the memory.
    """
    each = max(1, token_bytes(config, size, False))
    if device.type == "cpu":
        low, high = CPU_MICRO_BATCHES
        fast = max(low, min(high, _power_of_two(CPU_BATCH_BYTES // each)))
        return max(SMALLEST_BATCH, min(fast, _power_of_two(device_bytes(device) // 4 // each)))
    low, high = GPU_MICRO_BATCHES
    return max(low, min(high, _power_of_two(device_bytes(device) // 2 // each)))


def _power_of_two(most: int) -> int:
    """The largest power of two up to `most`; at least 1."""
    return 1 << max(0, most.bit_length() - 1)


def kept_bytes(device: torch.device) -> int:
    """Bytes of the products that checkpointed layers keep, beside their inputs and attention."""
    share = device_bytes(device) // 16
    return min(CPU_KEPT_BYTES, share) if device.type == "cpu" else share


def cache_tokens(config: Any, device: torch.device, size: int) -> int:
    """Prompt and new tokens, over all rows, that are decoded at once (bounds the cache)."""
    heads = _number(config, "num_attention_heads")
    keys = _number(config, "num_key_value_heads", heads) * _head_width(config)
    each = 2 * _number(config, "num_hidden_layers") * keys * size
    limit = CPU_CACHE_BYTES if device.type == "cpu" else device_bytes(device) // 4
    return max(1, min(MAX_CACHE_TOKENS, limit // max(1, each)))


def peak_bytes(model: nn.Module, device: torch.device, hidden: int, copies: int) -> int:
    """Predicted peak of a training step: what is in use now, optimizer, copies, hidden states.

    hidden: bytes that a forward pass keeps. `copies`: further copies of the trained weights, as a
    snapshot and a reference policy hold them.
    """
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    hidden = round(hidden * (CPU_SLACK if device.type == "cpu" else 1))
    return in_use(device) + trained * (TRAINED_BYTES + 4 * copies) + hidden


def in_use(device: torch.device) -> int:
    """Bytes in use: allocated on a GPU, the peak resident set of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left; torch's CPU has no class for it."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    named = any(text in str(error) for text in texts)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or named


def empty_cache(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    trim_heap(device)


def trim_heap(device: torch.device) -> None:
    """Give back what glibc keeps of freed memory; nothing to do on other devices and systems.

    A hole that was aligned for one tensor fits no other: 2,000 tokens of SmolLM2 take 1.5 GB in
    place of 2.5 where checkpointed layers give theirs back.
    """
    if device.type == "cpu" and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim:
            trim(0)
