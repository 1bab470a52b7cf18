"""API-Bank: dialogues between a user, an assistant and its APIs, one in each file.

    open_source("api_bank/level-1-given-desc")              # a folder, read recursively, or one file; above it  all_apis.csv

    {"role": "User", "text": "..."}
    {"role": "AI", "text": "..."}
    {"role": "API", "api_name": "AddAlarm", "param_dict": {...}, "result": {"input": {...}, "output": ..., "exception": null}}

Made for evaluation: a dialogue counts as one row and gives the tasks of its turns (`sources.tasks`), no conversation. What the
assistant says right before an API line stands beside the call. On offer are the APIs that the dialogue calls, among them
`ToolSearcher`.

An API is described by what `ToolSearcher` told of it in any of the files read, else by `all_apis.csv` (or the file that `catalogue`
names). That table is an early plan: many calls give parameters that it lacks. Where one does, the parameters are those that the
calls read give, which is counted as a repair. A parameter is required if every one of these calls gives it. Values that the
dialogue holds as text are put into the type in which the API received them. Dialogues that cannot be followed are counted and
skipped.
Format: Li et al. 2023, arXiv:2304.08244; the training set is another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.api_bank_tools import SEARCHER, Api, Called, read_table, searched, tool_of
from toolhone.sources.base import About, Context, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.catalogue import find_beside
from toolhone.sources.files import FileLine, Record, data_files, read_records
from toolhone.sources.offered import Repair as ToolRepair
from toolhone.sources.offered import fitted, refuse_faults
from toolhone.sources.tasks import tasks_of

NAME = "api_bank"
ABOUT = About(
    title="API-Bank (levels 1 and 2)",
    link="https://github.com/AlibabaResearch/DAMO-ConvAI/tree/main/api-bank",
    licence="MIT",
    rows="314 dialogues with 753 calls in three levels",
    teaches="measures when to call, when to ask and what to call, turn by turn, also where the API must be searched first",
    only_tasks=True,
)
USES = frozenset({"catalogue"})
_TABLE = "all_apis.csv"


class Reason(StrEnum):
    """Why a dialogue is skipped; besides these, the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not an API-Bank dialogue"
    UNKNOWN_TOOL = "a call of an API that is not described"
    BAD_TURN = "a turn that does not go on from the one before"
    NO_TASK = "a dialogue without a turn to decide"


class Repair(StrEnum):
    """How a dialogue was mended; besides these, `arguments of another type`."""

    DESCRIBED = "an API that is called otherwise than described, described by its calls"
    JOINED = "two replies in a row made one"


@dataclass(frozen=True)
class Dialogue:
    """A file that is read: its place, its turns, and its calls as they were received."""

    line: FileLine
    turns: Sequence[Record]
    calls: Sequence[Called]


def sniff(records: Sequence[Record]) -> bool:
    return all(_is_turn(record) for record in records)


def _is_turn(record: Record) -> bool:
    if record.get("role") == "API":
        return record.keys() >= {"api_name", "param_dict", "result"}
    return record.get("role") in ("User", "AI") and isinstance(record.get("text"), str)


def read(path: Path, options: Options) -> Loaded:
    """Every dialogue that can be followed, with the tasks of its turns."""
    table = find_beside(
        Context(NAME, path, {"catalogue": options.catalogue}, FileLine(path, 0)), [_TABLE]
    )
    files = (
        [file for file in data_files(path) if file.suffix != ".csv"] if path.is_dir() else [path]
    )
    if not files:
        raise DataError(f"{path}: the folder holds no API-Bank file; wanted files named *.jsonl")
    dialogues = [_dialogue(file) for file in files]
    tools, described = _tools(
        [each for each in dialogues if isinstance(each, Dialogue)], read_table(table)
    )
    tally = ReadStats()
    for file, each in zip(files, dialogues, strict=True):
        try:
            if isinstance(each, Skip):
                raise each
            talk, repairs = _conversation(each, tools, _identity(path, file))
            tasks = tasks_of(talk)
            if not tasks:
                raise Skip(Reason.NO_TASK)
        except Skip as skip:
            tally.skip(FileLine(file, 1), skip)
        else:
            tally.keep_tasks(
                tasks, repairs | ({Repair.DESCRIBED} if _names(each) & described else set())
            )
    return tally.loaded()


def _identity(root: Path, file: Path) -> str:
    name = file.relative_to(root) if root.is_dir() else Path(file.name)
    return str(name).removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


def _names(each: Dialogue | Skip) -> set[str]:
    return set() if isinstance(each, Skip) else {called.name for called in each.calls}


def _dialogue(file: Path) -> Dialogue | Skip:
    records = list(read_records(file))
    for line, record in records:
        if not _is_turn(record):
            return Skip(Reason.NOT_THIS_FORMAT, f"{line.unit} {line.number}: keys {sorted(record)}")
    calls = [Called.of(record) for _, record in records if record["role"] == "API"]
    return Dialogue(records[0][0], [record for _, record in records], calls)


def _tools(
    dialogues: Sequence[Dialogue], table: dict[str, Api]
) -> tuple[dict[str, Tool], set[str]]:
    """The tools of all APIs that are called and described, and the names of those that their calls had to describe."""
    known = {**table, **searched(called for each in dialogues for called in each.calls)}
    calls: dict[str, list[Called]] = {}
    for each in dialogues:
        for called in each.calls:
            calls.setdefault(called.name, []).append(called)
    made = {name: tool_of(known[name], given) for name, given in calls.items() if name in known}
    tools = {name: tool for name, (tool, _) in made.items()}
    return {**tools, SEARCHER.name: SEARCHER}, {
        name for name, (_, by_calls) in made.items() if by_calls
    }


def _conversation(
    dialogue: Dialogue, known: dict[str, Tool], identity: str
) -> tuple[Conversation, set[str]]:
    names = sorted({called.name for called in dialogue.calls})
    for name in names:
        if name not in known:
            raise Skip(Reason.UNKNOWN_TOOL, f"{name!r}{nearest(name, known)}")
    tools = tuple(known[name] for name in names)
    messages, repairs = _messages(dialogue, tools)
    talk = Conversation(tuple(messages), tools, identity, NAME)
    refuse_faults(talk)
    return talk, repairs


def _messages(dialogue: Dialogue, tools: Sequence[Tool]) -> tuple[list[Message], set[str]]:
    """The turns as messages; an API line is a call and its result."""
    messages: list[Message] = []
    repairs: set[str] = set()
    calls = iter(dialogue.calls)
    for number, turn in enumerate(dialogue.turns):
        last = messages[-1].role if messages else ""
        said = messages[-1].content if last == "assistant" else None
        if turn["role"] == "User" and last != "user":
            messages.append(Message("user", turn["text"].strip()))
        elif turn["role"] == "AI" and last == "assistant":
            repairs.add(Repair.JOINED)
            messages[-1] = Message("assistant", f"{said}\n{turn['text'].strip()}")
        elif turn["role"] == "AI" and last:
            messages.append(Message("assistant", turn["text"].strip()))
        elif turn["role"] == "API" and last:
            call, mended = _call(next(calls), tools, f"call{number}")
            repairs |= mended
            messages = [
                *(messages[:-1] if last == "assistant" else messages),
                Message("assistant", said, tool_calls=(call,)),
            ]
            messages.append(
                Message("tool", _result(turn["result"]), tool_call_id=call.id, name=call.name)
            )
        else:
            raise Skip(Reason.BAD_TURN, f"turn {number + 1} of {turn['role']!r}")
    return messages, repairs


def _call(called: Called, tools: Sequence[Tool], identity: str) -> tuple[ToolCall, set[str]]:
    call, _ = fitted(ToolCall(called.name, called.received, identity), tools)
    return call, ({ToolRepair.TYPED} if call.arguments != called.written else set())


def _result(result: Json) -> str:
    """What the API gave back: its output, or its exception."""
    body = result if isinstance(result, dict) else {"output": result}
    value = (
        {"exception": body["exception"]}
        if body.get("exception") is not None
        else body.get("output")
    )
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
