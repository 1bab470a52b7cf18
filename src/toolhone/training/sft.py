"""Supervised fine-tuning: maximise the log-likelihood of assistant turns.

    status = sft(trainer, rows, held_out, run, Hooks(validate, save, progress), checkpoint)

`rows` carry their training mask (`data.render`); `held_out` rows give the validation loss.
Every logged number is explained in docs/algorithms/sft.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolhone.backends.base import Trainer, train_step
from toolhone.config.sections import TrainingSection
from toolhone.rows import Row
from toolhone.runs.run import Run
from toolhone.training.loop import Hooks, Loop, MetricsAccumulator, TrainState, TrainStatus, resume
from toolhone.training.losses import cross_entropy, own_means, with_own_loss
from toolhone.training.update import (
    optimizer_at,
    planned_steps,
    seeded_batch,
    step_values,
    with_token_weights,
)


def sft(
    trainer: Trainer,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    run: Run,
    hooks: Hooks,
    resume_from: Path | None = None,
) -> TrainStatus:
    """Train on `rows` as `run.experiment.training` plans."""
    plan, seed = run.experiment.training, run.experiment.seed
    total, state = planned_steps(plan, len(rows)), resume(trainer, run, resume_from, TrainState())
    loop = Loop(trainer, run, hooks, total, state, held_out)
    sums = MetricsAccumulator(state.sums, loop.seconds)
    loss = with_own_loss(cross_entropy(), plan.loss)
    for step in loop:
        batch = with_token_weights(next_rows(rows, plan, seed, step))
        metrics = train_step(trainer, [batch], loss, optimizer_at(plan, step, total))
        sums.add(metrics, batch)
        loop.check_skipped(1, metrics.get("skipped", 0.0))
        speed = f"{sums.tokens_per_second():,.0f} tokens/s"
        loop.finish_step(f"loss {metrics['loss']:.3f}  {speed}")
        if loop.due(plan.log_every):
            report(loop, sums)
            sums.clear()
    return loop.status


def next_rows(rows: Sequence[Row], plan: TrainingSection, seed: int, step: int) -> list[Row]:
    """The rows of one optimizer step, in a new seeded order in every epoch."""
    return seeded_batch(rows, plan.batch_size * plan.gradient_accumulation_steps, seed, step)


def report(loop: Loop, sums: MetricsAccumulator) -> None:
    """Log means per trained token and per step since the last report."""
    state, plan = loop.state, loop.run.experiment.training
    values = {
        "loss": sums.mean("nll", "tokens"),
        **({} if plan.loss is None else {"own_loss": sums.mean("loss"), **own_means(sums.sums)}),
        **sums.known_means("grad_norm"),
        **step_values(loop, sums),
    }
    loop.run.log("train", state.step, values)
    left = (loop.total - state.step) * state.seconds / state.step
    loop.hooks.progress.report(
        f"Iteration {state.step}/{loop.total} | Loss: {values['loss']:.4f} | "
        f"{values['tokens_per_second']:,.0f} tokens/s | lr {values['learning_rate']:.2e} | "
        f"{left:.0f} s left"
    )
