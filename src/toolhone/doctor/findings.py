"""What can be wrong with training data: the kinds of findings, how grave each is, why it matters, and what `--fix` does about it.

    finding.kind, finding.place, finding.field, finding.what        # one thing that is wrong
    REMEDIES[finding.kind].why, REMEDIES[finding.kind].fix
    Findings(rows, findings).raise_if_any()                         # what stops a training, as one sentence

A finding of grave kind says that training should not go on; the others are remarks. How things are found is not said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from toolhone.errors import DataError
from toolhone.sources.rules import FindingKind

WHOLE_FILE = -1
"""The `row` of a finding that speaks of a file."""


@dataclass(frozen=True)
class Remedy:
    """Why a kind matters, what `--fix` does about it, and whether a row that still has it after mending is dropped."""

    why: str
    fix: str
    grave: bool = True
    drops: bool = True


_DROPS = "drops the row"
_LEFT = "leaves it as it is"

REMEDIES: dict[FindingKind, Remedy] = {
    FindingKind.UNREADABLE: Remedy(
        "nobody knows what the row should teach, and training stops there", _DROPS
    ),
    FindingKind.REFUSED: Remedy("training skips and counts it", _DROPS, grave=False),
    FindingKind.MENDED: Remedy(
        "the row is used in its mended form", "writes the mended form", grave=False, drops=False
    ),
    FindingKind.UNCHECKED: Remedy(
        "what could not be checked may be wrong", _LEFT, grave=False, drops=False
    ),
    FindingKind.NOTHING_TO_LEARN: Remedy("a training needs assistant turns", "writes no such row"),
    FindingKind.NO_ASSISTANT: Remedy("there is nothing to learn from", _DROPS),
    FindingKind.EMPTY_TURN: Remedy("the model learns to answer with nothing", _DROPS),
    FindingKind.NO_NAME: Remedy("no tool can be run from it", _DROPS),
    FindingKind.UNKNOWN_TOOL: Remedy(
        "the model learns to invent tools",
        "takes the tool whose name differs in case and separators only, else drops the row",
    ),
    FindingKind.BAD_ARGUMENTS: Remedy(
        "the model learns calls that the tool refuses",
        "converts values where only one can be meant, else drops the row",
    ),
    FindingKind.UNDECLARED_ARGUMENT: Remedy("the model learns to invent arguments", _DROPS),
    FindingKind.NULL_PADDING: Remedy(
        "a table that merged all tools put the fields of the others in as null; the model learns to write them",
        "takes the nulls out",
    ),
    FindingKind.TOOL_TWICE: Remedy("nobody knows which of them is called", _DROPS),
    FindingKind.RESULT_WITHOUT_CALL: Remedy(
        "the result speaks of a call that the model never sees", _DROPS
    ),
    FindingKind.CALL_WITHOUT_RESULT: Remedy(
        "the model learns to go on without waiting for a result", _DROPS
    ),
    FindingKind.REORDERED_RESULTS: Remedy(
        "templates that drop ids show the results in the wrong order",
        "puts them in the order of the calls",
        grave=False,
        drops=False,
    ),
    FindingKind.ARGUMENTS_AS_TEXT: Remedy(
        "read as an object here; other programs hand the text to the template, and many templates encode it a second time",
        "writes them as an object",
        grave=False,
        drops=False,
    ),
    FindingKind.ENCODED_TWICE: Remedy(
        "what is inside is text, not arguments", "decodes them, else drops the row"
    ),
    FindingKind.ARGUMENTS_NOT_JSON: Remedy(
        "they cannot be read as JSON", "reads Python literals, else drops the row"
    ),
    FindingKind.TYPED_CALL: Remedy(
        "the chat template never sees it: the model learns these characters in place of the template's own, and its calls break",
        "makes it a call where it can be read, else drops the row",
    ),
    FindingKind.STRAY_MARK: Remedy("the model learns marks that break its own calls", _DROPS),
    FindingKind.TYPED_RESULT: Remedy(
        "the chat template writes results in its own form; a model trained on this one never sees it in use",
        "makes it a tool message",
    ),
    FindingKind.CONTROL_TEXT: Remedy(
        "kept as plain text here, but other programs make it the control token itself, which can end a turn or forge one",
        _LEFT,
        grave=False,
        drops=False,
    ),
    FindingKind.DUPLICATE_ROW: Remedy(
        "it weighs twice, and may stand on both sides of a split",
        "keeps the first one",
        grave=False,
    ),
    FindingKind.NEAR_DUPLICATE: Remedy(
        "it adds little, and may stand on both sides of a split", _LEFT, grave=False, drops=False
    ),
    FindingKind.CONFLICT: Remedy(
        "the model cannot learn both; at best it learns a coin toss",
        "keeps the rows with the answer of the majority of sound rows; without one, drops them all",
        grave=False,
    ),
    FindingKind.LEAK: Remedy(
        "what the evaluation finds has been learnt by heart", "drops the row from the first file"
    ),
    FindingKind.BENCHMARK: Remedy("a score on BFCL would then measure memory", _DROPS, grave=False),
    FindingKind.CANNOT_RENDER: Remedy("training stops there", _DROPS),
    FindingKind.NO_SUPERVISED: Remedy("training stops there", _DROPS),
    FindingKind.TOO_LONG: Remedy("training drops it whole, and counts it", _DROPS, grave=False),
    FindingKind.MAYBE_TOO_LONG: Remedy(
        "training would drop it; with --model the tokens are counted exactly",
        _LEFT,
        grave=False,
        drops=False,
    ),
    FindingKind.NO_LIMIT: Remedy(
        "rows of any length pass; name a limit with --max-length",
        "does nothing",
        grave=False,
        drops=False,
    ),
    FindingKind.NO_CALLS: Remedy(
        "the model is not taught to call anything",
        "does nothing: add such rows",
        grave=False,
        drops=False,
    ),
    FindingKind.ONLY_CALLS: Remedy(
        "a model that always saw a call learns to call always",
        "does nothing: add such rows",
        grave=False,
        drops=False,
    ),
    FindingKind.FEW_CALLS: Remedy(
        "a model that hardly saw a call learns to call never",
        "does nothing: add such rows",
        grave=False,
        drops=False,
    ),
    FindingKind.ONE_TOOL: Remedy(
        "nothing teaches to choose between tools",
        "does nothing: add other tools",
        grave=False,
        drops=False,
    ),
}
REMARKS = frozenset(kind for kind, remedy in REMEDIES.items() if not remedy.grave)
"""Kinds that do not stop a training."""
BESIDE_OTHERS = frozenset(
    {FindingKind.DUPLICATE_ROW, FindingKind.NEAR_DUPLICATE, FindingKind.CONFLICT}
)
"""Kinds that a row has only because of other rows of its file."""


@dataclass(frozen=True)
class DataFinding:
    """One thing that is wrong.

    `row` counts from 0 (`WHOLE_FILE`: it speaks of a file); `place` is the file and line; `field` is a path inside the row;
    `times`: how many rows a finding about a file stands for.
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

    def raise_if_any(self, allow: Collection[FindingKind] = REMARKS) -> None:
        """Raise one `DataError` about the first finding whose kind is not allowed, with the number of the others."""
        first = next((finding for finding in self.findings if finding.kind not in allow), None)
        if first is None:
            return
        same = self.counts[first.kind] - 1
        others = sum(count for kind, count in self.counts.items() if kind not in allow) - same - 1
        counted = [(same, "more of this kind"), (others, "of other kinds")]
        more = " and ".join(f"{count} {text}" for count, text in counted if count)
        raise DataError(f"{first} (… and {more})" if more else str(first))
