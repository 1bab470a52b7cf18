"""How fast simulated worlds answer calls of published data, and whether their results are right.

    python benchmarks/worlds.py FILE_OR_FOLDER...

For each: its tools and calls as `toolhone data import` reads them; each row is played in a world of
its own, as episodes are, in two worlds of one seed; calls that break the schema of their tool are
left out (`refused`). Prints a line of JSON: calls, those with a result, those with an equal one in
both worlds, results that obey a schema (given ones, or made from the tool's parameters for this
benchmark), and calls per second of CPU time on one core, worlds made and results written included:
in the first pass, which meets every tool, and in the best of three later ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator

from toolhone.errors import ToolhoneError
from toolhone.schema import Tool, ToolCall
from toolhone.sources.formats import open_source
from toolhone.tools.open_world import SimulatedWorld
from toolhone.tools.result import ToolResult, ToolStatus

Rows = list[tuple[tuple[Tool, ...], list[tuple[Tool, ToolCall]]]]
"""Tools of a row, and its calls, each with its tool."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--calls", type=int, default=20000, help="at most, of each path")
    asked = parser.parse_args()
    for path in asked.paths:
        print(json.dumps({"path": path.name, **measured(path, asked.calls)}), flush=True)


def measured(path: Path, most: int) -> dict[str, object]:
    """Play the calls of one file, or of all readable files of a folder."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    rows, counts = Rows(), Counter[str]()
    for file in files:
        try:
            loaded = open_source(str(file))
        except ToolhoneError:
            counts["unread_files"] += 1
            continue
        made = [
            (one.tools, [call for message in one.messages for call in message.tool_calls])
            for one in loaded.conversations
        ] or [
            (task.tools, [ToolCall(one.name, one.arguments) for one in task.expect.wanted])
            for task in loaded.tasks
        ]
        for tools, calls in made:
            by_name = {tool.name: tool for tool in tools}
            pairs = [(by_name.get(call.name), call) for call in calls]
            fit = [(tool, one) for tool, one in pairs if tool and not tool.problems(one.arguments)]
            counts["refused"] += len(pairs) - len(fit)
            if fit and counts["calls"] < most:
                counts["calls"] += len(fit)
                rows.append((tools, fit))
    (found, first), (again, _), *_ = runs = [played(rows) for _ in range(4)]
    schemas = [tool.parameters for _, fit in rows for tool, _ in fit]
    answers = [one for one in zip(schemas, found, strict=True) if one[1].outcome is ToolStatus.OK]
    return {
        **counts,
        "rows": len(rows),
        "answered": len(answers),
        "equal": sum(one == other for one, other in zip(found, again, strict=True)),
        "valid": sum(Draft202012Validator(s).is_valid(one.value) for s, one in answers),
        "first_pass": round(len(found) / first),
        "calls_per_second": round(len(found) / min(spent for _, spent in runs[1:])),
    }


def played(rows: Rows) -> tuple[list[ToolResult], float]:
    """The results of all calls, and CPU seconds."""
    found, began = list[ToolResult](), time.process_time()
    for tools, fit in rows:
        world = SimulatedWorld(tools, {tool.name: tool.parameters for tool in tools})
        world.reset(1)
        found += [world.call(call) for _, call in fit]
    return found, time.process_time() - began


if __name__ == "__main__":
    main()
