"""Answers in `possible_answer/<same name>` beside the questions, joined by `id` (BFCL, ACEBench).

    truth = Answers(path).find("parallel_7")    # its `ground_truth`, or `Skip`
    note_misfit(calls, tools, context)          # a right answer that breaks its own tool's schema

Such an answer is still what the published set scores by: the row is kept and noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import ExpectedCall, Json, Tool, ToolCall
from toolhone.sources.base import Context, Skip, refuse_misfits
from toolhone.sources.files import Record, read_records
from toolhone.sources.rules import FindingKind

MISFIT = "a right answer that its own tool does not allow"
NO_ANSWER = "a question whose answer is not in the file of answers"


class Answers:
    """The answers to the questions of one file, read when the first is needed."""

    def __init__(self, questions: Path) -> None:
        self._questions = questions

    def find(self, identity: str) -> Json:
        """Return what counts as right for the question of this id."""
        record = self._records.get(identity)
        if record is None or "ground_truth" not in record:
            raise Skip(NO_ANSWER, f"no 'ground_truth' for the id {identity!r} in {self._path}")
        return record["ground_truth"]

    @cached_property
    def _path(self) -> Path:
        plain = self._questions.name.removesuffix(".gz")
        folder = self._questions.parent / "possible_answer"
        for name in (plain, f"{plain}.gz"):
            if (folder / name).is_file():
                return folder / name
        raise DataError(
            f"{self._questions}: the answers are not beside this file; "
            f"wanted them in {str(folder / plain)!r}"
        )

    @cached_property
    def _records(self) -> Mapping[str, Record]:
        return {str(record.get("id")): record for _, record in read_records(self._path)}


def note_misfit(expected: Sequence[ExpectedCall], tools: Sequence[Tool], context: Context) -> None:
    """Note right calls that break the schemas of their tools; `Skip` a call of an unknown tool."""
    names = {tool.name for tool in tools}
    for call in expected:
        if call.name not in names:
            raise Skip(FindingKind.UNKNOWN_TOOL, f"{call.name!r}{nearest(call.name, names)}")
    if not expected:
        return
    try:
        refuse_misfits([ToolCall(call.name, call.arguments) for call in expected], tools)
    except Skip as skip:
        if skip.reason not in (FindingKind.BAD_ARGUMENTS, FindingKind.UNDECLARED_ARGUMENT):
            raise
        context.notes.append(MISFIT)
