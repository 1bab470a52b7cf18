"""The command line as a user meets it: one sentence and exit code 2 for each mistake, results on
standard output.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolhone import __version__
from toolhone.cli.main import VERBS, app, load_verb, main
from toolhone.models.pico import pico_folder

TOOL = {
    "name": "weather",
    "description": "Weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
USER = {"role": "user", "content": "How is Oslo?"}
QUICK = [
    "training.steps=2",
    "training.batch_size=2",
    "training.lora=null",
    "evaluation.at_end=false",
    "training.validate_every=0",
]


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A good conversation; `call` replaces its call, other changes its fields."""
    call = changes.pop("call", {"name": "weather", "arguments": {"city": f"Oslo {number}"}})
    calls = {"role": "assistant", "content": None, "tool_calls": [call]}
    user = {"role": "user", "content": f"How is Oslo {number}?"}
    return {
        "id": f"row{number}",
        "messages": [user, calls],
        "tools": [TOOL],
        "source": "test",
        **changes,
    }


def write(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows)
    )
    return path


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["toolhone", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


class Case:
    """A command with a mistake: how to make its files, and what must be said."""

    def __init__(
        self, said: str, *arguments: str, rows: Sequence[dict[str, Any] | str] = ()
    ) -> None:
        self.said, self.arguments, self.rows = said, arguments, rows


GOOD = [row(i) for i in range(6)]
TASK = {
    "id": "t1",
    "messages": [USER],
    "tools": [TOOL],
    "expect": {"calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
}
CASES = {
    "missing data file": Case("no such file", "train", "data.path=nowhere.jsonl"),
    "missing experiment": Case("no experiment file", "train", "nowhere.json"),
    "broken JSON line": Case(
        "data.jsonl, line 1: not JSON", "train", "data.path=data.jsonl", rows=['{"id": 1,']
    ),
    "unknown key": Case("did you mean 'steps'", "train", "training.step=3"),
    "wrong type": Case(
        "training.steps in the command line: input should be a valid integer",
        "train",
        "training.steps=ten",
    ),
    "unknown method": Case(
        "training.method in the command line: should be one of sft, dpo",
        "train",
        "training.method=sftt",
    ),
    "unknown tool in data": Case(
        "did you mean 'weather'",
        "train",
        "data.path=data.jsonl",
        rows=[*GOOD, row(7, call={"name": "wether", "arguments": {}})],
    ),
    "arguments that break the schema": Case(
        "city",
        "train",
        "data.path=data.jsonl",
        rows=[*GOOD, row(8, call={"name": "weather", "arguments": {"city": 5}})],
    ),
    "an empty call": Case(
        "a tool call needs a 'name'",
        "train",
        "data.path=data.jsonl",
        rows=[row(9, call={"name": "", "arguments": {}})],
    ),
    "no supervised token": Case(
        "row10",
        "train",
        "data.path=data.jsonl",
        rows=[*GOOD, row(10, messages=[USER, {"role": "assistant", "content": ""}])],
    ),
    "longer than the context": Case(
        "longer than 30 tokens",
        "train",
        "data.path=data.jsonl",
        "training.max_length=30",
        "data.too_long=error",
        rows=GOOD,
    ),
    "a model that is not there": Case(
        "no model at 'qwen-nowhere'", "train", "model.name=qwen-nowhere"
    ),
    "a model that is not there, to evaluate": Case(
        "no model or run at './nowhere'", "eval", "./nowhere"
    ),
    "an unknown dialect": Case("did you mean 'json'", "train", "model.dialect=jsn"),
    "an unknown tool in the experiment": Case(
        "did you mean 'weather'", "train", 'tools=["wether"]'
    ),
    "an unknown data format": Case(
        "did you mean 'gsm8k'", "train", "data.path=data.jsonl", "data.format=gsm8", rows=GOOD
    ),
    "nothing to plot": Case("no such file", "plot", "nowhere"),
    "nothing to resume": Case("is no run folder", "train", "--resume", "--out", "nothing"),
    "a checkpoint of what is no run": Case(
        "is no run folder", "eval", "pico", "--checkpoint", "best"
    ),
    "a seed that is none": Case("seed in the command line", "train", "seed=99999999999999999999"),
    "a validation file without a training file": Case(
        "describe a file, but there is no data.path", "train", "data.validation=v.jsonl"
    ),
    "a device that is not here": Case(
        "model.device_map: 'cuda:7' cannot be used here", "train", "model.device_map=cuda:7"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_one_sentence_and_exit_code_2(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if case.rows:
        write(tmp_path / "data.jsonl", case.rows)
    code, out, err = run(capsys, monkeypatch, *case.arguments)
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert out == ""
    assert len(sentences) == 1, err
    assert case.said in sentences[0], err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_the_version_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, monkeypatch, "--version") == (0, f"toolhone {__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str) -> None:
    command = [sys.executable, "-m", "toolhone", "--show-completion", shell]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "_TOOLHONE_COMPLETE" in done.stdout or "complete" in done.stdout


@pytest.mark.parametrize("stops", [True, False])
def test_the_last_line_of_the_doctor_says_what_its_exit_code_says(
    stops: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = row(8, call={"name": "weather", "arguments": {"city": 5}})
    write(tmp_path / "a.jsonl", [*([] if stops else GOOD), broken])
    data = ("--data", tmp_path / "a.jsonl")
    code, out, _ = run(capsys, monkeypatch, "doctor", "--model", "pico", *data)
    assert code == 1
    assert out.splitlines()[-1].startswith(f"do not train: {tmp_path / 'a.jsonl'}"), out
    if not stops:
        fixed = ("--fix", tmp_path / "b.jsonl")
        code, out, _ = run(capsys, monkeypatch, "doctor", *data, *fixed)
        assert (code, out.splitlines()[-1]) == (0, "training may start (exit code 0)")


def test_a_wrong_option_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, monkeypatch, "train", "--stepz", "3")
    assert code == 2
    assert "--stepz" in err


@pytest.mark.parametrize(
    ("tasks", "predictions", "said"),
    [
        ([TASK, {**TASK, "id": "t2"}], [{"id": "t1", "calls": []}], "t2"),
        ([TASK], [{"id": "t1", "calls": []}, {"id": "t9", "calls": []}], "t9"),
        ([TASK], [{"id": "t1", "text": "x"}], "name the call syntax it is written in (--dialect)"),
    ],
)
def test_predictions_and_tasks_must_belong_together(
    tasks: list[Any],
    predictions: list[Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = (
        write(tmp_path / "tasks.jsonl", tasks),
        write(tmp_path / "predictions.jsonl", predictions),
    )
    code, _, err = run(capsys, monkeypatch, "score", "--tasks", files[0], "--predictions", files[1])
    assert code == 2
    assert err.startswith("error: ")
    assert said in err


def test_score_prints_the_promised_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write(tmp_path / "tasks.jsonl", [TASK, {**TASK, "id": "t2", "category": "c"}])
    texts = ['{"tool": "weather", "args": {"city": "oslo"}}', '{"final": "no idea"}']
    answers = write(
        tmp_path / "answers.jsonl",
        [{"id": f"t{i + 1}", "text": text} for i, text in enumerate(texts)],
    )
    options = (
        "--tasks",
        tasks,
        "--predictions",
        answers,
        "--dialect",
        "json",
        "--out",
        tmp_path / "evaluation",
    )
    code, out, _ = run(capsys, monkeypatch, "score", *options, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["n"] == 2
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert set(found["metrics"]["exact_match"]) == {"value", "low", "high", "n"}
    names = {
        "valid_format",
        "tool_accuracy",
        "argument_accuracy",
        "exact_match",
        "no_call_accuracy",
        "execution_success",
        "answer_quality",
    }
    assert names <= set(found["metrics"])
    assert found["by_category"]["c"]["exact_match"]["value"] == 0.0
    header = (tmp_path / "evaluation" / "samples.csv").read_text().splitlines()[0]
    assert header == "query,predicted_text,extracted_calls,expected_calls,match"


def test_train_eval_chat_and_plot_work_on_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data.jsonl", [row(i) for i in range(30)])
    settings = [
        *QUICK[:3],
        "data.path=data.jsonl",
        "evaluation.max_new_tokens=8",
        "training.validate_every=2",
        "training.log_every=1",
    ]
    code, out, err = run(capsys, monkeypatch, "train", "--out", "run", *settings)
    assert code == 0, err
    assert "Iteration 2/2 | Loss: " in err
    assert "exact_match" in out
    folder = tmp_path / "run"
    assert {
        "experiment.json",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "samples.jsonl",
    } <= {p.name for p in folder.iterdir()}
    report = json.loads((folder / "data.json").read_text())
    assert report["read"] == report["kept"] == 30
    assert report["train"] + report["held_out"] == 30

    code, _, err = run(capsys, monkeypatch, "train", "--out", "run", *settings)
    assert code == 2
    assert "already holds a run" in err

    code, out, err = run(
        capsys,
        monkeypatch,
        "eval",
        "run",
        "--num-samples",
        "2",
        "--json",
        "--checkpoint",
        "final_checkpoint",
    )
    assert code == 0, err
    assert json.loads(out)["n"] == 2

    code, out, err = run(capsys, monkeypatch, "eval", "run", "--base", "--json")
    assert (code, json.loads(out)["n"]) == (0, report["tasks"]), err
    assert "run: its base is pico" in err
    code, _, err = run(capsys, monkeypatch, "eval", "pico", "--base")
    assert (code, "pico is no run, so it is its own base" in err) == (2, True)

    code, out, err = run(capsys, monkeypatch, "plot", "run")
    assert code == 0, err
    assert (tmp_path / out.strip()).read_bytes().startswith(b"\x89PNG")

    code, out, err = run(
        capsys,
        monkeypatch,
        "chat",
        "run",
        "evaluation.max_new_tokens=8",
        "--prompt",
        "How is Oslo?",
        "--save",
        "talk.jsonl",
    )
    assert code == 0, err
    assert out.startswith("you        How is Oslo?")
    assert "2 messages at the end are not saved: their turn was cut off or could not be read" in err
    assert not (tmp_path / "talk.jsonl").exists()


def test_resuming_says_what_is_finished_and_starts_again_where_nothing_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data.jsonl", [row(i) for i in range(20)])
    code, _, err = run(capsys, monkeypatch, "train", "--out", "run", "data.path=data.jsonl", *QUICK)
    assert code == 0, err
    code, _, err = run(capsys, monkeypatch, "train", "--resume", "--out", "run")
    assert (code, "is finished" in err) == (2, True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    code, _, err = run(capsys, monkeypatch, "train", "--resume", "--out", "run")
    assert code == 0, err
    write(tmp_path / "data.jsonl", [row(i) for i in range(15)])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    code, _, err = run(capsys, monkeypatch, "train", "--resume", "--out", "run")
    assert (code, "the training data differ from those at the start" in err) == (2, True)


def test_code_that_lies_in_a_run_folder_is_not_run_unless_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data.jsonl", [row(i) for i in range(20)])
    assert run(capsys, monkeypatch, "train", "--out", "run", "data.path=data.jsonl", *QUICK)[0] == 0
    tool = tmp_path / "run" / "evil.py"
    tool.write_text("print('CODE RAN')\ndef f(a: int) -> int:\n    return a\n")
    state = tmp_path / "run" / "experiment.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "tools": [f"{tool}:f"]}))
    code, out, err = run(capsys, monkeypatch, "eval", "run", "--num-samples", "1")
    assert code == 2
    assert "names code to run (tools: " in err
    assert "CODE RAN" not in out
    named = [f'tools=["{tool}:f"]', "evaluation.max_new_tokens=4"]
    code, out, err = run(capsys, monkeypatch, "eval", "run", *named, "--num-samples", "1")
    assert code == 0, err
    assert "CODE RAN" in out


def test_rows_that_are_too_long_are_counted_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = row(99, call={"name": "weather", "arguments": {"city": "x y " * 200}})
    write(tmp_path / "data.jsonl", [*[row(i) for i in range(20)], long])
    code, _, err = run(
        capsys,
        monkeypatch,
        "train",
        "--out",
        "run",
        "data.path=data.jsonl",
        "training.max_length=200",
        *QUICK,
    )
    report = json.loads((tmp_path / "run" / "data.json").read_text())
    assert code == 0, err
    assert report["too_long"] == 1
    assert "1 rows are longer than training.max_length=200 and were dropped whole" in err


def test_a_model_without_a_usable_template_is_one_sentence_that_names_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(pico_folder()).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(pico_folder())
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    write(tmp_path / "data.jsonl", [row(i) for i in range(20)])
    settings = [f"model.name={folder}", f"data.path={tmp_path}/data.jsonl", *QUICK]
    code, _, err = run(capsys, monkeypatch, "train", "--out", tmp_path / "run", *settings)
    assert code == 2
    assert "model.dialect=json" in err
    for dialect in ("json", "calls", "tagged"):
        for markup in ("plain", "chatml"):
            out = tmp_path / f"{dialect}-{markup}"
            code, _, err = run(
                capsys,
                monkeypatch,
                "train",
                "--out",
                out,
                *settings,
                f"model.dialect={dialect}",
                f"model.markup={markup}",
            )
            assert code == 0, err


def test_help_of_every_verb_has_an_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in (
        ["demo"],
        ["train"],
        ["eval"],
        ["score"],
        ["plot"],
        ["chat"],
        ["examples"],
        ["check"],
        ["config", "presets"],
        ["data", "build"],
        ["config", "schema"],
        ["config", "show"],
    ):
        code, out, _ = run(capsys, monkeypatch, *verb, "--help")
        assert code == 0
        assert "Example" in out, verb


def test_config_prints_schema_and_resolved_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(capsys, monkeypatch, "config", "schema")
    assert json.loads(out)["properties"]["training"]
    (tmp_path / "e.json").write_text('{"seed": 3}')
    _, out, _ = run(capsys, monkeypatch, "config", "show", tmp_path / "e.json", "training.steps=7")
    resolved = json.loads(out)
    assert (resolved["seed"], resolved["training"]["steps"]) == (3, 7)


def test_data_build_writes_the_same_bytes_for_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        code, out, err = run(
            capsys,
            monkeypatch,
            "data",
            "build",
            "--out",
            tmp_path / name,
            "--train",
            20,
            "--held-out",
            5,
            "--tasks",
            7,
            "--json",
        )
        assert code == 0, err
        assert sorted(json.loads(out).values()) == [5, 7, 7, 7, 20]
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_and_prints_the_command_that_finishes(
    tmp_path: Path, number: signal.Signals
) -> None:
    write(tmp_path / "data.jsonl", [row(i) for i in range(40)])
    command = [
        sys.executable,
        "-m",
        "toolhone.cli.main",
        "train",
        "--out",
        "run",
        "data.path=data.jsonl",
        *QUICK,
    ]
    settings = ["training.steps=400", "training.save_every=0", "training.log_every=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *settings], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Iteration 3/"):
            process.send_signal(number)
            break
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130, said
    assert "Resume with: toolhone train --resume --out run" in said
    assert "Traceback" not in said
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    stopped = json.loads((checkpoint / "state.json").read_text())["step"]
    assert 3 <= stopped < 400
    experiment = tmp_path / "run" / "experiment.json"
    experiment.write_text(experiment.read_text().replace('"steps": 400', f'"steps": {stopped + 2}'))
    resume = [sys.executable, "-m", "toolhone.cli.main", "train", "--resume", "--out", "run"]
    done = subprocess.run(
        resume, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, stopped + 3))


def test_importing_the_command_loads_no_torch() -> None:
    heavy = {"torch", "transformers", "numpy", "pydantic"}
    code = f"import sys; import toolhone.cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_has_the_first_sentence_of_each(verb: str) -> None:
    width = 78 - 6 - max(map(len, VERBS))
    listed = typer.main.get_group(app).commands[verb].get_short_help_str(width)
    assert listed == load_verb(verb).get_short_help_str(width)


def test_sigterm_outside_of_a_training_ends_with_a_sentence(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from toolhone.cli import main\n"
        "main.app = lambda standalone_mode: os.kill(os.getpid(), signal.SIGTERM)\n"
        "main.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "stopped; what was saved before is whole\n")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("run/experiment.json", "Resume with: toolhone train --resume --out run"),
        ("run/checkpoints/final_checkpoint/x", "Evaluate it with: toolhone eval run"),
    ],
)
def test_a_stop_outside_of_the_steps_names_the_way_on(
    there: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> None:
        for name in ("run/experiment.json", there):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolhone.cli.train.run_training", stopped)
    monkeypatch.setattr("sys.argv", ["toolhone", "train", "--out", "run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert said in capsys.readouterr().err
