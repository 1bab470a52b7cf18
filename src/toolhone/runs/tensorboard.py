"""TensorBoard event files, by default in the folder `tensorboard` of the run.

    tracking.tensorboard: {"log_dir": null}           # then: tensorboard --logdir runs/sft/tensorboard

A run that goes on writes a further file, and tells TensorBoard to hide what an earlier file holds after the step it goes on from.
Numbers are stored as float32. Nothing is sent anywhere, and no server is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolhone.config.sections import TensorboardSection
from toolhone.runs.tracker_base import Opened, Opening, named, package

SERVICE = "tensorboard"


class TensorboardTracker:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        for name, value in named(kind, values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:  # noqa: ARG002 (event files know no failure)
        self._writer.close()


def check(section: TensorboardSection) -> None:  # noqa: ARG001 (the package is all that is needed)
    """Stop where the writer cannot be had."""
    package("tensorboard", SERVICE)


def open_tensorboard(section: TensorboardSection, opening: Opening) -> Opened:
    """Event files in `section.log_dir`, or in the run folder."""
    check(section)
    from torch.utils.tensorboard import SummaryWriter

    place = (
        Path(section.log_dir).expanduser() if section.log_dir else opening.folder / "tensorboard"
    )
    purge = None if opening.resumed_at is None else opening.resumed_at + 1
    writer = SummaryWriter(str(place), purge_step=purge)
    return Opened(TensorboardTracker(writer), f"tensorboard --logdir {place}", {})
