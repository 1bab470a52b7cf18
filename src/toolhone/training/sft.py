"""Supervised fine-tuning: raise the probability of what the assistant says.

    ending = sft(trainer, rows, held_out, run, Hooks(validate, save, progress))

Each step: take the next rows of a seeded order; weight every trained token by 1 / (trained tokens of the whole step); one
`forward_backward`, one `optim_step`; then log, validate by generating, and save, each when it is due. A resumed run takes up the
order, the schedule and the optimiser where they stood. What the rows hold is decided before (`data.render`).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.backends.base import Adam, Metrics, Muon, Optimizer, Sampler, Trainer, random_stream
from toolhone.config.sections import ScheduleSection, TrainingSection
from toolhone.errors import CapabilityError, RunError
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run
from toolhone.training.losses import cross_entropy

Validation = tuple[Metrics, list[dict[str, Any]]]
"""Scores of generated replies by name, and the replies themselves."""
MOST_SKIPPED = 20
"""Skipped steps in a row after which a run gives up (a float16 loss scale settles in fewer)."""
SHOWN = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format")
"""Scores that stand beside the progress bar after a validation."""


class TrainStatus(StrEnum):
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Stopped by Ctrl-C after the step in hand; the state was saved."""
    FINISHED_ON_REQUEST = "finished_on_request"
    """Ctrl-C came in the last step: the training is whole, and what would follow it is not wanted."""


@dataclass(frozen=True)
class Hooks:
    """What training asks of its surroundings: scores of a policy, and a checkpoint written into a folder."""

    validate: Callable[[Sampler], Validation]
    save: Callable[[Path, bool], str | None]
    progress: Progress


@dataclass
class TrainState:
    """What a checkpoint must remember beside weights and optimiser."""

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    phase: dict[str, int] = field(default_factory=dict)
    """Which phase of the rewards holds, where there are phases."""


@dataclass
class MetricsAccumulator:
    """Sums since the last report."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    nll: float = 0.0
    trained: float = 0.0
    tokens: int = 0
    grad_norm: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training."""
        before = time.monotonic()
        yield
        self.started += time.monotonic() - before

    def speed(self) -> float:
        """Tokens per second of wall time."""
        return self.tokens / max(1e-9, time.monotonic() - self.started)


def sft(
    trainer: Trainer,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    run: Run,
    hooks: Hooks,
    resume_from: Path | None = None,
) -> TrainStatus:
    """Train on `rows`; `held_out` rows give the validation loss. The plan is `run.experiment.training`."""
    plan = run.experiment.training
    if plan.optimizer == "muon" and not trainer.can.muon:
        raise CapabilityError("training.optimizer: this backend has no muon; use adamw")
    total = planned_steps(plan, len(rows))
    state = resume(trainer, run, resume_from)
    started = time.monotonic() - state.seconds
    tally, scores, saved = MetricsAccumulator(), "", state.step
    hooks.progress.start("training", total, state.step)
    with stop_requested() as stopping:
        while state.step < total and not stopping():
            batch = with_token_weights(next_rows(rows, plan, run.experiment.seed, state.step))
            metrics = trainer.forward_backward(batch, cross_entropy()).result()
            metrics |= trainer.optim_step(optimizer_at(plan, state.step, total)).result()
            state.step += 1
            state.seconds = time.monotonic() - started
            _count(tally, metrics, batch)
            hooks.progress.advance(
                1, f"loss {metrics['loss']:.3f}  {tally.speed():,.0f} tokens/s  {scores}"
            )
            if due(state.step, plan.log_every, total):
                tally = _report(tally, state, total, plan, run, hooks)
            if due(state.step, plan.save_every, total):
                save(f"checkpoint_step_{state.step}", state, run, hooks)
                saved = state.step
            if due(state.step, plan.validate_every, total):
                with tally.paused():
                    scores = validate(trainer, held_out, state, run, hooks)
        stopped = stopping()
    if stopped and state.step < total:
        if saved != state.step:
            save(f"checkpoint_step_{state.step}", state, run, hooks)
        return TrainStatus.INTERRUPTED
    save(FINAL, state, run, hooks, optimizer=False)
    return TrainStatus.FINISHED_ON_REQUEST if stopped else TrainStatus.FINISHED


def planned_steps(plan: TrainingSection, rows: int) -> int:
    """Optimiser steps: `training.steps`, or as many as `training.epochs` need."""
    per_step = plan.batch_size * plan.gradient_accumulation_steps
    return plan.steps or max(1, math.ceil(plan.epochs * rows / per_step))


def due(step: int, every: int, total: int) -> bool:
    """Whether something done every N steps (0: never) is due after this step; the last step is always due."""
    return every > 0 and (step % every == 0 or step == total)


def next_rows(rows: Sequence[Row], plan: TrainingSection, seed: int, step: int) -> list[Row]:
    """The rows of one optimiser step: a new seeded permutation in every epoch, a pure function of (seed, step)."""
    size = plan.batch_size * plan.gradient_accumulation_steps
    places = range(step * size, (step + 1) * size)
    orders = {
        epoch: random_stream(seed, epoch).permutation(len(rows))
        for epoch in {place // len(rows) for place in places}
    }
    return [rows[orders[place // len(rows)][place % len(rows)]] for place in places]


def with_token_weights(batch: Sequence[Row]) -> list[Row]:
    """The rows with `weights` float32 [T]: 1 / (trained tokens of the whole batch) where trained, so that the loss is a mean."""
    total = sum(int(row.mask.sum()) for row in batch)
    weight = np.float32(1 / max(1, total))
    return [row.with_arrays(weights=row.mask.astype(np.float32) * weight) for row in batch]


def rate_at(schedule: ScheduleSection, step: int, total: int) -> float:
    """The share of the full learning rate at a step (0-based): up in the warm-up, flat, then down to 0 after the last step."""
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.shape == "constant":
        return 1.0
    decay = max(1.0, (total - schedule.warmup_steps) * schedule.decay_share)
    left = min(1.0, (total - step) / decay)
    return left if schedule.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def optimizer_at(plan: TrainingSection, step: int, total: int) -> Optimizer:
    """Every number of the optimiser at this step."""
    share = rate_at(plan.schedule, step, total)
    assert plan.learning_rate is not None, "an experiment fills in the learning rate"
    adam = Adam(plan.learning_rate * share, 0.9, 0.95, 1e-8, plan.weight_decay, plan.max_grad_norm)
    if plan.optimizer == "adamw":
        return adam
    muon = plan.muon
    return Muon(
        muon.learning_rate * share, adam, muon.momentum, muon.weight_decay, plan.max_grad_norm
    )


def resume(trainer: Trainer, run: Run, folder: Path | None) -> TrainState:
    """The state that a checkpoint noted, its weights and optimiser taken; a new one without a folder."""
    if folder is None:
        run.cut_back(0)
        return TrainState()
    saved = run.state(folder)
    missing = [name for name in ("step", "seconds", "best_score") if name not in saved]
    if missing:
        raise RunError(
            f"{folder}/state.json lacks {', '.join(missing)}; it is no checkpoint of a training"
        )
    trainer.load(run.weights(folder))
    run.cut_back(saved["step"])
    best = (
        run.state(run.checkpoint(BEST))["best_score"]
        if BEST in run.checkpoints()
        else saved["best_score"]
    )
    return TrainState(saved["step"], saved["seconds"], best)


def _count(tally: MetricsAccumulator, metrics: Metrics, batch: Sequence[Row]) -> None:
    """Add a step to the tally. A step whose gradient is not finite was skipped by the backend; many in a row stop the run."""
    tally.steps += 1
    tally.tokens += sum(map(len, batch))
    if metrics.get("skipped"):
        tally.skipped += 1
        tally.skipped_in_a_row += 1
        if tally.skipped_in_a_row >= MOST_SKIPPED:
            raise RunError(
                f"{MOST_SKIPPED} steps in a row had a loss or gradient that is not finite; lower training.learning_rate"
            )
        return
    tally.skipped_in_a_row = 0
    tally.nll += metrics["nll"]
    tally.trained += metrics["tokens"]
    tally.grad_norm += metrics["grad_norm"]


def _report(
    tally: MetricsAccumulator,
    state: TrainState,
    total: int,
    plan: TrainingSection,
    run: Run,
    hooks: Hooks,
) -> MetricsAccumulator:
    """Log the means since the last report and begin a new tally."""
    values = {
        "loss": tally.nll / max(1.0, tally.trained),
        "grad_norm": tally.grad_norm / max(1, tally.steps - tally.skipped),
        "learning_rate": optimizer_at(plan, state.step - 1, total).learning_rate,
        "tokens_per_second": tally.speed(),
        "trained_tokens": int(tally.trained),
        "skipped_steps": tally.skipped,
        "seconds": round(state.seconds, 3),
    }
    run.log("train", state.step, values)
    left = (total - state.step) * state.seconds / state.step
    hooks.progress.report(
        f"Iteration {state.step}/{total} | Loss {values['loss']:.4f} | {values['tokens_per_second']:,.0f} tokens/s | "
        f"lr {values['learning_rate']:.2e} | {left:.0f} s left"
    )
    return MetricsAccumulator(skipped_in_a_row=tally.skipped_in_a_row)


def validate(
    trainer: Trainer, held_out: Sequence[Row], state: TrainState, run: Run, hooks: Hooks
) -> str:
    """Loss on held-out rows and scores of generated replies, given back as a line; keeps the best checkpoint by exact match."""
    sampler = trainer.snapshot()
    scores, samples = hooks.validate(sampler)
    loss = mean_nll(sampler, held_out)
    values = {**({} if loss is None else {"loss": loss}), **scores}
    run.log("validation", state.step, values)
    run.log_samples(state.step, samples)
    shown = " | ".join(f"{name} {value:.3f}" for name, value in values.items())
    hooks.progress.report(f"Validation at {state.step} | {shown}")
    score = scores.get("exact_match", scores.get("pair_accuracy", 0.0 if loss is None else -loss))
    if math.isfinite(score) and (state.best_score is None or score > state.best_score):
        state.best_score = score
        save(BEST, state, run, hooks, optimizer=False)
    return " ".join(f"{name} {value:.2f}" for name, value in scores.items() if name in SHOWN)


def mean_nll(sampler: Sampler, rows: Sequence[Row]) -> float | None:
    """Mean negative log-likelihood per trained token, in nats; None without rows."""
    trained = sum(int(row.mask.sum()) for row in rows)
    return (
        -float(sum(values.sum() for values in sampler.logprobs(rows))) / trained
        if trained
        else None
    )


def save(name: str, state: TrainState, run: Run, hooks: Hooks, optimizer: bool = True) -> None:
    """Write a checkpoint with its state."""
    run.save_checkpoint(name, vars(state), lambda folder: hooks.save(folder, optimizer))


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for a stop after the step in hand; a second one stops at once. Gives a function that says whether it came."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:  # noqa: ARG001 (the signature of a signal handler)
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: signals are someone else's
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
