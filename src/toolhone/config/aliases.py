"""Keys that people bring from other systems, in the words of this one.

    values, notes = translated({"training": {"num_epochs": 3, "use_lora": True, "lora_r": 8}})
    values                              # {"training": {"epochs": 3, "lora": {"rank": 8}}}

Keys of the "LLM Tool Use Training Playground" and, where they say the same, of transformers' trainers. A key that has no meaning
here is left out, and a note says why; a key given in both spellings is a mistake. `docs/coming-from.md` is the whole map.
Flags of the command line are in `cli/flags.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolhone.errors import ConfigError

Values = dict[str, Any]
Key = tuple[str, ...]

MOVED: dict[Key, Key] = {
    ("training", "num_epochs"): ("training", "epochs"),
    ("training", "num_train_epochs"): ("training", "epochs"),
    ("training", "max_steps"): ("training", "steps"),
    ("training", "per_device_train_batch_size"): ("training", "batch_size"),
    ("training", "gradient_checkpoint"): ("training", "gradient_checkpointing"),
    ("training", "warmup_steps"): ("training", "schedule", "warmup_steps"),
    ("training", "lr_scheduler_type"): ("training", "schedule", "shape"),
    ("training", "logging_steps"): ("training", "log_every"),
    ("training", "save_steps"): ("training", "save_every"),
    ("training", "eval_steps"): ("training", "validate_every"),
    ("training", "lora_r"): ("training", "lora", "rank"),
    ("training", "lora_alpha"): ("training", "lora", "alpha"),
    ("training", "lora_dropout"): ("training", "lora", "dropout"),
    ("training", "lora_target_modules"): ("training", "lora", "target_modules"),
    ("training", "mini_batch_size"): ("training", "rl", "mini_batch_size"),
    ("training", "ppo_epochs"): ("training", "rl", "inner_epochs"),
    ("training", "num_ppo_epochs"): ("training", "rl", "inner_epochs"),
    ("training", "cliprange"): ("training", "rl", "epsilon"),
    ("training", "kl_coef"): ("training", "rl", "beta"),
    ("training", "init_kl_coef"): ("training", "rl", "beta"),
    ("training", "target_kl"): ("training", "rl", "ppo", "target_kl"),
    ("training", "cliprange_value"): ("training", "rl", "ppo", "value_clip"),
    ("training", "gamma"): ("training", "rl", "ppo", "gamma"),
    ("training", "lam"): ("training", "rl", "ppo", "lam"),
    ("training", "dpo_beta"): ("training", "rl", "beta"),
    ("training", "beta"): ("training", "rl", "beta"),
    ("training", "rpo_alpha"): ("training", "rl", "dpo", "rpo_alpha"),
    ("training", "label_smoothing"): ("training", "rl", "dpo", "label_smoothing"),
    ("evaluation", "eval_steps"): ("training", "validate_every"),
    ("wandb",): ("tracking", "wandb"),
    ("tensorboard",): ("tracking", "tensorboard"),
    ("trackio",): ("tracking", "trackio"),
}

WITHOUT_MEANING: dict[Key, str] = {
    (
        "training",
        "eval_batch_size",
    ): "replies are generated in batches that fit model.micro_batch_tokens",
    (
        "training",
        "per_device_eval_batch_size",
    ): "replies are generated in batches that fit model.micro_batch_tokens",
    (
        "training",
        "tokenizer_padding_side",
    ): "padding never reaches the model's attention, so its side does not matter",
    ("training", "optim"): "training.optimizer is adamw or muon, in full precision",
    ("training", "adam_beta1"): "AdamW runs with betas 0.9, 0.95 and epsilon 1e-8",
    ("training", "adam_beta2"): "AdamW runs with betas 0.9, 0.95 and epsilon 1e-8",
    ("training", "adam_epsilon"): "AdamW runs with betas 0.9, 0.95 and epsilon 1e-8",
    (
        "training",
        "vf_coef",
    ): "the critic shares no weight with the policy, so its loss needs no weight",
    (
        "tokenizer",
        "padding_side",
    ): "padding never reaches the model's attention, so its side does not matter",
    ("tokenizer", "trust_remote_code"): "model.trust_remote_code speaks of the tokenizer too",
    ("tokenizer", "use_fast"): "tokenizers are always fast ones",
}


def translated(
    values: Mapping[str, Any], where: str = "the experiment"
) -> tuple[Values, list[str]]:
    """The values with every key in our words, and a note for each key that was left out. The input is not changed."""
    result, notes = _copied(values), list[str]()
    for change in _CHANGES:
        change(result, notes)
    for old, reason in WITHOUT_MEANING.items():
        if _take(result, old) is not _ABSENT:
            notes.append(f"{'.'.join(old)} has no effect: {reason}")
    for old, new in MOVED.items():
        value = _take(result, old)
        if value is not _ABSENT:
            _put(
                result,
                new,
                value,
                f"{where}: both {'.'.join(old)} and {'.'.join(new)} are given; keep one",
            )
    _without_lora(result, notes)
    return result, notes


class _Absent:
    """Says that a key is not there; None is a value."""


_ABSENT = _Absent()


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value


def _take(values: Values, key: Key) -> Any:
    """Remove and return what stands at a key; a section that becomes empty by that goes too."""
    *parents, last = key
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


def _put(values: Values, key: Key, value: Any, both: str) -> None:
    *parents, last = key
    for depth, parent in enumerate(parents):
        inner = values.setdefault(parent, {})
        if parent == "schedule" and isinstance(inner, str):
            inner = values[parent] = {"shape": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"{both} ({'.'.join(key[: depth + 1])} is {inner!r})")
        values = inner
    if last in values:
        raise ConfigError(both)
    values[last] = value


def _train_split(values: Values, notes: list[str]) -> None:  # noqa: ARG001 (every change has this form)
    """A share to train on becomes the share that is held out."""
    share = _take(values, ("data", "train_split"))
    if share is _ABSENT:
        return
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigError(
            f"data.train_split is the share of rows to train on, between 0 and 1; got {share!r}"
        )
    both = "both data.train_split and data.validation_fraction are given; keep one"
    _put(values, ("data", "validation_fraction"), round(1 - share, 10), both)


def _precision(values: Values, notes: list[str]) -> None:  # noqa: ARG001
    """The switches `fp16` and `bf16`."""
    switches = {switch: _take(values, ("training", switch)) for switch in ("fp16", "bf16")}
    for switch, on in switches.items():
        if on is not _ABSENT and not isinstance(on, bool):
            raise ConfigError(f"training.{switch} is true or false, got {on!r}")
    wanted = [
        dtype
        for switch, dtype in (("fp16", "float16"), ("bf16", "bfloat16"))
        if switches[switch] is True
    ]
    if len(wanted) == 2:
        raise ConfigError("training.fp16 and training.bf16 are both true; keep one")
    model = values.setdefault("model", {}) if wanted else None
    if not isinstance(model, dict):
        return
    if model.setdefault("torch_dtype", wanted[0]) != wanted[0]:
        raise ConfigError(
            f"model.torch_dtype is {model['torch_dtype']!r}, but a switch in training asks for {wanted[0]}; keep one"
        )


def _kl_control(values: Values, notes: list[str]) -> None:  # noqa: ARG001
    """The switch `adap_kl_ctrl`."""
    wanted = _take(values, ("training", "adap_kl_ctrl"))
    if wanted is _ABSENT:
        return
    if not isinstance(wanted, bool):
        raise ConfigError(f"training.adap_kl_ctrl is true or false, got {wanted!r}")
    both = "both training.adap_kl_ctrl and training.rl.ppo.kl_penalty are given; keep one"
    _put(values, ("training", "rl", "ppo", "kl_penalty"), "adaptive" if wanted else "fixed", both)


def _tokenizer(values: Values, notes: list[str]) -> None:
    """A tokenizer is the model's own; naming the model's is harmless."""
    name = _take(values, ("tokenizer", "name"))
    if name is _ABSENT:
        return
    section = values.get("model")
    model = section.get("name") if isinstance(section, dict) else section
    if name != model:
        whose = "" if model is None else f" ({model!r})"
        notes.append(
            f"tokenizer.name {name!r} has no effect: a model is used with its own tokenizer{whose}"
        )


_CHANGES: tuple[Callable[[Values, list[str]], None], ...] = (
    _train_split,
    _precision,
    _kl_control,
    _tokenizer,
)


def _without_lora(values: Values, notes: list[str]) -> None:
    """`use_lora: false` trains every weight, whatever LoRA settings stand beside it; `true` asks for adapters."""
    wanted = _take(values, ("training", "use_lora"))
    if wanted is _ABSENT:
        return
    if not isinstance(wanted, bool):
        raise ConfigError(f"training.use_lora is true or false, got {wanted!r}")
    training = values.setdefault("training", {})
    if wanted:
        if training.setdefault("lora", {}) is None:
            raise ConfigError("training.use_lora is true, but training.lora is null; keep one")
        return
    if isinstance(training.get("lora"), dict):
        notes.append(
            f"training.lora_* ({', '.join(training['lora'])}) has no effect: training.use_lora is false"
        )
    training["lora"] = None
