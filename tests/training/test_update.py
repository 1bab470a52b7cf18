"""Mini-batches of an RL step: what is left out has no gradient, what is kept does not change."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest

from toolhone.backends.base import Batch, pad_rows
from toolhone.backends.gradient import loss_gradient
from toolhone.rows import Row
from toolhone.training.losses import Variant, policy_loss
from toolhone.training.update import weighed_with_signal, with_loss_weights


def groups(*advantages: Sequence[float]) -> list[list[Row]]:
    random, found = np.random.default_rng(0), []
    for number, own in enumerate(advantages):
        found.append([])
        for place, advantage in enumerate(own):
            row = Row.of(
                random.integers(3, 9, 6 + place).tolist(), [False] * 3 + [True] * (3 + place)
            )
            old = random.normal(-1, 0.3, len(row)).astype(np.float32) * row.mask
            row = row.with_arrays(advantages=advantage, old_logprobs=old, ref_logprobs=old)
            share = row.mask / np.float32(row.mask.sum())
            found[-1].append(replace(row.with_arrays(share=share), group=str(number)))
    return found


@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_group_without_advantages_is_left_out_and_the_gradient_stays(variant: Variant) -> None:
    loss, parts = policy_loss(variant, 0.2, 0.2, 0.0), groups([1.0, -1.0], [0.0, 0.0], [0.0, 2.0])
    weigh = partial(with_loss_weights, variant, 9)
    every, kept = (
        weigh([row for part in parts for row in part]),
        weighed_with_signal(parts, weigh, loss),
    )
    assert [row.group for row in kept] == ["0", "0", "2", "2"]
    slopes = []
    for rows in (every, kept):
        _, mask, arrays = pad_rows(rows, 9)
        logp = np.where(mask, arrays["old_logprobs"] + 0.05, 0).astype(np.float32)
        slopes.append(
            loss_gradient(loss, logp, Batch(mask, arrays, [row.group for row in rows]))[1]
        )
    assert np.array_equal(slopes[0][[0, 1, 4, 5]], slopes[1])
    assert not slopes[0][[2, 3]].any()
    assert slopes[1].any()


def test_a_kl_term_and_a_loss_of_the_users_own_keep_every_group() -> None:
    loss, parts = policy_loss("dapo", 0.2, 0.2, 0.1), groups([0.0, 0.0], [1.0, -1.0])
    for kept in (loss, replace(policy_loss("dapo", 0.2, 0.2, 0.0), name="mine")):
        assert len(weighed_with_signal(parts, partial(with_loss_weights, "dapo", 9), kept)) == 4
