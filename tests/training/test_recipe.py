"""What the recipe chooses for a pretrained model, what it leaves alone, and how it is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from toolhone.api import began_with, experiment, train
from toolhone.config.experiment import load_experiment, overridden
from toolhone.models.pico import pico_folder
from toolhone.runs.run import Run
from toolhone.schema import Conversation, Tool
from toolhone.training import recipe
from toolhone.training.recipe import fitting_length, with_recipe

RUN = {
    "data": {"samples": 24},
    "training": {"steps": 1, "batch_size": 2, "validate_every": 0, "save_every": 0},
    "evaluation": {"num_samples": 1, "max_new_tokens": 4, "baseline": False},
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with pico's tokenizer and other sizes."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(pico_folder(0), folder)
    (folder / "model.safetensors").unlink()
    sizes = json.loads((folder / "config.json").read_text())
    config = Qwen3Config(**{**sizes, "num_hidden_layers": 1, "layer_types": ["full_attention"]})
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "SMALLEST", 1000)


def chosen(values: dict[str, Any]) -> tuple[Any, list[str]]:
    lines: list[str] = []
    return with_recipe(experiment(values), [], lines.append), lines


@pytest.mark.usefixtures("counts_as_large")
def test_what_is_left_open_is_chosen_by_size_and_said_with_its_reason(other):
    plan, lines = chosen({"model": {"name": str(other)}})
    training = plan.training
    assert (training.learning_rate, training.schedule.warmup_ratio) == (1e-3, 0.05)
    assert training.lora is not None
    assert any("training.learning_rate 0.001 (LoRA of" in line for line in lines)
    assert set(training.recipe.chosen) == {
        *("training.lora", "training.learning_rate", "training.max_length"),
        *("training.schedule.warmup_ratio", "model.torch_dtype"),
    }
    rates = {"grpo": 2e-4, "dpo": 1e-4}
    for method, rate in rates.items():
        found = chosen({"model": {"name": str(other)}, "training": {"method": method}})[0]
        assert found.training.learning_rate == pytest.approx(rate)
    full = chosen({"model": {"name": str(other)}, "training": {"lora": None}})[0]
    assert (full.training.learning_rate, full.training.lora) == (1e-4, None)


@pytest.mark.usefixtures("counts_as_large")
@pytest.mark.parametrize("has", [False, True])
def test_precision_is_what_this_processor_does_fast(other, has, monkeypatch):
    monkeypatch.setattr("toolhone.backends.open.processor_has_bfloat16", lambda: has)
    plan, lines = chosen({"model": {"name": str(other), "device_map": "cpu"}})
    why = "this CPU is fast in it" if has else "this CPU has no fast bfloat16"
    assert plan.model.torch_dtype == ("bfloat16" if has else "float32")
    assert f"recipe: model.torch_dtype {plan.model.torch_dtype} ({why})" in lines
    full = {"model": {"name": str(other), "device_map": "cpu"}, "training": {"lora": None}}
    assert chosen(full)[0].model.torch_dtype == "float32"


@pytest.mark.usefixtures("counts_as_large")
def test_what_the_experiment_says_is_never_changed(other):
    said = {
        "learning_rate": 3e-5,
        "lora": {"rank": 4},
        "schedule": {"warmup_steps": 7},
        "max_length": 300,
    }
    plan, lines = chosen(
        {"model": {"name": str(other), "torch_dtype": "bfloat16"}, "training": said}
    )
    assert (plan.training.learning_rate, plan.training.lora.rank) == (3e-5, 4)
    assert (plan.training.schedule.warmup_steps, plan.training.schedule.warmup_ratio) == (7, None)
    assert plan.model.torch_dtype == "bfloat16"
    assert not lines
    assert not plan.training.recipe.chosen
    again = overridden(experiment({"model": {"name": str(other)}}), ["training.max_length=300"])
    assert with_recipe(again, [], lines.append).training.learning_rate == 1e-3


def test_pico_small_models_and_recipe_none_keep_the_defaults(other, monkeypatch):
    for name in ("pico", "pico-trained", str(pico_folder(0)), str(other)):
        values = {"model": {"name": name}}
        assert with_recipe(experiment(values), [], pytest.fail) == experiment(values)
    monkeypatch.setattr(recipe, "SMALLEST", 1000)
    values = {"model": {"name": str(other)}, "training": {"recipe": "none"}}
    assert with_recipe(experiment(values), [], pytest.fail) == experiment(values)


@pytest.mark.usefixtures("counts_as_large")
def test_the_recipe_of_pico_does_not_follow_to_another_model(other):
    plan = with_recipe(load_experiment(Path("demo"), [f"model.name={other}"]), [], lambda _: None)
    training = plan.training
    assert (training.learning_rate, training.optimizer.name) == (1e-3, "adamw")
    assert training.lora is not None
    assert "training.max_length" in training.recipe.chosen


@pytest.mark.usefixtures("counts_as_large")
def test_memory_that_a_step_would_fill_turns_checkpointing_on(other, monkeypatch):
    from toolhone.backends.torch import device

    monkeypatch.setattr(device, "device_bytes", lambda _: 1_000_000)
    plan, lines = chosen({"model": {"name": str(other)}})
    assert plan.training.gradient_checkpointing
    assert any("gradient_checkpointing True (a step would fill" in line for line in lines)


@pytest.mark.usefixtures("counts_as_large")
def test_rows_that_begin_with_the_same_long_tools_run_in_wide_passes_on_a_cpu(other):
    long = Tool("find", "word " * 300, {"type": "object", "properties": {}})
    short = Tool("get", "word", {"type": "object", "properties": {}})
    values = experiment({"model": {"name": str(other), "device_map": "cpu"}})

    def chosen_for(*tools: list[Tool]) -> Any:
        rows = [Conversation((), tuple(each)) for each in tools]
        return with_recipe(values, rows, lambda _: None)

    wide = chosen_for([long], [long], [long], [short, long])
    assert (wide.model.micro_batch_tokens, wide.training.gradient_checkpointing) == (4096, True)
    for tools in ([[short]] * 4, [[long], [short, long], [short, short]]):
        usual = chosen_for(*tools)
        assert (usual.model.micro_batch_tokens, usual.training.gradient_checkpointing) == (
            *(None,),
            False,
        )


def test_the_length_fits_a_percentile_of_the_rows_or_all_where_the_longest_is_near():
    assert fitting_length([100] * 99 + [140], 4096) == (
        *(192,),
        "100 of 100 rows fit, the longest has 140 tokens",
    )
    length, why = fitting_length([100] * 995 + [5000] * 5, 4096)
    assert (length, why) == (128, "995 of 1000 rows fit, the longest has 5000 tokens")
    length, why = fitting_length([3000] * 10, 2048)
    assert (length, why[:16]) == (2048, "0 of 10 rows fit")
    assert why.endswith("all that model and memory allow")


@pytest.mark.usefixtures("counts_as_large")
def test_a_run_holds_what_was_chosen_and_is_resumed_with_it(other, tmp_path):
    plan = experiment({**RUN, "model": {"name": str(other)}})
    run, _ = train(plan, tmp_path / "run")
    kept = Run.open(run.folder).experiment
    rows = json.loads((run.folder / "data.json").read_text())
    assert kept.training.max_length >= rows["longest_row"]
    assert kept.training.max_length % 64 == 0
    assert "rows fit" in kept.training.recipe.chosen["training.max_length"]
    assert kept.training.recipe.chosen["training.learning_rate"].startswith("LoRA of")
    assert began_with(run, plan)
    assert not began_with(run, overridden(plan, ["training.learning_rate=0.1"]))
