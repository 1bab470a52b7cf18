"""tau2-bench: what a played user wants from an agent under a policy, and the right actions.

    [{"id": "7", "user_scenario": {"instructions": {...} | "..."}, "ticket": "...",
      "initial_state": {"message_history": [...]}, "evaluation_criteria": {
          "actions": [{"name", "arguments", "compare_args"}], "communicate_info": ["42"]}}]

`policy.md` beside the file becomes the system message; the tools are made from all actions of the
file. Format: Barres et al. 2025, arXiv:2506.07982.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.scenarios import FROM_CALLS, PLAYED, read_list, read_world, tools_of_calls

BAD_ACTION = "an action that cannot be read"
NOTHING_EXPECTED = (
    "a task that expects nothing but that all stays as it is, or words that a model judges"
)
OUTPUTS = "several texts to communicate left out, of which a task holds one"
FIRST_OUTPUT = "of several texts to communicate only the first is asked for"
STRICTER = "an action of which tau2-bench compares fewer arguments"
NO_POLICY = "no policy.md beside the file"
_INSTRUCTIONS = ("reason_for_call", "known_info", "unknown_info", "task_instructions")


def looks_like(record: Record) -> bool:
    return {"user_scenario", "evaluation_criteria"} <= record.keys()


def prepare(
    records: Sequence[Record], context: Context
) -> tuple[tuple[Tool, ...], tuple[Message, ...]]:
    """Return the tools that the actions of the file call, and the policy as a system message."""
    tools = tools_of_calls(call for record in records for call in _known_calls(record))
    file = context.path.parent / "policy.md"
    if not file.is_file():
        return tools, ()
    try:
        return tools, (Message("system", file.read_text("utf-8").strip()),)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the policy cannot be read: {error}") from None


def _known_calls(record: Record) -> Iterator[ToolCall]:
    """Yield the calls of a row from which tools are made; a row that cannot be read has none."""
    try:
        yield from (_call(action) for action in _actions(record) if not _is_users(action))
        yield from (call for message in _history(record) for call in message.tool_calls)
    except Skip:
        return


def convert(record: Record, context: Context) -> Task:
    (tools, policy), actions = context.prepared, _actions(record)
    own = [action for action in actions if not _is_users(action)]
    request, played = _request(record)
    outputs = read_list(_criteria(record), "communicate_info", "evaluation_criteria")
    answer = str(outputs[0]) if len(outputs) == 1 or (outputs and not own) else None
    if not own and answer is None:
        raise Skip(NOTHING_EXPECTED)
    task = Task(
        id=f"{context.name}-{record.get('id')}",
        messages=(*policy, *_history(record), Message("user", request)),
        tools=tools,
        expect=Expect(tuple(map(_expected, own)) or None, answer=answer),
        world=read_world(record, "initial_state"),
        category="played_user" if played else "ticket",
    )
    context.repairs |= {FROM_CALLS, *([PLAYED] if played else [])}
    if len(own) < len(actions):
        context.repairs.add("actions of the user left out")
    if len(outputs) > 1:
        context.repairs.add(OUTPUTS if own else FIRST_OUTPUT)
    context.notes += [STRICTER] if any(map(_is_loose, own)) else []
    context.notes += [] if policy else [NO_POLICY]
    return task


def _criteria(record: Record) -> Record:
    criteria = record.get("evaluation_criteria")
    if not isinstance(criteria, dict):
        detail = f"wanted an object in 'evaluation_criteria', got {criteria!r:.60}"
        raise Skip("not a tau2-bench row", detail)
    return criteria


def _actions(record: Record) -> list[Record]:
    actions = read_list(_criteria(record), "actions", "evaluation_criteria")
    if not all(isinstance(action, dict) for action in actions):
        raise Skip(BAD_ACTION, f"{actions!r:.80}")
    return actions


def _is_users(action: Record) -> bool:
    return action.get("requestor") == "user"


def _is_loose(action: Record) -> bool:
    """Return whether some arguments are compared, but not all."""
    compared = action.get("compare_args")
    return (
        isinstance(compared, list)
        and bool(compared)
        and not action["arguments"].keys() <= set(compared)
    )


def _expected(action: Record) -> ExpectedCall:
    """Return the action as an expected call; with any arguments where none are compared."""
    call = _call(action)
    free = action.get("compare_args") == [] and bool(call.arguments)
    return ExpectedCall(call.name, {} if free else call.arguments, any_arguments=free)


def _call(action: Record) -> ToolCall:
    name, arguments = action.get("name"), action.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Skip(BAD_ACTION, f"wanted 'name' and 'arguments', got {action!r:.80}")
    return ToolCall(name, arguments)


def _request(record: Record) -> tuple[str, bool]:
    """Return the request, and whether it is the instructions of a played user."""
    ticket, scenario = record.get("ticket"), record.get("user_scenario")
    if isinstance(ticket, str) and ticket.strip():
        return ticket.strip(), False
    found = scenario.get("instructions") if isinstance(scenario, dict) else None
    parts = [found.get(key) for key in _INSTRUCTIONS] if isinstance(found, dict) else [found]
    text = "\n\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip(" ."))
    if not text:
        raise Skip("a task without a request", f"{scenario!r:.80}")
    return text, True


def _history(record: Record) -> tuple[Message, ...]:
    """Return the messages that came before, results linked to their calls."""
    state = record.get("initial_state")
    turns = read_list(state, "message_history", "initial_state") if isinstance(state, dict) else []
    history: list[Message] = []
    for turn in turns:
        is_result = isinstance(turn, dict) and turn.get("role") == "tool"
        linked = {**turn, "tool_call_id": turn.get("id")} if is_result else turn
        try:
            history.append(Message.from_dict(linked))
        except DataError as error:
            raise Skip("a turn before the task that cannot be read", str(error)) from None
    return tuple(history)


TAU2_BENCH = Source("tau2_bench", looks_like, convert, prepare)
