r"""Glaive function calling v2 as published: flat text, the calls with their arguments as JSON in single quotes.

    {"system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n{...}\n{...}",
     "chat": "USER: ...\n\n\nASSISTANT: <functioncall> {\"name\": \"f\", \"arguments\": '{\"n\": 5}'}
              <|endoftext|>\n\n\nFUNCTION RESPONSE: {...}\n\n\nASSISTANT: ... <|endoftext|>"}

A turn begins with a marker at the start or behind an empty line; three line ends where the row has such, else two. Markers
elsewhere are text, kept as it is and noted (the data set replaced "AI:" by "ASSISTANT:" everywhere). Words before a call stand
beside it.

Read with a counted repair: arguments as an object, as null, under `parameters`; a brace too many or too few behind complete
arguments; `\'`; a turn without its end mark; words behind a call, which are left out; a name that differs from the declared one
only in letter case and punctuation; a function declared twice, of which the definition is kept that the calls fit. Counted and
skipped, each by its name: arguments that are cut off, a list, or hold what JSON has no word for (`Infinity`, `NaN`); a response
that follows no call, as other call syntaxes leave it; text behind an end mark; calls that do not fit their tools. Nothing is
evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.call_texts import Said, Talk, fitting
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.glaive_calls import FunctionCall, read_function_calls
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.offered import Reason as ToolReason
from toolhone.sources.tasks import tasks_of

NAME = "glaive"
ABOUT = About(
    title="Glaive function calling v2",
    link="https://huggingface.co/datasets/glaiveai/glaive-function-calling-v2",
    licence="Apache-2.0",
    rows="112,960",
    teaches="one call at a time over several turns, asking for what is missing, declining, plain talk",
)
USES: frozenset[str] = frozenset()
END = "<|endoftext|>"
_WIDE = re.compile(r"\n\n\n+[ \t]*(?:USER|ASSISTANT|FUNCTION RESPONSE):")
_MARKERS = {
    gap: re.compile(rf"(?:\A\s*|{gap}[ \t]*)(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
    for gap in (r"\n\n\n+", r"\n\n+")
}
_INNER = re.compile(r"(?:USER|ASSISTANT|FUNCTION RESPONSE):")
_BETWEEN = re.compile(r"[\s,]*")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `glaive_calls`, `offered`, `call_texts` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not a Glaive row"
    BEHIND_END = "text behind the end mark of a turn"


class Repair(StrEnum):
    """How a row was mended; besides these, the repairs of `glaive_calls`, `offered` and `call_texts`."""

    NO_END = "a turn without its end mark"
    STRAY_END = "an end mark behind a turn of the user or of a function"
    NAME = "a call name spelled otherwise than the declared one"
    DEFINED_TWICE = "a function declared twice: the definition that the calls fit was kept"


class Note(StrEnum):
    """What could not be checked of a row that is kept."""

    MARKER = "a turn marker inside a turn, kept as text"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        isinstance(record.get("chat"), str) and isinstance(record.get("system"), str)
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose calls can be read and fit its tools, with the tasks of its turns."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            talk, repairs = _conversation(line, record, offered)
            refuse_faults(talk)
        except Skip as skip:
            tally.skip(line, skip)
        else:
            tally.keep(line, talk, tasks_of(talk), repairs)
            if any(_INNER.search(message.content or "") for message in talk.messages):
                tally.note(Note.MARKER)
    return tally.loaded()


def _conversation(
    line: FileLine, record: Record, offered: OfferedTools
) -> tuple[Conversation, set[str]]:
    system, chat = record.get("system"), record.get("chat")
    if not isinstance(system, str) or not isinstance(chat, str):
        raise Skip(
            Reason.NOT_THIS_FORMAT, f"wanted texts in 'system' and 'chat'; keys {sorted(record)}"
        )
    words, listed = _split_system(system)
    tools, repairs = offered.read(listed)
    talk = Talk()
    talk.repairs |= repairs
    if words:
        talk.say("system", words)
    for marker, text in _turns(chat):
        _add(talk, marker, text, tools)
    if len({tool.name for tool in tools}) < len(tools):
        tools = _one_definition_each(tools, talk.messages)
        talk.repairs.add(Repair.DEFINED_TWICE)
    return Conversation(tuple(talk.messages), tools, identity_of(line, record), NAME), talk.repairs


def _split_system(text: str) -> tuple[str, list[Json]]:
    """What the system text says, and the functions it lists, an object each or in one list."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=len(text))
    listed: list[Json] = []
    position = start
    while position < len(text):
        found = decode(text, position)
        if found.problem is not ParseProblem.NONE:
            raise Skip(ToolReason.BAD_TOOLS, f"not JSON: {text[position : position + 80]!r}")
        listed += found.value if isinstance(found.value, list) else [found.value]
        gap = _BETWEEN.match(text, found.end)
        position = found.end if gap is None else gap.end()
    return text[:start].strip().removesuffix("-").strip(), listed


def _turns(chat: str) -> Iterator[tuple[str, str]]:
    """Marker and text of each turn. A turn of the assistant without an end mark goes on behind the marker of another one."""
    pattern = _MARKERS[r"\n\n\n+" if _WIDE.search(chat) else r"\n\n+"]
    parts = pattern.split(chat.rstrip())
    if len(parts) < 3 or parts[0].strip():
        raise Skip(Reason.NOT_THIS_FORMAT, f"a chat that begins with {chat[:60]!r}")
    waiting: list[str] = []
    for marker, text in zip(parts[1::2], parts[2::2], strict=True):
        if waiting and marker != "ASSISTANT":
            yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)
            waiting = []
        if marker != "ASSISTANT":
            yield marker, text
            continue
        waiting.append(text)
        if END in text:
            yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)
            waiting = []
    if waiting:
        yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)


def _add(talk: Talk, marker: str, text: str, tools: Sequence[Tool]) -> None:
    if marker == "ASSISTANT":
        said, end, behind = text.partition(END)
        if behind.replace(END, "").strip():
            raise Skip(Reason.BEHIND_END, f"{behind.strip()!r:.60}")
        talk.repairs |= set() if end else {Repair.NO_END}
        found = read_function_calls(said)
        calls = tuple(_declared(call, tools, talk.repairs) for call in found.calls)
        talk.assistant(fitting(Said(found.words, calls, found.repairs), tools))
        return
    talk.repairs |= {Repair.STRAY_END} if END in text else set()
    text = text.strip().removesuffix(END).strip()
    if END in text:
        raise Skip(Reason.BEHIND_END, f"{text!r:.60}")
    if marker == "USER":
        talk.say("user", text)
    else:
        talk.result(text)


def _declared(call: FunctionCall, tools: Sequence[Tool], repairs: set[str]) -> ToolCall:
    """The call under the declared name that it spells in another way, if there is just one."""
    names = {tool.name for tool in tools}
    alike = {name for name in names if _letters(name) == _letters(call.name)}
    if call.name not in names and len(alike) == 1:
        repairs.add(Repair.NAME)
        return ToolCall(alike.pop(), call.arguments)
    return ToolCall(call.name, call.arguments)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _one_definition_each(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[Tool, ...]:
    """Of the definitions of a name the first that all its calls fit, else the first of all (`check` refuses the calls)."""
    calls = [call for message in messages for call in message.tool_calls]
    kept: dict[str, Tool] = {}
    for name in dict.fromkeys(tool.name for tool in tools):
        definitions = [tool for tool in tools if tool.name == name]
        made = [call for call in calls if call.name == name]
        kept[name] = next(
            (tool for tool in definitions if all(_fits(call, tool) for call in made)),
            definitions[0],
        )
    return tuple(kept.values())


def _fits(call: ToolCall, tool: Tool) -> bool:
    return (
        not tool.problems(call.arguments)
        and call.arguments.keys() <= (tool.parameters.get("properties") or {}).keys()
    )
