"""Calls put right where only one thing can be meant, beyond what `offered.fitted` does.

    call, repairs = mended(call, tools)

An argument whose name differs from a declared one in case, underscores and other marks alone gets the declared name; a single text
or number becomes a list of one where its parameter is a list. After that comes `fitted`. A call of an unknown tool stays as it is.
Whether the call fits its tool then is not checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from toolhone.schema import Json, Tool, ToolCall
from toolhone.sources.offered import Repair as ToolRepair
from toolhone.sources.offered import fitted


class Repair(StrEnum):
    """How a call was mended; besides these, the repairs of `offered`."""

    SPELLING = "an argument's name in another spelling"
    LIST = "a single value where a list is declared"


def mended(
    call: ToolCall, tools: Sequence[Tool], reference: re.Pattern[str] | None = None
) -> tuple[ToolCall, set[Repair | ToolRepair]]:
    """The call as its tool declares it, and how it was mended. A text with a `reference` in it may stand for a list, and stays."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return call, set()
    declared = tool.parameters.get("properties") or {}
    spelled = _spelled(call.arguments, declared)
    listed = {
        name: value if _refers(value, reference) else _listed(value, declared.get(name))
        for name, value in spelled.items()
    }
    made, found = fitted(ToolCall(call.name, listed, call.id), tools)
    repairs: set[Repair | ToolRepair] = set(found)
    repairs |= {Repair.SPELLING} if spelled.keys() != call.arguments.keys() else set()
    return made, repairs | ({Repair.LIST} if listed != spelled else set())


def _spelled(arguments: Mapping[str, Json], declared: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments under their declared names, where a name is another spelling of exactly one that is not given."""
    result: dict[str, Json] = {}
    for name, value in arguments.items():
        meant = (
            []
            if name in declared
            else [other for other in declared if _letters(other) == _letters(name)]
        )
        result[meant[0] if len(meant) == 1 and meant[0] not in arguments else name] = value
    return result


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _refers(value: Json, reference: re.Pattern[str] | None) -> bool:
    return reference is not None and isinstance(value, str) and reference.search(value) is not None


def _listed(value: Json, schema: Json) -> Json:
    single = (
        isinstance(schema, Mapping)
        and schema.get("type") == "array"
        and isinstance(value, str | int | float)
    )
    return [value] if single else value
