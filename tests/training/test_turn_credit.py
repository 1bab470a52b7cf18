"""Credit by turn: rewards of turns add up, and their advantages estimate the gradient unbiased."""

import itertools
import math

import numpy as np
import pytest

from support.scripted import scripted_policy
from toolhone.data.world_tasks import WorldTasks, solve
from toolhone.dialects.choose import open_syntax
from toolhone.episodes.driver import run_episodes
from toolhone.rewards.reward_registry import RewardResult, compute_reward, load_rewards
from toolhone.tools.registry import Registry
from toolhone.training.advantages import group_relative_advantages, leave_one_out_by_turn
from toolhone.training.rollout import RolloutGroup, turn_rewards

LOGITS = (0.3, -0.4, 0.9)
"""Of a second action at the start, and after each first action."""
REWARDS = {(0, 0): (0.0, 0.2), (0, 1): (0.0, 1.0), (1,): (0.5,)}
"""What each turn adds, by the actions taken; the second action at the start ends the episode."""


def chance(logits, actions) -> float:
    found = 1.0
    for turn, action in enumerate(actions):
        up = 1 / (1 + math.exp(-logits[turn]))
        found *= up if action else 1 - up
    return found


def value(logits) -> float:
    return sum(chance(logits, actions) * sum(REWARDS[actions]) for actions in REWARDS)


def slopes(logits, actions) -> list[np.ndarray]:
    """The gradient of the log-probability of each action."""
    found = []
    for turn, action in enumerate(actions):
        slope = np.zeros(len(logits))
        slope[turn] = action - 1 / (1 + math.exp(-logits[turn]))
        found.append(slope)
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_the_expected_estimate_is_the_gradient_of_the_value(size):
    """All groups of this size, weighted by their probability, against finite differences."""
    expected = np.zeros(len(LOGITS))
    for group in itertools.product(REWARDS, repeat=size):
        advantages = leave_one_out_by_turn([REWARDS[actions] for actions in group])
        weight = math.prod(chance(LOGITS, actions) for actions in group) / size
        for actions, own in zip(group, advantages, strict=True):
            for slope, advantage in zip(slopes(LOGITS, actions), own, strict=True):
                expected += weight * advantage * slope
    step = 1e-5
    for place in range(len(LOGITS)):
        moved = [
            value([one + sign * step * (i == place) for i, one in enumerate(LOGITS)])
            for sign in (1, -1)
        ]
        assert expected[place] == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-9)


def test_one_turn_each_gives_the_advantages_of_episodes_but_for_the_leave_one_out():
    totals = [1.0, 0.0, 0.25, 1.0]
    by_turn = leave_one_out_by_turn([[total] for total in totals])
    episodes = group_relative_advantages(totals, "none")
    assert [one for (one,) in by_turn] == pytest.approx([4 / 3 * one for one in episodes])
    scaled = leave_one_out_by_turn([[total] for total in totals], "deviation")
    spread = np.std(totals, ddof=1) + 1e-4
    assert [one for (one,) in scaled] == pytest.approx([one / spread for (one,) in by_turn])


def test_a_turn_is_not_credited_with_what_was_earned_before_it():
    first, second = leave_one_out_by_turn([[1.0, 0.0], [0.0, 0.0]])
    assert first == [1.0, 0.0]
    assert second == [-1.0, 0.0]


def test_retries_are_no_baseline_and_an_episode_alone_has_no_advantage():
    assert leave_one_out_by_turn([[1.0], [0.0], [5.0]], baseline=2)[:2] == [[1.0], [-1.0]]
    assert leave_one_out_by_turn([[1.0], [0.0], [5.0]], baseline=2)[2] == [4.5]
    assert leave_one_out_by_turn([[1.0, 2.0]]) == [[0.0, 0.0]]
    assert leave_one_out_by_turn([]) == []


def test_rewards_of_turns_add_up_to_that_of_the_episode_and_name_the_turn_that_earns():
    task = WorldTasks("shop", levels=(3,)).tasks(8)[1]
    done, syntax = solve(task), open_syntax("tagged")

    def script(prompt: str) -> str:
        made = prompt.count("[/TOOL_RESULT]")
        return syntax.write(None, [done.steps[made]]) if made < len(done.steps) else "Done."

    (episode,) = run_episodes(scripted_policy(script), [task], Registry([]))
    rewards = load_rewards(["right_state"])

    def score(task, episode) -> RewardResult:
        return compute_reward(rewards, task, episode)

    total = score(task, episode).total
    turns = turn_rewards(score, task, episode, total)
    assert total == sum(turns) == 1.0
    assert len(turns) == len(episode.turns)
    assert turns[len(done.steps) - 1] == 1.0
    result = RewardResult(total, {}, turns)
    group = RolloutGroup(task, (episode, episode), (result, result))
    assert group.advantages("none", by_turn=True) == [[0.0] * len(turns)] * 2
