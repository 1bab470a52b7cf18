"""Flags of other trainers: lists and switches in both spellings, every documented command line."""

import re
import shlex
import sys
from types import SimpleNamespace

import pytest
import typer

from toolhone.cli.flags import FLAGS, Kind, overrides_of, split_flags
from toolhone.cli.main import GROUPS, VERBS, app, load_verb, main
from toolhone.cli.train import grpo_choices, load_command
from toolhone.config.experiment import load_experiment
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError, UserError

FULL = """--model mlx-community/Qwen2.5-7B-Instruct-4bit --data /path/to/train.jsonl --train
 --train-type lora --iters 1000 --batch-size 4 --group-size 8 --learning-rate 1e-5
 --max-completion-length 256 --temperature 0.7 --beta 0.1
 --reward-functions tool_call_exact tool_call_function tool_call_overall
 --reward-weights 0.3 0.4 0.3 --save-every 100"""


def plan_of(line: str) -> Experiment:
    given, rest = split_flags(shlex.split(line))
    return load_experiment(None, [*overrides_of(given), *rest], tell=lambda _: None)


def test_the_documented_grpo_command_becomes_an_experiment() -> None:
    plan = plan_of(FULL)
    t, rl = plan.training, plan.training.rl
    assert (t.method, t.steps, t.batch_size, t.learning_rate) == ("grpo", 1000, 4, 1e-5)
    assert (rl.group_size, rl.max_completion_length, rl.temperature, rl.beta) == (8, 256, 0.7, 0.1)
    assert rl.reward.functions == ["tool_call_exact", "tool_call_function", "tool_call_overall"]
    assert rl.reward.weights == [0.3, 0.4, 0.3]
    assert plan.model.name == "mlx-community/Qwen2.5-7B-Instruct-4bit"
    assert plan.training.save_every == 100


@pytest.mark.parametrize(
    "line",
    [
        "--reward-functions tool_call_exact --reward-weights 1.0 --epsilon 0.1 --epsilon-high 0.2",
        "--reward-functions tool_call_function tool_call_parseable --reward-weights 0.8 0.2 "
        "--iters 100",
        "--enforce-thinking false --two-phase-samples-per-group -1",
        "--curriculum-enabled true --curriculum-start-ratio 1.0 --curriculum-end-ratio 0.0 "
        "--curriculum-steps 500",
        "--grad-checkpoint true --max-completion-length 128 --batch-size 2 --group-size 4",
        "--lora-layers 16 --lora-rank 32 --lora-alpha 64 --lora-dropout 0.1",
        "--train --train-type lora --lora-layers 24 --lora-rank 64 --lora-alpha 128 "
        "--grad-checkpoint --save-every 50",
        "--wandb-project tool-calling-grpo",
    ],
)
def test_documented_fragments_parse(line: str) -> None:
    plan_of(line)


def test_lists_may_have_spaces_or_commas_or_both() -> None:
    for line in (
        "--reward-functions a b --reward-weights 0.3 0.7",
        "--reward-functions a,b --reward-weights 0.3,0.7",
        "--reward-functions=a,b --reward-weights='0.3 0.7'",
        "--reward-functions a, b --reward-weights 0.3, 0.7",
    ):
        reward = plan_of(line).training.rl.reward
        assert (reward.functions, reward.weights) == (["a", "b"], [0.3, 0.7]), line


@pytest.mark.parametrize(
    ("line", "on"),
    [
        ("--grad-checkpoint", True),
        ("--grad-checkpoint true", True),
        ("--grad-checkpoint=True", True),
        ("--grad-checkpoint yes", True),
        ("--grad-checkpoint false", False),
        ("--grad-checkpoint=0", False),
        ("--grad-checkpoint training.steps=3", True),
    ],
)
def test_a_switch_stands_alone_or_with_a_value(line: str, on: bool) -> None:
    assert plan_of(line).training.gradient_checkpointing is on


def test_a_list_ends_before_an_override_and_before_an_experiment_file() -> None:
    given, rest = split_flags(["--reward-functions", "a", "b", "training.steps=3"])
    assert (given, rest) == ({"reward_functions": '["a", "b"]'}, ["training.steps=3"])
    given, rest = split_flags(["--reward-functions", "a", "sft.json"])
    assert rest == ["sft.json"]


def test_overrides_win_over_flags_and_a_named_method_over_the_guess() -> None:
    assert plan_of("--iters 100 training.steps=7").training.steps == 7
    assert plan_of("--train-mode ppo --temperature 0.5").training.method == "ppo"
    assert plan_of("--lora-rank 4").training.method == "sft"


def test_full_training_has_no_adapters_and_refuses_their_numbers() -> None:
    assert plan_of("--train-type full").training.lora is None
    with pytest.raises(
        ConfigError,
        match=r"--train-type full trains every weight; leave out training\.lora\.rank=8",
    ):
        plan_of("--lora-rank 8 --train-type full")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "--grad-checkpoint=maybe",
            "--grad-checkpoint is a switch: alone, or with true or false; got 'maybe'",
        ),
        ("--iters", "--iters needs a value"),
        ("--iters --train", "--iters needs a value"),
        ("--iters 5 --iters 6", "--iters is given twice"),
        ("--reward-functions --train", "--reward-functions needs at least one value"),
        ("--train-type dora", "--train-type is lora or full, got 'dora'"),
        ("--train false", "this verb only trains"),
        ("--iters many", "training.steps in the command line: input should be a valid integer"),
        ("--reward-functions a b --reward-weights 1", "2 reward functions have 1 weights"),
        (
            "--reward-functions a --reward-weights x",
            "training.rl.reward.weights.0 in the command line: .*number",
        ),
        ("--two-phase-samples-per-group -2", "two_phase_samples_per_group"),
    ],
)
def test_a_mistake_in_a_flag_gets_one_sentence(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        plan_of(line)
    assert "\n" not in str(caught.value)


def test_every_flag_reaches_a_key_that_exists() -> None:
    values = {Kind.VALUE: "1", Kind.TEXT: "1", Kind.SWITCH: "true", Kind.LIST: "1"}
    special = {
        "train_type": "lora",
        "train_mode": "grpo",
        "lora_dropout": "0.5",
        "max_seq_length": "2",
    }
    for flag in FLAGS:
        line = f"{flag.names[0]} {special.get(flag.slot, values[flag.kind])}"
        if flag.slot == "reward_weights":
            line += " --reward-functions a"
        plan_of(line)


@pytest.mark.parametrize("sign", [" ", "="])
def test_the_usual_short_flags_are_understood(sign: str) -> None:
    line = "--max-steps 7 --lr 1e-3 --epochs 2 --dialect json --tools weather,search"
    plan = plan_of(line if sign == " " else re.sub(r"(--[a-z-]+) ", r"\1=", line))
    training = plan.training
    assert (training.steps, training.learning_rate, training.epochs) == (7, 1e-3, 2.0)
    assert (plan.model.dialect, plan.tools) == ("json", ["weather", "search"])


def test_a_tool_that_is_also_the_name_of_a_preset_is_a_tool_after_tools() -> None:
    given, rest = split_flags(["demo", "--tools", "weather", "calculator", "t.json", "seed=1"])
    assert overrides_of(given) == ['tools=["weather", "calculator", "t.json"]']
    assert rest == ["demo", "seed=1"]


@pytest.mark.parametrize(
    "line",
    [
        "eval runs/none --num_samples 3 --checkpoint final_checkpoint",
        "eval runs/none --num_samples=3 --output_dir scores --model_path",
        "data build --train 1 --tasks",
        "score --as_jsonl --predictions",
    ],
)
def test_flags_of_every_verb_may_have_underscores(line: str) -> None:
    group = typer.main.get_group(app)
    context = group.make_context("toolhone", [], resilient_parsing=True)
    _, _, words = group.resolve_command(context, line.split())
    assert words == [
        word.replace("_", "-") if word[0] == "-" else word for word in line.split()[1:]
    ]


def test_underscores_reach_the_options_of_a_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("eval nowhere/none --num_samples 0", "config show --lora_rank many"):
        monkeypatch.setattr(sys, "argv", ["toolhone", *words.split()])
        with pytest.raises(SystemExit):
            main()
    err = capsys.readouterr().err
    assert "'--num-samples'" in err
    assert "training.lora.rank" in err


def choices_of(line: str, has_file: bool = False) -> list[str]:
    given, rest = split_flags(shlex.split(line))
    keys = [*overrides_of(given), *rest]
    plan = load_experiment(None, keys, tell=lambda _: None)
    return list(grpo_choices(plan, given, keys, has_file))


CALLS = "model.dialect=calls"
ONCE = "training.rl.episode.max_turns=1"
FLAT = "training.schedule.shape=constant"
ADAPTERS = [
    "training.lora.rank=8",
    "training.lora.alpha=128",
    "training.learning_rate=1e-5",
    "training.rl.temperature=0.8",
]
EXACT_AND_FUNCTION = 'training.rl.reward.functions=["tool_call_exact", "tool_call_function"]'


@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("--reward-functions tool_call_exact tool_call_overall", [CALLS, ONCE, FLAT]),
        ("--reward-functions tool_call_params,mine.py:polite", [CALLS, ONCE, FLAT]),
        ("--reward-functions json_answer", ["model.dialect=json"]),
        ("--reward-functions tool_use", []),
        ("--reward-functions tool_call_exact model.dialect=native", [ONCE, FLAT]),
        ("--reward-functions tool_call_exact data.raw_prompt=true --data rows.jsonl", [ONCE, FLAT]),
        ("--reward-functions tool_call_exact --tools calculator", [CALLS, FLAT]),
        ("--reward-functions tool_call_exact training.rl.episode.max_turns=3", [CALLS, FLAT]),
        ("--reward-functions tool_call_exact --train-mode ppo", []),
        ("--reward-functions tool_call_exact training.schedule.shape=cosine", [CALLS, ONCE]),
        ("--group-size 4", [EXACT_AND_FUNCTION, CALLS, ONCE, FLAT]),
        ("--train-mode grpo", [EXACT_AND_FUNCTION, CALLS, ONCE, FLAT]),
        ("--temperature 0.7 model.dialect=json", [EXACT_AND_FUNCTION, ONCE, FLAT]),
        ("--group-size 4 'training.rl.reward.functions=[\"tool_use\"]'", []),
        ("--lora-rank 4", []),
        ("training.method=grpo", []),
    ],
)
def test_its_flags_choose_its_rewards_dialect_and_turns(line: str, chosen: list[str]) -> None:
    choices = choices_of(line)
    assert [choice for choice in choices if choice not in ADAPTERS] == chosen
    kept = [choice for choice in ADAPTERS if "temperature" not in choice or "temp" not in line]
    assert (choices[-len(kept) :] == kept) is (FLAT in chosen or "schedule" in line)


@pytest.mark.parametrize(
    ("flags", "rank", "alpha"),
    [("", 8, 128), ("--lora-rank 32", 32, 512), ("--lora-rank 32 --lora-alpha 64", 32, 2048)],
)
def test_its_lora_alpha_is_the_scale_itself(flags: str, rank: int, alpha: float) -> None:
    typed = "--learning-rate 1e-4 --temperature 0.7"
    choices = choices_of(f"--reward-functions tool_call_exact {typed} {flags}")
    assert choices[-2:] == [f"training.lora.rank={rank}", f"training.lora.alpha={alpha}"]


def test_a_run_without_adapters_stays_without() -> None:
    line = "--reward-functions tool_call_exact training.lora=null"
    assert not any("lora" in choice for choice in choices_of(line))


def test_a_file_keeps_its_rewards_and_its_dialect() -> None:
    assert choices_of("--group-size 4", has_file=True) == []


def test_what_was_chosen_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    context = SimpleNamespace(meta={"flags": {"group_size": "4"}})
    plan = load_command(context, None, ["training.method=grpo", "training.rl.group_size=4"])
    assert plan.model.dialect == "calls"
    assert plan.training.rl.reward.functions == ["tool_call_exact", "tool_call_function"]
    said = capsys.readouterr().err
    assert 'functions=["tool_call_exact", "tool_call_function"] is chosen: those of' in said
    assert "note: model.dialect=calls is chosen: the way of calling that tool_call_exact" in said


@pytest.mark.parametrize(
    ("word", "right"), [("import", "data import"), ("preview", "data preview"), ("show", "config")]
)
def test_a_command_without_its_group_gets_the_whole_name(word: str, right: str) -> None:
    group = typer.main.get_group(app)
    context = group.make_context("toolhone", [], resilient_parsing=True)
    with pytest.raises(UserError, match=f"no command '{word}'; wanted: toolhone {right}"):
        group.resolve_command(context, [word, "rows.jsonl"])


def test_the_groups_are_the_verbs_with_commands_of_their_own() -> None:
    assert {name for name in VERBS if hasattr(load_verb(name), "commands")} == set(GROUPS)
