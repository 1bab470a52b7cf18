"""The final state as a reward: what it pays, and that no attack on it pays as much."""

from dataclasses import replace

import pytest

from toolhone.data.world_tasks import WorldTasks, solve
from toolhone.dialects.choose import open_syntax
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.rewards.attack_suite import attack_suite
from toolhone.rewards.attacks import AttackCase
from toolhone.rewards.reward_registry import BUILTIN, compute_reward, load_rewards
from toolhone.rewards.values import compare_states
from toolhone.schema import Task, ToolCall
from toolhone.tools.open_world import STATE_WORLDS, open_world
from toolhone.tools.registry import Registry

START = {"cart": {"p1": 1}, "orders": {"o1": {"items": {"p2": 1}, "status": "open"}}}


def a_task(expected: dict) -> Task:
    return Task.from_dict(
        {
            "id": "t1",
            "messages": [{"role": "user", "content": "x"}],
            "tools": [],
            "expect": {"state": expected},
            "world": {"name": "shop", "state": START},
        }
    )


def ended(state: dict | None) -> Episode:
    return Episode("t1", (), (), EpisodeStatus.ANSWERED, state=state)


def test_a_state_is_compared_value_by_value_with_start_and_expectation():
    task = a_task({"cart": {"p1": 1, "p3": 2}})
    right = {**START, "cart": {"p1": 1, "p3": 2}}
    cases = {
        "nothing": (START, 0.0, False),
        "right": (right, 1.0, True),
        "other quantity": ({**START, "cart": {"p1": 1, "p3": 5}}, 0.0, False),
        "right and one too many": ({**START, "cart": {"p1": 1, "p3": 2, "p4": 1}}, 0.5, False),
        "an order lost": ({**right, "orders": {}}, 1 / 3, False),
        "no state": (None, 0.0, False),
    }
    for name, (state, share, exact) in cases.items():
        found = compare_states(task, ended(state))
        assert (found.share, found.exact) == (share, exact), name


def test_values_of_a_state_are_equal_as_json_and_numbers_but_for_rounding():
    task = a_task({"total": 0.3, "paid": True, "lines": [{"price": 0.3, "gift": False}]})
    right = {"total": 0.3, "paid": True, "lines": [{"price": 0.3, "gift": False}]}
    rounded = {**right, "total": 0.1 + 0.2, "lines": [{"price": 0.1 + 0.2, "gift": False}]}
    cases = [(right, True), (rounded, True), ({**right, "total": 0.31}, False)]
    cases += [({**right, "paid": 1}, False), ({**right, "paid": "true"}, False)]
    cases += [({**right, "lines": [{"price": 0.3, "gift": 0}]}, False)]
    cases += [({**right, "lines": []}, False), ({**right, "lines": [{"price": 0.3}]}, False)]
    for state, exact in cases:
        assert compare_states(task, ended({**START, **state})).exact is exact, state


def test_right_state_pays_half_for_changes_and_half_for_all_of_it():
    (reward,) = load_rewards(["right_state"])
    task = a_task({"cart": {"p3": 2}})
    paid = {
        state: compute_reward([reward], task, ended({**START, "cart": dict(cart)})).parts
        for state, cart in (("right", {"p3": 2}), ("half", {"p1": 1, "p3": 2}), ("none", {"p1": 1}))
    }
    assert paid["right"]["right_state.changes"] == paid["right"]["right_state.state"] == 0.5
    assert paid["half"]["right_state.changes"] == 0.25
    assert paid["half"]["right_state.state"] == paid["none"]["right_state.changes"] == 0.0


def test_a_task_that_may_change_nothing_pays_its_answer_and_takes_off_for_harm():
    task = next(task for task in WorldTasks("shop", levels=(2,)).tasks(20) if task.expect.answer)
    done = solve(task)
    rewards = load_rewards(["tool_use"])
    case = AttackCase(task, open_syntax("tagged"))
    gold = case.play(case.gold)
    assert gold.state == done.state
    assert compute_reward(rewards, task, gold).total == 1.0
    harmed = replace(gold, state={**done.state, "cart": {"p1": 9}})
    assert compute_reward(rewards, task, harmed).total == pytest.approx(0.8)


@pytest.mark.parametrize("name", STATE_WORLDS)
@pytest.mark.parametrize("reward", ["right_state", "tool_use"])
def test_the_solver_earns_full_marks_and_no_attack_on_the_state_its_bound(name, reward):
    tasks = WorldTasks(name, seed=5).tasks(5)
    (loaded,) = load_rewards([reward])
    report = attack_suite(loaded, tasks, open_syntax("tagged"), BUILTIN[reward].judges)
    assert not report.holes
    assert {"idle", "unfinished", "brute_writes"} <= report.worst.keys()
    assert all(one.gold == 1.0 for one in report.worst.values())


def test_what_was_done_and_taken_back_earns_nothing():
    task = next(
        one for one in WorldTasks("shop", levels=(1,)).tasks(9) if "add" in one.world["goal"]
    )
    case = AttackCase(task, open_syntax("tagged"))
    (add,) = case.gold.texts[:-1]
    item = task.world["goal"]["add"][0]["product"]
    back = open_syntax("tagged").write(None, [ToolCall("remove", {"id": item})])
    undone = case.play(replace(case.gold, texts=(add, back, "Done.")))
    assert undone.state == open_world(task, Registry([])).state()
    assert compute_reward(load_rewards(["right_state"]), task, undone).total == 0.0


def test_a_call_made_again_after_an_injected_failure_costs_nothing():
    task = WorldTasks("shop", levels=(1,)).tasks(1)[0]
    case = AttackCase(task, open_syntax("tagged"))
    gold = case.play(case.gold)
    failed = replace(gold.results[0][0], content="internal error", injected="error")
    again = replace(gold, turns=(gold.turns[0], *gold.turns), results=((failed,), *gold.results))
    assert compute_reward(load_rewards(["right_state"]), task, again).total == 1.0
