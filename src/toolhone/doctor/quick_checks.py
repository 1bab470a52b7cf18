"""The fast part of the diagnosis, which every training runs on its rows: all that needs no model and no second file.

    findings = survey(loaded.conversations, loaded.places)
    findings.raise_if_any()                          # the grave kinds stop
    account = account_of(findings)                   # for data.json: counts, why they matter, a few examples of each kind

`check.check` is the narrower look at single rows that sources and transcripts use.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.doctor.findings import REMEDIES, WHOLE_FILE, DataFinding, Findings
from toolhone.doctor.links import order_faults
from toolhone.doctor.repeats import ToolTexts, conflicts, duplicates, near_duplicates, print_of
from toolhone.doctor.row_checks import place_names
from toolhone.doctor.text_checks import COMMON_MARKS, control_faults, text_faults
from toolhone.schema import Conversation, Json
from toolhone.sources.files import FileLine
from toolhone.sources.rules import Fault, FindingKind, conversation_faults

SHOWN = 5
"""Examples of a kind that are shown."""


def quick_checks(
    conversations: Sequence[Conversation], where: str | Sequence[FileLine]
) -> Findings:
    """All findings about these rows; `where` is the file's name, or the place of each row."""
    places = place_names(where, len(conversations))
    crossed = cross_faults(conversations, places)
    findings: list[DataFinding] = []
    for row, conversation in enumerate(conversations):
        faults = [*row_faults(conversation), *crossed.get(row, ())]
        findings += [
            DataFinding(fault[0], row, places[row], conversation.id, *fault[1:]) for fault in faults
        ]
    return Findings(len(conversations), findings)


def row_faults(
    conversation: Conversation, control: re.Pattern[str] | None = COMMON_MARKS
) -> Iterator[Fault]:
    """What is wrong with one row by itself. `control`: finds texts that are control tokens."""
    yield from conversation_faults(conversation)
    yield from order_faults(conversation.messages)
    yield from text_faults(conversation)
    if control is not None:
        yield from control_faults(conversation, control)


def cross_faults(
    conversations: Sequence[Conversation], places: Sequence[str]
) -> Mapping[int, Sequence[Fault]]:
    """What is wrong with rows beside others of the same file, by row."""
    texts = ToolTexts()
    prints = [print_of(conversation, texts) for conversation in conversations]
    found: dict[int, list[Fault]] = defaultdict(list)
    for row, first in duplicates(prints).items():
        found[row].append(
            Fault(
                FindingKind.DUPLICATE_ROW,
                "messages",
                f"says the same as {places[first]}",
                "wanted each row once",
            )
        )
    for row, first in near_duplicates(prints).items():
        what = f"says the same as {places[first]}, in other spelling or with other tools"
        found[row].append(
            Fault(FindingKind.NEAR_DUPLICATE, "messages", what, "wanted rows that add something")
        )
    for row, conflict in conflicts(prints).items():
        what = f"answers with {conflict.own} what {places[conflict.other]} answers with {conflict.others}"
        found[row].append(
            Fault(
                FindingKind.CONFLICT,
                f"messages[{conflict.message}]",
                what,
                "wanted one answer for one prompt",
            )
        )
    return found


@dataclass(frozen=True)
class FindingGroup:
    """The findings of one kind: how many, in how many rows, and the first few."""

    kind: FindingKind
    count: int
    rows: int
    examples: Sequence[DataFinding]

    def to_dict(self) -> dict[str, Json]:
        remedy = REMEDIES[self.kind]
        return {
            "kind": self.kind.value,
            "grave": remedy.grave,
            "count": self.count,
            "rows": self.rows,
            "why": remedy.why,
            "fix": remedy.fix,
            "examples": [finding_dict(finding) for finding in self.examples],
        }


def finding_dict(finding: DataFinding) -> dict[str, Json]:
    """A finding for JSON; its row counts from 0 and is null where it speaks of a file."""
    return {
        "kind": finding.kind.value,
        "row": None if finding.row == WHOLE_FILE else finding.row,
        "place": finding.place,
        "id": finding.id,
        "field": finding.field,
        "what": finding.what,
        "right": finding.right,
        "times": finding.times,
    }


def groups_of(findings: Findings) -> list[FindingGroup]:
    """Findings by kind: the grave ones first, then by number."""
    members: dict[FindingKind, list[DataFinding]] = defaultdict(list)
    for finding in findings.findings:
        members[finding.kind].append(finding)
    groups = [
        FindingGroup(
            kind, findings.counts[kind], len({(one.place, one.row) for one in found}), found[:SHOWN]
        )
        for kind, found in members.items()
    ]
    return sorted(
        groups, key=lambda group: (not REMEDIES[group.kind].grave, -group.count, group.kind.value)
    )


def account_of(findings: Findings) -> list[dict[str, Json]]:
    """The findings by kind, for a report."""
    return [group.to_dict() for group in groups_of(findings)]
