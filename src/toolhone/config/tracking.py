"""The section `tracking` of an experiment file: what is shown, and which services get metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolhone.config.fields import AnchoredPath, Flag, Section


class TensorboardSection(Section):
    """TensorBoard event files."""

    enabled: bool = True
    log_dir: AnchoredPath | None = None
    """none: the folder `tensorboard` in the run"""


class WandbSection(Section):
    """Weights & Biases."""

    enabled: bool = True
    project: Annotated[str, Flag("--wandb-project", "--wandb")] = "toolhone"
    """log to this project of Weights & Biases"""
    run_name: str | None = None
    """none: the name of the run folder"""
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    """offline: a folder in the run, to be synchronised later"""


class TrackioSection(Section):
    """trackio, on this machine."""

    enabled: bool = True
    project: str = "toolhone"
    run_name: str | None = None
    """none: the name of the run folder"""


class TrackingSection(Section):
    """What is shown while training runs; the run folder always has everything."""

    progress: Literal["auto", "rich", "plain", "off"] = "auto"
    """auto: a live display on a terminal, plain lines elsewhere"""
    samples: int = Field(3, ge=0)
    """sample predictions to print after an evaluation"""
    tensorboard: TensorboardSection | None = None
    wandb: WandbSection | None = None
    trackio: TrackioSection | None = None

    @property
    def services(self) -> list[str]:
        """The names of the enabled services; cheap and local ones first."""
        parts = {name: getattr(self, name) for name in ("tensorboard", "wandb", "trackio")}
        return [name for name, part in parts.items() if part is not None and part.enabled]
