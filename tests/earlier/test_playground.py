"""The playground of JSON configurations: its files as they are, its commands, its tools."""

from __future__ import annotations

import json
import re

import pytest

from earlier.conftest import CALCULATOR, SHORT, Shell
from toolhone.config.experiment import load_experiment

CONFIG = {
    "model": {
        "name": "pico",
        "trust_remote_code": False,
        "torch_dtype": "float16",
        "device_map": "auto",
    },
    "training": {
        "method": "sft",
        "num_epochs": 1,
        "learning_rate": 5e-5,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "warmup_steps": 1,
        "max_length": 512,
        "use_lora": True,
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
    },
    "data": {"strategy": "manual_templates", "max_samples": 20, "train_split": 0.8},
    "tools": [{**CALCULATOR, "function": "calculator"}],
    "evaluation": {"metrics": ["tool_accuracy", "execution_success"], "eval_steps": 50},
    "wandb": {"enabled": False, "project": "p", "run_name": "r"},
    "seed": 42,
}
CASES = [
    {
        "prompt": "Human: What is 25 times 4?",
        "expected_tool": "calculator",
        "expected_params": {"expression": "25 * 4"},
    },
    {"prompt": "Human: Good morning", "expected_tool": "", "expected_params": {}},
]
METRICS = ("tool_accuracy", "format_accuracy", "execution_accuracy")


@pytest.fixture(scope="session")
def playground(shell: Shell) -> Shell:
    """A folder with a trained configuration, as its README has it."""
    for name, values in {
        "configs/calculator_config.json": CONFIG,
        "configs/ppo_config.json": {
            **CONFIG,
            "training": {
                **CONFIG["training"],
                "method": "ppo",
                "mini_batch_size": 1,
                "ppo_epochs": 4,
            },
            "data": {**CONFIG["data"], "strategy": "teacher_mode"},
        },
        "examples/test_cases.json": CASES,
    }.items():
        path = shell.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
    shell(
        "train --config configs/calculator_config.json --output-dir outputs/calculator_config "
        f"evaluation.num_samples=2 {SHORT}"
    )
    return shell


def test_its_training_command_trains_its_configuration(playground: Shell) -> None:
    folder = playground.folder / "outputs/calculator_config"
    plan = json.loads((folder / "experiment.json").read_text())
    assert plan["training"]["lora"]["rank"] == 4
    assert (plan["seed"], plan["model"]["torch_dtype"]) == (42, "float16")
    assert (folder / "checkpoints/final_checkpoint").is_dir()


def test_its_evaluation_command_writes_its_summary(playground: Shell) -> None:
    playground(
        "eval --model-path outputs/calculator_config --config configs/calculator_config.json "
        f"--test-cases examples/test_cases.json --output evaluation_results.json {SHORT}"
    )
    summary = json.loads((playground.folder / "evaluation_results.json").read_text())
    assert summary["total_cases"] == 2
    assert summary.keys() >= {*METRICS, "details"}
    groups = json.loads(
        (playground.folder / "outputs/calculator_config/evaluation/metrics.json").read_text()
    )["familiar"]["playground"]
    assert groups.keys() >= {
        "tool_accuracy",
        "format_correctness",
        "execution_success",
        "response_quality",
    }


def test_outdir_and_the_default_folder_are_known(playground: Shell) -> None:
    quick = "evaluation.at_end=false training.validate_every=0 training.steps=1"
    said = playground(f"train --config configs/calculator_config.json --outdir outputs/o {quick}")
    assert "run: outputs/o" in said
    assert "run: runs/calculator_config" in playground(
        f"train configs/calculator_config.json {quick}"
    )


QUICK = (
    "training.steps=1 training.batch_size=1 training.rl.max_completion_length=8 "
    f"training.rl.group_size=2 evaluation.at_end=false training.validate_every=0 {SHORT}"
)


def test_ppo_of_its_configuration_runs_on_the_data_of_teacher_mode(playground: Shell) -> None:
    said = playground(f"train --config configs/ppo_config.json --output-dir outputs/ppo {QUICK}")
    assert re.search(r"Iteration 1/1 \|.*Mean Reward", said)
    assert "rows from the tools' schemas, whose calls ran" in (
        playground.folder / "outputs/ppo/data.json"
    ).read_text(encoding="utf-8")


def test_dpo_of_its_configuration_trains_on_the_data_of_teacher_mode(playground: Shell) -> None:
    said = playground(
        "train --config configs/ppo_config.json --output-dir outputs/dpo training.method=dpo "
        f"training.rl.inner_epochs=1 {QUICK}"
    )
    assert re.search(r"Iteration 1/1 \|.*accuracy", said, re.IGNORECASE)


def test_its_teacher_configuration_trains_in_rounds(playground: Shell) -> None:
    values = json.loads((playground.folder / "configs/ppo_config.json").read_text())
    values["training"] = {**CONFIG["training"], "method": "teacher_mode", "max_length": 384}
    path = playground.folder / "configs/teacher_mode_config.json"
    path.write_text(json.dumps(values))
    said = playground(
        f"train --config configs/teacher_mode_config.json --output-dir outputs/t {QUICK} "
        "training.steps=2 teacher.rounds=1 teacher.warmup=0.5 "
        "teacher.tasks=2 training.method=teacher"
    )
    assert "Round 1 | proposed 4" in said


def test_its_newest_files_load(shell: Shell) -> None:
    newest = {
        **CONFIG,
        "tokenizer": {"name": "pico", "trust_remote_code": True},
        "data": {
            "strategy": "toolbench",
            "generation_type": "real",
            "max_samples": 20,
            "train_split": 0.9,
        },
        "tools": {},
    }
    path = shell.folder / "sft_toolbench_config.json"
    path.write_text(json.dumps(newest))
    plan = load_experiment(path, tell=lambda _: None)
    assert plan.data.max_samples == 20
    assert not plan.tools or "calculator" in plan.tools


def test_its_optimizer_keys_are_read_or_named(shell: Shell) -> None:
    path = shell.folder / "dpo_config.json"
    training = {
        **CONFIG["training"],
        "method": "dpo",
        "fp16": True,
        "max_grad_norm": 0.3,
        "weight_decay": 0.01,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "optim": "paged_adamw_8bit",
    }
    path.write_text(json.dumps({**CONFIG, "training": training}))
    notes: list[str] = []
    plan = load_experiment(path, tell=notes.append)
    assert (plan.training.max_grad_norm, plan.training.weight_decay) == (0.3, 0.01)
    optimizer = plan.training.optimizer
    assert (optimizer.name, optimizer.beta2, optimizer.epsilon) == ("adamw", 0.999, 1e-8)
    assert any("paged_adamw_8bit" in note for note in notes)


def test_comments_and_trailing_commas_are_read(shell: Shell) -> None:
    path = shell.folder / "commented.json"
    path.write_text('{"training": {\n  "method": "sft",  // "sft", "dpo"\n  "num_epochs": 3,\n}}')
    plan = load_experiment(path, tell=lambda _: None)
    assert (plan.training.method, plan.training.epochs) == ("sft", 3)


def test_a_calculator_that_is_only_a_schema_runs(shell: Shell) -> None:
    path = shell.folder / "schema_only.json"
    path.write_text(json.dumps({"model": {"name": "pico"}, "tools": [CALCULATOR]}))
    said = shell(
        f"train {path} training.steps=1 data.strategy=manual_templates data.max_samples=20 "
        f"training.validate_every=0 training.lora=null evaluation.num_samples=2 {SHORT} "
        "--out runs/schema-only"
    )
    assert "calculator" in said
    account = json.loads((shell.folder / "runs/schema-only/evaluation/metrics.json").read_text())
    assert account["metrics"]["execution_success"]["n"] > 0


def test_merging_its_adapters_is_the_verb_export(playground: Shell) -> None:
    playground("export outputs/calculator_config --out merged")
    assert (playground.folder / "merged/config.json").is_file()


def test_its_validation_command_is_check_and_config_show(playground: Shell) -> None:
    assert "python" in playground("check").lower()
    shown = playground("config show configs/calculator_config.json")
    assert '"max_samples": 20' in shown
    assert "calculator" in playground("config presets")
    assert '"properties"' in playground("config schema")


def test_its_lessons_are_listed(shell: Shell) -> None:
    assert "calculator" in shell("examples")
