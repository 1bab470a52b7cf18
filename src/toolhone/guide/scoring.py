"""Lesson 6: scoring answers that were made elsewhere. No model is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolhone.evaluation.score import score
from toolhone.guide.lesson import Desk, Lesson, Scores, Shown, Text, Typed, write_rows
from toolhone.sources.files import read_tasks
from toolhone.tools.registry import Registry

NAME = "scoring"
TOOLS = ("calculator", "weather")
PRODUCT = {"calls": [{"name": "calculator", "arguments": {"expression": "48 * 17"}}]}
OSLO = {"calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
BOTH = {"calls": [*PRODUCT["calls"], *OSLO["calls"]]}
CASES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    (
        "right",
        "What is 48 * 17?",
        PRODUCT,
        '{"tool": "calculator", "args": {"expression": "48 * 17"}}',
    ),
    (
        "spelled-otherwise",
        "What is 48 * 17?",
        PRODUCT,
        '{"tool": "calculator", "args": {"expression": "48*17"}}',
    ),
    (
        "wrong-city",
        "How is the weather in Oslo?",
        OSLO,
        '{"tool": "weather", "args": {"city": "Oshawa"}}',
    ),
    (
        "invented-argument",
        "How is the weather in Oslo?",
        OSLO,
        '{"tool": "weather", "args": {"city": "Oslo", "mood": "good"}}',
    ),
    (
        "no-such-tool",
        "How is the weather in Oslo?",
        OSLO,
        '{"tool": "wether", "args": {"city": "Oslo"}}',
    ),
    ("broken", "What is 48 * 17?", PRODUCT, '{"tool": "calculator", "args": {"expression": "48 *'),
    ("only-words", "What is 48 * 17?", PRODUCT, '{"final": "That is 816."}'),
    (
        "one-of-two",
        "What is 48 * 17, and how is Oslo?",
        BOTH,
        '{"tool": "weather", "args": {"city": "Oslo"}}',
    ),
    (
        "needless",
        "Thanks, that is all.",
        {"no_call": True},
        '{"tool": "weather", "args": {"city": "Oslo"}}',
    ),
    ("rightly-none", "Thanks, that is all.", {"no_call": True}, '{"final": "You are welcome."}'),
)
"""Name of the task, question, what counts as right, and what somebody's model wrote."""


def tasks_and_answers() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the two files."""
    tools = [tool.to_dict() for tool in Registry(TOOLS).tools]
    tasks = [
        {
            "id": name,
            "messages": [{"role": "user", "content": question}],
            "tools": tools,
            "expect": expect,
            "category": _kind(expect),
        }
        for name, question, expect, _ in CASES
    ]
    return tasks, [{"id": name, "text": text} for name, _, _, text in CASES]


def _play(desk: Desk) -> Iterator[Shown]:
    tasks, answers = tasks_and_answers()
    task_file, answer_file = (
        write_rows(desk, NAME, f"{what}.jsonl", rows)
        for what, rows in (("tasks", tasks), ("answers", answers))
    )
    yield Text(
        "A task file says what counts as right; here without the tools, which stand in each row in full:"
    )
    yield Typed(
        "\n".join(
            f"{name:18s} {question:34s} {_short(expect)}" for name, question, expect, _ in CASES
        ),
        "text",
        str(task_file),
    )
    yield Text("The answers: a task's id, and the raw text that some model wrote for it.")
    yield Typed(answer_file.read_text(encoding="utf-8"), "json", str(answer_file))
    yield Typed(
        f"toolhone score --tasks {task_file} --predictions {answer_file} --dialect json --tools {','.join(TOOLS)}"
    )
    yield Scores(
        "What they are worth",
        score(read_tasks(task_file), answers, "json", Registry(TOOLS)),
        mistakes=len(CASES),
    )


def _kind(expect: dict[str, Any]) -> str:
    return "call" if "calls" in expect else "no call"


def _short(expect: dict[str, Any]) -> str:
    calls = [
        f"{call['name']}({', '.join(f'{k}={v!r}' for k, v in call['arguments'].items())})"
        for call in expect.get("calls", [])
    ]
    return "; ".join(calls) or "no call"


LESSON = Lesson(
    NAME,
    "Scoring answers made elsewhere",
    "seconds",
    about="""\
A score needs no model: only what was asked, what counts as right, and what was written. So answers of any program, of a
service or of a person can be scored with the same numbers as a training here. Ten answers, seven of them with a typical flaw,
show what each number counts.""",
    look="""\
- `valid_format` is lost three times: by the answer that breaks off, by a tool that is not on offer, and by words where a call
  was wanted.
- `tool_accuracy` and `argument_accuracy` tell a wrong tool from a wrong value; `exact_match` wants all of it right.
- `spelled-otherwise` is right: 48*17 is the same expression as 48 * 17.
- `execution_success` ran the calls that could be read: one with an argument that does not exist is refused by the tool.
- The intervals: with ten answers they are wide. docs/metrics.md defines every number.""",
    then="""\
Change a line of {root}/scoring/answers.jsonl, and score again:
toolhone score --tasks {root}/scoring/tasks.jsonl --predictions {root}/scoring/answers.jsonl --dialect json --json
toolhone eval {root}/calculator/run --tasks {root}/scoring/tasks.jsonl  # what does your own model do with them?""",
    play=_play,
)
