"""Where the time of a step goes, as GRPO and PPO log it: sampling, tools, scoring, reference,
training, and tokens per second.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from support.hand_clock import HandClock
from support.one_token import SEE, TASKS, OneToken, earned, env_of, plan, toy
from toolhone.episodes.driver import Clock
from toolhone.episodes.episode import Episode
from toolhone.rewards.reward_registry import RewardResult
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.tools.registry import Registry
from toolhone.training.grpo import grpo
from toolhone.training.ppo import ppo
from toolhone.training.rl_metrics import with_seconds
from toolhone.training.rollout import rollout, score


def test_what_only_tools_took_and_what_scoring_took_is_told_apart_from_sampling() -> None:
    clock, policy = HandClock(), OneToken(toy().snapshot(), 3)

    def look() -> str:
        clock.move_while_tools_run(1.0)
        return "seen"

    def slowly(task: Task, episode: Episode) -> RewardResult:
        clock.move(2.0)
        return earned(task, episode)

    registry = Registry([replace(SEE, function=look)])
    experiment = plan({"group_size": 4})
    env = replace(
        env_of(toy(), experiment, score=slowly),
        registry=registry,
        policy=lambda _sampler, _seed: policy,
        clock=clock,
    )
    with clock.on("sample"):
        groups = score(rollout(env, toy().snapshot(), TASKS, experiment, 0), env)
    taken = clock.take()
    episodes = [episode for group in groups for episode in group.episodes]
    calls = sum(len(results) for episode in episodes for results in episode.results)
    assert calls
    assert taken == {"sample": 0.0, "tools": calls, "reward": 2.0 * len(episodes)}


def test_tokens_per_second_divide_by_sampling_time_and_by_the_whole_step() -> None:
    moments = iter([0.0, 0.0, 1.0, 3.0, 3.0, 4.0, 4.0])
    clock = Clock(lambda: next(moments))
    with clock.on("sample"), clock.on("tools"):
        pass
    with clock.on("train"):
        pass
    told = with_seconds({"sampled_tokens": 60.0, "trained_tokens": 16.0, "reward": 0.5}, clock)
    assert told["reward"] == 0.5
    assert {name: told[name] for name in told if name.startswith("seconds/")} == {
        "seconds/sample": 2.0,
        "seconds/tools": 1.0,
        "seconds/train": 1.0,
    }
    assert (told["tokens_per_second/sample"], told["tokens_per_second/step"]) == (30.0, 4.0)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_every_step_logs_where_its_time_went_and_how_many_tokens_a_second(
    tmp_path: Path, method: str
) -> None:
    experiment = plan({"beta": 0.01, "group_size": 4}, method=method, steps=3)
    trainer, run = toy(), Run.create(tmp_path / "run", experiment)
    doing = grpo if method == "grpo" else ppo
    ticks = count()
    env = replace(env_of(trainer, experiment), clock=Clock(lambda: float(next(ticks))))
    doing(trainer, env, run)
    steps = [line for line in run.metrics() if line["kind"] == "train"]
    wanted = {f"seconds/{name}" for name in ("sample", "tools", "reward", "reference", "train")}
    assert len(steps) == 3
    for line in steps:
        assert wanted <= set(line)
        assert line["sampled_tokens"] == line["turns"] * 8 * 4, (
            "every turn of this world is one token"
        )
        assert line["tokens_per_second/sample"] > line["tokens_per_second/step"] > 0
