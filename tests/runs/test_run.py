"""The run folder: nothing is half written or overwritten, what is wrong is one sentence."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from toolhone.config.experiment import load_experiment
from toolhone.errors import RunError
from toolhone.models.resolve import find
from toolhone.runs.run import MANIFEST, Run, read_metrics, whole_folder, write_json

EXPERIMENT = load_experiment(None, ["training.steps=3"])


def test_a_run_knows_its_experiment_and_its_surroundings(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", EXPERIMENT)
    assert Run.open(tmp_path / "run").experiment == EXPERIMENT
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["git"] is None or len(environment["git"]["commit"]) == 40


def test_a_folder_that_holds_a_run_is_not_used_again(tmp_path: Path) -> None:
    Run.create(tmp_path, EXPERIMENT)
    with pytest.raises(
        RunError, match=r"holds a run already; continue it with --resume, or give another folder"
    ):
        Run.create(tmp_path, EXPERIMENT)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run folder: it holds no experiment\.json"):
        Run.open(tmp_path)


def saved(run: Run, name: str, text: str) -> None:
    run.save_checkpoint(
        name, {"step": 1}, lambda folder: (folder / "weights").write_text(text) and None
    )


def test_a_checkpoint_that_fails_leaves_the_old_one_whole(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    saved(run, "best_checkpoint", "old")

    def fail(folder: Path) -> None:
        (folder / "weights").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunError, match="could not be written: No space left on device; earlier files are complete"
    ):
        run.save_checkpoint("best_checkpoint", {"step": 2}, fail)
    assert (run.checkpoint("best_checkpoint") / "weights").read_text() == "old"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["best_checkpoint"]


def test_checkpoints_are_ordered_by_step_and_named_when_missing(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    for name in ("checkpoint_step_100", "checkpoint_step_20", "final_checkpoint"):
        saved(run, name, "x")
    assert run.checkpoints() == ["checkpoint_step_20", "checkpoint_step_100", "final_checkpoint"]
    assert run.latest() == tmp_path / "checkpoints" / "checkpoint_step_100"
    assert run.checkpoint().name == "final_checkpoint"
    with pytest.raises(
        RunError,
        match=r"has no checkpoint 'checkpoint_step_10' .did you mean 'checkpoint_step_100'",
    ):
        run.checkpoint("checkpoint_step_10")


def test_a_checkpoint_remembers_a_reference_that_is_not_its_folder(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    local = run.save_checkpoint("checkpoint_step_1", {"step": 1}, lambda folder: str(folder))
    remote = run.save_checkpoint("checkpoint_step_2", {"step": 2}, lambda _: "tinker://a/b")
    assert run.weights(local) == str(local)
    assert "weights" not in run.state(local)
    assert run.weights(remote) == "tinker://a/b"


def test_a_replaced_folder_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for text in ("first", "second"):
        with whole_folder(target) as partial:
            (partial / "file").write_text(text)
            assert not target.exists() or (target / "file").read_text() == "first"
    assert (target / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_interrupt_between_the_two_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    with whole_folder(target) as partial:
        (partial / "file").write_text("first")
    rename, calls = Path.rename, []

    def interrupted(self: Path, other: Path) -> Path:
        calls.append(other)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as partial:
        (partial / "file").write_text("second")
    assert (target / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_log_lines_that_cannot_be_read_are_left_out_and_counted_when_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    run.log("train", 1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("damaged\n")
    run.log("train", 2, {"loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    run.cut_back(1)
    assert [line["step"] for line in run.metrics()] == [1]
    assert "2 unreadable lines left out, the first is 2" in capsys.readouterr().err
    run.cut_back(1)
    assert capsys.readouterr().err == ""


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from toolhone.backends.base import Adam
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer
from toolhone.config.experiment import load_experiment
from toolhone.models.pico import pico_folder
from toolhone.errors import RunError
from toolhone.runs.run import Run

trainer = open_trainer(pico_folder(), None, EngineOptions(device_map="cpu"))
run = Run.create(Path(sys.argv[1]), load_experiment(None))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run.save_checkpoint("checkpoint_step_1", {"step": 1}, trainer.save)
except RunError as error:
    print(error)
print(run.checkpoints(), [path.name for path in (run.folder / "checkpoints").iterdir()])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file size here")
def test_a_real_model_on_a_full_disk_is_one_sentence_and_no_half_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    said, left = done.stdout.splitlines()
    assert "could not be written" in said
    assert "earlier files are complete" in said
    assert left == "[] []"


def test_only_a_line_feed_ends_a_line_of_a_log(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    marks = "\u2028\u2029\x85\x0b\x0c\x1c"
    for step in (1, 2, 3):
        run.log("train", step, {"note": f"a{marks}b"})
        run.log_samples(step, [{"text": marks}])
    run.cut_back(2)
    assert [line["note"] for line in run.metrics()] == [f"a{marks}b"] * 2
    samples = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in samples[:-1]] == [marks] * 2


def test_a_reader_leaves_out_a_last_line_that_was_cut_off_and_reports_it(tmp_path: Path) -> None:
    run, notes = Run.create(tmp_path, EXPERIMENT), list[str]()
    run.log("train", 1, {"loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(f'{whole}{{"step": 2, "lo')
    assert [line["step"] for line in read_metrics(path, notes.append)] == [1]
    assert notes == [f"{path}, line 2: cut off, left out"]
    path.write_text(f'{{"step": 2, "lo\n{whole}')
    with pytest.raises(RunError, match="line 1: not JSON"):
        read_metrics(path)


@pytest.mark.parametrize(
    "damage",
    ["cut", "flip", "missing", "mixed", "foreign", "state", "manifest", "unlisted", "added"],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(
    tmp_path: Path, damage: str
) -> None:
    run, notes = Run.create(tmp_path, EXPERIMENT), list[str]()
    for step in (20, 100):
        saved(run, f"checkpoint_step_{step}", f"weights of step {step}")
    older, newer = (tmp_path / "checkpoints" / f"checkpoint_step_{step}" for step in (20, 100))
    weights = newer / "weights"
    if damage == "cut":
        weights.write_text("weights of")
    elif damage == "flip":
        weights.write_text("weights of step 101")
    elif damage == "missing":
        weights.unlink()
    elif damage in ("state", "manifest"):
        path = newer / f"{damage}.json"
        path.write_text(path.read_text()[:20])
    elif damage == "unlisted":
        (newer / MANIFEST).unlink()
    elif damage == "added":
        (newer / "notes.txt").write_text("of the user")
        (newer / "adapter_model.safetensors").write_bytes(weights.read_bytes())
    elif damage == "mixed":
        weights.write_bytes((older / "weights").read_bytes())
    else:
        other = Run.create(tmp_path / "other", load_experiment(None, ["seed=4"]))
        saved(other, "checkpoint_step_100", "weights of step 100")
        for path in (other.folder / "checkpoints" / "checkpoint_step_100").iterdir():
            path.replace(newer / path.name)
    assert run.latest(report=notes.append) == older
    (note,) = notes
    assert note.startswith(f"{newer} is not used: ")
    named = {"foreign": "another run", "state": "state.json", "manifest": "manifest.json"}
    named |= {
        "unlisted": "manifest.json is missing",
        "added": "adapter_model.safetensors is not in",
    }
    assert named.get(damage, "weights") in note
    with pytest.raises(RunError, match=r"cannot be used.*name another one of checkpoint_step_20"):
        run.latest("checkpoint_step_100")
    assert run.latest("checkpoint_step_20") == older
    (older / "state.json").write_text('{"step": 1}')
    with pytest.raises(RunError, match="no checkpoint that is whole"):
        run.latest()


def test_a_run_that_goes_on_from_an_earlier_step_sets_later_checkpoints_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = Run.create(tmp_path, EXPERIMENT), tmp_path / "checkpoints"
    for step in (2, 4, 10):
        saved(run, f"checkpoint_step_{step}", f"weights of step {step}")
    saved(run, "best_checkpoint", "weights of step 4")
    for end in ("", ".2", ".3"):
        run.cut_back(4)
        assert run.latest() == folder / "checkpoint_step_4"
        aside = tmp_path / "abandoned" / f"checkpoint_step_10{end}"
        assert f"checkpoint_step_10 is moved to {aside}\n" in capsys.readouterr().err
        saved(run, "checkpoint_step_10", f"weights behind {end}")
    kept = {one.name: (one / "weights").read_text() for one in aside.parent.iterdir()}
    assert kept["checkpoint_step_10"] == "weights of step 10"
    assert kept["checkpoint_step_10.3"] == "weights behind .2"


def test_a_checkpoint_without_a_manifest_is_used_as_it_is(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    saved(run, "checkpoint_step_1", "x")
    folder = tmp_path / "checkpoints" / "checkpoint_step_1"
    (folder / MANIFEST).unlink()
    (folder / "state.json").write_text('{"step": 1}')  # of an older version
    assert run.latest() == folder


def test_a_damaged_checkpoint_is_not_evaluated(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    for name in ("checkpoint_step_1", "final_checkpoint"):
        saved(run, name, "weights")
    weights = tmp_path / "checkpoints" / "final_checkpoint" / "weights"
    weights.write_text("Weights")
    with pytest.raises(RunError, match=r"weights is not the file of manifest.*checkpoint_step_1"):
        find(str(tmp_path), None)
    with pytest.raises(RunError, match=r"weights is not the file of manifest"):
        find(str(weights.parent), None)
    assert find(str(tmp_path), "checkpoint_step_1")[1] == weights.parents[1] / "checkpoint_step_1"


def test_what_a_killed_process_left_is_swept_and_an_old_folder_comes_back(tmp_path: Path) -> None:
    run = Run.create(tmp_path, EXPERIMENT)
    saved(run, "checkpoint_step_1", "x")
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint_step_1").rename(folder / ".checkpoint_step_1.old-12")
    (folder / ".checkpoint_step_2.partial-12").mkdir()
    (folder / ".checkpoint_step_2.partial-12" / "weights").write_text("half")
    (tmp_path / ".metrics.jsonl.partial-12").write_text("half")
    (tmp_path / ".notes").write_text("of the user")
    run.sweep()
    assert run.checkpoints() == ["checkpoint_step_1"]
    assert [path.name for path in folder.iterdir()] == ["checkpoint_step_1"]
    assert {path.name for path in tmp_path.glob(".*")} == {".notes"}
