"""tau2-bench: what a played user wants from an agent under a policy, and the actions that are right.

    [{"id": "7", "user_scenario": {"instructions": {"reason_for_call", "known_info", ...} | "..."}, "ticket": "...",
      "initial_state": {"message_history": [...]},
      "evaluation_criteria": {"actions": [{"name", "arguments", "compare_args"}], "communicate_info": ["42"]}}]

Made for evaluation: a row gives a task and no conversation. `policy.md` beside the file becomes the system message; the request
is the `ticket`, which the benchmark has for agents that work alone, or else what the model that plays the user is told (counted).
The actions of the agent are expected in any order, and one `communicate_info` is what the final text must carry. The schemas of
the tools are not in the file: tools are put together from all actions of the file (`scenarios`; counted). `initial_state` is the
task's world.

tau2-bench itself compares data bases, and lets a model judge `nl_assertions`. Where it compares no arguments of an action
(`compare_args`), any are right; where it compares only some, a task expects all of them (noted). Of several texts to communicate a
task without actions holds the first, any other none (counted). A row without actions and texts is skipped: what may not be changed
is in a data base that is not in the file, and there is nothing else to judge. Format: Barres et al. 2025, arXiv:2506.07982.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.files import Record, read_records
from toolhone.sources.scenarios import FROM_CALLS, PLAYED, read_list, read_world, tools_of_calls

NAME = "tau2_bench"
ABOUT = About(
    title="tau2-bench",
    link="https://github.com/sierra-research/tau2-bench",
    licence="MIT",
    rows="50 to 114 for each domain",
    teaches="measures what an agent does for a user under a policy",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()
POLICY = "policy.md"
_TOLD = ("reason_for_call", "known_info", "unknown_info", "task_instructions")


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not a tau2-bench row"
    NO_REQUEST = "a task without a request"
    NOTHING_EXPECTED = (
        "a task that expects nothing but that all stays as it is, or words that a model judges"
    )
    BAD_ACTION = "an action that cannot be read"
    BAD_TURN = "a turn before the task that cannot be read"


class Repair(StrEnum):
    """How a row was mended; besides these, what `scenarios` counts."""

    OF_USER = "actions of the user left out"
    OUTPUTS = "several texts to communicate left out, of which a task holds one"
    FIRST_OUTPUT = "of several texts to communicate only the first is asked for"


class Note(StrEnum):
    """What is not as it should be with a row that is kept."""

    STRICTER = "an action of which tau2-bench compares fewer arguments"
    NO_POLICY = "no policy.md beside the file"


def sniff(records: Sequence[Record]) -> bool:
    return all({"user_scenario", "evaluation_criteria"} <= record.keys() for record in records)


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row with expected actions, as a task. The file is read whole, for its tools."""
    rows = list(read_records(path))
    system = _policy(path)
    tally, tools = (
        ReadStats(),
        tools_of_calls(call for _, record in rows for call in _known_calls(record)),
    )
    for line, record in rows:
        try:
            task, repairs, notes = _task(record, tools, system)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        tally.keep_tasks([task], repairs)
        for note in [*notes, *([] if system else [Note.NO_POLICY])]:
            tally.note(note)
    return tally.loaded()


def _policy(path: Path) -> tuple[Message, ...]:
    """The system message from the file beside."""
    file = path.parent / POLICY
    if not file.is_file():
        return ()
    try:
        return (Message("system", file.read_text("utf-8").strip()),)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the policy cannot be read: {error}") from None


def _known_calls(record: Record) -> Iterator[ToolCall]:
    """The calls of a row from which tools are put together; a row that cannot be read has none."""
    try:
        yield from (_call(action) for action in _actions(record) if not _is_users(action))
        yield from (call for message in _history(record) for call in message.tool_calls)
    except Skip:
        return


def _task(
    record: Record, tools: tuple[Tool, ...], system: tuple[Message, ...]
) -> tuple[Task, list[str], list[Note]]:
    """The task of a row, how it was mended, and what is to be noted."""
    actions = _actions(record)
    own = [action for action in actions if not _is_users(action)]
    request, played = _request(record)
    told = read_list(_criteria(record), "communicate_info", "evaluation_criteria")
    answer = str(told[0]) if len(told) == 1 or (told and not own) else None
    if not own and answer is None:
        raise Skip(Reason.NOTHING_EXPECTED)
    task = Task(
        id=f"{NAME}-{record.get('id')}",
        messages=(*system, *_history(record), Message("user", request)),
        tools=tools,
        expect=Expect(tuple(map(_expected, own)) or None, answer=answer),
        world=read_world(record, "initial_state"),
        category="played_user" if played else "ticket",
        source=NAME,
    )
    counted = {FROM_CALLS: True, PLAYED: played, Repair.OF_USER: len(own) < len(actions)}
    counted |= {
        Repair.OUTPUTS: len(told) > 1 and bool(own),
        Repair.FIRST_OUTPUT: len(told) > 1 and not own,
    }
    return (
        task,
        [repair for repair, holds in counted.items() if holds],
        [Note.STRICTER] if any(map(_is_loose, own)) else [],
    )


def _criteria(record: Record) -> Record:
    criteria = record.get("evaluation_criteria")
    if not isinstance(criteria, dict):
        raise Skip(
            Reason.NOT_THIS_FORMAT,
            f"wanted an object in 'evaluation_criteria', got {criteria!r:.60}",
        )
    return criteria


def _actions(record: Record) -> list[Record]:
    actions = read_list(_criteria(record), "actions", "evaluation_criteria")
    if not all(isinstance(action, dict) for action in actions):
        raise Skip(Reason.BAD_ACTION, f"{actions!r:.80}")
    return actions


def _is_users(action: Record) -> bool:
    return action.get("requestor") == "user"


def _is_loose(action: Record) -> bool:
    """Whether some arguments are compared, but not all."""
    compared = action.get("compare_args")
    return (
        isinstance(compared, list)
        and bool(compared)
        and any(name not in compared for name in action["arguments"])
    )


def _expected(action: Record) -> ExpectedCall:
    """The action as an expected call; with any arguments where none are compared."""
    call = _call(action)
    if action.get("compare_args") == [] and call.arguments:
        return ExpectedCall(call.name, any_arguments=True)
    return ExpectedCall(call.name, call.arguments)


def _call(action: Record) -> ToolCall:
    name, arguments = action.get("name"), action.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Skip(Reason.BAD_ACTION, f"wanted 'name' and 'arguments', got {action!r:.80}")
    return ToolCall(name, arguments)


def _request(record: Record) -> tuple[str, bool]:
    """What is asked for, and whether that is what a played user is told."""
    ticket, scenario = record.get("ticket"), record.get("user_scenario")
    if isinstance(ticket, str) and ticket.strip():
        return ticket.strip(), False
    told = scenario.get("instructions") if isinstance(scenario, dict) else None
    parts = [told.get(key) for key in _TOLD] if isinstance(told, dict) else [told]
    text = "\n\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip(" ."))
    if not text:
        raise Skip(Reason.NO_REQUEST, f"{scenario!r:.80}")
    return text, True


def _history(record: Record) -> tuple[Message, ...]:
    """The messages that came before, results linked to their calls."""
    state = record.get("initial_state")
    said = read_list(state, "message_history", "initial_state") if isinstance(state, dict) else []
    try:
        return tuple(Message.from_dict(_linked(message)) for message in said)
    except DataError as error:
        raise Skip(Reason.BAD_TURN, str(error)) from None


def _linked(message: Json) -> Json:
    is_result = isinstance(message, dict) and message.get("role") == "tool"
    return {**message, "tool_call_id": message.get("id")} if is_result else message
