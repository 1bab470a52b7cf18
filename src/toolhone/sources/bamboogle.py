"""Bamboogle: questions that take two steps to look up, and the answer as text.

    {"Question": "Which river runs through the capital of ...?", "Answer": "..."}

A row becomes a task that expects the answer in the final text; no tool is on offer, so give one (`data.tools`, or tools of one's
own) where a model should look things up. Nothing to train on. Format: Press et al. 2022, arXiv:2210.03350.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolhone.schema import Expect, Message, Task
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records

NAME = "bamboogle"
ABOUT = About(
    title="Bamboogle",
    link="https://github.com/ofirpress/self-ask",
    licence="MIT; Apache-2.0 in ToolRL",
    rows="125",
    teaches="measures answers that need two facts",
    only_tasks=True,
)
USES = frozenset({"tools"})
REASON = "a row without a question and an answer"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() >= {"Question", "Answer"} and "Body" not in record for record in records
    )


def read(path: Path, options: Options) -> Loaded:
    """Every row with a question and an answer, as a task."""
    tally = ReadStats()
    for line, record in read_records(path):
        question, answer = record.get("Question"), record.get("Answer")
        if (
            not isinstance(question, str)
            or not question.strip()
            or not isinstance(answer, str | int | float)
            or not str(answer).strip()
        ):
            tally.skip(line, Skip(REASON, f"{question!r:.60}, {answer!r:.40}"))
            continue
        user, expect = Message("user", question.strip()), Expect(answer=str(answer).strip())
        tools = tuple(options.tools or ())
        tally.keep_tasks(
            [
                Task(
                    identity_of(line, record),
                    (user,),
                    tools,
                    expect,
                    category="two_steps",
                    source=NAME,
                )
            ]
        )
    return tally.loaded()
