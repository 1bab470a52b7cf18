"""Tokens that a service bills: counted while a backend works, and estimated before step 1.

    trainer.usage                                # Usage(prefilled=5120, sampled=900, trained=4000)
    describe(trainer.usage)

No price is shown: the protocol of Tinker services (SDK 0.38) tells none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass
class Usage:
    """Tokens read without training on them, sampled, and trained on."""

    prefilled: int = 0
    sampled: int = 0
    trained: int = 0


@runtime_checkable
class Metered(Protocol):
    """A trainer or sampler whose work is billed by the token."""

    usage: Usage


def describe(usage: Usage) -> str:
    """The counts that are not 0, in words."""
    counts = (f"{count:,} tokens {name}" for name, count in vars(usage).items() if count)
    return ", ".join(counts) or "no tokens"
