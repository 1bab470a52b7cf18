"""SVAMP: one- and two-step arithmetic problems with their equation, as conversations with the calculator tool.

    {"ID": "a-1", "Body": "Ann has 7 pears. She eats 2.", "Question": "How many are left?",
     "Equation": "( 7.0 - 2.0 )", "Answer": 5.0}

Body and question become one user message (a comma between them where the body ends without a mark). The equation, without its outer
brackets and zeros, becomes one call of `calculator`; its result follows, and the last message is "The answer is 5." The task is
played to its end with a live calculator and expects that answer, as those of `gsm8k` do. A row whose equation does not give its
answer is counted and skipped. Format: Patel et al. 2021, arXiv:2103.07191.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Expect, Message, Task
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.sources.gsm8k import Calculator

NAME = "svamp"
ABOUT = About(
    title="SVAMP",
    link="https://github.com/arkilpatel/SVAMP",
    licence="MIT",
    rows="1,000",
    teaches="to put a short arithmetic problem into one calculator call; made to test whether a model reads the question",
)
USES: frozenset[str] = frozenset()
_WHOLE = re.compile(r"(?<=\d)\.0+(?!\d)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a SVAMP row"
    UNREADABLE = "an equation that the calculator cannot compute"
    WRONG = "an equation whose value is not the answer"


def sniff(records: Sequence[Record]) -> bool:
    return all(record.keys() >= {"Body", "Question", "Equation", "Answer"} for record in records)


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose equation gives its answer, as a conversation and one task."""
    tally, calculator = ReadStats(), Calculator()
    records = list(read_records(path))
    calculator.learn(expression_of(str(record.get("Equation"))) for _, record in records)
    for line, record in records:
        try:
            question, expression, answer = _parts(record, calculator)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        identity = str(record.get("ID") or f"{line.path.name.partition('.')[0]}-{line.number}")
        talk = _conversation(identity, question, expression, answer, calculator)
        expect, category = Expect(answer=answer), str(record.get("Type") or "arithmetic").lower()
        tally.keep(
            line,
            talk,
            [Task(identity, talk.messages[:1], talk.tools, expect, category=category, source=NAME)],
        )
    return tally.loaded()


def _conversation(
    identity: str, question: str, expression: str, answer: str, calculator: Calculator
) -> Conversation:
    call = replace(calculator.call(expression), id="call00000")
    found = calculator.run(expression)
    assert found is not None, "the parts were checked"
    messages = (
        Message("user", question),
        Message("assistant", tool_calls=(call,)),
        Message("tool", found[1], tool_call_id=call.id, name=call.name),
        Message("assistant", f"The answer is {answer}."),
    )
    return Conversation(messages, (calculator.tool,), identity, NAME)


def _parts(record: Record, calculator: Calculator) -> tuple[str, str, str]:
    """The question in one text, the expression, and the answer as the calculator would write it."""
    body, question, equation = (record.get(key) for key in ("Body", "Question", "Equation"))
    texts = (
        isinstance(body, str)
        and isinstance(question, str)
        and isinstance(equation, str)
        and question.strip()
    )
    answer = str(record.get("Answer")).strip()
    if not texts or not _NUMBER.fullmatch(answer):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}, answer {answer:.40}")
    expression = expression_of(str(equation))
    found = calculator.run(expression)
    if found is None:
        raise Skip(Reason.UNREADABLE, repr(equation))
    if not math.isclose(found[0], float(answer), rel_tol=1e-9, abs_tol=1e-6):
        raise Skip(Reason.WRONG, f"{equation} gives {found[1]}, the answer is {answer}")
    return _joined(str(body).strip(), str(question).strip()), expression, _WHOLE.sub("", answer)


def _joined(body: str, question: str) -> str:
    if not body or body.endswith((".", "?", "!", ",", ";", ":")):
        return f"{body} {question}".strip()
    asks = question.startswith(("How ", "What ", "Which "))
    return f"{body}, {question[0].lower() if asks else question[0]}{question[1:]}"


def expression_of(equation: str) -> str:
    """`( ( 4.0 - 2.0 ) + 3.0 )` as one would type it: `(4 - 2) + 3`."""
    plain = _WHOLE.sub("", equation).strip()
    plain = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", plain))
    return plain[1:-1] if _is_wrapped(plain) else plain


def _is_wrapped(text: str) -> bool:
    """Whether the first bracket closes with the last character."""
    if not text.startswith("("):
        return False
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(text) - 1
    return False
