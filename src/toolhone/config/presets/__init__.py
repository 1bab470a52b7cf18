"""What ships beside the code: experiment files by name, and the small data that questions and the embedded model are made from.

    preset_names()                       # ["calculator", "curriculum", ...]
    read_preset("sft-json")              # the plain values of presets/experiments/sft-json.json
    for_pico(read_preset("sft-json"))    # the same experiment in a size for the embedded model

A preset is an experiment file like any other; `$comment` says what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

PICO = "pico"
PICO_STEPS, PICO_ROWS, PICO_TOKENS, PICO_REPLY = 300, 2000, 1024, 96
"""A training of pico is a matter of a minute or two: at most so many steps, rows made and tokens in a reply.

Rows may have up to `PICO_TOKENS`: pico's tokenizer knows its own chat markup, and spells other dialects in small pieces.
"""
PICO_DPO: Mapping[str, Any] = {
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-4,
    "rl": {"beta": 0.2, "dpo": {"rpo_alpha": 2.0}},
}
"""What DPO of a pico that SFT has taught learns with (docs/algorithms/dpo.md); the numbers of large models hardly move it."""
PICO_TOOLS = 2
"""Tools that a dialect other than pico's own may describe, so that its instructions leave room in pico's context."""


@cache
def preset_names() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    folder = resources.files("toolhone.config.presets") / "experiments"
    return tuple(
        sorted(
            path.name.removesuffix(".json")
            for path in folder.iterdir()
            if path.name.endswith(".json")
        )
    )


def preset_comment(name: str) -> str:
    """What a preset is for, in a line."""
    return str(_parsed(name).get("$comment", ""))


def read_preset(name: str) -> dict[str, Any]:
    """The plain values of a preset."""
    return {key: value for key, value in _parsed(name).items() if not key.startswith("$")}


def _parsed(name: str) -> dict[str, Any]:
    text = (resources.files("toolhone.config.presets") / "experiments" / f"{name}.json").read_text(
        encoding="utf-8"
    )
    values: dict[str, Any] = json.loads(text)
    return values


def for_pico(values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset in a size for pico: fewer steps, rows and tokens, reports as often in proportion; every weight is trained.

    pico begins with random weights, so SFT takes over the optimiser and the course of the learning rate of the demo, which were
    found for it; adapters on random weights would learn nothing.
    """
    training = dict(values.get("training", {}))
    steps = training.get("steps")
    share = min(1.0, PICO_STEPS / steps) if steps else 1.0
    for name in ("steps", "log_every", "validate_every", "save_every"):
        if training.get(name):
            training[name] = _fewer(training[name], share)
    if steps is None:
        training["steps"] = PICO_STEPS
    training |= {"lora": None, "gradient_checkpointing": False, "max_length": PICO_TOKENS}
    if training.get("method", "sft") == "sft":
        demo = read_preset("demo")["training"]
        training |= {
            name: demo[name]
            for name in ("batch_size", "optimizer", "learning_rate", "muon", "schedule")
        }
    if training.get("method") == "dpo":
        training |= PICO_DPO
    if "rl" in training:
        reply = min(PICO_REPLY, training["rl"].get("max_completion_length", PICO_REPLY))
        training["rl"] = {**_scaled(training["rl"], share), "max_completion_length": reply}
    data = dict(values.get("data", {}))
    for name in ("samples", "max_samples"):
        if name in data:
            data[name] = min(PICO_ROWS, data[name])
    model = {**values.get("model", {}), "name": PICO, "torch_dtype": "float32"}
    if model.get("dialect", "auto") != "auto":
        values = {**values, "tools": values["tools"][:PICO_TOOLS]}
    evaluation = {**values.get("evaluation", {}), "max_new_tokens": PICO_REPLY}
    return {**values, "model": model, "data": data, "training": training, "evaluation": evaluation}


def _scaled(rl: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The lengths of phases and of a curriculum in proportion."""
    result = dict(rl)
    if "curriculum" in rl:
        result["curriculum"] = {
            **rl["curriculum"],
            "steps": _fewer(rl["curriculum"]["steps"], share),
        }
    phases = rl.get("reward", {}).get("phases", [])
    if phases:
        result["reward"] = {
            **rl["reward"],
            "phases": [{**phase, "steps": _fewer(phase["steps"], share)} for phase in phases],
        }
    return result


def _fewer(steps: int, share: float) -> int:
    return max(1, round(steps * share))
