"""GSM8K: grade-school problems whose solutions carry calculator marks, as conversations with the calculator tool.

    {"question": "...", "answer": "He ran 48/2 = <<48/2=24>>24 miles.\\n#### 24"}

Each mark becomes a call of `calculator`; the text before it stands beside the call, the calculator's own result follows as the tool
result, and the text after the mark (which repeats the result) opens the next assistant message. The last message ends in
"The answer is 24." With style `short` the text beside the calls is left out, for dialects that have no place for it.

Every mark is checked: its left side, run by the calculator, must give its right side (to the digits that it states). A mark that
the calculator cannot read (`$5*2`, `20%*50`, `05*2`, `3x4`) is mended only if its mended form gives exactly what the mark states; a
mark that computes nothing (`<<26=26>>`) is plain text. Rows with any other mark, without a mark or without a number after `####`
are counted and skipped.

A row gives one task, which is played to its end with a live calculator: `expect.answer` is the number after `####`. There is more
than one right way to a result, so no calls are expected; with `first_call` the first step is expected as well. For the choice of
every single call, given the steps before it, use `data.tasks.tasks_of` on the conversations. Source: Cobbe et al. 2021,
arXiv:2110.14168.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolhone.data.files import Record, read_records
from toolhone.data.sources.base import Loaded, Options, Skip, Tally
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.tools import builtin

NAME = "gsm8k"
USES = frozenset({"style", "first_call"})
STYLES = ("calls", "short")
_MARK = re.compile(r"<<(.*?)>>", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_SIGNS = str.maketrans("×÷−–[]", "*/--()")
_DECIMALS = re.compile(r"\.(\d+)$")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a GSM8K row"
    NO_ANSWER = "no number after ####"
    NO_MARK = "no calculator mark"
    BROKEN_MARK = "a mark without its end, its beginning or its equals sign"
    UNREADABLE = "a mark that the calculator cannot read"
    WRONG = "a mark whose result is wrong"


class Repair(StrEnum):
    """How a mark was mended."""

    REWRITTEN = "a mark rewritten for the calculator"
    NO_STEP = "a mark that computes nothing, taken as text"


@dataclass(frozen=True)
class Step:
    """One mark: the text before it and the expression to compute; `expression` is empty for the text after the last mark."""

    text: str
    expression: str = ""


def sniff(records: Sequence[Record]) -> bool:
    return all(isinstance(record.get("question"), str) and "####" in str(record.get("answer")) for record in records)


def read(path: Path, options: Options) -> Loaded:
    """Every row whose marks hold, as a conversation with calls and one task for its final answer."""
    style = options.style or "calls"
    if style not in STYLES:
        raise DataError(f"{path}: unknown style {style!r}{nearest(style, STYLES)}; known: {', '.join(STYLES)}")
    tally, tool = Tally(), Tool.of(builtin.calculator)
    for line, record in read_records(path):
        try:
            question, solution, answer = _parts(record)
            steps, repairs = _steps(solution)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = str(record.get("id") or f"{line.path.name.partition('.')[0]}-{line.number}")
        messages = (Message("user", question), *_turns(steps, answer, style))
        conversation = Conversation(messages, (tool,), identity, NAME)
        tally.keep(line, conversation, [_task(conversation, answer, bool(options.first_call))], repairs)
    return tally.loaded()


def _task(conversation: Conversation, answer: str, first_call: bool) -> Task:
    first = conversation.messages[1].tool_calls[0]
    expect = Expect(calls=(ExpectedCall(first.name, first.arguments),) if first_call else None, answer=answer)
    return Task(conversation.id, conversation.messages[:1], conversation.tools, expect, category="arithmetic", source=NAME)


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


def _steps(solution: str) -> tuple[list[Step], list[Repair]]:
    """The steps of a solution, and what had to be mended."""
    steps: list[Step] = []
    repairs: list[Repair] = []
    text, end = "", 0
    for mark in _MARK.finditer(solution):
        text += solution[end : mark.start()]
        end = mark.end()
        expression, repair = checked_mark(mark[1])
        repairs += [repair] if repair else []
        if repair is not Repair.NO_STEP:
            steps.append(Step(text, expression))
            text = ""
    text += solution[end:]
    if "<<" in _MARK.sub("", solution) or ">>" in _MARK.sub("", solution):
        raise Skip(Reason.BROKEN_MARK, repr(solution[-60:]))
    if not steps:
        raise Skip(Reason.NO_MARK)
    return [*steps, Step(text)], repairs


def checked_mark(mark: str) -> tuple[str, Repair | None]:
    """The expression of a mark `left=right`, and how it was mended; raises `Skip` when the mark does not hold."""
    left, equals, _ = mark.partition("=")
    right = mark.rpartition("=")[2]
    if not equals or not left.strip() or not right.strip():
        raise Skip(Reason.BROKEN_MARK, repr(mark))
    if _PLAIN_NUMBER.fullmatch(left.strip()):
        return "", Repair.NO_STEP
    stated = _first(map(_value, _spellings(right)))
    if (found := _value(left)) is not None:
        if stated is None or not _gives(found, stated, right):
            raise Skip(Reason.WRONG, f"{mark!r} gives {found}")
        return left.strip(), None
    for mended in _spellings(left):
        value = _value(mended)
        if value is not None and stated is not None and math.isclose(value, stated, rel_tol=1e-9, abs_tol=1e-9):
            return mended, Repair.REWRITTEN
    raise Skip(Reason.UNREADABLE, repr(mark))


def _first(values: Iterator[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _value(expression: str) -> float | None:
    try:
        return builtin.evaluate(expression.strip())
    except ValueError:
        return None


def _gives(found: float, stated: float, text: str) -> bool:
    """Whether `found` is what the text states: exactly, or rounded or cut to the decimals that it shows."""
    if math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-9):
        return True
    decimals = _DECIMALS.search(text.strip())
    scale = 10.0 ** len(decimals[1]) if decimals else math.inf
    return scale < math.inf and round(stated * scale) in (math.trunc(found * scale), math.floor(found * scale + 0.5))


def _spellings(text: str) -> Iterator[str]:
    """What a mark may mean: as it stands; with signs, separators and zeros put right; without units."""
    yield text
    plain = text.translate(_SIGNS)
    plain = re.sub(r"[$€£]", "", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(.])", "*", plain)
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    plain = re.sub(r"(\d*\.?\d+)\s*%", r"(\1/100)", plain)
    yield plain.strip()
    yield re.sub(r"\s+", " ", re.sub(r"[A-Za-z]+", "", plain)).strip()


def _turns(steps: Sequence[Step], answer: str, style: str) -> Iterator[Message]:
    for index, step in enumerate(steps[:-1]):
        call = ToolCall(builtin.calculator.__name__, {"expression": step.expression}, f"call{index:05d}")
        beside = step.text.strip() if style == "calls" else ""
        yield Message("assistant", beside or None, tool_calls=(call,))
        yield Message("tool", builtin.run(call), tool_call_id=call.id, name=call.name)
    rest = steps[-1].text.strip() if style == "calls" else ""
    closing = f"The answer is {answer}."
    yield Message("assistant", f"{rest}\n{closing}" if rest else closing)
