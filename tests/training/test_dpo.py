"""DPO as an algorithm, on the toy backend; and from the experiment file to a trained pico."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from toolhone.api import find_method, train
from toolhone.backends.base import Done, Metrics, Optimizer, Sampler
from toolhone.backends.toy import ToySampler, ToyTrainer, open_toy
from toolhone.config.experiment import load_experiment, make_experiment
from toolhone.config.sections import Experiment
from toolhone.data.negatives import corrupt
from toolhone.data.preferences import assistant_turns
from toolhone.data.templates import Templates
from toolhone.errors import ConfigError, RunError
from toolhone.rows import Array, Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import BEST, FINAL, Run
from toolhone.sources.files import write_jsonl
from toolhone.sources.messages import read_preferences
from toolhone.training.dpo import (
    check_settings,
    dpo,
    group_pairs,
    loss_of,
    next_pairs,
    pair_scores,
    with_pair_weights,
)
from toolhone.training.loop import Hooks, MetricsAccumulator, TrainStatus, Validation
from toolhone.training.preference_pairs import pair_advice
from toolhone.training.reference import REFERENCE, with_pair_references
from toolhone.training.update import optimizer_at


def pair(number: int) -> list[Row]:
    """After [1 + n % 3, 5 + n % 4] the next token once more is better than 12; the ends differ in
    length.
    """
    prompt, good = [1 + number % 3, 5 + number % 4], 5 + number % 4
    chosen = Row.of([*prompt, good, 2], [False, False, True, True])
    rejected = Row.of([*prompt, 12, 12, 2], [False, False, True, True, True])
    return [replace(row, group=f"pair-{number}") for row in (chosen, rejected)]


ROWS = [row for number in range(10) for row in pair(number)]


def plan(dpo: dict[str, Any] | None = None, beta: float = 0.5, **training: Any) -> Experiment:
    numbers = {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 0.1,
        "log_every": 3,
        "validate_every": 0,
        "save_every": 5,
    }
    rl = {"beta": beta, "dpo": dpo or {}}
    return make_experiment(
        {"training": {"method": "dpo", **numbers, "rl": rl, **training}}, "the test"
    )


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


def hooks(trainer: ToyTrainer, scores: Sequence[Metrics] = (), at_save: Any = None) -> Hooks:
    values = iter(scores)

    def validate(_: Sampler) -> Validation:
        return next(values, {}), [{"id": "t", "text": "x"}]

    def save(folder: Path, optimizer: bool) -> None:
        trainer.save(folder, optimizer)
        if at_save:
            at_save()

    return Hooks(validate, save, Lines())


def trained(
    folder: Path, experiment: Experiment, **options: Any
) -> tuple[ToyTrainer, Run, TrainStatus]:
    trainer, run = open_toy(16, seed=1), Run.create(folder, experiment)
    return trainer, run, dpo(trainer, ROWS, ROWS[:6], run, hooks(trainer, **options))


def logged(run: Run, name: str, kind: str = "train") -> list[float]:
    return [line[name] for line in run.metrics() if line["kind"] == kind and name in line]


def sums(sampler: Sampler, rows: Sequence[Row] = ROWS) -> Array:
    return np.array([values.sum() for values in sampler.logprobs(rows)], np.float32)


def same_bits(one: ToyTrainer, two: ToyTrainer) -> bool:
    pairs = zip(one.snapshot().logprobs(ROWS), two.snapshot().logprobs(ROWS), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def test_the_loss_starts_at_log_two_and_falls_as_chosen_replies_gain(tmp_path: Path) -> None:
    trainer, run, ending = trained(tmp_path / "run", plan(steps=60, log_every=1))
    losses = logged(run, "loss")
    assert ending is TrainStatus.FINISHED
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert logged(run, "margin")[0] == pytest.approx(0, abs=1e-6)
    assert losses[-1] < 0.3
    assert logged(run, "accuracy")[-1] == 1
    before, after = sums(open_toy(16, seed=1).snapshot()), sums(trainer.snapshot())
    gain = after - before
    assert (gain[0::2] > gain[1::2]).all()
    assert logged(run, "chosen_reward")[-1] > 0 > logged(run, "rejected_reward")[-1]


def test_what_is_logged_is_what_the_policy_and_its_reference_say(tmp_path: Path) -> None:
    experiment = plan(steps=2, log_every=1, batch_size=10)
    _, run, _ = trained(tmp_path / "run", experiment)
    trainer = open_toy(16, seed=1)
    start = trainer.snapshot()
    other = Run.create(tmp_path / "other", experiment)
    known = with_pair_references(trainer, ROWS, other, True, Progress())
    first = with_pair_weights(next_pairs(group_pairs(known), experiment.training, 0, 0))
    trainer.forward_backward(first, loss_of(experiment.training)).result()
    trainer.optim_step(optimizer_at(experiment.training, 0, 2)).result()
    now, then = sums(trainer.snapshot()), sums(start)
    chosen, rejected = 0.5 * (now - then)[0::2], 0.5 * (now - then)[1::2]
    assert logged(run, "chosen_reward")[1] == pytest.approx(chosen.mean(), rel=1e-4)
    assert logged(run, "rejected_reward")[1] == pytest.approx(rejected.mean(), rel=1e-4)
    assert logged(run, "margin")[1] == pytest.approx((chosen - rejected).mean(), rel=1e-4)
    assert logged(run, "chosen_logp")[1] == pytest.approx(now[0::2].mean(), rel=1e-5)
    assert logged(run, "rejected_logp")[1] == pytest.approx(now[1::2].mean(), rel=1e-5)
    assert logged(run, "loss")[1] == pytest.approx(
        np.log1p(np.exp(-(chosen - rejected))).mean(), rel=1e-4
    )
    assert logged(run, "accuracy")[1] == (chosen > rejected).mean()
    assert logged(run, "kl_reference")[0] == pytest.approx(0, abs=1e-6)
    assert logged(run, "kl_reference")[1] > 0


def test_the_reference_is_the_policy_before_the_first_step_computed_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    honest = ToySampler.logprobs

    def counting(self: ToySampler, rows: Sequence[Row], temperature: float = 1.0) -> list[Array]:
        asked.append(len(rows))
        return honest(self, rows, temperature)

    monkeypatch.setattr(ToySampler, "logprobs", counting)
    _, run, _ = trained(tmp_path / "run", plan())
    assert asked == [len(ROWS) + 6]
    with np.load(run.folder / REFERENCE) as stored:
        kept = stored["reference"]
    wanted = np.concatenate(open_toy(16, seed=1).snapshot().logprobs([*ROWS, *ROWS[:6]]))
    assert np.array_equal(kept, wanted)


def test_a_resumed_run_ends_with_the_same_bits_and_the_same_log(tmp_path: Path) -> None:
    whole, whole_run, _ = trained(tmp_path / "whole", plan())

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    _, run, ending = trained(tmp_path / "cut", plan(), at_save=interrupt)
    assert ending is TrainStatus.INTERRUPTED
    assert run.latest() == run.folder / "checkpoints" / "checkpoint_step_5"
    trainer = open_toy(16, seed=1)
    assert (
        dpo(trainer, ROWS, ROWS[:6], run, hooks(trainer), resume_from=run.latest())
        is TrainStatus.FINISHED
    )
    assert same_bits(whole, trainer)
    assert logged(run, "step") == logged(whole_run, "step")
    for name in ("loss", "margin", "chosen_logp"):
        assert logged(run, name)[2:] == logged(whole_run, name)[2:]


def test_a_run_whose_reference_or_pairs_are_not_what_they_were_is_not_resumed(
    tmp_path: Path,
) -> None:
    trainer, run, _ = trained(tmp_path / "run", plan())
    latest = run.latest()
    with pytest.raises(RunError, match=r"reference.npz belongs to other pairs"):
        dpo(trainer, ROWS[2:], ROWS[:6], run, hooks(trainer), resume_from=latest)
    flipped = [replace(ROWS[0], mask=np.array([False, False, False, True])), *ROWS[1:]]
    with pytest.raises(RunError, match=r"belongs to other pairs"):
        dpo(trainer, flipped, ROWS[:6], run, hooks(trainer), resume_from=latest)
    (run.folder / REFERENCE).write_bytes(b"PK nothing")
    with pytest.raises(RunError, match=r"reference.npz is damaged"):
        dpo(trainer, ROWS, ROWS[:6], run, hooks(trainer), resume_from=latest)
    (run.folder / REFERENCE).unlink()
    with pytest.raises(
        RunError, match=r"reference.npz, the reference policy of this run, is missing"
    ):
        dpo(trainer, ROWS, ROWS[:6], run, hooks(trainer), resume_from=latest)


def test_a_step_of_accumulated_batches_equals_one_large_batch(tmp_path: Path) -> None:
    one, _, _ = trained(tmp_path / "one", plan(batch_size=8))
    two, _, _ = trained(tmp_path / "two", plan(batch_size=4, gradient_accumulation_steps=2))
    assert same_bits(one, two)


def test_each_pair_weighs_the_same_whatever_its_lengths() -> None:
    rows = with_pair_weights(ROWS[:6])
    assert [float(row.arrays["weights"].sum()) for row in rows] == pytest.approx([1 / 3] * 6)
    assert [float(row.arrays["share"].sum()) for row in rows] == pytest.approx([1.0] * 6)


def test_every_pair_occurs_once_in_an_epoch_and_the_order_depends_on_seed_and_epoch() -> None:
    training, pairs = plan(batch_size=5).training, group_pairs(ROWS)
    epochs = [
        [row for step in (2 * epoch, 2 * epoch + 1) for row in next_pairs(pairs, training, 7, step)]
        for epoch in range(2)
    ]
    for rows in epochs:
        assert sorted(map(id, rows)) == sorted(map(id, ROWS))
        assert all(a.group == b.group for a, b in group_pairs(rows))
    order = [[row.group for row in rows] for rows in epochs]
    assert order[0] != order[1]
    assert [row.group for row in next_pairs(pairs, training, 8, 0)] != order[0][:10]
    assert len(next_pairs(pairs[:2], training, 0, 3)) == 10


def test_rows_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(AssertionError, match="come in twos"):
        group_pairs(ROWS[:3])
    with pytest.raises(AssertionError, match="are neighbours and share a group"):
        group_pairs([ROWS[0], ROWS[2]])


def test_ipo_aims_at_a_margin_and_stops_there(tmp_path: Path) -> None:
    _, run, _ = trained(
        tmp_path / "ipo",
        plan({"loss_type": "ipo"}, beta=1.0, steps=250, log_every=50, batch_size=10),
    )
    assert logged(run, "loss")[-1] < 1e-3
    assert logged(run, "margin")[-1] == pytest.approx(0.5, abs=0.05)


def test_label_smoothing_bounds_the_margin_and_means_ignore_length(tmp_path: Path) -> None:
    sharp, smooth, means = (
        trained(tmp_path / name, plan(variant, steps=80, batch_size=10))[1]
        for name, variant in (
            ("sharp", {}),
            ("smooth", {"label_smoothing": 0.3}),
            ("means", {"length_normalised": True}),
        )
    )
    assert logged(smooth, "margin")[-1] < 0.5 * logged(sharp, "margin")[-1]
    assert logged(smooth, "margin")[-1] == pytest.approx(math.log(0.7 / 0.3), abs=0.3)
    assert 0 < logged(means, "margin")[-1] < logged(sharp, "margin")[-1]


def test_the_weight_of_the_chosen_side_makes_it_likelier_than_the_margin_alone_would(
    tmp_path: Path,
) -> None:
    plain, kept = (
        trained(tmp_path / name, plan({"rpo_alpha": alpha}, steps=80, batch_size=10))[1]
        for name, alpha in (("plain", 0.0), ("kept", 1.0))
    )
    assert logged(kept, "chosen_logp")[-1] > 0.5 * logged(plain, "chosen_logp")[-1]
    assert logged(kept, "loss")[0] > logged(plain, "loss")[0] + 1


def test_validation_ranks_held_out_pairs_and_decides_on_the_best_checkpoint(tmp_path: Path) -> None:
    _, run, _ = trained(tmp_path / "run", plan(steps=20, validate_every=10))
    accuracy, margin, nll = (
        logged(run, name, "validation") for name in ("pair_accuracy", "pair_margin", "chosen_nll")
    )
    assert len(accuracy) == 2
    assert accuracy[-1] == 1
    assert margin[-1] > margin[0] > 0
    assert nll[-1] < nll[0]
    assert run.state(run.checkpoint(BEST))["best_score"] == max(accuracy)
    scored = [{"exact_match": 0.6}, {"exact_match": 0.4}]
    _, other, _ = trained(tmp_path / "other", plan(steps=20, validate_every=10), scores=scored)
    assert other.state(other.checkpoint(BEST))["step"] == 10


@pytest.mark.parametrize("variant", [{}, {"length_normalised": True}, {"loss_type": "ipo"}])
def test_scores_of_pairs_agree_with_the_metrics_of_the_loss(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    experiment = plan(variant)
    trainer, loss = open_toy(16, seed=1), loss_of(experiment.training)
    run = Run.create(tmp_path / "run", experiment)
    rows = with_pair_references(open_toy(16, seed=5), ROWS, run, True, Progress())
    rows = with_pair_weights(rows)
    metrics = trainer.forward_backward(rows, loss).result()
    scores = pair_scores(trainer.snapshot(), rows, loss, Progress())
    assert scores["pair_accuracy"] == pytest.approx(metrics["accuracy"] / metrics["pairs"])
    assert scores["pair_margin"] == pytest.approx(metrics["margin"] / metrics["pairs"], rel=1e-4)
    assert pair_scores(trainer.snapshot(), [], loss, Progress()) == {}


def test_what_has_no_meaning_for_dpo_is_refused_before_anything_is_computed() -> None:
    for wrong, sentence in (
        (plan(loss_on="all"), "training.loss_on is 'all'"),
        (
            plan({"loss_type": "ipo", "label_smoothing": 0.1}),
            "label_smoothing has no meaning for the IPO loss",
        ),
    ):
        with pytest.raises(ConfigError, match=sentence):
            check_settings(wrong.training)
    with pytest.raises(ConfigError, match="beta is 0, with which DPO learns nothing"):
        plan(beta=0)
    assert make_experiment({"training": {"method": "dpo"}}, "the test").training.rl.beta == 0.1


def test_many_steps_that_are_not_finite_stop_the_run_and_name_the_remedy(tmp_path: Path) -> None:
    class Exploding(ToyTrainer):
        def optim_step(self, _: Optimizer) -> Done[Metrics]:
            return Done({"grad_norm": float("inf"), "skipped": 1.0})

    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan(steps=100))
    trainer.__class__ = Exploding
    with pytest.raises(RunError, match=r"20 steps in a row .* lower training\.learning_rate"):
        dpo(trainer, ROWS, [], run, hooks(trainer))
    assert all(line["skipped_steps"] == 3 and line["loss"] == 0 for line in run.metrics())


def test_ctrl_c_saves_the_step_in_hand_and_in_the_last_step_finishes(tmp_path: Path) -> None:
    for last, ending, names in (
        (3, TrainStatus.INTERRUPTED, ["checkpoint_step_3"]),
        (12, TrainStatus.FINISHED_ON_REQUEST, [FINAL]),
    ):

        class Presses(Progress):
            def __init__(self, at: int) -> None:
                self.left = at

            def advance(self, count: int = 1, note: str = "") -> None:
                self.left -= count if note else 0
                if note and self.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)

        trainer, run = (
            open_toy(16, seed=1),
            Run.create(tmp_path / f"run{last}", plan(save_every=0, log_every=0)),
        )
        surroundings = hooks(trainer)
        ended = dpo(
            trainer, ROWS, [], run, Hooks(surroundings.validate, surroundings.save, Presses(last))
        )
        assert (ended, run.checkpoints()) == (ending, names)


@pytest.mark.parametrize(
    ("means", "done", "word"),
    [
        ({"chosen_reward": -1.5, "accuracy": 0.9, "loss": 0.3}, 0.5, "less likely"),
        (
            {"chosen_reward": 0.5, "accuracy": 1.0, "loss": 0.001},
            0.5,
            "every pair is ranked correctly",
        ),
        ({"chosen_reward": 0.0, "accuracy": 0.5, "loss": 0.69}, 0.9, "hardly distinguished"),
        ({"chosen_reward": 0.0, "accuracy": 0.5, "loss": 0.69}, 0.1, None),
        ({"chosen_reward": 0.3, "accuracy": 0.85, "loss": 0.4}, 0.9, None),
    ],
)
def test_training_says_what_its_numbers_suggest(
    means: Metrics, done: float, word: str | None
) -> None:
    sentence = pair_advice(means, done)
    assert (sentence is None) if word is None else (sentence is not None and word in sentence)


def test_a_report_says_loss_margin_and_accuracy(tmp_path: Path) -> None:
    trainer, run = open_toy(16, seed=1), Run.create(tmp_path / "run", plan())
    surroundings = hooks(trainer)
    dpo(trainer, ROWS, [], run, surroundings)
    first = surroundings.progress.lines[0]  # type: ignore[attr-defined]
    assert first.startswith("Iteration 3/12 | Loss: 0.")
    assert "| Margin: " in first
    assert "| Accuracy: " in first
    assert MetricsAccumulator({}, lambda: 0.0).mean("loss") == 0


SMALL = (
    *(
        "model.name=pico",
        "training.steps=2",
        "training.batch_size=2",
        "training.gradient_accumulation_steps=1",
        "training.lora=null",
    ),
    *(
        "training.validation_samples=2",
        "training.log_every=1",
        "training.validate_every=2",
        "training.save_every=1",
    ),
    *(
        "evaluation.max_new_tokens=4",
        "evaluation.at_end=false",
        "training.rl.group_size=2",
        "training.rl.max_completion_length=6",
    ),
)


def small(*overrides: str) -> Experiment:
    return load_experiment(
        None, ["training.method=dpo", *SMALL, "data.samples=6", *overrides], tell=lambda _: None
    )


def test_pico_learns_from_mistakes_put_into_gold_and_the_run_folder_has_the_pairs(
    tmp_path: Path,
) -> None:
    run, ending = train(small("training.learning_rate=0.001"), tmp_path / "run")
    assert ending is TrainStatus.FINISHED
    assert logged(run, "loss")[0] == pytest.approx(math.log(2), abs=1e-4)
    account = json.loads((run.folder / "pairs.json").read_text())
    assert account["train"]["pairs"] == sum(account["train"]["kinds"].values()) > 0
    kept = read_preferences(run.folder / "pairs.jsonl")
    assert len(kept) == account["train"]["pairs"] + account["held_out"]["pairs"]
    assert "pair_accuracy" in run.metrics()[-1]


def test_it_starts_from_a_run_of_full_training_which_is_the_reference(tmp_path: Path) -> None:
    first, _ = train(small("training.learning_rate=0.01"), tmp_path / "first")
    second, _ = train(
        small("training.steps=1", f"model.adapter={first.folder}", "training.learning_rate=1e-9"),
        tmp_path / "second",
    )
    weights = [
        (run.folder / "checkpoints" / FINAL / "model.safetensors") for run in (first, second)
    ]
    one, two = (load_file(path) for path in weights)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-7
    assert logged(second, "loss")[0] == pytest.approx(math.log(2), abs=1e-4)
    lora, _ = train(small("training.lora={}", "training.steps=1"), tmp_path / "lora")
    with pytest.raises(
        ConfigError, match=r"is a LoRA folder with its own settings, but training.lora is null"
    ):
        train(small(f"model.adapter={lora.folder}"), tmp_path / "third")


def test_pairs_of_a_file_train_pico(tmp_path: Path) -> None:
    from toolhone.dialects.choose import open_dialect
    from toolhone.models.pico import pico_folder
    from toolhone.tokenizer import TextTokenizer

    dialect = open_dialect(TextTokenizer.load(str(pico_folder(0))))
    pairs = corrupt(assistant_turns(Templates(0).conversations(12)), dialect).pairs
    write_jsonl(tmp_path / "pairs.jsonl", [pair.preference.to_dict() for pair in pairs])
    run, ending = train(small(f"data.path={tmp_path / 'pairs.jsonl'}"), tmp_path / "run")
    assert ending is TrainStatus.FINISHED
    account = json.loads((run.folder / "pairs.json").read_text())
    assert account["train"]["pairs"] + account["held_out"]["pairs"] == len(pairs)


@pytest.mark.parametrize(
    ("kind", "maker"), [("own_samples", "against_samples"), ("own_ranked", "among_samples")]
)
def test_own_samples_are_drawn_once_and_a_resumed_run_ends_with_the_same_bits(
    kind: str, maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "toolhone.training.preference_pairs.is_right",
        lambda turn, task: turn.tokens[0] % 2 == 0,  # noqa: ARG005
    )
    experiment = small(
        f"data.preferences={kind}",
        "training.rl.temperature=9",
        "training.learning_rate=0.001",
        "data.samples=20",
    )
    whole, _ = train(experiment, tmp_path / "whole")
    account = json.loads((whole.folder / "pairs.json").read_text())["train"]
    assert (
        account["pairs"] + account["unwritable"] + sum(account["without_pair"].values())
        == account["decisions"]
        >= 20
    )
    assert account["pairs"] > 5

    class Presses(Progress):
        def advance(self, count: int = 1, note: str = "") -> None:  # noqa: ARG002
            if note.startswith("loss"):
                os.kill(os.getpid(), signal.SIGINT)

    run, ending = train(experiment, tmp_path / "cut", progress=Presses())
    assert ending is TrainStatus.INTERRUPTED
    monkeypatch.setattr(f"toolhone.training.preference_pairs.{maker}", None)
    run, ending = train(experiment, tmp_path / "cut", resume=True)
    assert ending is TrainStatus.FINISHED
    weights = [
        (folder / "checkpoints" / FINAL / "model.safetensors").read_bytes()
        for folder in (whole.folder, run.folder)
    ]
    assert weights[0] == weights[1]


def test_the_preset_trains_on_pico(tmp_path: Path) -> None:
    few = [name for name in SMALL if not name.startswith("model")]
    experiment = load_experiment(
        Path("dpo"), ["model.name=pico", *few, "data.max_samples=24"], tell=lambda _: None
    )
    assert find_method(experiment) is not None
    run, ending = train(experiment, tmp_path / "run")
    assert (ending, logged(run, "step")) == (TrainStatus.FINISHED, [1, 2])
