"""PPO: advantages by hand, which token gets which, the penalty and the early stop, and a toy policy
that learns and resumes.
"""

from __future__ import annotations  # noqa: I001

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import (
    TASKS,
    VOCAB,
    Breaking,
    Noisy,
    OneToken,
    first_token,
    logged,
    plan,
    env_of,
    timeless,
    toy,
    weights,
    without_end,
)
from toolhone.backends.base import Done, Metrics, Optimizer
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.toy import ToyTrainer
from toolhone.config.experiment import load_experiment
from toolhone.config.rl import PpoSection, RlSection
from toolhone.config.sections import Experiment
from toolhone.episodes.episode import Episode
from toolhone.episodes.episode import EpisodeStatus
from toolhone.errors import BusyError, CapabilityError, ConfigError, RunError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Row
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.runs.run import FINAL, Run
from toolhone.schema import Task
from toolhone.training.advantages import compute_gae, whiten
from toolhone.training.losses import policy_loss
from toolhone.training.ppo import PpoState, adapt_kl_coef, clipped_loss, ppo
from toolhone.training.trajectory import (
    Trajectory,
    approx_kl,
    group_advantages_of_turns,
    penalised_rewards,
)
from toolhone.training.advantages import leave_one_out_corrections
from toolhone.training.rollout import rollout, rows_of, score
from toolhone.training.loop import Loop, TrainState, TrainStatus
from training.test_policy_losses import batch_of, rl_rows


def train(
    folder: Path, experiment: Experiment, trainer: ToyTrainer | None = None, **options: Any
) -> tuple[ToyTrainer, Run, TrainStatus]:
    trainer, run = trainer or toy(), Run.create(folder, experiment)
    return trainer, run, ppo(trainer, env_of(trainer, experiment, **options), run)


def played(rewrites: bool = False) -> list[Episode]:
    """Some episodes of two turns."""
    experiment, trainer = plan({"group_size": 40}), toy()
    env = env_of(trainer, experiment, rewrites=rewrites)
    groups = rollout(env, trainer.snapshot(), TASKS, experiment, 3)
    return [episode for group in groups for episode in group.episodes if len(episode.turns) == 2]


# ------------------------------------------------------------------------------------------------
# advantages


def test_advantages_over_turns_are_those_worked_out_by_hand() -> None:
    advantages, returns = compute_gae([0.0, 1.0], [0.2, 0.5], 0.9, 0.5)
    assert advantages == pytest.approx([0.9 * 0.5 - 0.2 + 0.45 * 0.5, 0.5])
    assert returns == pytest.approx([0.675, 1.0])


def test_lambda_one_is_return_minus_value_and_lambda_zero_the_next_value() -> None:
    rewards, values = [0.5, 0.0, 2.0], [0.1, 0.7, 0.3]
    assert compute_gae(rewards, values, 1.0, 1.0)[0] == pytest.approx(
        [2.5 - 0.1, 2.0 - 0.7, 2.0 - 0.3]
    )
    assert compute_gae(rewards, values, 1.0, 0.0)[0] == pytest.approx(
        [0.5 + 0.7 - 0.1, 0.3 - 0.7, 2.0 - 0.3]
    )


def test_whitening_leaves_no_mean_and_a_deviation_of_one_unless_there_is_no_spread() -> None:
    values = np.array(whiten([1.0, 2.0, 4.0]))
    assert (values.mean(), values.std(ddof=1)) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    assert whiten([3.0, 3.0]) == [0, 0]
    assert whiten([2.0]) == [0]


def test_an_episode_s_guesses_are_corrected_by_the_others_of_its_task_alone() -> None:
    def line(task: str, *rewards: float) -> Trajectory:
        return Trajectory(task, [], [1] * len(rewards), list(rewards), [0.0] * len(rewards), [])

    lines = [line("a", 1.0), line("b", 0.7), line("a", 0.0), line("a", 0.0, 0.4)]
    values = [[0.2], [0.3], [0.2], [0.1, 0.9]]
    surprises = [
        sum(0.5**i * reward for i, reward in enumerate(one.rewards)) - own[0]
        for one, own in zip(lines, values, strict=True)
    ]
    found = leave_one_out_corrections([one.task for one in lines], surprises, [False] * 4)
    assert found == pytest.approx([(-0.2 + 0.1) / 3, 0.0, (0.8 + 0.1) / 3, (0.8 - 0.2) / 3])


def test_the_reward_is_paid_at_the_last_turn_and_the_penalty_at_each() -> None:
    found = penalised_rewards(RewardResult(1.0, {}), [0.5, 2.0], 0.1)
    assert found == pytest.approx([-0.05, 1.0 - 0.2])
    by_turn = penalised_rewards(RewardResult(1.0, {}, (0.75, 0.25)), [0.5, 2.0], 0.1)
    assert by_turn == pytest.approx([0.7, 0.05])


@pytest.mark.parametrize("rewrites", [False, True])
def test_sampled_tokens_alone_have_the_advantage_of_their_turn(rewrites: bool) -> None:
    for episode in played(rewrites):
        rows = rows_of(episode)
        assert len(rows) == (2 if rewrites else 1)
        line = Trajectory("t", rows, [1, 1], [0.0, 1.0], [0.0, 0.0], [])
        given = {}
        for row in line.with_advantages([0.25, -3.0]):
            advantages = row.arrays["advantages"]
            assert not advantages[~row.mask].any()
            given |= dict(
                zip(row.tokens[row.mask].tolist(), advantages[row.mask].tolist(), strict=True)
            )
        first, second = (turn.tokens[0] for turn in episode.turns)
        assert first == second or (given[first], given[second]) == (0.25, -3.0)


def test_a_turn_of_several_tokens_has_one_advantage() -> None:
    row = Row.of([5, 6, 7, 8, 9], [False, True, True, False, True])
    line = Trajectory("t", [row], [2, 1], [0.0, 1.0], [0.0, 0.0], [])
    assert line.with_advantages([0.5, -1.0])[0].arrays["advantages"].tolist() == [
        0,
        0.5,
        0.5,
        0,
        -1,
    ]


# ------------------------------------------------------------------------------------------------
# learning


@pytest.mark.parametrize(
    "rl",
    [
        {"ppo": {"critic": "regression"}},
        {"ppo": {"critic": "none"}},
        {"inner_epochs": 3, "mini_batch_size": 1},
    ],
    ids=["regression", "none", "several passes"],
)
def test_a_policy_learns_to_look_first_and_then_to_answer_what_the_task_wants(
    tmp_path: Path, rl: dict[str, Any]
) -> None:
    _, run, ending = train(tmp_path / "run", plan(rl, steps=40))
    rewards = logged(run, "reward")
    assert ending is TrainStatus.FINISHED
    assert np.mean(rewards[:3]) < 0.2
    assert np.mean(rewards[-5:]) > 0.7


def test_the_critic_lets_episodes_of_single_tasks_be_learned_from(tmp_path: Path) -> None:
    _, run, _ = train(tmp_path / "run", plan({"group_size": 1}, batch_size=32, steps=40))
    assert np.mean(logged(run, "reward")[-5:]) > 0.6
    assert not logged(run, "groups_without_signal")


def test_without_a_critic_a_group_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"compares the episodes of a task, but training\.rl\.group_size is 1"
    ):
        train(tmp_path / "run", plan({"group_size": 1, "ppo": {"critic": "none"}}))


def test_a_backend_without_a_value_head_refuses_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        CapabilityError,
        match=r"training\.rl\.ppo\.critic: this backend has no value_head .* use regression",
    ):
        train(tmp_path / "run", plan({"ppo": {"critic": "value_head"}}))


@pytest.mark.parametrize("critic", ["regression", "none"])
def test_where_all_episodes_earn_the_same_nothing_is_learned(tmp_path: Path, critic: str) -> None:
    trainer, run, _ = train(
        tmp_path / "run",
        plan({"ppo": {"critic": critic}}, steps=3),
        score=lambda *_: RewardResult(1.0, {}),
    )
    assert logged(run, "updates") == [0, 0, 0]
    assert np.array_equal(weights(trainer), weights(toy()))


def test_without_a_critic_an_episode_is_worth_its_reward_less_the_mean_of_its_group(
    tmp_path: Path,
) -> None:
    seen: list[tuple[int, float]] = []

    class Watching(ToyTrainer):
        def forward_backward(self, rows: Any, loss: Any) -> Any:
            for row in rows:
                seen.append((int(row.tokens[1]), float(row.arrays["advantages"][row.mask][0])))
            return super().forward_backward(rows, loss)

    trainer = Watching(toy()._policy)
    train(
        tmp_path / "run",
        plan({"group_size": 4, "ppo": {"critic": "none"}}, steps=1, batch_size=2),
        trainer,
        score=first_token,
    )
    for task in (14, 15):
        own = [advantage for kind, advantage in seen if kind == task]
        assert len(own) == 4
        assert sum(own) == pytest.approx(0, abs=1e-5)
        assert max(own) - min(own) >= 1


def test_retries_are_no_baseline_where_a_step_plays_a_task_twice() -> None:
    group = [
        Trajectory("t", [], [1], [reward], [0.0], [], retry)
        for reward, retry in ((1.0, False), (0.0, False), (5.0, True))
    ]
    assert group_advantages_of_turns(group) == [[0.5], [-0.5], [4.5]]
    twice = [*group, *(replace(path) for path in group)]
    assert group_advantages_of_turns(twice) == 2 * [[0.5], [-0.5], [4.5]]


def test_an_episode_that_the_program_broke_off_is_left_out_and_counted(tmp_path: Path) -> None:
    experiment, trainer = plan(steps=1, batch_size=2), toy()
    stage, run = env_of(trainer, experiment), Run.create(tmp_path / "run", experiment)
    trained: list[int] = []

    class Watching(ToyTrainer):
        def forward_backward(self, rows: Any, loss: Any) -> Any:
            trained.append(len(rows))
            return super().forward_backward(rows, loss)

    trainer = Watching(trainer._policy)
    stage = replace(stage, policy=lambda sampler, seed: Breaking(sampler, seed), score=first_token)
    ppo(trainer, stage, run)
    (share,) = logged(run, f"ending/{EpisodeStatus.FAILED.value}")
    assert share > 0
    assert logged(run, "left_out") == [8 * share]
    assert trained == [8 - 8 * share]


def test_an_episode_that_cannot_be_scored_in_time_is_left_out_of_its_group() -> None:
    def busy(task: Task, episode: Episode) -> RewardResult:
        if episode is first:
            raise BusyError("the machine gave a program too little time")
        return first_token(task, episode)

    experiment, trainer = plan(steps=1, batch_size=1), toy()
    stage = env_of(trainer, experiment)
    (group,) = rollout(stage, trainer.snapshot(), stage.tasks[:1], experiment, 0)
    first = group.episodes[0]
    (scored,) = score([group], replace(stage, score=busy))
    kept = scored.without_failures()
    assert len(scored.results) == len(group.episodes) == len(kept.episodes) + 1
    assert scored.episodes[0].reason == "the machine gave a program too little time"
    late = replace(first, results=((ToolResult(ToolStatus.TIMEOUT, "no answer"),),))
    group = replace(scored, episodes=(late, *scored.episodes[1:]))
    assert group.without_failures() == kept, "a tool that was late is no fault of the policy"


def test_the_loss_is_the_clipped_one_under_a_name_that_a_service_may_know() -> None:
    loss = clipped_loss(RlSection(epsilon=0.1, epsilon_high=0.3, beta=0.5, temperature=0.7))
    assert (loss.name, loss.temperature, dict(loss.config)) == (
        "ppo",
        0.7,
        {"epsilon": 0.1, "epsilon_high": 0.3, "beta": 0.0},
    )
    logp, batch = batch_of(*rl_rows(seed=2))
    wanted = loss_gradient(policy_loss("dapo", 0.1, 0.3, 0.0), logp, batch)
    found = loss_gradient(loss, logp, batch)
    assert found[0] == wanted[0]
    assert np.array_equal(found[1], wanted[1])


# ------------------------------------------------------------------------------------------------
# how far it may move


def test_passes_end_when_the_policy_has_moved_too_far(tmp_path: Path) -> None:
    rl = {"inner_epochs": 6, "ppo": {"target_kl": 0.02}}
    _, stopped, _ = train(tmp_path / "a", plan(rl, steps=4, learning_rate=0.2))
    _, patient, _ = train(
        tmp_path / "b", plan({**rl, "ppo": {"target_kl": None}}, steps=4, learning_rate=0.2)
    )
    assert logged(patient, "passes") == [6] * 4
    assert not logged(patient, "kl_moved")
    early = [
        (passes, moved)
        for passes, moved in zip(
            logged(stopped, "passes"), logged(stopped, "kl_moved"), strict=True
        )
    ]
    assert min(passes for passes, _ in early) < 6
    assert all((moved > 0.02) == (passes < 6) for passes, moved in early)
    assert logged(stopped, "stopped_early") == [float(passes < 6) for passes, _ in early]


def test_how_far_the_policy_has_moved_is_its_divergence_from_the_one_that_sampled() -> None:
    trainer = toy()
    tokens = [Row.of([12, 14, token], [False, False, True]) for token in range(VOCAB)]
    before = trainer.snapshot().logprobs(tokens)
    rows = [row.with_arrays(old_logprobs=own) for row, own in zip(tokens, before, strict=True)]
    assert approx_kl(trainer, [rows], 1.0) == pytest.approx(0, abs=1e-9)
    moved = [
        row.with_arrays(old_logprobs=own + 0.1 * row.mask.astype(np.float32))
        for row, own in zip(tokens, before, strict=True)
    ]
    assert approx_kl(trainer, [moved], 1.0) == pytest.approx(np.exp(-0.1) + 0.1 - 1, rel=1e-4)


def test_an_adaptive_penalty_moves_towards_its_target_by_a_bounded_step() -> None:
    adaptive = PpoSection(kl_penalty="adaptive", kl_target=6.0)
    for kl, factor in ((60.0, 1.02), (6.6, 1.01), (6.0, 1.0), (5.4, 0.99), (-3.0, 0.98)):
        assert adapt_kl_coef(0.5, {"kl_episode": kl}, adaptive) == pytest.approx(0.5 * factor)
    assert adapt_kl_coef(0.5, {"kl_episode": 60.0}, PpoSection()) == 0.5


def test_a_penalty_keeps_the_policy_near_its_reference(tmp_path: Path) -> None:
    far = logged(train(tmp_path / "a", plan({"beta": 1e-6}, steps=25))[1], "kl_episode")
    near = logged(train(tmp_path / "b", plan({"beta": 0.5}, steps=25))[1], "kl_episode")
    assert far[0] == near[0] == pytest.approx(0, abs=1e-6)
    assert far[-1] > 1
    assert 0 < near[-1] < 0.3 * far[-1]


def test_an_adaptive_penalty_needs_a_beginning() -> None:
    with pytest.raises(ConfigError, match=r"'adaptive' starts from training\.rl\.beta, which is 0"):
        plan({"ppo": {"kl_penalty": "adaptive"}})


def test_many_steps_whose_gradient_is_not_finite_stop_the_run(tmp_path: Path) -> None:
    class Overflowing(ToyTrainer):
        def optim_step(self, optimizer: Optimizer) -> Done[Metrics]:  # noqa: ARG002
            return Done({"grad_norm": 0.0, "skipped": 1.0})

    with pytest.raises(
        RunError, match="20 steps in a row had a loss or gradient that is not finite"
    ):
        train(tmp_path / "run", plan(steps=40), Overflowing(toy()._policy))
    counts = []
    for updates, skipped in ((0.0, 0.0), (2.0, 1.0), (2.0, 2.0)):
        trainer, run = toy(), Run.create(tmp_path / f"{updates}-{skipped}", plan(steps=40))
        loop = Loop(trainer, run, env_of(trainer, plan()).hooks, 40, TrainState())
        loop.skipped_in_a_row = 3
        loop.check_skipped(updates, skipped)
        counts.append(loop.skipped_in_a_row)
    assert counts == [3, 0, 4]


# ------------------------------------------------------------------------------------------------
# resuming

MANY = {
    "inner_epochs": 2,
    "mini_batch_size": 1,
    "beta": 0.05,
    "ppo": {"kl_penalty": "adaptive", "kl_target": 0.5},
}


def resumed(run: Run, experiment: Experiment, reference: ToyTrainer) -> ToyTrainer:
    """Go on from the latest checkpoint in a new process's place: fresh trainer, fresh critic, the
    reference of the beginning.
    """
    trainer = toy(seed=9)
    stage = replace(
        env_of(trainer, experiment),
        reference=reference.snapshot() if experiment.training.rl.beta else None,
    )
    assert ppo(trainer, stage, Run.open(run.folder), run.latest()) is TrainStatus.FINISHED
    return trainer


@pytest.mark.parametrize(
    "rl", [{}, MANY, {"sampler_refresh_every": 4}, {"ppo": {"critic": "none"}}], ids=str
)
def test_a_resumed_run_gives_the_same_weights_and_the_same_log_bit_for_bit(
    tmp_path: Path, rl: dict[str, Any]
) -> None:
    experiment = plan(rl, steps=12, save_every=5)
    straight, whole, _ = train(tmp_path / "a", experiment)
    _, run, _ = train(tmp_path / "b", experiment)
    again = resumed(without_end(run, "checkpoint_step_12", FINAL), experiment, toy())
    assert np.array_equal(weights(straight), weights(again))
    assert timeless(whole) == timeless(run)
    states = [
        json.loads((one.folder / "checkpoints" / FINAL / "state.json").read_text())
        for one in (whole, run)
    ]
    assert [states[0][key] for key in ("beta", "critic")] == [
        states[1][key] for key in ("beta", "critic")
    ]


def test_ctrl_c_saves_the_critic_and_the_run_goes_on(tmp_path: Path) -> None:
    experiment = plan(MANY, steps=6, save_every=2)
    saves = iter([lambda: os.kill(os.getpid(), signal.SIGINT)])
    _, run, ending = train(
        tmp_path / "run", experiment, at_save=lambda: next(saves, lambda: None)()
    )
    assert ending is TrainStatus.INTERRUPTED
    state = PpoState(
        **{
            key: value
            for key, value in run.state(run.checkpoint("checkpoint_step_2")).items()
            if key not in ("experiment", "manifest")
        }
    )
    assert state.critic["fits"] == 2
    assert state.beta != 0.05
    again, straight = resumed(run, experiment, toy()), train(tmp_path / "whole", experiment)[0]
    assert np.array_equal(weights(again), weights(straight))


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    experiment, trainer = plan(), toy()
    run = Run.create(tmp_path / "run", experiment)
    folder = run.save_checkpoint(
        "checkpoint_step_1", {"step": 1, "seconds": 1.0, "best_score": None}, trainer.save
    )
    with pytest.raises(
        RunError, match=r"lacks beta, critic; it is not a checkpoint of training.method ppo"
    ):
        ppo(trainer, env_of(trainer, experiment), run, folder)


def test_a_snapshot_lives_for_as_many_steps_as_asked_and_its_age_is_logged(tmp_path: Path) -> None:
    _, run, _ = train(tmp_path / "run", plan({"sampler_refresh_every": 3}, steps=8, save_every=5))
    assert logged(run, "staleness") == [0, 1, 2, 0, 1, 0, 1, 2]
    assert logged(run, "sampler_gap") == pytest.approx([0] * 3, abs=1e-6), "at staleness 0"
    assert max(map(abs, logged(run, "kl_sampled"))) > 0


# ------------------------------------------------------------------------------------------------
# settings


def test_settings_of_other_trainers_are_understood() -> None:
    section = plan_of(
        "target_kl=0.2",
        "num_ppo_epochs=4",
        "cliprange=0.1",
        "cliprange_value=0.3",
        "init_kl_coef=0.05",
        "adap_kl_ctrl=true",
        "lam=0.9",
    )
    assert (section.inner_epochs, section.epsilon, section.beta) == (4, 0.1, 0.05)
    assert (
        section.ppo.target_kl,
        section.ppo.value_clip,
        section.ppo.kl_penalty,
        section.ppo.lam,
    ) == (0.2, 0.3, "adaptive", 0.9)
    assert plan_of("adap_kl_ctrl=false").ppo.kl_penalty == "fixed"
    with pytest.raises(ConfigError, match="adap_kl_ctrl is true or false, got 'often'"):
        plan_of("adap_kl_ctrl=often")


def plan_of(*overrides: str) -> RlSection:
    return load_experiment(
        None, [f"training.{one}" for one in ("method=ppo", *overrides)], tell=lambda _: None
    ).training.rl


def test_a_report_names_the_loss_the_reward_and_its_parts(tmp_path: Path) -> None:
    experiment, trainer = plan(steps=2, log_every=1), toy()
    stage, run = env_of(trainer, experiment), Run.create(tmp_path / "run", experiment)
    ppo(trainer, stage, run)
    lines: list[str] = stage.hooks.progress.lines  # type: ignore[attr-defined]
    number = r"-?\d+\.\d{3}"
    assert re.fullmatch(rf"Iteration 1/2 \| Loss: {number} \| Mean Reward: {number}", lines[0])
    assert re.fullmatch(rf"  right: {number}", lines[1])
    pieces = json.loads((run.folder / "samples.jsonl").read_text().splitlines()[0])["pieces"]
    assert {piece["origin"] for piece in pieces} <= {"prompt", "sampled", "tool"}


def test_the_kl_is_tracked_where_beta_is_0_and_changes_no_weight(tmp_path: Path) -> None:
    plain, *_ = train(tmp_path / "a", plan(steps=6))
    watched, run, _ = train(tmp_path / "b", plan({"track_kl": True}, steps=6))
    assert len(logged(run, "kl_reference")) == len(logged(run, "kl_episode")) == 6
    assert logged(run, "kl_episode")[-1] != 0.0
    assert np.array_equal(weights(plain), weights(watched))


def test_noise_in_log_probabilities_of_sampling_reaches_no_weight(tmp_path: Path) -> None:
    found = []
    for policy in (OneToken, Noisy):
        experiment = plan({"beta": 0.1, "inner_epochs": 2, "ppo": {"target_kl": 0.1}}, steps=4)
        trainer, run = toy(), Run.create(tmp_path / policy.__name__, experiment)
        env = replace(env_of(trainer, experiment), policy=policy)
        ppo(trainer, env, run)
        found.append(weights(trainer))
    assert np.array_equal(*found)
