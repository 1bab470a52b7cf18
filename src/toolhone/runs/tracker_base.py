"""What every tracker has in common: one small interface, names of curves, and the sentence for a package that is missing.

    class Mine:                                       # a tracker is anything with these two methods
        def log(self, step: int, kind: str, values: Mapping[str, float]) -> None: ...
        def close(self, failed: bool) -> None: ...

A curve is called `kind/name`: `train/loss`, `validation/exact_match`, `evaluation/tool_accuracy`. Nothing here knows a service.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from toolhone.errors import ConfigError


class Tracker(Protocol):
    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Take one line of `metrics.jsonl`, numbers only; whatever goes wrong is raised here, not later."""
        ...

    def close(self, failed: bool) -> None:
        """Write what is left. `failed`: the training ended with an error."""
        ...


@dataclass(frozen=True)
class Opening:
    """What a service may use to open: the run folder, the experiment, and for a run that goes on its step and `Opened.identity`."""

    folder: Path
    experiment: Mapping[str, Any]
    identity: Mapping[str, str]
    resumed_at: int | None


@dataclass(frozen=True)
class Opened:
    """A tracker that is ready, how to look at it, and what it wants to know again when the run goes on."""

    tracker: Tracker
    place: str
    identity: Mapping[str, str]


def named(kind: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values under the names of their curves."""
    return {f"{kind}/{name}": value for name, value in values.items()}


def numbers(values: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """What can be a point of a curve, and the names of what cannot: text, lists, nothing at all, and yes or no."""
    kept = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }
    return kept, [name for name in values if name not in kept]


def package(name: str, service: str) -> Any:
    """An optional package, imported now."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"tracking.{service} needs the package {name}, which cannot be imported ({error}); install it with "
            f"pip install 'toolhone[track]', or set tracking.{service}.enabled=false"
        ) from None


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.160}".removesuffix(": ")
