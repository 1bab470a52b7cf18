r"""Hermes: function calling as text, the tools in the system message, calls and results in tags.

    {"id": "h1", "conversations": [{"from": "system", "value": "You are ... <tools> [{...}] </tools> For each call ..."},
                                   {"from": "human", "value": "..."}, {"from": "gpt", "value": "<tool_call> {...} </tool_call>"},
                                   {"from": "tool", "value": "<tool_response> {...} </tool_response>"}, ...]}
    {"example": "SYSTEM: ... <tools>[...]</tools>\nUSER: ...\nASSISTANT:\n<tool_call>\n{...}\n</tool_call>"}

Tools and calls are JSON or Python literals (the older rows have the latter; nothing is evaluated). Of the system text the sentences
before the first tag are kept; the list of tools and the description of the format belong to the dialect that renders the row, and
leaving them out is counted as a repair. Rows whose calls do not fit their tools are counted and skipped. Format: NousResearch,
hermes-function-calling-v1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Json, Tool
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.call_texts import Talk, fitting, read_tagged, read_values
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.tasks import tasks_of

NAME = "hermes"
ABOUT = About(
    title="Hermes function calling v1",
    link="https://huggingface.co/datasets/NousResearch/hermes-function-calling-v1",
    licence="Apache-2.0",
    rows="11,578",
    teaches="calls in one and in several turns, several at once, from tools listed in the system text",
)
USES: frozenset[str] = frozenset()
_BLOCK = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_RESPONSES = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?:](?=\s|$)|\n")
_MARKER = re.compile(r"^(SYSTEM|USER|ASSISTANT|TOOL):[ \t]*", re.MULTILINE)
_ROLES = {
    **dict.fromkeys(("system", "SYSTEM"), "system"),
    **dict.fromkeys(("human", "user", "USER"), "user"),
    **dict.fromkeys(("gpt", "assistant", "ASSISTANT"), "assistant"),
    **dict.fromkeys(("tool", "observation", "TOOL"), "tool"),
}


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a Hermes row"
    NO_TOOLS = "a system text without a list of tools"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `offered` and `call_texts`."""

    FORMAT = "tools and format description taken out of the system text"


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    if isinstance(record.get("example"), str):
        return bool(_BLOCK.search(record["example"]))
    turns = record.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns else None
    return (
        isinstance(first, dict)
        and first.get("from") == "system"
        and "<tools>" in str(first.get("value"))
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls fit its tools, with the tasks of its turns."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            talk, repairs = _conversation(line, record, offered)
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk), repairs)
    return tally.loaded()


def _conversation(
    line: FileLine, record: Record, offered: OfferedTools
) -> tuple[Conversation, set[str]]:
    tools: tuple[Tool, ...] = ()
    talk = Talk()
    for index, (role, text) in enumerate(_turns(record)):
        if role == "system" and index == 0:
            words, listed = split_system(text)
            tools, repairs = offered.read(listed)
            talk.repairs |= {Repair.FORMAT, *repairs}
            if words:
                talk.say("system", words)
        elif role == "assistant":
            talk.assistant(fitting(read_tagged(text), tools))
        elif role == "tool":
            for result in _RESPONSES.findall(text) or [text]:
                talk.result(result.strip())
        else:
            talk.say(role, text.strip())
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs


def _turns(record: Record) -> Iterator[tuple[str, str]]:
    """Role and text of each turn, whichever way the row writes them."""
    if isinstance(record.get("example"), str):
        parts = _MARKER.split(
            record["example"].strip().removeprefix("```").removesuffix("```").strip()
        )
        pairs: list[tuple[Json, Json]] = list(zip(parts[1::2], parts[2::2], strict=True))
    else:
        turns = record.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise Skip(
                Reason.NOT_THIS_FORMAT,
                f"wanted 'conversations' or 'example'; keys {sorted(record)}",
            )
        pairs = [(turn.get("from"), turn.get("value")) for turn in turns]
    if not pairs or pairs[0][0] not in ("system", "SYSTEM"):
        raise Skip(
            Reason.NO_TOOLS, f"the first turn is that of {pairs[0][0]!r}" if pairs else "no turns"
        )
    for role, text in pairs:
        if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
            raise Skip(Reason.NOT_THIS_FORMAT, f"a turn of {role!r:.40} with {text!r:.40}")
        yield _ROLES[role], text


def split_system(text: str) -> tuple[str, Json]:
    """What the system text says before it speaks of tags, and the tools it lists."""
    block = next((found for found in _BLOCK.finditer(text) if found[1].strip()), None)
    if block is None:
        raise Skip(Reason.NO_TOOLS, repr(text[:80]))
    try:
        values = [value for value, _ in read_values(block[1])]
    except Skip as skip:
        raise Skip(ToolReason.BAD_TOOLS, skip.detail) from None
    before = text[: text.index("<tools>")]
    ends = [found.end() for found in _SENTENCE_END.finditer(before)]
    return before[: ends[-1]].strip() if ends else "", values[0] if len(values) == 1 and isinstance(
        values[0], list
    ) else values
