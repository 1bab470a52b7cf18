"""Open tasks: any call, any arguments, several right answers; rewards and metrics agree."""

from __future__ import annotations

from typing import Any

import pytest

from support.scripted import scripted_policy
from support.source_rows import gold
from toolhone.backends.base import StopReason
from toolhone.data.task_files import tasks_beside
from toolhone.dialects.choose import open_syntax
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.evaluation.display import show_expectation
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.folder import read_folder, write_folder
from toolhone.evaluation.legacy_metrics import legacy_scores
from toolhone.evaluation.metrics import EpisodeContext, can_run, judge
from toolhone.rewards.matching import Match, match_calls
from toolhone.rewards.reward_registry import BUILTIN, LEGACY, OWN, Reward, compute_reward
from toolhone.rewards.tool_use import (
    right_answer,
    right_calls,
    select_reference,
    tool_use,
    working_calls,
)
from toolhone.schema import Conversation, Expect, Json, Message, Task, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

TEXT = {"type": "string"}
TOOLS = [
    {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": TEXT, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
    {
        "name": "search",
        "parameters": {"type": "object", "properties": {"query": TEXT}, "required": ["query"]},
    },
    {"name": "loose", "parameters": {"type": "object", "additionalProperties": True}},
]
WEATHER = {"name": "weather", "any_arguments": True}
SEARCH = {"name": "search", "any_arguments": True}


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


def matched(asked: Task, *calls: ToolCall) -> Match:
    return match_calls(calls, asked.expect, asked.tools)


def turn(
    *calls: ToolCall,
    text: str | None = None,
    problem: ParseProblem = ParseProblem.NONE,
    syntax: str = "tagged",
) -> Turn:
    raw = open_syntax(syntax).write(text, calls) if problem is ParseProblem.NONE else "[TOOL_CALL]{"
    return Turn(
        Message("assistant", text, tool_calls=calls), raw, problem, stop_reason=StopReason.STOP
    )


def episode_of(*turns: Turn, outcomes: tuple[ToolStatus, ...] = (), **more: Any) -> Episode:
    ending = EpisodeStatus.ANSWERED if not turns[-1].message.tool_calls else EpisodeStatus.CALLED
    rows = [outcomes or tuple(ToolStatus.OK for _ in one.message.tool_calls) for one in turns]
    results = tuple(tuple(ToolResult(outcome, "") for outcome in row) for row in rows)
    return Episode("t", turns, results, more.pop("ending", ending), **more)


ROME, OSLO, FIND = (
    call("weather", city="Rome"),
    call("weather", city="Oslo"),
    call("search", query="Rome"),
)
ANY = task(any_call=True)
FREE = task(calls=[WEATHER, SEARCH])
EITHER = task(calls=[ROME.to_dict()], alternatives=[{"calls": [FIND.to_dict(), OSLO.to_dict()]}])
MAYBE = task(calls=[ROME.to_dict()], alternatives=[{"no_call": True}])
SPELLED = task(answer="seven", alternatives=[{"answer": "7"}])
WORDED = task(answer="7", alternatives=[{"answer": "seven"}])


# How calls are matched.


@pytest.mark.parametrize(
    "given", [ROME, FIND, call("loose", x=1), call("weather", city="", days=3)]
)
def test_any_call_of_a_tool_on_offer_that_obeys_its_schema_is_right_alone(given):
    match = matched(ANY, given)
    assert (match.exact, match.tool_score, match.argument_score, match.reasons) == (
        True,
        1.0,
        1.0,
        (),
    )


@pytest.mark.parametrize(
    ("given", "tools", "arguments", "sentence"),
    [
        ([], 0.0, 0.0, "no call, wanted a call of any tool"),
        ([call("fly")], 0.0, 0.0, "missing: a call of any tool"),
        ([call("weather")], 1.0, 0.0, "weather: arguments: 'city' is a required property"),
        ([call("weather", city=3)], 1.0, 0.0, "weather: city: 3 is not of type 'string'"),
        (
            [call("weather", city="Rome", note="please")],
            1.0,
            0.0,
            "weather: there is no argument 'note'",
        ),
        ([ROME, OSLO], 0.5, 0.5, "not wanted: weather(city='Oslo')"),
        ([call("weather"), FIND, call("fly")], 1 / 3, 1 / 3, "not wanted: weather()"),
    ],
)
def test_no_call_a_broken_one_and_more_than_one_are_not_any_call(given, tools, arguments, sentence):
    match = matched(ANY, *given)
    assert not match.exact
    assert (match.tool_score, match.argument_score) == pytest.approx((tools, arguments))
    assert sentence in match.reasons


def test_a_spray_over_all_tools_is_worth_less_the_wider_it_is():
    sprayed = [ROME, FIND, call("loose"), OSLO, *[FIND] * 6]
    worth = [matched(ANY, *sprayed[:count]).tool_score for count in range(1, 11)]
    assert worth == [1 / count for count in range(1, 11)]


def test_any_arguments_that_the_schema_allows_are_right():
    assert matched(FREE, FIND, OSLO).exact
    assert matched(FREE, call("weather", city="x", days=2), FIND).exact
    assert not matched(FREE, FIND).exact
    half = matched(FREE, FIND, call("weather", days="two"))
    assert (half.exact, half.tool_score, half.argument_score) == (False, 1.0, 0.5)


def test_a_call_with_given_arguments_is_paired_before_one_with_any():
    both = task(calls=[WEATHER, ROME.to_dict()])
    for calls in ((ROME, OSLO), (OSLO, ROME)):
        assert matched(both, *calls).exact
    assert matched(both, OSLO, OSLO).argument_score == 0.5


def test_the_alternative_that_fits_best_is_taken_and_the_first_of_equals():
    assert matched(EITHER, ROME).exact
    assert matched(EITHER, OSLO, FIND).exact
    assert not matched(EITHER, ROME, OSLO, FIND).exact
    assert matched(EITHER, FIND).tool_score == 0.5
    assert "no call, wanted weather(city='Rome')" in matched(EITHER).reasons, "both are as far"


def test_no_call_may_be_one_of_the_right_answers():
    assert matched(MAYBE).exact
    assert matched(MAYBE, ROME).exact
    assert not matched(MAYBE, FIND).exact


# Which answer is taken, and what it earns.


@pytest.mark.parametrize(
    ("asked", "episode", "taken"),
    [
        (EITHER, episode_of(turn(ROME)), 0),
        (EITHER, episode_of(turn(FIND)), 1),
        (EITHER, episode_of(turn(text="Hm.")), 0),
        (
            EITHER,
            episode_of(turn(call("fly")), turn(FIND, OSLO), outcomes=(ToolStatus.UNKNOWN_TOOL,)),
            1,
        ),
        (MAYBE, episode_of(turn(text="Which city?")), 1),
        (MAYBE, episode_of(turn(text=None)), 0),
        (MAYBE, episode_of(turn(problem=ParseProblem.UNCLOSED), ending=EpisodeStatus.MALFORMED), 0),
        (MAYBE, episode_of(turn(FIND)), 0),
        (WORDED, episode_of(turn(text="It is seven.")), 1),
        (WORDED, episode_of(turn(text="It is 7.")), 0),
        (WORDED, episode_of(turn(text="Both 7 and seven are right.")), 0),
        (WORDED, episode_of(turn(text="It is 7 laps, seven I say, run in 2024.")), 1),
        (WORDED, episode_of(turn(text="No idea.")), 0),
        (SPELLED, episode_of(turn(text="It took 7 laps. It was run in 2024.")), 1),
    ],
)
def test_an_episode_is_judged_by_the_answer_that_it_comes_closest_to(asked, episode, taken):
    found = select_reference(asked, episode)
    assert found.expect == asked.expect.choices[taken]
    assert found.id == asked.id


def test_a_task_with_one_right_answer_is_as_it_was():
    assert select_reference(FREE, episode_of(turn(FIND))) is FREE


RIGHT = [
    (ANY, episode_of(turn(FIND))),
    (FREE, episode_of(turn(FIND, OSLO))),
    (EITHER, episode_of(turn(ROME))),
    (EITHER, episode_of(turn(OSLO, FIND))),
    (MAYBE, episode_of(turn(ROME))),
    (MAYBE, episode_of(turn(text="Which city do you mean?"))),
]


@pytest.mark.parametrize(("asked", "episode"), RIGHT)
@pytest.mark.parametrize("reward", [tool_use, right_calls, working_calls])
def test_every_right_answer_earns_one_from_our_rewards(reward, asked, episode):
    assert sum(reward(asked, episode).values()) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["It is 7.", "It is seven."])
def test_every_wording_of_an_answer_earns_one(text):
    assert sum(right_answer(WORDED, episode_of(turn(text=text))).values()) == 1.0
    assert judge(WORDED, episode_of(turn(text=text))).scores["answer_quality"] == 1.0


@pytest.mark.parametrize(
    ("asked", "worse"),
    [
        (ANY, [FIND, ROME]),
        (ANY, [call("weather")]),
        (ANY, [call("fly")]),
        (ANY, [ROME] * 30),
        (FREE, [FIND]),
        (FREE, [FIND, OSLO, ROME]),
        (FREE, [FIND, call("weather")]),
        (EITHER, [ROME, FIND, OSLO]),
        (EITHER, [FIND]),
        (MAYBE, [FIND]),
    ],
)
def test_everything_else_earns_less_than_half_of_what_is_right(asked, worse):
    outcomes = tuple(
        ToolStatus.OK if one != call("weather") else ToolStatus.INVALID_ARGUMENTS for one in worse
    )
    episode = episode_of(turn(*worse), outcomes=outcomes)
    assert sum(tool_use(asked, episode).values()) < 0.65
    assert judge(asked, episode).scores["exact_match"] == 0.0


def test_silence_costs_where_any_call_is_wanted():
    assert tool_use(ANY, episode_of(turn(text="Hm.")))["silence"] < 0
    assert tool_use(ANY, episode_of(turn(FIND)))["silence"] == 0


NESTED = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"name": TEXT}},
        "free": {"type": "object"},
    },
}
EITHER_NAME = {
    "type": "object",
    "properties": {"a": TEXT},
    "anyOf": [{"required": ["a"]}, {"properties": {"b": TEXT}, "required": ["b"]}],
}


@pytest.mark.parametrize(
    ("parameters", "arguments", "right"),
    [
        (NESTED, {"place": {"name": "x"}, "free": {"whatever": 1}}, True),
        (NESTED, {"place": {"name": "x", "note": "please accept"}}, False),
        (
            {"type": "object", "properties": {"list": {"items": NESTED}}},
            {"list": [{"place": {"note": 1}}]},
            False,
        ),
        ({"type": "object"}, {}, True),
        ({"type": "object"}, {"note": "please accept"}, False),
        (EITHER_NAME, {"a": "x"}, True),
        (EITHER_NAME, {"b": "x"}, True),
        (EITHER_NAME, {"a": "x", "note": "please accept"}, False),
        ({"type": "object", "patternProperties": {"^x": TEXT}}, {"x1": "y"}, True),
        ({"type": "object", "patternProperties": {"^x": TEXT}}, {"y1": "y"}, False),
        ({"type": "object", "additionalProperties": TEXT}, {"y1": "y"}, True),
    ],
)
def test_what_no_schema_declares_is_not_among_any_arguments(
    parameters: dict[str, Any], arguments: dict[str, Any], right: bool
):
    tools = [{"name": "t", "parameters": parameters}]
    for expect in ({"calls": [{"name": "t", "any_arguments": True}]}, {"any_call": True}):
        source = {
            "id": "t",
            "messages": [{"role": "user", "content": "Do it."}],
            "tools": tools,
            "expect": expect,
        }
        assert matched(Task.from_dict(source), ToolCall("t", arguments)).exact is right


def test_a_call_that_breaks_the_schema_is_not_what_any_arguments_ask_for():
    free = task(calls=[WEATHER])
    rejected = episode_of(turn(call("weather")), outcomes=(ToolStatus.INVALID_ARGUMENTS,))
    assert tool_use(free, rejected)["failed"] < 0
    assert tool_use(free, rejected)["exact"] == 0.0


def test_legacy_rewards_use_the_same_answer_and_skip_open_tasks():
    function = BUILTIN["tool_call_function"].function
    assert function(EITHER, episode_of(turn(OSLO, FIND, syntax="calls"))) == 1.0
    assert function(MAYBE, episode_of(turn(text="Which city?"))) == 1.0
    for spec in LEGACY:
        for asked in (ANY, FREE):
            assert (
                compute_reward(
                    [Reward(spec.name, spec.function)], asked, episode_of(turn(FIND))
                ).parts
                == {}
            )
            assert not spec.judges(asked)
        assert spec.judges(EITHER)
    assert all(spec.judges(ANY) for spec in OWN if spec.name not in ("right_answer", "right_state"))


# What is measured.


def test_which_metrics_apply_to_a_task_does_not_depend_on_the_reply():
    for asked, expected in (
        (ANY, {"tool_accuracy", "argument_accuracy"}),
        (EITHER, {"tool_accuracy", "argument_accuracy"}),
        (MAYBE, set[str]()),
        (task(no_call=True, alternatives=[{"no_call": True}]), {"no_call_accuracy"}),
    ):
        rates = {"valid_format", "exact_match", "content_right", "format_right", "both_right"}
        for episode in (
            episode_of(turn(ROME)),
            episode_of(turn(text="Hm.")),
            episode_of(turn(FIND, OSLO)),
        ):
            assert set(judge(asked, episode).scores) == rates | expected


@pytest.mark.parametrize(("asked", "episode"), RIGHT)
def test_every_right_answer_is_right_by_every_metric_of_ours(asked, episode):
    judged = judge(asked, episode)
    assert set(judged.scores.values()) == {1.0}
    assert judged.reasons == ()
    assert judged.expected == asked.expect, "the folder keeps all right answers"


def test_content_is_right_when_a_lenient_reader_finds_any_right_answer():
    for right in ([ROME], [FIND, OSLO]):
        other = open_syntax("tool_call_tags").write(None, right)
        missed = Turn(
            Message("assistant", other), other, ParseProblem.NONE, stop_reason=StopReason.STOP
        )
        judged = judge(EITHER, episode_of(missed))
        assert (judged.scores["exact_match"], judged.scores["content_right"]) == (0.0, 1.0)
    broken = episode_of(turn(problem=ParseProblem.UNCLOSED), ending=EpisodeStatus.MALFORMED)
    assert judge(MAYBE, broken).scores["exact_match"] == 0.0
    cut = judge(MAYBE, episode_of(turn(text="Hm."), ending=EpisodeStatus.TRUNCATED)).scores
    assert (cut["exact_match"], cut["content_right"]) == (0.0, 0.0)


def test_open_tasks_beside_conversations_are_tasks_about_calls():
    talk = Conversation((*ANY.messages, Message("assistant", "Hm.")), ANY.tools, "c")
    assert tasks_beside([ANY], [talk]) == [ANY]


def test_a_task_can_run_when_the_tools_of_all_its_right_answers_can():
    assert can_run(EITHER, {"weather", "search"})
    assert not can_run(EITHER, {"weather"})
    assert not can_run(ANY, {"weather", "search"})
    assert not can_run(MAYBE, {"weather"})


def test_legacy_metrics_use_the_same_answer_and_skip_open_tasks():
    known = EpisodeContext()
    assert (
        legacy_scores(EITHER, episode_of(turn(FIND, OSLO)), known)["playground.tool_accuracy"]
        == 1.0
    )
    assert legacy_scores(EITHER, episode_of(turn(ROME)), known)["playground.tool_accuracy"] == 1.0
    assert legacy_scores(ANY, episode_of(turn(FIND)), known) == {}
    assert legacy_scores(FREE, episode_of(turn(FIND, ROME)), known) == {}


def test_a_folder_keeps_such_tasks_and_its_table_says_only_what_it_can(tmp_path):
    asked = [
        Task.from_dict({**one.to_dict(), "id": f"t{number}"})
        for number, one in enumerate((ANY, FREE, EITHER, MAYBE))
    ]
    one_call = open_syntax("tagged").write(None, [ROME])
    evaluation = evaluate(scripted_policy(lambda _: one_call), asked)
    again = read_folder(write_folder(evaluation, tmp_path / "eval"))
    assert [sample.expected for sample in again.samples] == [one.expect for one in asked]
    assert again.metrics == evaluation.metrics
    assert [sample.scores["exact_match"] for sample in again.samples] == [1.0, 0.0, 1.0, 1.0]
    lines = (tmp_path / "eval" / "samples.csv").read_text().splitlines()[1:]
    assert [line.rpartition(",")[0].endswith(",") for line in lines] == [True] * 4


def test_an_open_expectation_is_shown_in_one_line():
    assert show_expectation(ANY.expect) == "a call of any tool"
    assert show_expectation(FREE.expect) == "weather(...); search(...)"
    assert show_expectation(MAYBE.expect) == "weather(city='Rome'); or no call"
    assert show_expectation(WORDED.expect) == "the answer '7'; or the answer 'seven'"
    assert show_expectation(Expect()) == ""


def test_the_calls_that_stand_for_an_open_answer_are_right():
    for asked in (ANY, FREE, EITHER, MAYBE):
        assert matched(asked, *gold(asked.expect, asked.tools)).exact
