"""Weights as a sum or an average, and phases that follow one another and survive a resume."""

import json
import sys
from dataclasses import asdict, replace
from decimal import Decimal

import numpy as np
import pytest

from toolhone.config.rl import RewardSection
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import ConfigError, RunError
from toolhone.rewards.reward_registry import (
    PhaseSchedule,
    PhaseState,
    Reward,
    RewardResult,
    RewardSchedule,
    compute_reward,
    reward_scores,
    warnings_of,
    weighted_rewards,
)
from toolhone.schema import Message, Task, Tool, ToolCall
from toolhone.training.rl_metrics import reward_means, rollout_metrics
from toolhone.training.rollout import RolloutGroup

TASK = Task.from_dict(
    {
        "id": "t",
        "messages": [{"role": "user", "content": "?"}],
        "expect": {"calls": [{"name": "f", "arguments": {"a": 1}}]},
    }
)
OFFERED = replace(TASK, tools=(Tool("f"), Tool("g")))
NAMES = ["tool_call_function", "tool_call_params"]


def reply(text: str) -> Episode:
    return Episode("t", (Turn(Message("assistant", text), text),), ((),), EpisodeStatus.ANSWERED)


def schedule(*phases: dict, **more) -> PhaseSchedule:
    return PhaseSchedule.of(
        RewardSection.model_validate({"phases": list(phases), **more}), scores=("exact_match",)
    )


def phase(*names: str, **more) -> dict:
    return {"functions": list(names), **more}


THREE = (
    phase("tool_call_function", steps=10),
    phase("tool_call_params", until={"tool_call_params": 0.9}),
    phase("tool_call_exact"),
)


def names(plan: PhaseSchedule, state: PhaseState) -> list[str]:
    return [reward.name for reward in plan.phase(state).rewards]


def test_a_sum_is_the_default_and_an_average_divides_by_the_weights():
    right_name = reply("f(a=2)")
    section = {"functions": [*NAMES, "tool_call_parseable"], "weights": [0.5, 2.0, 1.5]}
    total = PhaseSchedule.of(RewardSection.model_validate(section)).phase(PhaseState()).rewards
    mean = (
        PhaseSchedule.of(RewardSection.model_validate({**section, "combine": "average"}))
        .phase(PhaseState())
        .rewards
    )
    assert compute_reward(total, TASK, right_name).total == pytest.approx(2.0)
    assert compute_reward(mean, TASK, right_name).total == pytest.approx(0.5)
    assert (
        compute_reward(mean, TASK, right_name).parts
        == compute_reward(total, TASK, right_name).parts
    )


def test_rewards_without_weights_count_one_each():
    assert [reward.weight for reward in weighted_rewards(NAMES)] == [1.0, 1.0]
    assert [reward.weight for reward in weighted_rewards(NAMES, average=True)] == [0.5, 0.5]
    assert weighted_rewards([]) == weighted_rewards([], average=True) == ()


def test_an_average_over_weights_that_sum_to_nothing_is_refused():
    with pytest.raises(
        ConfigError, match="divides by the sum of the weights, which must be above 0; it is 0"
    ):
        weighted_rewards(NAMES, [1.0, -1.0], average=True)


def test_phases_follow_one_another_by_steps_and_by_scores():
    plan, state, seen = schedule(*THREE), PhaseState(), []
    for step in range(1, 31):
        seen.append(names(plan, state)[0])
        state = plan.after(state, step, {"tool_call_params": 0.95 if step in (5, 20) else 0.5})
    assert (
        seen == ["tool_call_function"] * 10 + ["tool_call_params"] * 10 + ["tool_call_exact"] * 10
    )
    assert state == PhaseState(2, 20)


def test_the_steps_of_a_phase_are_counted_from_its_beginning():
    plan = schedule(
        phase("tool_call_function", steps=4),
        phase("tool_call_params", steps=3),
        phase("tool_call_exact"),
    )
    state, changes = PhaseState(), []
    for step in range(1, 12):
        before, state = state, plan.after(state, step, {})
        changes += [step] if state != before else []
    assert changes == [4, 7]


def test_a_score_at_the_threshold_is_enough_and_all_of_several_must_be_there():
    plan = schedule(
        phase(*NAMES, until={"tool_call_function": 0.9, "exact_match": 0.5}),
        phase("tool_call_exact"),
    )
    start = PhaseState()
    assert plan.after(start, 3, {"tool_call_function": 0.9, "exact_match": 0.5}) == PhaseState(1, 3)
    assert plan.after(start, 3, {"tool_call_function": 1.0}) == start
    assert plan.after(start, 3, {"tool_call_function": 0.89, "exact_match": 1.0}) == start
    assert plan.after(start, 3, {}) == start


def test_steps_and_scores_together_end_a_phase_at_whichever_comes_first():
    plan = schedule(
        phase("tool_call_function", steps=5, until={"reward": 0.9}),
        phase("tool_call_exact", steps=1),
    )
    assert plan.after(PhaseState(), 2, {"reward": 0.95}).phase == 1
    assert plan.after(PhaseState(), 5, {"reward": 0.1}).phase == 1
    assert plan.after(PhaseState(1, 5), 99, {"reward": 1.0}) == PhaseState(1, 5)


def test_a_resumed_run_continues_in_the_same_phase():
    plan = schedule(*THREE)
    scores = [{"tool_call_params": 0.95 if step == 23 else 0.2} for step in range(1, 40)]

    def play(state: PhaseState, steps: range) -> tuple[list[str], PhaseState]:
        seen = []
        for step in steps:
            seen += names(plan, state)
            state = plan.after(state, step, scores[step - 1])
        return seen, state

    whole, end = play(PhaseState(), range(1, 40))
    for cut in (1, 9, 10, 11, 23, 24, 30):
        first, state = play(PhaseState(), range(1, cut + 1))
        saved = json.loads(json.dumps(asdict(state)))
        rest, last = play(PhaseState.from_dict(saved), range(cut + 1, 40))
        assert (first + rest, last) == (whole, end)


def test_a_state_that_does_not_fit_is_refused_in_one_sentence():
    for wrong in (
        {},
        {"phase": 1},
        {"phase": -1, "since": 0},
        {"phase": "1", "since": 0},
        {"phase": True, "since": 0},
    ):
        with pytest.raises(RunError, match="needs 'phase' and 'since'"):
            PhaseState.from_dict(wrong)
    with pytest.raises(RunError, match="is in reward phase 4, but the experiment has 3"):
        schedule(*THREE).phase(PhaseState(3))


@pytest.mark.parametrize(
    ("phases", "sentence"),
    [
        (
            [phase("tool_call_exact"), phase("tool_call_params")],
            "phase 1 of 2 never ends; give it 'steps' or 'until'",
        ),
        ([phase(steps=3)], "phase 1 names no reward function"),
        (
            [phase("tool_call_exact", until={"exact_mach": 0.5})],
            "waits for the score 'exact_mach'.*did you mean 'exact_match'",
        ),
        (
            [phase("tool_call_exact", until={"tool_call_params": 0.5})],
            "waits for the score 'tool_call_params', which nothing measures",
        ),
        ([phase("tool_call_exat")], "no reward 'tool_call_exat'"),
    ],
)
def test_a_mistake_in_phases_is_one_sentence(phases, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        schedule(*phases)
    assert "\n" not in str(caught.value)


def test_a_finished_model_is_measured_by_the_last_phase():
    last = schedule(*THREE).phases[-1].rewards
    assert [reward.name for reward in last] == ["tool_call_exact"]
    plain = PhaseSchedule.of(RewardSection(functions=NAMES))
    assert [reward.name for reward in plain.phases[-1].rewards] == NAMES


def test_scores_have_the_names_that_phases_wait_for():
    results = [
        RewardResult(0.9, {"tool_call_exact": 0.4, "tool_use.tools": 0.3, "tool_use.exact": 0.2}),
        RewardResult(0.5, {"tool_call_exact": 0.2}),
    ]
    assert reward_scores({"reward": 0.7, "calls": 1.0, **reward_means(results)}) == {
        "reward": 0.7,
        "tool_call_exact": pytest.approx(0.3),
        "tool_use": pytest.approx(0.25),
        "tool_use.tools": pytest.approx(0.15),
        "tool_use.exact": pytest.approx(0.1),
    }


def test_a_metric_that_has_the_name_of_a_reward_is_not_taken_for_it():
    """`right_tools` is both: what episodes earned, and what is measured beside every reward."""
    reward_schedule = RewardSchedule(
        schedule(phase("right_tools", until={"right_tools": 0.8}), phase("right_calls"))
    )
    turns = [
        Turn(
            Message("assistant", tool_calls=(ToolCall(name, {"a": 1}),)),
            "",
            ParseProblem.NONE,
            [1],
            [0.0],
        )
        for name in "fg"
    ]
    episodes = tuple(Episode("t", (turn,), ((),), EpisodeStatus.CALLED) for turn in turns)
    results = tuple(reward_schedule.compute_reward(OFFERED, episode) for episode in episodes)
    metrics = rollout_metrics([RolloutGroup(OFFERED, episodes, results)])
    assert metrics["right_tools"] == pytest.approx(0.5)
    assert reward_scores(metrics)["right_tools"] == pytest.approx(
        np.mean([one.total for one in results])
    )
    assert reward_schedule.observe(1, metrics) is None
    assert reward_schedule.observe(2, {"right_tools": 1.0}) is None
    assert reward_schedule.observe(3, {"reward/right_tools": 0.8}) is not None


def test_a_phase_may_wait_for_what_a_validation_measured():
    reward_schedule = RewardSchedule(
        schedule(
            phase("right_tools", until={"exact_match": 0.5, "right_tools": 0.5}),
            phase("right_calls"),
        )
    )
    assert reward_schedule.observe(1, {"reward/right_tools": 0.9}) is None
    reward_schedule.validated = {"exact_match": 0.4}
    assert reward_schedule.observe(2, {"reward/right_tools": 0.9}) is None
    reward_schedule.validated = {"exact_match": 0.6, "right_tools": 1.0}
    assert reward_schedule.observe(3, {"reward/right_tools": 0.4}) is None
    assert reward_schedule.observe(4, {"reward/right_tools": 0.5}) is not None


def test_an_unknown_part_is_reported_after_the_first_step_of_its_phase():
    phases = phase("right_tools", until={"right_tools.exakt": 0.5}), phase("right_calls")
    reward_schedule = RewardSchedule(schedule(*phases))
    results = {
        "reward/right_tools": 0.9,
        "reward/right_tools.exact": 0.9,
        "reward/right_tools.tools": 0.0,
    }
    note = str(reward_schedule.observe(1, results))
    assert (
        "waits for 'right_tools.exakt' (did you mean 'right_tools.exact'?), "
        "which right_tools does not have; its parts: right_tools.exact" in note
    )
    assert reward_schedule.observe(2, results) is None
    fine = RewardSchedule(
        schedule(
            phase("right_tools", until={"right_tools.exact": 0.95, "exact_match": 0.1}),
            phase("right_calls"),
        )
    )
    assert fine.observe(1, results) is None


def test_holes_are_reported_once_and_a_reward_of_weight_0_hides_none():
    def holes(*functions: str, **more: object) -> list[str]:
        return [
            note.split()[2]
            for note in warnings_of(RewardSection(functions=list(functions), **more))
        ]

    exact, use = "tool_call_exact", "tool_use"
    assert holes(exact) == [exact]
    assert holes(exact, use) == holes(use) == holes(exact, "mine.py:polite") == []
    assert holes(exact, use, weights=[1.0, 0.0]) == [exact]
    assert holes(phases=[phase(exact, steps=2), phase(use)]) == [exact]
    assert holes(phases=[phase(exact, steps=2), phase(exact)]) == [exact]


def test_a_payroll_pays_by_the_present_phase_and_says_when_the_next_begins():
    reward_schedule = RewardSchedule(
        schedule(
            phase("tool_call_function", until={"tool_call_function": 0.9}),
            phase("tool_use", weights=[2.0]),
        )
    )
    right_name = reply("f(a=2)")
    assert reward_schedule.compute_reward(TASK, right_name).total == 1.0
    assert reward_schedule.observe(7, {"reward/tool_call_function": 0.5}) is None
    assert (
        reward_schedule.observe(8, {"reward/tool_call_function": 0.92})
        == "step 8: reward phase 2 of 2 begins: 2 tool_use"
    )
    assert reward_schedule.state == PhaseState(1, 8)
    assert reward_schedule.compute_reward(TASK, right_name).total == pytest.approx(2 * -0.25)


SCALARS = [
    *((np.True_, 1.0), (np.float32(0.5), 0.5), (np.int8(-3), -3.0), (np.array(2.0), 2.0)),
    *((True, 1.0), (7, 7.0), (-0.25, -0.25)),
]


@pytest.mark.parametrize(("value", "earned"), SCALARS)
def test_a_reward_may_return_a_scalar_of_numpy(value, earned):
    for given in (value, {"part": value}):
        reward = Reward("own", lambda *_, given=given: given)
        assert compute_reward([reward], TASK, reply("f")).total == earned


@pytest.mark.parametrize(
    "value",
    [10**400, 10**4000, -(10**19), 1e300, float("nan"), np.float32("inf"), None, "1", np.ones(2)],
)
def test_a_reward_that_is_no_usable_number_is_reported_with_reward_and_task(value):
    reward = Reward("own", lambda *_: value)
    with pytest.raises(
        ConfigError, match=r"reward 'own' must be a finite number .* task 't' it is"
    ):
        compute_reward([reward], TASK, reply("f"))


def test_a_decimal_is_a_number_and_a_weighted_sum_has_a_bound():
    def earned(value, weight=1.0):
        return compute_reward([Reward("own", lambda *_: value, weight)], TASK, reply("")).total

    assert earned(Decimal("0.5")) == 0.5
    for value in (Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e30")):
        with pytest.raises(ConfigError, match=r"'own' must be a finite number.*Decimal"):
            earned(value)
    with pytest.raises(ConfigError, match=r"the weighted sum of the rewards.*it is inf"):
        earned(1e17, 1e300)


def test_a_reward_that_exits_is_an_error_and_no_end_of_the_training():
    with pytest.raises(ConfigError, match="the reward 'exit' failed on the task 't': SystemExit"):
        compute_reward([Reward("exit", lambda *_: sys.exit(0), 1.0)], TASK, reply(""))
