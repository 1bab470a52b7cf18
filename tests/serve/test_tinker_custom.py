"""Losses that a client uploads: as the client runs them, and nothing but tensor operations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.test_tinker_server import datum, done, new_model
from support.tinker_server import sdk_client, tinker_server
from toolhone.errors import CapabilityError, DataError
from toolhone.serve.tinker_custom import read_custom_loss

pytest.importorskip("starlette")
tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")
if not hasattr(tinker.types, "CustomLossGraph"):
    pytest.skip("this SDK uploads no losses", allow_module_level=True)

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("sdk")]
torch = pytest.importorskip("torch")


def weighed(logprobs: Any, advantages: Any, scale: Any) -> Any:
    """Clipped importance sampling with an entropy-like term: many kinds of operations."""
    ratio = torch.exp(logprobs - logprobs.detach()).clamp(0.8, 1.2)
    loss = -(ratio * advantages).sum() * scale - 0.1 * torch.logsumexp(logprobs, 0)
    far = torch.where(logprobs < -2.0, torch.ones_like(logprobs), logprobs * 0.0)
    return loss + (logprobs[1:] ** 2).mean(), {"custom/far:sum": far.sum(), "custom/s:mean": scale}


RANKS = {"logprobs": 1, "advantages": 1, "scale": 0}


def data() -> list[Any]:
    rows = []
    for ids, scale in (([5, 9, 33, 12], 0.5), ([7, 40, 21, 3, 8, 6], 2.0)):
        row = datum(ids, advantages=np.linspace(-1, 1, len(ids) - 1))
        row.loss_fn_inputs["scale"] = tinker.TensorData.from_numpy(np.array(scale, np.float32))
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def open_url(folder: Path, sdk: None) -> Iterator[str]:  # noqa: ARG001 (before the server)
    with tinker_server(folder, folder / "custom", custom_losses=True) as address:
        yield address


def run(client: Any, folder: Path) -> tuple[Any, list[Any], dict[str, float]]:
    loss = done(client.create_custom_loss(weighed, RANKS))
    model = new_model(client, folder)
    passed = model.forward_backward_custom(data(), loss).result()
    model.optim_step(tinker.AdamParams(learning_rate=0.01)).result()
    after = model.forward([datum(weights=[1.0] * 7)], "cross_entropy").result()
    return loss.loss_id, after.loss_fn_outputs[0]["logprobs"].data, passed.metrics


def test_a_loss_run_by_the_server_equals_the_one_run_by_the_client(
    url: str, open_url: str, folder: Path
) -> None:
    with sdk_client(url) as closed, sdk_client(open_url) as opened:
        own, wanted, there = run(closed, folder)
        uploaded, got, here = run(opened, folder)
    assert own is None
    assert uploaded.endswith(":loss:0")
    assert np.allclose(got, wanted, atol=1e-6)
    there.pop("surrogate_loss:sum")
    assert set(there) == set(here) == {"loss:sum", "custom/far:sum", "custom/s:mean"}
    assert here["custom/s:mean"] == 1.25
    assert all(np.isclose(here[key], there[key], rtol=1e-5) for key in here)


def test_a_loss_of_another_session_is_unknown(open_url: str, folder: Path) -> None:
    with sdk_client(open_url) as one, sdk_client(open_url) as other:
        loss = done(one.create_custom_loss(weighed, RANKS))
        model = new_model(other, folder)
        wrong = {"loss_id": loss.loss_id}
        with pytest.raises(Exception, match="there is no uploaded loss"):
            model.forward_backward(data(), "custom", wrong).result()


def request(*nodes: tuple[str, str, str, list[Any]], ranks: tuple[int, ...] = (1,)) -> Any:
    kinds = tinker.types
    names = ("logprobs", "advantages")
    made = [
        kinds.CustomLossNode(op=op, name=name, target=target, args=args)
        for op, name, target, args in nodes
    ]
    return kinds.CreateCustomLossRequest(
        session_id="s",
        custom_loss_seq_id=0,
        name="mine",
        inputs=[{"name": name, "rank": rank} for name, rank in zip(names, ranks, strict=False)],
        graph=kinds.CustomLossGraph(nodes=made),
    )


IN = ("placeholder", "x", "logprobs", [])
X = {"ref": "x"}


def out(name: str) -> tuple[str, str, str, list[Any]]:
    return ("output", "output", "output", [{"tuple": [{"ref": name}, {"dict": {}}]}])


@pytest.mark.parametrize(
    "function",
    [
        *("os.system", "torch.load", "torch.ones", "torch.nn.functional.pad", "builtins.getattr"),
        *("operator.attrgetter", "torch.Tensor.tolist", "torch.einsum", "math.exp"),
    ],
)
def test_functions_outside_the_list_are_refused(function: str) -> None:
    with pytest.raises(CapabilityError, match="cannot here"):
        read_custom_loss(request(IN, ("call_function", "y", function, [X, "__class__"]), out("y")))


@pytest.mark.parametrize("method", ["backward", "numpy", "expand", "repeat", "__class__", "to"])
def test_methods_outside_the_list_are_refused(method: str) -> None:
    with pytest.raises(CapabilityError, match="cannot here"):
        read_custom_loss(request(IN, ("call_method", "y", method, [X]), out("y")))


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (request(IN, out("y")), "before it is set"),
        (request(IN, ("call_method", "y", "sum", [X])), "must end with its one output"),
        (request(IN, ("output", "output", "output", [])), "must end with its one output"),
        (request(out("x")), "before it is set"),
        (request(IN, IN, out("x")), "must take the 1 inputs"),
        (request(*[IN] * 3000, out("x")), "3001 operations, over 2000"),
    ],
)
def test_graphs_that_do_not_hold_together_are_refused(graph: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_custom_loss(graph)


def test_inputs_of_rank_two_are_refused() -> None:
    with pytest.raises(CapabilityError, match="rank 1 here"):
        read_custom_loss(request(IN, out("x"), ranks=(2,)))


@pytest.mark.parametrize("name", ["loss", "custom/x", "custom/X:sum", "custom/x:max"])
def test_metrics_that_would_not_reach_the_client_are_refused(name: str) -> None:
    total = ("call_method", "y", "sum", [X])
    metrics = {"dict": {name: {"ref": "y"}}}
    output = ("output", "output", "output", [{"tuple": [{"ref": "y"}, metrics]}])
    with pytest.raises(DataError, match="named custom/NAME:sum or custom/NAME:mean"):
        read_custom_loss(request(IN, total, output)).run([torch.zeros(4)])


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (("call_function", "y", "operator.pow", [10**9, 10**9]), "works on tensors alone"),
        (("call_method", "y", "reshape", [X, 1, 1, -1]), "rank 3 or more"),
        (("call_method", "y", "reshape", [X, 7, 7]), "reshape failed"),
        (("call_method", "y", "exp", [X]), "must return a scalar loss"),
        (("call_method", "y", "sum", [X, {"device": "cuda"}]), "cannot be device"),
    ],
)
def test_operations_that_fail_or_grow_end_with_a_sentence(node: Any, why: str) -> None:
    loss = read_custom_loss(request(IN, node, out("y")))
    with pytest.raises((DataError, CapabilityError), match=why):
        loss.run([torch.zeros(4)])
