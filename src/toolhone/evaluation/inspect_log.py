"""Write an evaluation as a log of Inspect, which `inspect view` opens.

    path = write_inspect_log(evaluation, "runs/sft", Path("logs"))

The format is that of `inspect_ai.log.EvalLog`, version 2, as JSON; the package is not needed.
Messages before the last question are not in an evaluation, and so not in the log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.runs.run import plain, write_json, writing

VERSION = 2
STOPS = {"truncated": "max_tokens", "called": "tool_calls"}
"""Reasons to stop in Inspect's words, by how an episode ended; others are "stop"."""


def write_inspect_log(evaluation: Evaluation, model: str, folder: Path) -> Path:
    """Write the log into `folder` under a name that Inspect lists; return the file."""
    now = datetime.now(UTC)
    created = now.isoformat(timespec="seconds")
    content = plain(evaluation.to_dict())
    digest = hashlib.blake2b(json.dumps([created, model, content]).encode(), digest_size=11)
    identity = digest.hexdigest()
    ids = list(dict.fromkeys(sample.id for sample in evaluation.samples))
    epochs = {(sample.id, sample.seed): 0 for sample in evaluation.samples}
    for key in epochs:
        epochs[key] = 1 + sum(seed < key[1] for one, seed in epochs if one == key[0])
    scores = []
    for name, score in evaluation.metrics.items():
        if score.value is not None:
            values = {"mean": score.value, "low": score.low, "high": score.high}  # a 95 % interval
            metrics = {key: {"name": key, "value": value} for key, value in values.items()}
            named = {"name": name, "scorer": name, "scored_samples": score.n}
            scores.append({**named, "metrics": metrics})
    count = len(evaluation.samples)
    log = {
        "version": VERSION,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "task_id": identity,
            "task": "toolhone",
            "created": created,
            "dataset": {"name": "tasks", "samples": len(ids), "sample_ids": ids},
            "model": f"toolhone/{model}",
            "config": {"epochs": max(epochs.values(), default=1)},
        },
        "plan": {"name": "plan", "steps": []},
        "results": {"total_samples": count, "completed_samples": count, "scores": scores},
        "stats": {"started_at": created, "completed_at": created},
        "samples": [
            _sample(sample, model, epochs[sample.id, sample.seed]) for sample in evaluation.samples
        ],
    }
    path = folder / f"{now:%Y-%m-%dT%H-%M-%S+00-00}_toolhone_{identity}.json"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plain(log))
    return path


def _sample(sample: JudgedEpisode, model: str, epoch: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": sample.query, "source": "input"}]
    calls = list(sample.calls)
    turns: tuple[Mapping[str, Any], ...] = sample.turns
    for turn in turns or ({"text": sample.text, "calls": len(calls), "results": []},):
        own, calls = calls[: turn["calls"]], calls[turn["calls"] :]
        ids = [call.id or f"{sample.id}-{len(calls)}-{number}" for number, call in enumerate(own)]
        written = [
            {"id": key, "function": call.name, "arguments": dict(call.arguments)}
            for key, call in zip(ids, own, strict=True)
        ]
        message = {"role": "assistant", "content": turn["text"], "source": "generate"}
        messages.append({**message, "tool_calls": written} if written else message)
        for key, call, result in zip(ids, own, turn["results"], strict=False):
            answer = {"role": "tool", "tool_call_id": key, "function": call.name}
            messages.append({**answer, "content": result["content"]})
    last = next((one for one in reversed(messages) if one["role"] == "assistant"), None)
    last = last or {"role": "assistant", "content": ""}
    output = {
        "model": model,
        "choices": [{"message": last, "stop_reason": STOPS.get(sample.outcome, "stop")}],
    }
    explanation = "; ".join(sample.reasons)
    return {
        "id": sample.id,
        "epoch": epoch,
        "input": sample.query,
        "target": json.dumps(plain(sample.expected.to_dict()), ensure_ascii=False),
        "messages": messages,
        "output": output,
        "scores": {
            name: {"value": value, "answer": sample.text, "explanation": explanation}
            for name, value in sample.scores.items()
        },
        "metadata": {
            "category": sample.category,
            "outcome": sample.outcome,
            "seed": sample.seed,
            "rewards": dict(sample.rewards),
        },
    }
