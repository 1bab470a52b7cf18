"""BFCL's rows with several user turns, and the documents of the tools that such rows name by class.

    documents = Documents(path)
    task, left_out = turns_task("multi_turn_base_3", record, truth, documents)

The tools of a row are those of its `involved_classes`, described in `multi_turn_func_doc/` beside the questions, without the
`excluded_function`s. A turn expects its calls, which the answer writes as Python does (`mv(source='a', destination='b')`; values
without a name go to the parameters in order), in this order; a turn without calls expects none. `initial_config` becomes the
task's world.

A row whose `missed_function` is added in the middle is cut there, since a task has the same tools from its first turn to its
last: the turn that cannot be answered without the tool is the last one, and expects no call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import Skip
from toolhone.sources.bfcl_answers import Reason
from toolhone.sources.files import Record, read_records
from toolhone.sources.loose_tools import LooseTools
from toolhone.sources.prompt_rows import read_python_calls
from toolhone.sources.scenarios import world_of

FOLDER = "multi_turn_func_doc"
FILES: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MemoryAPI_kv": "memory_kv",
    "MemoryAPI_rec_sum": "memory_rec_sum",
    "MemoryAPI_vector": "memory_vector",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
    "WebSearchAPI": "web_search",
}
"""The document of each class."""


class Documents:
    """The tools of the classes; each document is read once, when a row needs it."""

    def __init__(self, questions: Path) -> None:
        self._folder = questions.parent / FOLDER
        self._known: dict[str, tuple[tuple[Tool, ...], set[str]]] = {}
        self._reader = LooseTools()

    def of(self, classes: Json) -> tuple[tuple[Tool, ...], set[str]]:
        """The tools of these classes and how they were mended."""
        tools: list[Tool] = []
        repairs: set[str] = set()
        for name in classes if isinstance(classes, list) else []:
            found, mended = self._class(name)
            tools += found
            repairs |= mended
        return tuple(tools), repairs

    def _class(self, name: Json) -> tuple[tuple[Tool, ...], set[str]]:
        if not isinstance(name, str) or name not in FILES:
            raise Skip(
                Reason.BAD_ANSWER,
                f"the class {name!r:.40} has no document; known: {', '.join(FILES)}",
            )
        if name not in self._known:
            self._known[name] = self._reader.read(
                [record for _, record in read_records(self._path(FILES[name]))]
            )
        return self._known[name]

    def _path(self, stem: str) -> Path:
        for file in (self._folder / f"{stem}.json", self._folder / f"{stem}.json.gz"):
            if file.is_file():
                return file
        raise DataError(
            f"the tools of these questions are not beside them; wanted them in {str(self._folder / stem) + '.json'!r}"
        )


def turns_task(
    identity: str, record: Record, truth: Json, documents: Documents
) -> tuple[Task, set[str], bool]:
    """The task of a row, how its tools were mended, and whether turns were left out."""
    tools, repairs = documents.of(record.get("involved_classes"))
    missed, excluded = _missed(record), _names(record.get("excluded_function"))
    absent = {*excluded, *(name for names in missed.values() for name in names)}
    tools = tuple(tool for tool in tools if tool.name not in absent)
    turns = [messages_of(turn) for turn in record["question"]]
    if not isinstance(truth, list) or len(truth) != len(turns):
        raise Skip(
            Reason.BAD_ANSWER,
            f"wanted a list of calls for each of {len(turns)} turns, got {truth!r:.60}",
        )
    count = min(missed, default=len(turns))
    if not all(turns[:count]):
        raise Skip(
            Reason.BAD_QUESTION, "a turn in which nobody says anything, and no function is added"
        )
    expects = tuple(_expect(answer, tools) for answer in truth[:count])
    task = Task(
        id=identity,
        tools=tools,
        turns=tuple(turns[:count]),
        expects=expects,
        world=world_of(record, "initial_config"),
    )
    return task, repairs, count < len(turns)


def _missed(record: Record) -> dict[int, list[str]]:
    """The functions that are added, by the number of the turn."""
    missed = record.get("missed_function") or {}
    if not isinstance(missed, dict) or not all(re.fullmatch(r"[1-9]\d?", turn) for turn in missed):
        raise Skip(
            Reason.BAD_QUESTION,
            f"wanted functions by the number of the turn in 'missed_function', got {missed!r:.60}",
        )
    return {int(turn): _names(names) for turn, names in missed.items()}


def _names(value: Json) -> list[str]:
    if value is not None and not (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    ):
        raise Skip(Reason.BAD_QUESTION, f"wanted a list of functions, got {value!r:.60}")
    return value or []


def messages_of(turn: Json) -> tuple[Message, ...]:
    """The messages of one turn; empty where a row adds a tool instead of saying something."""
    try:
        return tuple(map(Message.from_dict, turn))
    except DataError as error:
        raise Skip(Reason.BAD_QUESTION, str(error)) from None


def _expect(answer: Json, tools: Sequence[Tool]) -> Expect:
    calls = [_call(text, tools) for text in answer] if isinstance(answer, list) else []
    if not calls:
        return Expect(no_call=True)
    return Expect(tuple(ExpectedCall(call.name, call.arguments) for call in calls), order="strict")


def _call(text: Json, tools: Sequence[Tool]) -> ToolCall:
    found = read_python_calls(text, tools) if isinstance(text, str) else None
    if found is None or len(found) != 1:
        raise Skip(Reason.BAD_ANSWER, f"wanted one call as Python writes it, got {text!r:.80}")
    return found[0]
