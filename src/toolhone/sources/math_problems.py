"""Arithmetic problems, solved with the calculator: GSM8K and SVAMP.

    {"question": "...", "answer": "He ran 48/2 = <<48/2=24>>24 miles.\\n#### 24"}

GSM8K: each mark becomes a call of `calculator` with the text before it beside the call (not with
the style `short`). A mark must give what it states. The task expects the number after `####`; with
`first_call` also the first step. Source: Cobbe et al. 2021, arXiv:2110.14168.

    {"ID": "a-1", "Body": "Ann has 7 pears. She eats 2.", "Question": "How many are left?",
     "Equation": "( 7.0 - 2.0 )", "Answer": 5.0}

SVAMP: the equation becomes one call; a row whose equation does not give its answer is skipped.
Format: Patel et al. 2021, arXiv:2103.07191.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Converted, Skip, Source, has_keys
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

STYLES = ("calls", "short")
BROKEN_MARK = "a mark without its end, its beginning or its equals sign"
_MARK = re.compile(r"<<(.*?)>>", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_SIGNS = str.maketrans("[]{}", "()()")
_DECIMALS = re.compile(r"\.(\d+)$")
_WHOLE = re.compile(r"(?<=\d)\.0+(?!\d)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


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


def is_gsm8k(record: Record) -> bool:
    return isinstance(record.get("question"), str) and "####" in str(record.get("answer"))


def prepare_gsm8k(records: Sequence[Record], context: Context) -> Calculator:
    style = context.options.get("style") or "calls"
    if style not in STYLES:
        known = ", ".join(STYLES)
        raise DataError(
            f"{context.path}: unknown style {style!r}{nearest(style, STYLES)}; known: {known}"
        )
    calculator = Calculator()
    marks = (mark for record in records for mark in _MARK.findall(str(record.get("answer"))))
    calculator.learn(mark.partition("=")[0].strip() for mark in marks)
    return calculator


def convert_gsm8k(record: Record, context: Context) -> Converted:
    question, text = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not question.strip() or not isinstance(text, str):
        raise Skip("not a GSM8K row", f"keys {sorted(record)}")
    solution, mark, final = text.rpartition("####")
    answer = re.sub(r"[\s,$€£]", "", final).removesuffix(".")
    if not mark or not _PLAIN_NUMBER.fullmatch(answer):
        raise Skip("no number after ####", repr(text[-40:]))
    parts = _MARK.split(solution)
    outside, steps, text = "".join(parts[0::2]), list[CalculatorStep](), parts[0]
    for mark, behind in zip(parts[1::2], parts[2::2], strict=True):
        step, repair = check_mark(mark, context.prepared)
        context.repairs.update({repair} if repair else ())
        if step is not None:
            steps.append(replace(step, text=text))
            text = ""
        text += behind
    if "<<" in outside or ">>" in outside:
        raise Skip(BROKEN_MARK, repr(solution[-60:]))
    steps.append(CalculatorStep(text))
    return _converted(context, context.identity(record), question.strip(), steps, answer)


def check_mark(mark: str, calculator: Calculator) -> tuple[CalculatorStep | None, str | None]:
    """Return the step of a mark `left=right`, and its repair; `Skip` where it does not hold."""
    left, equals, right = mark.partition("=")[0].strip(), "=" in mark, mark.rpartition("=")[2]
    if not equals or not left or not right.strip():
        raise Skip(BROKEN_MARK, repr(mark))
    if _PLAIN_NUMBER.fullmatch(left):
        return None, "a mark that computes nothing, taken as text"
    stated = None
    if _PLAIN_NUMBER.fullmatch(right.strip()):
        stated = float(right)
    elif found := next(
        filter(None, map(calculator.run, [right.strip(), *_spellings(right)])), None
    ):
        stated = found[0]
    if found := calculator.run(left):
        if stated is None or not _is_close(found[0], stated, right):
            raise Skip("a mark whose result is wrong", f"{mark!r} gives {found[1]}")
        return CalculatorStep("", left, found[1]), None
    for spelling in _spellings(left):
        found = calculator.run(spelling)
        if found and stated is not None and _is_close(found[0], stated):
            return CalculatorStep("", spelling, found[1]), "a mark rewritten for the calculator"
    raise Skip("a mark that the calculator cannot read", repr(mark))


def _is_close(found: float, stated: float, text: str = "") -> bool:
    """Return whether `found` is `stated`, exactly or rounded or cut to the decimals of the text."""
    decimals = _DECIMALS.search(text.strip())
    if math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-9) or not decimals:
        return math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-9)
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


def _converted(
    context: Context,
    identity: str,
    question: str,
    steps: Sequence[CalculatorStep],
    answer: str,
    category: str = "arithmetic",
) -> Converted:
    """Return a solved problem with its task; where nothing is computed, the task alone."""
    calculator, source = context.prepared, context.name
    with_text = context.options.get("style") != "short"
    user, tools, closing = Message("user", question), (calculator.tool,), f"The answer is {answer}."
    messages, texts = [user], [step.text.strip() if with_text else "" for step in steps]
    for index, (step, text) in enumerate(zip(steps[:-1], texts[:-1], strict=True)):
        call = replace(calculator.call(step.expression), id=f"call{index:05d}")
        messages.append(Message("assistant", text or None, tool_calls=(call,)))
        messages.append(Message("tool", step.result, tool_call_id=call.id, name=call.name))
    messages.append(Message("assistant", f"{texts[-1]}\n{closing}" if texts[-1] else closing))
    first = messages[1].tool_calls if context.options.get("first_call") else ()
    calls = tuple(ExpectedCall(call.name, call.arguments) for call in first) or None
    expect = Expect(calls, answer=answer)
    task = Task(identity, (user,), tools, expect, category=category, source=source)
    if len(steps) == 1:
        return Converted(tasks=[task])
    return Converted(Conversation(tuple(messages), tools, identity, source), [task])


def prepare_svamp(records: Sequence[Record], _context: Context) -> Calculator:
    calculator = Calculator()
    calculator.learn(expression_of(str(record.get("Equation"))) for record in records)
    return calculator


def convert_svamp(record: Record, context: Context) -> Converted:
    texts = [record.get(key) for key in ("Body", "Question", "Equation")]
    answer = str(record.get("Answer")).strip()
    body, question, equation = (str(text).strip() for text in texts)
    usable = question and all(isinstance(text, str) for text in texts)
    if not usable or not _NUMBER.fullmatch(answer):
        raise Skip("not a SVAMP row", f"keys {sorted(record)}, answer {answer:.40}")
    expression = expression_of(equation)
    found = context.prepared.run(expression)
    if found is None:
        raise Skip("an equation that the calculator cannot compute", repr(equation))
    if not math.isclose(found[0], float(answer), rel_tol=1e-9, abs_tol=1e-6):
        detail = f"{equation} gives {found[1]}, the answer is {answer}"
        raise Skip("an equation whose value is not the answer", detail)
    if body and not body.endswith((".", "?", "!", ",", ";", ":")):
        asks = question.startswith(("How ", "What ", "Which "))
        question = f"{question[0].lower() if asks else question[0]}{question[1:]}"
        body += ","
    steps = (CalculatorStep("", expression, found[1]), CalculatorStep(""))
    identity, category = context.identity(record, "ID"), str(record.get("Type") or "arithmetic")
    question, answer = f"{body} {question}".strip(), _WHOLE.sub("", answer)
    return _converted(context, identity, question, steps, answer, category.lower())


def expression_of(equation: str) -> str:
    """Return `( ( 4.0 - 2.0 ) + 3.0 )` as one would type it: `(4 - 2) + 3`."""
    plain = _WHOLE.sub("", equation).strip()
    plain = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", plain))
    depths = accumulate((sign == "(") - (sign == ")") for sign in plain)
    closing = next((place for place, depth in enumerate(depths) if depth == 0), None)
    return plain[1:-1] if plain.startswith("(") and closing == len(plain) - 1 else plain


GSM8K = Source(
    "gsm8k",
    is_gsm8k,
    convert_gsm8k,
    {"": {"question", "answer"}},
    prepare_gsm8k,
    options={"style", "first_call"},
)
SVAMP = Source(
    "svamp",
    has_keys("Body", "Question", "Equation", "Answer"),
    convert_svamp,
    {"": {"ID", "Body", "Question", "Equation", "Answer", "Type"}},
    prepare_svamp,
)
