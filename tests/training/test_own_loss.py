"""A user's loss in place of that of a method: `training.loss`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import env_of, logged, plan, toy, weights
from toolhone.backends.base import Batch, Capabilities
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.open import check_plan
from toolhone.config.experiment import make_experiment
from toolhone.errors import CapabilityError, ConfigError
from toolhone.runs.run import Run
from toolhone.training.grpo import grpo
from toolhone.training.losses import cross_entropy, own_means, with_own_loss
from toolhone.training.ppo import ppo

HALF = '''
def half(ops, logp, batch):
    """Half of the mean negative log-likelihood."""
    nll = ops.where(batch.mask, -logp, 0.0)
    return 0.5 * ops.sum(batch["weights"] * nll), {"twice": 2 * ops.sum(nll)}


def only_a_sum(ops, logp, batch):
    return ops.sum(batch["weights"] * ops.where(batch.mask, -logp, 0.0))


def wrong(ops, logp, batch):
    return batch["advantages"]


def still(ops, logp, batch):
    return 0.0 * ops.sum(ops.where(batch.mask, logp, 0.0))
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(HALF)
    return tmp_path


def a_batch() -> tuple[Any, Batch]:
    logp = np.array([[0.0, -1.0, -2.0], [0.0, -0.5, 0.0]], np.float32)
    mask = np.array([[False, True, True], [False, True, False]])
    return logp, Batch(mask, {"weights": mask.astype(np.float32) / 3}, [None, None])


@pytest.mark.usefixtures("here")
def test_a_loss_of_the_user_has_its_own_gradient_and_the_metrics_of_both() -> None:
    loss = with_own_loss(cross_entropy(), "mine.py:half")
    metrics, slope = loss_gradient(loss, *a_batch())
    usual, full = loss_gradient(cross_entropy(), *a_batch())
    assert np.allclose(slope, full / 2)
    assert metrics["loss"] == pytest.approx(usual["loss"] / 2)
    assert (metrics["nll"], metrics["tokens"]) == (usual["nll"], usual["tokens"])
    assert own_means(metrics) == {"own/twice": pytest.approx(7 / 3)}


@pytest.mark.usefixtures("here")
def test_a_loss_may_return_the_sum_alone() -> None:
    metrics, slope = loss_gradient(with_own_loss(cross_entropy(), "mine.py:only_a_sum"), *a_batch())
    usual, full = loss_gradient(cross_entropy(), *a_batch())
    assert metrics == usual
    assert np.allclose(slope, full)


@pytest.mark.usefixtures("here")
def test_a_loss_that_fails_names_the_arrays_that_there_are() -> None:
    loss = with_own_loss(cross_entropy(), "mine.py:wrong")
    with pytest.raises(ConfigError, match=r"mine.py:wrong failed: KeyError: .*; .* weights"):
        loss_gradient(loss, *a_batch())


@pytest.mark.parametrize(("method", "algorithm"), [("grpo", grpo), ("ppo", ppo)])
def test_a_loss_without_a_gradient_keeps_the_policy(
    here: Path, method: str, algorithm: Any
) -> None:
    moved = []
    for name in ("half", "still"):
        experiment, trainer = plan(method=method, steps=3, loss=f"mine.py:{name}"), toy()
        before = weights(trainer).copy()
        run = Run.create(here / name, experiment)
        algorithm(trainer, env_of(trainer, experiment), run)
        moved.append(not np.array_equal(before, weights(trainer)))
        assert bool(logged(run, "own/twice")) is (name == "half")
    assert moved == [True, False]


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"loss": "half"}, r"loss should be 'file.py:function', it is 'half'$"),
        ({"loss": "mine.py:half", "method": "teacher_mode"}, "loss is not read by teacher_mode"),
    ],
)
def test_a_loss_that_no_method_reads_is_refused(training: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_experiment({"training": training}, "here")


def test_a_backend_without_losses_of_ones_own_refuses_it() -> None:
    experiment = make_experiment({"training": {"loss": "mine.py:half"}}, "here")
    with pytest.raises(CapabilityError, match=r"a loss of your own \(training.loss mine.py:half\)"):
        check_plan(experiment, Capabilities(custom_loss=False))
