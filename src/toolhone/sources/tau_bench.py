"""tau-bench: recorded dialogues of a model with a played user, about airline tickets or orders.

    {"task_id": 3, "trial": 0, "reward": 1.0, "traj": [messages in OpenAI's form],
     "info": {"task": {"instruction": "You are ...", "actions": [{"name", "kwargs"}], "outputs": ["42"]}}}
    {"messages_display": "user: ...\\nassistant: None\\ntool: ..."}

The schemas of the tools are not in the file: tools are put together from the calls of all successful dialogues and of all
expected actions (`scenarios`; counted). A dialogue that reached its goal (`reward` 1) becomes a conversation, with the tasks of
its turns; the user's last words, which nobody answers, are left out. One that did not gives a task: the user's instruction is the
request, the actions are expected in any order, and the final text must carry the output, where there is one. Without actions and
output it is skipped: what may not be changed is in a data base that is not in the file, and there is nothing else to judge.

A flat text (`messages_display`) writes `None` where a call was; it is skipped unless nobody called anything. The dialogues are
about the benchmark's own tasks: whoever trains on them cannot measure with tau-bench. Format: Yao et al. 2024, arXiv:2406.12045.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.offered import refuse_faults
from toolhone.sources.scenarios import FROM_CALLS, PLAYED, read_list, tools_of_calls
from toolhone.sources.tasks import tasks_of

NAME = "tau_bench"
ABOUT = About(
    title="tau-bench (recorded dialogues)",
    link="https://github.com/sierra-research/tau-bench",
    licence="MIT",
    rows="some hundred for each domain and model",
    teaches="long dialogues under a policy, with calls, results and consent; about the benchmark's own tasks",
)
USES: frozenset[str] = frozenset()
_FLAT_TURN = re.compile(r"^(system|user|assistant|tool): ", re.MULTILINE)


class Reason(StrEnum):
    """Why a row is skipped; besides these, the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a tau-bench row"
    NOTHING_EXPECTED = (
        "a failed dialogue about a task that expects nothing but that all stays as it is"
    )
    LOST_CALLS = "a flat text that does not say what was called"
    BAD_TURN = "a turn that cannot be read"


class Repair(StrEnum):
    """How a row was mended; besides these, what `scenarios` counts."""

    LAST_WORDS = "the user's last words left out, which nobody answers"
    OUTPUTS = "several expected outputs left out, of which a task holds one"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        record.keys() == {"messages_display"} or {"traj", "reward"} <= record.keys()
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every dialogue that reached its goal, and a task for every other one. The file is read whole, for its tools."""
    rows = list(read_records(path))
    tally, tools = (
        ReadStats(),
        tools_of_calls(call for _, record in rows for call in _known_calls(record)),
    )
    for line, record in rows:
        try:
            if "messages_display" in record:
                _keep_flat(tally, line, record)
            elif record.get("reward") == 1:
                _keep_dialogue(tally, line, record, tools)
            else:
                task, repairs = _task(line, record, tools)
                tally.keep_tasks([task], repairs)
        except Skip as skip:
            tally.skip(line, skip)
    return tally.loaded()


def _known_calls(record: Record) -> Iterator[ToolCall]:
    """The calls of a row from which tools are put together; a row that cannot be read has none."""
    try:
        yield from _actions(record)
        if record.get("reward") == 1:
            yield from (call for message in _messages(record) for call in message.tool_calls)
    except Skip:
        return


def _keep_dialogue(
    tally: ReadStats, line: FileLine, record: Record, tools: tuple[Tool, ...]
) -> None:
    messages, repairs = _without_last_words(_messages(record))
    talk = Conversation(messages, tools, _identity(line, record), NAME)
    refuse_faults(talk)
    tally.keep(line, talk, tasks_of(talk), [*repairs, FROM_CALLS])


def _keep_flat(tally: ReadStats, line: FileLine, record: Record) -> None:
    parts = _FLAT_TURN.split(str(record["messages_display"]))
    turns = list(zip(parts[1::2], parts[2::2], strict=True))
    if any(
        role == "tool" or (role == "assistant" and said.strip() == "None") for role, said in turns
    ):
        raise Skip(Reason.LOST_CALLS)
    if parts[0].strip() or not turns:
        raise Skip(Reason.BAD_TURN, f"{parts[0]!r:.60}")
    messages, repairs = _without_last_words([Message(role, said.strip()) for role, said in turns])
    talk = Conversation(messages, (), _identity(line, record), NAME)
    refuse_faults(talk)
    tally.keep(line, talk, tasks_of(talk), repairs)


def _messages(record: Record) -> tuple[Message, ...]:
    if not isinstance(record.get("traj"), list) or not record["traj"]:
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted a list of messages in 'traj', got {record.get('traj')!r:.60}",
        )
    try:
        return tuple(map(Message.from_dict, record["traj"]))
    except DataError as error:
        raise Skip(Reason.BAD_TURN, str(error)) from None


def _without_last_words(messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[str]]:
    kept = list(messages)
    while kept and kept[-1].role == "user":
        kept.pop()
    return tuple(kept), [Repair.LAST_WORDS] if len(kept) < len(messages) else []


def _task(line: FileLine, record: Record, tools: tuple[Tool, ...]) -> tuple[Task, list[str]]:
    """What was to be done in a dialogue that failed."""
    told = _told(record)
    request, outputs, calls = (
        told.get("instruction"),
        read_list(told, "outputs", "info.task"),
        list(_actions(record)),
    )
    if not isinstance(request, str) or not request.strip():
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"wanted a text in 'info.task.instruction', got {request!r:.60}"
        )
    answer = str(outputs[0]) if len(outputs) == 1 else None
    if not calls and answer is None:
        raise Skip(Reason.NOTHING_EXPECTED)
    system = tuple(message for message in _messages(record) if message.role == "system")
    task = Task(
        id=_identity(line, record),
        messages=(*system, Message("user", request.strip())),
        tools=tools,
        expect=Expect(
            tuple(ExpectedCall(call.name, call.arguments) for call in calls) or None, answer=answer
        ),
        category="played_user",
        source=NAME,
    )
    return task, [FROM_CALLS, PLAYED, *([Repair.OUTPUTS] if len(outputs) > 1 else [])]


def _told(record: Record) -> Record:
    info = record.get("info")
    told = info.get("task") if isinstance(info, dict) else None
    return told if isinstance(told, dict) else {}


def _actions(record: Record) -> Iterator[ToolCall]:
    """The actions that are right, as calls."""
    for action in read_list(_told(record), "actions", "info.task"):
        yield _action(action)


def _action(action: Json) -> ToolCall:
    name, arguments = (
        (action.get("name"), action.get("kwargs")) if isinstance(action, dict) else (None, None)
    )
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"wanted an action with 'name' and 'kwargs', got {action!r:.60}"
        )
    return ToolCall(name, arguments)


def _identity(line: FileLine, record: Record) -> str:
    if "task_id" not in record:
        return identity_of(line, record)
    return f"{NAME}-{record['task_id']}-{record.get('trial', line.number)}"
