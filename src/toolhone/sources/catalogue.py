"""Tools in a file of their own, references to earlier results, and calls in another spelling.

path = find_beside(context, ["tools.json"])             # a `DataError` names the option
tools = choose_tools(["search"], known, count=4, seed="7/row-1")
call, repairs = repair_call(call, tools)
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Json, Tool, ToolCall
from toolhone.sources.source import Context
from toolhone.sources.tool_specs import fit_call, letters_of

CATALOGUE_OPTIONS = frozenset({"distractors", "catalogue", "seed"})
SPELLING = "an argument's name in another spelling"
LIST = "a single value where a list is declared"


def find_beside(context: Context, names: Sequence[str]) -> Path:
    """Return the option `catalogue`, or the first of `names` beside the rows or above."""
    given = context.options.get("catalogue")
    if given is not None:
        return Path(given)
    start = context.path if context.path.is_dir() else context.path.parent
    for folder in (start, start.parent):
        for name in names:
            for file in (folder / name, folder / f"{name}.gz"):
                if file.is_file():
                    return file
    wanted = " or ".join(map(repr, names))
    raise DataError(
        f"{context.path}: the tools are described in {wanted}, which is not beside this file; "
        "name it with 'catalogue'"
    )


def count_distractors(context: Context, usual: int, known: int) -> int:
    """Return how many wrong tools a row gets; more than the catalogue has are refused."""
    count = context.options.get("distractors")
    if count is None:
        return min(usual, known - 1)
    if not 0 <= count < known:
        raise DataError(
            f"{context.path}: 'distractors' must be between 0 and {known - 1} for this catalogue, "
            f"got {count}"
        )
    return count


def choose_tools(
    called: Sequence[str],
    known: Mapping[str, Tool],
    count: int,
    seed: str,
    near: Sequence[Sequence[str]] = (),
) -> tuple[Tool, ...]:
    """Return the called tools and `count` others (fewer where there are no more), shuffled.

    Those in the first list of `near` are taken first, then those in the second, then any.
    """
    rng = random.Random(seed)
    names = list(dict.fromkeys(called))
    target = len(names) + count
    for candidates in (*near, list(known)):
        chosen = set(names)
        rest = [name for name in candidates if name not in chosen]
        names += rng.sample(rest, min(target - len(names), len(rest)))
    rng.shuffle(names)
    return tuple(known[name] for name in names)


def name_results(fields: Json) -> list[str]:
    """Return the fields of a tool's result, each by its name and its description."""
    results = []
    for name, about in (fields if isinstance(fields, Mapping) else {}).items():
        text = about.get("description") if isinstance(about, Mapping) else ""
        results.append(f"{name} ({text})" if text else str(name))
    return results


def accept_references(tool: Tool, pattern: str) -> Tool:
    """Return the tool with a reference as a value of every parameter that is no plain text."""
    properties, reference = {}, {"type": "string", "pattern": pattern}
    for name, schema in tool.parameters["properties"].items():
        kept = {key: schema[key] for key in ("description", "default") if key in schema}
        rest = {key: value for key, value in schema.items() if key not in kept}
        plain = not rest or rest == {"type": "string"}
        properties[name] = schema if plain else {**kept, "anyOf": [rest, reference]}
    return Tool(tool.name, tool.description, {**tool.parameters, "properties": properties})


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
    spelled: dict[str, Json] = {}
    for name, value in call.arguments.items():
        # Another spelling of just one declared name means that one.
        alike = [other for other in declared if letters_of(other) == letters_of(name)]
        meant = [] if name in declared else alike
        fits = len(meant) == 1 and meant[0] not in call.arguments
        spelled[meant[0] if fits else name] = value
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
