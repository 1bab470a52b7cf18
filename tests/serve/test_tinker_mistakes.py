"""What ends with a sentence on the client's side of the Tinker server, which then goes on: mistakes
of clients, lost connections, a full disk, a bug.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from contracts.test_backends import CONTEXT, VOCAB
from serve.test_tinker_server import IDS, datum, done, lesson, new_model, score, train
from support.tinker_server import KEY, sdk_client, tinker_server
from toolhone.errors import DataError
from toolhone.serve.tinker_checkpoints import TinkerPath

pytest.importorskip("starlette")
tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("sdk")]
KILLED = """
import sys, numpy as np, tinker
client = tinker.ServiceClient(base_url=sys.argv[1], api_key="tml-local")
model = client.create_lora_training_client(sys.argv[2], rank=4, train_unembed=False).result()
print("trains", flush=True)
ids = [5, 9, 33, 12]
inputs = {"target_tokens": np.array(ids[1:]), "weights": np.ones(3, np.float32)}
data = [tinker.Datum(model_input=tinker.ModelInput.from_ints(ids[:-1]), loss_fn_inputs=inputs)]
while True:
    model.forward_backward(data, "cross_entropy")
    model.optim_step(tinker.AdamParams(learning_rate=0.01)).result()
"""


@pytest.fixture
def model(client: Any, folder: Path) -> Iterator[Any]:
    """A model that must still train at the end of the test."""
    opened = new_model(client, folder)
    yield opened
    assert train(opened, 4)[-1] < train(new_model(client, folder))[0]


def call(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """A request without the SDK; GET where there is no body."""
    headers, address = {"X-API-Key": KEY}, f"{url}/api/v1/{path}"
    with httpx.Client(headers=headers, timeout=60) as http:
        reply = http.get(address) if body is None else http.post(address, json=body)
    return reply.status_code, reply.json()


MISTAKES = {
    "an unknown loss": (lambda: lesson(), "nope", {}, "loss_fn 'nope' is not available here"),
    "an uploaded loss": (lambda: lesson(), "custom", {}, "runs no uploaded custom losses"),
    "a missing array": (lambda: datum(), "ppo", {}, "ppo takes target_tokens, logprobs, advan"),
    "another length": (lambda: datum(weights=[1.0]), "cross_entropy", {}, "they must agree"),
    "an unknown number": (
        lambda: datum(logprobs=[0.0] * 7, advantages=[1.0] * 7),
        "ppo",
        {"epsilon": 0.2},
        "loss_fn_config of ppo has the numbers clip_low_threshold, clip_high_threshold",
    ),
    "NaN": (lambda: datum(weights=[np.nan] * 7), "cross_entropy", {}, "weights holds NaN"),
    "no token of the model": (
        lambda: datum([1, VOCAB, 3], weights=[1.0, 1.0]),
        "cross_entropy",
        {},
        f"tokens are whole numbers from 0 to {VOCAB - 1}",
    ),
    "too long a row": (
        lambda: datum([1] * (CONTEXT + 2), weights=[1.0] * (CONTEXT + 1)),
        "cross_entropy",
        {},
        f"does not fit the model's context of {CONTEXT}",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_pass_ends_with_a_sentence_for_the_user(model: Any, name: str) -> None:
    make, loss, config, sentence = MISTAKES[name]
    with pytest.raises(tinker.RequestFailedError, match=sentence) as caught:
        model.forward_backward([make()], loss, config).result()
    assert caught.value.category == "user"


def test_a_gradient_that_is_not_finite_is_skipped(model: Any) -> None:
    wild = datum(logprobs=[-3e38] * 7, advantages=[1.0] * 7)
    passed = model.forward_backward([wild], "importance_sampling")
    assert model.optim_step(tinker.AdamParams()).result().metrics["skipped"] == 1
    assert not np.isfinite(passed.result().metrics["loss:sum"])


def test_a_wrong_key_and_a_wrong_name_are_refused(url: str, client: Any, folder: Path) -> None:
    stranger = tinker.ServiceClient(base_url=url, api_key="tml-other")
    with pytest.raises(tinker.AuthenticationError, match="the API key is wrong"):
        done(stranger.create_lora_training_client("x"))
    with pytest.raises(tinker.RequestFailedError, match="there is no model 'x' here; this server"):
        done(client.create_lora_training_client("x"))
    with pytest.raises(tinker.NotFoundError, match="there is no model 'x' here"):
        done(client.create_sampling_client(base_model="x"))
    model, other = new_model(client, folder), tinker.types.optimizer.DimuonParams(learning_rate=1)
    with pytest.raises(tinker.RequestFailedError, match="dimuon"):
        model.optim_step(other).result()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "x" * 200, "a\\b", "c:d"])
def test_names_cannot_leave_the_folder_of_checkpoints(name: str) -> None:
    run = "0" * 36 + ":train:0"
    with pytest.raises(DataError):
        TinkerPath(run, "weights", name)
    for wrong in (f"tinker://../weights/{name}", f"tinker://{run}/../{name}", f"/etc/{name}"):
        with pytest.raises(DataError):
            TinkerPath.read(wrong)


def test_a_checkpoint_is_not_overwritten_unasked_and_can_be_deleted(
    model: Any, client: Any
) -> None:
    path = model.save_state("one").result().path
    with pytest.raises(tinker.RequestFailedError, match="one exists already"):
        model.save_state("one").result()
    assert model.save_state("one", overwrite=True).result().path == path
    with pytest.raises(tinker.RequestFailedError, match=r"a checkpoint's name has letters"):
        model.save_state("../../two").result()
    rest = client.create_rest_client()
    run = done(rest.get_training_run(model.model_id))
    assert (run.lora_rank, run.last_checkpoint.tinker_path) == (4, path)
    assert done(rest.get_weights_info_by_tinker_path(path)).lora_rank == 4
    done(rest.delete_checkpoint_from_tinker_path(path))
    assert done(rest.list_checkpoints(model.model_id)).checkpoints == []
    with pytest.raises(tinker.RequestFailedError, match="there is no checkpoint"):
        done(client.create_training_client_from_state(path))


def test_what_does_not_fit_in_memory_is_refused(folder: Path, tmp_path: Path) -> None:
    with tinker_server(folder, tmp_path, memory=500_000) as url, sdk_client(url) as client:
        model = new_model(client, folder)
        with pytest.raises(tinker.RequestFailedError, match=r"rank 64 .* the limit is 0\.5 MB"):
            new_model(client, folder, rank=64)
        assert train(model, 3)[-1] < train(model)[0] * 2


def test_two_clients_at_once_do_not_disturb_each_other(client: Any, url: str, folder: Path) -> None:
    alone, found = train(new_model(client, folder), 6), {}

    def work(name: str) -> None:
        with sdk_client(url) as own:
            found[name] = train(new_model(own, folder), 6)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {"a": alone, "b": alone}


def test_requests_run_in_their_order_and_a_repeated_one_counts_once(url: str, model: Any) -> None:
    rates = {1: 0.0, 2: 1e-3, 3: 1e-3}
    ids = {}
    for number in (3, 2, 2, 1, 1):  # as the SDK sends parallel chunks: the first one last
        body = {"model_id": model.model_id, "seq_id": number}
        adam = {"learning_rate": rates[number]}
        _, promise = call(url, "optim_step", {**body, "adam_params": adam})
        assert ids.setdefault(number, promise["request_id"]) == promise["request_id"]
    for identity in ids.values():
        status, result = call(url, "retrieve_future", {"request_id": identity})
        assert (status, result["metrics"]["skipped"]) == (200, 1)
    model._request_id_counter = model._turn_counter = 3


def test_a_lost_connection_does_not_stop_the_server(url: str, model: Any) -> None:
    assert model is not None
    host, port = urlsplit(url).hostname, urlsplit(url).port
    for part in (
        b"POST /api/v1/optim_step HTTP/1.1\r\nHost: localhost\r\nX-API-Key: tml-local\r\n"
        b"Content-Length: 5000\r\n\r\n{",
        b"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: localhost\r\nX-API-Key: tml-local\r\n"
        b'Content-Length: 18\r\n\r\n{"request_id":"x"}',
        b"\x00\xff\x00",
    ):
        with socket.create_connection((host, port)) as line:
            line.sendall(part)
    status, reply = call(url, "retrieve_future", {"request_id": "x"})
    assert (status, reply["category"]) == (400, "user")
    assert "there is no request 'x' here" in reply["error"]
    assert call(url, "nope", {})[0] == call(url, "asample", {"num_samples": 1})[0] == 400
    assert call(url, "healthz") == (200, {"status": "ok"})


def test_too_large_a_request_is_refused(url: str, model: Any) -> None:
    assert model is not None
    headers = {"X-API-Key": KEY, "Content-Type": "application/x-protobuf"}
    with httpx.Client(headers=headers, timeout=60) as http:
        reply = http.post(f"{url}/api/v1/forward_backward", content=b"\0" * (65 * 2**20))
    assert (reply.status_code, reply.json()["category"]) == (400, "user")
    assert "more than 64 MiB" in reply.json()["error"]


def test_a_killed_client_does_not_stop_the_server(url: str, model: Any, folder: Path) -> None:
    assert model is not None
    command = [sys.executable, "-c", KILLED, url, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"trains\n"
        os.kill(process.pid, signal.SIGKILL)


def test_after_a_new_start_clients_learn_that_their_model_is_gone_and_resume(
    folder: Path, tmp_path: Path
) -> None:
    with tinker_server(folder, tmp_path) as url, sdk_client(url) as client:
        model = new_model(client, folder)
        train(model, 2)
        path = model.save_state("two").result().path
        sampler = model.save_weights_for_sampler("two").result().path
        expected = train(model, 2)
        was = score(done(client.create_sampling_client(model_path=sampler)))
    with tinker_server(folder, tmp_path) as url, sdk_client(url) as client:
        body = {"model_id": model.model_id, "seq_id": 9, "adam_params": {}}
        status, reply = call(url, "optim_step", body)
        assert status == 404
        assert "create_training_client_from_state continues from a checkpoint" in reply["error"]
        resumed = done(client.create_training_client_from_state_with_optimizer(path))
        assert train(resumed, 2) == expected
        assert score(done(client.create_sampling_client(model_path=sampler))) == was


def test_a_full_disk_is_a_sentence(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("toolhone.backends.torch.trainer.write_peft", full)
        with pytest.raises(tinker.RequestFailedError, match="No space left on device") as caught:
            model.save_state("full").result()
    assert caught.value.category == "server"
    assert model.save_state("full").result().path.endswith("/weights/full")


def test_a_bug_is_told_at_once_and_the_server_goes_on(
    model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("toolhone.backends.torch.trainer.TorchTrainer.optim_step", broken)
        with pytest.raises(tinker.RequestFailedError, match="RuntimeError: a bug") as caught:
            model.optim_step(tinker.AdamParams()).result()
    assert caught.value.category == "server"
    assert "Traceback" in capsys.readouterr().err


def test_wishes_that_are_not_available_are_refused_by_name(client: Any, folder: Path) -> None:
    sampler = done(client.create_sampling_client(base_model=str(folder)))
    prompt, params = tinker.ModelInput.from_ints(IDS), tinker.SamplingParams(max_tokens=1)
    with pytest.raises(tinker.BadRequestError, match="topk_sample_logprobs is not available"):
        sampler.sample(prompt, 1, params, topk_sample_logprobs=2).result()
    with pytest.raises(tinker.RequestFailedError, match="a prompt has at least one token"):
        sampler.sample(tinker.ModelInput.from_ints([VOCAB]), 1, params).result()
    with pytest.raises(tinker.RequestFailedError, match="which leaves none for a sample"):
        sampler.sample(tinker.ModelInput.from_ints([1] * CONTEXT), 1, params).result()
    hot = tinker.SamplingParams(max_tokens=1, temperature=-1)
    with pytest.raises(tinker.BadRequestError, match="temperature"):
        sampler.sample(prompt, 1, hot).result()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_ctrl_c_ends_the_server_in_peace_while_clients_wait(folder: Path, tmp_path: Path) -> None:
    program = "from toolhone.cli.main import main; main()"
    words = ["serve", "--tinker", str(folder), "--port", "0", "--out", str(tmp_path)]
    command = [sys.executable, "-c", program, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip().removeprefix("export TINKER_BASE_URL=")
        assert server.stdout.readline() == "export TINKER_API_KEY=tml-local\n"
        _, session = call(url, "create_session", {"tags": [], "user_metadata": {}})
        lora, name = {"rank": 4}, str(folder)
        model = {"session_id": session["session_id"], "model_seq_id": 0, "base_model": name}
        _, promise = call(url, "create_model", {**model, "lora_config": lora})
        model_id = call(url, "retrieve_future", promise)[1]["model_id"]
        adam = {"model_id": model_id, "seq_id": 2, "adam_params": {}}
        _, promise = call(url, "optim_step", adam)  # waits for request 1, which never comes
        replies: list[Any] = []
        waits = threading.Thread(
            target=lambda: replies.append(
                call(url, "retrieve_future", {"request_id": promise["request_id"]})
            )
        )
        waits.start()
        waits.join(0.5)
        server.send_signal(signal.SIGINT)
        waits.join(60)
        assert server.wait(60) in (0, 130)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    assert replies[0][1]["type"] == "try_again"
