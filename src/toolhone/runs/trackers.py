"""Sends every line of `metrics.jsonl` to the services in `tracking`: TensorBoard, Weights & Biases,
trackio.

    with open_trackers(plan.tracking, folder, plan.model_dump(), None, progress.report) as trackers:
        trackers.log(10, "train", {"loss": 0.7})      # the curve train/loss

A service that cannot open stops before training, but for TensorBoard without its package, which a
note reports; one that fails later is switched off and its lines are counted.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Any

from toolhone.config import small_sections
from toolhone.errors import ConfigError
from toolhone.runs.run import read_json, write_json, writing

Report = Callable[[str], None]
STATE = "tracking.json"
_WANDB_REMEDY = (
    "set WANDB_API_KEY in the environment or in .env, "
    "or log offline with tracking.wandb.mode=offline"
)


@dataclass(frozen=True)
class Opening:
    """The run that a service opens for: of a resumed run the step and the identity in it."""

    folder: Path
    experiment: Mapping[str, Any]
    identity: Mapping[str, str]
    resumed_at: int | None


class TensorboardTracker:
    """Event files. A resumed run writes a further file, which hides older points after its step."""

    def __init__(self, section: small_sections.TensorboardSection, opening: Opening) -> None:
        _package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(section.log_dir or opening.folder / "tensorboard").expanduser()
        purge = None if opening.resumed_at is None else opening.resumed_at + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)
        self.place, self.identity = f"tensorboard --logdir {folder}", dict[str, str]()

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:  # noqa: ARG002 (event files know no failure)
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases without code, git state and console output.

    Offline, nothing is sent, not even usage statistics; WANDB_MODE=offline wins over `mode`.
    """

    def __init__(self, section: small_sections.WandbSection, opening: Opening) -> None:
        wandb, mode = _check_wandb(section)
        self.identity = {"id": opening.identity.get("id") or uuid.uuid4().hex[:8]}
        quiet = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
        try:
            self._run = wandb.init(
                project=section.project,
                entity=section.entity,
                name=section.run_name or opening.folder.resolve().name,
                id=self.identity["id"],
                resume="allow",
                mode=mode,
                dir=str(opening.folder),
                config=dict(opening.experiment),
                reinit="create_new",
                settings=wandb.Settings(**quiet),
            )
        except Exception as error:
            wrong = f"could not start ({_first_line(error)})"
            raise ConfigError(f"tracking.wandb {wrong}; {_WANDB_REMEDY}") from None
        self._run.define_metric("*", step_metric="step")
        offline = f"wandb sync {Path(self._run.dir).parent}"
        self.place = offline if self._run.offline else str(self._run.url)

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in values.items()} | {"step": step})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _check_wandb(section: small_sections.WandbSection) -> tuple[Any, str]:
    """Return the package and the mode; raise where the key for online use is missing."""
    wandb = _package("wandb")
    mode = "offline" if os.environ.get("WANDB_MODE") == "offline" else section.mode
    # The global settings, not those of a run, decide whether the client sends usage statistics.
    try:
        wandb.setup(wandb.Settings(mode=mode, silent=True))
    except Exception as error:  # a variable WANDB_... that it cannot read
        wrong = f"its settings cannot be used ({_first_line(error)})"
        raise ConfigError(f"tracking.wandb: {wrong}; look at the variables WANDB_...") from None
    if mode == "offline" or wandb.run is not None:
        return wandb, mode
    wrong = "there is no key for Weights & Biases"
    try:
        if wandb.login(prompt=False, verify=False):
            return wandb, mode
    except Exception as error:
        wrong = f"the key is not usable ({_first_line(error)})"
    raise ConfigError(f"tracking.wandb: {wrong}; {_WANDB_REMEDY}")


class TrackioTracker:
    """Lines in trackio's own store on this machine (TRACKIO_DIR); `trackio sync` publishes.

    The public `trackio.init` asks the hub for a user name, prints, and hides failures.
    """

    def __init__(self, section: small_sections.TrackioSection, opening: Opening) -> None:
        self._store, self._project = _package("trackio").SQLiteStorage, section.project
        name = opening.identity.get("name") or section.run_name or opening.folder.resolve().name
        self.identity = {"id": opening.identity.get("id") or uuid.uuid4().hex, "name": name}
        created = {"_Created": datetime.now(UTC).isoformat(), "_Username": None, "_Group": None}
        self._config = {**opening.experiment, **created}
        try:
            self._store.init_db(self._project)
            path = self._store.get_project_db_path(self._project)
            if opening.resumed_at is not None and path.exists():
                later, which = "run_id = ? AND step > ?", (self.identity["id"], opening.resumed_at)
                with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
                    connection.execute(f"DELETE FROM metrics WHERE {later}", which)
        except Exception as error:
            wrong = f"could not open its store ({_first_line(error)})"
            raise ConfigError(f"tracking.trackio {wrong}; TRACKIO_DIR names its place") from None
        self.place = f"trackio show --project {self._project}"

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        line = {f"{kind}/{name}": value for name, value in values.items()}
        name, run_id, config = self.identity["name"], self.identity["id"], dict(self._config)
        self._store.bulk_log(
            self._project, name, [line], steps=[step], config=config, run_id=run_id
        )

    def close(self, failed: bool) -> None:
        """Every line is in the store already."""


SERVICES: Mapping[str, Any] = {
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}
"""Each has `place`, how to see the curves, and `identity`, what it needs to know at a resume.

`log` sends one line as the curves `kind/name` and raises its errors at once; `close(failed)` writes
what is left, after a training that ended with an error or not.
"""


class Trackers:
    """Open trackers by the name of their service."""

    def __init__(self, trackers: Mapping[str, Any], report: Report) -> None:
        self._trackers, self._report, self._lines = trackers, report, 0
        self._left_out = set[str]()
        self.missed: dict[str, int] = {}
        """Lines that a service did not get, for those that are switched off."""

    def log(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Send the numbers of one line to every service that still works."""
        numbers = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, Real) and not isinstance(value, bool)
        }
        others = [f"{kind}/{name}" for name in values if name not in numbers]
        others = [name for name in others if name not in self._left_out]
        if others and self._trackers:
            self._left_out |= {*others}
            self._report(f"tracking: not numbers, so only in metrics.jsonl: {', '.join(others)}")
        self._lines += 1
        for name, tracker in self._trackers.items():
            if name in self.missed:
                self.missed[name] += 1
                continue
            try:
                tracker.log(step, kind, numbers)
            except Exception as error:  # of any kind: the training is worth more than its curves
                self.missed[name] = 1
                failure = f"failed at step {step} and is switched off: {_first_line(error)}"
                self._report(f"tracking.{name} {failure}")

    def close(self, failed: bool = False) -> None:
        """Close every service, and report the lines that it did not get."""
        for name, tracker in self._trackers.items():
            try:
                tracker.close(failed)
            except Exception as error:  # as above
                self._report(f"tracking.{name} could not be closed: {_first_line(error)}")
            if name in self.missed:
                lines = f"{self.missed[name]} of {self._lines} lines"
                self._report(f"tracking.{name} lacks {lines}; metrics.jsonl has them all")


def check_trackers(section: small_sections.TrackingSection) -> None:
    """Raise where an enabled service could not open; TensorBoard's package may be missing."""
    for name in section.services:
        if name == "wandb" and section.wandb is not None:
            _check_wandb(section.wandb)
        elif name != "tensorboard":
            _package(name)


@contextmanager
def open_trackers(
    section: small_sections.TrackingSection,
    folder: Path,
    experiment: Mapping[str, Any],
    resumed_at: int | None,
    report: Report,
) -> Iterator[Trackers]:
    """Open the enabled services; `resumed_at` is the step of a resumed run. Without TensorBoard's
    package the run has a note in place of event files."""
    resumes = resumed_at is not None and (folder / STATE).is_file()
    before = read_json(folder / STATE) if resumes else {}
    opened: dict[str, Any] = {}
    trackers, failed = Trackers(opened, report), True

    def save() -> None:
        """Write RUN/tracking.json; lines missed before a resume stay counted."""
        state = {}
        for name, tracker in opened.items():
            lines = before.get(name, {}).get("missed_lines", 0) + trackers.missed.get(name, 0)
            state[name] = {"identity": tracker.identity, "missed_lines": lines}
        if state:
            with writing(folder):
                write_json(folder / STATE, state)

    try:
        for name in section.services:
            if name == "tensorboard":
                try:
                    _package(name)
                except ConfigError as error:
                    report(f"note: {error}; this run writes no event files")
                    continue
            identity = before.get(name, {}).get("identity", {})
            opening = Opening(folder, without_secrets(experiment), identity, resumed_at)
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                opened[name] = SERVICES[name](getattr(section, name), opening)
            report(f"tracking: {opened[name].place}")
        save()
        yield trackers
        failed = False
    finally:
        trackers.close(failed)
        if trackers.missed:
            save()


def without_secrets(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment with tools by name only: an address or a header may carry a key."""
    tools = experiment.get("tools", [])
    names = [tool if isinstance(tool, str) else str(tool.get("name")) for tool in tools]
    return {**experiment, "tools": names}


def _package(service: str) -> Any:
    """Import the optional package of a service."""
    name = "trackio.sqlite_storage" if service == "trackio" else service
    try:
        return importlib.import_module(name)
    except ImportError as error:
        wrong = f"needs the package {name}, which cannot be imported ({error})"
        right = f"install it with python -m pip install {service}"
        off = f"set tracking.{service}.enabled=false"
        raise ConfigError(f"tracking.{service} {wrong}; {right}, or {off}") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.160}".removesuffix(": ")
