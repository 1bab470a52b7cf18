"""The SFT array: questions for a calculator, for Python, or for no tool, with the expected answer of each.

    [{"id": "a1", "source": "gsm8k", "category": "calculator", "tool_needed": true, "tool": "calculator",
      "tool_args": {"expression": "48 + 48/2"}, "prompt": "...", "expected_answer": "72", "metadata": {"tolerance": 0.01}}]

`category` is `calculator` (`tool_args` {"expression"}), `python_exec` (tool `python`, {"code"}) or `no_tool` (both null). A row
becomes the question and the call, or for `no_tool` the expected answer as the reply, with the built-in calculator and Python on
offer; its task expects the call, or none. `data.sft_rows` writes this shape.

The fields are checked against each other, and rows that contradict themselves are counted and skipped:

* `category`, `tool_needed`, `tool` and the key of `tool_args` must agree.
* The expression must have a value. Where `expected_answer` is a number, the value must equal it, within `metadata.tolerance` where
  that is stated, else within 1e-6.
* The code must be Python. Where `expected_answer` has 1 to 1000 characters and the sandbox can run the code, its output must be
  that answer (white space at ends of lines aside; numbers by value). Code that the sandbox does not finish well is kept, and
  counted as not checked.

Not checked: whether the expression answers the question, and what a `no_tool` reply says.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Expect, Json, Message, Task, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.tasks import tasks_of
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

NAME = "sft_array"
ABOUT = About(
    title="the SFT array",
    link="",
    licence="as the data set",
    rows="any",
    teaches="when to use a calculator, when Python, and when neither",
)
USES: frozenset[str] = frozenset()
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


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a row of this shape"
    CATEGORY = "category, tool_needed and tool contradict each other"
    ARGUMENTS = "tool_args that are not those of the tool"
    NO_VALUE = "an expression that the calculator cannot compute"
    WRONG_VALUE = "an expression whose value is not the expected answer"
    NOT_PYTHON = "code that is not Python"
    WRONG_OUTPUT = "code whose output is not the expected answer"


class Note(StrEnum):
    """What could not be checked of a row that is kept."""

    NOT_RUN = "code whose output was not compared with the expected answer"


@dataclass(frozen=True)
class Example:
    """A row whose fields agree; `answer` is empty where none is expected, `call` None where no tool is needed."""

    prompt: str
    category: str
    call: ToolCall | None
    answer: str
    tolerance: float


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= {"prompt", "category", "tool_needed", "tool_args"} for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row that agrees with itself, with its task. The calls are run, many at the same time."""
    tally, registry = ReadStats(), Registry(TOOLS)
    rows = [(line, record, _example_or_skip(record)) for line, record in read_records(path)]
    calls = [
        found.call for _, _, found in rows if isinstance(found, Example) and found.call is not None
    ]
    results = iter(registry.run_all(calls))
    for line, record, found in rows:
        if isinstance(found, Skip):
            tally.skip(line, found)
            continue
        result = None if found.call is None else next(results)
        try:
            note = None if result is None else check_result(found, result)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            _keep(tally, line, record, found, registry)
            if note is not None:
                tally.note(note)
    return tally.loaded()


def _keep(
    tally: ReadStats, line: FileLine, record: Record, found: Example, registry: Registry
) -> None:
    """The row as a conversation; one without anything to say as a task."""
    identity, source = identity_of(line, record), str(record.get("source") or NAME)
    user = Message("user", found.prompt)
    if found.call is None and not found.answer:
        task = Task(
            identity,
            (user,),
            registry.tools,
            Expect(no_call=True),
            category=found.category,
            source=source,
        )
        tally.keep_tasks([task])
        return
    said = (
        Message("assistant", found.answer)
        if found.call is None
        else Message("assistant", tool_calls=(found.call,))
    )
    talk = Conversation((user, said), registry.tools, identity, source)
    tally.keep(line, talk, tasks_of(talk, found.category))


def _example_or_skip(record: Record) -> Example | Skip:
    try:
        return example_of(record)
    except Skip as skip:
        return skip


def example_of(record: Record) -> Example:
    """The fields of a row, checked against each other as far as that is possible without running anything."""
    prompt, category = record.get("prompt"), record.get("category")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted a text in 'prompt', got {prompt!r:.60}; keys {sorted(record)}",
        )
    if not isinstance(category, str) or category not in CATEGORIES:
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"category {category!r:.40}; known: {', '.join(CATEGORIES)}"
        )
    tool, key = CATEGORIES[category]
    needed, given = record.get("tool_needed"), record.get("tool")
    if needed is not (tool is not None) or (given or None) != tool:
        raise Skip(
            Reason.CATEGORY,
            f"category {category!r}, tool_needed {needed!r:.20}, tool {given!r:.40}",
        )
    call = None if tool is None or key is None else ToolCall(tool, {key: _argument(record, key)})
    if call is None and record.get("tool_args"):
        raise Skip(Reason.ARGUMENTS, f"no tool, but tool_args {record['tool_args']!r:.60}")
    if call is not None and tool == "python":
        _check_syntax(call.arguments["code"])
    return Example(prompt, category, call, _text(record.get("expected_answer")), _tolerance(record))


def _argument(record: Record, key: str) -> str:
    given = record.get("tool_args")
    if (
        not isinstance(given, dict)
        or list(given) != [key]
        or not isinstance(given[key], str)
        or not given[key].strip()
    ):
        raise Skip(Reason.ARGUMENTS, f"wanted {{{key!r}: a text}}, got {given!r:.60}")
    return str(given[key])


def _check_syntax(code: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Skip(Reason.NOT_PYTHON, f"{error}: {code!r:.60}") from None


def _text(answer: Json) -> str:
    if answer is not None and not isinstance(answer, str | int | float):
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"expected_answer must be a text or a number, got {answer!r:.60}",
        )
    return "" if answer is None else str(answer).strip()


def _tolerance(record: Record) -> float:
    metadata = record.get("metadata")
    stated = metadata.get("tolerance") if isinstance(metadata, dict) else None
    if stated is None:
        return TOLERANCE
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated < 0:
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"metadata.tolerance must be a number of at least 0, got {stated!r:.40}",
        )
    return float(stated)


def check_result(found: Example, result: ToolResult) -> Note | None:
    """The result of a row's call against its expected answer: `Skip` for a contradiction, a note for what was not compared."""
    assert found.call is not None
    shown = f"{str(*found.call.arguments.values())!r:.60}"
    if found.call.name == "calculator":
        if result.outcome is not ToolStatus.OK:
            raise Skip(Reason.NO_VALUE, f"{shown}: {result.content:.120}")
        if as_number(found.answer) is not None and not same_answer(
            result.content, found.answer, found.tolerance
        ):
            raise Skip(
                Reason.WRONG_VALUE,
                f"{shown} gives {result.content:.40}, expected is {found.answer:.40}",
            )
        return None
    if not 0 < len(found.answer) <= _LONGEST_OUTPUT or result.outcome is not ToolStatus.OK:
        return Note.NOT_RUN
    if not same_answer(result.content, found.answer, found.tolerance):
        raise Skip(
            Reason.WRONG_OUTPUT,
            f"{shown} gives {result.content!r:.40}, expected is {found.answer!r:.40}",
        )
    return None


def same_answer(got: str, wanted: str, tolerance: float) -> bool:
    """Numbers within the tolerance; other texts line by line, white space at the ends aside."""
    first, second = as_number(got), as_number(wanted)
    if first is None or second is None:
        return _lines(got) == _lines(wanted)
    return abs(first - second) <= max(Decimal(tolerance), abs(second) * Decimal("1e-9"))


def as_number(text: str) -> Decimal | None:
    """The number that a text states, with or without a currency sign and commas between thousands; None for other texts."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("$", "", 1)
    return Decimal(plain) if _NUMBER.fullmatch(plain) else None


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
