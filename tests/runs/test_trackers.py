"""Trackers: the curves are in the services' own files, nothing leaves the machine unasked, and no
service can end a training.
"""

import errno
import json
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from toolhone.api import experiment, train
from toolhone.config.small_sections import TrackingSection
from toolhone.errors import ConfigError
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.runs.trackers import (
    TensorboardTracker,
    Trackers,
    check_trackers,
    open_trackers,
    without_secrets,
)

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
KEY = "0123456789abcdef0123456789abcdef01234567"


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


class Broken:
    """A tracker whose disk is full from the second line on, and which cannot be closed either."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:  # noqa: ARG002 (it stores no values)
        if self.steps:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.steps.append(step)

    def close(self, failed: bool) -> None:  # noqa: ARG002 (as above)
        raise RuntimeError("still full")


class Healthy:
    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, float]]] = []
        self.closed: list[bool] = []

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        self.lines.append((step, kind, dict(values)))

    def close(self, failed: bool) -> None:
        self.closed.append(failed)


def section(**parts: Any) -> TrackingSection:
    return TrackingSection.model_validate(parts)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads from a folder of event files."""
    reader = accumulators.EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


# TensorBoard


def test_tensorboard_reads_the_scalars_with_their_steps(tmp_path: Path) -> None:
    with open_trackers(section(tensorboard={}), tmp_path, {}, None, print) as trackers:
        trackers.log(10, "train", {"loss": 0.5, "seconds": 2})
        trackers.log(20, "train", {"loss": 0.25, "seconds": 4})
        trackers.log(20, "validation", {"exact_match": 0.75})
    assert curves(tmp_path / "tensorboard") == {
        "train/loss": [(10, 0.5), (20, 0.25)],
        "train/seconds": [(10, 2.0), (20, 4.0)],
        "validation/exact_match": [(20, 0.75)],
    }


def test_a_run_that_goes_on_shows_no_step_twice_in_tensorboard(tmp_path: Path) -> None:
    with open_trackers(section(tensorboard={}), tmp_path, {}, None, print) as trackers:
        for step in (1, 2, 3):
            trackers.log(step, "train", {"loss": float(step)})
    with open_trackers(section(tensorboard={}), tmp_path, {}, 2, print) as trackers:
        for step in (3, 4):
            trackers.log(step, "train", {"loss": step + 0.5})
    assert curves(tmp_path / "tensorboard") == {
        "train/loss": [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5)]
    }


def test_lines_can_be_seen_in_tensorboard_while_the_training_runs(tmp_path: Path) -> None:
    with open_trackers(
        section(tensorboard={"log_dir": str(tmp_path / "there")}), tmp_path / "run", {}, None, print
    ) as trackers:
        trackers.log(1, "train", {"loss": 1.0})
        assert curves(tmp_path / "there") == {"train/loss": [(1, 1.0)]}


# Weights & Biases


@pytest.fixture
def wandb_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """An address on this machine that stands for the service; gives the list of connections that
    came.
    """
    wandb = pytest.importorskip("wandb")
    came: list[Any] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            came.append(address)
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()
    yield came
    wandb.teardown()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name that is looked up in this process, and none is found."""
    asked: list[str] = []

    def nobody(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    return asked


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a 7-byte header, then blocks of 32 KiB with records of (crc32,
    length, type) and content.
    """
    data, place, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def wandb_run(file: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The run and its history, as the file holds them."""
    records = list(wandb_records(file))
    lines = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            lines.append(
                {name: value for name, value in values.items() if not name.startswith("_")}
            )
    return next(
        record.run for record in records if record.WhichOneof("record_type") == "run"
    ), lines


OFFLINE = {"project": "calls", "mode": "offline"}


def test_a_wandb_offline_run_holds_the_scalars_and_goes_on_under_its_id(
    tmp_path: Path, wandb_server: list[Any], no_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder, lines = tmp_path / "first", Lines()
    with open_trackers(
        section(wandb=OFFLINE), folder, {"training": {"steps": 4}}, None, lines.report
    ) as trackers:
        trackers.log(2, "train", {"loss": 0.5})
        trackers.log(2, "validation", {"exact_match": 0.25})
    with open_trackers(
        section(wandb=OFFLINE), folder, {"training": {"steps": 4}}, 2, lines.report
    ) as trackers:
        trackers.log(4, "evaluation", {"exact_match": 1.0})
    # waits for wandb's own process, which may still be writing when a run has finished
    pytest.importorskip("wandb").teardown()
    (before, first), (after, second) = map(
        wandb_run, sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    )
    assert first == [{"train/loss": 0.5, "step": 2}, {"validation/exact_match": 0.25, "step": 2}]
    assert second == [{"evaluation/exact_match": 1.0, "step": 4}]
    assert (
        before.run_id
        == after.run_id
        == json.loads((folder / "tracking.json").read_text())["wandb"]["identity"]["id"]
    )
    assert (before.project, before.display_name) == ("calls", "first")
    assert lines.lines[0].startswith("tracking: wandb sync ")
    assert wandb_server == [], "something was sent although the mode is offline"
    assert no_names == []
    assert not [
        path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


OFFLINE_AND_EXIT = """
import sys
from pathlib import Path
from toolhone.config.small_sections import TrackingSection
from toolhone.runs.trackers import open_trackers

section = TrackingSection.model_validate({"wandb": {"mode": "offline"}})
with open_trackers(section, Path(sys.argv[1]), {}, None, print) as trackers:
    trackers.log(1, "train", {"loss": 1.0})
"""


def test_a_process_that_logged_offline_sends_nothing_when_it_ends_either(
    tmp_path: Path, wandb_server: list[Any]
) -> None:
    subprocess.run(
        [sys.executable, "-c", OFFLINE_AND_EXIT, str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert wandb_server == []


def test_wandb_online_without_a_key_is_one_sentence_and_asks_nobody(
    tmp_path: Path, wandb_server: list[Any]
) -> None:
    with pytest.raises(
        ConfigError,
        match=(
            r"no key for Weights & Biases; set WANDB_API_KEY .* or log offline with "
            r".*mode=offline"
        ),
    ):
        check_trackers(section(wandb={"project": "calls"}))
    with (
        pytest.raises(ConfigError, match=r"no key"),
        open_trackers(section(wandb={}), tmp_path / "run", {}, None, print),
    ):
        pass
    assert wandb_server == []


@pytest.mark.usefixtures("wandb_server")
def test_a_key_of_the_wrong_form_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort")
    with pytest.raises(ConfigError, match=r"the key is not usable .*set WANDB_API_KEY") as caught:
        check_trackers(section(wandb={}))
    assert "tooshort" not in str(caught.value)


@pytest.mark.usefixtures("wandb_server")
def test_the_environment_may_force_wandb_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with open_trackers(section(wandb={"mode": "online"}), tmp_path, {}, None, print):
        pass
    assert list(tmp_path.glob("wandb/offline-run-*"))


@pytest.mark.usefixtures("wandb_server")
def test_wandb_offline_in_a_process_does_not_hide_the_key_of_a_later_online_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check_trackers(section(wandb=OFFLINE))
    check_trackers(section(wandb={"mode": "online"}))


# trackio


class Store:
    """Stands for trackio's store: the calls that the tracker makes of it."""

    lines: list[tuple[Any, ...]]

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, []

    def init_db(self, project: str) -> Path:
        return self.path / f"{project}.db"

    get_project_db_path = init_db

    def bulk_log(
        self, project: str, run: str, metrics: list[Any], steps: list[int], config: Any, run_id: str
    ) -> None:
        self.lines.append((project, run, metrics, steps, config["training"], run_id))


def test_trackio_gets_each_line_for_its_store_and_no_call_of_its_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setitem(
        sys.modules, "trackio.sqlite_storage", type("module", (), {"SQLiteStorage": store})
    )
    monkeypatch.setitem(sys.modules, "trackio", type("module", (), {"__path__": []}))
    wanted = section(trackio={"project": "calls", "run_name": "mine"})
    for resumed_at in (None, 1):
        with open_trackers(
            wanted, tmp_path / "run", {"training": {"steps": 2}}, resumed_at, print
        ) as trackers:
            trackers.log((resumed_at or 0) + 1, "train", {"loss": 0.5})
    (first, second), identity = (
        store.lines,
        json.loads((tmp_path / "run" / "tracking.json").read_text())["trackio"]["identity"],
    )
    assert first == ("calls", "mine", [{"train/loss": 0.5}], [1], {"steps": 2}, identity["id"])
    assert second[3:] == ([2], {"steps": 2}, identity["id"])


def test_trackios_own_store_holds_the_scalars_once_after_a_resume(
    tmp_path: Path,
    no_names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "store")
    monkeypatch.setenv("HF_TOKEN", "hf_" + KEY)
    wanted, lines = section(trackio={"project": "calls"}), Lines()
    for resumed_at, steps in ((None, (1, 2, 3)), (2, (3, 4))):
        with open_trackers(
            wanted, tmp_path / "run", {"training": {"steps": 4}}, resumed_at, lines.report
        ) as trackers:
            for step in steps:
                trackers.log(step, "train", {"loss": 1 / step})
    with closing(sqlite3.connect(tmp_path / "store" / "calls.db")) as base:
        rows = base.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert [(name, step, json.loads(values)) for name, step, values in rows] == [
        ("run", step, {"train/loss": pytest.approx(1 / step)}) for step in (1, 2, 3, 4)
    ]
    assert no_names == [], "a user name was asked of the hub"
    assert capsys.readouterr().out == ""


# What holds for all


@pytest.mark.parametrize(
    ("service", "package"), [("wandb", "wandb"), ("trackio", "trackio.sqlite_storage")]
)
def test_a_missing_package_is_one_sentence_that_says_how_to_get_it(
    service: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    monkeypatch.setitem(sys.modules, package, None)
    sentence = (
        rf"tracking\.{service} needs the package .*pip install "
        rf"{service}, or set tracking\.{service}\.enabled=false"
    )
    with pytest.raises(ConfigError, match=sentence):
        check_trackers(section(**{service: {}}))
    with (
        pytest.raises(ConfigError, match=sentence),
        open_trackers(section(**{service: {}}), tmp_path / "run", {}, None, print),
    ):
        pass
    assert not (tmp_path / "run" / "tracking.json").exists()


def test_without_the_package_of_tensorboard_a_run_goes_on_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    chosen, notes = section(tensorboard={}), list[str]()
    check_trackers(chosen)
    with open_trackers(chosen, tmp_path, {}, None, notes.append) as trackers:
        trackers.log(1, "train", {"loss": 1.0})
    assert [note.split(",")[0] for note in notes] == [
        "note: tracking.tensorboard needs the package tensorboard"
    ]
    assert "pip install tensorboard, or set tracking.tensorboard.enabled=false" in notes[0]
    assert not list(tmp_path.iterdir())


def test_a_service_that_is_switched_off_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with open_trackers(
        section(tensorboard={"enabled": False}), tmp_path / "run", {}, None, print
    ) as trackers:
        trackers.log(1, "train", {"loss": 1.0, "note": "text"})
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_is_named_switched_off_and_counted_while_others_go_on() -> None:
    broken, healthy, lines = Broken(), Healthy(), Lines()
    trackers = Trackers({"broken": broken, "healthy": healthy}, lines.report)
    for step in (1, 2, 3):
        trackers.log(step, "train", {"loss": 0.5})
    trackers.close()
    assert [line[0] for line in healthy.lines] == [1, 2, 3]
    assert trackers.missed == {"broken": 2}
    assert lines.lines == [
        (
            "tracking.broken failed at step 2 and is switched off: OSError: [Errno "
            "28] No space left on device"
        ),
        "tracking.broken could not be closed: RuntimeError: still full",
        "tracking.broken lacks 2 of 3 lines; metrics.jsonl has them all",
    ]
    assert healthy.closed == [False]


def test_lines_that_a_service_lacks_stay_counted_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TensorboardTracker, "log", full)
    for resumed_at in (None, 1):
        with open_trackers(section(tensorboard={}), tmp_path, {}, resumed_at, print) as trackers:
            trackers.log(1, "train", {"loss": 1.0})
    assert json.loads((tmp_path / "tracking.json").read_text())["tensorboard"]["missed_lines"] == 2


def test_what_is_no_number_is_left_out_and_said_once() -> None:
    healthy, lines = Healthy(), Lines()
    trackers = Trackers({"healthy": healthy}, lines.report)
    for step in (1, 2):
        trackers.log(
            step, "train", {"loss": 1, "note": "text", "flag": True, "none": None, "list": [1.0]}
        )
    assert healthy.lines == [(1, "train", {"loss": 1.0}), (2, "train", {"loss": 1.0})]
    assert lines.lines == [
        (
            "tracking: not numbers, so only in metrics.jsonl: train/note, "
            "train/flag, train/none, train/list"
        )
    ]


def test_an_error_of_the_training_passes_and_the_trackers_hear_that_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bool] = []
    monkeypatch.setattr(TensorboardTracker, "close", lambda _, failed: heard.append(failed))
    with (
        pytest.raises(KeyboardInterrupt),
        open_trackers(section(tensorboard={}), tmp_path, {}, None, print),
    ):
        raise KeyboardInterrupt
    with open_trackers(section(tensorboard={}), tmp_path, {}, None, print):
        pass
    assert heard == [True, False]


def test_the_services_get_the_experiment_without_addresses_and_headers_of_tools() -> None:
    tool = {
        "name": "orders",
        "url": "http://10.0.0.1/?key=SECRET",
        "headers": {"Authorization": "Bearer SECRET"},
    }
    shown = without_secrets({"seed": 1, "tools": ["calculator", tool]})
    assert shown == {"seed": 1, "tools": ["calculator", "orders"]}


def test_a_run_sends_every_line_of_its_metrics_to_the_trackers(tmp_path: Path) -> None:
    healthy, plan = Healthy(), experiment({})
    run = Run.create(tmp_path, plan)
    run.on_log = Trackers({"healthy": healthy}, print).log
    run.log("train", 1, {"loss": 0.5})
    run.log("validation", 1, {"exact_match": 1.0})
    assert healthy.lines == [(line.pop("step"), line.pop("kind"), line) for line in run.metrics()]


SMALL = {
    "model": {"name": "pico"},
    "data": {"samples": 60},
    "training": {
        "steps": 3,
        "batch_size": 2,
        "lora": None,
        "log_every": 1,
        "validate_every": 3,
        "validation_samples": 2,
    },
    "evaluation": {"num_samples": 2, "max_new_tokens": 8},
    "tracking": {"tensorboard": {}},
}


def test_a_training_is_tracked_from_its_first_line_to_the_final_evaluation(tmp_path: Path) -> None:
    run, _ = train(experiment(SMALL), tmp_path / "run")
    seen = curves(tmp_path / "run" / "tensorboard")
    losses = [
        (line["step"], round(line["loss"], 4)) for line in run.metrics() if line["kind"] == "train"
    ]
    assert seen["train/loss"] == [(step, pytest.approx(loss, abs=1e-3)) for step, loss in losses]
    assert [step for step, _ in seen["validation/loss"]] == [3]
    assert {
        step
        for name, points in seen.items()
        if name.startswith("evaluation/")
        for step, _ in points
    } == {3}


def test_a_tracker_that_fails_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TensorboardTracker, "log", full)
    lines = Lines()
    run, _ = train(experiment(SMALL), tmp_path / "run", progress=lines)
    assert [line["step"] for line in run.metrics() if line["kind"] == "train"] == [1, 2, 3]
    assert "final_checkpoint" in run.checkpoints()
    assert any(
        line.startswith("tracking.tensorboard failed at step 1 and is switched off")
        for line in lines.lines
    )


def test_a_service_that_cannot_open_leaves_no_run_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils import tensorboard

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard, "SummaryWriter", full)
    with pytest.raises(Exception, match="No space left on device"):
        train(experiment(SMALL), tmp_path / "run")
    assert not (tmp_path / "run" / "experiment.json").exists()
