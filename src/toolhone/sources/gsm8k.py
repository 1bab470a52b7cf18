"""GSM8K: grade-school problems whose solutions carry calculator marks, solved with the calculator.

    {"question": "...", "answer": "He ran 48/2 = <<48/2=24>>24 miles.\\n#### 24"}

Each mark becomes a call of `calculator` with the text before it beside the call (not with the style
`short`). A mark must give what it states. The task expects the number after `####`; with
`first_call` also the first step. Source: Cobbe et al. 2021, arXiv:2110.14168.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, ToolCall
from toolhone.sources.base import Context, Converted, Skip, Source
from toolhone.sources.files import Record
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

STYLES = ("calls", "short")
BROKEN_MARK = "a mark without its end, its beginning or its equals sign"
_MARK = re.compile(r"<<(.*?)>>", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_SIGNS = str.maketrans("[]{}", "()()")
_DECIMALS = re.compile(r"\.(\d+)$")


@dataclass(frozen=True)
class CalculatorStep:
    """The text before a mark, its expression and its result; the last step has text alone."""

    text: str
    expression: str = ""
    result: str = ""


class Calculator:
    """The calculator as a model would meet it; it remembers its results."""

    def __init__(self) -> None:
        self._registry = Registry(["calculator"])
        self._results: dict[str, ToolResult] = {}
        (self.tool,) = self._registry.tools

    def call(self, expression: str) -> ToolCall:
        return ToolCall(self.tool.name, {"expression": expression})

    def learn(self, expressions: Iterable[str]) -> None:
        """Compute many expressions at the same time: the calculator is a process of its own."""
        fresh = sorted(set(expressions) - self._results.keys())
        self._results.update(zip(fresh, self._registry.run_all(map(self.call, fresh)), strict=True))

    def run(self, expression: str) -> tuple[float, str] | None:
        """Return the value and the text of the result; None for what cannot be computed."""
        self.learn([expression])
        result = self._results[expression]
        return (result.value, result.content) if result.outcome is ToolStatus.OK else None


def looks_like(record: Record) -> bool:
    return isinstance(record.get("question"), str) and "####" in str(record.get("answer"))


def prepare(records: Sequence[Record], context: Context) -> Calculator:
    style = context.options.get("style") or "calls"
    if style not in STYLES:
        known = ", ".join(STYLES)
        raise DataError(
            f"{context.path}: unknown style {style!r}{nearest(style, STYLES)}; known: {known}"
        )
    calculator = Calculator()
    marks = (mark for record in records for mark in _MARK.finditer(str(record.get("answer"))))
    calculator.learn(mark[1].partition("=")[0].strip() for mark in marks)
    return calculator


def convert(record: Record, context: Context) -> Converted:
    calculator: Calculator = context.prepared
    question, solution, answer = _parts(record)
    steps = _steps(solution, calculator, context.repairs)
    identity, user, tools = context.identity(record), Message("user", question), (calculator.tool,)
    with_text = context.options.get("style") != "short"
    messages = (user, *_turns(steps, answer, with_text, calculator))
    first = messages[1].tool_calls[:1] if context.options.get("first_call") else ()
    calls = tuple(ExpectedCall(call.name, call.arguments) for call in first) or None
    expect = Expect(calls, answer=answer)
    task = Task(identity, (user,), tools, expect, category="arithmetic", source=context.name)
    if len(steps) == 1:
        return Converted(tasks=[task])
    return Converted(Conversation(messages, tools, identity, context.name), [task])


def _parts(record: Record) -> tuple[str, str, str]:
    """Return the question, the solution with its marks, and the final number, plain."""
    question, text = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not question.strip() or not isinstance(text, str):
        raise Skip("not a GSM8K row", f"keys {sorted(record)}")
    solution, mark, final = text.rpartition("####")
    answer = re.sub(r"[\s,$€£]", "", final).removesuffix(".")
    if not mark or not _PLAIN_NUMBER.fullmatch(answer):
        raise Skip("no number after ####", repr(text[-40:]))
    return question.strip(), solution, answer


def _steps(solution: str, calculator: Calculator, repairs: set[str]) -> list[CalculatorStep]:
    """Return the steps of a solution; the last one is the text behind them."""
    steps: list[CalculatorStep] = []
    text, end = "", 0
    for mark in _MARK.finditer(solution):
        text += solution[end : mark.start()]
        end = mark.end()
        step, repair = check_mark(mark[1], calculator)
        repairs |= {repair} if repair else set()
        if step is not None:
            steps.append(replace(step, text=text))
            text = ""
    outside = _MARK.sub("", solution)
    if "<<" in outside or ">>" in outside:
        raise Skip(BROKEN_MARK, repr(solution[-60:]))
    return [*steps, CalculatorStep(text + solution[end:])]


def check_mark(mark: str, calculator: Calculator) -> tuple[CalculatorStep | None, str | None]:
    """Return the step of a mark `left=right`, and its repair; `Skip` where it does not hold."""
    left, equals, _ = mark.partition("=")
    right = mark.rpartition("=")[2]
    if not equals or not left.strip() or not right.strip():
        raise Skip(BROKEN_MARK, repr(mark))
    if _PLAIN_NUMBER.fullmatch(left.strip()):
        return None, "a mark that computes nothing, taken as text"
    stated = _stated_value(right, calculator)
    if found := calculator.run(left.strip()):
        if stated is None or not _is_rounded(found[0], stated, right):
            raise Skip("a mark whose result is wrong", f"{mark!r} gives {found[1]}")
        return CalculatorStep("", left.strip(), found[1]), None
    for spelling in _spellings(left):
        found = calculator.run(spelling)
        if found and stated is not None and _is_close(found[0], stated):
            return CalculatorStep("", spelling, found[1]), "a mark rewritten for the calculator"
    raise Skip("a mark that the calculator cannot read", repr(mark))


def _stated_value(text: str, calculator: Calculator) -> float | None:
    if _PLAIN_NUMBER.fullmatch(text.strip()):
        return float(text)
    found = next(filter(None, map(calculator.run, [text.strip(), *_spellings(text)])), None)
    return found[0] if found else None


def _is_close(found: float, stated: float) -> bool:
    return math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-9)


def _is_rounded(found: float, stated: float, text: str) -> bool:
    """Return whether `found` is `stated`, exactly or rounded or cut to the decimals of the text."""
    decimals = _DECIMALS.search(text.strip())
    if _is_close(found, stated) or not decimals:
        return _is_close(found, stated)
    scale = 10.0 ** len(decimals[1])
    return round(stated * scale) in (math.trunc(found * scale), math.floor(found * scale + 0.5))


def _spellings(text: str) -> Iterator[str]:
    """Yield what a mark may mean: with usual signs and separators, then also without units."""
    plain = re.sub(r"[$€£]", "", text.translate(_SIGNS))
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(.])", "*", plain)
    plain = re.sub(r"(\d*\.?\d+)\s*%", r"(\1/100)", plain)
    yield plain.strip()
    yield re.sub(r"\s+", " ", re.sub(r"[A-Za-z]+", "", plain)).strip()


def _turns(
    steps: Sequence[CalculatorStep], answer: str, with_text: bool, calculator: Calculator
) -> Iterator[Message]:
    for index, step in enumerate(steps[:-1]):
        call = replace(calculator.call(step.expression), id=f"call{index:05d}")
        beside = step.text.strip() if with_text else ""
        yield Message("assistant", beside or None, tool_calls=(call,))
        yield Message("tool", step.result, tool_call_id=call.id, name=call.name)
    rest = steps[-1].text.strip() if with_text else ""
    closing = f"The answer is {answer}."
    yield Message("assistant", f"{rest}\n{closing}" if rest else closing)


GSM8K = Source("gsm8k", looks_like, convert, prepare, options={"style", "first_call"})
