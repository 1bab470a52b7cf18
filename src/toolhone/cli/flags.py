"""Flags of `toolhone train` for people who come from other trainers: each is another spelling of a `key=value` override.

    toolhone train --model Qwen/Qwen3-0.6B --data train.jsonl --train --train-type lora --iters 500 --lora-rank 32

Lists may be written with spaces or with commas (`--reward-weights 0.3 0.7`, `--reward-weights 0.3,0.7`), switches alone or with a
value (`--grad-checkpoint`, `--grad-checkpoint true`). A flag of reinforcement learning sets `training.method` to grpo where no
experiment is named and no method. Overrides given as `key=value` win over flags. What each became is in the resolved experiment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from toolhone.config.presets import preset_names
from toolhone.errors import ConfigError, nearest


class Kind(StrEnum):
    VALUE = "value"
    TEXT = "text"
    LIST = "list"
    SWITCH = "switch"


@dataclass(frozen=True)
class Flag:
    """`names` on the command line, and the key that the value goes to; `rl` marks what only reinforcement learning uses."""

    names: tuple[str, ...]
    key: str
    help: str
    kind: Kind = Kind.VALUE
    rl: bool = False

    @property
    def slot(self) -> str:
        """The name under which the command line keeps the value."""
        return self.names[0].removeprefix("--").replace("-", "_")


def _rl(name: str, key: str, help: str, kind: Kind = Kind.VALUE, *more: str) -> Flag:
    return Flag((name, *more), f"training.rl.{key}", help, kind, rl=True)


FLAGS = (
    Flag(("--model",), "model.name", "'pico', a model folder, or a name on the hub", Kind.TEXT),
    Flag(("--data",), "data.path", "the training file", Kind.TEXT),
    Flag(("--train",), "", "train (this verb does nothing else)", Kind.SWITCH),
    Flag(("--train-type",), "training.lora", "lora, or full for every weight"),
    Flag(("--train-mode", "--method"), "training.method", "sft, dpo, ppo, grpo or teacher_mode"),
    Flag(("--iters",), "training.steps", "optimiser steps"),
    Flag(("--batch-size",), "training.batch_size", "conversations (in RL: tasks) in a batch"),
    Flag(("--learning-rate",), "training.learning_rate", "full learning rate"),
    Flag(
        ("--grad-checkpoint",),
        "training.gradient_checkpointing",
        "recompute activations: less memory, slower",
        Kind.SWITCH,
    ),
    Flag(
        ("--lora-layers", "--num-layers"),
        "training.lora.last_layers",
        "only the last N decoder layers; -1 or 0: all",
    ),
    Flag(("--lora-rank",), "training.lora.rank", "rank of the adapters"),
    Flag(("--lora-alpha",), "training.lora.alpha", "scale of the adapters is alpha / rank"),
    Flag(("--lora-dropout",), "training.lora.dropout", "dropout of the adapters while training"),
    Flag(("--max-seq-length",), "training.max_length", "longest row in tokens"),
    Flag(("--save-every",), "training.save_every", "steps between checkpoints"),
    Flag(("--steps-per-report",), "training.log_every", "steps between reports"),
    Flag(("--steps-per-eval",), "training.validate_every", "steps between validations"),
    Flag(("--seed",), "seed", "of data order, weights and sampling"),
    Flag(
        ("--wandb-project", "--wandb"),
        "tracking.wandb.project",
        "log to this project of Weights & Biases",
        Kind.TEXT,
    ),
    _rl("--group-size", "group_size", "episodes of one task"),
    _rl("--max-completion-length", "max_completion_length", "tokens of one reply"),
    _rl("--temperature", "temperature", "of sampling"),
    _rl("--beta", "beta", "weight of the KL to the reference"),
    _rl("--epsilon", "epsilon", "lower clip of the ratio"),
    _rl("--epsilon-high", "epsilon_high", "upper clip of the ratio"),
    _rl(
        "--reward-functions", "reward.functions", "names of rewards, or file.py:function", Kind.LIST
    ),
    _rl("--reward-weights", "reward.weights", "one weight for each reward", Kind.LIST),
    _rl(
        "--curriculum-enabled",
        "curriculum.enabled",
        "give a part of the answer, less and less",
        Kind.SWITCH,
    ),
    _rl(
        "--curriculum-start-ratio",
        "curriculum.start_ratio",
        "share of the answer given at the start",
    ),
    _rl("--curriculum-end-ratio", "curriculum.end_ratio", "share of the answer given in the end"),
    _rl(
        "--curriculum-steps",
        "curriculum.steps",
        "steps from start to end",
        Kind.VALUE,
        "--curriculum-taper-iters",
    ),
    _rl("--enforce-thinking", "enforce_thinking", "a reply must begin with a thought", Kind.SWITCH),
    _rl(
        "--two-phase-samples-per-group",
        "two_phase_samples_per_group",
        "replies continued after a failed first try; -1: off",
    ),
)
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_BY_NAME = {name: flag for flag in FLAGS for name in flag.names}


class FlagCommand(TyperCommand):
    """A command that takes `FLAGS` besides its own options; what was given, as text, is in the context's `meta["flags"]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [_with_dashes(word) for word in args]
        known = {*_BY_NAME, *(name for option in self.get_params(ctx) for name in option.opts)}
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                raise ConfigError(
                    f"there is no option {name}{nearest(name, known)}; see toolhone train --help"
                )
        given, left = split_flags(words)
        ctx.meta["flags"] = given
        parsed: list[str] = super().parse_args(ctx, left)
        return parsed

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        shape = {
            Kind.LIST: " A B ...",
            Kind.SWITCH: " [true|false]",
            Kind.VALUE: " VALUE",
            Kind.TEXT: " TEXT",
        }
        with formatter.section("Flags, each another spelling of the key=value in brackets"):
            formatter.write_dl(
                [
                    (
                        ", ".join(flag.names) + shape[flag.kind],
                        f"{flag.help} [{flag.key or 'no key'}]",
                    )
                    for flag in FLAGS
                ]
            )


def _with_dashes(word: str) -> str:
    """`--lora_rank=4` as `--lora-rank=4`: both spellings are in use."""
    name, sign, value = word.partition("=")
    return f"{name.replace('_', '-')}{sign}{value}" if name.startswith("--") else word


def split_flags(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The flags of `FLAGS` by slot, each value as text (a list as JSON), and the other arguments in their order."""
    left, others = list(args), list[str]()
    given: dict[str, str] = {}
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        flag = _BY_NAME.get(name)
        if flag is None:
            others.append(word)
            continue
        if flag.slot in given:
            raise ConfigError(f"{name} is given twice; give it once")
        given[flag.slot] = (
            value
            if sign and flag.kind is not Kind.LIST
            else _value(flag, name, [value] if sign else left, bool(sign))
        )
    return given, others


def _value(flag: Flag, name: str, left: list[str], closed: bool) -> str:
    """Take the value of a flag from the words that follow it; `closed` means that they all belong to it."""
    if flag.kind is Kind.SWITCH:
        return (
            left.pop(0)
            if left and not left[0].startswith("--") and not _is_override(left[0])
            else "true"
        )
    if flag.kind in (Kind.VALUE, Kind.TEXT):
        if not left or left[0].startswith("--"):
            raise ConfigError(f"{name} needs a value ({flag.help})")
        return left.pop(0)
    words = []
    while left and (closed or not (left[0].startswith("--") or _is_override(left[0]))):
        words.append(left.pop(0))
    return json.dumps([part for text in words for part in text.replace(",", " ").split()])


def _is_override(word: str) -> bool:
    return "=" in word or word.endswith(".json") or word in preset_names()


def overrides_of(given: dict[str, str], guess_method: bool = True) -> list[str]:
    """The flags of a command line as `key=value` overrides, in the order of the table.

    guess_method: a flag of reinforcement learning makes the method grpo, where no file, flag or override names one.
    """
    flags = [flag for flag in FLAGS if flag.slot in given]
    for flag in flags:
        if flag.slot == "train" and given["train"].lower() in FALSE:
            raise ConfigError(
                "--train false: this verb only trains; to evaluate, use toolhone eval RUN"
            )
    wanted = [_override(flag, given[flag.slot]) for flag in flags if flag.key]
    if guess_method and any(flag.rl for flag in flags) and "train_mode" not in given:
        wanted.insert(0, "training.method=grpo")
    return _lora_first(wanted)


def _lora_first(overrides: Sequence[str]) -> list[str]:
    """`training.lora=...` before the numbers in it; with `full` the numbers have no meaning."""
    lora = [text for text in overrides if text.startswith("training.lora=")]
    numbers = [text for text in overrides if text.startswith("training.lora.")]
    if lora == ["training.lora=null"] and numbers:
        raise ConfigError(f"--train-type full trains every weight; leave out {', '.join(numbers)}")
    return [*lora, *(text for text in overrides if text not in lora)]


def _override(flag: Flag, text: str) -> str:
    name = flag.names[0]
    if flag.kind is Kind.SWITCH:
        if text.lower() not in TRUE + FALSE:
            raise ConfigError(f"{name} is a switch: alone, or with true or false; got {text!r}")
        return f"{flag.key}={json.dumps(text.lower() in TRUE)}"
    if flag.kind is Kind.LIST:
        values = json.loads(text)
        if not values:
            raise ConfigError(
                f"{name} needs at least one value, for example {name} a b, or {name} a,b"
            )
        return f"{flag.key}={json.dumps([_number(value) for value in values] if 'weights' in flag.key else values)}"
    if flag.kind is Kind.TEXT:
        return f"{flag.key}={json.dumps(text)}"
    if flag.slot == "train_type":
        if text not in ("lora", "full"):
            raise ConfigError(f"--train-type is lora or full, got {text!r}")
        return "training.lora={}" if text == "lora" else "training.lora=null"
    if flag.slot in ("lora_layers", "two_phase_samples_per_group") and text == "-1":
        text = "0"
    return f"{flag.key}={text}"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def experiment_and_keys(
    context: Any, experiment: str | None, overrides: list[str] | None, config: str | None = None
) -> tuple[Path | None, list[str]]:
    """Return the file or preset, and all overrides: those of flags first, so that `key=value` wins.

    The first argument may be an experiment or an override; `config` is an experiment given as `--config`.
    """
    keys = list(overrides or [])
    if experiment is not None and re.match(r"[\w.]+=", experiment):
        keys, experiment = [experiment, *keys], None
    if experiment is not None and config is not None:
        raise ConfigError(
            f"two experiments are given, {experiment} and --config {config}; keep one"
        )
    chosen = experiment or config
    named = chosen is not None or any(key.startswith("training.method=") for key in keys)
    flags = overrides_of(context.meta.get("flags", {}), guess_method=not named)
    return (None if chosen is None else Path(chosen)), [*flags, *keys]
