"""Direct preference optimisation: make the chosen reply likelier than the rejected one, measured from where training begins.

    ending = dpo(trainer, rows, held_out, run, Hooks(validate, save, progress))

Rows come in pairs of one group, the chosen one first (`data.pair_rows`). Once, before the first step: the log-probability of every
trained token under the policy as it is then, the reference; it is kept in RUN/reference.npz, so that a resumed run has it. Each
step: take the next pairs of a seeded order; weigh each pair by 1 / (pairs of the step); one `forward_backward`, one `optim_step`;
then log, validate (held-out pairs, and replies that are generated), and save, each when it is due. The loss is `preference_loss`;
its variants are in `training.rl.dpo`, its beta is `training.rl.beta`.

Rafailov et al. 2023, arXiv:2305.18290. Every logged number is explained in docs/algorithms/dpo.md. Where pairs come from is not
said here (`algorithms.pairs`).
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from toolhone.backends.base import Loss, Metrics, Sampler, Trainer, random_stream
from toolhone.config.sections import TrainingSection
from toolhone.errors import CapabilityError, ConfigError, RunError
from toolhone.rows import Array, Row
from toolhone.runs.run import FINAL, Run, writing
from toolhone.training.policy_losses import Preference, preference_loss, reply_shares
from toolhone.training.sft import (
    MOST_SKIPPED,
    Hooks,
    TrainState,
    TrainStatus,
    Validation,
    due,
    optimizer_at,
    planned_steps,
    resume,
    save,
    stop_requested,
    validate,
)

Pair = tuple[Row, Row]
"""The chosen row and the rejected one."""
REFERENCE = "reference.npz"
PER_PAIR = (
    "margin",
    "accuracy",
    "chosen_reward",
    "rejected_reward",
    "chosen_logp",
    "rejected_logp",
)
"""Metrics of the loss that are sums over pairs, and are logged as means."""


def dpo(
    trainer: Trainer,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    run: Run,
    hooks: Hooks,
    resume_from: Path | None = None,
) -> TrainStatus:
    """Train on the pairs in `rows`; those in `held_out` are validated. The plan is `run.experiment.training`."""
    plan, seed = run.experiment.training, run.experiment.seed
    check_plan(plan, trainer)
    loss = loss_of(plan)
    known = with_pair_references(trainer, [*rows, *held_out], run, fresh=resume_from is None)
    pairs, others = group_pairs(known[: len(rows)]), known[len(rows) :]
    watched = replace(hooks, validate=lambda sampler: _validated(hooks, sampler, others, loss))
    total = planned_steps(plan, len(pairs))
    state = resume(trainer, run, resume_from)
    started, tally, scores, saved = (
        time.monotonic() - state.seconds,
        PairAccumulator(),
        "",
        state.step,
    )
    hooks.progress.start("training", total, state.step)
    with stop_requested() as stopping:
        while state.step < total and not stopping():
            batch = with_pair_weights(next_pairs(pairs, plan, seed, state.step))
            metrics = trainer.forward_backward(batch, loss).result()
            metrics |= trainer.optim_step(optimizer_at(plan, state.step, total)).result()
            state.step += 1
            state.seconds = time.monotonic() - started
            tally.count(metrics, sum(map(len, batch)))
            hooks.progress.advance(1, f"loss {metrics['loss']:.3f}  {scores}")
            if due(state.step, plan.log_every, total):
                tally = _report(tally, state, total, plan, run, hooks)
            if due(state.step, plan.save_every, total):
                save(f"checkpoint_step_{state.step}", state, run, hooks)
                saved = state.step
            if due(state.step, plan.validate_every, total):
                with tally.paused():
                    scores = validate(trainer, (), state, run, watched)
        stopped = stopping()
    if stopped and state.step < total:
        if saved != state.step:
            save(f"checkpoint_step_{state.step}", state, run, hooks)
        return TrainStatus.INTERRUPTED
    save(FINAL, state, run, hooks, optimizer=False)
    return TrainStatus.FINISHED_ON_REQUEST if stopped else TrainStatus.FINISHED


def check_plan(plan: TrainingSection, trainer: Trainer) -> None:
    """Refuse, before anything is computed, what DPO has no meaning for."""
    dpo = plan.rl.dpo
    if plan.optimizer == "muon" and not trainer.can.muon:
        raise CapabilityError("training.optimizer: this backend has no muon; use adamw")
    if plan.loss_on == "all":
        raise ConfigError(
            "training.loss_on is 'all', but DPO compares what the assistant says after one prompt; leave it out"
        )
    if dpo.loss_type == "ipo" and dpo.label_smoothing:
        raise ConfigError(
            "training.rl.dpo.label_smoothing has no meaning for the loss of IPO; leave it out, or use loss_type sigmoid"
        )
    if not plan.rl.beta:
        raise ConfigError("training.rl.beta is 0, with which DPO learns nothing; 0.1 is usual")


def loss_of(plan: TrainingSection) -> Loss:
    """The loss that the plan asks for."""
    dpo = plan.rl.dpo
    kind: Preference = "ipo" if dpo.loss_type == "ipo" else "dpo"
    return preference_loss(
        kind, plan.rl.beta, dpo.label_smoothing, dpo.length_normalised, dpo.rpo_alpha
    )


def group_pairs(rows: Sequence[Row]) -> list[Pair]:
    """Rows as pairs; neighbours of one group, the same up to where the first of them is trained."""
    assert len(rows) % 2 == 0, f"rows of pairs come in twos, got {len(rows)}"
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    assert all(a.group is not None and a.group == b.group for a, b in pairs), (
        "rows of a pair stand together and share a group"
    )
    return pairs


def next_pairs(pairs: Sequence[Pair], plan: TrainingSection, seed: int, step: int) -> list[Row]:
    """The rows of one step's pairs: a new seeded permutation in every epoch, a pure function of (seed, step)."""
    size = plan.batch_size * plan.gradient_accumulation_steps
    places = range(step * size, (step + 1) * size)
    orders = {
        epoch: random_stream(seed, epoch).permutation(len(pairs))
        for epoch in {place // len(pairs) for place in places}
    }
    chosen = [pairs[orders[place // len(pairs)][place % len(pairs)]] for place in places]
    return [row for pair in chosen for row in pair]


def with_pair_weights(rows: Sequence[Row]) -> list[Row]:
    """The rows with `share`, and `weights` float32 [T] that add up to 1 / (pairs of the step) over each row."""
    shares, each = reply_shares(rows), np.float32(2 / max(1, len(rows)))
    return [
        row.with_arrays(share=share, weights=share * each)
        for row, share in zip(rows, shares, strict=True)
    ]


def with_pair_references(trainer: Trainer, rows: Sequence[Row], run: Run, fresh: bool) -> list[Row]:
    """The rows with `ref_logprobs`: computed with the policy as it is now where the run is fresh, else as the run began with it."""
    path, digest = run.folder / REFERENCE, _digest(rows)
    if fresh:
        values = trainer.snapshot().logprobs(rows)
        _write(path, values, digest)
    else:
        values = _read(path, rows, digest)
    return [row.with_arrays(ref_logprobs=known) for row, known in zip(rows, values, strict=True)]


def _digest(rows: Sequence[Row]) -> str:
    """A hash of all ids and masks, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "little") + row.tokens.tobytes() + row.mask.tobytes())
    return digest.hexdigest()


def _write(path: Path, values: Sequence[Array], digest: str) -> None:
    whole = np.concatenate(values) if values else np.zeros(0, np.float32)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        with partial.open("wb") as file:
            np.savez(file, reference=whole, rows_sha256=np.array(digest))
        partial.replace(path)


def _read(path: Path, rows: Sequence[Row], digest: str) -> list[Array]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            whole, found = stored["reference"], str(stored["rows_sha256"])
    except FileNotFoundError:
        raise RunError(
            f"{path} is missing, and with it the policy that this run compares with; train into another folder"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}); train into another folder") from None
    if found != digest:
        raise RunError(
            f"{path}: the pairs are not what they were when the run began; train into another folder"
        )
    return np.split(whole, np.cumsum([len(row) for row in rows])[:-1])


def _validated(hooks: Hooks, sampler: Sampler, held_out: Sequence[Row], loss: Loss) -> Validation:
    """Scores of generated replies, and how the policy ranks held-out pairs."""
    scores, samples = hooks.validate(sampler)
    return {**pair_scores(sampler, held_out, loss), **scores}, samples


def pair_scores(sampler: Sampler, rows: Sequence[Row], loss: Loss) -> Metrics:
    """How held-out pairs are ranked.

    `pair_accuracy`: the share of pairs whose chosen side gained more on the reference. `pair_margin`: how much more, times beta.
    `chosen_nll`: mean negative log-likelihood per token of the chosen sides.
    """
    if not rows:
        return {}
    means = bool(loss.config["length_normalised"]) or loss.name == "ipo"
    shares = reply_shares(rows) if means else [row.mask.astype(np.float32) for row in rows]
    now = sampler.logprobs(rows)
    gains = [
        float(((logp - row.arrays["ref_logprobs"]) * share).sum())
        for logp, row, share in zip(now, rows, shares, strict=True)
    ]
    margins = np.array(gains[0::2]) - np.array(gains[1::2])
    chosen = sum(float(logp.sum()) for logp in now[0::2]) / sum(
        int(row.mask.sum()) for row in rows[0::2]
    )
    return {
        "pair_accuracy": float((margins > 0).mean()),
        "pair_margin": loss.config["beta"] * float(margins.mean()),
        "chosen_nll": -chosen,
    }


@dataclass
class PairAccumulator:
    """Sums since the last report. A step whose gradient is not finite was skipped by the backend; many in a row stop the run."""

    started: float = field(default_factory=time.monotonic)
    sums: Metrics = field(default_factory=dict)
    steps: int = 0
    read: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def count(self, metrics: Metrics, read: int) -> None:
        self.read += read
        if metrics.get("skipped"):
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= MOST_SKIPPED:
                raise RunError(
                    f"{MOST_SKIPPED} steps in a row had a loss or gradient that is not finite; lower training.learning_rate"
                )
            return
        self.steps, self.skipped_in_a_row = self.steps + 1, 0
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training."""
        before = time.monotonic()
        yield
        self.started += time.monotonic() - before

    def means(self) -> Metrics:
        """Per step the loss and the gradient's norm, per pair what the loss counts in pairs, per chosen token the KL."""
        steps, pairs, tokens = (
            max(1.0, float(n))
            for n in (self.steps, self.sums.get("pairs", 0), self.sums.get("chosen_tokens", 0))
        )
        return {
            "loss": self.sums.get("loss", 0.0) / steps,
            **{name: self.sums.get(name, 0.0) / pairs for name in PER_PAIR},
            "kl_reference": self.sums.get("kl_reference", 0.0) / tokens,
            "grad_norm": self.sums.get("grad_norm", 0.0) / steps,
        }


def advice(means: Metrics, done: float) -> str | None:
    """What the numbers of a report suggest after this share of the steps; None when nothing stands out (docs/algorithms/dpo.md)."""
    if means["chosen_reward"] < -1:
        return (
            f"the chosen replies are becoming less likely, too (reward {means['chosen_reward']:.1f}): raise training.rl.beta, or "
            "lower training.learning_rate"
        )
    if means["accuracy"] > 0.99 and means["loss"] < 0.01:
        return "every pair is told apart: what is learned from here on only leads away from the start; stop, or find harder pairs"
    if done > 0.5 and means["accuracy"] < 0.55:
        return "the pairs are hardly told apart: raise training.learning_rate, or look at the pairs in the run folder (pairs.jsonl)"
    return None


def _report(
    tally: PairAccumulator,
    state: TrainState,
    total: int,
    plan: TrainingSection,
    run: Run,
    hooks: Hooks,
) -> PairAccumulator:
    """Log the means since the last report and begin a new tally."""
    means = tally.means()
    rest = {
        "learning_rate": optimizer_at(plan, state.step - 1, total).learning_rate,
        "tokens_per_second": tally.read / max(1e-9, time.monotonic() - tally.started),
        "trained_tokens": int(tally.sums.get("tokens", 0.0)),
        "skipped_steps": tally.skipped,
        "seconds": round(state.seconds, 3),
    }
    run.log("train", state.step, {**means, **rest})
    hooks.progress.report(
        f"Iteration {state.step}/{total} | Loss {means['loss']:.4f} | Margin {means['margin']:.3f} | "
        f"Accuracy {means['accuracy']:.3f} | {rest['tokens_per_second']:,.0f} tokens/s"
    )
    if tally.steps and (sentence := advice(means, state.step / total)) is not None:
        hooks.progress.report(f"  note: {sentence}")
    return PairAccumulator(skipped_in_a_row=tally.skipped_in_a_row)
