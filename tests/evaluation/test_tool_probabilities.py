"""How probable each tool is, and whether a model's confidence can be trusted."""

import math

import pytest

from toolhone.api import open_model
from toolhone.data.templates import Templates
from toolhone.errors import DataError
from toolhone.evaluation.tool_probabilities import NONE, ToolChoice, calibration, tool_choices
from toolhone.rows import Row
from toolhone.schema import Expect, Message, Task, ToolCall


def test_the_tools_and_none_share_a_probability_of_one():
    policy = open_model("pico").policy()
    tasks = Templates(0).tasks(3, "held_out_fillers")
    choices = tool_choices(policy, tasks)
    assert [choice.id for choice in choices] == [task.id for task in tasks]
    for task, choice in zip(tasks, choices, strict=True):
        assert set(choice.probabilities) == {NONE, *(tool.name for tool in task.tools)}
        assert math.fsum(choice.probabilities.values()) == pytest.approx(1.0)
        assert min(choice.probabilities.values()) >= 0
        wanted = {call.name for call in task.expect.wanted} or {NONE}
        assert choice.right == wanted

    task, name = tasks[0], tasks[0].tools[0].name
    prompt = policy.open(task.messages, task.tools)
    call = ToolCall(name, {"a": 1}, "call0")
    ids = policy.encode_reply(prompt, Message("assistant", tool_calls=(call,)))
    row = Row.of([*prompt.tokens, *ids], [False] * len(prompt.tokens) + [True] * len(ids))
    whole = math.exp(float(policy.sampler.logprobs([row])[0].sum()))
    assert whole <= choices[0].probabilities[name], "a call with arguments is less probable"


def test_a_model_that_chooses_well_is_seen_to_choose_well():
    """Whatever its tokenizer joins to the end of a name: `":{"` and `":{"expression` are tokens."""
    tasks = Templates(0).tasks(21, "held_out_fillers")
    found = calibration(tool_choices(open_model("pico-trained").policy(), tasks))
    assert found["accuracy"] > 0.9
    assert found["confidence"] > 0.9
    assert found["brier"] < 0.1


def test_a_task_that_judges_no_call_has_no_choice():
    policy = open_model("pico").policy()
    task = Task("t", (Message("user", "?"),), expect=Expect(answer="5"))
    with pytest.raises(DataError, match="no task says which calls are right"):
        tool_choices(policy, [task])


def choice(a: float, right: str) -> ToolChoice:
    return ToolChoice("t", {"a": a, NONE: 1 - a}, frozenset([right]))


def test_calibration_has_the_values_worked_out_by_hand():
    found = calibration([choice(0.8, "a"), choice(0.8, NONE), choice(0.35, NONE)])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confidence"] == pytest.approx((0.8 + 0.8 + 0.65) / 3)
    assert found["error"] == pytest.approx((2 * 0.3 + 1 * 0.35) / 3)
    assert found["brier"] == pytest.approx((2 * 0.04 + 2 * 0.64 + 2 * 0.35**2) / 3)
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(1, 1.0), (2, 0.5)]
    sure = calibration([choice(1.0, "a")])
    assert (sure["error"], sure["brier"], sure["bins"][0]["to"]) == (0.0, 0.0, 1.0)
