"""Prompt rows of GRPO training: split, checked, and every row kept or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.shape_rows import (
    FACTORIAL,
    FIVE,
    NEWER,
    PROMPT,
    SEVEN,
    counted,
    only,
    same_again,
    save,
)
from toolhone.errors import FindingKind
from toolhone.schema import Expect
from toolhone.sources.formats import open_source
from toolhone.sources.prompt_rows import PromptText, read_python_calls, split_prompt


def test_a_prompt_is_split_into_system_tools_and_question(tmp_path: Path) -> None:
    loaded = open_source(save(tmp_path / "p.jsonl", PROMPT))
    talk = only(loaded)
    assert [(m.role, m.content) for m in talk.messages] == [
        ("system", "You may use these [few] functions."),
        ("user", "What are 5! and 7!?"),
        ("assistant", None),
    ]
    assert [tool.name for tool in talk.tools] == ["factorial", "reverse"]
    assert talk.tools[0].parameters["properties"]["n"] == {
        "type": "integer",
        "description": "A number.",
    }
    assert talk.tools[0].parameters["required"] == ["n"]
    assert talk.source == "tool_calling"
    assert [task.expect for task in loaded.tasks] == [Expect((FIVE, SEVEN))]
    assert loaded.tasks[0].messages == talk.messages[:2]
    same_again(tmp_path, loaded)


def test_newer_rows_have_their_tools_beside_the_question_and_tags_around_calls(
    tmp_path: Path,
) -> None:
    loaded = open_source(save(tmp_path / "p.jsonl", NEWER))
    assert [(m.role, m.content) for m in only(loaded).messages] == [
        ("user", "What is 5!?"),
        ("assistant", None),
    ]
    assert loaded.tasks[0].expect == Expect((FIVE,))
    talk = only(
        open_source(
            save(
                tmp_path / "q.jsonl",
                {**NEWER, "answer": "Let me see.\n" + NEWER["answer"], "system": "Be brief."},
            )
        )
    )
    assert [m.content for m in talk.messages] == ["Be brief.", "What is 5!?", "Let me see."]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("factorial(5)\nfactorial(n=7)", [("factorial", {"n": 5}), ("factorial", {"n": 7})]),
        ("factorial(5, 'mm')", [("factorial", {"n": 5, "unit": "mm"})]),
        ("factorial(unit='mm', n=5)", [("factorial", {"unit": "mm", "n": 5})]),
        (
            "factorial(n=5); factorial (\n  n = 7,\n)",
            [("factorial", {"n": 5}), ("factorial", {"n": 7})],
        ),
        (
            "reverse(words=['a (b', \"c)\", '\\u00e9'])",
            [("reverse", {"words": ["a (b", "c)", "é"]})],
        ),
        ("reverse(('a', 'b'))", [("reverse", {"words": ["a", "b"]})]),
        ("Let me see.\nfactorial(n=5)", [("factorial", {"n": 5})]),
        ("factorial(n='5')", [("factorial", {"n": 5})]),
    ],
)
def test_answers_are_read_as_calls_with_literals(
    tmp_path: Path, answer: str, calls: list[Any]
) -> None:
    changes = {"answer": answer, "ground_truth": None, "ground_truth_text": None}
    talk = only(open_source(save(tmp_path / "p.jsonl", {**PROMPT, **changes})))
    assert [(call.name, call.arguments) for call in talk.messages[-1].tool_calls] == calls


@pytest.mark.parametrize(
    "answer", ["No function (of these) can help.", "Sorry (I cannot)", "Answer (5).", "O(n log n)"]
)
def test_an_answer_without_a_call_is_a_plain_reply(tmp_path: Path, answer: str) -> None:
    changes = {"answer": answer, "ground_truth": answer}
    loaded = open_source(save(tmp_path / "p.jsonl", {**PROMPT, **changes}))
    assert only(loaded).messages[-1].content == changes["answer"]
    assert loaded.tasks[0].expect == Expect(no_call=True)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"prompt": ""}, "not a prompt row", "wanted a text in 'prompt'"),
        ({"answer": None}, "not a prompt row", "wanted a text in 'answer'"),
        ({"type": "mcq"}, "a row of another type", "'mcq', wanted 'tool_call'"),
        ({"prompt": "What is 5!?"}, "a prompt without a list of tools", "What is 5!?"),
        ({"prompt": "What is in [1, 2]? [{}]"}, "a prompt without a list of tools", "What is in"),
        ({"prompt": json.dumps([FACTORIAL])}, "a prompt without a question", ""),
        (
            {"ground_truth": "reverse"},
            "ground_truth and answer contradict each other",
            "'reverse' is not called; called: factorial",
        ),
        (
            {"answer": "Sure.", "ground_truth": "reverse"},
            "ground_truth and answer contradict each other",
            "'reverse' is not called",
        ),
        (
            {"possible_boxed_answers": ["factorial"]},
            "possible_boxed_answers are not the tools on offer",
            "on offer: factorial, reverse",
        ),
        ({"answer": "factorial(n=__import__('os'))"}, "an answer that cannot be read", "not_json"),
        ({"answer": "factorial(n=5"}, "an answer that cannot be read", "unclosed"),
        (
            {"answer": "factorial(n=5, n=6)"},
            "an answer that cannot be read",
            "factorial is given 'n' twice",
        ),
        (
            {"answer": "factorial(5, n=6)"},
            "an answer that cannot be read",
            "factorial is given 'n' twice",
        ),
        (
            {"answer": "factorial(1, 'a', 3)"},
            "an answer that cannot be read",
            "factorial takes fewer values",
        ),
        ({"answer": "<tool_call>\n{\n</tool_call>"}, "an answer that cannot be read", "not_json"),
        (
            {"answer": "facorial(n=5)"},
            FindingKind.UNKNOWN_TOOL,
            "'facorial' (did you mean 'factorial'?)",
        ),
        (
            {"answer": "factorial(n='five')"},
            FindingKind.BAD_ARGUMENTS,
            "'five' is not of type 'integer'",
        ),
        (
            {"answer": "factorial(unit='mm')"},
            FindingKind.BAD_ARGUMENTS,
            "'n' is a required property",
        ),
        (
            {"answer": "factorial(n=5, m=6)"},
            FindingKind.UNDECLARED_ARGUMENT,
            "factorial declares no argument 'm'",
        ),
    ],
)
def test_a_prompt_row_that_contradicts_itself_is_counted(
    tmp_path: Path, changes: Any, reason: str, detail: str
) -> None:
    counted(
        open_source(save(tmp_path / "p.jsonl", PROMPT, {**PROMPT, **changes}), "prompt_rows"),
        reason,
        detail,
    )


def test_the_raw_prompt_can_be_kept_unchanged(tmp_path: Path) -> None:
    loaded = open_source(
        save(tmp_path / "p.jsonl", PROMPT, {**PROMPT, "answer": ""}), raw_prompt=True
    )
    (talk,) = loaded.conversations
    assert [(m.role, m.content, m.tool_calls) for m in talk.messages] == [
        ("user", PROMPT["prompt"], ()),
        ("assistant", PROMPT["answer"], ()),
    ]
    assert talk.tools == ()
    assert loaded.tasks[0].expect == Expect(answer=PROMPT["answer"])
    assert loaded.skipped == {"not a prompt row": 1}
    same_again(tmp_path, loaded)


def test_an_empty_list_before_the_tools_is_text_and_a_system_field_counts(tmp_path: Path) -> None:
    assert split_prompt(f"Return [] if in doubt. {json.dumps([FACTORIAL])} Why?") == PromptText(
        "Return [] if in doubt.", [FACTORIAL], "Why?"
    )
    prompt = f"{json.dumps([FACTORIAL])}\n\nWhat is 5!?"
    changes = {"prompt": prompt, "system": "Be brief.", "possible_boxed_answers": None}
    talk = only(open_source(save(tmp_path / "p.jsonl", {**PROMPT, **changes})))
    assert [m.content for m in talk.messages[:2]] == ["Be brief.", "What is 5!?"]


def test_splitting_looks_at_a_bounded_number_of_brackets() -> None:
    assert split_prompt("[" * 100_000) is None
    assert read_python_calls("f(" * 50_000, ()) is None
