"""How long the data doctor takes for 100,000 rows, without a model and with one; there is no peer
that does the same.

    python benchmarks/doctor_speed.py [--rows 100000] [--model pico|FOLDER|none] [--fix] \\
        [--file ROWS.jsonl]

The rows are generated conversations; each offers the built-in tools and up to six out of 500
others, in an order of its own, and one in a hundred is spoilt (a call typed by hand, a wrong type,
a null, an unknown tool, a result too many). `--file` keeps them for the next time. Prints one JSON
object: seconds of wall time and of processor time (the first is worth little where others use the
cores) for making the rows, for the doctor without a model, and for the doctor with one, each in a
process of its own, and the most memory it took.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from toolhone.cli.doctor import examine_data
from toolhone.data.templates import Templates
from toolhone.dialects.choose import open_dialect
from toolhone.doctor.lengths import ModelParts
from toolhone.models.pico import pico_folder
from toolhone.sources.files import write_jsonl
from toolhone.tokenizer import TextTokenizer

TYPES = ("string", "integer", "number", "boolean")
Row = dict[str, Any]


def catalogue(count: int) -> list[Row]:
    """Tools that nobody calls: one to six parameters of all types, some with enums, lists and
    limits.
    """
    tools = []
    for number in range(count):
        rng = random.Random(f"tool {number}")
        properties: Row = {}
        for index in range(rng.randint(1, 6)):
            kind = rng.choice((*TYPES, "array"))
            schema: Row = {
                "type": kind,
                "description": f"Parameter {index} of tool {number}, as its manual says it.",
            }
            schema |= {"items": {"type": rng.choice(TYPES)}} if kind == "array" else {}
            schema |= (
                {"enum": ["low", "medium", "high"]}
                if kind == "string" and rng.random() < 0.3
                else {}
            )
            schema |= {"minimum": 0} if kind == "integer" and rng.random() < 0.3 else {}
            properties[f"parameter_{index}"] = schema
        parameters = {"type": "object", "properties": properties, "required": list(properties)[:2]}
        function = {
            "name": f"tool_{number}",
            "description": f"Does the thing number {number} for whoever asks.",
            "parameters": parameters,
        }
        tools.append({"type": "function", "function": function})
    return tools


def rows(count: int) -> Iterator[Row]:
    """Generated conversations with other tools beside, one in a hundred spoilt."""
    others, made, rng = catalogue(500), Templates(0).conversations(count), random.Random(0)
    for number, conversation in enumerate(made):
        row = conversation.to_dict()
        row["tools"] = [*row["tools"], *rng.sample(others, rng.randint(0, 6))]
        rng.shuffle(row["tools"])
        yield spoilt(row, rng) if number % 100 == 99 else row


def spoilt(row: Row, rng: random.Random) -> Row:
    """The row with one of five faults."""
    calling = next((message for message in row["messages"] if message.get("tool_calls")), None)
    if calling is None:
        return row
    call = calling["tool_calls"][0]
    match rng.randrange(5):
        case 0:
            text = json.dumps({"name": call["name"], "arguments": call["arguments"]})
            calling |= {"content": f"<tool_call>\n{text}\n</tool_call>", "tool_calls": []}
        case 1:
            call["arguments"] = {name: [value] for name, value in call["arguments"].items()}
        case 2:
            call["arguments"] = {**call["arguments"], "parameter_1": None}
        case 3:
            call["name"] = call["name"] + "s"
        case _:
            row["messages"].append({"role": "tool", "content": "22"})
    return row


def doctor(path: Path, model: str | None, fix: Path | None) -> str:
    """The doctor as the command line runs it; its table is thrown away."""
    parts = None
    if model is not None:
        tokenizer = TextTokenizer.load(pico_folder() if model == "pico" else model)
        parts = ModelParts(open_dialect(tokenizer), tokenizer)
    with redirect_stdout(StringIO()):
        return examine_data([path], parts, fix, max_length=2048).verdict.value


def _measure(queue: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    started = time.perf_counter()
    result = work(*arguments)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    queue.put(
        {
            "wall_s": round(time.perf_counter() - started, 1),
            "cpu_s": round(sum(usage.ru_utime + usage.ru_stime for usage in usages), 1),
            "peak_mb": usages[0].ru_maxrss // 1024,
            "result": result,
        }
    )


def measured(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run in a new process: wall time of the work; processor time and memory of the whole process,
    imports included.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure, args=(queue, work, arguments))
    process.start()
    result: dict[str, Any] = queue.get()
    process.join()
    return result


def make(path: Path, count: int) -> int:
    return write_jsonl(path, rows(count))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="pico")
    parser.add_argument("--fix", action="store_true")
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "rows.jsonl"
        result: dict[str, Any] = {"rows": arguments.rows}
        if not path.exists():
            result["making"] = measured(make, path, arguments.rows)
        result["megabytes"] = path.stat().st_size // 2**20
        fix = Path(folder) / "clean.jsonl" if arguments.fix else None
        result["without_model"] = measured(doctor, path, None, fix)
        if arguments.model != "none":
            result["with_model"] = measured(doctor, path, arguments.model, None)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
