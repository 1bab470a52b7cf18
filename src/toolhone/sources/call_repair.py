"""Calls repaired where only one thing can be meant, beyond what `tool_specs.fit_call` does.

    call, repairs = repair_call(call, tools)

An argument whose name differs from a declared one in case and marks alone gets that name; a single
text or number becomes a list of one where its parameter is a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.schema import Json, Tool, ToolCall
from toolhone.sources.tool_specs import fit_call

SPELLING = "an argument's name in another spelling"
LIST = "a single value where a list is declared"


def repair_call(
    call: ToolCall, tools: Sequence[Tool], reference: re.Pattern[str] | None = None
) -> tuple[ToolCall, set[str]]:
    """Return the call as its tool declares it, and the repairs.

    A text with a `reference` in it may be in place of a list. A call of an unknown tool stays.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return call, set()
    declared = tool.parameters.get("properties") or {}
    spelled = _respell(call.arguments, declared)
    listed = {}
    for name, value in spelled.items():
        refers = reference and isinstance(value, str) and reference.search(value)
        schema = declared.get(name)
        wants_list = isinstance(schema, Mapping) and schema.get("type") == "array"
        single = wants_list and isinstance(value, str | int | float) and not refers
        listed[name] = [value] if single else value
    fitting, repairs = fit_call(ToolCall(call.name, listed, call.id), tools)
    repairs |= {SPELLING} if spelled.keys() != call.arguments.keys() else set()
    repairs |= {LIST} if listed != spelled else set()
    return fitting, repairs


def _respell(arguments: Mapping[str, Json], declared: Mapping[str, Json]) -> dict[str, Json]:
    """Use the declared name where an argument's name is another spelling of just one of them."""
    result: dict[str, Json] = {}
    for name, value in arguments.items():
        alike = [other for other in declared if _letters(other) == _letters(name)]
        meant = [] if name in declared else alike
        result[meant[0] if len(meant) == 1 and meant[0] not in arguments else name] = value
    return result


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
