"""tau-bench and tau2-bench: dialogues with a played user about tickets or orders, and tasks.

    {"task_id": 3, "trial": 0, "reward": 1.0, "traj": [messages in OpenAI's form],
     "info": {"task": {"instruction": "You are ...", "actions": [{"name", "kwargs"}], ...}}}
    {"messages_display": "user: ...\\nassistant: None\\ntool: ..."}

A dialogue that reached its goal becomes a conversation, one that did not gives a task. Whoever
trains on them cannot measure with tau-bench. Format: Yao et al. 2024, arXiv:2406.12045.

    [{"id": "7", "user_scenario": {"instructions": {...} | "..."}, "ticket": "...",
      "initial_state": {"message_history": [...]}, "evaluation_criteria": {
          "actions": [{"name", "arguments", "compare_args"}], "communicate_info": ["42"]}}]

tau2-bench: `policy.md` beside the file becomes the system message. Tools are made from the calls of
the file. Format: Barres et al. 2025, arXiv:2506.07982.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.scenarios import (
    FROM_CALLS,
    PLAYED,
    read_list,
    read_messages,
    read_world,
    tools_of_calls,
)
from toolhone.sources.source import Context, Skip, Source, expect_calls, has_keys

NOT_TAU = "not a tau-bench row"
BAD_TURN = "a turn that cannot be read"
BAD_ACTION = "an action that cannot be read"
NOTHING_EXPECTED = "a failed dialogue about a task that expects nothing but that all stays as it is"
NOTHING_JUDGED = (
    "a task that expects nothing but that all stays as it is, or words that a model judges"
)
_FLAT_TURN = re.compile(r"^(system|user|assistant|tool): ", re.MULTILINE)
_INSTRUCTIONS = ("reason_for_call", "known_info", "unknown_info", "task_instructions")


def looks_like(record: Record) -> bool:
    return record.keys() == {"messages_display"} or {"traj", "reward"} <= record.keys()


def prepare(records: Sequence[Record], context: Context) -> tuple[Tool, ...]:
    """Return the tools that the rows call; a row that cannot be read has none."""
    calls: list[ToolCall] = []
    for record in records:
        with suppress(Skip):
            calls += _right_calls(_task_fields(record))
            messages = _recorded(record, context) if record.get("reward") == 1 else ()
            calls += [call for message in messages for call in message.tool_calls]
    return tools_of_calls(calls)


def convert(record: Record, context: Context) -> Conversation | Task:
    identity = context.identity(record)
    if "task_id" in record:
        trial = record.get("trial", context.line.number)
        identity = f"{context.name}-{record['task_id']}-{trial}"
    if "messages_display" in record:
        parts = _FLAT_TURN.split(str(record["messages_display"]))
        turns = [(role, turn.strip()) for role, turn in zip(parts[1::2], parts[2::2], strict=True)]
        if any(role == "tool" or (role, turn) == ("assistant", "None") for role, turn in turns):
            raise Skip("a flat text that does not say what was called")
        if parts[0].strip() or not turns:
            raise Skip(BAD_TURN, f"{parts[0]!r:.60}")
        messages, tools = [Message(role, content) for role, content in turns], ()
    elif record.get("reward") == 1:
        messages, tools = list(_recorded(record, context)), context.prepared
        context.repairs.add(FROM_CALLS)
    elif not isinstance(record.get("reward"), int | float):
        raise Skip(NOT_TAU, f"wanted a number in 'reward', got {record.get('reward')!r:.40}")
    else:
        return _failed_task(record, identity, context)
    while messages and messages[-1].role == "user":
        messages.pop()
        context.repairs.add("the user's last words left out, which nobody answers")
    return Conversation(tuple(messages), tools, identity)


def _recorded(record: Record, context: Context) -> tuple[Message, ...]:
    given = record.get("traj")
    if not isinstance(given, list) or not given:
        raise Skip(NOT_TAU, f"wanted a list of messages in 'traj', got {given!r:.60}")
    return read_messages(given, BAD_TURN, context)


def _task_fields(record: Record) -> Record:
    info = record.get("info")
    task = info.get("task") if isinstance(info, dict) else None
    return task if isinstance(task, dict) else {}


def _right_calls(task: Record) -> Iterator[ToolCall]:
    return _calls(read_list(task, "actions", "info.task"), "kwargs", NOT_TAU)


def _calls(actions: Iterable[Json], arguments: str, reason: str) -> Iterator[ToolCall]:
    """Yield actions as calls; their arguments are in the field of this name."""
    for action in actions:
        fields: Json = action if isinstance(action, dict) else {}
        name, given = fields.get("name"), fields.get(arguments)
        if not isinstance(name, str) or not isinstance(given, dict):
            raise Skip(reason, f"wanted 'name' and {arguments!r}, got {action!r:.80}")
        yield ToolCall(name, given)


def _failed_task(record: Record, identity: str, context: Context) -> Task:
    """Return what was to be done in a dialogue that failed."""
    task = _task_fields(record)
    request, outputs = task.get("instruction"), read_list(task, "outputs", "info.task")
    calls = tuple(_right_calls(task))
    if not isinstance(request, str) or not request.strip():
        raise Skip(NOT_TAU, f"wanted a text in 'info.task.instruction', got {request!r:.60}")
    answer = str(outputs[0]) if len(outputs) == 1 else None
    if not calls and answer is None:
        raise Skip(NOTHING_EXPECTED)
    context.repairs |= {FROM_CALLS, PLAYED}
    if len(outputs) > 1:
        context.repairs.add("several expected outputs left out, of which a task holds one")
    system = [message for message in _recorded(record, context) if message.role == "system"]
    messages = (*system, Message("user", request.strip()))
    expect = Expect(expect_calls(calls).calls, answer=answer)
    return Task(identity, messages, context.prepared, expect, category="played_user")


def prepare_tau2(
    records: Sequence[Record], context: Context
) -> tuple[tuple[Tool, ...], tuple[Message, ...]]:
    """Return the tools that the actions of the file call, and the policy as a system message."""
    calls: list[ToolCall] = []
    for record in records:
        with suppress(Skip):
            calls += _calls(_own_actions(record)[0], "arguments", BAD_ACTION)
            calls += [call for message in _history(record, context) for call in message.tool_calls]
    tools, file = tools_of_calls(calls), context.path.parent / "policy.md"
    if not file.is_file():
        return tools, ()
    try:
        return tools, (Message("system", file.read_text("utf-8").strip()),)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the policy cannot be read: {error}") from None


def convert_tau2(record: Record, context: Context) -> Task:
    (tools, policy), (own, users, outputs) = context.prepared, _own_actions(record)
    calls = list(_calls(own, "arguments", BAD_ACTION))
    ticket, scenario = record.get("ticket"), record.get("user_scenario")
    played = not isinstance(ticket, str) or not ticket.strip()
    if played:  # the request is the instructions of a played user
        found = scenario.get("instructions") if isinstance(scenario, dict) else None
        parts = [found.get(key) for key in _INSTRUCTIONS] if isinstance(found, dict) else [found]
        said = [part.strip() for part in parts if isinstance(part, str) and part.strip(" .")]
        request = "\n\n".join(said)
        if not request:
            raise Skip("a task without a request", f"{scenario!r:.80}")
    else:
        request = str(ticket).strip()
    answer = str(outputs[0]) if len(outputs) == 1 or (outputs and not own) else None
    if not own and answer is None:
        raise Skip(NOTHING_JUDGED)
    expected: list[ExpectedCall] = []
    stricter = False
    for call, compared in zip(calls, (action.get("compare_args") for action in own), strict=True):
        free = compared == [] and bool(call.arguments)
        arguments = {} if free else call.arguments
        expected.append(ExpectedCall(call.name, arguments, any_arguments=free))
        if isinstance(compared, list) and compared:
            stricter |= not call.arguments.keys() <= set(compared)
    context.repairs |= {FROM_CALLS, *([PLAYED] if played else [])}
    if users:
        context.repairs.add("actions of the user left out")
    if len(outputs) > 1 and own:
        context.repairs.add("several texts to communicate left out, of which a task holds one")
    elif len(outputs) > 1:
        context.repairs.add("of several texts to communicate only the first is asked for")
    if stricter:
        context.notes.append("an action of which tau2-bench compares fewer arguments")
    context.notes += [] if policy else ["no policy.md beside the file"]
    return Task(
        id=f"{context.name}-{record.get('id')}",
        messages=(*policy, *_history(record, context), Message("user", request)),
        tools=tools,
        expect=Expect(tuple(expected) or None, answer=answer),
        world=read_world(record, "initial_state"),
        category="played_user" if played else "ticket",
    )


def _own_actions(record: Record) -> tuple[list[Record], list[Record], list[Json]]:
    """Return the actions of the agent, those of the user, and the texts to communicate."""
    criteria = record.get("evaluation_criteria")
    if not isinstance(criteria, dict):
        detail = f"wanted an object in 'evaluation_criteria', got {criteria!r:.60}"
        raise Skip("not a tau2-bench row", detail)
    actions = read_list(criteria, "actions", "evaluation_criteria")
    if not all(isinstance(action, dict) for action in actions):
        raise Skip(BAD_ACTION, f"{actions!r:.80}")
    own = [action for action in actions if action.get("requestor") != "user"]
    users = [action for action in actions if action.get("requestor") == "user"]
    return own, users, read_list(criteria, "communicate_info", "evaluation_criteria")


def _history(record: Record, context: Context) -> tuple[Message, ...]:
    """Return the messages that came before, results linked to their calls."""
    state = record.get("initial_state")
    turns = read_list(state, "message_history", "initial_state") if isinstance(state, dict) else []
    linked = (
        {**turn, "tool_call_id": turn.get("id")}
        if isinstance(turn, dict) and turn.get("role") == "tool"
        else turn
        for turn in turns
    )
    return read_messages(linked, "a turn before the task that cannot be read", context)


TAU_BENCH = Source(
    "tau_bench",
    looks_like,
    convert,
    {
        "": {"messages_display", "traj", "reward", "task_id", "trial", "info"},
        "info": {"task", "source", "user_cost", "reward_info"},
        "info.task": {"instruction", "actions", "outputs", "user_id"},
        "info.task.actions": {"name", "kwargs"},
    },
    prepare,
)
TAU2_BENCH = Source(
    "tau2_bench",
    has_keys("user_scenario", "evaluation_criteria"),
    convert_tau2,
    {
        "": {
            *("user_scenario", "ticket", "initial_state", "evaluation_criteria"),
            *("description", "issues"),
        },
        "user_scenario": {"instructions", "persona"},
        "user_scenario.instructions": {*_INSTRUCTIONS, "domain"},
        "evaluation_criteria": {"actions", "communicate_info", "reward_basis"},
        "evaluation_criteria.actions": {
            *("name", "arguments", "compare_args", "requestor", "action_id", "info")
        },
    },
    prepare_tau2,
)
