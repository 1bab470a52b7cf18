"""Evaluation: each metric, from tasks to the folder on disk; and scoring of predictions."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from support.scripted import last_user, scripted_policy, task
from toolhone.dialects.choose import SYNTAXES, open_syntax
from toolhone.errors import DataError, DialectError, RunError
from toolhone.evaluation.display import metrics_table, mismatches, predictions
from toolhone.evaluation.error_kinds import read_leniently
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.folder import read_folder, write_folder
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation
from toolhone.evaluation.score import score
from toolhone.evaluation.statistics import UNMEASURED
from toolhone.rewards.values import carries_answer, find_numbers
from toolhone.runs.progress import Progress
from toolhone.runs.run import plain
from toolhone.schema import Task, Tool, ToolCall
from toolhone.tools.registry import Registry, builtin_tool

CALCULATOR, WEATHER = builtin_tool("calculator"), builtin_tool("weather")
SEARCH = Tool(
    "find",
    "",
    {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)
TOOLS = (CALCULATOR, WEATHER, SEARCH)
REGISTRY = Registry([CALCULATOR, WEATHER])


def wants(*calls: tuple[str, dict]) -> dict:
    return {"calls": [{"name": name, "arguments": arguments} for name, arguments in calls]}


def write(*calls: tuple[str, dict]) -> str:
    return open_syntax("tagged").write(None, [ToolCall(*call) for call in calls])


TASKS = (
    task("sum", "15*24?", TOOLS, wants(("calculator", {"expression": "15*24"})), category="math"),
    task(
        "word",
        "How much is 7*6?",
        TOOLS,
        {**wants(("calculator", {"expression": "7*6"})), "answer": "42"},
        category="math",
    ),
    task("rome", "Rome?", TOOLS, wants(("weather", {"city": "Rome"})), category="weather"),
    task(
        "two",
        "Rome and Oslo?",
        TOOLS,
        wants(("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})),
        category="weather",
    ),
    task("find", "Find cats", TOOLS, wants(("find", {"query": "cats"})), category="search"),
    task("hi", "Hello!", TOOLS, {"no_call": True}, category="chat"),
    task("bye", "Bye!", TOOLS, {"no_call": True}, category="chat"),
)
GOLD = {
    "15*24?": write(("calculator", {"expression": "24 * 15"})),
    "How much is 7*6?": write(("calculator", {"expression": "6*7"})),
    "Rome?": write(("weather", {"city": "rome"})),
    "Rome and Oslo?": write(("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})),
    "Find cats": write(("find", {"query": "cats"})),
    "Hello!": "Hello, how are you?",
    "Bye!": "Bye.",
}


def playing(answers: dict[str, str], final: str = "It is {}."):
    """A script: the answer to each question, then a sentence with the tool's result."""

    def script(prompt: str) -> str:
        message = last_user(prompt)
        return (
            final.replace("{}", message.split("]")[1].split("[")[0])
            if "TOOL_RESULT" in message
            else answers[message]
        )

    return script


def run(
    tasks=TASKS, registry: Registry | None = REGISTRY, final: str = "It is {}.", **changes: str
) -> Evaluation:
    """Evaluate the gold script with some answers changed (by the id of the task)."""
    queries = {task.id: task.messages[-1].content for task in TASKS}
    answers = GOLD | {queries[name]: text for name, text in changes.items()}
    return evaluate(scripted_policy(playing(answers, final)), tasks, registry)


def scores(evaluation: Evaluation, name: str) -> dict[str, float]:
    return dict(next(sample for sample in evaluation.samples if sample.id == name).scores)


def test_gold_answers_score_one_on_every_metric_in_any_order_and_form():
    evaluation = run()
    counts = {name: evaluation.metrics[name].n for name in (*METRICS, *RATES)}
    assert all(evaluation.metrics[name].value == 1.0 for name in (*METRICS, *RATES))
    assert counts == {
        "valid_format": 7,
        "tool_accuracy": 5,
        "argument_accuracy": 5,
        "exact_match": 7,
        "no_call_accuracy": 2,
        "execution_success": 4,
        "answer_quality": 1,
        "content_right": 7,
        "format_right": 7,
        "both_right": 7,
    }
    assert evaluation.outcomes == {"answered": 3, "called": 4}
    assert [sample.reasons for sample in evaluation.samples] == [()] * 7


def test_metrics_are_also_given_for_each_category_with_their_own_counts():
    evaluation = run(rome=write(("weather", {"city": "Paris"})))
    assert list(evaluation.by_category) == ["chat", "math", "search", "weather"]
    weather = evaluation.by_category["weather"]
    assert (weather["exact_match"].value, weather["exact_match"].n) == (0.5, 2)
    assert weather["no_call_accuracy"] == UNMEASURED
    assert evaluation.by_category["math"]["exact_match"].value == 1.0
    assert evaluation.metrics["exact_match"].value == pytest.approx(6 / 7)


def test_a_wrong_argument_is_the_right_tool_in_the_right_form():
    found = scores(run(rome=write(("weather", {"city": "Paris"}))), "rome")
    assert found == {
        "valid_format": 1,
        "tool_accuracy": 1,
        "argument_accuracy": 0,
        "exact_match": 0,
        "execution_success": 1,
        "content_right": 0,
        "format_right": 1,
        "both_right": 0,
    }


def test_one_call_of_two_earns_half():
    found = scores(run(two=write(("weather", {"city": "Rome"}))), "two")
    assert (found["tool_accuracy"], found["argument_accuracy"], found["exact_match"]) == (
        0.5,
        0.5,
        0,
    )


def test_plain_text_where_a_call_is_wanted_is_no_valid_format():
    found = scores(run(rome="It is sunny."), "rome")
    assert (
        found["valid_format"],
        found["tool_accuracy"],
        found["execution_success"],
        found["format_right"],
    ) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (write(("weather", {"town": "Rome"})), "city"),
        (write(("weather", {"city": 5})), "city"),
        (write(("clouds", {"city": "Rome"})), "'clouds' is not a tool on offer"),
        ("[TOOL_CALL]{oops[/TOOL_CALL]", "not_json"),
    ],
)
def test_a_call_that_breaks_its_schema_or_the_syntax_is_no_valid_format(text, reason):
    evaluation = run(rome=text)
    assert scores(evaluation, "rome")["valid_format"] == 0
    assert scores(evaluation, "rome")["execution_success"] == 0
    assert any(reason in line for line in evaluation.samples[2].reasons)


def test_a_call_beside_a_broken_one_is_counted_but_not_exact_and_not_run():
    found = scores(run(rome=GOLD["Rome?"] + "[/TOOL_CALL]"), "rome")
    assert (found["exact_match"], found["valid_format"], found["execution_success"]) == (0, 0, 0)
    assert (found["tool_accuracy"], found["argument_accuracy"]) == (1, 1)
    assert (found["content_right"], found["format_right"], found["both_right"]) == (1, 0, 0)


@pytest.mark.parametrize("name", sorted(SYNTAXES))
def test_the_right_call_in_another_syntax_is_right_in_content_alone(name):
    text = open_syntax(name).write(None, [ToolCall("weather", {"city": "Rome"})])
    found = scores(run(rome=text), "rome")
    own = float(name == "tagged")
    assert (found["content_right"], found["format_right"], found["both_right"]) == (1, own, own)
    assert found["exact_match"] == own


def test_a_call_in_another_syntax_where_none_is_wanted_is_wrong_in_content_alone():
    found = scores(
        run(hi='<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
        "hi",
    )
    assert (
        found["no_call_accuracy"],
        found["content_right"],
        found["format_right"],
        found["both_right"],
    ) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "[TOOL_CALL]{", "[TOOL_CALL]{}[/TOOL_CALL]", "[/TOOL_CALL] hello", GOLD["Rome?"]],
)
def test_a_broken_or_silent_model_is_not_right_where_no_call_is_wanted(text):
    found = scores(run(hi=text), "hi")
    assert (found["no_call_accuracy"], found["exact_match"], found["both_right"]) == (0, 0, 0)


def test_a_well_formed_unwanted_call_is_valid_format():
    assert scores(run(hi=GOLD["Rome?"]), "hi")["valid_format"] == 1


def test_execution_is_measured_only_where_the_wanted_tools_can_run():
    evaluation = run()
    assert "execution_success" not in scores(evaluation, "find")
    assert "execution_success" in scores(evaluation, "sum")


def test_a_call_that_fails_in_the_tool_is_no_success():
    evaluation = run(sum=write(("calculator", {"expression": "1/0"})))
    assert scores(evaluation, "sum")["execution_success"] == 0
    assert scores(evaluation, "sum")["valid_format"] == 1
    assert any("error" in reason for reason in evaluation.samples[0].reasons)


def test_a_call_that_was_never_run_spoils_the_success_of_those_before_it():
    found = scores(run(final=GOLD["How much is 7*6?"] + "[/TOOL_CALL]"), "word")
    assert (found["execution_success"], found["tool_accuracy"], found["answer_quality"]) == (
        0,
        0.5,
        0,
    )


def test_the_final_answer_counts_only_when_the_episode_reaches_it():
    assert scores(run(final="It is {}, I think."), "word")["answer_quality"] == 1
    assert scores(run(final="No idea."), "word")["answer_quality"] == 0
    evaluation = run(final=GOLD["How much is 7*6?"])
    assert scores(evaluation, "word")["answer_quality"] == 0
    assert evaluation.samples[1].outcome == "too_many_turns"
    guessed = scores(run(word="It is 42."), "word")
    assert (guessed["answer_quality"], guessed["tool_accuracy"]) == (1, 0)


def test_without_tools_neither_execution_nor_answers_are_measured():
    evaluation = run(registry=None)
    assert evaluation.metrics["execution_success"] == UNMEASURED
    assert evaluation.metrics["answer_quality"] == UNMEASURED
    assert evaluation.metrics["exact_match"].value == 1.0
    assert all(sample.reasons == () for sample in evaluation.samples)
    assert evaluation.outcomes == {"answered": 2, "called": 5}


def test_an_answer_is_not_asked_for_where_the_tools_that_lead_to_it_cannot_run():
    for registry in (Registry([]), Registry([WEATHER])):
        evaluation = run(registry=registry)
        assert evaluation.metrics["answer_quality"] == UNMEASURED
        assert evaluation.samples[1].outcome == "called"
    plain_question = task("word", "How much is 7*6?", (), {"answer": "42"})
    found = scores(evaluate(scripted_policy(lambda _: "42"), [plain_question]), "word")
    assert found == {"valid_format": 1, "answer_quality": 1}


def test_a_cut_off_reply_is_judged_by_what_it_contains():
    policy = scripted_policy(playing(GOLD), max_tokens=5)
    evaluation = evaluate(policy, TASKS, REGISTRY)
    assert evaluation.outcomes["truncated"] >= 5
    assert evaluation.metrics["tool_accuracy"].value == 0
    assert evaluation.metrics["valid_format"].value < 1


def test_a_context_that_is_full_from_the_start_scores_nothing():
    evaluation = evaluate(scripted_policy(playing(GOLD), max_context=3), TASKS, REGISTRY)
    assert evaluation.outcomes == {"no_room": 7}
    assert {name: evaluation.metrics[name].value for name in METRICS} == dict.fromkeys(METRICS, 0.0)


def test_an_evaluation_is_the_same_every_time_and_reports_progress():
    seen: list[tuple] = []

    class Noting(Progress):
        def start(self, what: str, total: int, done: int = 0) -> None:
            seen.append((what, total, done))

        def advance(self, count: int = 1, note: str = "") -> None:
            seen.append((count, note))

    progress = Noting()
    first = evaluate(scripted_policy(playing(GOLD)), TASKS, REGISTRY, progress)
    assert seen == [("evaluating", 7, 0), *[(1, "")] * 7]
    assert first == evaluate(scripted_policy(playing(GOLD)), TASKS, REGISTRY)
    assert first.samples[0].seed == 11


def test_tasks_that_cannot_be_joined_or_played_are_refused():
    policy = scripted_policy(playing(GOLD))
    with pytest.raises(DataError, match="the task id 'hi' occurs more than once"):
        evaluate(policy, [TASKS[5], TASKS[5]], REGISTRY)
    with pytest.raises(DataError, match="there are no tasks"):
        evaluate(policy, [], REGISTRY)
    with pytest.raises(DataError, match="'s' has a final state"):
        evaluate(policy, [task("s", "x", TOOLS, {"state": {}})], REGISTRY)


# Final answers.


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("That makes 1,234.50 dollars.", "1234.5"),
        ("x = 42", "42.0"),
        ("It is **-5**.", "-5"),
        ("about $5", "$5.00"),
        ("50% of it", "50 %"),
        ("between 3-5", "5"),
        ("1e3 times", "1,000"),
        ("It is  PARIS.", "paris"),
        ("Caf\u00e9 au lait", "Cafe\u0301"),
        ("The answer is: a red car!", "red car"),
    ],
)
def test_a_text_carries_the_number_by_value_or_the_words(text, answer):
    assert carries_answer(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "5"),
        ("5", ""),
        ("15", "5"),
        ("5.5", "5"),
        ("v1.5.2", "5"),
        ("v1.5.2", "5.2"),
        ("-5", "5"),
        ("5", "-5"),
        ("1,234", "234"),
        ("five", "5"),
        ("I know", "no"),
        ("red, car", "red car"),
        ("a5b", "5"),
    ],
)
def test_a_text_does_not_carry_other_numbers_or_parts_of_words(text, answer):
    assert not carries_answer(text, answer)


def test_numbers_of_any_length_are_read_in_bounded_time():
    assert find_numbers("9" * 500) == [math.inf]
    assert len(find_numbers("1,222" * 20_000 + "-" * 50_000)) >= 1


# The lenient reader.


@pytest.mark.parametrize(
    "text",
    [
        '</tool_call>\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
        '{"name": "f", "arguments": {"a": 1}}</tool_call>',
        'Sure! ```json\n{"name": "f", "parameters": {"a": 1}}\n```',
        '[{"function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]',
        'I call {"tool": "f", "args": {"a": 1}} now',
        "f(a=1)",
        '<think>f(a=2)?</think>\n{"name": "f", "arguments": {"a": 1}}',
    ],
)
def test_the_lenient_reader_finds_a_call_in_any_text(text):
    assert [ToolCall("f", {"a": 1})] in read_leniently([text], {"f"})


def test_the_lenient_reader_passes_over_calls_of_tools_that_are_not_on_offer():
    text = '{"name": "Bob", "arguments": {}}\n{"name": "f", "arguments": {}}'
    assert all(call.name == "f" for calls in read_leniently([text], {"f"}) for call in calls)
    assert any(read_leniently([text], {"f"}))


def test_the_lenient_reader_does_not_see_calls_in_prose():
    assert not any(read_leniently(["If f(x) holds {see: g}, print it (a = 1). {}"], {"f", "g"}))


@pytest.mark.parametrize(
    "text",
    ["{" * 50_000, '{"a":' * 20_000, "[" * 50_000, "f(" * 20_000, "\ud800{", "<tool_call>" * 5000],
)
def test_the_lenient_reader_survives_hostile_text(text):
    assert not any(read_leniently([text], {"f"}))


# The folder.


def test_the_folder_gives_back_the_same_evaluation(tmp_path):
    evaluation = run(rome=write(("weather", {"city": "Paris"})))
    folder = write_folder(evaluation, tmp_path / "evaluation", certificate={"name": "tagged"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "certificate.json",
        "metrics.json",
        "samples.csv",
        "samples.jsonl",
    ]
    assert read_folder(folder) == evaluation
    assert json.loads((folder / "metrics.json").read_text()) == evaluation.to_dict()
    assert json.loads((folder / "certificate.json").read_text()) == {"name": "tagged"}


def test_metrics_on_disk_are_null_where_they_were_not_measured(tmp_path):
    folder = write_folder(run(registry=None), tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == 7
    assert set(metrics["metrics"]) == {*METRICS, *RATES}
    assert set(metrics["metrics"]["exact_match"]) == {"value", "low", "high", "n"}
    assert metrics["metrics"]["answer_quality"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    assert metrics["by_category"]["chat"]["no_call_accuracy"]["n"] == 2
    assert not (folder / "certificate.json").exists()


def test_samples_have_the_promised_keys_and_columns(tmp_path):
    folder = write_folder(run(hi='say "hi",\nplease'), tmp_path)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    keys = {
        "id",
        "category",
        "seed",
        "query",
        "text",
        "calls",
        "expected",
        "outcome",
        "scores",
        "reasons",
        "offered",
        "familiar",
        "error",
        "cluster",
        "prompt_tokens",
    }
    assert all(set(sample) - {"turns"} == keys for sample in samples)
    assert samples[0]["calls"] == [{"name": "calculator", "arguments": {"expression": "24 * 15"}}]
    rows = list(csv.DictReader(io.StringIO((folder / "samples.csv").read_text())))
    assert list(rows[0]) == [
        "query",
        "predicted_text",
        "extracted_calls",
        "expected_calls",
        "match",
    ]
    assert json.loads(rows[0]["expected_calls"]) == [
        {"name": "calculator", "arguments": {"expression": "15*24"}}
    ]
    assert (rows[5]["predicted_text"], rows[5]["match"]) == ('say "hi",\nplease', "True")


def test_a_folder_with_an_evaluation_is_overwritten_only_on_request(tmp_path):
    write_folder(run(), tmp_path, certificate={"name": "tagged"})
    with pytest.raises(RunError, match="holds an evaluation already"):
        write_folder(run(hi=""), tmp_path)
    assert read_folder(tmp_path) == run()
    write_folder(run(hi=""), tmp_path, overwrite=True)
    assert read_folder(tmp_path) == run(hi="")
    assert not (tmp_path / "certificate.json").exists(), (
        "a fingerprint of the evaluation that was overwritten must not stay"
    )


def test_what_is_no_evaluation_folder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(RunError, match="not an evaluation folder"):
        read_folder(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="this is a file"):
        write_folder(run(), tmp_path / "file")
    write_folder(run(), tmp_path)
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    (tmp_path / "samples.jsonl").write_text(
        "\n".join([lines[0], lines[1].replace('"scores"', '"marks"')])
    )
    with pytest.raises(
        DataError,
        match=r"samples.jsonl, line 2: not a sample of an evaluation: the key 'scores' is missing",
    ):
        read_folder(tmp_path)


def test_hostile_model_output_can_be_written_and_read_back(tmp_path):
    deep: object = 1
    for _ in range(3000):
        deep = [deep]
    arguments = {
        "nan": math.nan,
        "inf": -math.inf,
        "long": 10**5000,
        "half": "\ud800",
        "deep": deep,
        "bytes": b"x",
        "\udfff": {1, 2},
    }
    evaluation = run()
    sample = replace(
        evaluation.samples[0],
        calls=(ToolCall("f", arguments),),
        text="half \ud800\x00\r\n",
        query="=1+1",
    )
    folder = write_folder(Evaluation((sample,)), tmp_path)
    again = read_folder(folder).samples[0]
    assert again.text == "half \\ud800\x00\r\n"
    assert again.calls[0].arguments["nan"] == "nan"
    assert again.calls[0].arguments["half"] == "\\ud800"
    json.dumps(plain(arguments), allow_nan=False).encode("utf-8")


# Tables.


def shown(what: object) -> str:
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_every_metric_every_category_and_how_episodes_ended():
    text = shown(metrics_table(run(rome=write(("weather", {"city": "Paris"})))))
    for word in (*METRICS, *RATES, "chat", "math", "weather", "85.7", "3 answered"):
        assert word in text
    assert "-" in shown(metrics_table(run(registry=None)))


def test_the_table_says_why_no_execution_was_measured():
    empty = "execution_success is empty: nothing runs the wanted tools here ("
    assert empty in shown(metrics_table(run(registry=None)))
    assert empty not in shown(metrics_table(run()))
    assert empty not in shown(metrics_table(run(registry=None), ["exact_match"]))


def test_mismatches_show_what_was_expected_what_came_and_why():
    text = shown(mismatches(run(rome=write(("weather", {"city": "Paris"})), hi=""), 5))
    assert "2 of 7 tasks were not fully correct" in text
    assert re.search(r"^Exact Match Accuracy: 71\.43% \(5/7\)$", text, re.MULTILINE), text
    assert "weather(city='Rome')" in text
    assert "weather(city='Paris')" in text
    assert "'city' is 'Paris', wanted 'Rome'" in text
    assert "the reply is blank" in text
    assert "bye" not in shown(mismatches(run(hi=""), 5))
    assert "'city' is 'Paris', wanted 'Rome'" in shown(
        predictions(run(rome=write(("weather", {"city": "Paris"}))), 7)
    )


def test_a_sample_that_was_shown_is_not_shown_again():
    text = shown(mismatches(run(rome=write(("weather", {"city": "Paris"})), hi=""), 5, {"rome"}))
    assert "2 of 7 tasks were not fully correct" in text
    assert "the reply is blank" in text
    assert "wanted 'Rome'" not in text


def test_model_text_in_tables_is_neither_markup_nor_control_codes():
    text = shown(predictions(run(hi="[/red] [bold]x\x1b[31m\x07"), 7))
    assert "[/red] [bold]x" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_names_of_categories_are_no_markup():
    tasks = [replace(TASKS[5], category="[/red]"), replace(TASKS[6], category="[bold]b")]
    text = shown(metrics_table(run(tasks)))
    assert "[/red]" in text
    assert "[bold]b" in text


def test_predictions_are_spread_over_the_tasks():
    text = predictions(run(), 3).plain
    assert [line.split()[0] for line in text.splitlines() if line and not line.startswith(" ")] == [
        "sum",
        "rome",
        "find",
    ]
    assert predictions(run(), 0).plain == ""
    assert predictions(run(), 100).plain.count("expected:") == 7


# Answers from elsewhere.


def from_texts(**changes: str) -> list[dict]:
    return [{"id": t.id, "text": changes.get(t.id, GOLD[t.messages[-1].content])} for t in TASKS]


def from_calls() -> list[dict]:
    read = open_syntax("tagged").read
    return [
        {"id": t.id, "calls": [c.to_dict() for c in read(GOLD[t.messages[-1].content]).calls]}
        for t in TASKS
    ]


def test_texts_and_calls_score_like_the_same_replies_of_a_model():
    evaluation = run()
    texts = score(TASKS, from_texts(), "tagged", REGISTRY)
    calls = score(TASKS, from_calls(), registry=REGISTRY)
    for name in (
        "valid_format",
        "tool_accuracy",
        "argument_accuracy",
        "exact_match",
        "no_call_accuracy",
        "execution_success",
    ):
        assert texts.metrics[name] == calls.metrics[name] == evaluation.metrics[name]
    assert texts.metrics["both_right"].value == 1
    assert calls.metrics["both_right"] == UNMEASURED


def test_predictions_are_joined_by_id_in_any_order():
    assert score(TASKS, from_texts()[::-1], "tagged") == score(TASKS, from_texts(), "tagged")


def test_calls_of_a_reply_that_cannot_be_read_are_not_run():
    ran = []
    tool = Tool("find", "", SEARCH.parameters, lambda query: ran.append(query))
    wanted = task("t", "x", (tool,), wants(("find", {"query": "cats"})))
    for text in (GOLD["Find cats"], GOLD["Find cats"] + "[/TOOL_CALL]"):
        score([wanted], [{"id": "t", "text": text}], "tagged", Registry([tool]))
    assert ran == ["cats"]


def test_nothing_is_run_when_no_registry_is_given():
    assert score(TASKS, from_calls()).metrics["execution_success"] == UNMEASURED


@pytest.mark.parametrize("name", sorted(SYNTAXES))
def test_every_syntax_reads_its_own_gold(name):
    syntax = open_syntax(name)
    read = open_syntax("tagged").read
    replies = {t.id: read(GOLD[t.messages[-1].content]) for t in TASKS}
    texts = [
        {"id": key, "text": syntax.write(reply.content, reply.calls)}
        for key, reply in replies.items()
    ]
    evaluation = score(TASKS, texts, name)
    assert evaluation.metrics["exact_match"].value == evaluation.metrics["both_right"].value == 1.0


def test_a_text_is_the_final_text_of_a_task_with_an_answer():
    answered = score(TASKS, from_texts(word="The answer is 42."), "tagged")
    assert (answered.metrics["answer_quality"].value, answered.metrics["answer_quality"].n) == (
        1.0,
        1,
    )
    assert score(TASKS, from_texts(), "tagged").metrics["answer_quality"].value == 0.0
    assert score(TASKS, from_calls()).metrics["answer_quality"] == UNMEASURED


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (from_texts()[2:], r"2 of 7 tasks have no prediction \('sum', 'word'\)"),
        (from_texts()[5:], r"5 of 7 tasks have no prediction \('sum', 'word', 'rome', ...\)"),
        ([*from_texts(), {"id": "x", "text": ""}], r"1 of 8 predictions have no task \('x'\)"),
        (
            [*from_texts()[1:], {"id": "x", "text": ""}],
            "have no prediction .* and 1 of 7 predictions have no task",
        ),
        ([*from_texts(), from_texts()[0]], "prediction 8: the id 'sum' occurs already"),
        ([{"text": "x"}], "prediction 1: a prediction needs an 'id'"),
        (["x"], "prediction 1: a prediction needs an 'id'; got 'x'"),
        ([{"id": "sum"}], "wanted either 'text' or 'calls', got neither"),
        (
            [{"id": "sum", "text": "", "calls": []}],
            "wanted either 'text' or 'calls', got text and calls",
        ),
        ([{"id": "sum", "text": None}], "'text' must be a string, got None"),
        ([{"id": "sum", "calls": {"name": "f"}}], "'calls' must be a list"),
        (
            [{"id": t.id, "calls": ["f"]} for t in TASKS],
            "the prediction 'sum': a tool call needs a 'name'",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused_in_one_sentence(rows, sentence):
    with pytest.raises(DataError, match=sentence):
        score(TASKS, rows, "tagged")


def test_texts_need_a_syntax_that_exists():
    with pytest.raises(DataError, match="name the call syntax"):
        score(TASKS, from_texts())
    with pytest.raises(DialectError, match="did you mean 'tagged'"):
        score(TASKS, from_texts(), "taged")


def test_tasks_with_several_turns_are_refused():
    turns = Task.from_dict(
        {"id": "m", "turns": [[{"role": "user", "content": "x"}]], "expect": [{"no_call": True}]}
    )
    with pytest.raises(DataError, match="'m' has several user turns"):
        score([turns], [{"id": "m", "text": "x"}], "tagged")
