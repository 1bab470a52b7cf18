r"""The sharegpt forms: turns with `from` and `value` (or `role` and `content`), tools as a JSON string beside them.

    {"conversations": [{"from": "human", "value": "..."}, {"from": "function_call", "value": "{\"name\", \"arguments\"}"},
                       {"from": "observation", "value": "..."}, {"from": "gpt", "value": "..."}],
     "tools": "[{\"name\", \"description\", \"parameters\"}]", "system": "..."?}

Read are the roles human/user, gpt/assistant/model, system, function_call/tool_call (one call, a list, or one a line) and
observation/tool/function_response; calls also in the assistant's text, as `<tool_call>` blocks or as `[name(key=value)]`. An
observation that lists as many results as there are open calls is taken apart. Where no tools are given, calls cannot be checked,
so a row with calls is counted and skipped, as is one whose calls do not fit. Preference pairs (`chosen`, `rejected`) are not
conversations: counted and skipped. A row without calls is kept as plain talk. Turns with lists of texts (RoTBench) are not of
this form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Json, Tool
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_texts import (
    Said,
    Talk,
    fitting,
    read_bracketed,
    read_listed,
    read_tagged,
)
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.tasks import tasks_of

NAME = "sharegpt"
ABOUT = About(
    title="sharegpt forms (glaive for LLaMA-Factory and others)",
    link="https://github.com/hiyouga/LLaMA-Factory/tree/main/data",
    licence="as the data set; Apache-2.0 for the demonstration files",
    rows="any",
    teaches="calls and plain talk over several turns; when to ask, to call and to decline",
)
USES: frozenset[str] = frozenset()
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), "call"),
    **dict.fromkeys(
        ("observation", "tool", "function", "function_response", "tool_response"), "tool"
    ),
}


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a sharegpt row"
    PAIRS = "preference pairs"
    NO_TOOLS = "calls although the row gives no tools"


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_row(record) for record in records)


def _is_row(record: Record) -> bool:
    turns, system = record.get("conversations"), record.get("system")
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        return False
    opening = f"{system if isinstance(system, str) else ''}{_text_of(turns[0])}"
    if "<tools>" in opening or "api_list = [" in opening or "\nAction:" in opening:
        return False  # Hermes, Seal-Tools' own training rows, ReAct
    return not (isinstance(system, str) and "[{" in system and "tools" not in record)  # ToolACE


def _is_turn(turn: Json) -> bool:
    return isinstance(turn, dict) and _role_of(turn) in ROLES and isinstance(_text_of(turn), str)


def _role_of(turn: Record) -> str:
    return str(turn.get("from", turn.get("role")))


def _text_of(turn: Record) -> Json:
    return turn.get("value", turn.get("content"))


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
    if "chosen" in record or "rejected" in record:
        raise Skip(Reason.PAIRS, f"keys {sorted(record)}")
    tools, repairs = offered.read(record.get("tools") or [])
    talk = Talk()
    talk.repairs |= repairs
    if isinstance(record.get("system"), str) and record["system"].strip():
        talk.say("system", record["system"].strip())
    add_turns(talk, turns_of(record), tools)
    if not tools and (
        made := next((call.name for message in talk.messages for call in message.tool_calls), None)
    ):
        raise Skip(Reason.NO_TOOLS, f"a call of {made!r}")
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs


def turns_of(record: Record) -> Iterator[tuple[str, str]]:
    """Role and text of each turn."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"wanted turns in 'conversations'; keys {sorted(record)}"
        )
    for turn in turns:
        if not _is_turn(turn):
            raise Skip(
                Reason.NOT_THIS_FORMAT, f"the turn {turn!r:.80}; known roles: {', '.join(ROLES)}"
            )
        yield ROLES[_role_of(turn)], _text_of(turn)


def add_turns(talk: Talk, turns: Iterator[tuple[str, str]], tools: Sequence[Tool]) -> None:
    """Add turns to a talk, with calls that are made to fit the tools where that is certain."""
    for role, text in turns:
        if role == "call":
            talk.assistant(fitting(read_listed(text), tools))
        elif role == "assistant":
            talk.assistant(fitting(_said(text, tools), tools))
        elif role == "tool":
            talk.result(text)
        else:
            talk.say(role, text.strip())


def _said(text: str, tools: Sequence[Tool]) -> Said:
    return read_tagged(text) if "<tool_call>" in text else read_bracketed(text, tools)
