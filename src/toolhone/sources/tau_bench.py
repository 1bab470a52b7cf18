"""tau-bench: recorded dialogues of a model with a played user, about airline tickets or orders.

    {"task_id": 3, "trial": 0, "reward": 1.0, "traj": [messages in OpenAI's form],
     "info": {"task": {"instruction": "You are ...", "actions": [{"name", "kwargs"}], ...}}}
    {"messages_display": "user: ...\\nassistant: None\\ntool: ..."}

A dialogue that reached its goal becomes a conversation, one that did not gives a task. Whoever
trains on them cannot measure with tau-bench. Format: Yao et al. 2024, arXiv:2406.12045.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source, expect_calls
from toolhone.sources.files import Record
from toolhone.sources.scenarios import FROM_CALLS, PLAYED, read_list, tools_of_calls

NOT_TAU = "not a tau-bench row"
BAD_TURN = "a turn that cannot be read"
LAST_WORDS = "the user's last words left out, which nobody answers"
OUTPUTS = "several expected outputs left out, of which a task holds one"
NOTHING_EXPECTED = "a failed dialogue about a task that expects nothing but that all stays as it is"
_FLAT_TURN = re.compile(r"^(system|user|assistant|tool): ", re.MULTILINE)


def looks_like(record: Record) -> bool:
    return record.keys() == {"messages_display"} or {"traj", "reward"} <= record.keys()


def prepare(records: Sequence[Record], _context: Context) -> tuple[Tool, ...]:
    return tools_of_calls(call for record in records for call in _known_calls(record))


def _known_calls(record: Record) -> Iterator[ToolCall]:
    """Yield the calls of a row from which tools are made; a row that cannot be read has none."""
    try:
        yield from _actions(record)
        if record.get("reward") == 1:
            yield from (call for message in _messages(record) for call in message.tool_calls)
    except Skip:
        return


def convert(record: Record, context: Context) -> Conversation | Task:
    if "messages_display" in record:
        messages, tools = _flat_messages(str(record["messages_display"])), ()
    elif record.get("reward") == 1:
        messages, tools = list(_messages(record)), context.prepared
        context.repairs.add(FROM_CALLS)
    else:
        return _failed_task(record, context)
    kept = list(messages)
    while kept and kept[-1].role == "user":
        kept.pop()
        context.repairs.add(LAST_WORDS)
    return Conversation(tuple(kept), tools, _identity(record, context))


def _flat_messages(text: str) -> list[Message]:
    """Return the messages of a flat text, which writes `None` where a call was."""
    parts = _FLAT_TURN.split(text)
    turns = [(role, turn.strip()) for role, turn in zip(parts[1::2], parts[2::2], strict=True)]
    if any(role == "tool" or (role, turn) == ("assistant", "None") for role, turn in turns):
        raise Skip("a flat text that does not say what was called")
    if parts[0].strip() or not turns:
        raise Skip(BAD_TURN, f"{parts[0]!r:.60}")
    return [Message(role, content) for role, content in turns]


def _messages(record: Record) -> tuple[Message, ...]:
    given = record.get("traj")
    if not isinstance(given, list) or not given:
        raise Skip(NOT_TAU, f"wanted a list of messages in 'traj', got {given!r:.60}")
    try:
        return tuple(map(Message.from_dict, given))
    except DataError as error:
        raise Skip(BAD_TURN, str(error)) from None


def _failed_task(record: Record, context: Context) -> Task:
    """Return what was to be done in a dialogue that failed."""
    task = _task_fields(record)
    request, outputs = task.get("instruction"), read_list(task, "outputs", "info.task")
    calls = list(_actions(record))
    if not isinstance(request, str) or not request.strip():
        raise Skip(NOT_TAU, f"wanted a text in 'info.task.instruction', got {request!r:.60}")
    answer = str(outputs[0]) if len(outputs) == 1 else None
    if not calls and answer is None:
        raise Skip(NOTHING_EXPECTED)
    context.repairs |= {FROM_CALLS, PLAYED, *([OUTPUTS] if len(outputs) > 1 else [])}
    system = tuple(message for message in _messages(record) if message.role == "system")
    return Task(
        _identity(record, context),
        (*system, Message("user", request.strip())),
        context.prepared,
        Expect(expect_calls(calls).calls, answer=answer),
        category="played_user",
    )


def _task_fields(record: Record) -> Record:
    info = record.get("info")
    task = info.get("task") if isinstance(info, dict) else None
    return task if isinstance(task, dict) else {}


def _actions(record: Record) -> Iterator[ToolCall]:
    """Yield the actions that are right, as calls."""
    for action in read_list(_task_fields(record), "actions", "info.task"):
        fields: Json = action if isinstance(action, dict) else {}
        name, arguments = fields.get("name"), fields.get("kwargs")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Skip(NOT_TAU, f"wanted an action with 'name' and 'kwargs', got {action!r:.60}")
        yield ToolCall(name, arguments)


def _identity(record: Record, context: Context) -> str:
    if "task_id" not in record:
        return context.identity(record)
    return f"{context.name}-{record['task_id']}-{record.get('trial', context.line.number)}"


TAU_BENCH = Source("tau_bench", looks_like, convert, prepare)
