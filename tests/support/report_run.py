"""A run folder with logs, validations, training episodes and two evaluations, as a report reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.schema import Expect, ToolCall

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
SEARCH = {"calls": [{"name": "search", "arguments": {"query": "owls", "limit": 5}}]}


def judged(number: int, *, right: bool, text: str = "ok") -> JudgedEpisode:
    """A task of one of two categories: a wrong one calls another tool, or has a wrong argument."""
    if number % 2:
        arguments = {"query": "owls" if right else "cats", "limit": 5}
        calls = (ToolCall("search", arguments),)
    else:
        calls = (ToolCall("search" if right else "weather", {"query": "owls", "limit": 5}),)
    return JudgedEpisode(
        id=f"task-{number}",
        category=("odd" if number % 2 else "even"),
        seed=0,
        query=f"question {number}",
        text=text,
        calls=calls,
        expected=Expect.from_dict(SEARCH),
        outcome="answered",
        scores={"exact_match": float(right), "valid_format": 1.0},
        reasons=() if right else ("not wanted: weather()",),
        turns=({"text": text, "calls": 1, "results": [{"outcome": "ok", "content": "found"}]},),
    )


def training_episode(step: int, text: str = "Hi") -> dict[str, Any]:
    prompt = {"origin": "prompt", "text": "Q: ", "ids": [1, 2], "ends": [1, 3], "tokens": 2}
    reply = {"origin": "sampled", "text": text, "ids": [3, 4], "ends": [1, len(text)], "tokens": 2}
    pieces = [{**prompt, "trained": False}, {**reply, "trained": True, "advantage": -0.5}]
    record = {"kind": "episode", "reward": 0.25, "parts": {"form": -0.25, "tools": 0.5}}
    return {"step": step, **judged(1, right=False, text=text).to_dict(), **record, "pieces": pieces}


def write_run(folder: Path, tasks: int = 40, text: str = "ok") -> Path:
    """Before, every third task is correct; after, all but every fourth."""
    folder.mkdir(parents=True)
    plan = {"model": {"name": text}, "training": {"method": "grpo"}, "seed": 3}
    (folder / "experiment.json").write_text(json.dumps(plan))
    train = [
        {"step": n, "kind": "train", "reward": n / 60, "loss": 1 / n, "seconds": n}
        for n in range(1, 51)
    ]
    validations = [
        {"step": step, "kind": "validation", "exact_match": (step == 50) * 0.5} for step in (25, 50)
    ]
    write_lines(folder / "metrics.jsonl", [*train, *validations])
    samples = [
        {"step": step, **judged(n, right=step == 50 and n > 1).to_dict()}
        for step in (25, 50)
        for n in range(4)
    ]
    write_lines(folder / "samples.jsonl", [*samples, *(training_episode(n) for n in (10, 20))])
    for name, right in (("base", lambda n: n % 3 == 0), ("tuned", lambda n: n % 4 != 0)):
        episodes = tuple(judged(n, right=right(n), text=text) for n in range(tasks))
        write_folder(Evaluation(episodes), folder / "evaluation" / name)
    return folder


def write_lines(path: Path, records: list[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
