"""Answers in a file of their own: `possible_answer/<same name>` beside the questions, joined by `id`, as BFCL and ACEBench have it.

    answers = Answers(path)                     # nothing is read yet
    truth = answers.of("parallel_7")            # the record's `ground_truth`; `Skip` where the file has no such id
    is_allowed(calls, tools)                    # whether a right answer obeys the tools that it calls

The file is read at the first question that needs an answer, since some kinds of questions have none. When it is not there, that
is a `DataError` which says where it was looked for. Either file may be gzip-compressed.

A right answer that breaks its own tool's schema is still what the published set scores by: such rows are kept, and counted as
`MISFIT`. A call of a tool that is not on offer is a `Skip`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Tool, ToolCall
from toolhone.sources.base import Skip
from toolhone.sources.files import Record, read_records
from toolhone.sources.offered import refuse_misfits
from toolhone.sources.rules import FindingKind

FOLDER = "possible_answer"
MISFIT = "a right answer that its own tool does not allow"
NO_ANSWER = "a question whose answer is not in the file of answers"


class Answers:
    """The answers to the questions of one file."""

    def __init__(self, questions: Path) -> None:
        self._questions = questions

    def of(self, identity: str) -> Json:
        """What counts as right for the question of this id."""
        record = self._records.get(identity)
        if record is None or "ground_truth" not in record:
            raise Skip(NO_ANSWER, f"no 'ground_truth' for the id {identity!r} in {self._path}")
        return record["ground_truth"]

    @cached_property
    def _path(self) -> Path:
        plain = self._questions.name.removesuffix(".gz")
        folder = self._questions.parent / FOLDER
        for name in (plain, f"{plain}.gz"):
            if (folder / name).is_file():
                return folder / name
        raise DataError(
            f"{self._questions}: the answers are not beside this file; wanted them in {str(folder / plain)!r}"
        )

    @cached_property
    def _records(self) -> Mapping[str, Record]:
        return {str(record.get("id")): record for _, record in read_records(self._path)}


def is_allowed(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> bool:
    """Whether these calls obey the schemas of their tools."""
    names = {tool.name for tool in tools}
    for call in calls:
        if call.name not in names:
            raise Skip(FindingKind.UNKNOWN_TOOL, f"{call.name!r}{nearest(call.name, names)}")
    try:
        refuse_misfits(calls, tools)
    except Skip as skip:
        if skip.reason in (FindingKind.BAD_ARGUMENTS, FindingKind.UNDECLARED_ARGUMENT):
            return False
        raise
    return True
