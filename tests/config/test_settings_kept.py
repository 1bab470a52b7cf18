"""No setting is lost without a word: each of these was, once."""

import json
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest

from toolhone import evaluate, experiment, open_model, train
from toolhone.cli.main import main
from toolhone.cli.train import resume_command
from toolhone.config.experiment import experiment_of, load_experiment
from toolhone.errors import ConfigError, DataError
from toolhone.evaluation.legacy_metrics import known_metrics
from toolhone.runs.run import Run
from toolhone.schema.tool import schema_of_callable
from toolhone.training.dataset import load_data

PROMPT = (
    "You may call these functions.\n\n"
    '[{"name": "area", "description": "Area.", "parameters": {"w": '
    '{"description": "width", "type": "int"}}}]\n\nHow large is 3?'
)
ROW = {
    "prompt": PROMPT,
    "answer": "area(w=3)",
    "type": "tool_call",
    "ground_truth": "area",
    "possible_boxed_answers": ["area"],
}


class Guest(TypedDict):
    name: str


def plan(*overrides: str) -> Any:
    return load_experiment(None, overrides, tell=lambda _: None)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["toolhone", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "arguments", [["ppo-json", "--temperature", "0.9"], ["dpo", "--beta", "0.2"]]
)
def test_a_flag_of_reinforcement_learning_leaves_the_method_of_a_preset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    def stop(plan: Any, *_: Any, **__: Any) -> None:
        raise ConfigError(f"asked for {plan.training.method}")

    monkeypatch.setattr("toolhone.cli.train.run_training", stop)
    assert run_cli(monkeypatch, "train", *arguments) == 2
    assert f"asked for {arguments[0][:3]}" in capsys.readouterr().err


def test_a_schedule_given_as_a_word_keeps_the_warm_up() -> None:
    shaped = load_experiment(
        Path("toolbench"), ["training.schedule=cosine"], tell=lambda _: None
    ).training.schedule
    assert (shaped.shape, shaped.warmup_steps) == ("cosine", 100)


def test_overrides_of_a_mapping_count_before_the_learning_rate_is_filled_in() -> None:
    assert (
        experiment({"model": {"name": "pico"}}, ["training.lora=null"]).training.learning_rate
        == 2e-5
    )


def test_templates_make_as_many_rows_as_asked_and_split_them_as_asked() -> None:
    materials = load_data(plan("data.max_samples=50", "data.samples=10"))
    assert len(materials.train) == 50
    materials = load_data(plan("data.samples=100", "data.train_split=0.6"))
    assert (len(materials.train), len(materials.held_out), len(materials.tasks)) == (60, 40, 40)


def test_templates_refuse_tools_that_they_cannot_ask_for() -> None:
    schema = {"name": "mine", "description": "", "parameters": {"type": "object"}}
    with pytest.raises(
        DataError,
        match=r"built-in tools only, and tools also has 'mine'; make rows with .*manual_templates",
    ):
        load_data(plan(f"tools={json.dumps(['calculator', schema])}"))


@pytest.mark.parametrize(
    "setting",
    ["data.style=short", "data.distractors=3", "data.raw_prompt=true", "data.split=tools"],
)
def test_settings_of_a_reader_are_refused_where_nothing_is_read(setting: str) -> None:
    with pytest.raises(
        ConfigError, match=r"describes a file, but data\.strategy 'templates' generates its rows"
    ):
        plan(setting)


def test_examples_and_answers_are_refused_where_rows_are_read() -> None:
    for setting in ("data.answered=0.5", 'data.examples=[{"query": "q", "calls": []}]'):
        with pytest.raises(ConfigError, match="are for generated rows"):
            plan("data.strategy=toolbench", "data.path=x", setting)


def test_evaluation_tasks_are_read_as_the_training_rows_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {**ROW, "prompt": PROMPT.replace("3", str(n)), "answer": f"area(w={n})"}
        for n in range(10, 30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for raw, roles in (("true", ["user"]), ("false", ["system", "user"])):
        materials = load_data(
            plan(f"data.path={path}", f"data.raw_prompt={raw}", f"evaluation.tasks={path}")
        )
        assert [message.role for message in materials.tasks[0].messages] == roles
        assert [message.role for message in materials.train[0].messages[:-1]] == roles


def test_a_folder_with_a_training_file_is_read_as_other_trainers_do(tmp_path: Path) -> None:
    user, said = {"role": "user", "content": ""}, {"role": "assistant", "content": "Hi"}
    rows = [{"messages": [{**user, "content": f"hello {n}"}, said]} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    materials = load_data(plan(f"data.path={tmp_path}"))
    assert len(materials.train) + len(materials.held_out) == 20
    assert materials.report["source"].endswith("train.jsonl")


def test_a_replay_answers_also_while_rows_are_made(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "from pathlib import Path\ndef ring(times: int) -> str:\n    'Ring.'\n"
        "    Path(__file__).with_name('rang').touch()\n    return 'x'\n"
    )
    (tmp_path / "log.jsonl").write_text("")
    wanted = [
        f'tools=["{tmp_path}/t.py:ring"]',
        "data.strategy=manual_templates",
        "data.max_samples=20",
        "data.answered=1",
    ]
    materials = load_data(plan(*wanted, f"tool_results.replay={tmp_path}/log.jsonl"))
    assert not (tmp_path / "rang").exists()
    assert sum(materials.report["not_answered"].values()) > 0
    assert "without results" in materials.summary()


def test_the_playgrounds_own_list_of_metrics_means_the_playgrounds() -> None:
    theirs = ["tool_accuracy", "format_correctness", "execution_success", "response_quality"]
    assert known_metrics(theirs) == [f"playground.{name}" for name in theirs]
    assert known_metrics(["tool_accuracy", "exact_match"]) == ["tool_accuracy", "exact_match"]


@pytest.mark.parametrize(
    "values",
    [
        {"model": "pico"},
        {"model": "pico", "training": {"fp16": True}},
        {"model": "pico", "tokenizer": {"name": "x"}},
        {"training": "fast"},
        {"data": 5, "training": {"lora_r": 3}},
        {"training": {"lora": 5, "lora_r": 3}},
        {"tracking": None, "wandb": {}},
    ],
)
def test_a_section_of_the_wrong_type_is_one_sentence(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError):
        load_experiment(path, tell=lambda _: None)
    with pytest.raises(ConfigError):
        load_experiment(
            Path("calculator"),
            [f"{next(iter(values))}={json.dumps(next(iter(values.values())))}", "seed=-1"],
        )


def test_deeply_nested_json_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ConfigError, match="is not JSON that can be read"):
        load_experiment(path)


def test_a_long_override_first_is_no_file_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = {"name": "mine", "description": "long " * 80, "parameters": {"type": "object"}}
    assert run_cli(monkeypatch, "config", "show", f"tools={json.dumps([tool])}") == 0
    assert json.loads(capsys.readouterr().out)["tools"] == [tool]


def test_debug_shows_where_an_error_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "train", "nowhere.json") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert run_cli(monkeypatch, "train", "nowhere.json", "--debug") == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("error: no experiment file nowhere.json")


def test_an_adapter_may_be_a_run_and_brings_its_own_lora_but_for_its_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small: dict[str, Any] = {
        "data": {"samples": 12},
        "training": {"steps": 1, "batch_size": 2, "validate_every": 0},
        "evaluation": {"at_end": False, "max_new_tokens": 4},
    }
    train(experiment_of(small, "the test", ["training.lora.rank=4"]), "first")
    small["model"] = {"adapter": "first"}
    plan = experiment_of(small, "the test", ["training.lora.dropout=0.25"])
    run, ending = train(plan, "second")
    assert ending == "finished"
    assert evaluate(open_model(run.folder), num_samples=1).metrics["valid_format"].n == 1
    kept = Run.open(run.folder).experiment.training.lora
    assert kept is not None
    assert (kept.rank, kept.dropout) == (4, 0.25)
    written = json.loads((run.checkpoint() / "adapter_config.json").read_text())
    assert (written["r"], written["lora_dropout"]) == (4, 0.25)
    with pytest.raises(
        ConfigError, match=r"training\.lora\.rank is 3, in .* it is 4; leave it out"
    ):
        train(experiment_of(small, "the test", ["training.lora.rank=3"]), "third")
    told: list[str] = []
    chosen = ["model.adapter=first", "model.torch_dtype=float32"]
    load_experiment(Path("sft-json"), chosen, tell=told.append)
    assert told == ["training.lora of the preset has no effect: model.adapter brings its own"]
    (tmp_path / "whole" / "checkpoints").mkdir(parents=True)
    whole = load_experiment(Path("demo-grpo"), ["model.adapter=whole"], tell=told.append)
    assert whole.training.lora is None, "a run of full training goes on in full"
    assert len(told) == 1


def test_another_experiments_tools_and_evaluation_are_used_where_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "data": {"samples": 12},
        "training": {"steps": 1, "batch_size": 2, "validate_every": 0},
        "evaluation": {"at_end": False},
    }
    train(experiment_of(small, "the test"), "run")
    (tmp_path / "own.py").write_text("def always(task, episode): return 1.0")
    other = {
        "tools": ["weather"],
        "evaluation": {"metrics": ["own.py:always"], "max_new_tokens": 4},
    }
    (tmp_path / "other.json").write_text(json.dumps(other))
    cases = [
        {
            "prompt": "Human: Weather in Oslo?",
            "expected_tool": "weather",
            "expected_params": {"city": "Oslo"},
        },
        {"prompt": 5},
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    line = (
        "eval --model-path run --config other.json --test-cases cases.json "
        "--output found.json --json"
    )
    assert run_cli(monkeypatch, *line.split()) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["metrics"]["always"]["value"] == 1.0
    assert "kept 1 of 2 rows" in shown.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["total_cases"], found["details"][0]["expected_tool"]) == (1, "weather")


@pytest.mark.parametrize(
    "overrides",
    [[], ["data.samples=60"], ["data.train_split=0.7", "data.samples=30"], ["data.max_samples=20"]],
)
def test_a_reopened_run_has_the_rows_and_tasks_that_it_was_trained_with(
    tmp_path: Path, overrides: list[str]
) -> None:
    first = plan("data.samples=50", *overrides)
    again = Run.create(tmp_path / "run", first) and Run.open(tmp_path / "run").experiment
    before, after = load_data(first), load_data(again)
    assert before.train == after.train
    assert before.held_out == after.held_out
    assert before.tasks == after.tasks


def test_a_stopped_run_prints_a_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["toolhone", "train", "own.json", "seed=1"])
    assert resume_command(plan(), Path("runs/a")) == "toolhone train --resume --out runs/a"
    outside = tmp_path.parent / "t.py"
    outside.write_text("def f(a: int) -> int:\n    return a\n")
    command = resume_command(plan(f'tools=["{outside}:f"]'), Path("runs/own"))
    assert command == "toolhone train own.json seed=1 --out runs/own --resume"


def test_flags_may_be_spelt_with_underscores_and_mistakes_get_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_cli(
            monkeypatch,
            "config",
            "show",
            "--model",
            "pico",
            "--lora_rank=4",
            "--max_seq_length",
            "99",
            "--iters",
            "5",
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)["training"]
    assert (shown["lora"]["rank"], shown["max_length"], shown["steps"]) == (4, 99, 5)
    assert run_cli(monkeypatch, "train", "--itres", "5") == 2
    assert "there is no option --itres (did you mean '--iters'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('config show evaluation.metrics=["exact_mach"]', "did you mean 'exact_match'"),
        (
            "data build --shape sft-array --train 5 --out x.json",
            "--rows is the size of an SFT array",
        ),
        ("data build --rows 5 --out x", "--rows and --shares are for --shape sft-array"),
        ("score --csv x.csv --jsonl", "leave out --jsonl"),
        ("score --csv x.csv --reward a.py:b", "leave out --reward"),
        ("examples 2 --yes training.stepz=5", "did you mean 'steps'"),
        ("eval runs/nosuch", "no model or run at 'runs/nosuch'"),
    ],
)
def test_what_cannot_have_an_effect_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert run_cli(monkeypatch, *line.split()) == 2
    assert said in capsys.readouterr().err


def test_a_type_that_pydantic_refuses_is_one_sentence() -> None:
    def book(guest: Guest) -> str:  # noqa: ARG001
        return ""

    book.__annotations__ = {"guest": Guest, "return": str}
    if sys.version_info < (3, 12):
        with pytest.raises(DataError, match="tool 'book': no JSON Schema for parameter 'guest'"):
            schema_of_callable(book)
