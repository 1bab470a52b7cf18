"""What ships beside the code: experiment files by name, and the small data of templates and the
embedded model.

    preset_names()                       # ["calculator", "curriculum", ...]
    for_pico(read_preset("sft-json"))    # the preset in a size for the embedded model

A preset is an experiment file like any other; `$comment` describes it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from toolhone.schema.json_input import packaged_json, packaged_names

_FOLDER = "config/presets/experiments"
PICO, PICO_TRAINED = "pico", "pico-trained"
PICO_STEPS, PICO_ROWS, PICO_TOKENS, PICO_REPLY = 300, 2000, 1024, 96
"""Limits for pico, which trains in a minute or two: steps, generated rows, tokens of a row, tokens
of a reply.

pico's tokenizer knows its own chat markup, and spells other dialects in small pieces; hence the
long rows. """
PICO_DPO: Mapping[str, Any] = {
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-4,
    "rl": {"beta": 0.2, "dpo": {"rpo_alpha": 2.0}},
}
"""DPO of a pico after SFT (docs/algorithms/dpo.md); the numbers of large models hardly move it."""
PICO_ADAPTERS: Mapping[str, Any] = {"lora": {"rank": 32, "alpha": 32}, "learning_rate": 5e-3}
"""SFT of pico where only adapters can be trained (docs/log.md)."""
ONLY_ADAPTERS = frozenset({"tinker"})
"""Backends that train adapters alone."""
PICO_RECIPE: Mapping[str, Sequence[str]] = {
    "data": ("samples", "max_samples"),
    "training": (
        *("steps", "batch_size", "optimizer", "muon", "learning_rate", "schedule"),
        *("lora", "max_length"),
    ),
}
"""Settings of an experiment for pico that do not follow to another model."""
PICO_TOOLS = 2
"""Tools that a dialect other than pico's own may describe, so that its instructions leave room in
pico's context."""

_ABSENT = object()


@cache
def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(packaged_names(_FOLDER))


def preset_comment(name: str) -> str:
    """Return the line that describes a preset."""
    return str(packaged_json(f"{_FOLDER}/{name}.json").get("$comment", ""))


def read_preset(name: str) -> dict[str, Any]:
    """Return the plain values of a preset."""
    values = packaged_json(f"{_FOLDER}/{name}.json")
    return {key: value for key, value in values.items() if not key.startswith("$")}


def without_recipe(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return an experiment for pico without what was found for pico, and the keys left out."""
    result, left_out = dict(values), []
    for section, names in PICO_RECIPE.items():
        inner = values.get(section, {})
        result[section] = {key: value for key, value in inner.items() if key not in names}
        left_out += [f"{section}.{key}" for key in inner if key in names]
    return result, left_out


def for_pico(values: Mapping[str, Any], adapters: bool = False) -> dict[str, Any]:
    """Return a preset in a size for pico: fewer steps, rows and tokens, reports in proportion;
    every weight is trained.

    pico starts from random weights, on which adapters learn little; SFT takes the optimiser and
    the schedule of the demo. With `adapters`, steps, batches and optimiser are the preset's own."""
    training = dict(values.get("training", {}))
    method, steps = training.get("method", "sft"), training.get("steps")
    share = min(1.0, PICO_STEPS / steps) if steps and not adapters else 1.0

    def scaled(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
        numbers = {
            name: max(1, round(section[name] * share)) for name in names if section.get(name)
        }
        return {**section, **numbers}

    training = scaled(training, "steps", "log_every", "validate_every", "save_every")
    if steps is None:
        training["steps"] = PICO_STEPS
    training |= {"lora": None, "max_length": PICO_TOKENS}
    training.pop("gradient_checkpointing", None)
    if adapters:
        training |= PICO_ADAPTERS if method == "sft" else {"lora": PICO_ADAPTERS["lora"]}
    elif method in ("sft", "teacher_mode"):
        recipe = read_preset("demo")["training"]
        names = ("batch_size", "optimizer", "learning_rate", "muon", "schedule")
        training |= {name: recipe[name] for name in names}
    if method == "dpo" and not adapters:
        training |= PICO_DPO
    if rl := training.get("rl"):
        training["rl"] = rl = dict(rl)
        rl["max_completion_length"] = min(PICO_REPLY, rl.get("max_completion_length", PICO_REPLY))
        if "curriculum" in rl:
            rl["curriculum"] = scaled(rl["curriculum"], "steps")
        if phases := rl.get("reward", {}).get("phases"):
            rl["reward"] = {**rl["reward"], "phases": [scaled(each, "steps") for each in phases]}
    data = dict(values.get("data", {}))
    data |= {
        name: min(PICO_ROWS, data[name]) for name in ("samples", "max_samples") if name in data
    }
    model = {**values.get("model", {}), "name": PICO, "torch_dtype": "float32"}
    if model.get("dialect", "auto") != "auto":
        values = {**values, "tools": values["tools"][:PICO_TOOLS]}
    evaluation = {**values.get("evaluation", {}), "max_new_tokens": PICO_REPLY}
    return {**values, "model": model, "data": data, "training": training, "evaluation": evaluation}


def bfloat16_is_slow(device_map: object) -> bool:
    """Whether a model on this device computes on a processor without instructions for bfloat16."""
    import torch

    if device_map == "auto":
        on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    else:
        on_cpu = device_map == "cpu"
    return on_cpu and not processor_has_bfloat16()


def processor_has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; others take many times as long as in float32.

    torch's own question, `_is_mkldnn_bf16_supported`, is also true of AVX-512 without them.
    """
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
        return bool(torch._C._has_mkldnn and supported())
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Return every value that differs, as `training.steps 800 -> 300`."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if before == after:
        return []
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        shown = ("default" if one is _ABSENT else json.dumps(one) for one in (before, after))
        return [f"{key} {' -> '.join(shown)}"]
    places = {name: f"{key}.{name}" if key else str(name) for name in (*before, *after)}
    pairs = ((before.get(n, _ABSENT), after.get(n, _ABSENT), place) for n, place in places.items())
    return [line for pair in pairs for line in differences(*pair)]
