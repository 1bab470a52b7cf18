"""APIBench (Gorilla): a wish in words and the line of Python that loads the right model for it.

    {"code": "###Instruction: I need ...\\n###Output: ...", "api_call": "hub.load('a/b')",
     "provider": "...", "api_data": {...}}

On offer is the called function; its parameters are those that the calls of the whole file give it.
Arguments that are code are kept as text. Format: Patil et al. 2023, arXiv:2305.15334.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.scenarios import json_type
from toolhone.sources.text_calls import NoCode, read_code

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
"""The names of the first parameters, for values without a name."""


def looks_like(record: Record) -> bool:
    return record.keys() >= {"code", "api_call", "provider", "api_data"}


def prepare(records: Sequence[Record], context: Context) -> dict[str, Tool]:  # noqa: ARG001
    """Return one tool for each called function, with the parameters that its calls give it."""
    calls: dict[str, list[ToolCall]] = {}
    providers: dict[str, dict[str, None]] = {}
    for record in records:
        try:
            found = _read(record)[1]
        except Skip:
            continue
        for call in found:
            calls.setdefault(call.name, []).append(call)
            providers.setdefault(call.name, {})[str(record.get("provider") or "")] = None
    return {name: _tool(name, list(providers[name]), calls[name]) for name in calls}


def convert(record: Record, context: Context) -> Conversation:
    wish, calls, repairs = _read(record)
    context.repairs |= repairs
    tools = tuple(context.prepared[name] for name in dict.fromkeys(call.name for call in calls))
    return Conversation((Message("user", wish), Message("assistant", tool_calls=calls)), tools)


def _read(record: Record) -> tuple[str, tuple[ToolCall, ...], set[str]]:
    """Return the wish, its calls, and how they were repaired."""
    code, target = record.get("code"), record.get("api_call")
    if not isinstance(code, str) or not isinstance(target, str):
        raise Skip("not an APIBench row", f"keys {sorted(record)}")
    found = _WISH.match(code)
    asked, _, given = (part.strip() for part in (found[1] if found else "").partition("###Input:"))
    wish = asked if given.strip('"') in asked else f"{asked}\n{given}"
    if not wish:
        raise Skip("a row without an instruction", repr(code[:60]))
    try:
        written, repairs = read_code(target)
    except NoCode:
        raise Skip("a target that is no Python call", repr(target[:80])) from None
    of_model = ("pretrained_model_name_or_path",)
    calls = [
        call.call(
            of_model if call.name.endswith(".from_pretrained") else _PLACES.get(call.name, ())
        )
        for call in written
    ]
    return wish, tuple(calls), set(repairs)


def _places(function: str) -> Sequence[str]:
    if function.endswith(".from_pretrained"):
        return ("pretrained_model_name_or_path",)
    return _PLACES.get(function, ())


def _tool(name: str, providers: Sequence[str], calls: Sequence[ToolCall]) -> Tool:
    kinds: dict[str, dict[str, None]] = {}
    for call in calls:
        for key, value in call.arguments.items():
            kinds.setdefault(key, {})[json_type(value)] = None
    types = {key: list(found) for key, found in kinds.items()}
    schema = {
        "type": "object",
        "properties": {k: {"type": v if len(v) > 1 else v[0]} for k, v in types.items()},
        "required": [key for key in kinds if all(key in call.arguments for call in calls)],
    }
    library = ", ".join(filter(None, providers))
    described = f"A Python function of {library}." if library else "A Python function."
    return Tool(name, described, schema)


APIBENCH = Source("apibench", looks_like, convert, prepare)
