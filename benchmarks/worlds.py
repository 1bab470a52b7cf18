"""How fast simulated worlds answer calls of published data, and whether their results are right.

    python benchmarks/worlds.py FILE...

For each file: its tools and calls as `toolhone data import` reads them; every call is made twice in
two worlds of one seed. Prints a line of JSON: calls, those with a result, those whose result is
equal in both worlds, results that obey a schema (given ones, or made from the tool's parameters
for this benchmark), and calls per second of CPU time on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jsonschema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--calls", type=int, default=20000, help="at most, of each file")
    asked = parser.parse_args()
    for path in asked.files:
        print(json.dumps({"file": path.name, **measured(path, asked.calls)}), flush=True)


def measured(path: Path, most: int) -> dict[str, object]:
    """Play the calls of one file."""
    from toolhone.schema import Tool, ToolCall
    from toolhone.sources.formats import open_source
    from toolhone.tools.open_world import SimulatedWorld
    from toolhone.tools.result import ToolStatus

    loaded = open_source(str(path))
    rows: list[tuple[tuple[Tool, ...], list[ToolCall]]] = [
        (one.tools, [call for message in one.messages for call in message.tool_calls])
        for one in loaded.conversations
    ]
    rows += [
        (task.tools, [ToolCall(one.name, one.arguments) for one in task.expect.wanted])
        for task in loaded.tasks
        if not loaded.conversations
    ]
    returns = [{tool.name: dict(tool.parameters) for tool in tools} for tools, _ in rows]
    calls = answered = equal = valid = 0
    seconds = 0.0
    for (tools, wanted), schemas in zip(rows, returns, strict=True):
        if calls >= most:
            break
        world, again = SimulatedWorld(tools, schemas), SimulatedWorld(tools, schemas)
        for call in wanted:
            world.call(call)  # compiles the schema of the arguments, once for a tool
            world.reset(1)
            again.reset(1)
            began = time.process_time()
            found = world.call(call)
            seconds += time.process_time() - began
            calls += 1
            answered += found.outcome is ToolStatus.OK
            equal += found == again.call(call)
            if found.outcome is ToolStatus.OK:
                valid += jsonschema.Draft202012Validator(schemas[call.name]).is_valid(found.value)
    return {
        "calls": calls,
        "answered": answered,
        "equal": equal,
        "valid": valid,
        "calls_per_second": round(calls / seconds) if seconds else None,
    }


if __name__ == "__main__":
    main()
