"""Rows and losses in the terms of the Tinker service.

    data = datums(sdk, rows, inputs)
    own = built_in(loss, rows)                   # None: forward_backward_custom

The service sums over positions, position i predicts token i + 1, and a position with weight or
advantage 0 is masked. A loss of the service is used where it is exactly ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolhone.backends.base import Batch, Loss, Metrics, pad_rows
from toolhone.backends.gradient import loss_value
from toolhone.rows import Array, Row

Inputs = Mapping[str, Array]
"""The arrays of one row for a loss of the service, float32 [T], aligned as ours."""
CLIPPED: Mapping[str, str] = dict.fromkeys(("ppo", "grpo", "dapo", "dr_grpo"), "ppo") | {
    "cispo": "cispo",
    "gspo": "gspo",
}
"""Our losses with clipped ratios (`training.losses.policy_loss`), and the service's name."""


@dataclass(frozen=True)
class BuiltIn:
    """A loss of the service: its name, its numbers, and the arrays of each row."""

    name: str
    config: dict[str, float]
    inputs: list[Inputs]


def built_in(loss: Loss, rows: Sequence[Row]) -> BuiltIn | None:
    """The service's loss that is exactly `loss` on these rows; None where there is none.

    The service has no weights beside advantages, so they are folded into these. The clipped losses
    differ from ours only where a ratio is beyond e^20, which ours cuts off.
    """
    if loss.name == "cross_entropy":
        return BuiltIn("cross_entropy", {}, [{"weights": _at(row, "weights")} for row in rows])
    if loss.name == "importance_sampling":
        return BuiltIn("importance_sampling", {}, [_policy_inputs(row) for row in rows])
    if loss.name == "dro":
        return _dro(loss, rows)
    if loss.name not in CLIPPED or loss.config.get("beta") != 0 or "epsilon" not in loss.config:
        return None
    name = CLIPPED[loss.name]
    if name == "ppo" and any((_at(row, "weights") < 0).any() for row in rows):
        return None  # min(w a, w b) is w min(a, b) for w >= 0 alone
    inputs: list[Inputs] = [_policy_inputs(row) for row in rows]
    if name == "gspo":
        if not all(_is_uniform(row) for row in rows):
            return None
        masks = [row.mask.astype(np.float32) for row in rows]
        inputs = [{**own, "sequence_ratio_mask": m} for own, m in zip(inputs, masks, strict=True)]
    low, high = 1 - loss.config["epsilon"], 1 + loss.config["epsilon_high"]
    return BuiltIn(name, {"clip_low_threshold": low, "clip_high_threshold": high}, inputs)


def _dro(loss: Loss, rows: Sequence[Row]) -> BuiltIn | None:
    """-w (logp A - beta / 2 (logp - old)^2); one weight w for all tokens goes into A and beta."""
    weights = np.unique(np.concatenate([_at(row, "weights")[row.mask] for row in rows]))
    if len(weights) != 1 or "beta" not in loss.config:
        return None
    config = {"beta": loss.config["beta"] * float(weights[0])}
    return BuiltIn("dro", config, [_policy_inputs(row) for row in rows])


def _is_uniform(row: Row) -> bool:
    """Whether weights, advantages and shares are the same at all trained tokens of a row.

    Only then the sequence ratio of the service, whose gradient each token gets by itself, has the
    gradient of ours, which goes through the mean.
    """
    if not row.mask.any():
        return True
    values = [_at(row, name)[row.mask] for name in ("weights", "advantages", "share")]
    share = np.float32(1 / row.mask.sum())
    return all((own == own[0]).all() for own in values) and bool(np.isclose(values[2][0], share))


def _policy_inputs(row: Row) -> Inputs:
    return {
        "logprobs": _at(row, "old_logprobs"),
        "advantages": _at(row, "weights") * _at(row, "advantages"),
    }


def _at(row: Row, name: str) -> Array:
    """An array of a row, 0 where it is not trained."""
    return np.where(row.mask, row.arrays[name], np.float32(0)).astype(np.float32)


def datums(sdk: Any, rows: Sequence[Row], inputs: Sequence[Inputs]) -> list[Any]:
    """Rows as the SDK sends them: inputs without the last token, targets without the first."""
    types, data = sdk.types, []
    for row, own in zip(rows, inputs, strict=True):
        arrays: dict[str, Any] = {"target_tokens": row.tokens, **own}
        tensors = {
            name: types.TensorData.from_numpy(np.ascontiguousarray(values[1:]))
            for name, values in arrays.items()
        }
        model_input = types.ModelInput.from_ints(row.tokens[:-1].tolist())
        data.append(types.Datum(model_input=model_input, loss_fn_inputs=tensors))
    return data


def unweighted(rows: Sequence[Row]) -> list[Inputs]:
    """Weights 0 for every row: only the log-probabilities are wanted."""
    return [{"weights": np.zeros(len(row), np.float32)} for row in rows]


def output_logprobs(output: Any, rows: Sequence[Row]) -> list[Array]:
    """float32 [T] for each row, 0 outside its mask, from the outputs of the service."""
    found = []
    for row, values in zip(rows, output.loss_fn_outputs, strict=True):
        logp = np.zeros(len(row), np.float32)
        logp[1:] = np.asarray(values["logprobs"].to_numpy(), np.float32).reshape(-1)
        found.append(np.where(row.mask, logp, np.float32(0)))
    return found


class LossBatch:
    """The rows of a call as a loss sees them. `sent`: places of the rows that a service gets.

    Rows without a trained token, or of one token, are not sent.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._tokens, mask, arrays = pad_rows(rows)
        self._batch = Batch(mask, arrays, [row.group for row in rows])
        self.sent = [place for place, row in enumerate(rows) if row.mask.any()]

    def metrics(self, loss: Loss, logprobs: Sequence[Array]) -> Metrics:
        """The metrics of a loss at the log-probabilities of the sent rows, [T] each."""
        logp = torch.zeros(self._tokens.shape, dtype=torch.float32)
        for place, values in zip(self.sent, logprobs, strict=True):
            logp[place, : len(values)] = torch.from_numpy(values)
        return loss_value(loss, logp, self._batch)[1]

    def function(self, loss: Loss, found: Metrics) -> Callable[[Any, Sequence[torch.Tensor]], Any]:
        """The loss as `forward_backward_custom` wants it; its metrics go into `found`.

        It gets tensors [T - 1], and each must get a gradient, be it 0.
        """
        height, width = self._tokens.shape
        mask = torch.from_numpy(self._batch.mask)

        def fn(_: Any, logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            lines = [torch.zeros(width)] * height
            for place, values in zip(self.sent, logprobs, strict=True):
                line = torch.nn.functional.pad(values.float(), (1, width - 1 - len(values)))
                lines[place] = line
            logp = torch.where(mask, torch.stack(lines), 0.0)
            total, metrics = loss_value(loss, logp, self._batch)
            found.update(metrics)
            return total + 0.0 * sum(values.sum() for values in logprobs), {}

        return fn
