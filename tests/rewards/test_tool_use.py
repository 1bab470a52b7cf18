"""Our own rewards: a right answer earns 1, everything else less, each mistake its penalty."""

import itertools
import json
from dataclasses import replace

import pytest

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import ConfigError
from toolhone.rewards.reward_registry import (
    BUILTIN,
    LEGACY,
    OWN,
    PENALTY,
    compute_reward,
    load_rewards,
    syntax_of,
    warnings_for,
)
from toolhone.rewards.tool_use import (
    PENALTIES,
    calls_in_prose,
    exact_calls,
    injected_control_text,
    right_answer,
    right_calls,
    right_tools,
    tool_use,
    working_calls,
)
from toolhone.rewards.values import answer_credit, remove_echoes
from toolhone.schema import Json, Message, Task, Tool, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

PLACE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "number": {"type": "integer"}},
}
TOOLS = [
    {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
    {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {"guests": {"type": "integer"}, "place": PLACE},
        },
    },
]
PENALTY_NAMES = set(PENALTIES)


def task(question: str = "How is it?", **expect: Json) -> Task:
    return Task.from_dict(
        {
            "id": "t",
            "messages": [{"role": "user", "content": question}],
            "tools": TOOLS,
            "expect": expect,
        }
    )


def call(name: str, **arguments: Json) -> ToolCall:
    return ToolCall(name, arguments)


def wants(*calls: ToolCall, **more: Json) -> Task:
    return task(calls=[one.to_dict() for one in calls], **more)


def turn(
    *calls: ToolCall,
    text: str | None = None,
    problem: ParseProblem = ParseProblem.NONE,
    cut: bool = False,
) -> Turn:
    reason = StopReason.LENGTH if cut else StopReason.STOP
    return Turn(
        Message("assistant", text, tool_calls=calls), text or "", problem, stop_reason=reason
    )


def episode_of(
    *turns: Turn, results: tuple[tuple[ToolStatus, ...], ...] | None = None, **more
) -> Episode:
    given = results or tuple(tuple(ToolStatus.OK for _ in one.message.tool_calls) for one in turns)
    ending = (
        EpisodeStatus.ANSWERED
        if turns and not turns[-1].message.tool_calls
        else EpisodeStatus.CALLED
    )
    rows = tuple(tuple(ToolResult(outcome, "") for outcome in row) for row in given)
    return Episode("t", turns, rows, more.pop("ending", ending), **more)


ROME, OSLO = call("weather", city="Rome"), call("weather", city="Oslo")
NONE = task(no_call=True)


@pytest.mark.parametrize("reward", [tool_use, right_calls, right_tools, exact_calls, working_calls])
def test_a_right_answer_earns_one_on_every_kind_of_task(reward):
    table = call("book", guests=2, place={"name": "Da Noi", "number": 3})
    for wanted in ((ROME,), (ROME, OSLO), (table, ROME, OSLO)):
        for order in itertools.permutations(wanted):
            assert sum(reward(wants(*wanted), episode_of(turn(*order))).values()) == pytest.approx(
                1.0
            )
    assert sum(reward(NONE, episode_of(turn(text="You are welcome."))).values()) == 1.0


def test_credit_is_graded_by_tools_arguments_and_exactness():
    wanted = wants(call("book", guests=2, place={"name": "Da Noi", "number": 3}))
    near = episode_of(turn(call("book", guests=2, place={"name": "Da Noi", "number": 4})))
    assert {
        name: value
        for name, value in right_calls(wanted, near).items()
        if name not in PENALTY_NAMES
    } == pytest.approx({"tools": 0.3, "arguments": 0.2, "exact": 0.0})
    assert {
        name: value
        for name, value in right_tools(wanted, near).items()
        if name not in PENALTY_NAMES
    } == pytest.approx({"tools": 0.5, "arguments": 0.125, "exact": 0.0})
    assert sum(exact_calls(wanted, near).values()) == 0.0


def test_worse_answers_earn_less_in_this_order():
    wanted = wants(ROME, OSLO)
    ladder = [
        episode_of(turn(ROME, OSLO)),
        episode_of(turn(ROME, call("weather", city="Bonn"))),
        episode_of(turn(ROME)),
        episode_of(turn(call("weather", city="Bonn"))),
        episode_of(turn(text="", problem=ParseProblem.NOT_JSON), ending=EpisodeStatus.MALFORMED),
        episode_of(turn(text="It is warm.")),
        episode_of(turn(ROME, OSLO, *[call("book")] * 30)),
    ]
    for reward in (tool_use, right_calls, right_tools):
        pays = [sum(reward(wanted, one).values()) for one in ladder]
        assert pays == sorted(pays, reverse=True)
        assert len(set(pays)) == len(pays)


def test_where_no_call_is_wanted_text_pays_and_calls_cost():
    worth = [
        sum(right_calls(NONE, one).values())
        for one in (
            episode_of(turn(text="You are welcome.")),
            episode_of(turn(text="")),
            episode_of(turn(text="How is it?")),
            episode_of(turn(text="You are wel", cut=True), ending=EpisodeStatus.TRUNCATED),
            episode_of(turn(text="Do weather(city='Rome') yourself.")),
            episode_of(
                turn(text="{", problem=ParseProblem.UNCLOSED), ending=EpisodeStatus.MALFORMED
            ),
            episode_of(turn(ROME)),
            episode_of(),
        )
    ]
    assert worth == pytest.approx([1, 0, 0, 0, 0, -0.6, -1, 0])


def test_a_repaired_mistake_earns_more_than_one_that_stays():
    wanted, wrong = wants(ROME), call("weather", town="Rome")
    bad = ((ToolStatus.INVALID_ARGUMENTS,),)
    left = sum(tool_use(wanted, episode_of(turn(wrong), results=bad)).values())
    retried = sum(
        tool_use(
            wanted, episode_of(turn(wrong), turn(ROME), results=(*bad, (ToolStatus.OK,)))
        ).values()
    )
    assert left < retried == pytest.approx(1.0 - PENALTIES["failed"][0])
    given_up = sum(
        tool_use(
            wanted, episode_of(turn(wrong), turn(text="I cannot."), results=(*bad, ()))
        ).values()
    )
    assert given_up == pytest.approx(left)


def test_a_turn_that_could_not_be_read_is_taken_back_by_a_later_one():
    wanted = wants(ROME)
    broken = turn(OSLO, problem=ParseProblem.STRAY_MARK)
    parts = right_calls(wanted, episode_of(broken, turn(ROME), results=((), (ToolStatus.OK,))))
    assert (parts["exact"], parts["form"], parts["spurious"]) == (0.3, -0.1, 0.0)


def test_arguments_that_mean_the_same_but_break_the_schema_are_not_exact():
    wanted = wants(call("book", guests=2))
    parts = right_calls(
        wanted,
        episode_of(turn(call("book", guests="2")), results=((ToolStatus.INVALID_ARGUMENTS,),)),
    )
    assert (parts["tools"], parts["arguments"], parts["exact"], parts["failed"]) == (
        0.3,
        0.2,
        0.0,
        -0.1,
    )
    unrun = episode_of(turn(call("book", guests="2")), results=((),))
    assert right_calls(wanted, unrun) == parts


def test_a_task_whose_right_answer_breaks_the_schema_still_pays_it_in_full():
    wanted = wants(call("weather", city="Rome", when="now"), call("book", guests="two"))
    gold = episode_of(
        turn(*(ToolCall(one.name, one.arguments) for one in wanted.expect.calls or ()))
    )
    rejected = episode_of(gold.turns[0], results=((ToolStatus.OK, ToolStatus.INVALID_ARGUMENTS),))
    assert sum(tool_use(wanted, gold).values()) == pytest.approx(1.0)
    assert sum(tool_use(wanted, rejected).values()) == pytest.approx(1.0)


def test_a_cut_off_call_is_worth_half_and_a_cut_off_remark_after_it_nothing_less():
    wanted = wants(ROME)
    cut = episode_of(turn(ROME, cut=True), results=((),), ending=EpisodeStatus.TRUNCATED)
    assert sum(right_calls(wanted, cut).values()) == pytest.approx(0.35)
    later = episode_of(turn(ROME), turn(text="It is", cut=True), ending=EpisodeStatus.TRUNCATED)
    assert sum(right_calls(wanted, later).values()) == pytest.approx(1.0)


def test_working_calls_pays_for_what_ran():
    wanted = wants(ROME, OSLO)
    parts = working_calls(
        wanted, episode_of(turn(ROME, OSLO), results=((ToolStatus.OK, ToolStatus.ERROR),))
    )
    assert (parts["ran"], parts["right"], parts["exact"], parts["failed"]) == pytest.approx(
        (0.15, 0.2, 0.0, -0.1)
    )
    unrun = episode_of(turn(ROME, OSLO), results=((ToolStatus.REFUSED, ToolStatus.REFUSED),))
    assert sum(working_calls(wanted, unrun).values()) == pytest.approx(1.0)


def test_calls_and_answer_each_count_half():
    wanted = wants(ROME, answer="21")
    assert sum(
        tool_use(wanted, episode_of(turn(ROME), turn(text="It is 21 degrees."))).values()
    ) == pytest.approx(1.0)
    assert sum(
        tool_use(wanted, episode_of(turn(ROME), turn(text="It is 22 degrees."))).values()
    ) == pytest.approx(0.5)
    assert sum(
        tool_use(wanted, episode_of(turn(text="It is 21 degrees."))).values()
    ) == pytest.approx(0.5 + -PENALTIES["silence"][0])
    assert sum(
        right_answer(wanted, episode_of(turn(text="It is 21 degrees."))).values()
    ) == pytest.approx(0.75)


def test_an_answer_by_a_call_is_an_answer_and_no_call_too_many():
    final = turn(call("final_answer", answer="21"))
    by_call = episode_of(turn(ROME), final, final_call="21", results=((ToolStatus.OK,), ()))
    assert sum(tool_use(wants(ROME, answer="21"), by_call).values()) == pytest.approx(1.0)
    assert sum(
        tool_use(NONE, episode_of(final, final_call="You are welcome.", results=((),))).values()
    ) == pytest.approx(1.0)


def test_a_reward_gives_no_parts_for_a_task_that_it_does_not_judge():
    answer_alone, calls_alone = task(answer="21"), wants(ROME)
    episode = episode_of(turn(text="21"))
    for reward in (right_calls, right_tools, exact_calls, working_calls):
        assert reward(answer_alone, episode) == {}
    assert right_answer(calls_alone, episode) == {}
    assert sum(tool_use(answer_alone, episode).values()) == 1.0
    assert tool_use(Task("t"), episode) == {}


def test_repeating_a_call_costs_also_where_calls_are_not_judged():
    once, twice = (episode_of(turn(*[ROME] * times), turn(text="21")) for times in (1, 2))
    assert right_answer(task(answer="21"), once)["spurious"] == 0.0
    assert right_answer(task(answer="21"), twice)["spurious"] == -0.5


def test_chatter_costs_beside_calls_and_not_where_text_is_wanted():
    long = "word " * 400
    assert right_calls(wants(ROME), episode_of(turn(ROME, text=long)))["chatter"] == -0.1
    assert right_calls(wants(ROME), episode_of(turn(ROME, text="word " * 120)))[
        "chatter"
    ] == pytest.approx(-0.02)
    assert right_calls(NONE, episode_of(turn(text=long)))["chatter"] == 0.0


def test_fines_have_an_end():
    worst = episode_of(
        turn(
            *[call("nosuch")] * 99,
            text="<|im_end|>" + "word " * 999,
            problem=ParseProblem.STRAY_MARK,
        ),
        results=((),),
    )
    for spec in OWN:
        for wanted in (wants(ROME), NONE, task(answer="21"), wants(ROME, answer="21")):
            least, most = spec.bounds
            assert least <= sum(spec.function(wanted, worst).values()) <= most


# Final answers.


@pytest.mark.parametrize(
    ("text", "answer", "messages", "worth"),
    [
        ("48 * 17 = 816.", "816", ["What is 48 * 17?"], 1),
        ("It makes $1,234.50", "1234.5", [], 1),
        ("815, 816 or 817", "816", [], 1 / 3),
        ("815, 816, 816, 817", "816", ["815 or 817?"], 1),
        ("3 * 12 = 36\n36 - 5 = 31", "31", ["3 boxes of 12 eggs, 5 eaten?"], 1 / 2),
        ("3 * 12 is 36.\nSo 31 are left.\nEnjoy!", "31", [], 1),
        ("It is 30. It is 31. It is 32.", "31", [], 0),
        ("It is 3.5 now.", "3.5", [], 1),
        ("word " * 119 + "31", "31", [], 0.5),
        ("7, 9", "7", ["Is 7 or 9 prime?"], 1 / 2),
        ("no idea", "816", [], 0),
        ("", "816", [], 0),
        ("It is  Paris.", "paris", [], 1),
        ("I know.", "no", [], 0),
        ("yes and no", "yes", [], 0),
        ("yes", "yes", [], 1),
        ("Paris " + "word " * 121, "Paris", [], 0.5),
        ("Rome", "Rome", ["Rome or Oslo?"], 1),
        ("rome or oslo?", "Rome", ["Rome or Oslo?"], 0),
        ("word " * 21 + "Rome", "Rome", ["Which is warmer, Rome or Oslo?"], 0.5),
        ("Which is warmer, Rome or Oslo?", "Rome", ["Which is warmer, Rome or Oslo?"], 0),
        ("Rome", "ROME", ["Shout Rome!"], 0),
        ("ROME", "ROME", ["Shout Rome!"], 1),
    ],
)
def test_what_states_an_answer(text, answer, messages, worth):
    assert answer_credit(text, answer, messages) == pytest.approx(worth)


def test_repeating_the_whole_conversation_says_nothing():
    messages = ["Hi", "Hello, what can I do for you today?", "Nurse", "Healthcare"]
    assert remove_echoes("\n".join(messages), messages) == ""
    assert remove_echoes("Hi, nurse!", messages) == "hi, nurse!"


def test_descriptions_of_tools_are_no_answers_when_they_are_repeated():
    terms = {
        "type": "array",
        "items": {"type": "string", "description": "A term. It is for example 1 or 4."},
    }
    schema = {"type": "object", "properties": {"terms": terms}}
    described = {
        "name": "sum",
        "description": 'Add numbers, for example "2 + 3" or "4 + 1".',
        "parameters": schema,
    }
    wanted = Task.from_dict(
        {
            "id": "t",
            "messages": [{"role": "user", "content": "How?"}],
            "tools": [described, *TOOLS],
            "expect": {"answer": "4"},
        }
    )
    echo = json.dumps(wanted.tools[0].to_dict()) + " " * 200
    assert right_answer(wanted, episode_of(turn(text=echo)))["answer"] == 0.0
    assert right_answer(wanted, episode_of(turn(text="4")))["answer"] == 1.0


# Marks in the text.


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|>",
        "ok <tool_call>",
        "[TOOL_CALL]",
        "</think>",
        "＜|im_end|＞",
        "<|im\u200b_end|>",
        "<start_of_turn>",
        "[/INST]",
    ],
)
def test_marks_of_templates_are_forged_unless_somebody_asked_about_them(text):
    assert injected_control_text(text, [])
    assert not injected_control_text(text, [f"What does {text} mean?"])


@pytest.mark.parametrize(
    "text",
    ["a < b and c > d", "I think so", "<b>bold</b>", "[1, 2]", "x | y", "<function_plot.png>"],
)
def test_plain_text_is_not_forged(text):
    assert not injected_control_text(text, [])


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("I would call weather(city='Rome').", True),
        ("weather (city='Rome')", True),
        ('{"name": "weather", "arguments": {}}', True),
        ("{'tool': 'book'}", True),
        ("<function=weather>", True),
        ("ｗｅａｔｈｅｒ(city='Rome')", True),
        ("The weather (in Rome) is fine.", False),
        ("Shall I book a table?", False),
        ("my.weather(1) and notebook(2)", False),
    ],
)
def test_a_call_in_plain_text_is_found(text, hidden):
    assert calls_in_prose(text, NONE) is hidden


def test_a_call_that_the_user_wrote_may_be_repeated():
    assert not calls_in_prose(
        "weather(city) asks for it.", task("What does weather(city) do?", no_call=True)
    )


# The library.


def test_every_reward_of_the_library_can_be_loaded_and_described():
    assert [reward.name for reward in load_rewards(list(BUILTIN))] == list(BUILTIN)
    for name in BUILTIN:
        about = BUILTIN[name].to_dict()
        assert about["name"] == name
        assert about["formula"]
        assert about["source"]
        assert bool(about["holes"]) is (about["kind"] == "compatible")


def test_an_unknown_reward_is_one_sentence_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"no reward 'tool_call_exat'.*did you mean 'tool_call_exact'"
    ):
        load_rewards(["tool_call_exat"])


def test_one_name_twice_is_refused():
    with pytest.raises(ConfigError, match="two rewards are named 'tool_use'"):
        load_rewards(["tool_use", "tool_use"])


def test_a_warning_names_the_holes_of_rewards_used_alone():
    for spec in LEGACY:
        (sentence,) = warnings_for([spec.name])
        assert sentence.startswith(f"the reward {spec.name} has known holes and is used alone: ")
        assert all(hole in sentence for hole in spec.holes)
    assert len(warnings_for(["tool_call_exact", "tool_call_function"])) == 2
    assert warnings_for([*(spec.name for spec in LEGACY), "tool_use"]) == []
    assert warnings_for(["tool_call_exact", "mine.py:polite"]) == []
    assert warnings_for([spec.name for spec in OWN]) == []


def test_the_syntax_of_rewards_is_known_where_they_read_the_same():
    assert syntax_of(["tool_call_exact", "tool_call_params"]) == "calls"
    assert syntax_of(["json_answer"]) == "json"
    assert syntax_of(["json_answer", "tool_call_exact"]) is None
    assert syntax_of(["tool_use"]) is syntax_of(["mine.py:polite"]) is syntax_of([]) is None


def test_turns_that_the_rules_penalise_cost_beside_every_reward():
    episode = episode_of(turn(ROME), penalties=2)
    result = compute_reward(load_rewards(["exact_calls"]), wants(ROME), episode)
    assert result.total == 1.0 - 2 * PENALTY
    assert result.parts["penalty"] == -2 * PENALTY


def test_a_corrected_call_earns_the_same_whatever_was_rejected() -> None:
    parameters = {"type": "object", "properties": {"on": {"type": "boolean"}}}
    light = Tool("light", "", parameters)
    wanted = replace(wants(call("light", on=True)), tools=(light,))
    results = ((ToolStatus.INVALID_ARGUMENTS,), (ToolStatus.OK,))
    right = turn(call("light", on=True))
    text, one, float_one = (  # 1 == True in Python, not in JSON
        tool_use(wanted, episode_of(turn(call("light", on=first)), right, results=results))
        for first in ("yes", 1, 1.0)
    )
    assert text["exact"] > 0
    assert text == one == float_one
