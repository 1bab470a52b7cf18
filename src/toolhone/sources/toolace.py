r"""ToolACE: tools in the system text, calls as `[name(key=value), ...]`, where names may hold spaces.

    {"system": "You are ... functions in JSON format that you can invoke:\n[{\"name\": \"Market Trends\", ...}]. \nShould you ...",
     "conversations": [{"from": "user", "value": "..."}, {"from": "assistant", "value": "[Market Trends(kind=\"A\")]"},
                       {"from": "tool", "value": "[{\"name\": \"Market Trends\", \"results\": {...}}]"}, ...]}

The system text gives the tools. What it says before them belongs to the dialect that renders the row, as does the description of
the format behind them; both are left out and counted as a repair. A call keeps its name as it is, spaces and all. Types that are
no JSON Schema (`dict`, `float`) are put right. Rows whose calls do not fit their tools are counted and skipped. Format: Liu et
al. 2024, arXiv:2409.00920.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.call_texts import Talk
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.prompt_rows import split_prompt
from toolhone.sources.sharegpt import add_turns, turns_of
from toolhone.sources.tasks import tasks_of

NAME = "toolace"
ABOUT = About(
    title="ToolACE",
    link="https://huggingface.co/datasets/Team-ACE/ToolACE",
    licence="Apache-2.0",
    rows="11,300",
    teaches="single, parallel and dependent calls, missing parameters and requests that no tool can serve",
)
USES: frozenset[str] = frozenset()


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `sharegpt`, `offered`, `call_texts` and the kinds of `data.check`."""

    NO_TOOLS = "a system text without a list of tools"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `offered` and `call_texts`."""

    FORMAT = "tools and format description taken out of the system text"


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    system = record.get("system")
    return (
        isinstance(record.get("conversations"), list)
        and "tools" not in record
        and isinstance(system, str)
        and "[{" in system
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
    system = record.get("system")
    prompt = split_prompt(system) if isinstance(system, str) else None
    if prompt is None:
        raise Skip(Reason.NO_TOOLS, f"{system!r:.80}")
    tools, repairs = offered.read(prompt.tools)
    talk = Talk()
    talk.repairs |= {Repair.FORMAT, *repairs}
    add_turns(talk, turns_of(record), tools)
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs
