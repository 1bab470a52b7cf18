"""The outer loop of every training method: resume, stop signals, snapshots, checkpoints,
validation.

loop = Loop(trainer, run, hooks, total, resume(trainer, run, checkpoint))
for step in loop:                                # 0-based
    sampler = loop.sampler(every=1)              # a snapshot at most `every` - 1 steps old
    ...                                          # the method
    loop.finish_step(f"loss {loss:.3f}")
return loop.status
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolhone.backends.base import Metrics, Sampler, Trainer, WeightSampler
from toolhone.errors import RunError
from toolhone.rows import Array, Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run

Validation = tuple[Metrics, list[dict[str, Any]]]
"""Scores of generated replies by name, and the replies themselves."""
MAX_SKIPPED = 20
"""Skipped steps in a row after which a run fails (a float16 loss scale settles in fewer)."""
TOKENS_OF_A_PART = 16384
"""Tokens of the rows whose log-probabilities are computed between two reports of progress."""
WORSE_THAN_BASE = "worse_than_base"
"""A score of validations under `evaluation.guard`: comparisons with the base that got worse."""
SHOWN_SCORES = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format")
"""Scores shown next to the progress bar after a validation."""


STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class TrainStatus(StrEnum):
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Stopped by SIGINT, SIGTERM or SIGHUP after the current step, or in a validation, which the
    resumed run does; the state was saved."""
    FINISHED_ON_REQUEST = "finished_on_request"
    """The signal came in the last step: training is complete, the evaluation is skipped."""


class Stop(BaseException):
    """A stop signal came in work that is broken off."""


@dataclass
class StopRequest:
    """Whether a stop signal came; inside `breaking()` the first one raises `Stop` there."""

    received: bool = False
    breaks: bool = False

    @contextmanager
    def breaking(self) -> Iterator[None]:
        if self.received:
            raise Stop
        self.breaks = True
        try:
            yield
        finally:
            self.breaks = False


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a training: score a policy, write a checkpoint into a folder, show progress."""

    validate: Callable[[Sampler], Validation]
    save: Callable[[Path, bool], str | None]
    progress: Progress


@dataclass
class TrainState:
    """What a checkpoint stores besides weights and optimizer state."""

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    phase: dict[str, int] = field(default_factory=dict)
    """State of the reward schedule, where its rewards change during training."""
    sums: Metrics = field(default_factory=dict)
    """Sums of the metrics since the last report."""
    sampled_at: int | None = None
    """Step of the snapshot that the next step samples from, where the checkpoint holds it."""


S = TypeVar("S", bound=TrainState)
ADDED = ("phase", "sums", "sampled_at")
"""Fields of a state that checkpoints of older versions lack."""
SNAPSHOT = "snapshot"
"""Folder in a checkpoint: the snapshot that samples, where it is older than the weights."""


def resume(trainer: Trainer, run: Run, folder: Path | None, initial: S) -> S:
    """Load a checkpoint into the trainer and return its state; `initial` without a folder.

    Raises `RunError` when the checkpoint's state lacks a field of this method.
    """
    if folder is None:
        run.cut_back(0)
        return initial
    saved = run.state(folder)
    names = [own.name for own in fields(initial)]
    missing = [name for name in names if name not in {*saved, *ADDED}]
    if missing:
        raise RunError(
            f"{folder}/state.json lacks {', '.join(missing)}; "
            f"it is not a checkpoint of training.method {run.experiment.training.method}"
        )
    trainer.load(run.weights(folder))
    run.cut_back(saved["step"])
    if BEST in run.checkpoints():
        saved["best_score"] = run.state(run.checkpoint(BEST))["best_score"]
    return type(initial)(**{name: saved[name] for name in names if name in saved})


class Loop:
    """An iterable over the remaining steps that takes care of everything but the method."""

    def __init__(
        self,
        trainer: Trainer,
        run: Run,
        hooks: Hooks,
        total: int,
        state: TrainState,
        held_out: Sequence[Row] = (),
    ) -> None:
        self.trainer, self.run, self.hooks = trainer, run, hooks
        self.total, self.state, self.held_out = total, state, held_out
        self.status, self.snapshot_age, self._every = TrainStatus.FINISHED, 0, 1
        self._started, self._validating = time.monotonic() - state.seconds, 0.0
        self._saved_at, self.skipped_in_a_row, self._scores = state.step, 0, ""
        self._sampler: Sampler | None = None
        self._sampled_at = state.step
        self._stop, self._owed, self._lost = StopRequest(), False, False

    def __iter__(self) -> Iterator[int]:
        plan = self.run.experiment.training
        self.hooks.progress.start("training", self.total, self.state.step)
        with stop_requested() as self._stop:
            if self.state.step and self.due(plan.validate_every) and not self._is_validated():
                self._validate()  # the run was stopped before it or in its midst
            while self.state.step < self.total and not self._stop.received:
                yield self.state.step
                if self.due(plan.save_every):
                    self._sampler = None
                    self._save(f"checkpoint_step_{self.state.step}")
                    self._saved_at = self.state.step
                if self.due(plan.validate_every):
                    self._validate()
                    if self._lost and self.run.experiment.evaluation.guard == "stop":
                        break
        if self._stop.received and (self.state.step < self.total or self._owed):
            if self._saved_at != self.state.step:
                self._save(f"checkpoint_step_{self.state.step}")
            self.status = TrainStatus.INTERRUPTED
            return
        if self._lost:
            self._return_to_best()
        self._save(FINAL, optimizer=False)
        if self._stop.received:
            self.status = TrainStatus.FINISHED_ON_REQUEST

    def sampler(self, every: int) -> Sampler:
        """Return a snapshot of the policy that is at most `every` - 1 steps old.

        After a checkpoint that was due the snapshot is new, as it is in a resumed run.
        """
        self._every = every
        if self._sampler is None and self.state.sampled_at is not None:
            folder = self.run.folder / "checkpoints" / f"checkpoint_step_{self.state.step}"
            self.trainer.load(folder / SNAPSHOT, optimizer=False)
            sampler = self.trainer.snapshot()
            self.trainer.load(folder)
            self._sampler, self._sampled_at = sampler, self.state.sampled_at
            self.state.sampled_at = None
        if self._sampler is None or self.state.step - self._sampled_at >= every:
            self._sampler, self._sampled_at = self.trainer.snapshot(), self.state.step
        self.snapshot_age = self.state.step - self._sampled_at
        return self._sampler

    def finish_step(self, note: str) -> None:
        """Count one step and show `note` with the scores of the last validation."""
        self.state.step += 1
        self.state.seconds = time.monotonic() - self._started
        self.hooks.progress.advance(1, f"{note}  {self._scores}")

    @property
    def stopping(self) -> bool:
        """Whether a stop signal came: long work inside a step ends where it can go on later."""
        return self._stop.received

    def due(self, every: int) -> bool:
        """Tell whether something done every N steps is due after the current step."""
        return due(self.state.step, every, self.total)

    def seconds(self) -> float:
        """Wall time of this process in seconds without validations, for speeds."""
        return time.monotonic() - self._validating

    def check_skipped(self, updates: float, skipped: float) -> None:
        """Raise `RunError` when too many steps in a row had only non-finite gradients.

        A step without updates neither counts nor resets.
        """
        if updates:
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped >= updates else 0
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise RunError(
                f"{MAX_SKIPPED} steps in a row had a loss or gradient that is not finite; "
                "lower training.learning_rate"
            )

    def _save(self, name: str, optimizer: bool = True) -> None:
        """Save a checkpoint, with the snapshot that the next steps sample from if it is older."""
        sampler, state = self._sampler, dict(vars(self.state))
        older = optimizer and isinstance(sampler, WeightSampler)
        older = older and 0 < self.state.step - self._sampled_at < self._every

        def save(folder: Path) -> str | None:
            ref = self.hooks.save(folder, optimizer)  # replaces the folder
            if older:
                assert isinstance(sampler, WeightSampler)
                (folder / SNAPSHOT).mkdir()
                adapter = sampler.info.has_adapter
                (sampler.write_adapter if adapter else sampler.write_merged)(folder / SNAPSHOT)
            return ref

        state["sampled_at"] = self._sampled_at if older else None
        self.run.save_checkpoint(name, state, save)

    def _return_to_best(self) -> None:
        """Take the weights of the best checkpoint, which lost nothing against the base."""
        if BEST not in self.run.checkpoints():
            self.hooks.progress.report(
                "evaluation.guard: every validation lost something against the base, so the last "
                "weights are kept"
            )
            return
        best = self.run.checkpoint(BEST)
        self.trainer.load(self.run.weights(best), optimizer=False)
        step = self.run.state(best)["step"]
        self.hooks.progress.report(f"evaluation.guard: the weights of step {step} are kept")

    def _is_validated(self) -> bool:
        here = ("validation", self.state.step)
        return here in {(line["kind"], line["step"]) for line in self.run.metrics()}

    def _validate(self) -> None:
        """Log held-out loss and scores of generated replies; keep the best checkpoint.

        A stop signal breaks it off; a resumed run does it again.
        """
        began, state, sampler = time.monotonic(), self.state, self.trainer.snapshot()
        self._owed = True
        try:
            with self._stop.breaking():
                scores, samples = self.hooks.validate(sampler)
                loss = mean_nll(sampler, self.held_out, self.hooks.progress)
        except Stop:
            return
        self._owed = False
        values = {**({} if loss is None else {"loss": loss}), **scores}
        self.run.log_samples(state.step, samples)
        self.run.log("validation", state.step, values)  # last: it says that all was logged
        shown = " | ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.hooks.progress.report(f"Validation at {state.step} | {shown}")
        fallback = scores.get("pair_accuracy", 0.0 if loss is None else -loss)
        score = scores.get("exact_match", fallback)
        self._lost = scores.get(WORSE_THAN_BASE, 0.0) > 0
        is_best = state.best_score is None or score > state.best_score
        if math.isfinite(score) and is_best and not self._lost:
            state.best_score = score
            self._save(BEST, optimizer=False)
        best = (f"{name} {scores[name]:.2f}" for name in scores if name in SHOWN_SCORES)
        self._scores = " ".join(best)
        self._validating += time.monotonic() - began


def due(step: int, every: int, total: int) -> bool:
    """Tell whether something done every N steps (0: never) is due; the last step always is."""
    return every > 0 and (step % every == 0 or step == total)


def in_parts(
    logprobs: Callable[[Sequence[Row]], Sequence[Array]],
    rows: Sequence[Row],
    progress: Progress,
    what: str,
) -> list[Array]:
    """`logprobs(rows)`, about `TOKENS_OF_A_PART` tokens at a time, with progress after each."""
    values: list[Array] = []
    with progress.inside(what, len(rows)):
        while len(values) < len(rows):
            lengths = np.cumsum([len(row) for row in rows[len(values) :]])
            size = max(1, int(np.searchsorted(lengths, TOKENS_OF_A_PART, side="right")))
            values += logprobs(rows[len(values) : len(values) + size])
            progress.advance(size)
    return values


def mean_nll(sampler: Sampler, rows: Sequence[Row], progress: Progress) -> float | None:
    """Mean negative log-likelihood per trained token, in nats; None without trained tokens."""
    trained = sum(int(row.mask.sum()) for row in rows)
    if not trained:
        return None
    values = in_parts(sampler.logprobs, rows, progress, "held-out loss")
    return -float(sum(each.sum() for each in values)) / trained


class MetricsAccumulator:
    """Sums of step metrics since the last report, kept in the state of a checkpoint.

    A step whose gradient was not finite (`skipped`) counts as skipped and adds nothing else.
    `seconds` is a clock, such as `Loop.seconds`.
    """

    def __init__(self, sums: Metrics, seconds: Callable[[], float]) -> None:
        self.sums, self._seconds, self._started, self._read = sums, seconds, seconds(), 0

    def add(self, metrics: Metrics, rows: Sequence[Row]) -> None:
        """Add the metrics of a step on these rows."""
        self._read += sum(map(len, rows))
        skipped = metrics.get("skipped", 0.0)
        for name, value in ({"skipped": skipped} if skipped else {**metrics, "steps": 1}).items():
            self.sums[name] = self.sums.get(name, 0) + value

    def clear(self) -> None:
        self.sums.clear()
        self._started, self._read = self._seconds(), 0

    def mean(self, name: str, count: str = "steps") -> float:
        """The mean of a metric per step, or per unit of another metric."""
        return self.sums.get(name, 0.0) / max(1.0, self.sums.get(count, 0.0))

    def known_means(self, *names: str) -> Metrics:
        """The means per step of those metrics that the backend gives."""
        return {name: self.mean(name) for name in names if name in self.sums}

    def count(self, name: str) -> int:
        return int(self.sums.get(name, 0))

    def tokens_per_second(self) -> float:
        return self._read / max(1e-9, self._seconds() - self._started)


@contextmanager
def stop_requested() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop after this step; a second one stops
    at once.

    Outside the main thread none is ever received.
    """
    stop = StopRequest()

    def request(number: int, frame: Any) -> None:  # noqa: ARG001
        if stop.received:
            raise KeyboardInterrupt
        stop.received = True
        if stop.breaks:
            raise Stop

    try:
        found = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        before = {number: how for number, how in found.items() if how is not signal.SIG_IGN}
        for number in before:  # nohup ignores SIGHUP, and so does the loop
            signal.signal(number, request)
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
