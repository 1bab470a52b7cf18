"""What a format is, what its rows give, and the rules that every row must keep.

    NAME = Source("name", looks_like, convert)           # at the end of the module of a format
    for fault in conversation_faults(conversation):
        print(fault.kind, fault.field, fault.what, fault.right)

The rules look at one row and change nothing. `formats` has the loop that reads the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from toolhone.errors import Fault, FindingKind, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.schema.json_input import LABELS, check_keys
from toolhone.schema.message import link_faults
from toolhone.schema.message import order_faults as order_faults
from toolhone.schema.preference import Preference
from toolhone.schema.tool import OPEN_KEYWORDS, strip_padding
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream

T = TypeVar("T")
SHOWN = 5
"""Names that a finding lists, and examples that a summary has, at most."""


class SourceOptions(TypedDict, total=False):
    """Options of a source; without one, or with None, the source uses its own default.

    style: GSM8K's form, `calls` or `short`. first_call: a GSM8K task also expects the first step as
    a call. distractors: how many wrong tools are on offer besides (Seal-Tools, MetaTool, NESTFUL).
    catalogue: the file that describes the tools, where it is not beside the rows. seed: of every
    choice. tools: on offer in test cases, and in rows of messages without the key. raw_prompt: keep
    prompt and answer of prompt rows as they are.
    """

    style: str | None
    first_call: bool | None
    distractors: int | None
    catalogue: str | Path | None
    seed: int | None
    tools: Sequence[Tool] | None
    raw_prompt: bool | None


class Skip(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """A row that its source cannot use: `reason` is counted, `detail` completes the example."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Converted:
    """What a row gives: a conversation, a pair, or neither; and tasks. Nothing is added.

    texts: of the conversation or pair, then of the tasks, as JSON.
    """

    conversation: Conversation | None = None
    tasks: Sequence[Task] = ()
    preference: Preference | None = None
    texts: Sequence[str] = ()


@dataclass
class Context:
    """What a conversion knows besides its record, and where it writes down repairs and notes.

    name: of the format. path: of the file or folder. line: the place of the row. prepared: what
    `prepare` returned. tools: a cache of the tools read so far. seen: what earlier rows of the file
    leave for later ones. repairs, notes, unread (keys that
    hold something and are passed over): of this row.
    """

    name: str
    path: Path
    options: SourceOptions
    line: FileLine
    prepared: Any = None
    tools: dict[Any, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    repairs: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)

    def at(self, line: FileLine) -> Context:
        """Return the context of another row."""
        return replace(self, line=line, repairs=set(), notes=[], unread=set())

    def once(self, key: object, make: Callable[[Context], T]) -> T:
        """Return what `make` returns, made once for a file; its repairs and unread keys count for
        each row."""
        if key not in self.tools:
            own = self.at(self.line)
            self.tools[key] = make(own), own.repairs, own.unread
        value, repairs, unread = self.tools[key]
        self.repairs |= repairs
        self.unread |= unread
        return value  # type: ignore[no-any-return]

    def identity(self, record: Record, key: str = "id") -> str:
        """Return the row's own id, or the name of the file and the number of the row."""
        own = record.get(key)
        stem = self.line.path.name.partition(".")[0]
        return f"{stem}-{self.line.number}" if own in (None, "") else str(own)

    def complete(self, conversation: Conversation, record: Record) -> Conversation:
        """Return the conversation with id and source; raise `Skip` if it breaks the rules."""
        refuse_faults(conversation)
        identity = conversation.id or self.identity(record)
        return replace(conversation, id=identity, source=conversation.source or self.name)


@dataclass(frozen=True)
class Source:
    """A published format: how its rows are told from others, and how one is converted.

    keys: the known ones by the place of their object: `""` is the row, `"info.task"` an object in
    it, also each of a list; those of other places are data, or `convert` checks them. prepare: runs
    once on all records of the file; what it returns is `Context.prepared`. rows: regroups the rows
    of a file or folder. options: names of the `SourceOptions` that are read. joins: rows whose
    history another row holds are one conversation with it.
    """

    name: str
    looks_like: Callable[[Record], bool]
    convert: Callable[[Record, Context], Conversation | Task | list[Task] | Converted]
    keys: Mapping[str, Set[str]]
    prepare: Callable[[Sequence[Record], Context], Any] | None = None
    rows: Callable[[RecordStream], Iterator[tuple[FileLine, Record | BadLine]]] | None = None
    options: Set[str] = frozenset()
    joins: bool = False


def has_keys(*names: str) -> Callable[[Record], bool]:
    """Return a test whether a row has all of these keys."""
    return lambda record: record.keys() >= set(names)


def check_places(record: Record, places: Mapping[str, Set[str]], unread: set[str]) -> None:
    """Put the keys of a row, and of the objects in it, that are not known into `unread`."""
    for place, known in places.items():
        where, known = (place, known) if place else ("a row", known | LABELS)
        for found in _objects_at(record, place.split(".") if place else []):
            check_keys(found, known, where, unread)


def _objects_at(value: Json, path: Sequence[str]) -> Iterator[Record]:
    if isinstance(value, list):
        for inner in value:
            yield from _objects_at(inner, path)
    elif isinstance(value, dict) and path:
        yield from _objects_at(value.get(path[0]), path[1:])
    elif isinstance(value, dict):
        yield value


def shape_of(calls: Sequence[ToolCall | ExpectedCall]) -> str:
    """Return the category of a decision by its number of calls."""
    return "several_calls" if len(calls) > 1 else "one_call" if calls else "no_call"


def tasks_of(conversation: Conversation, category: str = "") -> list[Task]:
    """Return a task for each decision of the assistant; its history is everything before that.

    A turn with calls after a user turn or after results expects these calls, a plain reply to the
    user no call; a final reply after results gives no task, nor does a turn of weight 0. Ids are
    `<conversation id>#<index of the message>`. The default category is `one_call`, `several_calls`,
    `later_call` (after results) or `no_call`; several tasks of one conversation are a cluster.
    """
    identity = conversation.id or fingerprint(conversation.messages)[:12]
    messages, decisions = conversation.messages, list[tuple[int, str]]()
    for index, message in enumerate(messages):
        before = messages[index - 1].role if index else ""
        decides = before == "user" or (before == "tool" and message.tool_calls)
        if message.role == "assistant" and decides and message.weight:
            shape = "later_call" if before == "tool" else shape_of(message.tool_calls)
            decisions.append((index, category or shape))
    return [
        Task(
            id=f"{identity}#{index}",
            messages=messages[:index],
            tools=conversation.tools,
            expect=expect_calls(messages[index].tool_calls),
            category=kind,
            source=conversation.source,
            cluster=identity if len(decisions) > 1 else "",
        )
        for index, kind in decisions
    ]


def fingerprint(messages: Sequence[Message]) -> str:
    """Return a SHA-256 hash (hexadecimal) of what messages say; ids of calls do not count."""
    content = []
    for message in messages:
        calls = [[call.name, call.arguments] for call in message.tool_calls]
        content.append([message.role, message.content, message.reasoning, calls])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def expect_calls(calls: Sequence[ToolCall], order: Any = "any") -> Expect:
    """Return the expectation of these calls; of no call where there are none."""
    expected = tuple(ExpectedCall(call.name, call.arguments) for call in calls)
    return Expect(expected, order) if expected else Expect(no_call=True)


def refuse_faults(conversation: Conversation) -> None:
    """Raise `Skip` for the first fault of a conversation, such as a call that does not fit."""
    for kind, fault_field, what, _ in conversation_faults(conversation):
        raise Skip(kind, f"{fault_field}: {what}")


def refuse_misfits(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> None:
    """Raise `Skip` for calls, such as those a task expects, that do not fit the tools."""
    message = Message("assistant", tool_calls=tuple(calls))
    refuse_faults(Conversation((message,), tuple(tools), source="a task"))


def conversation_faults(conversation: Conversation) -> Iterator[Fault]:
    """Yield the faults of one conversation: its tools, its turns, its calls, its results."""
    tools: dict[str, Tool] = {}
    for index, tool in enumerate(conversation.tools):
        known = tools.setdefault(tool.name, tool)
        if known is not tool and known != tool:
            what = f"a second, different tool is named {tool.name!r}"
            right = "wanted one tool for each name"
            yield Fault(FindingKind.TOOL_TWICE, f"tools[{index}]", what, right)
    if all(message.role != "assistant" for message in conversation.messages):
        what = "there is no assistant message"
        yield Fault(FindingKind.NO_ASSISTANT, "messages", what, "wanted one to learn from")
    for index, message in enumerate(conversation.messages):
        field = f"messages[{index}]"
        if message.role != "assistant":
            continue
        if not message.tool_calls and not (message.content or "").strip():
            what = "the assistant says nothing and calls nothing"
            yield Fault(FindingKind.EMPTY_TURN, field, what, "wanted content or tool_calls")
        for number, call in enumerate(message.tool_calls):
            yield from _call_faults(f"{field}.tool_calls[{number}]", call, tools)
    yield from link_faults(conversation.messages)


def _call_faults(field: str, call: ToolCall, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    tool, right = tools.get(call.name), f"wanted {_one_of(tools)}"
    if tool is None:
        what = f"calls the unknown tool {call.name!r}{nearest(call.name, tools)}"
        yield Fault(FindingKind.UNKNOWN_TOOL, f"{field}.name", what, right)
        return
    field = f"{field}.arguments"
    arguments, padding = strip_padding(call.arguments, tool.parameters)
    if padding:
        names = ", ".join(map(repr, padding[:SHOWN]))
        what = f"{call.name} has null for {names}, which its schema does not allow"
        yield Fault(FindingKind.NULL_PADDING, field, what, "wanted them left out")
    for problem in tool.problems(arguments):
        what = f"{call.name}, {problem[:200]}"
        name = problem.partition(":")[0].partition(".")[0]
        schema = (tool.parameters.get("properties") or {}).get(name)
        if isinstance(schema, dict):
            shown = {key: value for key, value in schema.items() if key != "description"}
            right = "wanted " + json.dumps(shown)[:200]
        else:
            required = ", ".join(map(repr, tool.parameters.get("required") or []))
            right = f"required are {required or 'none'}"
        yield Fault(FindingKind.BAD_ARGUMENTS, field, what, right)
    properties = tool.parameters.get("properties")
    if properties is None or tool.parameters.keys() & OPEN_KEYWORDS:
        return
    for name in arguments:
        if name not in properties:
            what = f"{call.name} declares no argument {name!r}{nearest(name, properties)}"
            right = f"wanted {_one_of(properties)}, or 'additionalProperties': true in its schema"
            yield Fault(FindingKind.UNDECLARED_ARGUMENT, field, what, right)


def _one_of(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:SHOWN]]
    if not shown:
        return "none, since none is declared"
    rest = f" or one of {len(names) - SHOWN} others" if len(names) > SHOWN else ""
    return ("one of " if len(shown) > 1 else "") + ", ".join(shown) + rest


def weight_faults(row: Conversation) -> Iterator[Fault]:
    """Yield each turn with another weight than 1, and a row of which no turn is learned."""
    for index, message in enumerate(row.messages):
        if message.role == "assistant" and message.weight != 1:
            kind = FindingKind.LEARNED_IN_PART if message.weight else FindingKind.NOT_LEARNED
            yield Fault(kind, f"messages[{index}]", f"its weight is {message.weight}", "")
    if not row.is_learned:
        yield Fault(FindingKind.NO_TURN_LEARNED, "messages", "all its turns have weight 0", "")


def row_remarks(row: Conversation) -> Iterator[Fault]:
    """Yield what is wrong with a row that can be trained on all the same."""
    yield from order_faults(row.messages)
    yield from weight_faults(row)
    yield from format_faults(row)


def format_faults(row: Conversation) -> Iterator[Fault]:
    """Yield arguments that are not of the `format` of their schema, which is an annotation."""
    tools = {tool.name: tool for tool in row.tools}
    for index, message in enumerate(row.messages):
        for number, call in enumerate(message.tool_calls):
            known, field = tools.get(call.name), f"messages[{index}].tool_calls[{number}].arguments"
            for problem in () if known is None else known.format_problems(call.arguments):
                right = "wanted a text of the format that the schema names"
                what = f"{call.name}, {problem[:200]}"
                yield Fault(FindingKind.OTHER_FORMAT, field, what, right)
