"""The fast check before training: does every conversation say what it should, and does every row fit?

    findings = check(loaded.conversations, loaded.places)    # no tokenizer, no model
    findings.raise_if_any()                                  # one sentence: the first finding, and how many there are
    lengths = check_lengths(rows, max_length=2048)           # rendered rows: drop (and count) what is too long

Each finding says where (file and line, id, field), what is wrong and what would be right. Rows are never changed and never cut: a
call that ends in the middle would teach exactly that. `doctor.survey` looks at texts and at rows beside each other as well; mending
is the doctor's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolhone.doctor.arguments import call_faults
from toolhone.doctor.findings import DataFinding, Fault, FindingKind, Findings
from toolhone.doctor.links import link_faults
from toolhone.doctor.repeats import ToolTexts, duplicates, print_of
from toolhone.errors import DataError
from toolhone.rows import Row
from toolhone.schema import Conversation, Message, Tool

if TYPE_CHECKING:
    from toolhone.sources.files import FileLine

__all__ = [
    "DataFinding",
    "FindingKind",
    "Findings",
    "Lengths",
    "check",
    "check_lengths",
    "conversation_faults",
    "place_names",
]
_REMEDY = "raise the maximum length or shorten the rows"


def check(conversations: Sequence[Conversation], where: str | Sequence[FileLine]) -> Findings:
    """Check each conversation; `where` is the file's name, or the place of each row as a source gives it."""
    places, texts = place_names(where, len(conversations)), ToolTexts()
    repeated = duplicates([print_of(conversation, texts) for conversation in conversations])
    findings: list[DataFinding] = []
    for row, conversation in enumerate(conversations):
        faults = list(conversation_faults(conversation))
        if row in repeated:
            what = f"says the same as {places[repeated[row]]}"
            faults.append((FindingKind.DUPLICATE_ROW, "messages", what, "wanted each row once"))
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


def conversation_faults(conversation: Conversation) -> Iterator[Fault]:
    """What is wrong with one conversation: its tools, its turns, its calls, its results."""
    tools: dict[str, Tool] = {}
    for index, tool in enumerate(conversation.tools):
        known = tools.setdefault(tool.name, tool)
        if known is not tool and known != tool:
            yield (
                FindingKind.TOOL_TWICE,
                f"tools[{index}]",
                f"a second, different tool is named {tool.name!r}",
                "wanted one tool for each name",
            )
    if all(message.role != "assistant" for message in conversation.messages):
        yield (
            FindingKind.NO_ASSISTANT,
            "messages",
            "there is no assistant message",
            "wanted one to learn from",
        )
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant":
            yield from _turn_faults(f"messages[{index}]", message, tools)
    yield from link_faults(conversation.messages)


def _turn_faults(field: str, message: Message, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    if not message.tool_calls and not (message.content or "").strip():
        yield (
            FindingKind.EMPTY_TURN,
            field,
            "the assistant says nothing and calls nothing",
            "wanted content or tool_calls",
        )
    for index, call in enumerate(message.tool_calls):
        yield from call_faults(f"{field}.tool_calls[{index}]", call, tools)


@dataclass(frozen=True)
class Lengths:
    """Rows that fit; how many did not; and the longest row seen, in tokens."""

    rows: list[Row]
    dropped: int
    longest: int


def check_lengths(
    rows: Sequence[Row], max_length: int, policy: Literal["drop", "error"] = "drop"
) -> Lengths:
    """Keep the rows of at most `max_length` tokens (0: any length), whole; a row with nothing to learn is an error.

    A longer row is dropped and counted, or, with policy `error`, is an error. Rows of one group stand or fall together.
    """
    for number, row in enumerate(rows, start=1):
        if not row.mask.any():
            raise DataError(
                f"row {number} of {len(rows)} has {len(row)} tokens and none to learn from; wanted an assistant turn"
            )
    longest = max(map(len, rows), default=0)
    too_long = [row for row in rows if 0 < max_length < len(row)]
    if too_long and policy == "error":
        raise DataError(
            f"{len(too_long)} of {len(rows)} rows are longer than {max_length} tokens, the longest has {longest}; {_REMEDY}"
        )
    lost = {row.group for row in too_long if row.group is not None}
    kept = [row for row in rows if not 0 < max_length < len(row) and row.group not in lost]
    if rows and not kept:
        shortest = min(map(len, rows))
        raise DataError(
            f"no row is left: all {len(rows)} are longer than {max_length} tokens, the shortest has {shortest}; {_REMEDY}"
        )
    return Lengths(kept, len(rows) - len(kept), longest)
