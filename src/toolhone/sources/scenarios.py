"""Parts of benchmarks: tools made from calls, worlds, and answers in a file of their own.

    tools = tools_of_calls(calls)            # a tool for each name, with the arguments seen
    world = read_world(record, "initial_config")
    truth = Answers(records, context).find("parallel_7")    # in `possible_answer/<same name>`

Where the instructions of a model that plays the user serve as the request, that is `PLAYED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from toolhone.errors import DataError, FindingKind, nearest
from toolhone.schema import ExpectedCall, Json, Message, Tool, ToolCall
from toolhone.sources.files import Record, read_records
from toolhone.sources.source import Context, Skip, refuse_misfits

FROM_CALLS = "tools put together from the calls of the file"
BAD_WORLD = "a world that is no object"
MISFIT = "a right answer that its own tool does not allow"
NO_ANSWER = "a question whose answer is not in the file of answers"
NO_LIST = "something else where a list should be"
PLAYED = "what a model that plays the user is told, taken for the request"
_JSON_TYPES = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def tools_of_calls(calls: Iterable[ToolCall]) -> tuple[Tool, ...]:
    """Return a tool for each called name; every one of these calls obeys it."""
    seen: dict[str, list[Mapping[str, Json]]] = {}
    for call in calls:
        seen.setdefault(call.name, []).append(call.arguments)
    return tuple(Tool(name, "", schema_of_objects(given)) for name, given in seen.items())


def read_question(record: Record, key: str, reason: str) -> str:
    """Return the text of this key; `Skip` with this reason for what is none."""
    text = record.get(key)
    if not isinstance(text, str) or not text.strip():
        raise Skip(reason, f"wanted a text in {key!r}, got {text!r:.60}; keys {sorted(record)}")
    return text


def read_messages(turns: Iterable[Json], reason: str, context: Context) -> tuple[Message, ...]:
    """Return turns in OpenAI's form as messages; `Skip` with this reason for what is none."""
    try:
        return tuple(Message.from_dict(turn, context.unread) for turn in turns)
    except DataError as error:
        raise Skip(reason, str(error)) from None


def path_of_row(context: Context) -> str:
    """Return the path of the row's file inside the folder that is read, without suffixes."""
    file, root = context.line.path, context.path
    name = str(file.relative_to(root)) if root.is_dir() else file.name
    return name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


def read_world(record: Record, key: str) -> Mapping[str, Json] | None:
    """Return the world in which a task begins; `Skip` for one that is no object."""
    world = record.get(key)
    if world is not None and not isinstance(world, dict):
        raise Skip(BAD_WORLD, f"wanted an object in {key!r}, got {world!r:.60}")
    return world


def read_list(record: Record, key: str, where: str) -> list[Json]:
    """Return a list that may be left out; `Skip` for anything else."""
    value = record.get(key)
    if value is not None and not isinstance(value, list):
        raise Skip(NO_LIST, f"wanted a list in '{where}.{key}', got {value!r:.60}")
    return value or []


def schema_of(values: Sequence[Json]) -> dict[str, Json]:
    """Return a schema that all these values obey."""
    kinds = json_types(values)
    if "number" in kinds:
        kinds = [kind for kind in kinds if kind != "integer"]
    if kinds == ["object"]:
        return schema_of_objects(values)
    made = of_types(kinds)
    if "array" in kinds:
        inner = schema_of([item for value in values if isinstance(value, list) for item in value])
        made |= {"items": inner} if inner else {}
    return made


def json_types(values: Iterable[Json]) -> list[str]:
    """Return the names that JSON Schema has for the types of these values, each once."""
    return list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))


def of_types(kinds: Sequence[str]) -> dict[str, Json]:
    """Return the schema of any of these types; of all where there is none."""
    return {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}


def schema_of_objects(values: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Return a schema that these objects obey; what each of them has is required."""
    names = list(dict.fromkeys(name for value in values for name in value))
    properties = {
        name: schema_of([value[name] for value in values if name in value]) for name in names
    }
    required = [name for name in names if all(name in value for value in values)]
    return {"type": "object", "properties": properties, "required": required}


class Answers:
    """The answers to the questions of one file, read when the first is needed."""

    def __init__(self, _records: Sequence[Record], context: Context) -> None:
        self._questions = context.path

    def find(self, identity: str) -> Json:
        """Return what counts as right for the question of this id."""
        path, records = self._file
        record = records.get(identity)
        if record is None or "ground_truth" not in record:
            raise Skip(NO_ANSWER, f"no 'ground_truth' for the id {identity!r} in {path}")
        return record["ground_truth"]

    @cached_property
    def _file(self) -> tuple[Path, Mapping[str, Record]]:
        folder = self._questions.parent / "possible_answer"
        missing = f"{self._questions}: the answers are not beside this file"
        path = find_packed(folder / self._questions.name.removesuffix(".gz"), missing)
        return path, {str(record.get("id")): record for _, record in read_records(path)}


def find_packed(plain: Path, missing: str) -> Path:
    """Return this file or the packed one beside it; a `DataError` says what is missing."""
    for file in (plain, plain.with_name(f"{plain.name}.gz")):
        if file.is_file():
            return file
    raise DataError(f"{missing}; wanted them in {str(plain)!r}")


def note_misfit(expected: Sequence[ExpectedCall], tools: Sequence[Tool], context: Context) -> None:
    """Note right calls that break the schemas of their tools; `Skip` a call of an unknown tool.

    The published set scores by such an answer, so the row is kept.
    """
    names = {tool.name for tool in tools}
    for call in expected:
        if call.name not in names:
            raise Skip(FindingKind.UNKNOWN_TOOL, f"{call.name!r}{nearest(call.name, names)}")
    if not expected:
        return
    try:
        refuse_misfits([ToolCall(call.name, call.arguments) for call in expected], tools)
    except Skip as skip:
        if skip.reason not in (FindingKind.BAD_ARGUMENTS, FindingKind.UNDECLARED_ARGUMENT):
            raise
        context.notes.append(MISFIT)
