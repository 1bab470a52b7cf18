"""Keys of other systems: each becomes one of ours, or is named with the reason why it has no
effect; nothing is lost silently.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolhone.cli.flags import FLAGS
from toolhone.config.aliases import MOVED, WITHOUT_MEANING, translate
from toolhone.config.experiment import load_experiment
from toolhone.errors import ConfigError


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


def nested(key: str, value: object) -> dict[str, Any]:
    result: Any = value
    for part in reversed(key.split(".")):
        result = {part: result}
    return result


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_every_moved_key_arrives_and_refuses_a_second_spelling(old: str, new: str) -> None:
    assert translated(nested(old, 7)) == (nested(new, 7), [])
    first, second = nested(old, 7), nested(new, 8)
    section = old.partition(".")[0]
    both = {**first, **second}
    if section in second:
        both[section] = {**first[section], **second[section]}
    with pytest.raises(ConfigError, match="keep one"):
        translated(both)


@pytest.mark.parametrize("key", WITHOUT_MEANING)
def test_a_key_without_meaning_is_named_with_its_reason(key: str) -> None:
    values, notes = translated(nested(key, 1))
    assert values == {}
    assert len(notes) == 1
    assert notes[0].startswith(f"{key} has no effect: ")


def test_the_page_for_those_who_come_from_elsewhere_names_every_key_and_flag() -> None:
    page = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
    keys = {key.rpartition(".")[2] for key in (*MOVED, *WITHOUT_MEANING)} | {
        "train_split",
        "fp16",
        "bf16",
        "adap_kl_ctrl",
        "use_lora",
    }
    missing = [key for key in keys if not re.search(rf"[`.]{key}\b", page)]
    assert not missing
    flags = {name for flag in FLAGS for name in flag.names} - {"--method"}
    assert not [
        name
        for name in flags
        if name not in page and f"`{name.removeprefix('--curriculum')}`" not in page
    ]


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
