"""SVAMP: one- and two-step arithmetic problems with their equation, solved with the calculator.

    {"ID": "a-1", "Body": "Ann has 7 pears. She eats 2.", "Question": "How many are left?",
     "Equation": "( 7.0 - 2.0 )", "Answer": 5.0}

The equation becomes one call of `calculator`; the task expects the answer. A row whose equation
does not give its answer is skipped. Format: Patel et al. 2021, arXiv:2103.07191.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from toolhone.schema import Conversation, Expect, Message, Task
from toolhone.sources.base import Context, Converted, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.gsm8k import Calculator

_WHOLE = re.compile(r"(?<=\d)\.0+(?!\d)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def looks_like(record: Record) -> bool:
    return record.keys() >= {"Body", "Question", "Equation", "Answer"}


def prepare(records: Sequence[Record], _context: Context) -> Calculator:
    calculator = Calculator()
    calculator.learn(expression_of(str(record.get("Equation"))) for record in records)
    return calculator


def convert(record: Record, context: Context) -> Converted:
    calculator: Calculator = context.prepared
    texts = [record.get(key) for key in ("Body", "Question", "Equation")]
    answer = str(record.get("Answer")).strip()
    body, question, equation = (str(text).strip() for text in texts)
    usable = question and all(isinstance(text, str) for text in texts)
    if not usable or not _NUMBER.fullmatch(answer):
        raise Skip("not a SVAMP row", f"keys {sorted(record)}, answer {answer:.40}")
    expression = expression_of(equation)
    found = calculator.run(expression)
    if found is None:
        raise Skip("an equation that the calculator cannot compute", repr(equation))
    if not math.isclose(found[0], float(answer), rel_tol=1e-9, abs_tol=1e-6):
        detail = f"{equation} gives {found[1]}, the answer is {answer}"
        raise Skip("an equation whose value is not the answer", detail)
    identity, answer = context.identity(record, "ID"), _WHOLE.sub("", answer)
    call = replace(calculator.call(expression), id="call00000")
    user, tools = Message("user", _join(body, question)), (calculator.tool,)
    messages = (
        user,
        Message("assistant", tool_calls=(call,)),
        Message("tool", found[1], tool_call_id=call.id, name=call.name),
        Message("assistant", f"The answer is {answer}."),
    )
    category = str(record.get("Type") or "arithmetic").lower()
    expect = Expect(answer=answer)
    task = Task(identity, (user,), tools, expect, category=category, source=context.name)
    return Converted(Conversation(messages, tools, identity, context.name), [task])


def _join(body: str, question: str) -> str:
    """Join body and question, with a comma where the body ends without a mark."""
    if not body or body.endswith((".", "?", "!", ",", ";", ":")):
        return f"{body} {question}".strip()
    asks = question.startswith(("How ", "What ", "Which "))
    return f"{body}, {question[0].lower() if asks else question[0]}{question[1:]}"


def expression_of(equation: str) -> str:
    """Return `( ( 4.0 - 2.0 ) + 3.0 )` as one would type it: `(4 - 2) + 3`."""
    plain = _WHOLE.sub("", equation).strip()
    plain = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", plain))
    if not plain.startswith("("):
        return plain
    depth = 0
    for position, character in enumerate(plain):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return plain[1:-1] if position == len(plain) - 1 else plain
    return plain


SVAMP = Source("svamp", looks_like, convert, prepare)
