"""GRPO: which episodes are learned from and with what advantage, and a toy policy that learns, is
interrupted and resumes.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import (
    Breaking,
    Noisy,
    OneToken,
    env_of,
    first_token,
    logged,
    plan,
    timeless,
    toy,
    weights,
    without_end,
)
from toolhone.backends.base import Done, Metrics, Optimizer
from toolhone.backends.toy import ToyTrainer
from toolhone.config.sections import Experiment
from toolhone.episodes.episode import EpisodeStatus
from toolhone.errors import ConfigError, RunError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.runs.run import FINAL, Run
from toolhone.training.grpo import grpo
from toolhone.training.loop import TrainStatus


class Watching(ToyTrainer):
    """A toy that notes, for each row it learns from, the task's id, the first sampled token and the
    row's advantages.
    """

    def forward_backward(self, rows: Any, loss: Any) -> Any:
        self.seen = [
            *getattr(self, "seen", []),
            *((int(r.tokens[1]), int(r.tokens[2]), r.arrays["advantages"]) for r in rows),
        ]
        return super().forward_backward(rows, loss)


def grpo_plan(rl: dict[str, Any] | None = None, **training: Any) -> Experiment:
    return plan(rl, method="grpo", **training)


def train(
    folder: Path,
    experiment: Experiment,
    trainer: ToyTrainer | None = None,
    policy: type[OneToken] = OneToken,
    **options: Any,
) -> tuple[ToyTrainer, Run, TrainStatus]:
    trainer, run = trainer or toy(), Run.create(folder, experiment)
    stage = replace(
        env_of(trainer, experiment, **options), policy=lambda sampler, seed: policy(sampler, seed)
    )
    return trainer, run, grpo(trainer, stage, run)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "gspo", "cispo"])
def test_a_policy_learns_to_look_first_and_then_to_answer_what_the_task_wants(
    tmp_path: Path, loss: str
) -> None:
    rl = {"grpo": {"loss": loss}, "group_size": 8, "max_completion_length": 2}
    _, run, ending = train(tmp_path / "run", grpo_plan(rl, steps=40))
    rewards = logged(run, "reward")
    assert ending is TrainStatus.FINISHED
    assert np.mean(rewards[:3]) < 0.2
    assert np.mean(rewards[-5:]) > 0.7


def test_advantages_are_normalised_rewards_of_a_group_at_sampled_tokens(tmp_path: Path) -> None:
    trainer = Watching(toy()._policy)
    train(
        tmp_path / "run",
        grpo_plan({"group_size": 6}, steps=1, batch_size=2),
        trainer,
        score=first_token,
    )
    for task in (14, 15):
        own = [(first, advantages) for kind, first, advantages in trainer.seen if kind == task]
        firsts = np.array([first for first, _ in own], float)
        assert len(own) == 6
        for wanted, (_, advantages) in zip(
            (firsts - firsts.mean()) / (firsts.std(ddof=1) + 1e-4), own, strict=True
        ):
            assert advantages[2] == pytest.approx(wanted, rel=1e-5)
            assert not advantages[[0, 1, *range(3, len(advantages), 2)]].any()


def test_where_all_episodes_earn_the_same_nothing_is_learned(tmp_path: Path) -> None:
    trainer, run, _ = train(
        tmp_path / "run", grpo_plan(steps=3), score=lambda *_: RewardResult(1.0, {})
    )
    assert logged(run, "updates") == [0, 0, 0]
    assert logged(run, "groups_without_signal") == [1, 1, 1]
    assert np.array_equal(weights(trainer), weights(toy()))


def test_an_episode_that_the_program_broke_off_is_in_no_group_and_counted(tmp_path: Path) -> None:
    trainer = Watching(toy()._policy)
    experiment = grpo_plan({"group_size": 8}, steps=1, batch_size=2)
    _, run, _ = train(tmp_path / "run", experiment, trainer, policy=Breaking, score=first_token)
    (share,) = logged(run, f"ending/{EpisodeStatus.FAILED.value}")
    assert share > 0
    assert logged(run, "left_out") == [16 * share]
    assert len(trainer.seen) == 16 - 16 * share
    assert all(first >= 4 for _, first, _ in trainer.seen)
    earned = np.mean([first for _, first, _ in trainer.seen])
    assert logged(run, "reward") == [pytest.approx(earned)], "a mean of those that are left"
    for task in (14, 15):
        assert sum(
            float(advantages.sum()) for kind, _, advantages in trainer.seen if kind == task
        ) == pytest.approx(0, abs=1e-5)


def test_a_group_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"compares the episodes of a task, but training\.rl\.group_size is 1"
    ):
        train(tmp_path / "run", grpo_plan({"group_size": 1}))


def test_many_steps_whose_gradient_is_not_finite_stop_the_run(tmp_path: Path) -> None:
    class Overflowing(ToyTrainer):
        def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:  # noqa: ARG002
            return Done({"grad_norm": 0.0, "skipped": 1.0})

    with pytest.raises(
        RunError, match="20 steps in a row had a loss or gradient that is not finite"
    ):
        train(tmp_path / "run", grpo_plan({"group_size": 8}, steps=60), Overflowing(toy()._policy))


def test_a_penalty_keeps_the_policy_near_its_reference(tmp_path: Path) -> None:
    far = logged(train(tmp_path / "a", grpo_plan({"beta": 1e-6}, steps=25))[1], "kl_reference")
    near = logged(train(tmp_path / "b", grpo_plan({"beta": 1.0}, steps=25))[1], "kl_reference")
    assert far[0] == near[0] == pytest.approx(0, abs=1e-6)
    assert near[-1] < 0.5 * far[-1]


def test_a_group_without_signal_still_holds_the_policy_at_its_reference(tmp_path: Path) -> None:
    def left(beta: float) -> list[float]:
        trainer, experiment = toy(), grpo_plan({"beta": beta}, steps=10)
        stage = replace(
            env_of(trainer, experiment, score=lambda *_: RewardResult(1.0, {})),
            reference=toy(5).snapshot(),
        )
        run = Run.create(tmp_path / str(beta), experiment)
        grpo(trainer, replace(stage, policy=lambda sampler, seed: OneToken(sampler, seed)), run)
        return logged(run, "kl_reference")

    pulled = left(1.0)
    assert pulled[-1] < 0.8 * pulled[0]


MANY = {"inner_epochs": 2, "mini_batch_size": 1, "beta": 0.05}


def resumed(run: Run, experiment: Experiment) -> ToyTrainer:
    """Go on from the latest checkpoint in a new process's place: a fresh trainer, and the reference
    of the beginning.
    """
    trainer = toy(seed=9)
    stage = replace(
        env_of(trainer, experiment),
        reference=toy().snapshot() if experiment.training.rl.beta else None,
    )
    assert grpo(trainer, stage, run, run.latest()) is TrainStatus.FINISHED
    return trainer


@pytest.mark.parametrize("rl", [{}, MANY, {"sampler_refresh_every": 4}], ids=str)
def test_a_resumed_run_gives_the_same_weights_and_the_same_log_bit_for_bit(
    tmp_path: Path, rl: dict[str, Any]
) -> None:
    experiment = grpo_plan(rl, steps=12, save_every=5)
    straight, whole, _ = train(tmp_path / "a", experiment)
    _, run, _ = train(tmp_path / "b", experiment)
    again = resumed(without_end(run, "checkpoint_step_12", FINAL), experiment)
    assert np.array_equal(weights(straight), weights(again))
    assert timeless(whole) == timeless(run)


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    experiment = grpo_plan(MANY, steps=6, save_every=2)
    saves = iter([lambda: os.kill(os.getpid(), signal.SIGINT)])
    _, run, ending = train(
        tmp_path / "run", experiment, at_save=lambda: next(saves, lambda: None)()
    )
    assert ending is TrainStatus.INTERRUPTED
    straight = train(tmp_path / "whole", experiment)[0]
    assert np.array_equal(weights(resumed(Run.open(run.folder), experiment)), weights(straight))


def test_a_snapshot_lives_as_many_steps_as_asked_and_agrees_with_the_trainer(
    tmp_path: Path,
) -> None:
    _, run, _ = train(
        tmp_path / "run",
        grpo_plan({"sampler_refresh_every": 3, "group_size": 8}, steps=8, save_every=5),
    )
    assert logged(run, "staleness") == [0, 1, 2, 0, 1, 0, 1, 2]
    assert logged(run, "sampler_gap") == pytest.approx([0] * 3, abs=1e-6), "at staleness 0"


def test_the_kl_is_tracked_where_beta_is_0_and_changes_no_weight(tmp_path: Path) -> None:
    plain, *_ = train(tmp_path / "a", grpo_plan(steps=6))
    watched, run, _ = train(tmp_path / "b", grpo_plan({"track_kl": True}, steps=6))
    assert max(logged(run, "kl_reference")) > 0.0
    assert np.array_equal(weights(plain), weights(watched))


@pytest.mark.parametrize(
    "rl", [{}, {"inner_epochs": 2}, {"mini_batch_size": 2}, {"sampler_refresh_every": 2}]
)
def test_noise_in_log_probabilities_of_sampling_reaches_no_weight(
    tmp_path: Path, rl: dict[str, Any]
) -> None:
    experiment = grpo_plan({"track_kl": True, **rl}, steps=4)
    plain, noisy = (
        train(tmp_path / policy.__name__, experiment, policy=policy)[0]
        for policy in (OneToken, Noisy)
    )
    assert np.array_equal(weights(plain), weights(noisy))
    assert max(logged(Run.open(tmp_path / "Noisy"), "sampler_gap")) > 0.01
