"""APIBench (Gorilla): a wish in words and the line of Python that loads the right model for it.

    {"code": "###Instruction: I need ...\\n###Output: ...", "api_call": "hub.load('a/b')", "provider": "...", "api_data": {...}}

`code` holds the wish in one of two styles (`{'Instruction': ..., 'Output': ...`, `###Instruction: ... ###Output: ...`); what
follows the wish there is passed over, since `api_call` says the same in one form. A row becomes the wish and the call, and a task
that expects it. The one tool on offer is the called function, under its full name; its parameters are those that the calls of the
whole file give it, required where all of them do. Values without a name get their parameter's name where it is known (`_PLACES`),
else `value_1`. Arguments that are code (`use_gpu`, `torch.float16`) are kept as text and counted (`code_calls`). A row whose
target is no Python call is counted and skipped.

What such a row teaches is the choice of the value, which no tool describes: the names of models are learned by heart. Format: Patil
et al. 2023, arXiv:2305.15334.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, Skip, identity_of
from toolhone.sources.base import OldStats as ReadStats
from toolhone.sources.code_calls import CodeRepair, NoCode, read_code
from toolhone.sources.files import Record, read_records
from toolhone.sources.tasks import tasks_of

NAME = "apibench"
ABOUT = About(
    title="APIBench (Gorilla)",
    link="https://github.com/ShishirPatil/gorilla/tree/main/data/apibench",
    licence="Apache-2.0",
    rows="about 17,000 in three sets (Torch Hub, TensorFlow Hub, Hugging Face)",
    teaches="to write the one library call that loads the model a wish asks for; the names of models are learned by heart",
)
USES: frozenset[str] = frozenset()
_WISH = re.compile(
    r"\s*(?:\{'Instruction':|#{2,}\s?Instruction:)(.*?)(?:,\s*'Output':|#{2,}\s?Output:|\Z)",
    re.DOTALL,
)
_PLACES: Mapping[str, Sequence[str]] = {
    "torch.hub.load": ("repo_or_dir", "model"),
    "hub.load": ("handle",),
    "hub.KerasLayer": ("handle",),
    "pipeline": ("task", "model"),
}
_LOADERS = ("pretrained_model_name_or_path",)
"""The first parameter of every `from_pretrained`."""
_KINDS = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_THIS_FORMAT = "not an APIBench row"
    NO_WISH = "a row without an instruction"
    NO_CALL = "a target that is no Python call"


def sniff(records: Sequence[Record]) -> bool:
    return all(record.keys() >= {"code", "api_call", "provider", "api_data"} for record in records)


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose target is a call, with its task. The file is read whole, for the parameters of its functions."""
    rows = [(line, record, _row_or_skip(record)) for line, record in read_records(path)]
    tools = _tools((record, found[1]) for _, record, found in rows if not isinstance(found, Skip))
    tally = ReadStats()
    for line, record, found in rows:
        if isinstance(found, Skip):
            tally.skip(line, found)
            continue
        talk = _conversation(identity_of(line, record), found[0], found[1], tools)
        tally.keep(line, talk, tasks_of(talk), found[2])
    return tally.loaded()


_Row = tuple[str, tuple[ToolCall, ...], set[CodeRepair]]
"""The wish, its calls, and how they were mended."""


def _row_or_skip(record: Record) -> _Row | Skip:
    try:
        return _row(record)
    except Skip as skip:
        return skip


def _row(record: Record) -> _Row:
    code, target = record.get("code"), record.get("api_call")
    if not isinstance(code, str) or not isinstance(target, str):
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    found = _WISH.match(code)
    wish = _with_input(found[1]) if found else ""
    if not wish:
        raise Skip(Reason.NO_WISH, repr(code[:60]))
    try:
        written, repairs = read_code(target)
    except NoCode:
        raise Skip(Reason.NO_CALL, repr(target[:80])) from None
    return wish, tuple(call.call(_places(call.name)) for call in written), repairs


def _with_input(wish: str) -> str:
    """The wish, and the input behind it where the wish does not say it already."""
    asked, _, given = (part.strip() for part in wish.partition("###Input:"))
    return asked if given.strip('"') in asked else f"{asked}\n{given}"


def _places(function: str) -> Sequence[str]:
    return _LOADERS if function.endswith(".from_pretrained") else _PLACES.get(function, ())


def _conversation(
    identity: str, wish: str, calls: tuple[ToolCall, ...], known: Mapping[str, Tool]
) -> Conversation:
    """The wish and its calls, which fit their tools by the way these are made."""
    tools = tuple(known[name] for name in dict.fromkeys(call.name for call in calls))
    return Conversation(
        (Message("user", wish), Message("assistant", tool_calls=calls)), tools, identity, NAME
    )


def _tools(rows: Iterable[tuple[Record, Sequence[ToolCall]]]) -> dict[str, Tool]:
    """One tool for each called function, with the parameters that its calls give it."""
    calls: dict[str, list[ToolCall]] = {}
    providers: dict[str, dict[str, None]] = {}
    for record, made in rows:
        for call in made:
            calls.setdefault(call.name, []).append(call)
            providers.setdefault(call.name, {})[str(record.get("provider") or "")] = None
    return {name: _tool(name, list(providers[name]), calls[name]) for name in calls}


def _tool(name: str, providers: Sequence[str], calls: Sequence[ToolCall]) -> Tool:
    kinds: dict[str, list[str]] = {}
    for call in calls:
        for key, value in call.arguments.items():
            known = kinds.setdefault(key, [])
            known += [] if _kind(value) in known else [_kind(value)]
    properties = {
        key: {"type": found[0] if len(found) == 1 else found} for key, found in kinds.items()
    }
    required = [key for key in kinds if all(key in call.arguments for call in calls)]
    library = ", ".join(filter(None, providers))
    described = f"A Python function of {library}." if library else "A Python function."
    return Tool(name, described, {"type": "object", "properties": properties, "required": required})


def _kind(value: Json) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
