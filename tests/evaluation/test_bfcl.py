"""BFCL: categories, our checker, and, where bfcl-eval is installed, its own verdicts.

The tests of the package itself need TOOLHONE_BFCL_PYTHON (`docs/bfcl.md`)."""

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.test_main import run
from support.bfcl_oracle import NEVER_RIGHT, right_answer, right_turns, spoiled
from toolhone.dialects.choose import open_syntax
from toolhone.episodes.policy import Prompt, Turn
from toolhone.errors import ConfigError, DataError, RunError
from toolhone.evaluation.bfcl_checker import check_entry, java_value, javascript_value
from toolhone.evaluation.bfcl_dialogues import Simulation, play_dialogues
from toolhone.evaluation.bfcl_official import (
    MULTI_TURN,
    SINGLE_TURN,
    Reply,
    bfcl_python,
    official_failures,
    package_environment,
    parse_categories,
    read_entries,
    task_of,
)
from toolhone.evaluation.bfcl_run import as_published, summarise
from toolhone.evaluation.metrics import JudgedEpisode
from toolhone.schema import Expect, Message, Tool, ToolCall

PYTHON = Path(os.environ.get("TOOLHONE_BFCL_PYTHON") or "nowhere")
official = pytest.mark.skipif(
    not PYTHON.is_file(), reason="TOOLHONE_BFCL_PYTHON names no Python with bfcl-eval"
)


def entry(parameters, identity="simple_python_0", name="f", required=()):
    schema = {"type": "dict", "properties": parameters, "required": list(required)}
    return {"id": identity, "function": [{"name": name, "parameters": schema}]}


def verdict(kind, choices, value, **more):
    schema = {"x": {"type": kind, **more}}
    return check_entry(entry(schema), [{"f": {"x": choices}}], [ToolCall("f", {"x": value})])


@pytest.mark.parametrize(
    ("kind", "choices", "value", "right"),
    [
        ("float", [5.0], 5, True),
        ("integer", [5], 5.0, False),
        ("integer", [1], True, False),
        ("integer", [5], "5", False),
        ("integer", [5], None, False),
        ("string", ["New York, NY"], "new york ny.", True),
        ("string", ["1.5"], "15", True),
        ("string", ["a"], "a\n", False),
        ("string", ["it's"], 'it"s', True),
        ("boolean", [True], True, True),
        ("array", ["my_list"], "my_list", True),
        ("array", ["my_list"], "My_List", False),
        ("dict", [{"a": [1, ""], "b": ["x y"]}], {"b": "XY"}, True),
        ("dict", [{"a": [1], "b": ["x"]}], {"b": "x"}, False),
        ("dict", [{"a": [1]}], {"a": True}, True),
    ],
)
def test_values_are_compared_as_the_official_checker_does(kind, choices, value, right):
    more = {"items": {"type": "string"}} if kind == "array" else {}
    assert verdict(kind, choices, value, **more) is right


@pytest.mark.parametrize(
    ("items", "choices", "value", "right"),
    [
        ("integer", [[1, 2]], [1, 2], True),
        ("integer", [[1, 2]], [2, 1], False),
        ("float", [[1.0, 2.5]], [1, 2.5], False),
        ("string", [["A b"]], ["ab"], True),
        ("array", [[["A"]]], [["a"]], False),
        ("dict", [[{"a": ["X"]}]], [{"a": "x"}], True),
        ("dict", [[{"a": ["X"]}]], [{"a": "x"}, {"a": "x"}], False),
    ],
)
def test_lists_are_compared_element_by_element(items, choices, value, right):
    assert verdict("array", choices, value, items={"type": items}) is right


def test_an_argument_may_be_left_out_only_where_the_answer_says_so():
    both = entry({"a": {"type": "integer"}, "b": {"type": "integer"}}, required=["a"])
    truth = [{"f": {"a": [1], "b": ["", 2]}}]
    assert check_entry(both, truth, [ToolCall("f", {"a": 1})])
    assert check_entry(both, truth, [ToolCall("f", {"a": 1, "b": 2})])
    assert not check_entry(both, truth, [ToolCall("f", {"b": 2})])
    assert not check_entry(both, truth, [ToolCall("f", {"a": 1, "c": 2})])
    assert not check_entry(both, [{"f": {"a": [1], "b": [2]}}], [ToolCall("f", {"a": 1})])


def test_parallel_calls_come_in_any_order_and_the_first_that_fits_is_taken():
    two = entry({"a": {"type": "integer"}}, "parallel_0")
    truth = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}]
    one, other = ToolCall("f", {"a": 1}), ToolCall("f", {"a": 2})
    assert check_entry(two, truth, [other, one])
    assert not check_entry(two, truth, [one, other]), "the wide answer takes the call first"
    assert not check_entry(two, truth, [one])


def test_relevance_asks_only_whether_there_is_a_call():
    call = ToolCall("anything", {})
    assert check_entry(entry({}, "irrelevance_0"), None, [])
    assert not check_entry(entry({}, "live_irrelevance_0-0-0"), None, [call])
    assert check_entry(entry({}, "live_relevance_0-0-0"), None, [call])
    assert not check_entry(entry({}, "live_relevance_0-0-0"), None, [])


@pytest.mark.parametrize(
    ("text", "kind", "items", "value"),
    [
        ("5L", "long", "", 5),
        ("5", "long", "", "5"),
        ("3.5f", "float", "", 3.5),
        ("true", "boolean", "", True),
        ("new int[]{1, 2}", "Array", "integer", [1, 2]),
        ('new ArrayList<>(Arrays.asList("a", "b"))', "ArrayList", "String", ["a", "b"]),
        ("new ArrayList<>() {{ add(1); add(2); }}", "ArrayList", "integer", [1, 2]),
        ("new ArrayList<>()", "ArrayList", "String", []),
        ('new HashMap<>() {{ put("k", 1); put("l", "v"); }}', "HashMap", "", {"k": 1, "l": "v"}),
        ("what", "HashMap", "", "what"),
    ],
)
def test_literals_of_java_are_read(text, kind, items, value):
    assert java_value(text, kind, items) == value


@pytest.mark.parametrize(
    ("text", "kind", "items", "value"),
    [
        ("'a'", "String", "", "a"),
        ("5n", "Bigint", "", 5),
        ("[1, 'a', true]", "array", "", [1, "a", True]),
        ("[[1, 2], [3]]", "array", "array", [[1, 2], [3]]),
        ("new Array(1, 2)", "array", "integer", [1, 2]),
        ("{a: 1, 'b': [1, 2]}", "dict", "", {"a": 1, "b": [1, 2]}),
        ("f(x)", "dict", "", "f(x)"),
    ],
)
def test_literals_of_javascript_are_read(text, kind, items, value):
    assert javascript_value(text, kind, items) == value


def test_old_and_misspelled_names_become_todays_with_a_notice():
    notes = []
    assert parse_categories("simple, mutli_turn", notes.append) == ["simple_python", *MULTI_TURN]
    assert notes == [
        "bfcl: 'simple' is called 'simple_python' today",
        "bfcl: 'mutli_turn' is called 'multi_turn' today",
    ]
    assert parse_categories("parallel parallel", notes.append) == ["parallel"]
    with pytest.raises(ConfigError, match=r"no category 'paralel' \(did you mean 'parallel'\?\)"):
        parse_categories("paralel", notes.append)
    with pytest.raises(ConfigError, match="--bfcl needs a category"):
        parse_categories(" ", notes.append)


def test_functions_of_an_entry_are_shown_as_bfcl_writes_them():
    bare = entry({"x": {"type": "float", "default": "1"}, "y": {"type": "tuple"}})
    entries = [bare | {"question": [[{"role": "user", "content": "f?"}]], "truth": [{"f": {}}]}]
    tasks = [task_of(one) for one in entries]
    (tool,) = as_published(entries, tasks)(tasks[0].tools)
    assert tool.parameters == bare["function"][0]["parameters"]
    assert tasks[0].tools[0].properties["x"]["type"] == "number"
    others = (Tool("g"),)
    assert as_published(entries, tasks)(others) == others


def test_sections_are_means_of_whole_categories_and_there_is_no_overall():
    def samples(category, correct, total, outcome="called"):
        return [
            JudgedEpisode(f"{category}_{i}", category, 0, "", "", (), Expect(no_call=True), outcome,
                          {"bfcl_accuracy": float(i < correct)})
            for i in range(total)
        ]  # fmt: skip

    found = summarise(
        [*samples("irrelevance", 3, 4, "malformed"), *samples("live_irrelevance", 1, 2)],
        ["irrelevance", "live_irrelevance"],
    )
    assert found["sections"] == {"irrelevance": pytest.approx((0.75 + 0.5) / 2)}
    assert found["categories"]["irrelevance"]["unread"] == 4, "they count as no call"
    assert summarise(samples("irrelevance", 3, 4), ["irrelevance"])["sections"] == {}


def test_score_gives_the_official_verdict_of_bfcl_tasks(tmp_path, capsys, monkeypatch):
    name = "BFCL_v4_simple_python.json"
    question = [[{"role": "user", "content": "?"}]]
    tasks = [
        {
            **entry({"a": {"type": "float"}}, f"simple_python_{i}", required=["a"]),
            "question": question,
        }
        for i in range(2)
    ]
    for one in tasks:
        one["function"][0]["description"] = "f"
        one["function"][0]["parameters"]["properties"]["a"]["description"] = "a"
    (tmp_path / "possible_answer").mkdir()
    answers = [{"id": one["id"], "ground_truth": [{"f": {"a": [5.0]}}]} for one in tasks]
    for path, rows in ((tmp_path / name, tasks), (tmp_path / "possible_answer" / name, answers)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = tmp_path / "answers.jsonl"
    calls = [[{"name": "f", "arguments": {"a": value}}] for value in (5, "5")]
    rows = [{"id": one["id"], "calls": made} for one, made in zip(tasks, calls, strict=True)]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("score", "--tasks", tmp_path / name, "--predictions", predictions, "--json")
    code, out, _ = run(capsys, monkeypatch, *command)
    metrics = json.loads(out)["metrics"]
    assert (code, metrics["bfcl_accuracy"]["value"], metrics["bfcl_accuracy"]["n"]) == (0, 0.5, 2)
    assert metrics["exact_match"]["value"] == 1.0, "ours reads '5' by the schema"


def test_wrong_use_of_bfcl_is_one_sentence(capsys, monkeypatch):
    for words, sentence in (
        (("--bfcl-python", "x"), "--bfcl-python belongs to --bfcl CATEGORIES"),
        (
            ("--bfcl", "live", "--tasks", "x"),
            "--bfcl brings its own tasks and verdicts; leave --tasks out",
        ),
        (("--bfcl", "live", "--tries", "2"), "--bfcl plays each entry once; leave --tries out"),
        (("--bfcl", "live", "--bfcl-python", "no"), "there is no program no"),
    ):
        code, out, err = run(capsys, monkeypatch, "eval", "pico", *words)
        assert (code, out) == (2, "")
        assert sentence in err.splitlines()[-1]


def test_official_files_go_below_bfcl_project_root(tmp_path, capsys, monkeypatch):
    seen = []

    def judge(_policy, categories, options, _progress):
        seen.append((categories, options.root))
        raise DataError("seen")

    monkeypatch.setattr("toolhone.cli.eval.evaluate_bfcl", judge)
    monkeypatch.setattr("toolhone.cli.eval.bfcl_python", lambda *_: Path("python"))
    words = ("eval", "pico", "--bfcl", "simple", "--out", tmp_path / "out")
    assert run(capsys, monkeypatch, *words)[0] == 2
    monkeypatch.setenv("BFCL_PROJECT_ROOT", str(tmp_path / "root"))
    assert run(capsys, monkeypatch, *words)[0] == 2
    assert seen == [("simple", tmp_path / "out" / "official"), ("simple", tmp_path / "root")]


def test_a_python_without_the_package_is_one_sentence(tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'No module named bfcl_eval' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(RunError, match="failed at 'entries': No module named bfcl_eval"):
        read_entries(bfcl_python(program, print), ["irrelevance"])


OFFICIAL_PROMPTS = """
import json, sys
from bfcl_eval.constants.default_prompts import DEFAULT_SYSTEM_PROMPT_FORMAT as form
from bfcl_eval.model_handler.utils import formulate_system_prompt
from bfcl_eval.utils import load_dataset_entry
prompts = {
    one["id"]: formulate_system_prompt(form, one["function"])
    for category in sys.argv[1:] for one in load_dataset_entry(category)
}
print(json.dumps(prompts))
"""


@official
@pytest.mark.slow
def test_the_dialect_bfcl_prompts_as_the_package_does(tmp_path):
    command = [str(PYTHON), "-I", "-c", OFFICIAL_PROMPTS, *SINGLE_TURN]
    made = subprocess.run(
        command, env=package_environment(tmp_path), capture_output=True, text=True, check=True
    )
    wanted, syntax = json.loads(made.stdout.splitlines()[-1]), open_syntax("bfcl")
    entries = read_entries(PYTHON, SINGLE_TURN)
    tasks = [task_of(one) for one in entries]
    show = as_published(entries, tasks)
    other = {task.id for task in tasks if syntax.instructions(show(task.tools)) != wanted[task.id]}
    assert len(entries) == len(wanted) == 3641
    assert other == {one["id"] for one in entries if not one["function"]}
    assert len(other) == 4, "entries without a function get no instructions"


@official
@pytest.mark.slow
def test_the_oracle_passes_all_entries_but_the_six_that_nothing_passes(tmp_path):
    entries = read_entries(PYTHON, SINGLE_TURN)
    answers = [right_answer(one) for one in entries]
    replies = [Reply(e["id"], [[a]]) for e, a in zip(entries, answers, strict=True)]
    failed = official_failures(PYTHON, tmp_path, "oracle_1", replies)
    assert (len(entries), set(failed)) == (3641, NEVER_RIGHT)
    assert all(task_of(one).tools or not one["function"] for one in entries)

    chosen = {one["id"] for one in [e for e in entries if e["id"] not in NEVER_RIGHT][::4]}
    replies = [
        Reply(e["id"], [[spoiled(e, a) if e["id"] in chosen else a]])
        for e, a in zip(entries, answers, strict=True)
    ]
    failed = official_failures(PYTHON, tmp_path, "spoiled", replies)
    assert set(failed) == NEVER_RIGHT | chosen
    assert len(entries) - len(failed) == 2726


@official
@pytest.mark.slow
def test_our_checker_agrees_with_the_official_one_on_edited_answers(tmp_path):
    """The whole comparison is benchmarks/bfcl_equal.py; here one edit of some Python entries."""
    wanted = [name for name in SINGLE_TURN if "java" not in name]
    entries = read_entries(PYTHON, wanted)
    rng, ours, replies = random.Random(0), {}, []
    for one in entries:
        answer = right_answer(one)
        calls = [] if isinstance(answer, str) else answer
        if calls and calls[0].arguments and rng.random() < 0.8:
            key = rng.choice([*calls[0].arguments])
            value = rng.choice([None, 1, 1.0, "x", str(calls[0].arguments[key]).upper(), [1], {}])
            calls = [ToolCall(calls[0].name, {**calls[0].arguments, key: value}), *calls[1:]]
        ours[one["id"]] = check_entry(one, one["truth"], calls)
        replies.append(Reply(one["id"], [[calls or "no call"]]))
    failed = official_failures(PYTHON, tmp_path, "edited", replies)
    assert {name for name, right in ours.items() if not right} == set(failed)
    assert 500 < len(failed) < 2500


@dataclass(frozen=True)
class Planned(Prompt):
    reply: Turn | None = None
    rest: tuple = ()


class RightDialogues:
    """A policy that plays the right turns of the entries, in the order in which they are opened."""

    def __init__(self, entries):
        self.waiting = [[step for turn in right_turns(one) for step in turn] for one in entries]
        self.queue, self.open_with = [], {}

    def open(self, messages, tools):
        key = messages[0].content
        began = any(message.role == "assistant" for message in messages)
        rest = self.open_with[id(messages[0])] if began else tuple(self.waiting.pop(0))
        assert key is not None
        return self._prompt(messages, tools, rest)

    def extend(self, prompt, turn, results):
        messages = (*prompt.messages, turn.message, *results)
        return self._prompt(messages, prompt.tools, prompt.rest)

    def _prompt(self, messages, tools, steps):
        step, *rest = steps
        calls = () if isinstance(step, str) else tuple(step)
        text = step if isinstance(step, str) else None
        turn = Turn(Message("assistant", text, tool_calls=calls), text or "call")
        self.open_with[id(messages[0])] = tuple(rest)
        return Planned(tuple(messages), tuple(tools), reply=turn, rest=tuple(rest))

    def fits(self, _prompt):
        return True

    def stream(self):
        return self

    def submit(self, key, prompt):
        self.queue.append((key, prompt))

    def poll(self):
        done, self.queue = [(key, prompt.reply) for key, prompt in self.queue], []
        return done

    def close(self):
        pass


@official
@pytest.mark.slow
def test_right_dialogues_pass_all_multi_turn_entries(tmp_path):
    entries = read_entries(PYTHON, MULTI_TURN)
    with Simulation(PYTHON, MULTI_TURN) as simulation:
        replies = play_dialogues(RightDialogues(entries), entries, simulation)
    assert official_failures(PYTHON, tmp_path, "multi", replies) == {}
    spoilt = [
        Reply(one.id, [["No."] for _ in one.turns] if index % 4 == 0 else one.turns)
        for index, one in enumerate(replies)
    ]
    failed = official_failures(PYTHON, tmp_path, "spoilt", spoilt)
    assert (len(entries), len(entries) - len(failed)) == (800, 600)


@official
def test_calls_that_are_no_functions_of_the_entry_are_never_evaluated(tmp_path):
    (one, *_) = read_entries(PYTHON, ["multi_turn_base"])
    trap = tmp_path / "trap"
    hostile = [
        ToolCall("__import__('os').system", {"command": f"touch {trap}"}),
        ToolCall("exec", {"source": f"open({str(trap)!r}, 'w')"}),
        ToolCall("ls", {f"a=open({str(trap)!r}, 'w'), b": 1}),
    ]
    with Simulation(PYTHON, ["multi_turn_base"]) as simulation:
        assert simulation.run(one["id"], hostile) == []
    replies = [Reply(one["id"], [[hostile] for _ in one["question"]])]
    failed = official_failures(PYTHON, tmp_path, "hostile", replies, partial=True)
    assert list(failed) == [one["id"]]
    assert not trap.exists()
