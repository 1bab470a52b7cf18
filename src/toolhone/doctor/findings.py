"""Findings about training data: where, what, why it matters, and what `--fix` does about it.

    finding.kind, finding.place, finding.field, finding.what
    REMEDIES[finding.kind].why, REMEDIES[finding.kind].fix
    findings.raise_if_any()             # the first grave finding, as one sentence

A grave finding stops a training; the others are remarks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from toolhone.errors import DataError
from toolhone.schema import Json
from toolhone.sources.rules import Fault, FindingKind

WHOLE_FILE = -1
"""The `row` of a finding about a whole file."""
SHOWN = 5
"""Examples of a kind that are shown."""


@dataclass(frozen=True)
class Remedy:
    """What a kind leads to, why it matters, and what `--fix` does about it.

    effect: `stop` ends a training, and `--fix` drops a row that it cannot repair; `drop` lets a
    training go on, but `--fix` drops the row; `keep` is a remark.
    """

    effect: Literal["stop", "drop", "keep"]
    why: str
    fix: str = "drops the row"

    @property
    def grave(self) -> bool:
        return self.effect == "stop"

    @property
    def drops(self) -> bool:
        return self.effect != "keep"


_LEFT = "leaves it as it is"
_ADD = "does nothing: add such rows"

REMEDIES: dict[FindingKind, Remedy] = {
    FindingKind.UNREADABLE: Remedy("stop", "nobody knows what the row teaches; training stops"),
    FindingKind.REFUSED: Remedy("drop", "training skips and counts it"),
    FindingKind.REPAIRED: Remedy(
        "keep", "training uses the row in its repaired form", "writes the repaired form"
    ),
    FindingKind.UNCHECKED: Remedy("keep", "what was not checked may be wrong", _LEFT),
    FindingKind.NOTHING_TO_LEARN: Remedy(
        "stop", "a training needs assistant turns", "writes no such row"
    ),
    FindingKind.NO_ASSISTANT: Remedy("stop", "there is nothing to learn from"),
    FindingKind.EMPTY_TURN: Remedy("stop", "the model learns to answer with nothing"),
    FindingKind.NO_NAME: Remedy("stop", "no tool can be run from it"),
    FindingKind.UNKNOWN_TOOL: Remedy(
        "stop",
        "the model learns to invent tools",
        "takes the tool whose name differs in case and separators only, else drops the row",
    ),
    FindingKind.BAD_ARGUMENTS: Remedy(
        "stop",
        "the model learns calls that the tool refuses",
        "converts values where only one can be meant, else drops the row",
    ),
    FindingKind.UNDECLARED_ARGUMENT: Remedy("stop", "the model learns to invent arguments"),
    FindingKind.NULL_PADDING: Remedy(
        "stop",
        "a table that merged all tools added the fields of the others as null; the model learns to "
        "write them",
        "removes the nulls",
    ),
    FindingKind.TOOL_TWICE: Remedy("stop", "nobody knows which of them is called"),
    FindingKind.RESULT_WITHOUT_CALL: Remedy(
        "stop", "the result belongs to a call that the model never sees"
    ),
    FindingKind.CALL_WITHOUT_RESULT: Remedy(
        "stop", "the model learns to continue without a result"
    ),
    FindingKind.REORDERED_RESULTS: Remedy(
        "keep",
        "templates that drop ids show the results in the wrong order",
        "puts them in the order of the calls",
    ),
    FindingKind.ARGUMENTS_AS_TEXT: Remedy(
        "keep",
        "Toolhone reads it as an object; other programs hand the text to the template, and many "
        "templates encode it a second time",
        "writes them as an object",
    ),
    FindingKind.ENCODED_TWICE: Remedy(
        "stop", "what is inside is text, not arguments", "decodes them, else drops the row"
    ),
    FindingKind.ARGUMENTS_NOT_JSON: Remedy(
        "stop", "they cannot be read as JSON", "reads Python literals, else drops the row"
    ),
    FindingKind.TYPED_CALL: Remedy(
        "stop",
        "the chat template never sees it: the model learns these characters in place of the "
        "template's own, and its calls break",
        "makes it a call where it can be read, else drops the row",
    ),
    FindingKind.STRAY_MARK: Remedy("stop", "the model learns marks that break its own calls"),
    FindingKind.TYPED_RESULT: Remedy(
        "stop",
        "the chat template writes results in its own form; a model trained on this one never sees "
        "it in use",
        "makes it a tool message",
    ),
    FindingKind.CONTROL_TEXT: Remedy(
        "keep",
        "Toolhone encodes it as plain text; other programs make it the control token itself, which "
        "can end a turn or forge one",
        _LEFT,
    ),
    FindingKind.DUPLICATE_ROW: Remedy(
        "drop", "it counts twice, and may be on both sides of a split", "keeps the first one"
    ),
    FindingKind.NEAR_DUPLICATE: Remedy(
        "keep", "it adds little, and may be on both sides of a split", _LEFT
    ),
    FindingKind.CONFLICT: Remedy(
        "drop",
        "the model cannot learn both; at best it learns a coin toss",
        "keeps the rows with the answer of the majority of sound rows; without one, drops them all",
    ),
    FindingKind.LEAK: Remedy(
        "stop", "the evaluation measures what was memorized", "drops the row from the first file"
    ),
    FindingKind.BENCHMARK: Remedy("drop", "a score on BFCL would then measure memory"),
    FindingKind.CANNOT_RENDER: Remedy("stop", "training stops there"),
    FindingKind.NO_SUPERVISED: Remedy("stop", "training stops there"),
    FindingKind.TOO_LONG: Remedy("drop", "training drops it whole, and counts it"),
    FindingKind.MAYBE_TOO_LONG: Remedy(
        "keep", "training would drop it; with --model the tokens are counted exactly", _LEFT
    ),
    FindingKind.NO_LIMIT: Remedy(
        "keep", "rows of any length pass; name a limit with --max-length", "does nothing"
    ),
    FindingKind.NO_CALLS: Remedy("keep", "the model is not taught to call anything", _ADD),
    FindingKind.ONLY_CALLS: Remedy(
        "keep", "a model that always saw a call learns to call always", _ADD
    ),
    FindingKind.FEW_CALLS: Remedy(
        "keep", "a model that hardly saw a call learns to call never", _ADD
    ),
    FindingKind.ONE_TOOL: Remedy(
        "keep", "nothing teaches to choose between tools", "does nothing: add other tools"
    ),
}
REMARKS = frozenset(kind for kind, remedy in REMEDIES.items() if not remedy.grave)
"""Kinds that do not stop a training."""


@dataclass(frozen=True)
class DataFinding:
    """One thing that is wrong.

    row: counts from 0, or is `WHOLE_FILE`. place: file and line. field: a path inside the row.
    times: the rows that a finding about a file counts for.
    """

    kind: FindingKind
    row: int
    place: str
    id: str
    field: str
    what: str
    right: str
    times: int = 1

    def __str__(self) -> str:
        name = f" (id {self.id!r})" if self.id else ""
        field = f", {self.field}" if self.field else ""
        right = f"; {self.right}" if self.right else ""
        return f"{self.place}{name}{field}: {self.what}{right}"

    def to_dict(self) -> dict[str, Json]:
        """Return the finding for JSON; `row` is null for a finding about a file."""
        row = None if self.row == WHOLE_FILE else self.row
        return {**vars(self), "kind": self.kind.value, "row": row}


def finding_at(fault: Fault, row: int, place: str, identity: str = "") -> DataFinding:
    """Return a fault with its place."""
    return DataFinding(fault.kind, row, place, identity, fault.field, fault.what, fault.right)


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
            "examples": [finding.to_dict() for finding in self.examples],
        }


@dataclass(frozen=True)
class Findings:
    """All findings, in the order of the rows; `rows` were checked."""

    rows: int
    findings: Sequence[DataFinding]

    @cached_property
    def counts(self) -> Counter[FindingKind]:
        """Findings by kind."""
        counts: Counter[FindingKind] = Counter()
        for finding in self.findings:
            counts[finding.kind] += finding.times
        return counts

    @cached_property
    def groups(self) -> list[FindingGroup]:
        """Findings by kind: the grave ones first, then by number."""
        members: dict[FindingKind, list[DataFinding]] = defaultdict(list)
        for finding in self.findings:
            members[finding.kind].append(finding)
        groups = [
            FindingGroup(
                kind, self.counts[kind], len({(one.place, one.row) for one in found}), found[:SHOWN]
            )
            for kind, found in members.items()
        ]
        return sorted(
            groups, key=lambda group: (group.kind in REMARKS, -group.count, group.kind.value)
        )

    def raise_if_any(self, allow: Collection[FindingKind] = REMARKS) -> None:
        """Raise a `DataError` about the first finding that is not allowed, and count the others."""
        first = next((finding for finding in self.findings if finding.kind not in allow), None)
        if first is None:
            return
        same = self.counts[first.kind] - 1
        others = sum(count for kind, count in self.counts.items() if kind not in allow) - same - 1
        counted = [(same, "more of this kind"), (others, "of other kinds")]
        more = " and ".join(f"{count} {text}" for count, text in counted if count)
        raise DataError(f"{first} (… and {more})" if more else str(first))


def account_of(findings: Findings) -> list[dict[str, Json]]:
    """Return the findings by kind, for a report."""
    return [group.to_dict() for group in findings.groups]
