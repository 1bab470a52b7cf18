r"""Seal-Tools' own training rows: the tools and the query in one prompt, the calls as a list; all of it Python literals.

    {"id": "s1", "conversations": [{"from": "human", "value": "...\napi_list = [{...}]\ntask_instruction = \"...\"\nOutput:\n"},
                                   {"from": "gpt", "value": "[{'api': 'f', 'parameters': {...}, 'responses': ['API_call_0']}]"}]}

The prompt is taken apart: on offer is what `api_list` holds, the user says what `task_instruction` says, and the description of
the format is left out, which is counted as a repair. How tools and calls are read, and that a row with a call that uses another
call's result gives a task alone, is said in `seal_tools`. Nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Conversation, Message
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_texts import read_value
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import Repair as ToolRepair
from toolhone.sources.seal_tools import Catalogue, keep, read_calls

NAME = "seal_tools_sft"
ABOUT = About(
    title="Seal-Tools, training rows",
    link="https://github.com/fairyshine/Seal-Tools",
    licence="Apache-2.0",
    rows="part of the 14,076",
    teaches="choosing one or several out of a handful of tools that a search found",
)
USES: frozenset[str] = frozenset()
_LIST, _QUERY, _END = "\napi_list = ", "\ntask_instruction = ", "\nOutput:"


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `seal_tools` and `call_texts`."""

    NOT_THIS_FORMAT = "not a training row of Seal-Tools"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `offered`."""

    FORMAT = "tools and format description taken out of the prompt"


def sniff(records: Sequence[Record]) -> bool:
    return all(_texts(record) is not None for record in records)


def _texts(record: Record) -> tuple[str, str] | None:
    """The prompt and the answer of a row; None for another kind of row."""
    turns = record.get("conversations")
    if (
        not isinstance(turns, list)
        or len(turns) != 2
        or not all(isinstance(turn, dict) for turn in turns)
    ):
        return None
    prompt, answer = turns[0].get("value"), turns[1].get("value")
    if (
        not isinstance(prompt, str)
        or not isinstance(answer, str)
        or _LIST not in prompt
        or _QUERY not in prompt
    ):
        return None
    return prompt, answer


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls fit, with one task that expects them."""
    tally = ReadStats()
    for line, record in read_records(path):
        try:
            talk, catalogue, mended = _conversation(line, record)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            keep(
                tally,
                line,
                talk,
                catalogue,
                [Repair.FORMAT, *([ToolRepair.TYPED] if mended else [])],
            )
    return tally.loaded()


def _conversation(line: FileLine, record: Record) -> tuple[Conversation, Catalogue, bool]:
    texts = _texts(record)
    if texts is None:
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    prompt, answer = texts
    listed, end, _ = read_value(prompt, prompt.index(_LIST) + len(_LIST))
    before, found, rest = prompt[end:].partition(_QUERY)
    if not isinstance(listed, list) or before.strip() or not found:
        raise Skip(Reason.NOT_THIS_FORMAT, f"{prompt[end : end + 60]!r} behind the tools")
    catalogue = Catalogue()
    try:
        for entry in listed:
            catalogue.add(line, entry)
    except (DataError, AttributeError) as error:
        raise Skip(Reason.NOT_THIS_FORMAT, str(error).removeprefix(f"{line}: ")) from None
    said = rest.rpartition(_END)[0] or rest
    calling, behind, _ = read_value(answer)
    if answer[behind:].strip():
        raise Skip(Reason.NOT_THIS_FORMAT, f"{answer[behind : behind + 60]!r} behind the calls")
    query, calls, mended = read_calls(
        {"query": said.strip().removeprefix('"').removesuffix('"').strip(), "calling": calling},
        catalogue,
    )
    messages = (Message("user", query), Message("assistant", tool_calls=calls))
    return (
        Conversation(messages, tuple(catalogue.tools.values()), identity_of(line, record), NAME),
        catalogue,
        mended,
    )
