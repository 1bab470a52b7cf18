"""The two binary bodies of the Tinker protocol: passes (forward, backward) and samples.

    request = read_pass(body)                      # a ForwardBackwardRequest
    rows = rows_of(request.data(), name, inputs, vocab)  # position i is entry i + 1 of a row

The protobuf module comes from the `tinker` package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolhone.backends.base import Sample, StopReason
from toolhone.errors import CapabilityError, DataError
from toolhone.rows import Array, Row
from toolhone.serve.tinker_losses import ROW, Seen


@dataclass(frozen=True)
class WireDatum:
    """tokens: int64 [N]. inputs: the arrays of the loss, [N] or [N, K], of float32 or int64."""

    tokens: NDArray[np.int64]
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class WirePass:
    """A request for a forward pass, and a backward one unless `forward_only`."""

    model_id: str
    seq_id: int
    loss_fn: str
    config: Mapping[str, float | str]
    forward_only: bool
    _data: Any

    def data(self) -> list[WireDatum]:
        """Decode the data; `DataError` names what is wrong."""
        return [_datum(message, f"datum {place}") for place, message in enumerate(self._data)]


def messages() -> Any:
    """The protobuf module of the SDK."""
    from tinker.proto import tinker_public_pb2

    return tinker_public_pb2


def read_pass(body: bytes) -> WirePass:
    from google.protobuf.message import DecodeError

    request = messages().ForwardBackwardRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise DataError(f"the request is no ForwardBackwardRequest of protobuf: {error}") from None
    config: dict[str, float | str] = dict(request.loss_fn_config)
    for key, value in getattr(request, "loss_fn_config_v2", {}).items():
        config[key] = value.text if value.WhichOneof("value") == "text" else value.number
    name, only = request.loss_fn, request.forward_only
    return WirePass(request.model_id, request.seq_id, name, config, only, request.data)


def _datum(message: Any, where: str) -> WireDatum:
    tokens = [np.zeros(0, np.int64)]
    for chunk in message.model_input:
        if not chunk.HasField("encoded_text"):
            raise CapabilityError(f"{where} holds an image or audio; this server takes text alone")
        tokens.append(np.frombuffer(chunk.encoded_text.tokens, np.int32).astype(np.int64))
    arrays = {name: _array(tensor, where, name) for name, tensor in message.loss_fn_inputs.items()}
    return WireDatum(np.concatenate(tokens), arrays)


def _array(tensor: Any, where: str, name: str) -> NDArray[Any]:
    kinds = {messages().DTYPE_FLOAT32: np.float32, messages().DTYPE_INT64: np.int64}
    if tensor.dtype not in kinds:
        raise DataError(f"{where}: {name} must be of float32 or int64")
    kind, shape = kinds[tensor.dtype], tuple(tensor.shape)
    try:
        if tensor.HasField("sparse_csr"):
            rows = np.frombuffer(tensor.sparse_csr.crow_indices, np.int64)
            columns = np.frombuffer(tensor.sparse_csr.col_indices, np.int64)
            array = np.zeros(shape, kind)
            places = np.repeat(np.arange(len(rows) - 1), np.diff(rows)), columns
            array[places] = np.frombuffer(tensor.sparse_csr.values, kind)
        else:
            array = np.frombuffer(tensor.dense, kind).reshape(shape or -1)
    except (ValueError, IndexError, MemoryError) as error:
        raise DataError(f"{where}: {name} is damaged ({error!s:.100})") from None
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {name} holds NaN or infinity; the server takes finite numbers")
    return array


def rows_of(
    data: Sequence[WireDatum], loss_fn: str, wanted: Sequence[str], vocab_size: int
) -> list[Row]:
    """Return the rows of the data: one for a datum, or K for `target_tokens` of [N, K].

    wanted: the arrays that the loss reads. Every position is masked in, since the reply holds the
    log-probability of each.
    """
    rows = []
    for place, datum in enumerate(data):
        inputs, where, length = dict(datum.inputs), f"datum {place}", len(datum.tokens)
        targets = inputs.pop("target_tokens", None)
        if targets is None or length == 0:
            raise DataError(f"{where} needs model_input and target_tokens, at least one token each")
        if loss_fn == "cross_entropy":
            inputs.setdefault("weights", np.ones(targets.shape, np.float32))
        if inputs.keys() != set(wanted):
            names = ", ".join(("target_tokens", *wanted))
            raise DataError(f"{where}: {loss_fn} takes {names}; got {', '.join(datum.inputs)}")
        for name, values in {"target_tokens": targets, **inputs}.items():
            if values.shape != targets.shape or len(values) != length or values.ndim > 2:
                raise DataError(
                    f"{where}: model_input has {length} tokens and {name} the shape "
                    f"{list(values.shape)}; they must agree"
                )
        ids = np.concatenate([datum.tokens, targets.reshape(-1)])
        if targets.dtype != np.int64 or ids.min() < 0 or ids.max() >= vocab_size:
            raise DataError(f"{where}: tokens are whole numbers from 0 to {vocab_size - 1}")
        if targets.ndim == 2 and loss_fn != "cross_entropy":
            raise DataError(f"{where}: target_tokens of [N, K] go with cross_entropy alone")
        rows += _rows(datum.tokens, targets, inputs)
    return [row.with_arrays(**{ROW: number}) for number, row in enumerate(rows)]


def _rows(
    tokens: NDArray[np.int64], targets: NDArray[np.int64], inputs: Mapping[str, Any]
) -> list[Row]:
    """The rows of a datum. Data that begin alike until something counts make one group, so that
    the engine runs the beginning once."""
    counts = np.any([values.reshape(len(tokens), -1).any(1) for values in inputs.values()], axis=0)
    group = tokens[: max(1, int(counts.argmax()))].tobytes().hex()
    rows = []
    for k, ids in enumerate(targets.T if targets.ndim == 2 else targets[None]):
        mask = np.ones(len(tokens) + 1, bool)
        mask[0] = False
        arrays = {
            name: np.pad((values[:, k] if values.ndim == 2 else values).astype(np.float32), (1, 0))
            for name, values in inputs.items()
        }
        whole, wanted = np.append(tokens, ids[-1]), np.pad(ids, (1, 0))
        others = None if (whole[1:] == ids).all() else wanted
        rows.append(Row(whole, mask, arrays, group=group, targets=others))
    return rows


def logprobs_of(seen: Seen, data: Sequence[WireDatum]) -> list[Array]:
    """float32 [N] or [N, K] for each datum: what `wire_loss` noted, at the wire's positions."""
    import torch

    found: dict[int, Array] = {}
    for numbers, values in seen:
        lines = torch.as_tensor(values).float().cpu().numpy()
        found.update(zip(torch.as_tensor(numbers).int().tolist(), lines, strict=True))
    rows = (found[number] for number in range(len(found)))
    result = []
    for datum in data:
        end, targets = 1 + len(datum.tokens), datum.inputs["target_tokens"]
        columns = [next(rows)[1:end] for _ in range(targets.size // len(targets))]
        result.append(columns[0] if targets.ndim == 1 else np.stack(columns, 1))
    return result


def write_pass(logprobs: Sequence[Array], metrics: Mapping[str, float]) -> bytes:
    """Write a ForwardBackwardOutput; data of one trailing shape make one record."""
    pb = messages()
    reply = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics=metrics)
    start = 0
    while start < len(logprobs):
        trailing = logprobs[start].shape[1:]
        end = start
        while end < len(logprobs) and logprobs[end].shape[1:] == trailing:
            end += 1
        arrays = logprobs[start:end]
        offsets = np.cumsum([0, *(array.nbytes for array in arrays)], dtype=np.int64)
        data = b"".join(array.astype(np.float32).tobytes() for array in arrays)
        record = reply.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=len(arrays))
        record.fields["logprobs"].CopyFrom(
            pb.BatchedTensor(
                data=data,
                offsets=offsets.tobytes(),
                dtype=pb.DTYPE_FLOAT32,
                trailing_shape=trailing,
            )
        )
        start = end
    written: bytes = reply.SerializeToString()
    return written


def write_samples(samples: Iterable[Sample], prompt_logprobs: Array | None) -> bytes:
    """Write a SampleResponse; entry 0 of `prompt_logprobs` is NaN, which the client reads as None.

    prompt_logprobs: float32, one for each token of the prompt."""
    pb = messages()
    reply = pb.SampleResponse()
    for sample in samples:
        reply.sequences.add(
            stop_reason=pb.STOP_REASON_STOP
            if sample.stop_reason is StopReason.STOP
            else pb.STOP_REASON_LENGTH,
            tokens=np.array(sample.tokens, np.int32).tobytes(),
            logprobs=np.array(sample.logprobs, np.float32).tobytes(),
        )
    if prompt_logprobs is not None:
        reply.prompt_logprobs = prompt_logprobs.astype(np.float32).tobytes()
    written: bytes = reply.SerializeToString()
    return written
