"""Weights & Biases, online or offline.

    tracking.wandb: {"project": "calls", "mode": "offline"}      # then: wandb sync runs/sft/wandb/offline-run-...

Its files lie in the folder `wandb` of the run. Curves are drawn over `step`, the optimiser step. Online needs a key: WANDB_API_KEY,
in the environment or in `.env`, or an earlier `wandb login`; nobody is asked for one. Offline, nothing is sent, not even the
client's own usage statistics. WANDB_MODE=offline in the environment wins over `mode`. No code, git state or console output is
uploaded.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolhone.config.sections import WandbSection
from toolhone.errors import ConfigError
from toolhone.runs.tracker_base import Opened, Opening, first_line, named, package

SERVICE = "wandb"
REMEDY = "set WANDB_API_KEY in the environment or in .env, or log offline with tracking.wandb.mode=offline"


class WandbTracker:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        self._run.log({**named(kind, values), "step": step})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def check(section: WandbSection) -> None:
    """Stop where the package is missing, or where there is no key for online use."""
    wandb = package("wandb", SERVICE)
    mode = _mode(section)
    # The global settings, not those of a run, decide whether the client sends usage statistics.
    try:
        wandb.setup(wandb.Settings(mode=mode, silent=True))
    except Exception as error:  # a variable WANDB_... of the environment that it cannot read
        raise ConfigError(
            f"tracking.wandb: its settings cannot be used ({first_line(error)}); look at the variables WANDB_..."
        ) from None
    if mode == "offline" or wandb.run is not None:
        return
    try:
        known = wandb.login(prompt=False, verify=False)
    except Exception as error:
        raise ConfigError(
            f"tracking.wandb: the key is not usable ({first_line(error)}); {REMEDY}"
        ) from None
    if not known:
        raise ConfigError(f"tracking.wandb: there is no key for Weights & Biases; {REMEDY}")


def open_wandb(section: WandbSection, opening: Opening) -> Opened:
    """A run of Weights & Biases, or the one that goes on."""
    check(section)
    wandb = package("wandb", SERVICE)
    identity = {"id": opening.identity.get("id") or uuid.uuid4().hex[:8]}
    try:
        run = wandb.init(
            project=section.project,
            entity=section.entity,
            name=section.run_name or opening.folder.resolve().name,
            id=identity["id"],
            resume="allow",
            mode=_mode(section),
            dir=str(opening.folder),
            config=dict(opening.experiment),
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True
            ),
        )
    except Exception as error:
        raise ConfigError(
            f"tracking.wandb could not start ({first_line(error)}); {REMEDY}"
        ) from None
    run.define_metric("*", step_metric="step")
    place = f"wandb sync {Path(run.dir).parent}" if run.offline else str(run.url)
    return Opened(WandbTracker(run), place, identity)


def _mode(section: WandbSection) -> str:
    return "offline" if os.environ.get("WANDB_MODE") == "offline" else section.mode
