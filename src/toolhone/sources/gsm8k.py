"""GSM8K: grade-school problems whose solutions carry calculator marks, as conversations with the calculator tool.

    {"question": "...", "answer": "He ran 48/2 = <<48/2=24>>24 miles.\\n#### 24"}

Each mark becomes a call of `calculator`; the text before it stands beside the call, the calculator's own result follows as the tool
result, and the text after the mark (which repeats the result) opens the next assistant message. The last message ends in
"The answer is 24." With style `short` the text beside the calls is left out, for dialects that have no place for it.

Every mark is checked: its left side, run by the calculator, must give its right side (to the digits that it states). A mark
that the calculator cannot read (`$5*2`, `20%*50`, `3x4`, `[2+1]*2`) is mended only if its mended form gives what the mark states; a
mark that computes nothing (`<<26=26>>`) is plain text. Rows with any other mark or without a number after `####` are counted and
skipped. A row without a mark has no call to learn from and is kept for its task alone.

A row gives one task, which is played to its end with a live calculator: `expect.answer` is the number after `####`. There is more
than one right way to a result, so no calls are expected; with `first_call` the first step is expected as well. For the choice of
every single call, given the steps before it, use `sources.tasks.tasks_of` on the conversations. Source: Cobbe et al. 2021,
arXiv:2110.14168.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

NAME = "gsm8k"
ABOUT = About(
    title="GSM8K",
    link="https://github.com/openai/grade-school-math",
    licence="MIT",
    rows="8,792",
    teaches="calculator calls step by step in grade-school problems",
)
USES = frozenset({"style", "first_call"})
STYLES = ("calls", "short")
_MARK = re.compile(r"<<(.*?)>>", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_SIGNS = str.maketrans("[]{}", "()()")
_DECIMALS = re.compile(r"\.(\d+)$")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a GSM8K row"
    NO_ANSWER = "no number after ####"
    BROKEN_MARK = "a mark without its end, its beginning or its equals sign"
    UNREADABLE = "a mark that the calculator cannot read"
    WRONG = "a mark whose result is wrong"


class Repair(StrEnum):
    """How a mark was mended."""

    REWRITTEN = "a mark rewritten for the calculator"
    NO_STEP = "a mark that computes nothing, taken as text"


@dataclass(frozen=True)
class Step:
    """The text before a mark, its expression, and what the calculator answers; only text after the last mark."""

    text: str
    expression: str = ""
    result: str = ""


class Calculator:
    """The calculator as a model would meet it; it remembers what it has computed."""

    def __init__(self) -> None:
        self._registry = Registry(["calculator"])
        self._results: dict[str, ToolResult] = {}
        (self.tool,) = self._registry.tools

    def call(self, expression: str) -> ToolCall:
        return ToolCall(self.tool.name, {"expression": expression})

    def learn(self, expressions: Iterable[str]) -> None:
        """Compute many expressions at the same time: the calculator is a process of its own, and waiting for each one is slow."""
        fresh = sorted(set(expressions) - self._results.keys())
        self._results.update(zip(fresh, self._registry.run_all(map(self.call, fresh)), strict=True))

    def run(self, expression: str) -> tuple[float, str] | None:
        """The value and the text of the result, or None for what the calculator cannot compute."""
        self.learn([expression])
        result = self._results[expression]
        return (result.value, result.content) if result.outcome is ToolStatus.OK else None


def sniff(records: Sequence[Record]) -> bool:
    return all(
        isinstance(record.get("question"), str) and "####" in str(record.get("answer"))
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:
    """Every row whose marks hold, as a conversation with calls and one task for its final answer; without a mark as this task."""
    style = options.style or "calls"
    if style not in STYLES:
        raise DataError(
            f"{path}: unknown style {style!r}{nearest(style, STYLES)}; known: {', '.join(STYLES)}"
        )
    tally, calculator = ReadStats(), Calculator()
    records = list(read_records(path))
    calculator.learn(
        left for _, record in records for left in _left_sides(str(record.get("answer")))
    )
    for line, record in records:
        try:
            question, solution, answer = _parts(record)
            steps, repairs = _steps(solution, calculator)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = str(record.get("id") or f"{line.path.name.partition('.')[0]}-{line.number}")
        messages = (Message("user", question), *_turns(steps, answer, style, calculator))
        conversation = Conversation(messages, (calculator.tool,), identity, NAME)
        task = _task(conversation, answer, bool(options.first_call))
        if len(steps) > 1:
            tally.keep(line, conversation, [task], repairs)
        else:
            tally.keep_tasks([task], repairs)
    return tally.loaded()


def _left_sides(text: str) -> Iterator[str]:
    return (mark[1].partition("=")[0].strip() for mark in _MARK.finditer(text))


def _task(conversation: Conversation, answer: str, first_call: bool) -> Task:
    first = conversation.messages[1].tool_calls[:1] if first_call else ()
    expect = Expect(
        calls=tuple(ExpectedCall(call.name, call.arguments) for call in first) or None,
        answer=answer,
    )
    return Task(
        conversation.id,
        conversation.messages[:1],
        conversation.tools,
        expect,
        category="arithmetic",
        source=NAME,
    )


def _parts(record: Record) -> tuple[str, str, str]:
    """The question, the solution with its marks, and the final number without separators."""
    question, text = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not question.strip() or not isinstance(text, str):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    solution, mark, final = text.rpartition("####")
    answer = re.sub(r"[\s,$€£]", "", final).removesuffix(".")
    if not mark or not _PLAIN_NUMBER.fullmatch(answer):
        raise Skip(Reason.NO_ANSWER, repr(text[-40:]))
    return question.strip(), solution, answer


def _steps(solution: str, calculator: Calculator) -> tuple[list[Step], list[Repair]]:
    """The steps of a solution, the text behind them as the last one, and what had to be mended."""
    steps: list[Step] = []
    repairs: list[Repair] = []
    text, end = "", 0
    for mark in _MARK.finditer(solution):
        text += solution[end : mark.start()]
        end = mark.end()
        step, repair = checked_mark(mark[1], calculator)
        repairs += [repair] if repair else []
        if step is not None:
            steps.append(replace(step, text=text))
            text = ""
    text += solution[end:]
    if "<<" in _MARK.sub("", solution) or ">>" in _MARK.sub("", solution):
        raise Skip(Reason.BROKEN_MARK, repr(solution[-60:]))
    return [*steps, Step(text)], repairs


def checked_mark(mark: str, calculator: Calculator) -> tuple[Step | None, Repair | None]:
    """The step of a mark `left=right`, and how it was mended; raises `Skip` when the mark does not hold."""
    left, equals, _ = mark.partition("=")
    right = mark.rpartition("=")[2]
    if not equals or not left.strip() or not right.strip():
        raise Skip(Reason.BROKEN_MARK, repr(mark))
    if _PLAIN_NUMBER.fullmatch(left.strip()):
        return None, Repair.NO_STEP
    stated = _stated(right, calculator)
    if found := calculator.run(left.strip()):
        if stated is None or not _gives(found[0], stated, right):
            raise Skip(Reason.WRONG, f"{mark!r} gives {found[1]}")
        return Step("", left.strip(), found[1]), None
    for mended in _spellings(left):
        found = calculator.run(mended)
        if (
            found
            and stated is not None
            and math.isclose(found[0], stated, rel_tol=1e-9, abs_tol=1e-9)
        ):
            return Step("", mended, found[1]), Repair.REWRITTEN
    raise Skip(Reason.UNREADABLE, repr(mark))


def _stated(text: str, calculator: Calculator) -> float | None:
    """The value of a mark's right side."""
    if _PLAIN_NUMBER.fullmatch(text.strip()):
        return float(text)
    found = next(filter(None, map(calculator.run, [text.strip(), *_spellings(text)])), None)
    return found[0] if found else None


def _gives(found: float, stated: float, text: str) -> bool:
    """Whether `found` is what the text states: exactly, or rounded or cut to the decimals that it shows."""
    if math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-9):
        return True
    decimals = _DECIMALS.search(text.strip())
    scale = 10.0 ** len(decimals[1]) if decimals else math.inf
    return scale < math.inf and round(stated * scale) in (
        math.trunc(found * scale),
        math.floor(found * scale + 0.5),
    )


def _spellings(text: str) -> Iterator[str]:
    """What a mark may mean: with signs, percentages and separators put right; then also without units."""
    plain = re.sub(r"[$€£]", "", text.translate(_SIGNS))
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(.])", "*", plain)
    plain = re.sub(r"(\d*\.?\d+)\s*%", r"(\1/100)", plain)
    yield plain.strip()
    yield re.sub(r"\s+", " ", re.sub(r"[A-Za-z]+", "", plain)).strip()


def _turns(
    steps: Sequence[Step], answer: str, style: str, calculator: Calculator
) -> Iterator[Message]:
    for index, step in enumerate(steps[:-1]):
        call = replace(calculator.call(step.expression), id=f"call{index:05d}")
        beside = step.text.strip() if style == "calls" else ""
        yield Message("assistant", beside or None, tool_calls=(call,))
        yield Message("tool", step.result, tool_call_id=call.id, name=call.name)
    rest = steps[-1].text.strip() if style == "calls" else ""
    closing = f"The answer is {answer}."
    yield Message("assistant", f"{rest}\n{closing}" if rest else closing)
