"""Losses that a client of the Tinker SDK uploads, run here only where `serve` was told to.

    loss = read_custom_loss(request)             # a CreateCustomLossRequest; DataError names an op
    custom_wire_loss(loss, seen)                 # a `Loss` over the seam, as `wire_loss` gives one

An upload is a list of operations on tensors, no code: each is looked up in the lists below.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolhone.backends.base import Batch, Loss, Ops
from toolhone.errors import CapabilityError, DataError
from toolhone.serve.tinker_losses import ROW, Seen
from toolhone.serve.tinker_wire import WireDatum

MAX_NODES = 2000
"""Operations of one loss."""
TENSOR_NAMES = """
abs add ceil clamp clamp_max clamp_min clip detach div divide eq exp expm1 floor ge
greater gt heaviside isfinite isinf isnan le less log log1p log2 logaddexp logical_and
logical_not logical_or logit lt masked_fill maximum minimum mul multiply nan_to_num ne neg
negative pow reciprocal relu round rsqrt sigmoid sign sqrt square sub subtract tanh
true_divide where zeros_like ones_like full_like all amax amin any cumsum dot flip
log_softmax logcumsumexp logsumexp max mean median min norm numel prod reshape size
softmax squeeze std sum unsqueeze var view double float int long bool dim
"""
FUNCTIONAL_NAMES = "logsigmoid relu softplus"
OPERATOR_NAMES = """
abs add and_ eq floordiv ge getitem gt invert le lt mod mul ne neg not_ or_ pow sub
truediv xor
"""
TENSOR, FUNCTIONAL = set(TENSOR_NAMES.split()), set(FUNCTIONAL_NAMES.split())
OPERATORS = set(OPERATOR_NAMES.split())
ATTRIBUTES = {"device", "dtype", "ndim", "shape"}
METRIC = re.compile(r"custom/[a-z0-9_./-]{1,64}:(sum|mean)")


@dataclass(frozen=True)
class CustomLoss:
    """`ranks`: of each input by name, `logprobs` first. `run`: inputs of one datum to its
    loss and metrics, all torch tensors of rank 0."""

    name: str
    ranks: Mapping[str, int]
    run: Callable[[Sequence[Any]], tuple[Any, Mapping[str, Any]]]

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.ranks)[1:]

    def spread(self, datum: WireDatum) -> WireDatum:
        """Repeat the inputs of rank 0 over the positions of the datum."""
        arrays = {
            name: np.broadcast_to(values, len(datum.tokens))
            if self.ranks.get(name) == 0 and values.size == 1
            else values
            for name, values in datum.inputs.items()
        }
        return WireDatum(datum.tokens, arrays)


def read_custom_loss(request: Any) -> CustomLoss:
    """Check a request of the SDK (`CreateCustomLossRequest`) and rebuild its loss."""
    ranks = {each.name: each.rank for each in request.inputs}
    if 2 in ranks.values() or not ranks or next(iter(ranks.values())) != 1:
        raise CapabilityError(
            f"loss {request.name!r}: logprobs have rank 1 here and other inputs 0 or 1; got {ranks}"
        )
    nodes = request.graph.nodes
    if len(nodes) > MAX_NODES:
        raise DataError(f"loss {request.name!r} has {len(nodes)} operations, over {MAX_NODES}")
    known: set[str] = set()
    for node in nodes:
        if node.op not in ("placeholder", "output"):
            _function(request.name, node)
        for ref in _references([node.args, node.kwargs]):
            if ref not in known:
                raise DataError(f"loss {request.name!r}: {node.name} uses {ref!r} before it is set")
        known.add(node.name)
    outputs = [node for node in nodes if node.op == "output"]
    if len(outputs) != 1 or nodes[-1] is not outputs[0] or len(outputs[0].args) != 1:
        raise DataError(f"loss {request.name!r} must end with its one output")
    if [node.op for node in nodes].count("placeholder") != len(ranks):
        raise DataError(f"loss {request.name!r} must take the {len(ranks)} inputs it names")
    return CustomLoss(request.name, ranks, lambda inputs: _run(request.name, nodes, inputs))


def custom_wire_loss(loss: CustomLoss, seen: Seen) -> Loss:
    """The loss summed over data; it notes the log-probabilities in `seen`. Metrics are sums."""

    def fn(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        seen.append((batch[ROW][:, 0], ops.stop_gradient(logp)))
        total: Any = 0.0
        metrics: dict[str, Any] = {}
        for row in range(len(logp)):
            end = 1 + int(batch.mask[row].sum())
            given = [logp[row, 1:end]]
            for name in loss.inputs:
                values = batch[name][row, 1:end]
                given.append(values[0] if loss.ranks[name] == 0 else values)
            value, found = loss.run(given)
            total = total + value
            for key, number in found.items():
                metrics[key] = metrics.get(key, 0.0) + ops.stop_gradient(number)
        return total, metrics

    return Loss("custom", fn)


def mean_metrics(metrics: Mapping[str, float], data: int) -> dict[str, float]:
    """The metrics of custom losses, from sums over data; those named `:mean` are divided."""
    own = {key: value for key, value in metrics.items() if key.startswith("custom/")}
    return {key: value / data if key.endswith(":mean") else value for key, value in own.items()}


def _function(loss: str, node: Any) -> Callable[..., Any]:
    """What a node calls, from the lists of this module."""
    import torch

    target = node.target
    module, _, name = target.rpartition(".")
    if node.op == "call_method" and target in TENSOR:
        return getattr(torch.Tensor, target)  # type: ignore[no-any-return]
    if node.op == "call_function":
        if module == "torch" and name in TENSOR and hasattr(torch, name):
            return getattr(torch, name)  # type: ignore[no-any-return]
        if module in ("torch.nn.functional", "torch._C._nn") and name in FUNCTIONAL:
            return getattr(torch.nn.functional, name)  # type: ignore[no-any-return]
        if module == "operator" and name in OPERATORS:
            return getattr(operator, name)  # type: ignore[no-any-return]
        if target == "builtins.getattr" and node.args[1:] and node.args[1] in ATTRIBUTES:
            return getattr
    raise CapabilityError(
        f"loss {loss!r} uses {target!r:.80}, which uploaded losses cannot here; without "
        "--custom-losses the SDK runs your loss in your own program"
    )


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        if value.keys() == {"ref"}:
            return [str(value["ref"])]
        value = [*value.values()]
    if isinstance(value, list):
        return [ref for each in value for ref in _references(each)]
    return []


def _run(loss: str, nodes: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, Mapping[str, Any]]:
    import torch

    values: dict[str, Any] = {}
    waiting = [*inputs][::-1]
    for node in nodes:
        if node.op == "placeholder":
            values[node.name] = waiting.pop()
            continue
        args = [_decode(each, values) for each in node.args]
        if node.op == "output":
            return _checked(loss, args[0])
        keys = {key: _decode(each, values) for key, each in node.kwargs.items()}
        numbers = node.target == "operator.getitem" or _holds_tensor([*args, *keys.values()])
        if node.op == "call_function" and not numbers:
            raise DataError(f"loss {loss!r}: {node.target} works on tensors alone here")
        try:
            result = _function(loss, node)(*args, **keys)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"loss {loss!r}: {node.target} failed: {error!s:.200}") from None
        if isinstance(result, torch.Tensor) and result.ndim > 2:
            raise CapabilityError(f"loss {loss!r}: {node.target} makes a tensor of rank 3 or more")
        values[node.name] = result
    raise DataError(f"loss {loss!r} has no output")


def _checked(loss: str, output: Any) -> tuple[Any, Mapping[str, Any]]:
    import torch

    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], dict):
        value, metrics = output
        scalars = [value, *metrics.values()]
        named = all(METRIC.fullmatch(str(key)) for key in metrics)
        if named and all(isinstance(each, torch.Tensor) and each.ndim == 0 for each in scalars):
            return value, metrics
    raise DataError(
        f"loss {loss!r} must return a scalar loss and a dict of scalar metrics, "
        "named custom/NAME:sum or custom/NAME:mean"
    )


def _holds_tensor(values: Sequence[Any]) -> bool:
    import torch

    return any(
        isinstance(each, torch.Tensor) or (isinstance(each, list | tuple) and _holds_tensor(each))
        for each in values
    )


def _decode(value: Any, values: Mapping[str, Any]) -> Any:
    """Read an argument in the form of the SDK's `CustomLossNode.args`."""
    import torch

    if isinstance(value, list):
        return [_decode(each, values) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise DataError(f"an argument of a loss is one key and its value; got {sorted(value)}")
    ((kind, inner),) = value.items()
    match kind:
        case "ref":
            return values[inner]
        case "tuple":
            return tuple(_decode(each, values) for each in inner)
        case "dict":
            return {key: _decode(each, values) for key, each in inner.items()}
        case "slice":
            return slice(*(_decode(each, values) for each in inner))
        case "ellipsis":
            return Ellipsis
        case "float":
            return float(inner)
        case "dtype" if isinstance(getattr(torch, str(inner), None), torch.dtype):
            return getattr(torch, inner)
        case "device" if inner == "cpu":
            return torch.device("cpu")
    raise DataError(f"an argument of a loss cannot be {kind} {inner!r:.40} here")
