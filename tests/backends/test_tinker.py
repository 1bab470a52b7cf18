"""The Tinker backend through the real SDK, over our own server: trainings from the command line,
resuming, and every mistake as one sentence."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from support.tinker_server import KEY, close_left_sockets, tinker_server
from toolhone.api import evaluate, open_model, train
from toolhone.backends import tinker_connection, tinker_sampler
from toolhone.backends.base import Adam, Loss, ModelInfo, SamplingParams, train_step
from toolhone.backends.open import open_sampler, open_tokenizer, open_trainer
from toolhone.backends.tinker import TinkerTrainer
from toolhone.backends.tinker_connection import ServiceCheckpoint, TinkerConnection, connect
from toolhone.backends.tinker_sampler import TinkerCheckpoint
from toolhone.backends.usage import Usage
from toolhone.cli.main import main
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment, LoraSection, ModelSection, TrainingSection
from toolhone.errors import CapabilityError, ConfigError, ModelError, ServiceError, UserError
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.training.loop import MetricsAccumulator, TrainStatus
from toolhone.training.losses import cross_entropy

pytest.importorskip("starlette")
tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")

SMALL = [
    *("model.backend=tinker", "model.name=pico", "data.samples=40", "training.batch_size=2"),
    *("training.log_every=1", "training.validate_every=2", "training.validation_samples=2"),
    *("training.save_every=2", "evaluation.num_samples=2", "evaluation.max_new_tokens=8"),
    "evaluation.max_turns=1",
]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico with smaller embeddings: as it is made, its replies hardly vary."""
    folder = tmp_path_factory.mktemp("model") / "flat-pico"
    shutil.copytree(pico_folder(0), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 0.3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tinker_server("pico", tmp_path_factory.mktemp("service")) as address:
        yield address
    close_left_sockets()


@pytest.fixture(autouse=True)
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    monkeypatch.setenv("TINKER_BASE_URL", request.getfixturevalue("url"))


def run_cli(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["toolhone", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def lines(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [line for line in Run.open(folder).metrics() if line["kind"] == kind]


def small_plan(method: str = "sft", **changes: Any) -> Experiment:
    training = {"method": method, "steps": 4, "batch_size": 2, "log_every": 1, "save_every": 2}
    training |= {"validate_every": 0, "learning_rate": 0.005, **changes}
    sections = {
        "model": {"backend": "tinker", "name": "pico"},
        "data": {"samples": 40},
        "training": training,
        "evaluation": {"at_end": False, "max_new_tokens": 8, "max_turns": 1},
    }
    return make_experiment(sections, "the test")


# ------------------------------------------------------------------------------------------------
# trainings


UNEVEN = """def uneven(task, episode):
    return sum(episode.turns[0].tokens) % 7 / 7
"""
"""A reward that differs between any two replies."""
RL = (
    *("training.rl.group_size=3", "training.rl.max_completion_length=12", "data.answered=0"),
    *('training.rl.reward.functions=["uneven.py:uneven"]', "training.rl.reward.check=false"),
    "training.rl.track_kl=true",
)
METHODS: dict[str, tuple[str, ...]] = {
    "sft": (),
    "dpo": (),
    "grpo": (*RL, "training.rl.beta=0.02"),
    "ppo without critic": (*RL, "training.rl.ppo.critic=none"),
    "ppo": RL,
}


@pytest.fixture(scope="module")
def flat_url(flat: Path) -> Iterator[str]:
    with tinker_server(flat, flat.parent / "service") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_from_the_command_line(
    name: str,
    flat: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: Any,
    capsys: Any,
) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", request.getfixturevalue("flat_url"))
    (tmp_path / "uneven.py").write_text(UNEVEN)
    monkeypatch.chdir(tmp_path)
    words = [f"training.method={name.partition(' ')[0]}", "training.steps=3", *METHODS[name]]
    words.append(f"model.name={flat}")
    assert run_cli(monkeypatch, "train", *SMALL, *words, "--out", str(tmp_path / "run")) == 0
    steps, run = lines(tmp_path / "run"), Run.open(tmp_path / "run")
    assert [line["step"] for line in steps] == [1, 2, 3]
    if name in ("sft", "dpo"):
        assert all(line["grad_norm"] > 0 for line in steps)
        assert name == "sft" or steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    else:
        assert all(line["kl_reference"] >= 0 for line in steps)
        assert any(line["grad_norm"] > 0 for line in steps)
    names = ["checkpoint_step_2", "checkpoint_step_3", "best_checkpoint", "final_checkpoint"]
    assert run.checkpoints() == names
    for each in run.checkpoints():
        uri = run.weights(run.checkpoint(each))
        assert uri.startswith("tinker://")
        assert uri.endswith(f"/weights/{each}")
    used = json.loads((tmp_path / "run" / "usage.json").read_text())
    assert min(used["trained"], used["sampled"], used["prefilled"]) > 0
    shown = capsys.readouterr()
    assert "cost: " in shown.err
    assert "tokens of this session: " in shown.err
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()


@pytest.mark.slow
def test_both_presets_of_json_answers_run_on_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT, then PPO from its run: names of checkpoints, KL, validation rates, curves."""
    short = [
        *("model.backend=tinker", "model.name=pico", "data.samples=60", "training.steps=4"),
        *("training.log_every=1", "training.save_every=2", "training.validate_every=2"),
        *("training.validation_samples=2", "evaluation.num_samples=2", "training.batch_size=2"),
        *("evaluation.max_new_tokens=8", "evaluation.max_turns=1"),
    ]
    sft, ppo = str(tmp_path / "sft"), str(tmp_path / "ppo")
    assert run_cli(monkeypatch, "train", "sft-json", *short, "--out", sft) == 0
    rl = [f"model.adapter={sft}", "training.rl.max_completion_length=8"]
    rl += ["training.rl.sampler_refresh_every=2"]
    assert run_cli(monkeypatch, "train", "ppo-json", *short, *rl, "--out", ppo) == 0
    assert lines(Path(sft))[-1]["loss"] < lines(Path(sft))[0]["loss"]
    for folder in (sft, ppo):
        names = ["checkpoint_step_2", "checkpoint_step_4", "best_checkpoint", "final_checkpoint"]
        assert Run.open(Path(folder)).checkpoints() == names
        rates = {"valid_json", "correct_format", "correct_tool"}
        assert all(rates <= line.keys() for line in lines(Path(folder), "validation"))
        assert (Path(folder) / "evaluation" / "metrics.json").is_file()
        assert run_cli(monkeypatch, "plot", folder, "--out", f"{folder}.png") == 0
    steps = lines(Path(ppo))
    assert all({"kl_reference", "kl_episode", "reward"} <= line.keys() for line in steps)
    assert Run.open(Path(ppo)).experiment.training.lora == LoraSection(rank=32)


def test_a_run_on_a_service_is_evaluated_and_started_from(tmp_path: Path) -> None:
    run, status = train(small_plan(lora={"rank": 8}), tmp_path / "first")
    assert status is TrainStatus.FINISHED
    model = open_model(run.folder)
    assert isinstance(model.sampler, TinkerCheckpoint)
    assert len(evaluate(model, num_samples=2).samples) == 2
    plan = small_plan(steps=1)
    section = plan.model.model_copy(update={"adapter": str(run.folder)})
    second, _ = train(plan.model_copy(update={"model": section}), tmp_path / "second")
    assert second.experiment.training.lora is not None
    assert second.experiment.training.lora.rank == 8
    last, first = lines(run.folder)[-1]["loss"], lines(second.folder)[0]["loss"]
    assert first < lines(run.folder)[0]["loss"]
    assert first == pytest.approx(last, rel=0.3)


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(small_plan(), tmp_path / "whole")
    step, calls = TinkerTrainer.optim_step, []

    def fail_at_the_last(self: TinkerTrainer, optimizer: Any) -> Any:
        calls.append(optimizer)
        if len(calls) == 4:
            raise ServiceError("no connection to the Tinker service")
        return step(self, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(TinkerTrainer, "optim_step", fail_at_the_last)
        with pytest.raises(ServiceError):
            train(small_plan(), tmp_path / "cut")
    cut, status = train(small_plan(), tmp_path / "cut", resume=True)
    assert status is TrainStatus.FINISHED
    names = ("step", "loss", "grad_norm")
    expected, found = (
        [[line[n] for n in names] for line in lines(one.folder)] for one in (whole, cut)
    )
    assert found == [pytest.approx(line, rel=1e-5) for line in expected]


def test_settings_of_the_service_are_named_and_kept_from_nobody(tmp_path: Path) -> None:
    told: list[str] = []

    class Told(Progress):
        def report(self, text: str) -> None:
            told.append(text)

    train(small_plan(steps=1, lora={"rank": 4, "alpha": 64}), tmp_path / "run", progress=Told())
    assert any("decides training.lora.alpha itself" in text for text in told)


def test_a_step_is_submitted_whole_before_anything_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, wait, events = open_now(), TinkerConnection.wait, list[str]()
    row = Row.of([5, 6, 7, 8], [True] * 4).with_arrays(weights=1.0)
    trainer.logprobs([row]).result()
    step = trainer._client.optim_step

    def noted(*given: Any) -> Any:
        events.append("wait")
        return wait(*given)

    def stepped(params: Any) -> Any:
        events.append("step")
        return step(params)

    monkeypatch.setattr(TinkerConnection, "wait", noted)
    monkeypatch.setattr(trainer._client, "optim_step", stepped)
    for loss in (cross_entropy(), Loss("own", cross_entropy().fn)):
        train_step(trainer, [[row], [row]], loss, Adam(1e-3))
    assert events == ["step", "wait", "wait", "wait"] * 2


def test_a_row_that_fills_the_context_can_be_scored() -> None:
    trainer = open_now()
    assert trainer.info.max_context == 1023
    row = Row.of([5] * 1023, [t > 1020 for t in range(1023)])
    (scored,) = trainer.snapshot().logprobs([row])
    np.testing.assert_allclose(scored, trainer.logprobs([row]).result()[0], atol=2e-5)
    with pytest.raises(CapabilityError, match="1024 tokens do not fit the context of 1023"):
        trainer.snapshot().logprobs([Row.of([5] * 1024, [True] * 1024)])


# ------------------------------------------------------------------------------------------------
# mistakes


REFUSED = {
    "full fine-tuning": {"lora": None},
    "muon; use adamw": {"optimizer": "muon"},
    "a value head": {"method": "ppo", "rl": {"ppo": {"critic": "value_head"}}},
    "temperature 0.8": {"method": "grpo", "rl": {"temperature": 0.8}},
    "training.lora.dropout": {"lora": {"dropout": 0.1}},
    "training.lora.target_modules": {"lora": {"target_modules": ["q_proj"]}},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_the_service_cannot_do_is_refused_before_a_model_is_made(
    sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinkerTrainer, "_client", property(lambda _: pytest.fail("a model")))
    with pytest.raises(CapabilityError, match=f"model.backend tinker cannot do .*{sentence}"):
        train(small_plan(**REFUSED[sentence]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def open_now(**changes: Any) -> Any:
    model = ModelSection(**{"backend": "tinker", "name": "pico", **changes})
    name = str(pico_folder(0)) if model.name == "pico" else model.name
    return open_trainer(model, TrainingSection(), name)


def test_a_missing_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"TINKER_API_KEY is not set; put TINKER_API_KEY=tml-"):
        open_now()


@pytest.mark.parametrize("key", ["tml-wrong", "sk-of-another-service"])
def test_a_wrong_key_is_one_sentence(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", key)
    with pytest.raises(ConfigError, match="does not accept the key in TINKER_API_KEY"):
        open_now()


def test_the_key_may_be_in_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TINKER_API_KEY")
    monkeypatch.delenv("TINKER_BASE_URL")
    (tmp_path / ".env").write_text(f"TINKER_API_KEY={KEY}\nTINKER_BASE_URL={url}\n")
    monkeypatch.chdir(tmp_path)
    keys = ["model.backend=tinker", "model.name=nobody/has-this"]
    assert run_cli(monkeypatch, "eval", "nobody/has-this", *keys) == 2
    assert f"{url} has no model 'nobody/has-this'" in capsys.readouterr().err


def test_an_unknown_model_names_those_that_there_are() -> None:
    with pytest.raises(
        ModelError, match=r"has no model 'picoo' \(did you mean 'pico'\?\).*: .*pico"
    ):
        open_now(name="picoo")


def test_no_server_is_one_sentence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("TINKER_BASE_URL", address)
        with pytest.raises(ServiceError, match=f"no connection to the Tinker service at {address}"):
            open_now()
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:port")
    with pytest.raises(ConfigError, match="is no URL"):
        open_now()


def test_a_local_folder_is_no_start_for_a_service(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    model = ModelSection(backend="tinker")
    for opens in (
        lambda: open_trainer(model, TrainingSection(), "pico", tmp_path),
        lambda: open_sampler("pico", model, tmp_path),
    ):
        with pytest.raises(ModelError, match="weights on this machine cannot be uploaded"):
            opens()


def test_a_checkpoint_that_the_service_has_not_is_one_sentence(tmp_path: Path) -> None:
    run = "00000000-0000-0000-0000-000000000000:train:0"
    lost = ServiceCheckpoint(
        f"tinker://{run}/weights/a", f"tinker://{run}/sampler_weights/a", "pico", 4
    )
    lost.write(tmp_path)
    trainer = open_now()
    with pytest.raises(UserError, match=r"no checkpoint|no training run"):
        trainer.load(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint|no training run"):
        open_sampler(str(pico_folder(0)), ModelSection(backend="tinker"), tmp_path)


def test_the_tokenizer_of_the_service_stands_in_for_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under a name that is no folder and on no hub here."""
    connection = connect()
    connection.models["an-alias"] = 1024
    create = connection.client.create_lora_training_client
    connection.client.create_lora_training_client = lambda _, rank: create("pico", rank=rank)
    monkeypatch.setattr("toolhone.backends.tinker.connect", lambda: connection)
    tokenizer = open_tokenizer(ModelSection(backend="tinker", name="an-alias"), "an-alias")
    own = open_tokenizer(ModelSection(), str(pico_folder(0)))
    assert tokenizer.encode("What is 2 + 2?") == own.encode("What is 2 + 2?")


def test_a_lost_connection_ends_the_wait_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinker_connection, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(tinker_sampler, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(tinker_connection, "LOST_SECONDS", 0.2)
    trainer = open_now()
    sampler: Any = trainer.snapshot()
    sampler._client.sample = lambda *_: Future()
    stream, connection = sampler.stream(), sampler._service
    stream.submit(1, [5, 6, 7], SamplingParams(max_tokens=4))
    connection.url = "http://127.0.0.1:1"
    for waits in (stream.poll, lambda: connection.result(Future())):
        with pytest.raises(ServiceError, match="no connection to the Tinker service"):
            waits()
    stream.close()
    assert stream.poll() == []


@contextmanager
def own_server(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Our server as a process of its own, and its address."""
    code = "from toolhone.cli.main import main; main()"
    words = ["serve", "--tinker", "pico", "--port", str(port), "--out", str(folder)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=PIPE, stderr=DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("export TINKER_BASE_URL="), first
            yield process, first.partition("=")[2].strip()
        finally:
            process.kill()


@pytest.mark.slow
def test_a_run_whose_server_is_killed_resumes_at_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tinker_connection, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(tinker_connection, "LOST_SECONDS", 1.0)
    step, calls = TinkerTrainer.optim_step, []
    words = [*SMALL, "training.steps=4", "evaluation.at_end=false", "--out", str(tmp_path / "run")]
    with own_server(tmp_path / "service") as (process, address), monkeypatch.context() as patch:

        def kill_at_the_third(self: TinkerTrainer, optimizer: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                process.kill()
                process.wait()
            return step(self, optimizer)

        patch.setenv("TINKER_BASE_URL", address)
        patch.setattr(TinkerTrainer, "optim_step", kill_at_the_third)
        assert run_cli(patch, "train", *words) == 2
    shown = capsys.readouterr().err
    assert f"no connection to the Tinker service at {address}" in shown
    assert f"Resume with: toolhone train --resume --out {tmp_path / 'run'}" in shown
    with own_server(tmp_path / "service", int(address.rpartition(":")[2])) as (_, again):
        monkeypatch.setenv("TINKER_BASE_URL", again)
        assert run_cli(monkeypatch, "train", "--resume", "--out", str(tmp_path / "run")) == 0
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_lost_connection_names_the_command_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: Any) -> Any:
        raise ServiceError("no connection to the Tinker service")

    monkeypatch.setattr(TinkerTrainer, "optim_step", lost)
    words = [*SMALL, "training.steps=2", "--out", str(tmp_path / "run")]
    assert run_cli(monkeypatch, "train", *words) == 2
    shown = capsys.readouterr().err
    assert f"Resume with: toolhone train --resume --out {tmp_path / 'run'}" in shown


class RefusedError(Exception):
    """An error of the SDK, as its status errors are."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status_code, self.body = status, {"error": text}


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (429, "a limit of .* is reached: too much; try again later"),
        (402, "stopped this account's work for billing: too much"),
        (403, r"does not accept the key in TINKER_API_KEY \(too much\)"),
        (500, "failed: too much"),
    ],
)
def test_errors_of_the_service_say_what_it_said(status: int, sentence: str) -> None:
    connection = object.__new__(TinkerConnection)
    connection.sdk, connection.url = tinker, "http://service"
    with pytest.raises(UserError, match=sentence):
        raise connection.sentence(RefusedError(status, "too much"))


def test_an_adapter_that_is_not_on_offer_is_one_sentence(tmp_path: Path) -> None:
    trainer = open_now()
    trainer.save(tmp_path / "saved")
    sampler = open_sampler(str(pico_folder(0)), ModelSection(backend="tinker"), tmp_path / "saved")
    assert isinstance(sampler, TinkerCheckpoint)
    with pytest.raises(CapabilityError, match="cannot be downloaded from http"):
        sampler.write_adapter(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served over HTTP, and its address: the store of a service."""
    folder = tmp_path / "store"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def offers(monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]) -> None:
    """Let the service offer external weights, as the SDK tells of them."""
    external = SimpleNamespace(path="tinker://run/external_weights/download")
    client = SimpleNamespace(save_weights_external=lambda _: external)
    rest = SimpleNamespace(get_external_weights_urls=lambda _: SimpleNamespace(urls=urls))
    monkeypatch.setattr(TinkerConnection, "open_training", lambda *_, **__: client)
    monkeypatch.setattr(TinkerConnection, "_rest", lambda _: rest)


def test_an_adapter_is_downloaded_as_a_peft_folder_and_merged(
    files: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address = files
    trained = open_trainer(
        ModelSection(device_map="cpu"),
        TrainingSection(lora=LoraSection(rank=2)),
        str(pico_folder(0)),
    )
    trained.save(store, optimizer=False)
    urls = {path.name: f"{address}/{path.name}" for path in store.iterdir()}
    open_now().save(tmp_path / "saved")
    model = ModelSection(backend="tinker")
    sampler: Any = open_sampler(str(pico_folder(0)), model, tmp_path / "saved")
    offers(monkeypatch, urls)
    for name in ("peft", "merged"):
        (tmp_path / name).mkdir()
    sampler.write_adapter(tmp_path / "peft")
    for path in store.iterdir():
        assert (tmp_path / "peft" / path.name).read_bytes() == path.read_bytes()
    sampler.write_merged(tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    offers(monkeypatch, {"../outside": f"{address}/adapter_config.json"})
    with pytest.raises(ServiceError, match=r"unsafe name '../outside'"):
        sampler.write_adapter(tmp_path / "peft")
    offers(monkeypatch, {"gone": f"{address}/gone"})
    with pytest.raises(ServiceError, match="404"):
        sampler.write_adapter(tmp_path / "peft")


@pytest.mark.parametrize("values", [[None, -1.0, None], [None, -1.0]])
def test_a_token_without_log_probability_is_an_error_and_never_certain(values: list) -> None:
    sdk = SimpleNamespace(types=tinker.types)
    service: Any = SimpleNamespace(sdk=sdk, usage=Usage(), url="http://x", result=lambda one: one)
    client = SimpleNamespace(compute_logprobs=lambda _: values)
    sampler = tinker_sampler.TinkerSampler(service, client, ModelInfo(64))
    with pytest.raises(ServiceError, match="no log-probability for some of the 2 tokens"):
        sampler.logprobs([Row.of([1, 2, 3], [False, True, True])])


def test_a_norm_that_the_service_does_not_tell_is_not_logged_as_0() -> None:
    sums = MetricsAccumulator({}, lambda: 0.0)
    sums.add({"nll": 1.0, "tokens": 1.0}, [])
    assert sums.known_means("grad_norm") == {}
    sums.add({"nll": 1.0, "tokens": 1.0, "grad_norm": 3.0}, [])
    assert sums.known_means("grad_norm") == {"grad_norm": 1.5}
