"""A cleaned copy of a data file, and a report of every row that was repaired or dropped.

    cleaned = clean([train, *held_out], lengths)
    cleaned.kept + cleaned.repaired + cleaned.dropped == cleaned.read
    write_cleaned(cleaned, "clean.jsonl", originals=paths)     # and clean.report.json beside it

The copy has nothing that stops a training, and cleaning it again changes nothing. The original is
never touched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from toolhone.doctor.checks import REMEDIES, WHOLE_FILE, cross_faults
from toolhone.doctor.diagnose import Diagnosis, diagnose
from toolhone.doctor.lengths import LengthCheck
from toolhone.doctor.reading import DataFile
from toolhone.doctor.typed_calls import read_typed, typed_results
from toolhone.errors import DataError, FindingKind, RunError
from toolhone.runs.progress import Progress
from toolhone.runs.run import write_json, writing
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.schema.json_schema import without_schema_nulls
from toolhone.schema.message import result_runs
from toolhone.schema.tool import strip_padding
from toolhone.sources.files import write_jsonl
from toolhone.sources.tool_specs import fit_call, letters_of

_CROSS_KINDS = {FindingKind.DUPLICATE_ROW, FindingKind.NEAR_DUPLICATE, FindingKind.CONFLICT}
"""Kinds that a row has only because of other rows of its file."""


class RowOutcome(StrEnum):
    """What became of a row that was not kept as it is."""

    REPAIRED = "repaired"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Change:
    """A row that was repaired or dropped; `reasons` are kinds of findings."""

    row: int
    place: str
    id: str
    outcome: RowOutcome
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        return {**vars(self), "outcome": self.outcome.value, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class CleanResult:
    """The rows that are left, what was changed, and the diagnosis of what is left.

    repaired_in_reading: what the source repaired, by reason; such rows count as kept, since a
    training reads them so as well.
    """

    source: Path
    read: int
    conversations: Sequence[Conversation]
    changes: Sequence[Change]
    only_tasks: int
    repaired_in_reading: Mapping[str, int]
    after: Diagnosis

    def __post_init__(self) -> None:
        total = self.kept + self.repaired + self.dropped
        assert total == self.read, "a row was lost without a count"

    @property
    def repaired(self) -> int:
        return sum(change.outcome is RowOutcome.REPAIRED for change in self.changes)

    @property
    def kept(self) -> int:
        """Rows that are as they were."""
        return len(self.conversations) - self.repaired

    @property
    def dropped(self) -> int:
        return len(self.changes) - self.repaired + self.only_tasks

    def reasons(self, outcome: RowOutcome) -> Counter[str]:
        """Count the rows with each reason; a row may have several."""
        changes = [change for change in self.changes if change.outcome is outcome]
        counts = Counter(reason for change in changes for reason in change.reasons)
        if outcome is RowOutcome.DROPPED and self.only_tasks:
            counts[FindingKind.NOTHING_TO_LEARN.value] += self.only_tasks
        return counts

    def to_dict(self) -> dict[str, Json]:
        numbers = {name: getattr(self, name) for name in ("read", "kept", "repaired", "dropped")}
        reasons = {one.value: dict(self.reasons(one).most_common()) for one in RowOutcome}
        return {
            "source": str(self.source),
            **numbers,
            "reasons": reasons,
            "mended_while_reading": dict(self.repaired_in_reading),
            "verdict": self.after.verdict.value,
            "rows": [change.to_dict() for change in self.changes],
        }


def clean(
    files: Sequence[DataFile], lengths: LengthCheck | None = None, progress: Progress | None = None
) -> CleanResult:
    """Repair and filter the first file; the other files hold the prompts it must not leak.

    Rows are dropped for faults of their own first. Only the rows that are left count when rows
    repeat or contradict each other.
    """
    lengths, progress = lengths or LengthCheck(), progress or Progress()
    train, *others = files
    plain_tools: dict[int, Tool] = {}
    cases = []
    for case in train.cases:
        if case.conversation is not None:
            conversation, repairs = repair_conversation(case.conversation, plain_tools)
            case = replace(case, conversation=conversation, repairs=case.repairs | repairs)
        cases.append(case)
    bare = [replace(case, faults=()) if case.conversation else case for case in cases]
    first = diagnose([replace(train, cases=bare), *others], lengths, progress, only_first=True)
    dropped: dict[int, dict[str, None]] = defaultdict(dict)
    for finding in first.findings.findings:
        drops = REMEDIES[finding.kind].effect != "keep" and finding.kind not in _CROSS_KINDS
        if drops and finding.row != WHOLE_FILE:
            dropped[finding.row][finding.kind.value] = None
    left = [
        (row, str(case.place), case.conversation)
        for row, case in enumerate(cases)
        if row not in dropped and case.conversation is not None
    ]
    crossed = cross_faults([one for _, _, one in left], [place for _, place, _ in left])
    for index, faults in crossed.items():
        for fault in faults:
            if REMEDIES[fault.kind].effect != "keep":
                dropped[left[index][0]][fault.kind.value] = None
    changes = []
    for row, case in enumerate(cases):
        name = case.conversation.id if case.conversation else ""
        if row in dropped:
            outcome, reasons = RowOutcome.DROPPED, tuple(dropped[row])
        else:
            outcome, reasons = RowOutcome.REPAIRED, tuple(sorted(case.repairs))
        if reasons:
            changes.append(Change(row, str(case.place), name, outcome, reasons))
    kept = [replace(case, faults=()) for row, case in enumerate(cases) if row not in dropped]
    copy = DataFile(train.path, train.format, kept)
    after = diagnose([copy, *others], lengths, progress, only_first=True)
    counts = (train.only_tasks, dict(train.repaired))
    return CleanResult(train.path, train.read, copy.conversations, changes, *counts, after)


def repair_conversation(
    conversation: Conversation, plain_tools: dict[int, Tool]
) -> tuple[Conversation, frozenset[str]]:
    """Return the conversation and the kinds of its repairs; without any, the same object.

    plain_tools: a cache of tools without nulls by the id of the tool; rows repeat their tools.
    """
    repairs: set[str] = set()
    for tool in conversation.tools:
        if id(tool) not in plain_tools:
            parameters = without_schema_nulls(dict(tool.parameters))
            same = parameters == tool.parameters
            plain_tools[id(tool)] = tool if same else replace(tool, parameters=parameters)
    tools = tuple(plain_tools[id(tool)] for tool in conversation.tools)
    if any(new is not old for new, old in zip(tools, conversation.tools, strict=True)):
        repairs.add(FindingKind.NULL_PADDING.value)
    named = {tool.name: tool for tool in tools}
    messages = [
        repaired
        for message in conversation.messages
        for repaired in _repair_message(message, named, repairs)
    ]
    for start, end, _, answers in list(result_runs(messages)):
        order = [number for number in answers if number is not None]
        if len(order) == end - start and order != sorted(order):
            by_call = sorted(zip(order, range(start, end), strict=True))
            messages[start:end] = [messages[place] for _, place in by_call]
            repairs.add(FindingKind.REORDERED_RESULTS.value)
    if repairs:
        conversation = replace(conversation, messages=tuple(messages), tools=tools)
    return conversation, frozenset(repairs)


def _repair_message(
    message: Message, tools: Mapping[str, Tool], repairs: set[str]
) -> Iterator[Message]:
    if message.role == "user" and (results := typed_results(message.content or "")):
        repairs.add(FindingKind.TYPED_RESULT.value)
        yield from (Message("tool", result) for result in results)
        return
    if message.role == "assistant":
        found, own = read_typed(message.content or "", tools), message.tool_calls
        # Typed calls beside calls of the message must be the same ones.
        if found is not None and (not own or list(found.calls) == list(own)):
            repairs.add(FindingKind.TYPED_CALL.value)
            message = replace(message, content=found.content, tool_calls=own or found.calls)
        calls = tuple(_repair_call(call, tools, repairs) for call in message.tool_calls)
        if any(new is not old for new, old in zip(calls, message.tool_calls, strict=True)):
            message = replace(message, tool_calls=calls)
    yield message


def _repair_call(call: ToolCall, tools: Mapping[str, Tool], repairs: set[str]) -> ToolCall:
    """Return the call with the name of its tool and with arguments that fit, where certain."""
    tool = tools.get(call.name)
    if tool is None:
        letters = letters_of(call.name)
        alike = [other for name, other in tools.items() if letters and letters_of(name) == letters]
        if len(alike) != 1:
            return call
        tool = alike[0]
    arguments: Mapping[str, Json] = call.arguments
    stripped, padding = strip_padding(arguments, tool.parameters)
    if padding:
        arguments = stripped
        repairs.add(FindingKind.NULL_PADDING.value)
    if tool.problems(arguments):
        fitting, _ = fit_call(ToolCall(tool.name, dict(arguments)), [tool])
        if not tool.problems(fitting.arguments):
            arguments = fitting.arguments
            repairs.add(FindingKind.BAD_ARGUMENTS.value)
    if tool.name != call.name:
        repairs.add(FindingKind.UNKNOWN_TOOL.value)
    elif arguments is call.arguments:
        return call
    return ToolCall(tool.name, dict(arguments), call.id)


def report_path(out: Path) -> Path:
    """`clean.jsonl` -> `clean.report.json`."""
    name = out.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return out.with_name(f"{name}.report.json")


def write_cleaned(cleaned: CleanResult, out: str | Path, originals: Sequence[str | Path]) -> Path:
    """Write the rows, and the report beside them; return the path of the report."""
    out = Path(out)
    check_target(out, originals)
    if not cleaned.conversations:
        what = f"no row is left after cleaning, so that {out} was not written"
        raise DataError(f"{cleaned.source}: {what}; wanted at least one sound row")
    report = report_path(out)
    write_jsonl(out, (conversation.to_dict() for conversation in cleaned.conversations))
    with writing(report.parent):
        write_json(report, {**cleaned.to_dict(), "out": str(out)})
    return report


def check_target(out: Path, originals: Sequence[str | Path]) -> None:
    """Refuse to write over the data, or over a file that is no earlier copy by `--fix`."""
    if any(out.resolve() == Path(original).resolve() for original in originals):
        what = "this is the data itself, which is never changed"
        raise RunError(f"--fix {out}: {what}; name another file")
    if out.exists() and not report_path(out).exists():
        what = f"the file exists, and no {report_path(out).name} says that the doctor wrote it"
        raise RunError(f"--fix {out}: {what}; name another file")
