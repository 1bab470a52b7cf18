"""What supervised training taught, learned on beside the reward, so that it stays: PPO-ptx, for GRPO and PPO alike.

    got |= ptx_pass(trainer, stage.labelled, plan.rl.ptx, seed, step, update)     # before `optim_step`

A reward says nothing of turns that its episodes never reach, and little of what a policy does right already; both drift away. To
every optimiser step belongs the gradient of `training.rl.ptx.coef` times the mean loss per token of `ptx.batch_size` rows of
labelled conversations (all, where there are fewer), drawn anew each time: a pure function of (seed, step, update). Which
conversations those are is said in `data.playing`.

Ouyang et al. 2022, arXiv:2203.02155, equation 2, with the conversations of SFT in place of pretraining text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolhone.backends.base import Metrics, Trainer, random_stream
from toolhone.config.rl import PtxSection
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy
from toolhone.training.sft import with_token_weights


def ptx_pass(
    trainer: Trainer,
    labelled: Sequence[Row],
    section: PtxSection,
    seed: int,
    step: int,
    update: int,
) -> Metrics:
    """Add the gradient; `ptx_nll` in nats and `ptx_tokens` are sums over the conversations. Nothing where the coefficient is 0."""
    if not section.coef:
        return {}
    size = min(section.batch_size, len(labelled))
    places = (
        random_stream(seed, 13, step, update).choice(len(labelled), size, replace=False).tolist()
    )
    batch = [
        row.with_arrays(weights=row.arrays["weights"] * np.float32(section.coef))
        for row in with_token_weights([labelled[place] for place in places])
    ]
    got = trainer.forward_backward(batch, cross_entropy()).result()
    return {"ptx_nll": got["nll"], "ptx_tokens": got["tokens"]}
