"""When2Call: a request with tools, and which decision is right: call, ask back, or decline.

    {"uuid": "...", "question": "...", "tools": ["{...}"], "correct_answer": "tool_call",
     "answers": {"tool_call": "{\\"name\\": \\"f\\", ...}", "cannot_answer": "...", ...}}

The test set: a row gives a task whose category is the decision. The training sets are in the
messages format. Format: Ross et al. 2025, arXiv:2504.18851.
"""

from __future__ import annotations

from toolhone.schema import Expect, Message, Task
from toolhone.sources.base import Context, Skip, Source, expect_calls
from toolhone.sources.files import Record
from toolhone.sources.scenarios import note_misfit
from toolhone.sources.text_calls import as_call
from toolhone.sources.tool_specs import BAD_ANSWER, decode_text, fit_calls, read_tools

CALL = "tool_call"
NO_CALL = ("request_for_info", "cannot_answer")


def looks_like(record: Record) -> bool:
    return record.keys() >= {"question", "tools", "correct_answer", "answers"}


def convert(record: Record, context: Context) -> Task:
    question, decision = record.get("question"), record.get("correct_answer")
    if not isinstance(question, str) or not question.strip():
        detail = f"wanted a text in 'question', got {question!r:.60}; keys {sorted(record)}"
        raise Skip("not a When2Call row", detail)
    tools = read_tools(record.get("tools"), context, loose=True)
    if decision == CALL:
        answers = record.get("answers")
        if not isinstance(answers, dict) or not answers.get(CALL):
            raise Skip(BAD_ANSWER, f"'answers' has no {CALL!r}: {answers!r:.60}")
        call = as_call(decode_text(answers[CALL], BAD_ANSWER, CALL), BAD_ANSWER)
        expect = expect_calls(fit_calls([call], tools, context))
    elif decision in NO_CALL:
        expect = Expect(no_call=True)
    else:
        detail = f"{decision!r:.40}; known: {CALL}, {', '.join(NO_CALL)}"
        raise Skip("a decision that is neither a call nor none", detail)
    note_misfit(expect.wanted, tools, context)
    identity = context.identity(record, "uuid")
    return Task(identity, (Message("user", question),), tools, expect, category=decision)


WHEN2CALL = Source("when2call", looks_like, convert)
