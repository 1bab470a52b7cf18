"""The rewards of other systems, entry by entry as their tables have them."""

from collections.abc import Sequence

import pytest

from toolhone.dialects.interface import Syntax
from toolhone.dialects.syntax.model_text import Tagged
from toolhone.dialects.syntax.unmarked import Calls, JsonObject
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.rewards.legacy_rewards import (
    evaluate_expression,
    json_answer,
    legacy_playground_format,
    tool_call_exact,
    tool_call_function,
    tool_call_overall,
    tool_call_params,
    tool_call_parseable,
)
from toolhone.rewards.reward_registry import compute_reward, load_rewards
from toolhone.schema import Json, Message, Task, ToolCall
from toolhone.tools.registry import builtin_tool

FIVE = (
    tool_call_exact,
    tool_call_function,
    tool_call_params,
    tool_call_overall,
    tool_call_parseable,
)
NO_CALL = {"no_call": True}


def task(expect: dict, tools: Sequence[str] = ()) -> Task:
    offered = [builtin_tool(name).to_dict() for name in tools]
    return Task.from_dict(
        {
            "id": "t",
            "messages": [{"role": "user", "content": "?"}],
            "tools": offered,
            "expect": expect,
        }
    )


def wants(*calls: tuple[str, dict]) -> dict:
    return (
        {"calls": [{"name": name, "arguments": arguments} for name, arguments in calls]}
        if calls
        else NO_CALL
    )


def reply(text: str, syntax: Syntax | None = None) -> Episode:
    """An episode of one reply; rewards of other systems read its text themselves."""
    message = Message("assistant", text) if syntax is None else syntax.read(text).to_message()
    return Episode("t", (Turn(message, text),), ((),), EpisodeStatus.ANSWERED)


def earn(name: str, text: str, expect: dict, tools: Sequence[str] = ()) -> float:
    return compute_reward(load_rewards([name]), task(expect, tools), reply(text)).total


# The five of mlx-guided-grpo.

F1, F2, G2 = ("f", {"a": 1}), ("f", {"a": 2}), ("g", {"b": 2})


@pytest.mark.parametrize(
    ("text", "wanted", "exact", "function", "params", "overall", "parseable"),
    [
        ("f(a=1)", wants(("f", {"a": 1.0})), 0, 1, 1, 1, 1),
        ("f(a=1,b=2)", wants(F1), 0, 1, 1, 0.8, 1),
        ("f(a=1)", wants(("f", {"a": 1, "b": 2})), 0, 1, 0.5, 0.6, 1),
        ("f(a=1)", wants(("f", {})), 0, 1, 0, 0.4, 1),
        ("g(b=2)\nf(a=1)", wants(F1, G2), 0, 1, 0, 0, 1),
        ("f(a=1)\nf(a=1)", wants(F1), 0, 1, 0, 0.5, 1),
        ("f(a=1)", wants(F1, F2), 0, 1, 0, 0.25, 1),
        ("f(a=1)\nf(a=9)", wants(F1, F2), 0, 1, 0.5, 0.6, 1),
        ("hello", wants(), 1, 1, 1, 1, 0),
        ("f(a=1)\nf(a=2)", wants(F1, F2), 1, 1, 1, 1, 1),
        ("hello", wants(F1), 0, 0, 0, 0, 0),
        ("f(a=1)", wants(), 0, 0, 0, 0, 1),
        ("if (x) then", wants(), 0, 0, 0, 0, 1),
    ],
)
def test_the_table_holds_entry_by_entry_for_the_five(
    text, wanted, exact, function, params, overall, parseable
):
    found = [reward(task(wanted), reply(text)) for reward in FIVE]
    assert found == pytest.approx([exact, function, params, overall, parseable], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("f(a=1)", 1),
        ("F(A=1)", 1),
        ("  f(a=1)\n\n", 1),
        ("f(a=1 )", 0),
        ("Sure: f(a=1)", 0),
        ("f(a=1)\nf(a=1)", 0),
        ("", 0),
    ],
)
def test_exact_is_equality_of_texts_not_of_calls(text, score):
    assert tool_call_exact(task(wants(F1)), reply(text)) == score


def test_exact_takes_runs_of_white_space_as_one_and_calls_one_per_line():
    assert tool_call_exact(task(wants(F1, F2)), reply("f(a=1)  \t f(a=2)")) == 1
    assert tool_call_exact(task(wants(("f", {"s": "New York"}))), reply('f(s="new   york")')) == 1


def test_exact_compares_with_the_answer_of_a_task_without_calls():
    assert tool_call_exact(task({"answer": "f(a='x')"}), reply("F(a='x')")) == 1
    assert tool_call_function(task({"answer": "f(a='x')"}), reply('f(a="y")')) == 1
    assert tool_call_params(task({"answer": "f(a='x')"}), reply('f(a="x")')) == 1
    assert tool_call_exact(task({"answer": "42"}), reply("43")) == 0


def test_exact_is_nothing_where_the_wanted_call_cannot_be_written():
    assert tool_call_exact(task(wants(("odd name", {}))), reply("")) == 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("f(a=9)\ng(b=9)", 1),
        ("g()\nf()", 1),
        ("f()\nf()\nh()\ng()", 1),
        ("f(a=1)", 0.5),
        ("F(a=1)\ng()", 0.5),
        ("nothing", 0),
    ],
)
def test_function_looks_at_the_set_of_names_alone(text, score):
    assert tool_call_function(task(wants(F1, G2)), reply(text)) == score


@pytest.mark.parametrize(
    "mark", ["<think>", "</think>", "\\boxed{", "<THINK>", "</Think>", "\\BOXED{"]
)
def test_all_five_are_nothing_where_the_reply_thinks_aloud_or_boxes(mark):
    assert [reward(task(wants(F1)), reply(f"{mark} f(a=1)")) for reward in FIVE] == [0.0] * 5
    assert [reward(task(wants()), reply(mark)) for reward in FIVE] == [0.0] * 5


def test_only_the_first_reply_counts_and_none_is_like_an_empty_one():
    two = Episode(
        "t",
        (reply("f(a=1)").turns[0], reply("done (ok)").turns[0]),
        ((), ()),
        EpisodeStatus.ANSWERED,
    )
    assert [reward(task(wants(F1)), two) for reward in FIVE] == [1.0] * 5
    assert [
        reward(task(wants(F1)), Episode("t", (), (), EpisodeStatus.NO_ROOM)) for reward in FIVE
    ] == [0.0] * 5


def test_calls_without_a_text_are_written_in_the_systems_own_syntax():
    turn = Turn(
        Message("assistant", tool_calls=(ToolCall("calculator", {"expression": "2+2"}),)), ""
    )
    episode, wanted = (
        Episode("t", (turn,), ((),), EpisodeStatus.CALLED),
        task(wants(("calculator", {"expression": "2+2"}))),
    )
    assert [reward(wanted, episode) for reward in FIVE] == [1.0] * 5
    assert sum(json_answer(wanted, episode).values()) == 2.5
    assert sum(legacy_playground_format(wanted, episode).values()) == 1.5


# The JSON reward of llm-tool-calling.

SUM = wants(("calculator", {"expression": "2+2"}))
BOTH = ("calculator", "python")


def calculator(expression: Json) -> str:
    return JsonObject().write(None, [ToolCall("calculator", {"expression": expression})])


@pytest.mark.parametrize(
    ("text", "expect", "total"),
    [
        (calculator("2+2"), SUM, 2.5),
        (calculator("4"), SUM, 2.5),
        (calculator("2+2+0.0000001"), SUM, 2.5),
        ("ok " + calculator("2+2"), SUM, 2.3),
        (calculator("5"), SUM, 1.5),
        (calculator("two plus two"), SUM, 1.5),
        ('{"tool": "python", "args": {"code": "2+2"}}', SUM, 0.5),
        ('{"final": "4"}', SUM, 0.5),
        ('{"tool": "search", "args": {"query": "2+2"}}', SUM, -0.5),
        ('{"a": 1}', SUM, 0.0),
        ("four", SUM, -0.2),
        (calculator("2+2")[:-1], SUM, -0.2),
        ('{"final": "wrong"}', NO_CALL, 1.5),
        ('{"final": "4", "tool": "calculator", "args": {"expression": "2+2"}}', SUM, 1.5),
    ],
)
@pytest.mark.parametrize("tools", [BOTH, ()])
def test_the_json_table_holds_entry_by_entry(text, expect, total, tools):
    assert earn("json_answer", text, expect, tools) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expect", "parts"),
    [
        (calculator("2+2"), SUM, (1, 0.5, 1, 0)),
        ("ok " + calculator("2+2"), SUM, (1, 0.5, 1, -0.2)),
        (calculator("2+2") + "\n", SUM, (1, 0.5, 1, 0)),
        (calculator("2+2+0.00001"), SUM, (1, 0.5, 0, 0)),
        (calculator("1/0"), wants(("calculator", {"expression": " 1/0 "})), (1, 0.5, 1, 0)),
        (calculator("max(1, 2) + pow(2, 1)"), SUM, (1, 0.5, 1, 0)),
        (calculator("len('four')"), SUM, (1, 0.5, 0, 0)),
        (calculator("2^6"), SUM, (1, 0.5, 1, 0)),
        (calculator(4), SUM, (1, 0.5, 0, 0)),
        ('{"tool": "calculator", "args": 4}', SUM, (1, 0.5, 0, 0)),
        ('{"tool": "calculator"}', SUM, (0, 0.5, 0, 0)),
        ('{"tool": ["calculator"], "args": {}}', SUM, (0, -0.5, 0, 0)),
        ('{"final": 4}', SUM, (1, -0.5, 0, 0)),
        ('{"a": 1}', NO_CALL, (0, -0.5, 0, 0)),
        (calculator("2+2"), NO_CALL, (1, -0.5, 0, 0)),
        ("[1]", SUM, (0, 0, 0, -0.2)),
        ("", SUM, (0, 0, 0, -0.2)),
        (
            '{"tool": "python", "args": {"code": "x=1 # one"}}',
            wants(("python", {"code": "x = 1"})),
            (1, 0.5, 1, 0),
        ),
        (
            '{"tool": "python", "args": {"code": "x = 2"}}',
            wants(("python", {"code": "x = 1"})),
            (1, 0.5, 0, 0),
        ),
        ('{"tool": "python", "args": {}}', wants(("python", {"code": "x = 1"})), (1, 0.5, 0, 0)),
        (f"{calculator('2+2')} {calculator('2+2')}", SUM, (0, 0, 0, -0.2)),
    ],
)
def test_the_json_reward_has_its_four_parts(text, expect, parts):
    assert json_answer(task(expect, BOTH), reply(text)) == dict(
        zip(("format", "tool", "arguments", "length"), parts, strict=True)
    )


def test_an_expression_has_five_functions_and_no_other_names():
    assert evaluate_expression("abs(-3) + round(2.4) + min(1, 2) + max(1, 2) + pow(2, 3)") == 16
    assert evaluate_expression("sum([1, 2])") is None
    assert evaluate_expression("__import__('os')") is None
    assert evaluate_expression("9" * 20_000) is None
    assert evaluate_expression("10.0**400") is None
    assert evaluate_expression("'a' * 3") is None


# The format reward of the playground.


@pytest.mark.parametrize(
    ("text", "total"),
    [
        (Tagged().write(None, [ToolCall("f", {})]), 1.5),
        ("[TOOL_CALL] [/TOOL_CALL]", 1.0),
        ("[/TOOL_CALL] the name of parameters [TOOL_CALL]", 1.5),
        ("[TOOL_CALL] name [/TOOL_CALL]", 1.0),
        ("[TOOL_CALL] name", -0.5),
        ('{"name": "f", "parameters": {}}', -0.5),
        ("", -0.5),
    ],
)
def test_the_playgrounds_reward_looks_for_two_tags_and_two_words(text, total):
    for expect in (SUM, NO_CALL):
        assert earn("legacy_playground_format", text, expect) == total


def test_parts_carry_the_name_of_their_reward_and_a_plain_number_the_name_alone():
    found = compute_reward(
        load_rewards(["json_answer", "tool_call_function"], [1.0, 2.0]),
        task(SUM, BOTH),
        reply("calculator(x)", Calls()),
    )
    assert found.total == pytest.approx(-0.2 + 2.0)
    assert dict(found.parts) == {
        "json_answer.format": 0.0,
        "json_answer.tool": 0.0,
        "json_answer.arguments": 0.0,
        "json_answer.length": -0.2,
        "tool_call_function": 1.0,
    }
