"""Bamboogle: questions that take two steps to look up, and the answer as text.

    {"Question": "Which river runs through the capital of ...?", "Answer": "..."}

A row gives a task that expects the answer in the final text. No tool is on offer but those of the
option `tools`. Format: Press et al. 2022, arXiv:2210.03350.
"""

from __future__ import annotations

from toolhone.schema import Expect, Message, Task
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record


def looks_like(record: Record) -> bool:
    return record.keys() >= {"Question", "Answer"}


def convert(record: Record, context: Context) -> Task:
    question, given = record.get("Question"), record.get("Answer")
    answer = str(given).strip() if isinstance(given, str | int | float) else ""
    if not isinstance(question, str) or not question.strip() or not answer:
        raise Skip("a row without a question and an answer", f"{question!r:.60}, {given!r:.40}")
    user, tools = Message("user", question.strip()), tuple(context.options.get("tools") or ())
    return Task("", (user,), tools, Expect(answer=answer), category="two_steps")


BAMBOOGLE = Source("bamboogle", looks_like, convert, options={"tools"})
