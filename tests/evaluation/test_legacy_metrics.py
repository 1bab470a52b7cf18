"""Metrics of four earlier systems, metrics of the user, and the playground's summary."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from support.scripted import last_user, scripted_policy, task
from toolhone.errors import ConfigError
from toolhone.evaluation.display import GROUP_OF, legacy_table, metrics_table
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.folder import read_folder, write_folder
from toolhone.evaluation.legacy_metrics import (
    METRIC_ALIASES,
    NAMES,
    calls_between_tags,
    known_metric,
    playground_summary,
    score_reply,
)
from toolhone.evaluation.metrics import LEGACY_METRICS, METRICS, RATES, Evaluation
from toolhone.evaluation.score import score
from toolhone.evaluation.statistics import UNMEASURED
from toolhone.schema import Expect, Tool
from toolhone.tools.registry import Registry, builtin_tool

CALCULATOR, WEATHER = builtin_tool("calculator"), builtin_tool("weather")
TOOLS = (CALCULATOR, WEATHER)
SUM = {"calls": [{"name": "calculator", "arguments": {"expression": "2+2"}}]}
TASKS = (
    task("sum", "2+2?", TOOLS, SUM),
    task("rome", "Rome?", TOOLS, {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}),
    task("hi", "Hello!", TOOLS, {"no_call": True}),
)


def value(
    name: str, text: str, expect: dict = SUM, offered: tuple[str, ...] = ("calculator", "weather")
) -> float:
    return score_reply(text, offered, Expect.from_dict(expect))[name]


def tagged(name: str = "calculator", **parameters: object) -> str:
    return f"[TOOL_CALL]{json.dumps({'name': name, 'parameters': parameters})}[/TOOL_CALL]"


def evaluate_answers(
    answers: dict[str, str],
    dialect: str = "tagged",
    tasks=TASKS,
    registry: Registry | None = None,
    **more,
) -> Evaluation:
    """An evaluation in which each question gets its answer."""
    policy = scripted_policy(lambda prompt: answers.get(last_user(prompt), "Done."), dialect)
    return evaluate(policy, tasks, Registry(TOOLS) if registry is None else registry, **more)


def legacy_values(evaluation: Evaluation, group: str) -> dict[str, float | None]:
    return {name: score.value for name, score in evaluation.legacy[group].items()}


def test_every_name_has_a_score_and_every_score_a_name():
    assert list(score_reply("", (), Expect.from_dict(SUM), ran=[])) == [
        f"{group}.{name}" for group, names in LEGACY_METRICS.items() for name in names
    ]


# JSON answers.

NO_CALL = {"no_call": True}


@pytest.mark.parametrize(
    ("text", "expect", "valid", "form", "tool"),
    [
        ('{"tool": "calculator", "args": {"expression": "9"}}', SUM, 1, 1, 1),
        ('ok {"tool": "calculator", "args": {}} ok', SUM, 1, 1, 1),
        ('{"tool": "weather", "args": {}}', SUM, 1, 1, 0),
        ('{"tool": "search", "args": {}}', SUM, 0, 0, 0),
        ('{"tool": "calculator"}', SUM, 0, 0, 0),
        ('{"tool": ["calculator"], "args": {}}', SUM, 0, 0, 0),
        ('{"final": "4"}', SUM, 1, 0, 0),
        ('{"final": "4", "tool": "calculator", "args": {}}', SUM, 1, 1, 1),
        ('{"final": "4", "tool": "search"}', SUM, 1, 1, 0),
        ('{"final": "anything"}', NO_CALL, 1, 1, 0),
        ('{"tool": "calculator", "args": {}}', NO_CALL, 1, 0, 0),
        ('{"final": "Hi", "tool": ""}', NO_CALL, 1, 1, 0),
        ('{"tool": "calculator", "args": {}} {"final": 1}', SUM, 0, 0, 0),
        ('{"tool": "calculator", "args": {', SUM, 0, 0, 0),
        ("} {", SUM, 0, 0, 0),
        ("plain text", NO_CALL, 0, 0, 0),
        ('{"a": 1}', NO_CALL, 0, 0, 0),
        ("", NO_CALL, 0, 0, 0),
        ('{"a":' * 100_000 + "}", SUM, 0, 0, 0),
    ],
)
def test_json_answers_are_judged_as_their_system_does(text, expect, valid, form, tool):
    found = [value(f"json_answers.{name}", text, expect) for name in LEGACY_METRICS["json_answers"]]
    assert found == [valid, form, tool]


def test_correct_tool_is_divided_by_all_tasks_so_a_perfect_model_stays_below_one():
    gold = {
        "2+2?": '{"tool": "calculator", "args": {"expression": "2+2"}}',
        "Rome?": '{"tool": "weather", "args": {"city": "Rome"}}',
        "Hello!": '{"final": "Hello!"}',
    }
    evaluation = evaluate_answers(gold, "json")
    assert evaluation.metrics["exact_match"].value == 1.0
    assert legacy_values(evaluation, "json_answers") == {
        "valid_json": 1,
        "correct_format": 1,
        "correct_tool": pytest.approx(2 / 3),
    }
    assert evaluation.legacy["json_answers"]["correct_tool"].n == 3


# The playground.


@pytest.mark.parametrize(
    ("text", "expect", "tool", "form"),
    [
        (tagged(expression="9"), SUM, 1, 1),
        (tagged("weather", city="Rome"), SUM, 0, 1),
        (tagged("search"), SUM, 0, 0),
        ('[TOOL_CALL]{"name": "calculator"}[/TOOL_CALL]', SUM, 1, 0),
        ('[TOOL_CALL]{"parameters": {}}[/TOOL_CALL] calculator', SUM, 0, 0),
        ("[TOOL_CALL]{oops[/TOOL_CALL] the Calculator", SUM, 1, 0),
        ("[TOOL_CALL][1, 2][/TOOL_CALL] calculator", SUM, 0, 0),
        ("[/TOOL_CALL]" + tagged(), SUM, 1, 1),
        ('[TOOL_CALL]{"name": "calculator", "parameters": {}}', SUM, 1, 0),
        (tagged("weather") + tagged(), SUM, 0, 1),
        ("I would rather not use the calculator.", SUM, 1, 0),
        ("weather or calculator", SUM, 1, 0),
        ("weather", SUM, 0, 0),
        ("four", SUM, 0, 0),
        ("Hello!", NO_CALL, 1, 0),
        ("", NO_CALL, 1, 0),
        ("Fine weather.", NO_CALL, 0, 0),
        ("[TOOL_CALL]" * 50_000, NO_CALL, 1, 0),
    ],
)
def test_the_playground_is_judged_as_its_system_does(text, expect, tool, form):
    names = ("tool_accuracy", "format_correctness", "response_quality")
    assert [value(f"playground.{name}", text, expect) for name in names] == [
        tool,
        form,
        (tool + form) / 2,
    ]


def test_the_first_tool_on_offer_wins_where_a_text_names_several():
    text = "weather or calculator"
    assert value("playground.tool_accuracy", text, SUM, ("weather", "calculator")) == 0


def test_execution_counts_where_the_tools_can_run_and_needs_the_format():
    answers = {"2+2?": tagged(expression="9"), "Rome?": "weather(city='Rome')", "Hello!": "Hello!"}
    evaluation = evaluate_answers(answers)
    assert legacy_values(evaluation, "playground")["execution_success"] == pytest.approx(1 / 3)
    assert evaluation.metrics["execution_success"].value == 0.5, (
        "ours has no place for tasks that want no call"
    )
    assert (
        evaluate_answers(answers, registry=Registry([])).legacy["playground"]["execution_success"]
        == UNMEASURED
    )
    failing = evaluate_answers({**answers, "2+2?": tagged(expression="1/0")})
    assert legacy_values(failing, "playground")["execution_success"] == 0


def test_a_result_with_an_error_in_it_is_no_success():
    broken = Tool(
        "calculator", "", CALCULATOR.parameters, lambda **_: {"error": "division by zero"}
    )
    wanted = task("sum", "2+2?", (broken,), SUM)
    evaluation = evaluate_answers(
        {"2+2?": tagged(expression="2+2")}, tasks=[wanted], registry=Registry([broken])
    )
    assert legacy_values(evaluation, "playground")["execution_success"] == 0
    assert evaluation.metrics["execution_success"].value == 1.0


def test_a_call_in_another_syntax_that_ran_is_no_success_of_the_playground():
    evaluation = evaluate_answers({"2+2?": 'calculator(expression="2+2")'}, "calls", TASKS[:1])
    assert evaluation.metrics["execution_success"].value == 1.0
    assert legacy_values(evaluation, "playground")["execution_success"] == 0


def test_the_call_that_ran_must_be_that_of_the_block():
    text = tagged(expression="1/0") + '\ncalculator(expression="2+2")'
    evaluation = evaluate_answers({"2+2?": text}, "calls", TASKS[:1])
    assert legacy_values(evaluation, "playground") | {
        "tool_accuracy": 1,
        "format_correctness": 1,
    } == legacy_values(evaluation, "playground")
    assert legacy_values(evaluation, "playground")["execution_success"] == 0


# Python calls and tags.


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('calculator(expression="2+2")', (1, 1, 1, 1)),
        ('I call calculator (expression = " 2+2 ", digits=3)', (0, 1, 1, 0.8)),
        ('calculator(expression="(2)+2")', (0, 1, 0, 0.4)),
        ("four (4)", (0, 0, 0, 0)),
        ("four", (0, 0, 0, 0)),
    ],
)
def test_python_calls_are_judged_by_the_public_functions(text, scores):
    found = [value(f"python_calls.{name}", text) for name in LEGACY_METRICS["python_calls"]]
    assert found == pytest.approx(scores)


def test_wanted_calls_go_through_the_same_reader_as_the_text():
    nested = {
        "calls": [{"name": "math.calculator", "arguments": {"expression": "(2)+2", "unit": None}}]
    }
    assert (
        value("python_calls.exact", 'math.calculator(expression="(2)+2", unit=None)', nested) == 1
    )
    unspeakable = {"calls": [{"name": "two words", "arguments": {"a": 1}}]}
    assert value("python_calls.exact", "words(a=1)", unspeakable) == 0


TWO = {"calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]}
F, G = (
    '<tool_call>{"name": "f", "arguments": {"a": 1.0}}</tool_call>',
    '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
)


@pytest.mark.parametrize(
    ("text", "expect", "match"),
    [
        (F + G, TWO, 1),
        ("</tool_call>\n\nSure: " + F + "\n" + G, TWO, 1),
        (G + F, TWO, 0),
        (F, TWO, 0),
        (F + G + "<tool_call>oops</tool_call>", TWO, 0),
        ("<tool_call>" + F + G, TWO, 0),
        (F.replace("arguments", "parameters") + G, TWO, 0),
        (F.replace("<tool_call>", "</tool_call>") + G, TWO, 0),
        ("Hello!", NO_CALL, 1),
        ("", NO_CALL, 1),
        (F, NO_CALL, 0),
        ("<tool_call>" * 50_000, NO_CALL, 1),
    ],
)
def test_match_wants_the_same_list_between_tags(text, expect, match):
    assert value("tool_call_tags.match", text, expect) == match


def test_text_between_tags_that_is_not_json_spoils_the_whole_extraction():
    assert calls_between_tags(F + G) == [
        {"name": "f", "arguments": {"a": 1}},
        {"name": "g", "arguments": {}},
    ]
    assert calls_between_tags(F + "<tool_call></tool_call>") is None
    assert calls_between_tags("<tool_call>" + "[" * 100_000 + "</tool_call>") is None
    assert calls_between_tags("</tool_call>{}</tool_call>") == []


# In an evaluation.


def test_only_the_first_reply_counts_since_those_systems_show_no_results():
    live = task("sum", "2+2?", TOOLS, {**SUM, "answer": "4"})
    policy = scripted_policy(
        lambda prompt: (
            '{"final": "It is 4"}'
            if "result" in last_user(prompt)
            else '{"tool": "calculator", "args": {"expression": "2+2"}}'
        ),
        "json",
    )
    evaluation = evaluate(policy, [live], Registry(TOOLS))
    assert (evaluation.samples[0].outcome, evaluation.metrics["answer_quality"].value) == (
        "answered",
        1.0,
    )
    assert legacy_values(evaluation, "json_answers") == {
        "valid_json": 1,
        "correct_format": 1,
        "correct_tool": 1,
    }


def test_nothing_is_measured_without_raw_text_or_expected_calls():
    predictions = [
        {"id": "sum", "calls": []},
        {"id": "rome", "calls": []},
        {"id": "hi", "calls": []},
    ]
    for evaluation in (
        score(TASKS, predictions),
        evaluate_answers({"How?": "It is 4"}, tasks=[task("a", "How?", (), {"answer": "4"})]),
    ):
        assert all(
            found == UNMEASURED
            for metrics in evaluation.legacy.values()
            for found in metrics.values()
        )
        assert [sample.legacy_scores for sample in evaluation.samples] == [{}] * len(
            evaluation.samples
        )


def test_a_reply_that_never_came_is_an_empty_text():
    evaluation = evaluate(scripted_policy(lambda _: "x", max_context=3), TASKS, Registry(TOOLS))
    assert evaluation.outcomes == {"no_room": 3}
    assert legacy_values(evaluation, "json_answers")["valid_json"] == 0
    assert legacy_values(evaluation, "playground")["tool_accuracy"] == pytest.approx(1 / 3)


def test_texts_from_elsewhere_score_like_the_same_replies_of_a_model():
    answers = {"2+2?": tagged(expression="2+2"), "Rome?": "weather", "Hello!": "Hello!"}
    texts = [{"id": t.id, "text": answers[t.messages[-1].content]} for t in TASKS]
    assert score(TASKS, texts, "tagged", Registry(TOOLS)).legacy == evaluate_answers(answers).legacy


def test_ours_stay_what_they_are_under_the_same_names():
    evaluation = evaluate_answers(
        {"2+2?": "Use the calculator.", "Rome?": "weather", "Hello!": "Hello!"}
    )
    assert legacy_values(evaluation, "playground")["tool_accuracy"] == 1.0
    assert evaluation.metrics["tool_accuracy"].value == 0.0
    assert set(evaluation.metrics) == {*METRICS, *RATES}


def test_metrics_on_disk_hold_all_groups_and_come_back(tmp_path):
    evaluation = evaluate_answers({"2+2?": tagged(expression="2+2")})
    folder = write_folder(evaluation, tmp_path)
    stored = json.loads((folder / "metrics.json").read_text())["familiar"]
    assert {group: tuple(metrics) for group, metrics in stored.items()} == dict(LEGACY_METRICS)
    assert set(stored["tool_call_tags"]["match"]) == {"value", "low", "high", "n"}
    again = read_folder(folder)
    assert again == evaluation
    assert again.legacy == evaluation.legacy
    assert again.samples[0].offered == ("calculator", "weather")


def test_a_folder_from_before_these_metrics_can_still_be_read(tmp_path):
    folder = write_folder(evaluate_answers({}), tmp_path)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    old = [
        {key: inner for key, inner in row.items() if key not in ("familiar", "offered")}
        for row in rows
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert read_folder(folder).legacy["playground"]["tool_accuracy"] == UNMEASURED


def test_the_group_of_a_syntax_is_shown_and_all_are_shown_when_asked():
    evaluation = evaluate_answers(
        {"2+2?": tagged(expression="2+2"), "Rome?": "weather", "Hello!": "Hello!"}
    )

    def shown(what: object) -> str:
        console = Console(width=150, file=io.StringIO())
        console.print(what)
        return console.file.getvalue()  # type: ignore[attr-defined]

    text = shown(legacy_table(evaluation))
    assert all(word in text for group, names in LEGACY_METRICS.items() for word in (group, *names))
    assert "tool_accuracy 100.0, format_correctness 33.3" in text
    assert "valid_json" not in shown(legacy_table(evaluation, [GROUP_OF["tagged"]]))


# Names.


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("tool_accuracy", "tool_accuracy"),
        ("execution_success", "execution_success"),
        ("playground.tool_accuracy", "playground.tool_accuracy"),
        ("tool_format_correctness", "playground.format_correctness"),
        ("format_accuracy", "playground.format_correctness"),
        ("execution_accuracy", "playground.execution_success"),
        ("response_quality", "playground.response_quality"),
        ("valid_json", "json_answers.valid_json"),
        ("correct_tool", "json_answers.correct_tool"),
        ("content_right", "content_right"),
        ("percent_correct", "tool_call_tags.match"),
        ("overall", "python_calls.overall"),
    ],
)
def test_the_names_that_people_write_are_known(name, full):
    assert known_metric(name) == full


def test_every_alias_leads_to_a_metric_and_hides_none_of_ours():
    for alias, full in METRIC_ALIASES.items():
        assert known_metric(alias) == full
        assert alias not in (*METRICS, *RATES)


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError,
        match=(
            r"there is no metric 'respons_quality' .did you mean "
            r"'response_quality'.*known: valid_format"
        ),
    ):
        known_metric("respons_quality")


# Metrics of the user's own.


def brief(task, episode):
    return len(episode.turns[0].text) < 20 if task.expect.no_call else None


def test_a_users_metric_is_averaged_over_the_tasks_where_it_applies(tmp_path):
    evaluation = evaluate_answers(
        {"Hello!": "Hello!"}, own={"brief": brief, "a_half": lambda *_: 0.5}
    )
    assert list(evaluation.metrics) == [*METRICS, *RATES, "a_half", "brief"]
    assert (evaluation.metrics["brief"].value, evaluation.metrics["brief"].n) == (1.0, 1)
    assert (evaluation.metrics["a_half"].value, evaluation.metrics["a_half"].n) == (0.5, 3)
    assert read_folder(write_folder(evaluation, tmp_path)).metrics == evaluation.metrics
    console = Console(width=120, file=io.StringIO())
    console.print(metrics_table(evaluation))
    assert "a_half" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "bad", [1.5, -0.1, float("nan"), "1", [1], pytest.param(10**400, id="huge")]
)
def test_a_users_metric_outside_its_range_is_one_sentence(bad):
    with pytest.raises(
        ConfigError,
        match=(
            r"the metric 'mine' must give a number in \[0, 1\] or None; on the task "
            r"'sum' it gave"
        ),
    ):
        evaluate_answers({}, own={"mine": lambda *_: bad})


def test_a_metric_of_ones_own_that_fails_names_itself_and_the_task():
    with pytest.raises(
        ConfigError, match="the metric 'mine' failed on the task 'sum': KeyError: 'x'"
    ):
        evaluate_answers({}, own={"mine": lambda *_: {}["x"]})


def test_a_metric_of_ones_own_cannot_take_one_of_our_names():
    with pytest.raises(ConfigError, match="cannot be named 'exact_match'"):
        evaluate_answers({}, own={"exact_match": brief})


def test_scores_of_other_names_are_aggregated_after_ours_by_name():
    samples = [
        replace(sample, scores={"z": 1.0, "b": 0.0, "exact_match": 1.0})
        for sample in evaluate_answers({}).samples
    ]
    assert list(Evaluation(samples).metrics)[-2:] == ["b", "z"]
    assert Evaluation(samples).metrics["b"].value == 0


# The playground's summary.


def test_the_summary_compares_the_parameters_as_well():
    answers = {
        "2+2?": tagged(expression="2 + 2"),
        "Rome?": tagged("weather", city="Oslo"),
        "Hello!": "Hello!",
    }
    summary = playground_summary(evaluate_answers(answers))
    details = summary.pop("details")
    assert summary == {
        "total_cases": 3,
        "not_measured": 0,
        "tool_accuracy": 1.0,
        "format_accuracy": pytest.approx(2 / 3),
        "execution_accuracy": pytest.approx(2 / 3),
        "params_accuracy": pytest.approx(2 / 3),
    }
    assert details[1] == {
        "prompt": "Rome?",
        "response": answers["Rome?"],
        "expected_tool": "weather",
        "predicted_tool": "weather",
        "tool_correct": True,
        "format_correct": True,
        "execution_success": True,
        "expected_params": {"city": "Rome"},
        "predicted_params": {"city": "Oslo"},
        "params_correct": False,
    }
    json.dumps(details)


def test_parameters_are_right_with_any_text_around_the_call():
    summary = playground_summary(
        evaluate_answers({"2+2?": tagged(expression="2+2") + "[/TOOL_CALL]"}, tasks=TASKS[:1])
    )
    assert (summary["params_accuracy"], summary["execution_accuracy"]) == (1.0, 0.0)


def test_the_summary_counts_unmeasured_tasks_and_never_divides_by_zero():
    empty = playground_summary(score(TASKS, [{"id": t.id, "calls": []} for t in TASKS]))
    assert (empty["total_cases"], empty["not_measured"], empty["tool_accuracy"]) == (0, 3, None)
    no_tools = playground_summary(evaluate_answers({}, registry=Registry([])))
    assert no_tools["execution_accuracy"] is None
    assert no_tools["details"][0]["execution_success"] is None


def test_legacy_scores_are_numbers_in_their_range_for_hostile_texts():
    hostile = [
        "[TOOL_CALL]{}[/TOOL_CALL]",
        '[TOOL_CALL]{"name": [], "parameters": 1}[/TOOL_CALL]',
        "\ud800{\x00}",
        '{"tool": {}, "args": 1}',
    ]
    for text in hostile:
        evaluation = score(TASKS[:1], [{"id": "sum", "text": text}], "tagged", Registry(TOOLS))
        assert all(0 <= found <= 1 for found in evaluation.samples[0].legacy_scores.values())
        assert set(evaluation.samples[0].legacy_scores) == set(NAMES)
        playground_summary(evaluation)
