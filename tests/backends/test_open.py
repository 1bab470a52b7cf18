"""`backends.open`: experiments choose a backend by name, and are refused what it cannot do."""

from __future__ import annotations

import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from toolhone.api import evaluate, open_model, train
from toolhone.backends.base import Capabilities
from toolhone.backends.open import (
    INSTALL,
    check_plan,
    decided_elsewhere,
    open_sampler,
    open_trainer,
)
from toolhone.backends.toy import ToySampler, ToyTrainer
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment, ModelSection, TrainingSection
from toolhone.errors import CapabilityError
from toolhone.models.pico import pico_folder
from toolhone.training.loop import TrainStatus


def toy_plan(method: str, steps: int = 2, **rl: Any) -> Experiment:
    training = {"method": method, "steps": steps, "batch_size": 2, "lora": None, "rl": rl}
    quiet: dict[str, Any] = {
        "validate_every": 0,
        "save_every": 0,
        "log_every": 1,
        "learning_rate": 0.1,
    }
    quiet["schedule"] = {"shape": "constant", "warmup_steps": 0}
    sections = {
        "model": {"backend": "toy"},
        "data": {"samples": 40},
        "training": {**training, **quiet},
        "evaluation": {"num_samples": 2, "max_new_tokens": 4, "max_turns": 1},
    }
    return make_experiment(sections, "the test")


def test_the_packages_that_a_refusal_names_are_those_of_the_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, words in INSTALL.items():
        lines = project["optional-dependencies"][name]
        wanted = {line.partition(";")[0].strip() for line in lines if "darwin" not in line}
        assert set(shlex.split(words)) == wanted


def test_an_experiment_trains_and_evaluates_a_toy_by_sft(tmp_path: Path) -> None:
    run, status = train(toy_plan("sft", steps=12), tmp_path / "run")
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert status is TrainStatus.FINISHED
    assert losses[-1] < 0.8 * losses[0]
    model = open_model(run.folder)
    assert isinstance(model.sampler, ToySampler)
    assert len(evaluate(model, num_samples=2).samples) == 2


def test_an_experiment_trains_a_toy_by_grpo_from_a_run(tmp_path: Path) -> None:
    start, _ = train(toy_plan("sft", steps=2), tmp_path / "sft")
    plan = toy_plan("grpo", group_size=2, max_completion_length=6)
    model = plan.model.model_copy(update={"adapter": str(start.folder)})
    run, status = train(plan.model_copy(update={"model": model}), tmp_path / "grpo")
    steps = [line for line in run.metrics() if line["kind"] == "train"]
    assert status is TrainStatus.FINISHED
    assert [line["step"] for line in steps] == [1, 2]
    assert all(line["sampled_tokens"] > 0 for line in steps)


@pytest.mark.parametrize(("backend", "package"), [("mlx", "mlx.core"), ("tinker", "tinker")])
def test_a_backend_that_is_not_installed_is_one_sentence(
    backend: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    model = ModelSection(backend=backend)
    for opens in (
        lambda: open_trainer(model, TrainingSection(), "pico"),
        lambda: open_sampler("pico", model),
    ):
        with pytest.raises(
            CapabilityError, match=rf"{backend} cannot be imported .*pip install '{backend}"
        ):
            opens()


def test_the_toy_takes_the_vocabulary_of_the_named_model() -> None:
    model = ModelSection(backend="toy")
    trainer = open_trainer(model, TrainingSection(lora=None), str(pico_folder(0)))
    assert isinstance(trainer, ToyTrainer)
    assert trainer.info.vocab_size > 256
    assert not trainer.info.has_adapter


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"lora": None}, {"full_training": False}, "full fine-tuning .*set training.lora"),
    ({}, {"lora": False}, "LoRA; set training.lora to null"),
    ({"optimizer": "muon"}, {"muon": False}, "muon; use adamw"),
    ({"method": "ppo", "rl": {"ppo": {"critic": "value_head"}}}, {}, "a value head"),
    ({"method": "grpo", "rl": {"temperature": 0.7}}, {"temperature": False}, "temperature 0.7"),
    ({"method": "grpo"}, {"custom_loss": False}, "the loss of training.method grpo"),
    ({"method": "dpo"}, {"custom_loss": False}, "the loss of training.method dpo"),
    ({"lora": {"dropout": 0.1}}, {"absent": ("training.lora.dropout",)}, "lora.dropout 0.1; leave"),
    ({"method": "grpo"}, {"max_context": 256}, "256 tokens, since its context holds 256"),
]


@pytest.mark.parametrize(("training", "can", "sentence"), REFUSED)
def test_a_plan_is_refused_what_a_backend_cannot_do(
    training: dict[str, Any], can: dict[str, Any], sentence: str
) -> None:
    plan = make_experiment({"training": training}, "the test")
    with pytest.raises(CapabilityError, match=sentence):
        check_plan(plan, Capabilities(**can))
    check_plan(plan, Capabilities(value_head=True))


def test_settings_that_a_backend_decides_itself_are_named_where_they_differ() -> None:
    can = Capabilities(fixed=("training.lora.alpha", "model.torch_dtype"))
    plan = make_experiment({"training": {"lora": {"alpha": 64}}}, "the test")
    sentence = decided_elsewhere(plan, can) or ""
    assert "decides training.lora.alpha itself" in sentence
    assert decided_elsewhere(make_experiment({}, "the test"), can) is None
    full = make_experiment({"training": {"lora": None}}, "the test")
    assert decided_elsewhere(full, Capabilities()) is None


def test_grammars_are_refused_where_a_backend_has_none() -> None:
    plan = make_experiment({"evaluation": {"constrained": True}}, "the test")
    with pytest.raises(CapabilityError, match=r"grammars \(evaluation.constrained\)"):
        check_plan(plan, Capabilities(grammar=False))


@pytest.mark.parametrize("method", ["sft", "dpo", "ppo", "grpo"])
def test_a_plan_of_every_method_passes_where_a_backend_can_do_it(method: str) -> None:
    check_plan(make_experiment({"training": {"method": method}}, "the test"), Capabilities())
    if method in ("sft", "dpo"):
        narrow = Capabilities(temperature=False, custom_loss=method == "dpo", max_context=8)
        check_plan(make_experiment({"training": {"method": method}}, "the test"), narrow)
