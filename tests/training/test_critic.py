"""Critics: what a moment tells, the clipped value loss by hand, a regression that learns, and the
value head of torch.
"""

from __future__ import annotations  # noqa: I001

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.test_backends import CONTEXT, VOCAB, tiny_qwen3
from support.one_token import TASKS, logged, plan, env_of, toy
from toolhone.backends.base import Lora
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_trainer
from toolhone.backends.torch.trainer import shared_passes
from toolhone.config.rl import PpoSection
from toolhone.episodes.episode import Episode
from toolhone.episodes.episode import EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, RunError
from toolhone.runs.run import FINAL, Run
from toolhone.schema import Message, Task, Tool
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.training.critic import (
    FEATURES,
    Regression,
    TurnState,
    clipped_targets,
    clipped_value_loss,
    features,
    open_critic,
    turn_states,
    value_metrics,
)
from toolhone.training.ppo import ppo
from toolhone.training.loop import TrainStatus

WORDS = (
    "weather",
    "in",
    "paris",
    "add",
    "two",
    "numbers",
    "search",
    "the",
    "web",
    "for",
    "a",
    "name",
    "convert",
    "miles",
)


def plain(clip: float | None) -> Regression:
    return Regression("regression", features, FEATURES, clip)


def turn(*prompt: int) -> Turn:
    return Turn(Message("assistant", "x"), "x", tokens=[1], logprobs=[-0.5], prompt=prompt)


def moment(
    text: str = "hello",
    turns: int = 0,
    outcomes: Sequence[ToolStatus] = (),
    tools: int = 1,
    prompt: int = 5,
) -> TurnState:
    offered = tuple(Tool(f"tool{number}") for number in range(tools))
    task = Task("t", (Message("user", text),), offered)
    return TurnState(
        task,
        (turn(1),) * turns,
        (tuple(ToolResult(outcome, "r") for outcome in outcomes),),
        tuple(range(1, prompt + 1)),
    )


def random_moments(count: int, seed: int) -> list[TurnState]:
    rng = random.Random(seed)
    return [
        moment(
            " ".join(rng.sample(WORDS, 4)),
            rng.randrange(3),
            rng.choices([ToolStatus.OK, ToolStatus.ERROR], k=rng.randrange(3)),
            prompt=rng.randrange(5, 60),
        )
        for _ in range(count)
    ]


# ------------------------------------------------------------------------------------------------
# what is known


def test_a_moment_holds_what_came_before_its_turn_and_nothing_after() -> None:
    turns = (turn(1), turn(1, 2), turn(1, 2, 3))
    results = tuple((ToolResult(ToolStatus.OK, str(number)),) for number in range(3))
    moments = turn_states(TASKS[0], Episode("t", turns, results, EpisodeStatus.ANSWERED))
    assert [len(one.turns) for one in moments] == [len(one.results) for one in moments] == [0, 1, 2]
    assert [one.prompt for one in moments] == [(1,), (1, 2), (1, 2, 3)]
    other = turn_states(
        TASKS[0], Episode("t", turns[:2], (results[0], ()), EpisodeStatus.TRUNCATED)
    )
    assert np.array_equal(features(moments)[:2], features(other))


@pytest.mark.parametrize(
    "changed",
    [
        moment("good bye"),
        moment(turns=1),
        moment(outcomes=[ToolStatus.OK]),
        moment(outcomes=[ToolStatus.ERROR]),
        moment(outcomes=[ToolStatus.ERROR, ToolStatus.OK]),
        moment(tools=2),
        moment(prompt=50),
    ],
)
def test_each_thing_that_is_known_changes_the_features(changed: TurnState) -> None:
    assert not np.array_equal(features([moment()]), features([changed]))
    assert features([changed]).shape == (1, FEATURES)


def test_lengths_and_counts_stand_where_they_should() -> None:
    (row,) = features([moment(outcomes=[ToolStatus.OK, ToolStatus.TIMEOUT], tools=3, prompt=7)])
    assert row[:6] == pytest.approx(
        [1, math.log(8) / 8, math.log(3), math.log(2), 1, math.log(4) / 4]
    )
    (mended,) = features([moment(outcomes=[ToolStatus.TIMEOUT, ToolStatus.OK], tools=3, prompt=7)])
    assert (row[4], mended[4]) == (1, 0)


def test_features_do_not_depend_on_the_process() -> None:
    (row,) = features([moment("Add 2 and 40, add!", turns=9)])
    assert [int(place) for place in np.flatnonzero(row)] == [0, 1, 5, 9, 32, 61, 90, 120]
    assert row[[32, 61, 90]] == pytest.approx(np.array([1, 2, 2]) / 3)
    assert min(features([moment("who paid for the train")])[0]) < 0, (
        "a word has the sign of its hash"
    )
    assert np.array_equal(features([moment("Add 7 and 1, add!", turns=9)])[0], row), (
        "numbers are all the same word"
    )


# ------------------------------------------------------------------------------------------------
# clipped value loss

BY_HAND = [
    (1.0, 2.0, 0.9, 0.2, 1.0),  # within the clip: (1 - 2)^2
    (1.5, 2.0, 0.9, 0.2, 0.81),  # moved too far towards the return: (0.9 + 0.2 - 2)^2 is the larger
    (0.0, 2.0, 0.9, 0.2, 4.0),  # moved away: (0 - 2)^2 is the larger
    (1.5, 2.0, 0.9, None, 0.25),
]


@pytest.mark.parametrize(("value", "wanted", "old", "clip", "loss"), BY_HAND)
def test_the_clipped_value_loss_is_the_one_worked_out_by_hand(
    value: float, wanted: float, old: float, clip: float | None, loss: float
) -> None:
    assert clipped_value_loss(
        np.array([value]), np.array([wanted]), np.array([old]), clip
    ) == pytest.approx(loss)


def test_a_clipped_target_has_the_smallest_loss_and_is_the_nearest_that_has() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        wanted, old = rng.normal(size=(2, 1))
        target = clipped_targets(wanted, old, 0.4)
        least = clipped_value_loss(target, wanted, old, 0.4)
        for value in np.linspace(-4, 4, 400)[:, None]:
            loss = clipped_value_loss(value, wanted, old, 0.4)
            assert loss >= least - 1e-12
            assert loss > least + 1e-12 or abs(value - old) >= abs(target - old) - 1e-9


# ------------------------------------------------------------------------------------------------
# regression


def test_the_regression_learns_a_linear_value_and_predicts_unseen_turns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=FEATURES)
    critic, explained = plain(None), []
    for step in range(30):
        moments = random_moments(64, seed=step)
        metrics = critic.fit(moments, (features(moments) @ truth).tolist(), critic.predict(moments))
        explained.append(metrics["explained_variance"])
    assert explained[0] == 0
    assert min(explained[-5:]) > 0.99
    fresh = random_moments(200, seed=1000)
    wanted = features(fresh) @ truth
    assert (
        value_metrics(wanted, np.array(critic.predict(fresh)), wanted, None)["explained_variance"]
        > 0.99
    )


def test_the_first_fit_is_free_and_later_ones_move_a_guess_by_the_clip_at_most() -> None:
    critic = plain(0.2)
    many = [moment()] * 200
    critic.fit(many, [5.0] * 200, critic.predict(many))
    after_first = critic.predict([moment()])[0]
    assert after_first > 4.5
    critic.fit(many, [9.0] * 200, critic.predict(many))
    assert after_first + 0.15 < critic.predict([moment()])[0] <= after_first + 0.2


def test_what_was_learned_of_other_moments_stays_when_new_ones_come() -> None:
    critic = plain(None)
    paris, sums = [moment("weather in paris")] * 50, [moment("add two numbers")] * 50
    for _ in range(4):
        critic.fit(paris + sums, [1.0] * 50 + [0.0] * 50, critic.predict(paris + sums))
    critic.fit(sums, [0.0] * 50, critic.predict(sums))
    assert critic.predict(paris)[0] > 0.9
    assert abs(critic.predict(sums)[0]) < 0.1


def test_a_regression_goes_on_from_its_state_bit_for_bit() -> None:
    one, two = plain(0.2), plain(0.2)
    moments = random_moments(30, seed=5)
    returns = np.random.default_rng(5).normal(size=30).tolist()
    one.fit(moments, returns, one.predict(moments))
    two.load_state(json.loads(json.dumps(one.state())))
    for critic in (one, two):
        critic.fit(moments, returns, critic.predict(moments))
    assert one.predict(moments) == two.predict(moments)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"kind": "value_head", "fits": 1, "weights": [0.0] * FEATURES},
        {"kind": "regression", "fits": 1, "weights": [1.0]},
    ],
)
def test_a_state_of_another_critic_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=rf"this one 'regression' with {FEATURES}"):
        plain(None).load_state(state)


def test_explained_variance_is_1_for_perfect_0_for_mean_and_absent_without_spread() -> None:
    returns = np.array([0.0, 1.0, 2.0])
    assert value_metrics(returns, returns, returns, None) == {
        "value": 1.0,
        "return": 1.0,
        "value_loss": 0.0,
        "explained_variance": 1.0,
    }
    assert value_metrics(returns, np.full(3, 1.0), returns, None)[
        "explained_variance"
    ] == pytest.approx(0)
    assert value_metrics(returns, 2 - returns, returns, None)["explained_variance"] < 0
    assert "explained_variance" not in value_metrics(np.ones(3), returns, returns, None)


# ------------------------------------------------------------------------------------------------
# value head

PROMPTS = [(3, 9, 9, 4), (5, 1), (3, 9), (7, 7, 7, 7, 7, 2), (5, 1), (3, 9, 9, 4, 8, 8)]


def opened(folder: Path, lora: Lora | None = None, micro_batch_tokens: int = 4096) -> TorchTrainer:
    return open_trainer(
        tiny_qwen3(folder),
        lora,
        EngineOptions(device_map="cpu", micro_batch_tokens=micro_batch_tokens),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("head")


def arrays(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_prompts_that_begin_with_another_share_its_pass() -> None:
    hosts, rows = shared_passes(PROMPTS)
    assert sorted(rows) == [(3, 9, 9, 4, 8, 8), (5, 1), (7, 7, 7, 7, 7, 2)]
    assert all(
        rows[host][: len(prompt)] == prompt for host, prompt in zip(hosts, PROMPTS, strict=True)
    )


def test_sharing_and_micro_batches_change_no_input(folder: Path) -> None:
    whole, split = (
        opened(folder, micro_batch_tokens=size).critic("value_head") for size in (4096, 6)
    )
    alone = np.concatenate([whole.inputs([prompt]) for prompt in PROMPTS])
    assert whole.inputs(PROMPTS) == pytest.approx(alone, abs=1e-5)
    assert split.inputs(PROMPTS) == pytest.approx(alone, abs=1e-5)
    assert not np.allclose(alone[0], alone[2], atol=0.01)


def test_a_value_head_reads_the_state_that_the_next_token_is_said_from(folder: Path) -> None:
    trainer = opened(folder)
    (found,) = trainer.critic("value_head").inputs([PROMPTS[0]])
    with torch.no_grad():
        states = (
            trainer.engine.model(torch.tensor([PROMPTS[0]]), output_hidden_states=True)
            .hidden_states[-1][0, -1]
            .numpy()
        )
    states = states - states.mean()
    assert found == pytest.approx(np.append(states / np.linalg.norm(states), 1.0), abs=1e-5)


@pytest.mark.parametrize("count", [10, 60])
def test_a_value_head_begins_at_nought_and_learns_what_is_linear_in_the_states(
    folder: Path, count: int
) -> None:
    trainer = opened(folder)
    critic, head = (
        open_critic(trainer, PpoSection(critic="value_head", value_clip=None)),
        trainer.critic("value_head"),
    )
    assert critic is not None
    rng = np.random.default_rng(0)
    moments = [
        replace(moment(), prompt=tuple(rng.integers(1, VOCAB, 6).tolist())) for _ in range(count)
    ]
    returns = (head.inputs([one.prompt for one in moments]) @ rng.normal(size=head.width)).tolist()
    guesses = critic.predict(moments)
    assert not any(guesses)
    for _ in range(12):
        metrics = critic.fit(moments, returns, guesses)
        guesses = critic.predict(moments)
    assert metrics["explained_variance"] > 0.8


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_the_policy_is_not_touched_by_its_value_head(folder: Path, lora: Lora | None) -> None:
    trainer = opened(folder, lora)
    before = {
        name: value.detach().clone() for name, value in trainer.engine.model.named_parameters()
    }
    critic = open_critic(trainer, PpoSection(critic="value_head"))
    assert critic is not None
    critic.fit([moment()] * 3, [1.0, 2.0, 3.0], critic.predict([moment()] * 3))
    for name, value in trainer.engine.model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None


def test_a_value_head_goes_on_from_its_state_bit_for_bit(folder: Path) -> None:
    critics = [open_critic(opened(folder), PpoSection(critic="value_head")) for _ in range(2)]
    one, two = (critic for critic in critics if critic is not None)
    moments = [replace(moment(), prompt=prompt) for prompt in PROMPTS]
    returns = [1.0, 0.0, 0.5, -1.0, 0.0, 1.0]
    one.fit(moments, returns, one.predict(moments))
    two.load_state(json.loads(json.dumps(one.state())))
    metrics = [critic.fit(moments, returns, critic.predict(moments)) for critic in (one, two)]
    assert one.predict(moments) == two.predict(moments)
    assert metrics[0] == metrics[1]
    assert metrics[0]["explained_variance"] > 0


def test_a_value_head_is_refused_by_name_where_there_is_none(folder: Path) -> None:
    trainer = opened(folder)
    with pytest.raises(
        CapabilityError, match=r"torch has critics of the kind 'value_head' alone.*got 'tokens'"
    ):
        trainer.critic("tokens")
    assert not toy().can.value_head
    trainer.can = replace(trainer.can, value_head=False)
    for wanted in (
        lambda: trainer.critic("value_head"),
        lambda: open_critic(trainer, PpoSection(critic="value_head")),
    ):
        with pytest.raises(CapabilityError, match=r"split before its head|use regression"):
            wanted()


def test_a_prompt_longer_than_the_context_is_refused(folder: Path) -> None:
    with pytest.raises(CapabilityError, match=f"does not fit the model's context of {CONTEXT}"):
        opened(folder).critic("value_head").inputs([tuple(range(1, CONTEXT + 2))])


def test_ppo_with_a_value_head_trains_on_torch_and_resumes_bit_for_bit(
    tmp_path: Path, folder: Path
) -> None:
    experiment = plan(
        {"ppo": {"critic": "value_head"}}, steps=4, save_every=2, batch_size=4, learning_rate=0.005
    )
    results = []
    for name in ("whole", "resumed"):
        trainer, run = opened(folder), Run.create(tmp_path / name, experiment)
        assert ppo(trainer, env_of(trainer, experiment), run) is TrainStatus.FINISHED
        if name == "resumed":
            trainer = opened(folder)
            ppo(trainer, env_of(trainer, experiment), run, run.checkpoint("checkpoint_step_2"))
        results.append((trainer, run))
    (whole, run), (again, other) = results
    for (name, value), (_, same) in zip(
        whole.engine.trainable(), again.engine.trainable(), strict=True
    ):
        assert torch.equal(value, same), name
    states = [one.state(one.checkpoint(FINAL))["critic"] for one in (run, other)]
    assert states[0] == states[1]
    assert len(logged(run, "value_loss")) == 4
    assert logged(run, "updates") == [1, 1, 1, 1]
