"""`toolhone migrate`: files and commands of four earlier systems become experiments that load."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.grpo_guide import LINES
from toolhone.cli.flags import overrides_of, split_flags
from toolhone.cli.main import main
from toolhone.cli.migrate import CALLS, CONSTANTS, PROGRAMS, TRAINING_KEYS
from toolhone.cli.train import load_command
from toolhone.config.experiment import load_experiment, make_experiment
from toolhone.config.fields import walk_fields
from toolhone.config.presets import preset_names
from toolhone.config.sections import Experiment

GRPO = (
    "python -m mlx_grpo.train --model pico --data rows.jsonl --train --train-type lora "
    "--iters 1000 --batch-size 4 --group_size 8 --learning-rate 1e-5 --beta 0.1 "
    "--reward-functions tool_call_exact tool_call_overall --reward-weights 0.3 0.7 "
    "--adapter-path adapters/run --save-every 100"
)
CONSTANTS_OF_RL = """BASE_MODEL = "pico"
LORA_RANK = 32
SFT_CHECKPOINT = "checkpoint_step_300"
RL_LEARNING_RATE = 2e-5
RL_BATCH_SIZE, OTHER = 8, 9
SAMPLER_REFRESH_INTERVAL = 5
WARMUP_PHASE = "no"
"""
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Experiment 2"]},
        {"cell_type": "code", "source": ["!pip install trl\n", "folder = '/models/qwen'\n"]},
        {
            "cell_type": "code",
            "source": [
                "model = AutoModelForCausalLM.from_pretrained(folder, load_in_8bit=True)\n",
                "lora = LoraConfig(r=8, lora_alpha=32, bias='none', target_modules='all-linear')\n",
                "args = SFTConfig(output_dir='out', per_device_train_batch_size=2, fp16=True,\n",
                "    num_train_epochs=3, gradient_accumulation_steps=4, max_length=limit,\n",
                "    completion_only_loss=True)\n",
            ],
        },
    ]
}
FLAGS_IN_YAML = """model: pico
data: rows.jsonl
group_size: 4
lora_parameters: {rank: 8, scale: 20.0}
reward_functions: [tool_call_exact, tool_call_function]
curriculum_enabled: false
"""


@pytest.fixture
def migrate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Runs the verb in an empty folder; gives exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toolhone", "migrate", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


def test_a_grpo_command_becomes_an_experiment_with_its_run_folder(migrate: Any) -> None:
    code, out, err = migrate(GRPO, "--out", "mine.json")
    assert (code, out, err) == (0, "toolhone train mine.json --out adapters/run\n", "")
    plan = load_experiment(Path("mine.json"))
    training, rl = plan.training, plan.training.rl
    assert (training.method, training.steps, training.batch_size) == ("grpo", 1000, 4)
    assert (rl.group_size, rl.beta, rl.reward.weights) == (8, 0.1, [0.3, 0.7])
    assert (plan.model.dialect, plan.data.path) == ("calls", str(Path("rows.jsonl").resolve()))
    assert migrate(GRPO, "--out", "mine.json")[0] == 2
    unquoted = migrate(*shlex.split(GRPO))[1]
    experiment, _ = json.JSONDecoder().raw_decode(unquoted)
    assert experiment == json.loads(Path("mine.json").read_text())
    assert unquoted.endswith("\n\ntoolhone train experiment.json --out adapters/run\n")


def test_the_default_rewards_of_the_grpo_system_hold_for_its_commands(migrate: Any) -> None:
    _, out, _ = migrate("mlx_grpo.train --model pico --data r.jsonl", "--json")
    rl = json.loads(out)["experiment"]["training"]["rl"]
    assert rl["reward"]["functions"] == ["tool_call_exact", "tool_call_function"]


def test_what_is_unknown_is_named_in_files_and_commands(migrate: Any, tmp_path: Path) -> None:
    values = {
        "model": {"name": "pico", "quantise": 4},
        "training": {"method": "sft", "num_epochs": 2, "deepspeed": {"stage": 2}},
        "optimiser_plugin": "x",
    }
    (tmp_path / "c.json").write_text(json.dumps(values))
    code, out, _ = migrate("c.json", "--json")
    found = json.loads(out)
    assert (code, found["command"]) == (0, "toolhone train c.json")
    assert found["experiment"] == {
        "model": {"name": "pico"},
        "training": {"method": "sft", "epochs": 2},
    }
    unknown = "is not known here and was left out"
    assert sorted(found["notes"]) == [
        f"model.quantise = 4 {unknown}",
        f'optimiser_plugin = "x" {unknown}',
        f'training.deepspeed = {{"stage": 2}} {unknown}',
    ]
    err = migrate(f"{GRPO} --scaffold-penalty 0.5 --fast")[2]
    assert err == f"note: --scaffold-penalty 0.5 {unknown}\nnote: --fast {unknown}\n"


def test_the_commands_of_the_playground_keep_file_folder_and_switches(
    migrate: Any, tmp_path: Path
) -> None:
    (tmp_path / "ppo_config.json").write_text('{"training": {"method": "ppo", "ppo_epochs": 4},}')
    line = "python train.py --config ppo_config.json --output-dir outputs/p --resume"
    found = json.loads(migrate(line, "--json")[1])
    assert found["experiment"]["training"]["rl"] == {"inner_epochs": 4}
    assert found["command"] == "toolhone train ppo_config.json --out outputs/p --resume"
    line = "python evaluate.py --model-path M --config C --output F.json --test-cases T --beams 2"
    code, out, err = migrate(line)
    evaluation = "--model-path M --config C --output F.json --test-cases T"
    assert (code, out) == (0, f"toolhone eval {evaluation}\n")
    assert "--beams 2 is not known" in err
    assert migrate("python train.py --config none.json")[0] == 2


def test_the_modules_of_the_json_answers_system_become_presets_on_its_data(migrate: Any) -> None:
    for line, preset in (("python -m sft.train", "sft-json"), ("python -m rl.train", "ppo-json")):
        found = json.loads(migrate(line, "--json")[1])
        assert found["command"] == f"toolhone train {preset}.json --out runs/{preset}"
        data = found["experiment"]["data"]["path"]
        assert data == str(Path("data/tool_calling_sft_dataset.json").resolve())
    assert found["experiment"]["model"]["adapter"] == str(Path("runs/sft-json").resolve())
    out = migrate("python -m sft.evaluate checkpoint_step_300 --num_samples 50")[1]
    wanted = "toolhone eval runs/sft-json --num-samples 50 --checkpoint checkpoint_step_300\n"
    assert out == wanted


def test_constants_of_a_config_module_are_read_and_never_run(migrate: Any, tmp_path: Path) -> None:
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "config.py").write_text(f"{CONSTANTS_OF_RL}raise SystemExit(3)\n")
    code, out, err = migrate("rl/config.py", "--json")
    found = json.loads(out)["experiment"]
    assert code == 0
    assert found["training"]["learning_rate"] == 2e-5
    assert found["training"]["rl"]["sampler_refresh_every"] == 5
    adapter = tmp_path / "runs" / "sft-json" / "checkpoints" / "checkpoint_step_300"
    assert found["model"]["adapter"] == str(adapter)
    assert "LORA_RANK has no effect" in err
    assert "WARMUP_PHASE = 'no' is not known here" in err


def test_a_notebook_gives_the_arguments_of_its_trainers(migrate: Any, tmp_path: Path) -> None:
    (tmp_path / "experiment2.ipynb").write_text(json.dumps(NOTEBOOK))
    code, out, err = migrate("experiment2.ipynb", "--json")
    found = json.loads(out)["experiment"]
    assert code == 0
    assert found == {
        "model": {"name": "/models/qwen", "torch_dtype": "float16"},
        "training": {
            "lora": {"rank": 8, "alpha": 32},
            "epochs": 3,
            "batch_size": 2,
            "gradient_accumulation_steps": 4,
            "loss_on": "completion",
        },
    }
    for named in ("LoraConfig(bias='none')", "SFTConfig(max_length=limit)", "output_dir='out'"):
        assert named in err


def test_keys_of_a_yaml_file_are_the_flags_of_its_command(migrate: Any, tmp_path: Path) -> None:
    (tmp_path / "grpo.yaml").write_text(FLAGS_IN_YAML)
    _, out, err = migrate("grpo.yaml", "--json")
    training = json.loads(out)["experiment"]["training"]
    assert training["rl"]["group_size"] == 4
    assert training["lora"] == {"rank": 8, "alpha": 160}
    assert "lora" not in err
    assert json.loads(migrate("grpo.yaml", "--json")[1])["experiment"]["training"] == training


@pytest.mark.parametrize("line", LINES.values(), ids=list(LINES))
def test_a_command_of_the_guide_means_the_same_typed_here_and_migrated(
    line: str, migrate: Any
) -> None:
    line = line.replace("MODEL", "Qwen/Qwen3-0.6B").replace("DATA", "rows.jsonl")
    experiment = json.loads(migrate(f"mlx_grpo.train {line}", "--json")[1])["experiment"]
    given, _ = split_flags(shlex.split(line))  # the rest is --adapter-path, the run folder
    typed = load_command(SimpleNamespace(meta={"flags": given}), None, overrides_of(given))
    assert make_experiment(experiment, "migrated").training == typed.training


def test_a_full_training_of_mlx_has_no_adapters(migrate: Any) -> None:
    _, out, _ = migrate("mlx_grpo.train --model pico --data r.jsonl --train-type full", "--json")
    assert json.loads(out)["experiment"]["training"]["lora"] is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("[", "a.json"), ("[]", "a.json"), ("x: [", "a.yaml"), ("- 1", "a.yml"), ("x =", "a.py")],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    text: str, name: str, migrate: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    code, out, err = migrate(name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert name in err


def test_words_that_are_no_command_name_the_programs_that_are(migrate: Any) -> None:
    for words in (
        ["python 'train.py"],
        ["make", "coffee"],
        ["nothing"],
        [""],
        ["absent.json"],
        ["a.toml"],
    ):
        code, out, err = migrate(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), words


def test_the_tables_name_keys_that_an_experiment_has() -> None:
    keys = {key for key, _, _ in walk_fields(Experiment)} | {"data.train_split"}
    assert {
        *CONSTANTS.values(),
        *(key for names in CALLS.values() for key in names.values()),
    } <= keys
    assert {entry["preset"] for entry in PROGRAMS.values() if "preset" in entry} <= {
        *preset_names()
    }
    assert "training.num_train_epochs" in TRAINING_KEYS


def test_the_page_for_those_who_come_from_elsewhere_names_every_program() -> None:
    page = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
    names = [name.removesuffix("*") for name in (*PROGRAMS, *CONSTANTS, *CALLS)]
    assert [name for name in names if name not in page] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("NUM_STEPS: int = 7", ""),
        ("NUM_STEPS, OTHER_NAME = 7, 8", "OTHER_NAME = 8"),
        ("NUM_STEPS = 2 * 50", "NUM_STEPS was left out: its value is computed"),
        ("NUM_STEPS = int(os.environ['S'])", "NUM_STEPS was left out: its value is computed"),
    ],
)
def test_a_constant_is_read_in_each_way_to_write_it_or_named(
    migrate: Any, tmp_path: Path, line: str, told: str
) -> None:
    (tmp_path / "config.py").write_text(f'BASE_MODEL = "pico"\n{line}\n')
    code, out, _ = migrate("config.py", "--json")
    found = json.loads(out)
    steps = found["experiment"]["training"]["steps"]
    assert (code, steps == 7, told in " ".join(found["notes"])) == (0, "computed" not in told, True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("model: pico\nlora_parameters: [1]\n", "lora_parameters must hold keys with values"),
        ("model: pico\nmodel: other\n", "the key 'model' occurs twice"),
        ("model: pico\ngroup_size: on\n", "'group_size' must be a number, not true"),
    ],
)
def test_yaml_that_says_two_things_is_refused(
    migrate: Any, tmp_path: Path, text: str, wrong: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    code, _, err = migrate("config.yaml")
    assert code == 2
    assert wrong in " ".join(err.split())
