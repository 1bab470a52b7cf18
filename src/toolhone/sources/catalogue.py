"""Tools in a file of their own: finding the file, choosing the tools on offer, calls by reference.

path = find_beside(context, ["tools.json"])                  # or a `DataError` that names the
option tools = choose_tools(["search"], known, count=4, seed="7/row-1") tool =
accept_references(tool, r"\\$var\\d+\\$")               # a reference as well as a value
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Json, Tool
from toolhone.sources.base import Context
from toolhone.sources.files import Record


def find_beside(context: Context, names: Sequence[str]) -> Path:
    """Return the option `catalogue`, or the first of `names` (or with `.gz`) beside the rows or
    above."""
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


def texts_in(value: Json) -> Iterator[str]:
    """Yield all texts that are values, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(inner)


def accept_references(tool: Tool, pattern: str) -> Tool:
    """Return the tool with a reference as a value of every parameter that is no plain text."""
    declared = tool.parameters["properties"]
    properties = {name: _or_reference(schema, pattern) for name, schema in declared.items()}
    return Tool(tool.name, tool.description, {**tool.parameters, "properties": properties})


def _or_reference(schema: Record, pattern: str) -> Record:
    kept: Record = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in kept}
    if not rest or rest == {"type": "string"}:
        return schema
    return {**kept, "anyOf": [rest, {"type": "string", "pattern": pattern}]}
