"""Keys of other systems: of the "LLM Tool Use Training Playground" and, where they mean the same,
of transformers' trainers.

    translate({"training": {"num_epochs": 3, "use_lora": True, "lora_r": 8}}, "the file", print)
    # {"training": {"epochs": 3, "lora": {"rank": 8}}}

A key without a meaning here is left out with a note; a key in both spellings is refused. The map is
in docs/coming-from.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from toolhone.config.fields import spell_out
from toolhone.errors import ConfigError
from toolhone.schema.json_input import packaged_json

Values = dict[str, Any]
_KEYS: Mapping[str, Mapping[str, str]] = packaged_json("config/presets/aliases.json")
MOVED = _KEYS["moved"]
"""Key of another system -> ours, both dotted."""
WITHOUT_MEANING = _KEYS["without_meaning"]
"""Key of another system -> why it has no effect."""
_ABSENT = object()
"""A key is not there; None is a value."""


def translate(values: Mapping[str, Any], where: str, tell: Callable[[str], None]) -> Values:
    """Return the values with every key in our words; note each key that was left out. The input
    does not change."""
    result: Values = _copy(values)
    _convert(result)
    tools = result.get("tools")
    if isinstance(tools, dict) and tools:  # by name
        result["tools"] = [
            {"name": name, **spec} if isinstance(spec, dict) else spec
            for name, spec in tools.items()
        ]
    elif tools == {}:
        del result["tools"]
        tell("tools is {}: the built-in tools calculator, python, weather and search are used")
    _convert_optim(result, tell)
    tokenizer, model = _take(result, "tokenizer.name"), result.get("model")
    model = model.get("name") if isinstance(model, dict) else model
    if tokenizer is not _ABSENT and tokenizer != model:  # naming the model's own is harmless
        whose = "" if model is None else f" ({model!r})"
        why = f"a model is used with its own tokenizer{whose}"
        tell(f"tokenizer.name {tokenizer!r} has no effect: {why}")
    for old, reason in WITHOUT_MEANING.items():
        if _take(result, old) is not _ABSENT:
            tell(f"{old} has no effect: {reason}")
    for old, new in MOVED.items():
        value = _take(result, old)
        if value is not _ABSENT:
            _put(result, new, value, f"{where}: both {old} and {new} are given; keep one")
    uses_lora = _take_switch(result, "training.use_lora")
    if uses_lora is False:  # trains every weight, whatever the settings of LoRA
        training = result.setdefault("training", {})
        lora, training["lora"] = training.get("lora"), None
        if isinstance(lora, dict):
            names = ", ".join(lora)
            tell(f"training.lora_* ({names}) has no effect: training.use_lora is false")
    elif uses_lora and result.setdefault("training", {}).setdefault("lora", {}) is None:
        raise ConfigError("training.use_lora is true, but training.lora is null; keep one")
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return list(map(_copy, value)) if isinstance(value, list) else value


def _take(values: Values, key: str) -> Any:
    """Remove and return the value of a dotted key, or `_ABSENT`; a section that becomes empty is
    removed too."""
    *parents, last = key.split(".")
    sections = [values]
    for parent in parents:
        inner = sections[-1].get(parent)
        if not isinstance(inner, dict):
            return _ABSENT
        sections.append(inner)
    value = sections[-1].pop(last, _ABSENT)
    if value is not _ABSENT and parents and not sections[-1]:
        del sections[-2][parents[-1]]
    return value


def _take_switch(values: Values, key: str) -> bool | None:
    value: bool | object = _take(values, key)
    if isinstance(value, bool):
        return value
    if value is not _ABSENT:
        raise ConfigError(f"{key} is true or false, got {value!r}")
    return None


def _put(values: Values, key: str, value: Any, both: str) -> None:
    """Set a dotted key; `both` is the error where it has a value already."""
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents, 1):
        inner = values.setdefault(parent, {})
        if isinstance(inner, str):
            inner = values[parent] = spell_out(parent, inner)
        if not isinstance(inner, dict):
            raise ConfigError(f"{both} ({'.'.join(parents[:depth])} is {inner!r})")
        values = inner
    if last in values:
        raise ConfigError(both)
    values[last] = value


def _convert(values: Values) -> None:
    """Turn the share to train on into the share held out, and switches into the value they mean."""
    share = _take(values, "data.train_split")
    if share is not _ABSENT:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            right = "the share of rows to train on, between 0 and 1"
            raise ConfigError(f"data.train_split is {right}; got {share!r}")
        both = "both data.train_split and data.validation_fraction are given; keep one"
        _put(values, "data.validation_fraction", round(1 - share, 10), both)
    fp16, bf16 = _take_switch(values, "training.fp16"), _take_switch(values, "training.bf16")
    if fp16 and bf16:
        raise ConfigError("training.fp16 and training.bf16 are both true; keep one")
    if fp16 or bf16:
        wanted, model = "float16" if fp16 else "bfloat16", values.setdefault("model", {})
        if isinstance(model, dict) and model.setdefault("torch_dtype", wanted) != wanted:
            raise ConfigError(
                f"model.torch_dtype is {model['torch_dtype']!r}, but a switch in training sets "
                f"{wanted}; keep one"
            )
    for switch in ("completion_only_loss", "assistant_only_loss"):
        if (only := _take_switch(values, f"training.{switch}")) is not None:
            both = f"both training.{switch} and training.loss_on are given; keep one"
            _put(values, "training.loss_on", "completion" if only else "all", both)
    adaptive = _take_switch(values, "training.adap_kl_ctrl")
    if adaptive is not None:
        both = "both training.adap_kl_ctrl and training.rl.ppo.kl_penalty are given; keep one"
        _put(values, "training.rl.ppo.kl_penalty", "adaptive" if adaptive else "fixed", both)


def _convert_optim(values: Values, tell: Callable[[str], None]) -> None:
    """Turn the optimizer's name in transformers into ours."""
    optim = _take(values, "training.optim")
    if optim is _ABSENT:
        return
    if not isinstance(optim, str) or not re.fullmatch(r"(paged_)?adamw(_\w+)?|muon", optim):
        right = "training.optimizer is adamw or muon"
        raise ConfigError(f"training.optim {optim!r} is not available; {right}")
    name = "muon" if optim == "muon" else "adamw"
    both = "both training.optim and training.optimizer are given; keep one"
    _put(values, "training.optimizer.name", name, both)
    if re.search(r"paged|bit", optim):
        tell(f"training.optim {optim!r}: AdamW runs with its state in float32 and unpaged")
