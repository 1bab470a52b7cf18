"""Supervised fine-tuning as an algorithm, on the toy backend: schedule, order of the data,
resuming, Ctrl-C, best checkpoint.
"""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolhone.backends.base import Done, Metrics, Optimizer, Sampler
from toolhone.backends.toy import ToyTrainer, open_toy
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment, ScheduleSection
from toolhone.errors import RunError
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run
from toolhone.training.loop import Hooks, TrainStatus, Validation, due, mean_nll, stop_requested
from toolhone.training.losses import cross_entropy
from toolhone.training.sft import next_rows, sft
from toolhone.training.update import learning_rate_factor, planned_steps, with_token_weights

ROWS = [Row.of([1 + i % 3, 5 + i % 5, 5 + i % 5, 2], [False, False, True, True]) for i in range(10)]


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


def plan(**training: Any) -> Experiment:
    numbers = {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 0.1,
        "log_every": 3,
        "validate_every": 0,
        "save_every": 5,
    }
    return make_experiment({"training": {**numbers, **training}}, "the test")


def hooks(trainer: ToyTrainer, scores: Sequence[float] = (), at_step: Any = None) -> Hooks:
    values = iter(scores)

    def validate(_: Sampler) -> Validation:
        return {"exact_match": next(values)}, [{"id": "t", "text": "x"}]

    def save(folder: Path, optimizer: bool) -> None:
        trainer.save(folder, optimizer)
        if at_step:
            at_step()

    return Hooks(validate, save, Lines())


def train(
    folder: Path, experiment: Experiment, **options: Any
) -> tuple[ToyTrainer, Run, TrainStatus]:
    trainer, run = open_toy(16, seed=1), Run.create(folder, experiment)
    return trainer, run, sft(trainer, ROWS, ROWS[:3], run, hooks(trainer, **options))


def logged(run: Run, name: str, kind: str = "train") -> list[float]:
    return [line[name] for line in run.metrics() if line["kind"] == kind]


def test_the_loss_falls_and_is_a_mean_over_trained_tokens(tmp_path: Path) -> None:
    trainer, run, ending = train(tmp_path / "run", plan(steps=40))
    losses = logged(run, "loss")
    assert ending is TrainStatus.FINISHED
    assert losses[0] > 1.5
    assert losses[-1] < 0.3 * losses[0]
    assert mean_nll(trainer.snapshot(), ROWS, Progress()) == pytest.approx(losses[-1], abs=0.1)


def test_a_step_of_accumulated_batches_equals_one_large_batch(tmp_path: Path) -> None:
    one, _, _ = train(tmp_path / "one", plan(batch_size=8))
    two, _, _ = train(tmp_path / "two", plan(batch_size=4, gradient_accumulation_steps=2))
    for left, right in zip(
        one.snapshot().logprobs(ROWS), two.snapshot().logprobs(ROWS), strict=True
    ):
        assert np.array_equal(left, right)


def test_weights_sum_to_one_over_the_whole_batch_whatever_the_lengths() -> None:
    rows = with_token_weights([Row.of([1] * n, [True] * n) for n in (2, 5, 9)])
    assert sum(float(row.arrays["weights"].sum()) for row in rows) == pytest.approx(1.0)
    assert all(row.arrays["weights"][0] == 0 for row in rows)


def test_every_row_occurs_once_in_an_epoch_and_the_order_depends_on_seed_and_epoch() -> None:
    training = plan(batch_size=5).training
    epochs = [
        [
            id(row)
            for step in (2 * epoch, 2 * epoch + 1)
            for row in next_rows(ROWS, training, 7, step)
        ]
        for epoch in range(2)
    ]
    assert all(sorted(epoch) == sorted(map(id, ROWS)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [id(row) for row in next_rows(ROWS, training, 8, 0)] != epochs[0][:5]


def test_a_batch_larger_than_the_data_goes_round() -> None:
    assert len(next_rows(ROWS[:3], plan(batch_size=8).training, 0, 5)) == 8


@pytest.mark.parametrize(
    ("steps", "epochs", "rows", "expected"),
    [(None, 1, 10, 3), (None, 2.5, 10, 7), (9, 1, 10, 9), (None, 0.01, 10, 1)],
)
def test_steps_come_from_epochs_unless_they_are_given(
    steps: int | None, epochs: float, rows: int, expected: int
) -> None:
    assert planned_steps(plan(steps=steps, epochs=epochs).training, rows) == expected


def test_the_rate_warms_up_stays_and_falls_to_nearly_zero() -> None:
    schedule = ScheduleSection(shape="linear", warmup_steps=4, decay_share=0.5)
    rates = [learning_rate_factor(schedule, step, 24) for step in range(24)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:15] == [1.0] * 11
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate_factor(ScheduleSection(shape="constant", warmup_steps=0), 23, 24) == 1.0
    share = ScheduleSection(warmup_ratio=0.21, warmup_steps=3)  # ceil(0.21 * 24) = 6 steps
    steps = ScheduleSection(warmup_steps=6)
    assert [learning_rate_factor(share, step, 24) for step in range(24)] == [
        learning_rate_factor(steps, step, 24) for step in range(24)
    ]
    assert learning_rate_factor(
        ScheduleSection(shape="cosine", warmup_steps=0), 12, 24
    ) == pytest.approx(0.5)


def test_log_validate_and_save_keep_their_own_intervals(tmp_path: Path) -> None:
    _, run, _ = train(
        tmp_path / "run", plan(log_every=5, validate_every=4, save_every=6), scores=[0.1, 0.2, 0.3]
    )
    assert logged(run, "step") == [5, 10, 12]
    assert logged(run, "step", "validation") == [4, 8, 12]
    assert run.checkpoints() == ["checkpoint_step_6", "checkpoint_step_12", BEST, FINAL]
    assert due(12, 0, 12) is False


def test_the_best_checkpoint_is_the_one_with_the_highest_exact_match(tmp_path: Path) -> None:
    _, run, _ = train(tmp_path / "run", plan(validate_every=4), scores=[0.2, 0.6, 0.4])
    state = run.state(run.checkpoint(BEST))
    assert (state["step"], state["best_score"]) == (8, 0.6)
    final, best = open_toy(16, seed=1), open_toy(16, seed=1)
    final.load(run.checkpoint(FINAL), optimizer=False)
    best.load(run.checkpoint(BEST), optimizer=False)
    same = [
        np.array_equal(a, b)
        for a, b in zip(
            final.snapshot().logprobs(ROWS), best.snapshot().logprobs(ROWS), strict=True
        )
    ]
    assert not any(same)


def test_validation_logs_the_loss_on_held_out_rows_and_the_replies(tmp_path: Path) -> None:
    _, run, _ = train(tmp_path / "run", plan(validate_every=6), scores=[0.2, 0.6])
    assert logged(run, "loss", "validation")[1] < logged(run, "loss", "validation")[0]
    samples = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["id"]) for sample in samples] == [(6, "t"), (12, "t")]


def test_a_resumed_run_ends_with_the_same_bits_and_the_same_log(tmp_path: Path) -> None:
    whole, whole_run, _ = train(tmp_path / "whole", plan())

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    _, run, ending = train(tmp_path / "cut", plan(), at_step=interrupt)
    assert ending is TrainStatus.INTERRUPTED
    assert run.latest() == run.folder / "checkpoints" / "checkpoint_step_5"
    run.log("train", 7, {"loss": 0.0})
    trainer = open_toy(16, seed=1)
    assert (
        sft(trainer, ROWS, ROWS[:3], run, hooks(trainer), resume_from=run.latest())
        is TrainStatus.FINISHED
    )
    for left, right in zip(
        whole.snapshot().logprobs(ROWS), trainer.snapshot().logprobs(ROWS), strict=True
    ):
        assert np.array_equal(left, right)
    assert logged(run, "step") == logged(whole_run, "step")
    assert logged(run, "loss")[0] == logged(whole_run, "loss")[0]
    assert logged(run, "loss")[2:] == logged(whole_run, "loss")[2:]


def test_a_run_resumes_from_the_reference_that_its_trainer_saved(tmp_path: Path) -> None:
    loaded: list[Any] = []

    class Remote(ToyTrainer):
        def load(self, ref: Any, optimizer: bool = True) -> None:  # noqa: ARG002
            loaded.append(ref)

    run = Run.create(tmp_path / "run", plan())
    state = {"step": 5, "seconds": 1.0, "best_score": None}
    folder = run.save_checkpoint("checkpoint_step_5", state, lambda _: "service://weights/5")
    trainer = open_toy(16, seed=1)
    trainer.__class__ = Remote
    assert sft(trainer, ROWS, [], run, hooks(trainer), folder) is TrainStatus.FINISHED
    assert loaded == ["service://weights/5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_saves_the_step_in_hand(number: signal.Signals, tmp_path: Path) -> None:
    class Presses(Lines):
        def advance(self, count: int = 1, note: str = "") -> None:
            self.lines += [note] * count
            if len(self.lines) == 3:
                os.kill(os.getpid(), number)

    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan(log_every=0))
    surroundings = hooks(trainer)
    heard = Hooks(surroundings.validate, surroundings.save, Presses())
    before = signal.signal(number, signal.default_int_handler)  # `nohup` ignores one of them
    try:
        ending = sft(trainer, ROWS, [], run, heard)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert ending is TrainStatus.INTERRUPTED
    assert run.checkpoints() == ["checkpoint_step_3"]


def test_a_signal_that_the_process_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requested() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping.received
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.received
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_many_steps_that_are_not_finite_stop_the_run_and_name_the_remedy(tmp_path: Path) -> None:
    class Exploding(ToyTrainer):
        def optim_step(self, _: Optimizer) -> Done[Metrics]:
            return Done({"grad_norm": float("inf"), "skipped": 1.0})

    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan(steps=100))
    trainer.__class__ = Exploding
    with pytest.raises(RunError, match=r"20 steps in a row .* lower training\.learning_rate"):
        sft(trainer, ROWS, [], run, hooks(trainer))
    assert all(line["skipped_steps"] == 3 for line in run.metrics())
    assert not any("grad_norm" in line for line in run.metrics()), "none was finite"


def test_a_checkpoint_that_is_due_is_saved_before_validation_can_fail(tmp_path: Path) -> None:
    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan(validate_every=5))
    with pytest.raises(RuntimeError, match="StopIteration"):
        sft(trainer, ROWS, [], run, hooks(trainer, scores=[]))
    assert run.checkpoints() == ["checkpoint_step_5"]


def test_ctrl_c_in_the_last_step_finishes_the_training_but_says_that_it_came(
    tmp_path: Path,
) -> None:
    class Presses(Progress):
        def advance(self, count: int = 1, note: str = "") -> None:
            if len(seen) == 11:
                os.kill(os.getpid(), signal.SIGINT)
            seen.extend([note] * count)

    seen: list[str] = []
    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan())
    surroundings = hooks(trainer)
    ending = sft(trainer, ROWS, [], run, Hooks(surroundings.validate, surroundings.save, Presses()))
    assert ending is TrainStatus.FINISHED_ON_REQUEST
    assert FINAL in run.checkpoints()


def test_reports_say_step_loss_speed_and_time_left(tmp_path: Path) -> None:
    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan())
    surroundings = hooks(trainer)
    sft(trainer, ROWS, [], run, surroundings)
    first = surroundings.progress.lines[0]  # type: ignore[attr-defined]
    assert first.startswith("Iteration 3/12 | Loss: ")
    assert "tokens/s" in first
    assert first.endswith("s left")


def test_the_cross_entropy_of_a_step_is_what_is_reported() -> None:
    trainer = open_toy(16, seed=1)
    batch = with_token_weights(ROWS[:4])
    expected = mean_nll(trainer.snapshot(), batch, Progress())
    assert trainer.forward_backward(batch, cross_entropy()).result()["loss"] == pytest.approx(
        expected, rel=1e-6
    )
