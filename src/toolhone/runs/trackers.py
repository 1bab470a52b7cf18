"""Every line of `metrics.jsonl`, sent to the services that `tracking` names; one that fails never ends a training.

    with open_trackers(plan.tracking, folder, plan.model_dump(), resumed_at=None, report=progress.report) as trackers:
        trackers.log(10, "train", {"loss": 0.7})      # the curve train/loss

A service that cannot open (no package, no key) stops with one sentence before anything is trained. One that fails later is switched
off: one line says which and why, another at the end how many lines it lacks; `metrics.jsonl` has them all. RUN/tracking.json keeps
what the services want to know again when the run goes on, and those counts. Pictures, texts and weights are not tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.config.sections import TrackingSection
from toolhone.runs import tensorboard, trackio, wandb
from toolhone.runs.run import read_json, write_json, writing
from toolhone.runs.tracker_base import Opened, Opening, Tracker, first_line, numbers

Report = Callable[[str], None]
KEPT = "tracking.json"


@dataclass(frozen=True)
class _Service:
    name: str
    check: Callable[[Any], None]
    open: Callable[[Any, Opening], Opened]


SERVICES = (
    _Service("tensorboard", tensorboard.check, tensorboard.open_tensorboard),
    _Service("wandb", wandb.check, wandb.open_wandb),
    _Service("trackio", trackio.check, trackio.open_trackio),
)
"""In the order of the fields of the tracking section; cheap and local first."""


class Trackers:
    """Trackers by the name of their service, and what each of them lacks."""

    def __init__(self, trackers: Mapping[str, Tracker], report: Report) -> None:
        self._trackers, self._report = dict(trackers), report
        self._lines, self._left_out = 0, set[str]()
        self.missed: dict[str, int] = {}
        """Lines that a service did not get, for those that were switched off."""

    def log(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Send one line to every service that still works."""
        kept, others = numbers(values)
        self._tell_left_out(kind, others)
        self._lines += 1
        for name, tracker in self._trackers.items():
            if name in self.missed:
                self.missed[name] += 1
                continue
            try:
                tracker.log(step, kind, kept)
            except (
                Exception
            ) as error:  # whatever a service raises: the training is worth more than its curves
                self.missed[name] = 1
                self._report(
                    f"tracking.{name} failed at step {step} and is switched off: {first_line(error)}"
                )

    def close(self, failed: bool = False) -> None:
        """Close every service, and say what those that were switched off lack."""
        for name, tracker in self._trackers.items():
            try:
                tracker.close(failed)
            except Exception as error:  # as above
                self._report(f"tracking.{name} could not be closed: {first_line(error)}")
            if name in self.missed:
                self._report(
                    f"tracking.{name} lacks {self.missed[name]} of {self._lines} lines; metrics.jsonl has them all"
                )

    def _tell_left_out(self, kind: str, names: list[str]) -> None:
        new = [name for name in (f"{kind}/{name}" for name in names) if name not in self._left_out]
        if new and self._trackers:
            self._left_out.update(new)
            self._report(f"tracking: not numbers, so only in metrics.jsonl: {', '.join(new)}")


def check_trackers(section: TrackingSection) -> None:
    """Stop, before any work, where a service that is asked for could never open."""
    for service in _wanted(section):
        service.check(getattr(section, service.name))


@contextmanager
def open_trackers(
    section: TrackingSection,
    folder: Path,
    experiment: Mapping[str, Any],
    resumed_at: int | None,
    report: Report,
) -> Iterator[Trackers]:
    """The services that `section` names, open. `resumed_at` is the step that the run goes on from, or None for a new run."""
    before = (
        read_json(folder / KEPT) if resumed_at is not None and (folder / KEPT).is_file() else {}
    )
    opened: dict[str, Opened] = {}
    try:
        for service in _wanted(section):
            opening = Opening(
                folder,
                without_secrets(experiment),
                before.get(service.name, {}).get("identity", {}),
                resumed_at,
            )
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                opened[service.name] = service.open(getattr(section, service.name), opening)
            report(f"tracking: {opened[service.name].place}")
        _keep(folder, opened, before, {})
    except BaseException:
        _trackers(opened, report).close(failed=True)
        raise
    trackers, failed = _trackers(opened, report), True
    try:
        yield trackers
        failed = False
    finally:
        trackers.close(failed)
        if trackers.missed:
            _keep(folder, opened, before, trackers.missed)


def without_secrets(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment as it may leave the machine: tools by name only, for an address or a header may carry a key."""
    tools = [
        tool if isinstance(tool, str) else str(tool.get("name"))
        for tool in experiment.get("tools", [])
    ]
    return {**experiment, "tools": tools}


def _wanted(section: TrackingSection) -> list[_Service]:
    parts = {service: getattr(section, service.name) for service in SERVICES}
    return [service for service, part in parts.items() if part is not None and part.enabled]


def _trackers(opened: Mapping[str, Opened], report: Report) -> Trackers:
    return Trackers({name: one.tracker for name, one in opened.items()}, report)


def _keep(
    folder: Path, opened: Mapping[str, Opened], before: Mapping[str, Any], missed: Mapping[str, int]
) -> None:
    """Write RUN/tracking.json; lines missed before a run went on stay counted."""
    if not opened:
        return
    lost = {
        name: before.get(name, {}).get("missed_lines", 0) + missed.get(name, 0) for name in opened
    }
    with writing(folder):
        write_json(
            folder / KEPT,
            {
                name: {"identity": one.identity, "missed_lines": lost[name]}
                for name, one in opened.items()
            },
        )
