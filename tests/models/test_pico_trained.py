"""The trained model that ships: it opens by its name, calls tools, and is small."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toolhone import evaluate, open_model
from toolhone.cli.main import app
from toolhone.config.experiment import load_experiment
from toolhone.models.pico import pico_folder
from toolhone.models.resolve import find, resolve_model

FOLDER = Path(str(resources.files("toolhone.models") / "pico_trained"))


def test_it_is_found_by_its_name_and_takes_less_than_two_megabytes() -> None:
    plan, weights = find("pico-trained", None)
    assert weights is None
    assert resolve_model(plan) == str(FOLDER)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 2_000_000


def test_its_tokenizer_is_that_of_pico() -> None:
    assert (FOLDER / "tokenizer.json").read_text() == (pico_folder() / "tokenizer.json").read_text()


def test_chat_without_a_model_asks_it_and_it_calls_the_calculator() -> None:
    said = CliRunner().invoke(app, ["chat", "--prompt", "What is 48 * 17?", "--no-save"])
    assert said.exit_code == 0, said.output
    assert "calculator(expression='48 * 17')" in said.output
    assert "48 times 17 is 816." in said.output


def test_chat_takes_overrides_alone() -> None:
    words = ["chat", 'tools=["weather"]', "--prompt", "How is the weather in Lisbon?", "--no-save"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "weather(city='Lisbon')" in said.output


def test_it_answers_most_fresh_tasks() -> None:
    score = evaluate(open_model("pico-trained"), num_samples=30).metrics["exact_match"]
    assert score.value >= 0.85


@pytest.mark.parametrize("name", ["pico", "pico-trained"])
def test_presets_take_the_sizes_of_pico(name: str) -> None:
    plan = load_experiment(Path("sft-json"), [f"model.name={name}"], tell=lambda _: None)
    assert plan.model.name == name
    assert (plan.training.steps, plan.training.lora) == (300, None)
