"""Somebody else's run: no code, no reach, no files, however it is opened; and what is switched off
is told.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolhone import open_model, train
from toolhone.config.experiment import experiment_of, merged, run_folder
from toolhone.config.trust import refuse_to_resume_unnamed
from toolhone.errors import RunError
from toolhone.runs.run import MANIFEST, Run, read_json, write_json
from toolhone.schema import ToolCall

COMMAND = {
    "name": "touch",
    "description": "",
    "type": "command",
    "command": "touch made",
    "parameters": {"type": "object"},
}
SMALL: dict[str, Any] = {
    "data": {"samples": 12},
    "training": {"steps": 1, "batch_size": 2, "lora": None, "validate_every": 0},
    "evaluation": {"at_end": False, "max_new_tokens": 4},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    train(experiment_of(SMALL, "the test"), folder / "run")
    (folder / "original.json").write_text((folder / "run" / "experiment.json").read_text())
    return folder


@pytest.fixture
def foreign(made: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes the experiment in the run and its checkpoints, as somebody else may have done."""
    monkeypatch.chdir(made)
    original = json.loads((made / "original.json").read_text())

    def change(**changes: Any) -> None:
        values = merged(original, changes)
        (made / "run" / "experiment.json").write_text(json.dumps(values))
        for state in made.glob("run/checkpoints/*/state.json"):
            state.write_text(json.dumps({**json.loads(state.read_text()), "experiment": values}))
            listed, raw = read_json(state.with_name(MANIFEST)), state.read_bytes()
            digest = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            write_json(state.with_name(MANIFEST), {**listed, "state.json": digest})

    return change


REFS = ["run", "run/checkpoints/final_checkpoint"]


@pytest.mark.parametrize("ref", REFS)
def test_no_code_that_it_names_is_run(made: Path, foreign: Callable[..., None], ref: str) -> None:
    (made / "run" / "evil.py").write_text("raise SystemExit('ran')")
    outside = made.parent / "outside.py"
    outside.write_text("raise SystemExit('ran')")
    for spec in (
        "os:system",
        f"{subprocess.__file__}:getoutput",
        f"{made}/run/evil.py:f",
        f"{outside}:f",
    ):
        for changes in (
            {"model": {"model_class": spec}},
            {"evaluation": {"metrics": [spec]}},
            {"data": {"format": spec, "path": "x"}},
            {"training": {"rl": {"reward": {"functions": [spec]}}}},
            {"tools": [spec]},
            {"tools": [{"name": "f", "description": "", "implementation": spec}]},
            {"tools": [{"name": "f", "description": "", "function": spec}]},
        ):
            foreign(**changes)
            with pytest.raises(RunError, match="names code to run"):
                open_model(ref)


@pytest.mark.parametrize("ref", REFS)
def test_it_reaches_nothing_outside_and_writes_nothing_until_that_is_named(
    made: Path, foreign: Callable[..., None], ref: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"log": str(made / "log.jsonl"), "cache": None, "replay": None}
    foreign(
        tools=[COMMAND],
        allowed_tools=["touch"],
        tool_results=kept,
        model={"trust_remote_code": True},
    )
    model = open_model(ref)
    told = capsys.readouterr().err
    result = model.registry.run(ToolCall("touch", {}))
    assert (result.outcome, (made / "made").exists(), (made / "log.jsonl").exists()) == (
        "refused",
        False,
        False,
    )
    assert not model.experiment.model.trust_remote_code
    assert """allowed_tools='["touch"]'""" in told
    assert f"tool_results.log={made}/log.jsonl" in told
    assert "model.trust_remote_code=true" in told
    named = open_model(
        ref, overrides=['allowed_tools=["touch"]', f"tool_results.log={made}/log.jsonl"]
    )
    assert named.registry.run(ToolCall("touch", {})).outcome == "ok"
    assert (made / "made").exists()
    assert (made / "log.jsonl").exists()
    (made / "made").unlink()
    (made / "log.jsonl").unlink()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"method": "os:system"}},
            r"names code to run \(training.method: os:system\)",
        ),
        ({"tools": ["run/evil.py:f"]}, r"names code to run \(tools: run/evil.py:f\)"),
        ({"tools": [COMMAND], "allowed_tools": ["touch"]}, "allows the tools touch"),
        ({"model": {"trust_remote_code": True}}, "runs code that comes with the model"),
        ({"tool_results": {"log": "x"}}, "keeps results of tools in files"),
        (
            {"data": {"strategy": "teacher_mode", "teacher": {"base_url": "http://h/v1"}}},
            "asks a model at http://h/v1",
        ),
    ],
)
def test_it_is_not_resumed_on_its_own_word(
    made: Path, foreign: Callable[..., None], changes: dict[str, Any], said: str
) -> None:
    foreign(**changes)
    with pytest.raises(RunError, match=said) as caught:
        refuse_to_resume_unnamed(Run.open(made / "run").experiment, made / "run")
    assert "resume with the experiment file that the run was made with" in str(caught.value)


def test_a_plain_run_is_resumed_and_opened_without_a_word(
    made: Path, foreign: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    foreign()
    refuse_to_resume_unnamed(Run.open(made / "run").experiment, made / "run")
    open_model("run")
    assert "note:" not in capsys.readouterr().err


def test_the_run_of_a_checkpoint_is_found_also_without_its_experiment(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "final_checkpoint"
    checkpoint.mkdir(parents=True)
    assert run_folder(checkpoint) == tmp_path / "run"
    (tmp_path / "experiment.json").write_text("{}")
    assert run_folder(checkpoint) == tmp_path
    assert run_folder(tmp_path / "model") == tmp_path
