"""Tools baked into pico: generated tools, a pico that reads them, two bakings, the guard's table.

    python benchmarks/baking.py --out runs/baking [--tools 64] [--tasks 1000] [--scale 1]

A generated tool `oll64(item)` is asked for as `oll`: its number cannot be guessed (90 of them), so
it has to be read, or known by heart. Everything is trained and evaluated by `toolhone train`,
`eval` and `compare`, whose commands are printed: `pico-trained` learns to read tools it never saw
(reader-1: 2 to 8 of them; reader-2: 8 or `--tools`), then `bake` and `bake-2` leave the tools of
tools.json out of its prompt. `--scale 0.1` is a tenth of the steps, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from toolhone.models.resolve import pico_folder
from toolhone.schema import Json, Tool
from toolhone.sources.files import write_jsonl
from toolhone.tokenizer import TextTokenizer

SYLLABLES = (
    *("im", "or", "an", "el", "in", "er", "ar", "on", "en", "al"),
    *("is", "it", "ed", "un", "ol", "um", "az", "ir", "od", "es"),
)
"""Values are made of them."""
REQUESTS = (
    "{topic} for {item}",
    "Please give me the {topic} of {item}",
    "I want {topic} with {item}",
    "the {topic} about {item} please",
)
CITIES = (" and ", " by ", " from ", " to ")
"""Before a city, in the request of the same place."""
ASKED = 6
"""Requests of one conversation that the reader learns from; they share its tools."""
MUON = {"optimizer": "muon", "lora": None, "validate_every": 0, "save_every": 0, "log_every": 10}
EVALUATION = {"max_new_tokens": 48, "at_end": False, "baseline": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tools", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    write_data(asked.out, asked.tools, asked.tasks)
    for name, experiment in experiments(asked.scale):
        (asked.out / f"{name}.json").write_text(json.dumps(experiment, indent=1))
        toolhone(asked.out, "train", f"{name}.json", "--out", name)
    for tasks, base in (("eval", "full"), ("new", "new-full")):
        baked = base.replace("full", "baked")
        words = ["--tasks", f"{tasks}.jsonl", "--num-samples", str(asked.tasks)]
        toolhone(asked.out, "eval", "bake", "--base", *words, "--out", base)
        toolhone(asked.out, "eval", "bake-2", *words, "--out", baked)
        toolhone(asked.out, "compare", base, baked, "--guard", "--margin", "2")


def experiments(scale: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The experiment files, in the order of their training."""
    start = "pico-trained"
    for number, rate in ((1, 0.005), (2, 0.006)):
        yield (
            f"reader-{number}",
            {
                "model": {"name": start},
                "data": {"path": f"reader-{number}.jsonl", "validation_fraction": 0.02},
                "training": {
                    **{"method": "sft", "steps": round(100 * scale), "batch_size": 12, **MUON},
                    **{"learning_rate": 0.8 * rate, "muon": {"learning_rate": rate}},
                    "schedule": {"warmup_steps": 5, "decay_share": 0.4},
                    "max_length": 1024,
                },
                "evaluation": EVALUATION,
            },
        )
        start = f"reader-{number}/checkpoints/final_checkpoint"
    teacher = start
    bakings = (
        ("bake", 70, 24, 0.003, {"full": 0.05, "names": 0.2, "none": 0.75}, 0.12, 1.0),
        ("bake-2", 100, 32, 0.005, {"none": 1}, 0.0625, 0.2),
    )
    for name, steps, size, rate, schedule, keep, samples in bakings:
        yield (
            name,
            {
                "model": {"name": start, "micro_batch_tokens": 16384},
                "tools": ["tools.json"],
                "data": {"path": "tasks.jsonl", "validation_fraction": 0.02},
                "training": {
                    **{"method": "distill", "steps": round(steps * scale), "batch_size": size},
                    **{**MUON, "learning_rate": rate, "muon": {"learning_rate": rate * 4 / 3}},
                    "schedule": {"warmup_steps": 5, "decay_share": 0.5},
                    "max_length": 1024,
                    "bake": {"schedule": schedule, "keep": keep},
                    "distill": {"teacher": teacher, "samples": samples},
                    "rl": {"group_size": 1, "max_completion_length": 40},
                },
                "evaluation": EVALUATION,
            },
        )
        start = f"{name}/checkpoints/final_checkpoint"


def write_data(out: Path, count: int, tasks: int) -> None:
    """Write tools.json, the rows of the two readers, tasks to bake with, and held-out tasks."""
    topics = [
        word
        for word in sorted(TextTokenizer.load(pico_folder(0)).wrapped.get_vocab())
        if re.fullmatch(r"[a-z]{3,}", word) and word not in fillers()
    ]
    random.Random(0).shuffle(topics)
    own, rest = topics[:count], topics[count:]
    known = make_tools(random.Random(1), count, own)
    (out / "tools.json").write_text(json.dumps([tool.to_dict() for tool in known]))
    for number, sizes in ((1, (2, 4, 8)), (2, (8, count))):
        rng = random.Random(100 + number)
        groups = (make_tools(rng, rng.choice(sizes), rest) for _ in range(1200))
        write_jsonl(out / f"reader-{number}.jsonl", (conversation(rng, each) for each in groups))
    rng = random.Random(11)
    rows = [task(rng, f"known-{i}", known, known) for i in range(640)]
    for i in range(213):  # other tools alone, so that the skill of reading stays
        others = make_tools(rng, rng.choice((1, 2, 4, 8)), rest)
        rows.append(task(rng, f"others-{i}", others, others))
    for i in range(106):  # a new tool or two beside the known ones
        others = make_tools(rng, rng.choice((1, 2)), rest)
        rows.append(task(rng, f"beside-{i}", [*known, *others], others))
    rng.shuffle(rows)
    write_jsonl(out / "tasks.jsonl", rows)
    rng = random.Random(12)
    held_out = (task(rng, f"known-{i}", known, known) for i in range(tasks))
    write_jsonl(out / "eval.jsonl", list(held_out))
    new = [make_tools(rng, 1, rest) for _ in range(min(200, tasks))]
    each = (task(rng, f"new-{i}", [*known, *own], own) for i, own in enumerate(new))
    write_jsonl(out / "new.jsonl", list(each))


def fillers() -> frozenset[str]:
    """Words of pico's own data that a request must not contain by chance."""
    text = (resources.files("toolhone.config.presets") / "pico.json").read_text("utf-8")
    return frozenset(re.findall(r"[a-z]+", text))


def make_tools(rng: random.Random, count: int, topics: list[str]) -> list[Tool]:
    tools = []
    for topic in rng.sample(topics, count):
        names = ["item", "city"] if rng.random() < 0.3 else ["item"]
        properties = {name: {"type": "string"} for name in names}
        schema = {"type": "object", "properties": properties, "required": names}
        tools.append(Tool(f"{topic}{rng.randrange(10, 100)}", "", schema))
    return tools


def request(rng: random.Random, tool: Tool) -> tuple[str, dict[str, Json]]:
    """What the user says, and the call that it asks for."""
    values = ["".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2)))) for _ in tool.properties]
    arguments = dict(zip(tool.properties, map(str.capitalize, values), strict=True))
    place = rng.randrange(len(REQUESTS))
    item = CITIES[place].join(map(str, arguments.values()))
    text = REQUESTS[place].format(topic=tool.name[:-2], item=item)
    return text, {"name": tool.name, "arguments": arguments}


def conversation(rng: random.Random, tools: list[Tool]) -> dict[str, Json]:
    messages: list[Json] = []
    for _ in range(ASKED):
        text, call = request(rng, rng.choice(tools))
        messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": "ok"},
        ]
    return {"messages": messages[:-1], "tools": [tool.to_dict() for tool in tools]}


def task(rng: random.Random, name: str, tools: list[Tool], asked: list[Tool]) -> dict[str, Json]:
    text, call = request(rng, rng.choice(asked))
    return {
        "id": name,
        "messages": [{"role": "user", "content": text}],
        "tools": [tool.to_dict() for tool in tools],
        "expect": {"calls": [call]},
        "category": name.partition("-")[0],
    }


def toolhone(folder: Path, *words: str) -> None:
    """Run and print one command in the folder; `compare` may find a difference (exit code 1)."""
    print("toolhone", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "toolhone", *words], cwd=folder, check=False)
    if done.returncode and words[0] != "compare":
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
