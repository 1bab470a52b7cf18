"""Keys of other systems: each becomes one of ours, or is named with the reason why it has no
effect; nothing is lost silently.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from toolhone.backends.base import Adam, Muon
from toolhone.config.aliases import MOVED, WITHOUT_MEANING, translate
from toolhone.config.experiment import load_experiment, merged
from toolhone.errors import ConfigError
from toolhone.schema.json_input import plain_json
from toolhone.training.dataset import load_data
from toolhone.training.update import optimizer_at


def translated(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values in our words, and the notes."""
    notes: list[str] = []
    return translate(values, "the experiment", notes.append), notes


SCHEMA = {
    "type": "object",
    "properties": {"expression": {"type": "string"}},
    "required": ["expression"],
}
PLAYGROUND: dict[str, Any] = {
    "model": {
        "name": "pico",
        "trust_remote_code": False,
        "torch_dtype": "float16",
        "device_map": "auto",
    },
    "tokenizer": {"name": "pico", "trust_remote_code": True, "padding_side": "left"},
    "training": {
        "method": "sft",
        "num_epochs": 3,
        "learning_rate": 5e-5,
        "batch_size": 4,
        "eval_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 100,
        "max_length": 512,
        "use_lora": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
    },
    "data": {"strategy": "manual_templates", "max_samples": 200, "train_split": 0.8},
    "tools": [
        {
            "name": "calculator",
            "description": "Sums",
            "type": "function",
            "function": "calculator",
            "parameters": SCHEMA,
        },
        {
            "name": "clock",
            "description": "The time",
            "type": "api",
            "url": "http://127.0.0.1:9/time",
            "method": "POST",
            "headers": {},
        },
        {"name": "files", "description": "List files", "type": "command", "command": "ls"},
    ],
    "evaluation": {
        "metrics": ["tool_accuracy", "response_quality", "tool_format_correctness"],
        "eval_steps": 50,
    },
    "wandb": {"enabled": False, "project": "tools", "run_name": "first"},
    "tensorboard": {"enabled": True, "log_dir": "outputs/runs"},
    "seed": 42,
}


def test_a_whole_playground_file_loads_with_every_key_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "calculator_config.json"
    path.write_text(json.dumps(PLAYGROUND))
    notes: list[str] = []
    plan = load_experiment(path, tell=notes.append)
    training, lora, tracking = plan.training, plan.training.lora, plan.tracking
    assert (training.epochs, training.schedule.warmup_steps, training.validate_every) == (
        3,
        100,
        50,
    )
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.dropout) == (16, 32, 0.1)
    assert (plan.data.chosen_strategy, plan.data.max_samples, plan.data.validation_fraction) == (
        "manual_templates",
        200,
        0.2,
    )
    assert tracking.wandb is not None
    assert (tracking.wandb.enabled, tracking.wandb.project, tracking.wandb.run_name) == (
        False,
        "tools",
        "first",
    )
    assert tracking.tensorboard is not None
    assert tracking.tensorboard.log_dir == str(tmp_path / "outputs" / "runs")
    assert len(plan.tools) == 3
    assert [note.split(" ")[0] for note in notes] == [
        "training.eval_batch_size",
        "tokenizer.padding_side",
        "tokenizer.trust_remote_code",
    ]


def calculator(**changes: Any) -> dict[str, Any]:
    """A configuration in the shape of `calculator_config.json`, with sections changed."""
    values = {key: PLAYGROUND[key] for key in ("model", "training", "data", "tools", "evaluation")}
    for name, section in changes.items():
        values[name] = (
            {**values[name], **section} if isinstance(section, dict) and section else section
        )
    return {"seed": 42, **values}


REAL = {"strategy": "toolbench", "generation_type": "real", "max_samples": 100}
PPO = {"method": "ppo", "mini_batch_size": 1, "ppo_epochs": 4, "target_kl": 0.1}
DPO = {"method": "dpo", "dpo_beta": 0.1, "max_grad_norm": 1.0, "optim": "paged_adamw_8bit"}
DPO |= {"adam_beta1": 0.9, "adam_beta2": 0.999, "fp16": True, "label_smoothing": 0.0}
OF_THE_HISTORY = {
    "calculator_config": calculator(),
    "calculator_config with wandb": calculator() | {"wandb": {"enabled": False, "project": "p"}},
    "sft_calculator_config": calculator(data={"train_split": 0.9})
    | {"tensorboard": {"enabled": True}},
    "ppo_config": calculator(training=PPO, data={"strategy": "teacher_mode"}),
    "ppo_config with rank 8": calculator(training={**PPO, "lora_r": 8}, data={"max_samples": 100}),
    "dpo_config": calculator(training=DPO, model={"torch_dtype": "float16"}),
    "dpo_calculator_config": calculator(training={**DPO, "beta": 0.1} | {"dpo_beta": None}),
    "teacher_mode_config": calculator(training={"method": "teacher_mode", "max_length": 384}),
    "sft_toolbench_config": calculator(data=REAL, tools={}),
    "sft_toolbench_config, synthetic": calculator(data={**REAL, "generation_type": "synthetic"}),
}
"""By name: shapes that the playground's configuration files had."""
del OF_THE_HISTORY["dpo_calculator_config"]["training"]["dpo_beta"]


@pytest.mark.parametrize("name", OF_THE_HISTORY)
def test_each_shape_of_the_playgrounds_files_loads_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OF_THE_HISTORY[name], indent=2))
    plan = load_experiment(path, tell=lambda _: None)
    assert plan.seed == 42
    assert plan.training.epochs == 3


def nested(key: str, value: object) -> dict[str, Any]:
    result: Any = value
    for part in reversed(key.split(".")):
        result = {part: result}
    return result


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_every_moved_key_arrives_and_refuses_a_second_spelling(old: str, new: str) -> None:
    assert translated(nested(old, 7)) == (nested(new, 7), [])
    first, second = nested(old, 7), nested(new, 8)
    both = merged(first, second)
    with pytest.raises(ConfigError, match="keep one"):
        translated(both)


@pytest.mark.parametrize("key", WITHOUT_MEANING)
def test_a_key_without_meaning_is_named_with_its_reason(key: str) -> None:
    values, notes = translated(nested(key, 1))
    assert values == {}
    assert len(notes) == 1
    assert notes[0].startswith(f"{key} has no effect: ")


def test_use_lora_false_trains_every_weight_and_says_what_that_made_idle() -> None:
    values, notes = translated({"training": {"use_lora": False, "lora_r": 8, "lora_alpha": 16}})
    assert values == {"training": {"lora": None}}
    assert notes == ["training.lora_* (rank, alpha) has no effect: training.use_lora is false"]
    assert translated({"training": {"use_lora": True}}) == ({"training": {"lora": {}}}, [])
    assert (
        load_experiment(None, ["training.lora=null", "training.use_lora=true"]).training.lora
        is not None
    )
    with pytest.raises(ConfigError, match="use_lora is true or false, got 'no'"):
        translated({"training": {"use_lora": "no"}})


def test_the_numbers_of_adam_reach_the_optimizer_of_every_step(tmp_path: Path) -> None:
    numbers = {"adam_beta1": 0.8, "adam_beta2": 0.999, "adam_epsilon": 1e-6}
    values = {"training": {"optim": "paged_adamw_8bit", "weight_decay": 0.1, **numbers}}
    path = tmp_path / "dpo_config.json"
    path.write_text(json.dumps(values))
    notes: list[str] = []
    plan = load_experiment(path, tell=notes.append).training
    for step in (0, 7):
        adam = optimizer_at(plan, step, 10)
        assert isinstance(adam, Adam)
        assert (adam.beta1, adam.beta2, adam.eps, adam.weight_decay) == (0.8, 0.999, 1e-6, 0.1)
    assert notes == [
        "training.optim 'paged_adamw_8bit': AdamW runs with its state in float32 and unpaged"
    ]
    plan = load_experiment(path, ["training.optimizer=muon"], tell=notes.append).training
    muon = optimizer_at(plan, 0, 10)
    assert isinstance(muon, Muon)
    assert muon.adam.beta2 == 0.999


def test_an_optimizer_that_is_not_here_is_refused() -> None:
    assert translated({"training": {"optim": "adamw_torch_fused"}}) == (
        {"training": {"optimizer": {"name": "adamw"}}},
        [],
    )
    for wrong in ("adafactor", "sgd", 3):
        with pytest.raises(ConfigError, match=r"is not available; training\.optimizer is"):
            translated({"training": {"optim": wrong}})
    with pytest.raises(ConfigError, match=r"both training\.optim and"):
        translated({"training": {"optim": "adamw_torch", "optimizer": "muon"}})


def test_tools_in_an_object_are_a_list_and_an_empty_one_leaves_the_built_in_tools() -> None:
    values, notes = translated({"tools": {}})
    assert values == {}
    assert notes == [
        "tools is {}: the built-in tools calculator, python, weather and search are used"
    ]
    assert translated({"tools": {"add": {"description": "Adds"}}}) == (
        {"tools": [{"name": "add", "description": "Adds"}]},
        [],
    )


TOOLBENCH = """{
  // SFT on ToolBench
  "model": {"name": "pico" /* "microsoft/DialoGPT-medium" */, "torch_dtype": "float16",},
  "training": {"method": "sft", "num_epochs": 2, "learning_rate": 5e-5, "use_lora": true,},
  "data": {
    "strategy": "toolbench", "generation_type": "real", "max_samples": 30, "train_split": 0.8,
  },
  "tools": {},
  "evaluation": {"metrics": ["tool_accuracy", "tool_format_correctness"], "eval_steps": 50,},
  "wandb": {"enabled": false, "project": "runs // of, ] /* all */"},
}
"""


def test_a_toolbench_file_with_comments_and_without_data_makes_synthetic_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sft_toolbench_config.json"
    path.write_text("\ufeff" + TOOLBENCH, encoding="utf-8")
    plan = load_experiment(path, tell=lambda _: None)
    assert plan.tracking.wandb is not None
    assert plan.tracking.wandb.project == "runs // of, ] /* all */"
    dataset = load_data(plan)
    assert (len(dataset.train), len(dataset.held_out)) == (24, 6)
    assert dataset.report["source"] == (
        "30 synthetic rows: data.generation_type is 'real', but data.path names no ToolBench file"
    )
    with pytest.raises(ConfigError, match=r"'real' needs data\.path"):
        load_experiment(path, ["data.strategy=manual_templates"], tell=lambda _: None)


def any_value(chance: random.Random, depth: int = 0) -> Any:
    """A JSON value whose texts look like comments, brackets and commas."""
    text = "".join(chance.choices('/*"\\,]}\n ', k=chance.randrange(6)))
    kind = chance.randrange(3 if depth > 3 else 5)
    if kind < 3:
        return (None, 7, text)[kind]
    values = [any_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return values if kind == 3 else {f"{n}{text}": value for n, value in enumerate(values)}


@pytest.mark.parametrize("filler", ["", " ", "// x, ]\n", '/* " } // */', "\n/**/ "])
def test_comments_and_trailing_commas_change_no_value(filler: str) -> None:
    for seed in range(200):
        value = any_value(random.Random(seed))
        text = json.dumps(value, indent=1)
        check_decorated(value, text, filler)


def check_decorated(value: Any, text: str, filler: str) -> None:
    assert plain_json(text) == text
    lines = []
    for line in text.splitlines():
        open_ended = line[-1] not in ",[{" and line is not text.splitlines()[-1]
        closes = line.strip() in ("]", "}", "],", "},")
        before = filler if closes else ""
        lines.append(f"{before}{line}{filler if open_ended else ''}")
    decorated = f"{filler}\n" + "\n".join(lines) + f"\n{filler}"
    assert json.loads(plain_json(decorated)) == value
    assert json.loads(plain_json(re.sub(r"\n *([]}])", r",\n\1", text))) == value


def test_an_error_in_a_file_with_comments_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text('{ // one\n /* two\n */ "seed": 1 "model": {} }')
    with pytest.raises(ConfigError, match="line 3 column 15"):
        load_experiment(path)


@pytest.mark.parametrize("share", [0, 1, 1.5, "most", True])
def test_a_train_split_that_is_no_share_is_refused(share: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_split is the share of rows"):
        translated({"data": {"train_split": share}})


def test_precision_switches_set_the_dtype_and_contradictions_are_refused() -> None:
    assert translated({"training": {"bf16": True, "fp16": False}})[0]["model"] == {
        "torch_dtype": "bfloat16"
    }
    assert translated({"model": {"torch_dtype": "float16"}, "training": {"fp16": True}})[0][
        "model"
    ] == {"torch_dtype": "float16"}
    for values, said in (
        (
            {"model": {"torch_dtype": "float32"}, "training": {"fp16": True}},
            "torch_dtype is 'float32', but",
        ),
        ({"training": {"fp16": True, "bf16": True}}, "are both true"),
        ({"training": {"fp16": 1}}, "is true or false, got 1"),
        ({"training": {"use_lora": True, "lora": None}}, "training.lora is null"),
    ):
        with pytest.raises(ConfigError, match=said):
            translated(values)


def test_another_tokenizer_than_the_models_is_named() -> None:
    _, notes = translated({"model": {"name": "a"}, "tokenizer": {"name": "b"}})
    assert notes == [
        "tokenizer.name 'b' has no effect: a model is used with its own tokenizer ('a')"
    ]
    assert translated({"model": {"name": "a"}, "tokenizer": {"name": "a"}})[1] == []
    assert translated({"tokenizer": {"name": "b"}})[1] == [
        "tokenizer.name 'b' has no effect: a model is used with its own tokenizer"
    ]


def test_aliases_work_in_overrides_and_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"training": {"epochs": 1, "lora": {"rank": 4}}}))
    plan = load_experiment(
        path, ["training.num_epochs=5", "training.lora_r=8", "data.train_split=0.75"]
    )
    assert plan.training.epochs == 5
    assert plan.training.lora is not None
    assert plan.training.lora.rank == 8
    assert plan.data.validation_fraction == 0.25


def test_settings_of_reinforcement_learning_are_named_where_they_have_no_effect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    load_experiment(None, ["training.ppo_epochs=4", "training.mini_batch_size=1"])
    assert (
        "note: training.rl (inner_epochs, mini_batch_size) has no effect with training.method 'sft'"
        in capsys.readouterr().err
    )


def test_translating_changes_nothing_in_the_input() -> None:
    before = json.dumps(PLAYGROUND)
    translated(PLAYGROUND)
    assert json.dumps(PLAYGROUND) == before
