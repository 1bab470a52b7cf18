"""The SFT array: questions for a calculator, for Python, or for no tool, with their answers.

    [{"id": "a1", "source": "gsm8k", "category": "calculator", "tool_needed": true,
      "tool": "calculator", "tool_args": {"expression": "48 + 48/2"}, "prompt": "...",
      "expected_answer": "72", "metadata": {"tolerance": 0.01}}]

Categories: `calculator` (`tool_args` {"expression"}), `python_exec` (tool `python`, {"code"}),
`no_tool`. Calls are run in the sandbox and compared with `expected_answer` (numbers within
`metadata.tolerance`, else 1e-6); rows that contradict themselves are skipped. Code that the sandbox
cannot finish is not checked but noted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from toolhone.schema import Conversation, Expect, Message, Task, ToolCall
from toolhone.schema.python_text import parse_python
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Converted, Skip, Source, has_keys, tasks_of
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

TOLERANCE = 1e-6
CATEGORIES = {
    "calculator": ("calculator", "expression"),
    "python_exec": ("python", "code"),
    "no_tool": (None, None),
}
"""Category -> the tool and the key of its argument."""
TOOLS = ("calculator", "python")
_LONGEST_OUTPUT = 1000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
NOT_THIS_FORMAT = "not a row of this shape"
_ARGUMENTS = "tool_args that are not those of the tool"
NOT_RUN = "code whose output was not compared with the expected answer"


@dataclass(frozen=True)
class Example:
    """A row whose fields agree; `answer` may be empty, `call` is None if no tool is needed."""

    prompt: str
    category: str
    call: ToolCall | None
    answer: str
    tolerance: float


def prepare(records: Sequence[Record], context: Context) -> dict[str, Any]:  # noqa: ARG001
    """Run the calls of all rows, many at the same time."""
    registry, calls = Registry(TOOLS), []
    for record in records:
        try:
            call = example_of(record).call
        except Skip:
            continue  # `convert` counts the row
        calls += [] if call is None else [call]
    return {"registry": registry, "results": iter(registry.run_all(calls))}


def convert(record: Record, context: Context) -> Converted:
    example, tools = example_of(record), context.prepared["registry"].tools
    if example.call is not None:
        note = check_result(example, next(context.prepared["results"]))
        context.notes += [] if note is None else [note]
    identity, source = context.identity(record), str(record.get("source") or context.name)
    user, call, kind = Message("user", example.prompt), example.call, example.category
    if call is None and not example.answer:
        expect = Expect(no_call=True)
        task = Task(identity, (user,), tools, expect, category=kind, source=source)
        return Converted(tasks=[task])
    content, calls = (example.answer, ()) if call is None else (None, (call,))
    reply = Message("assistant", content, tool_calls=calls)
    conversation = Conversation((user, reply), tools, identity, source)
    return Converted(conversation, tasks_of(conversation, kind))


def example_of(record: Record) -> Example:
    """Read the fields of a row, and check them against each other."""
    prompt, category = record.get("prompt"), record.get("category")
    if not isinstance(prompt, str) or not prompt.strip():
        detail = f"wanted a text in 'prompt', got {prompt!r:.60}; keys {sorted(record)}"
        raise Skip(NOT_THIS_FORMAT, detail)
    if not isinstance(category, str) or category not in CATEGORIES:
        detail = f"category {category!r:.40}; known: {', '.join(CATEGORIES)}"
        raise Skip(NOT_THIS_FORMAT, detail)
    tool, key = CATEGORIES[category]
    needed, given, arguments = (record.get(name) for name in ("tool_needed", "tool", "tool_args"))
    if needed is not (tool is not None) or (given or None) != tool:
        detail = f"category {category!r}, tool_needed {needed!r:.20}, tool {given!r:.40}"
        raise Skip("category, tool_needed and tool contradict each other", detail)
    call = None
    if tool is None or key is None:
        if arguments:
            raise Skip(_ARGUMENTS, f"no tool, but tool_args {arguments!r:.60}")
    else:
        given = arguments if isinstance(arguments, dict) else {}
        text = given.get(key) if list(given) == [key] else None
        if not isinstance(text, str) or not text.strip():
            raise Skip(_ARGUMENTS, f"wanted {{{key!r}: a text}}, got {arguments!r:.60}")
        call = ToolCall(tool, {key: text})
    if call is not None and tool == "python":
        code = call.arguments["code"]
        try:
            parse_python(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Skip("code that is not Python", f"{error}: {code!r:.60}") from None
    answer = record.get("expected_answer")
    if not isinstance(answer, str | int | float | None):
        detail = f"expected_answer must be a text or a number, got {answer!r:.60}"
        raise Skip(NOT_THIS_FORMAT, detail)
    text, metadata = "" if answer is None else str(answer).strip(), record.get("metadata")
    stated = metadata.get("tolerance") if isinstance(metadata, dict) else None
    stated = TOLERANCE if stated is None else stated
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated < 0:
        detail = f"metadata.tolerance must be a number of at least 0, got {stated!r:.40}"
        raise Skip(NOT_THIS_FORMAT, detail)
    return Example(prompt, category, call, text, float(stated))


def check_result(example: Example, result: ToolResult) -> str | None:
    """Compare a result with the expected answer: `Skip`, or a note if it was not compared."""
    assert example.call is not None
    shown = f"{str(*example.call.arguments.values())!r:.60}"
    calculator, finished = example.call.name == "calculator", result.outcome is ToolStatus.OK
    if calculator and not finished:
        detail = f"{shown}: {result.content:.120}"
        raise Skip("an expression that the calculator cannot compute", detail)
    if calculator and as_number(example.answer) is None:
        return None
    if not calculator and (not finished or not 0 < len(example.answer) <= _LONGEST_OUTPUT):
        return NOT_RUN
    if same_answer(result.content, example.answer, example.tolerance):
        return None
    if calculator:
        detail = f"{shown} gives {result.content:.40}, expected is {example.answer:.40}"
        raise Skip("an expression whose value is not the expected answer", detail)
    detail = f"{shown} gives {result.content!r:.40}, expected is {example.answer!r:.40}"
    raise Skip("code whose output is not the expected answer", detail)


def same_answer(got: str, wanted: str, tolerance: float) -> bool:
    """Compare numbers within the tolerance, other texts without white space at line ends."""
    first, second = as_number(got), as_number(wanted)
    if first is None or second is None:
        lines = [[line.rstrip() for line in text.strip().splitlines()] for text in (got, wanted)]
        return lines[0] == lines[1]
    return abs(first - second) <= max(Decimal(tolerance), abs(second) * Decimal("1e-9"))


def as_number(text: str) -> Decimal | None:
    """Read a number, also with a dollar sign and commas between thousands; else None."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("$", "", 1)
    return Decimal(plain) if _NUMBER.fullmatch(plain) else None


METADATA = {"tolerance", "difficulty", "answer_type"}
KEYS = {"prompt", "category", "tool_needed", "tool", "tool_args", "expected_answer", "metadata"}
SFT_ARRAY = Source(
    "sft_array",
    has_keys("prompt", "category", "tool_needed", "tool_args"),
    convert,
    {"": KEYS, "metadata": METADATA},
    prepare,
)
