"""What `train` says about the numbers of reinforcement learning: which sign leads to which remedy,
and when nothing is said.
"""

from dataclasses import replace

import pytest

from support.scripted import scripted_policy, task
from toolhone.backends.base import StopReason
from toolhone.config.experiment import make_experiment
from toolhone.config.rl import EpisodeSection
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules, EpisodeStatus, OnFault, TurnOutcome
from toolhone.episodes.policy import Turn
from toolhone.rewards.reward_registry import RewardResult
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.tools.registry import Registry
from toolhone.training.rl_metrics import TREND_STEPS, Trend, call_scores, rollout_metrics
from toolhone.training.rollout import RolloutGroup

ADD = Tool("add", "", {"type": "object", "properties": {"a": {"type": "integer"}}}, lambda a: a)

HEALTHY = {
    "reward": 0.5,
    "calls": 1.0,
    "groups_without_signal": 0.4,
    "right_tools": 0.9,
    "right_calls": 0.6,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"calls": 0.01, "reward": 0.05}, "almost no episode calls a tool"),
        (
            {"calls": 0.01, "reward": 0.15, "calls_wanted": 0.9, "groups_without_signal": 1.0},
            "almost no episode calls a tool",
        ),
        ({"calls": 0.01, "reward": 0.9, "calls_wanted": 0.0}, None),
        (
            {"calls": 0.0, "calls_wanted": 1.0, "outcome/malformed": 0.6},
            "60% of the turns cannot be parsed",
        ),
        ({"ending/truncated": 0.4}, "raise training.rl.max_completion_length"),
        ({"groups_without_signal": 0.95}, "nearly all groups have equal rewards"),
        ({"right_calls": 0.4}, "right tools, wrong arguments"),
        ({"right_tools": 0.7, "right_calls": 0.1}, None),
    ],
)
def test_each_sign_has_its_remedy(change: dict[str, float], said: str | None) -> None:
    sentence = Trend().advice(HEALTHY | change)
    assert sentence is None if said is None else said in str(sentence)


def test_no_advice_is_what_the_run_does_already() -> None:
    wrong, silent = HEALTHY | {"right_calls": 0.4}, HEALTHY | {"calls": 0.0, "calls_wanted": 1.0}
    others = {"training": {"rl": {"reward": {"functions": ["answer_correct"]}}}}
    assert "reward arguments in parts" in str(Trend(make_experiment(others, "a")).advice(wrong))
    assert Trend().advice(wrong) == "right tools, wrong arguments: raise group_size", "tool_use"
    begun = Trend(make_experiment({"model": {"adapter": "runs/sft"}}, "a")).advice(silent)
    assert "start with SFT" in str(Trend().advice(silent))
    assert "start with SFT" not in str(begun)
    cut_off, run = silent | {"ending/truncated": 1.0}, {"model": {"adapter": "runs/sft"}}
    assert "max_completion_length" in str(Trend(make_experiment(run, "a")).advice(cut_off))
    assert "start with SFT" in str(Trend().advice(cut_off)), "a model that never learned to end"


@pytest.mark.parametrize(
    ("first", "last", "steps", "still"),
    [
        (0.3, 0.3, TREND_STEPS, True),
        (0.3, 0.31, TREND_STEPS, True),
        (0.3, 0.4, TREND_STEPS, False),
        (0.7, 0.7, TREND_STEPS, False),
        (0.3, 0.3, TREND_STEPS - 1, False),
    ],
)
def test_a_low_reward_that_does_not_rise_is_named(
    first: float, last: float, steps: int, still: bool
) -> None:
    trend = Trend()
    for step in range(steps):
        trend.add({"reward": first if step < TREND_STEPS // 2 else last, "loss": 0.0})
    assert trend.is_flat() is still
    assert ("has not risen for" in str(trend.advice(HEALTHY))) is still


def test_a_report_compares_rewards_and_losses_of_the_two_halves_of_the_last_steps() -> None:
    trend = Trend()
    for step in range(21):
        assert trend.comparison() is None or step >= 20
        trend.add({"reward": 0.25 if step < 11 else 0.75, "loss": -1e-9 if step < 11 else 0.5})
    assert trend.comparison() == (
        "last 10 steps: mean reward 0.750 (the 10 before: 0.250), mean loss 0.500 (0.000)"
    )


def test_unreadable_turns_are_named_also_where_the_error_goes_back() -> None:
    """By the default rules no such episode ends as malformed: it is given its errors until its
    turns are used up.
    """
    adding = task("sum", "2+3?", [ADD], {"calls": [{"name": "add", "arguments": {"a": 2}}]})
    broken = '[TOOL_CALL]{"name": "add", "parameters": {"a"'
    policy = scripted_policy(lambda _: broken)
    rules = EpisodeRules(
        max_turns=2, then={TurnOutcome.MALFORMED: OnFault(EpisodeSection().malformed)}
    )
    played = run_episodes(policy, [adding] * 3, Registry([ADD]), rules)
    assert {one.ending for one in played} == {EpisodeStatus.TOO_MANY_TURNS}
    metrics = rollout_metrics([RolloutGroup(adding, tuple(played), (RewardResult(0.0, {}),) * 3)])
    assert {name: value for name, value in metrics.items() if name.startswith("outcome/")} == {
        "outcome/malformed": 1.0
    }
    assert "100% of the turns cannot be parsed" in str(Trend().advice(metrics))


def test_the_shares_of_right_tools_and_right_calls_do_not_depend_on_the_reward() -> None:
    tool = Tool("add", "", {"type": "object", "properties": {"a": {"type": "integer"}}})
    task = Task("t", (Message("user", "add 1"),), (tool,), Expect((ExpectedCall("add", {"a": 1}),)))

    def episode(*calls: ToolCall) -> Episode:
        turn = Turn(Message("assistant", None, None, calls), "", ParseProblem.NONE, [], [])
        return Episode("t", (turn,), ((),), EpisodeStatus.CALLED)

    episodes = (
        episode(ToolCall("add", {"a": 1})),
        episode(ToolCall("add", {"a": 2})),
        episode(ToolCall("sub", {"a": 1})),
        episode(),
    )
    paid = (RewardResult(0.0, {}),) * 4
    assert call_scores([RolloutGroup(task, episodes, paid)]) == {
        "right_tools": 0.5,
        "right_calls": 0.25,
        "calls_wanted": 1.0,
    }
    for wants in (task, replace(task, expect=Expect(no_call=True))):
        for made in ((ToolCall("add", {"a": 1}),), ()):
            turn = Turn(
                Message("assistant", None, None, made),
                "",
                ParseProblem.NONE,
                [],
                [],
                stop_reason=StopReason.LENGTH,
            )
            cut = Episode("t", (turn,), ((),), EpisodeStatus.TRUNCATED)
            scores = call_scores([RolloutGroup(wants, (cut,), paid[:1])])
            assert (scores["right_tools"], scores["right_calls"]) == (0, 0), "it was cut off"
    finish = Tool("finish", "", {"type": "object", "properties": {"answer": {"type": "string"}}})
    done = Turn(
        Message("assistant", None, None, (ToolCall("finish", {"answer": "2"}),)),
        "",
        ParseProblem.NONE,
        [],
        [],
    )
    ended = Episode(
        "t", (*episodes[0].turns, done), ((), ()), EpisodeStatus.ANSWERED, final_call="2"
    )
    with_finish = Task("t", task.messages, (tool, finish), task.expect)
    assert call_scores([RolloutGroup(with_finish, (ended,), paid[:1])]) == {
        "right_tools": 1.0,
        "right_calls": 1.0,
        "calls_wanted": 1.0,
    }
    open_task = Task("u", task.messages, (tool,), Expect(answer="2"))
    assert call_scores([RolloutGroup(open_task, episodes, paid)]) == {}
