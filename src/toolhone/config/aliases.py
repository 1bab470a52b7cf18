"""Keys of other systems: of the "LLM Tool Use Training Playground" and, where they mean the same,
of transformers' trainers.

    values, notes = translated({"training": {"num_epochs": 3, "use_lora": True, "lora_r": 8}})
    values                              # {"training": {"epochs": 3, "lora": {"rank": 8}}}

A key without a meaning here is left out with a note; a key in both spellings is refused. The map is
in docs/coming-from.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolhone.config.fields import Alias, marks_of, walk_fields
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError

Values = dict[str, Any]
MOVED: dict[str, str] = {
    mark.key: key
    for key, kind, _ in walk_fields(Experiment)
    for mark in marks_of(kind)
    if isinstance(mark, Alias)
}
"""Key of another system -> ours, both dotted; declared at the fields."""
_BATCHES = "replies are generated in batches that fit model.micro_batch_tokens"
_PADDING = "padding never reaches the model's attention"
_ADAM = "AdamW runs with betas 0.9, 0.95 and epsilon 1e-8"
WITHOUT_MEANING = {
    "training.eval_batch_size": _BATCHES,
    "training.per_device_eval_batch_size": _BATCHES,
    "training.tokenizer_padding_side": _PADDING,
    "training.optim": "training.optimizer is adamw or muon, in full precision",
    "training.adam_beta1": _ADAM,
    "training.adam_beta2": _ADAM,
    "training.adam_epsilon": _ADAM,
    "training.vf_coef": "the critic shares no weight with the policy, so its loss needs no weight",
    "tokenizer.padding_side": _PADDING,
    "tokenizer.trust_remote_code": "model.trust_remote_code covers the tokenizer too",
    "tokenizer.use_fast": "tokenizers are always fast ones",
}
_ABSENT = object()
"""A key is not there; None is a value."""


def translated(
    values: Mapping[str, Any], where: str = "the experiment"
) -> tuple[Values, list[str]]:
    """Return the values with every key in our words, and a note for each key that was left out. The
    input does not change."""
    result, notes = _copy(values), list[str]()
    _translate_train_split(result)
    _translate_precision(result)
    adaptive = _take_switch(result, "training.adap_kl_ctrl")
    if adaptive is not None:
        both = "both training.adap_kl_ctrl and training.rl.ppo.kl_penalty are given; keep one"
        _put(result, "training.rl.ppo.kl_penalty", "adaptive" if adaptive else "fixed", both)
    notes += _translate_tokenizer(result)
    for old, reason in WITHOUT_MEANING.items():
        if _take(result, old) is not _ABSENT:
            notes.append(f"{old} has no effect: {reason}")
    for old, new in MOVED.items():
        value = _take(result, old)
        if value is not _ABSENT:
            _put(result, new, value, f"{where}: both {old} and {new} are given; keep one")
    notes += _translate_use_lora(result)
    return result, notes


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
    value = _take(values, key)
    if value is _ABSENT:
        return None
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is true or false, got {value!r}")
    return value


def _put(values: Values, key: str, value: Any, both: str) -> None:
    """Set a dotted key; `both` is the error where it has a value already."""
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents, 1):
        inner = values.setdefault(parent, {})
        if parent == "schedule" and isinstance(inner, str):
            inner = values[parent] = {"shape": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"{both} ({'.'.join(parents[:depth])} is {inner!r})")
        values = inner
    if last in values:
        raise ConfigError(both)
    values[last] = value


def _translate_train_split(values: Values) -> None:
    """Turn the share to train on into the share that is held out."""
    share = _take(values, "data.train_split")
    if share is _ABSENT:
        return
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigError(
            f"data.train_split is the share of rows to train on, between 0 and 1; got {share!r}"
        )
    both = "both data.train_split and data.validation_fraction are given; keep one"
    _put(values, "data.validation_fraction", round(1 - share, 10), both)


def _translate_precision(values: Values) -> None:
    """Turn the switches `fp16` and `bf16` into `model.torch_dtype`."""
    fp16, bf16 = _take_switch(values, "training.fp16"), _take_switch(values, "training.bf16")
    if fp16 and bf16:
        raise ConfigError("training.fp16 and training.bf16 are both true; keep one")
    if not fp16 and not bf16:
        return
    wanted, model = "float16" if fp16 else "bfloat16", values.setdefault("model", {})
    if isinstance(model, dict) and model.setdefault("torch_dtype", wanted) != wanted:
        raise ConfigError(
            f"model.torch_dtype is {model['torch_dtype']!r}, but a switch in training sets "
            f"{wanted}; keep one"
        )


def _translate_tokenizer(values: Values) -> list[str]:
    """Note a tokenizer that is not the model's own; naming the model's is harmless."""
    name, section = _take(values, "tokenizer.name"), values.get("model")
    model = section.get("name") if isinstance(section, dict) else section
    if name is _ABSENT or name == model:
        return []
    whose = "" if model is None else f" ({model!r})"
    note = f"tokenizer.name {name!r} has no effect: a model is used with its own tokenizer{whose}"
    return [note]


def _translate_use_lora(values: Values) -> list[str]:
    """Train every weight with `use_lora: false`, whatever the LoRA settings; add adapters with
    `true`."""
    wanted = _take_switch(values, "training.use_lora")
    if wanted is None:
        return []
    training = values.setdefault("training", {})
    if wanted:
        if training.setdefault("lora", {}) is None:
            raise ConfigError("training.use_lora is true, but training.lora is null; keep one")
        return []
    lora, training["lora"] = training.get("lora"), None
    if not isinstance(lora, dict):
        return []
    return [f"training.lora_* ({', '.join(lora)}) has no effect: training.use_lora is false"]
