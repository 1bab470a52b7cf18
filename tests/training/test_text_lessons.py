"""Self-taught calls in plain text: how calls are written and read, which are proposed, what the
filter measures, and that a model which calls gets its results.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import Lines
from support.scripted import ScriptedSampler, byte_tokenizer
from toolhone.api import experiment, train
from toolhone.backends.base import ModelInfo
from toolhone.backends.open import open_sampler
from toolhone.config.sections import ModelSection
from toolhone.config.small_sections import TeacherSection
from toolhone.data.plain_texts import PlainText, read_plain_texts
from toolhone.errors import ConfigError, DataError
from toolhone.models.pico import pico_folder
from toolhone.rows import Origin, Row
from toolhone.schema import Tool, ToolCall
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.inline_calls import (
    InlineCall,
    Proposer,
    continue_texts,
    number_calls,
    read_call,
    spans_of,
    write_call,
)
from toolhone.training.loop import Hooks
from toolhone.training.text_lessons import WEIGHTS, TextLessons, begins_with, judge_calls

REGISTRY = Registry(["calculator"])
TOOLS = REGISTRY.tools
BOOK = Tool.of(
    {
        "name": "book",
        "parameters": {"properties": {"city": {"type": "string"}, "n": {"type": "integer"}}},
    }
)
TEXT = "3 boxes of 4 pens are 12 pens"
PLACE = TEXT.index(" 12")


def product(result: str = "12") -> InlineCall:
    return InlineCall(PLACE, ToolCall("calculator", {"expression": "3*4"}), result)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (ToolCall("calculator", {"expression": "3*(4+1)"}), "calculator(3*(4+1))"),
        (ToolCall("book", {"city": "Oslo", "n": 2}), 'book({"city": "Oslo", "n": 2})'),
        (ToolCall("book", {"city": "Oslo"}), 'book({"city": "Oslo"})'),
    ],
)
def test_a_call_in_a_text_is_read_as_it_was_written(call: ToolCall, text: str) -> None:
    tools = [*TOOLS, BOOK]
    assert write_call(call, tools) == text
    assert read_call(f"so [{text} -> 15] it is", tools) == call
    assert read_call(f"so [{text}] it is", tools) == call


@pytest.mark.parametrize("text", ["[calculator()]", "[other(3)]", "[book({)]", "calculator(3)", ""])
def test_what_is_no_call_of_a_tool_is_not_read(text: str) -> None:
    assert read_call(text, [*TOOLS, BOOK]) is None


def test_results_inside_a_text_are_not_trained_on() -> None:
    tokenizer = byte_tokenizer()
    row = tokenizer.encode_spans(spans_of(TEXT, [product()], TOOLS))
    whole = "3 boxes of 4 pens are [calculator(3*4) -> 12] 12 pens"
    assert tokenizer.decode(row.tokens.tolist()) == whole
    assert row.origin is not None
    assert tokenizer.decode(row.tokens[row.origin == Origin.TOOL].tolist()) == " 12]"
    assert row.mask[1:].tolist() == (row.origin == Origin.SAMPLED)[1:].tolist()


def test_the_rule_for_numbers_proposes_operations_on_the_numbers_before() -> None:
    calls = [(place, one["expression"]) for place, _, one in number_calls("3 and 4 make 12.")]
    at_4, at_12 = 5, 12
    assert [one for place, one in calls if place == at_4] == ["3+3", "3*3"]
    assert [one for place, one in calls if place == at_12] == [
        *("3+3", "3*3", "3+4", "3*4", "3-4", "3/4", "4-3", "4/3", "4+4", "4*4")
    ]


class Known(ScriptedSampler):
    """A sampler whose losses are written down: the first token after a call costs what `costs` says
    of the text before it, and each next one 1 less.
    """

    info = ModelInfo(vocab_size=330)

    def __init__(self, costs: dict[str, float], script: Any = lambda _: "") -> None:
        super().__init__(script)
        self.costs = costs

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Any]:  # noqa: ARG002
        found = []
        for row in rows:
            first = int(np.flatnonzero(row.mask)[0])
            before = byte_tokenizer().decode(row.tokens[:first].tolist())
            values = np.zeros(len(row), np.float32)
            cost = self.costs[before]
            for place in np.flatnonzero(row.mask):
                values[place] = -(cost - (place - first))
            found.append(values)
        return found


HEAD = TEXT[:PLACE]
COSTS = {
    HEAD: 8.0,
    f"[calculator(3*4)] {HEAD}": 7.0,
    f"[calculator(3*4) -> 12] {HEAD}": 5.5,
    f"{HEAD} [calculator(3*4)]": 6.0,
    f"{HEAD} [calculator(3*4) -> 12]": 5.0,
}


@pytest.mark.parametrize(
    ("before", "none", "without", "with_result"), [(True, 8, 7, 5.5), (False, 8, 6, 5)]
)
def test_the_filter_compares_weighted_losses_of_five_tokens(
    before: bool, none: float, without: float, with_result: float
) -> None:
    texts, calls = [PlainText("a", TEXT)], [[product()]]
    ((one,),) = judge_calls(Known(COSTS), byte_tokenizer(), texts, calls, TOOLS, before)
    # weights 1, .8, .6, .4, .2 over 3: a loss of c, c - 1, ... is c - (.8 + 1.2 + 1.2 + .8) / 3
    shift = 4 / 3
    assert pytest.approx([1, 0.8, 0.6, 0.4, 0.2]) == WEIGHTS * 3
    assert [one.none, one.without_result, one.with_result] == pytest.approx(
        [none - shift, without - shift, with_result - shift], abs=1e-6
    )
    assert one.drop == pytest.approx(without - with_result, abs=1e-6)


def test_the_losses_of_the_filter_are_those_of_pico() -> None:
    folder = str(pico_folder(0))
    tokenizer = TextTokenizer.load(folder)
    sampler = open_sampler(folder, ModelSection(), None, 0)
    texts, calls = [PlainText("a", TEXT)], [[product()]]
    ((one,),) = judge_calls(sampler, tokenizer, texts, calls, TOOLS, before=False)
    pieces = {
        "none": [HEAD],
        "without_result": [HEAD, " [calculator(3*4)]"],
        "with_result": [HEAD, " [calculator(3*4) ->", " 12]"],
    }
    for name, before in pieces.items():
        ids = tokenizer.encode(before[0])
        for piece in before[1:]:
            ids += tokenizer.encode(piece)
        start, ids = len(ids), ids + tokenizer.encode(TEXT[PLACE:])
        row = Row.of(ids, [place >= start for place in range(len(ids))])
        (values,) = sampler.logprobs([row])
        tail = values[start : start + 5]
        wanted = -float(tail @ WEIGHTS[: len(tail)])
        assert getattr(one, name) == pytest.approx(wanted, abs=1e-4)


def lessons_of(sampler_plan: dict[str, Any], texts: Sequence[PlainText]) -> TextLessons:
    teacher = {"source": "text", **sampler_plan}
    training = {"method": "teacher"}
    plan = experiment({"training": training, "teacher": teacher, "tools": ["calculator"]})
    hooks = Hooks(lambda _: ({}, []), lambda *_: None, Lines())
    return TextLessons((texts, ()), byte_tokenizer(), REGISTRY, hooks, plan)


def test_only_results_that_help_are_kept_and_all_others_are_counted() -> None:
    lessons = lessons_of({"candidates": "numbers", "min_drop": 1.0}, [PlainText("a", TEXT)])

    class Helped(Known):
        def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Any]:
            for row in rows:
                first = int(np.flatnonzero(row.mask)[0])
                text = byte_tokenizer().decode(row.tokens[:first].tolist())
                self.costs[text] = 6.5 if "-> 12]" in text else 8.0
            return super().logprobs(rows, temperature)

    (record,) = lessons.write(Helped({}), 2, 0)
    assert [one["text"] for one in record["calls"]] == ["[calculator(3*4) -> 12]"]
    assert (record["proposed"], record["ran"], record["kept"]) == (12, 12, 1)
    assert record["reasons"] == {"results that lower the loss by less than min_drop": 11}
    assert record["means"]["kept_drop"] == pytest.approx([1.5])
    (row,) = record["rows"]
    text = byte_tokenizer().decode(row["tokens"])
    assert text == "3 boxes of 4 pens are [calculator(3*4) -> 12] 12 pens"


def test_calls_that_fail_are_counted_and_never_kept(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text(
        "def rule(text):\n"
        "    return [(5, 'calculator', {'expression': '1/0'}), (5, 'calculator', {'n': 1}),\n"
        "            (5, 'nothing', {}), (0, 'calculator', {'expression': '1'})]\n"
    )
    candidates = f"{tmp_path}/rule.py:rule"
    (record,) = lessons_of({"candidates": candidates}, [PlainText("a", TEXT)]).write(
        Known({}), 1, 0
    )
    assert (record["proposed"], record["ran"], record["kept"]) == (3, 0, 0)
    assert record["reasons"] == {
        "calls proposed twice, or at no place inside the text": 1,
        "calls that ended as error": 1,
        "calls that ended as invalid_arguments": 1,
        "calls that ended as unknown_tool": 1,
    }


def test_a_model_is_asked_for_calls_where_it_likely_begins_one() -> None:
    class Willing(ScriptedSampler):
        info = ModelInfo(vocab_size=330)

        def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Any]:  # noqa: ARG002
            texts = [byte_tokenizer().decode(row.tokens.tolist()) for row in rows]
            likely = [np.log(0.5 if text.endswith("are [") else 0.01) for text in texts]
            return [
                np.where(row.mask, value / row.mask.sum(), 0.0)
                for row, value in zip(rows, likely, strict=True)
            ]

    sampler = Willing(lambda _: "calculator(3*4)] 12 pens")
    proposer = Proposer(TeacherSection(calls=1), TOOLS, byte_tokenizer(), 0)
    lost = [Counter[str]()]
    ((call,),) = proposer.propose(sampler, [PlainText("a", TEXT)], 1, 0, lost)
    assert (call.place, call.call.arguments) == (PLACE, {"expression": "3*4"})
    asked = byte_tokenizer().decode(sampler.asked[0][1])
    assert "Output: Anna buys 3 boxes of 14 pens each, which makes [calculator(3 * 14)]" in asked
    assert asked.endswith(f"Input: {TEXT}\nOutput: {HEAD} [")
    silent = Willing(lambda _: "nothing")
    assert proposer.propose(silent, [PlainText("a", TEXT)], 1, 0, lost) == [[]]
    assert lost[0] == {"samples that hold no call of a tool": 1}


def test_a_continuation_makes_the_calls_that_it_writes() -> None:
    def script(prompt: str) -> str:
        return " 12 pens" if prompt.endswith("-> 12]") else " [calculator(3*4) -> 99] so"

    sampler = Known({}, script)
    (reply,) = continue_texts(sampler, byte_tokenizer(), REGISTRY, [HEAD], 64)
    assert reply.startswith(" [calculator(3*4) -> 12] 12 pens")
    (_, first), (_, second) = sampler.asked
    assert second[: len(first)] == first, "what was sampled is not encoded again"


@pytest.mark.parametrize(
    ("reply", "right"), [(" 12 pens", True), (" 12.", True), (" 12.5", False), (" 120", False)]
)
def test_a_reply_is_right_if_it_begins_with_the_answer(reply: str, right: bool) -> None:
    assert begins_with(reply, "12") is right


def test_texts_are_read_and_what_is_no_text_is_counted(tmp_path: Path) -> None:
    rows = [
        {"text": TEXT, "answer": 12},
        {"text": " "},
        {"other": 1},
        {"text": "a b", "answer": "c"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts, skipped = read_plain_texts(path)
    assert [(one.text, one.answer, one.prompt) for one in texts] == [
        (TEXT, "12", HEAD),
        ("a b", "", ""),
    ]
    assert skipped == {"rows without a text": 2, "answers that the text does not hold": 1}
    (tmp_path / "lines.txt").write_text("one text\n\nanother\u2028 text\r\n")
    assert [one.text for one in read_plain_texts(tmp_path / "lines.txt")[0]] == [
        "one text",
        "another text",
    ]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no text"):
        read_plain_texts(tmp_path / "empty.txt")


def test_settings_that_cannot_propose_calls_are_refused() -> None:
    for plan, right in (
        ({"candidates": "guess"}, "none of model, numbers"),
        ({"candidates": "numbers"}, "add calculator"),
        ({}, "give teacher.examples for book"),
    ):
        with pytest.raises(ConfigError, match=right):
            Proposer(TeacherSection(**plan), [BOOK], byte_tokenizer(), 0)


def test_a_run_on_texts_warms_up_keeps_its_rounds_and_scores_answers(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"{n} and {n + 1} make {2 * n + 1} .", "answer": 2 * n + 1} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = {"source": "text", "rounds": 2, "warmup": 0.4, "candidates": "numbers", "tasks": 3}
    numbers = {"steps": 5, "batch_size": 2, "validate_every": 5, "lora": None, "log_every": 1}
    plan = experiment(
        {
            "model": {"name": "pico"},
            "tools": ["calculator"],
            "data": {"path": str(path)},
            "training": {"method": "teacher", **numbers},
            "teacher": teacher,
        }
    )
    run, status = train(plan, tmp_path / "run")
    assert status == "finished"
    lines = {
        kind: [one for one in run.metrics() if one["kind"] == kind]
        for kind in ("round", "train", "validation")
    }
    assert [one["step"] for one in lines["round"]] == [2, 3]
    assert all(one["proposed"] == 36 for one in lines["round"])
    assert len(lines["train"]) == 5
    assert {"answer_accuracy", "called", "loss"} <= lines["validation"][0].keys()
    assert len((run.folder / "teacher/round_2.jsonl").read_text().splitlines()) == 3
