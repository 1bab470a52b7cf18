"""The fast check before training: does every conversation say what it should, and does every row fit?

    findings = check(loaded.conversations, loaded.places)    # no tokenizer, no model
    findings.raise_if_any()                                  # one sentence: the first finding, and how many there are

Each finding says where (file and line, id, field), what is wrong and what would be right. Rows are never changed and never cut: a
call that ends in the middle would teach exactly that. `doctor.survey` looks at texts and at rows beside each other as well; mending
is the doctor's.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.doctor.findings import DataFinding, Findings
from toolhone.doctor.repeats import ToolTexts, duplicates, print_of
from toolhone.schema import Conversation
from toolhone.sources.files import FileLine
from toolhone.sources.rules import Fault, FindingKind, conversation_faults


def check(conversations: Sequence[Conversation], where: str | Sequence[FileLine]) -> Findings:
    """Check each conversation; `where` is the file's name, or the place of each row as a source gives it."""
    places, texts = place_names(where, len(conversations)), ToolTexts()
    repeated = duplicates([print_of(conversation, texts) for conversation in conversations])
    findings: list[DataFinding] = []
    for row, conversation in enumerate(conversations):
        faults = list(conversation_faults(conversation))
        if row in repeated:
            what = f"says the same as {places[repeated[row]]}"
            faults.append(
                Fault(FindingKind.DUPLICATE_ROW, "messages", what, "wanted each row once")
            )
        for kind, field, what, right in faults:
            findings.append(
                DataFinding(kind, row, places[row], conversation.id, field, what, right)
            )
    return Findings(len(conversations), findings)


def place_names(where: str | Sequence[FileLine], count: int) -> list[str]:
    """The place of each of so many rows, as a text."""
    return (
        [f"{where}, row {row + 1}" for row in range(count)]
        if isinstance(where, str)
        else list(map(str, where[:count]))
    )
