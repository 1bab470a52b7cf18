"""Presets: each is a whole experiment with the numbers it is known for, and those of a method that
stands run on pico.
"""

import platform
from collections import Counter
from pathlib import Path

import pytest
import torch

from toolhone.api import train
from toolhone.config.experiment import load_experiment
from toolhone.config.presets import (
    PICO_STEPS,
    bfloat16_is_slow,
    differences,
    preset_comment,
    preset_names,
    processor_has_bfloat16,
)
from toolhone.config.sections import Experiment
from toolhone.dialects.choose import open_dialect
from toolhone.errors import ConfigError
from toolhone.models.pico import CONTEXT, pico_folder
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import load_data

NAMES = {
    *(
        "sft-json",
        "ppo-json",
        "grpo-quick",
        "grpo-full",
        "grpo-production",
        "grpo-strict",
        "grpo-progressive",
        "grpo-low-memory",
    ),
    *("curriculum", "calculator", "multi-tool", "dpo", "teacher", "toolbench", "demo", "demo-grpo"),
    *("tags-by-hand", "structured-calls", "completion-only", "shop-sft", "shop-grpo", "distill"),
    *("bake", "shop-logs", "shop-retry", "simulated", "teacher-text", "teacher-model"),
}
TEXTS = "teacher-text"
"""The preset that has no data of its own."""
SERVED = "teacher-model"
"""The preset that asks a server; `tests/synthetic/test_teacher_rows.py` answers it."""
REWARDS = {
    f"tool_call_{name}" for name in ("exact", "function", "params", "overall", "parseable")
} | {"json_answer", "right_calls", "tool_use"}


def preset(name: str, *overrides: str) -> Experiment:
    return load_experiment(Path(name), overrides, tell=lambda _: None)


def test_all_presets_are_there_and_say_what_they_are_for() -> None:
    assert set(preset_names()) == NAMES
    assert all(len(preset_comment(name)) > 20 for name in NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_preset_validates_also_for_pico(name: str) -> None:
    own, small = preset(name), preset(name, "model.name=pico")
    assert small.model.name == "pico"
    assert small.training.method == own.training.method
    reward = own.training.rl.reward
    named = {
        *reward.functions,
        *(function for phase in reward.phases for function in phase.functions),
    }
    assert named <= REWARDS


def test_sft_json_has_its_numbers() -> None:
    t = preset("sft-json").training
    assert t.lora is not None
    found = (
        t.steps,
        t.batch_size,
        t.lora.rank,
        t.max_length,
        t.log_every,
        t.validate_every,
        t.validation_samples,
        t.save_every,
    )
    assert found == (800, 8, 32, 512, 50, 200, 50, 200)


@pytest.mark.parametrize(
    ("name", "numbers", "weights"),
    [
        ("ppo-json", (500, 8, 1, 128, 1e-5, 1.0, 0.0), []),
        ("grpo-quick", (50, 2, 4, 128, 1e-5, 1.0, 0.0), []),
        ("grpo-full", (1000, 4, 8, 256, 1e-5, 0.7, 0.1), [0.3, 0.4, 0.3]),
        ("grpo-production", (2000, 8, 16, 384, 5e-6, 0.6, 0.08), [0.25, 0.3, 0.2, 0.25]),
        ("grpo-strict", (1000, 4, 8, 256, 1e-5, 0.7, 0.1), [1.0]),
        ("grpo-low-memory", (1000, 2, 4, 128, 1e-5, 0.7, 0.1), [0.3, 0.4, 0.3]),
    ],
)
def test_rl_presets_have_their_numbers(
    name: str, numbers: tuple[float, ...], weights: list[float]
) -> None:
    t = preset(name).training
    rl = t.rl
    found = (
        t.steps,
        t.batch_size,
        rl.group_size,
        rl.max_completion_length,
        t.learning_rate,
        rl.temperature,
        rl.beta,
    )
    assert found == numbers
    assert rl.reward.weights == weights


def test_what_else_the_rl_presets_are_known_for() -> None:
    production, full = preset("grpo-production").training, preset("grpo-full").training
    assert production.lora is not None
    assert (production.lora.rank, production.lora.alpha, production.lora.last_layers) == (
        64,
        64 * 128,  # MLX-GRPO multiplies its adapters by --lora-alpha 128 itself
        24,
    )
    assert (production.gradient_checkpointing, production.save_every) == (True, 50)
    assert full.lora is not None
    assert (full.lora.rank, full.lora.last_layers, full.save_every) == (32, 16, 100)
    strict = preset("grpo-strict").training.rl
    assert (strict.epsilon, strict.epsilon_high, strict.reward.functions) == (
        0.1,
        0.2,
        ["tool_call_exact"],
    )
    phases = [
        (phase.steps, phase.weights)
        for phase in preset("grpo-progressive").training.rl.reward.phases
    ]
    assert phases == [(100, [0.8, 0.2]), (200, [0.5, 0.5]), (200, [0.7, 0.3])]
    curriculum = preset("curriculum").training.rl.curriculum
    assert (curriculum.enabled, curriculum.start_ratio, curriculum.end_ratio, curriculum.steps) == (
        True,
        1.0,
        0.0,
        500,
    )
    assert preset("grpo-low-memory").training.gradient_checkpointing
    ppo = preset("ppo-json").training
    assert (ppo.log_every, ppo.save_every, ppo.rl.sampler_refresh_every) == (10, 100, 10)


def test_sizes_shrink_for_pico_in_proportion_but_overrides_win() -> None:
    small = preset("sft-json", "model.name=pico", "training.batch_size=4")
    t = small.training
    assert (t.steps, t.log_every, t.validate_every, t.lora) == (PICO_STEPS, 19, 75, None)
    assert t.batch_size == 4
    assert small.model.torch_dtype == "float32"
    phases = preset("grpo-progressive", "model.name=pico").training.rl.reward.phases
    assert [phase.steps for phase in phases] == [60, 120, 120]


def test_the_demos_own_preset_is_not_shrunk() -> None:
    assert preset("demo").training.steps == 800
    assert preset("demo", "model.name=pico").training.steps == 800
    assert preset("demo-grpo", "model.name=pico").training == preset("demo-grpo").training


@pytest.mark.parametrize("name", sorted(NAMES - {SERVED}))
def test_a_preset_of_a_method_that_stands_runs_on_pico(name: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{n} boxes of 3 are {3 * n} in all .\n" for n in range(12, 40)))
    few = [
        "training.steps=2",
        "training.batch_size=2",
        "training.rl.group_size=4",
        "training.rl.max_completion_length=24",
        "data.samples=24",
        "data.max_samples=24",
        "training.validation_samples=2",
    ]
    plan = preset(
        name,
        "model.name=pico",
        *few,
        "evaluation.num_samples=2",
        "evaluation.max_new_tokens=8",
        "training.log_every=1",
        *([f"data.path={texts}"] if name == TEXTS else []),
    )
    run, ending = train(plan, tmp_path / name)
    assert ending == "finished"
    steps = [line["step"] for line in run.metrics() if line["kind"] == "train"]
    assert steps == [1, 2]


@pytest.mark.parametrize("name", sorted(NAMES - {TEXTS, SERVED}))
def test_every_prompt_of_a_preset_leaves_room_for_a_reply_in_picos_context(name: str) -> None:
    plan = preset(name, "model.name=pico", "data.samples=40", "data.max_samples=40")
    tokenizer = TextTokenizer.load(str(pico_folder(0)))
    dialect = open_dialect(tokenizer, plan.model.dialect, plan.model.markup)
    reply = max(
        plan.training.rl.max_completion_length if plan.training.method != "sft" else 0,
        plan.evaluation.max_new_tokens,
    )
    prompts = [
        tokenizer.encode_spans(dialect.prompt(task.messages, task.tools))
        for task in load_data(plan).tasks
    ]
    assert max(map(len, prompts)) + reply <= CONTEXT


def test_a_mistyped_preset_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'calculator'\?\); presets: bake, calcul"):
        preset("calculater")


def test_a_file_of_the_same_name_wins_over_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("calculator").write_text('{"seed": 5}')
    assert preset("calculator").seed == 5


def test_bfloat16_of_a_preset_is_kept_only_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {}
    for slow in (False, True):
        monkeypatch.setattr(
            "toolhone.config.experiment.bfloat16_is_slow", lambda _, slow=slow: slow
        )
        told: list[str] = []
        chosen[slow] = load_experiment(Path("dpo"), tell=told.append).model.torch_dtype
        assert any("no fast bfloat16" in line for line in told) is slow
    asked = load_experiment(Path("dpo"), ["model.torch_dtype=float16"]).model.torch_dtype
    assert (chosen, asked) == ({False: "bfloat16", True: "float32"}, "float16")


@pytest.mark.parametrize("has", ["_is_avx512_bf16_supported", "_is_amx_tile_supported", ""])
def test_a_processor_is_fast_in_bfloat16_by_its_own_instructions(
    has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == has, raising=False)
    assert processor_has_bfloat16() is bool(has)
    assert bfloat16_is_slow("cpu") is (not has)


@pytest.mark.parametrize("name", ["sft-json", "ppo-json"])
def test_presets_of_json_answers_use_single_answers_alone(name: str) -> None:
    data = load_data(preset(name, "data.samples=200"))
    tasks, rows = [*data.tasks, *data.play], [*data.train, *data.held_out]
    assert all(len(task.expect.wanted) < 2 and len(task.messages) == 1 for task in tasks)
    assert all([message.role for message in row.messages] == ["user", "assistant"] for row in rows)
    assert all(len(row.messages[1].tool_calls) < 2 for row in rows)
    kinds = Counter(task.category for task in tasks)
    assert kinds.keys() == {"calculator", "python", "no_tool"}
    assert abs(kinds["no_tool"] / kinds.total() - 0.6) < 0.1
    named = preset(name).evaluation.metrics
    assert named is not None
    assert named[:3] == ["valid_json", "correct_format", "correct_tool"]


def test_a_preset_reports_what_pico_changes_key_by_key() -> None:
    notes: list[str] = []
    load_experiment(Path("grpo-progressive"), ["model.name=pico"], tell=notes.append)
    (note,) = [note for note in notes if note.startswith("grpo-progressive, in the sizes of pico")]
    for change in (
        "training.steps 500 -> 300",
        "training.rl.reward.phases.0.steps 100 -> 60",
        'training.lora {"rank": 8, "alpha": 128} -> null',
        'tools ["calculator", "python", "weather", "search"] -> ["calculator", "python"]',
    ):
        assert change in note


def test_differences_name_every_value_that_differs_and_no_other() -> None:
    before = {"a": 1, "b": {"c": [1, {"d": 2}], "e": 3}, "f": "same"}
    after = {"a": 1, "b": {"c": [1, {"d": 4}]}, "f": "same", "g": None}
    assert differences(before, after) == ["b.c.1.d 2 -> 4", "b.e 3 -> default", "g default -> null"]
