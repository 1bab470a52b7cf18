"""Options that several verbs share, and flags of `toolhone train` for people who come from other
trainers: each sets one key of the experiment.

    toolhone train --model Qwen/Qwen3-0.6B --data train.jsonl --train-type lora --iters 500

Fields of the experiment declare their flags (`config.fields.Flag`); `key=value` wins over flags."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option
from typer.core import TyperCommand

from toolhone.config.fields import Flag, marks_of, walk_fields
from toolhone.config.presets import preset_names
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError, nearest

AsJson = Annotated[bool, Option("--json", help="print one JSON object and nothing else")]
Checkpoint = Annotated[
    str | None, Option(help="a checkpoint of the run, by name [default: final_checkpoint]")
]
Constrained = Annotated[
    bool, Option("--constrained", help="sample only calls that the tools' schemas allow")
]
DialectName = Annotated[
    str | None,
    Option(help="write calls in this dialect on purpose: native, json, calls, tagged, bfcl"),
]
ExperimentName = Annotated[
    str | None,
    Argument(metavar="[EXPERIMENT.json|PRESET]", help="a file or a preset; none: all defaults"),
]
ModelName = Annotated[
    str,
    Argument(
        metavar="MODEL_OR_RUN",
        help="a run, a checkpoint, a model folder, a hub name, pico or pico-trained",
    ),
]
Overrides = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="e.g. model.dialect=json")
]


def with_options(
    overrides: list[str] | None, dialect: str | None, constrained: bool = False
) -> list[str]:
    """Return the overrides with those that `--dialect` and `--constrained` stand for."""
    keys = list(overrides or [])
    keys += [] if dialect is None else [f"model.dialect={dialect}"]
    return keys + (["evaluation.constrained=true"] if constrained else [])


class Kind(StrEnum):
    """How a flag takes its value; the text shows it in the help."""

    VALUE = "VALUE"
    TEXT = "TEXT"
    LIST = "A B ..."
    SWITCH = "[true|false]"


@dataclass(frozen=True)
class TrainFlag:
    """`names` on the command line, and the key that the value goes to."""

    names: tuple[str, ...]
    key: str
    help: str
    kind: Kind

    @property
    def slot(self) -> str:
        """The name under which the command line keeps the value."""
        return self.names[0].removeprefix("--").replace("-", "_")


def _read_flags() -> Iterator[TrainFlag]:
    """Yield a flag for each `Flag` that a field of the experiment declares."""
    yield TrainFlag(("--train",), "", "train (this verb does nothing else)", Kind.SWITCH)
    for key, declared, field in walk_fields(Experiment):
        options = (field.annotation, *typing.get_args(field.annotation))
        plain = {typing.get_args(each)[0] if marks_of(each) else each for each in options}
        kind = Kind.SWITCH if bool in plain else Kind.TEXT if str in plain else Kind.VALUE
        if typing.get_origin(field.annotation) is list:
            kind = Kind.LIST
        text = field.description or key.rpartition(".")[2].replace("_", " ")
        for mark in marks_of(declared):
            if isinstance(mark, Flag):
                yield TrainFlag(tuple(filter(None, (mark.name, mark.other))), key, text, kind)


FLAGS = tuple(_read_flags())
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_BY_NAME = {name: flag for flag in FLAGS for name in flag.names}
_OFF_IS_MINUS_ONE = ("lora_layers", "two_phase_samples_per_group")


class FlagCommand(TyperCommand):
    """A command that takes `FLAGS` besides its own options, and keeps them as text in the context's
    `meta["flags"]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*_BY_NAME, *(name for option in self.get_params(ctx) for name in option.opts)}
        for name in (word.partition("=")[0] for word in args):
            if name.startswith("--") and name not in known:
                raise ConfigError(
                    f"there is no option {name}{nearest(name, known)}; see toolhone train --help"
                )
        ctx.meta["flags"], left = split_flags(args)
        parsed: list[str] = super().parse_args(ctx, left)
        return parsed

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Flags, each another spelling of the key=value in brackets"):
            formatter.write_dl(
                (f"{', '.join(flag.names)} {flag.kind}", f"{flag.help} [{flag.key or 'no key'}]")
                for flag in FLAGS
            )


def split_flags(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the flags by slot, each value as text (a list as JSON), and the other arguments in
    their order.

    Lists take spaces or commas; switches stand alone or take a value."""
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
        is_value = _is_tool if flag.key == "tools" else _is_value
        values = [value] if sign else list(takewhile(is_value, left))
        if flag.kind is Kind.LIST:
            value = json.dumps(" ".join(values).replace(",", " ").split())
            left = left if sign else left[len(values) :]
        elif flag.kind is Kind.SWITCH and not values:
            value = "true"
        elif not sign and (not left or left[0].startswith("--")):
            raise ConfigError(f"{name} needs a value ({flag.help})")
        elif not sign:
            value = left.pop(0)
        given[flag.slot] = value
    return given, others


def _is_value(word: str) -> bool:
    """Return whether a word is neither a flag, an override nor an experiment."""
    is_experiment = word.endswith(".json") or word in preset_names()
    return not (word.startswith("--") or "=" in word or is_experiment)


def _is_tool(word: str) -> bool:
    """Return whether a word names tools: a file of tools and a built-in tool that is also a preset
    do, so an experiment stands before `--tools`."""
    tools = Experiment.model_fields["tools"].get_default(call_default_factory=True)
    return word in tools or word.endswith(".json") or _is_value(word)


def overrides_of(given: dict[str, str], guess_method: bool = True) -> list[str]:
    """Return the flags of a command line as `key=value` overrides, in the order of `FLAGS`.

    guess_method: a flag of reinforcement learning makes the method grpo, where no file, flag or
    override names one."""
    if given.get("train", "true").lower() in FALSE:
        raise ConfigError(
            "--train false: this verb only trains; to evaluate, use toolhone eval RUN"
        )
    flags = [flag for flag in FLAGS if flag.slot in given and flag.key]
    overrides = [f"{flag.key}={_value(flag, given[flag.slot])}" for flag in flags]
    numbers = [text for text in overrides if text.startswith("training.lora.")]
    if "training.lora=null" in overrides and numbers:
        raise ConfigError(f"--train-type full trains every weight; leave out {', '.join(numbers)}")
    is_rl = any(flag.key.startswith("training.rl.") for flag in flags)
    if guess_method and is_rl and "train_mode" not in given:
        overrides.insert(0, "training.method=grpo")
    return overrides


def _value(flag: TrainFlag, text: str) -> str:
    """Return the value of a flag as JSON, or as text that the override reads."""
    name = flag.names[0]
    if flag.kind is Kind.SWITCH:
        if text.lower() not in TRUE + FALSE:
            raise ConfigError(f"{name} is a switch: alone, or with true or false; got {text!r}")
        return json.dumps(text.lower() in TRUE)
    if flag.kind is Kind.LIST:
        values = json.loads(text)
        if not values:
            raise ConfigError(
                f"{name} needs at least one value, for example {name} a b, or {name} a,b"
            )
        return json.dumps(list(map(_number, values)) if "weights" in flag.key else values)
    if flag.kind is Kind.TEXT:
        return json.dumps(text)
    if flag.slot == "train_type":
        if text not in ("lora", "full"):
            raise ConfigError(f"--train-type is lora or full, got {text!r}")
        return "{}" if text == "lora" else "null"
    return "0" if text == "-1" and flag.slot in _OFF_IS_MINUS_ONE else text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def experiment_and_keys(
    context: Any, experiment: str | None, overrides: list[str] | None, config: str | None = None
) -> tuple[Path | None, list[str]]:
    """Return the file or preset, and all overrides: those of flags first, so that `key=value` wins.

    The first argument may be an experiment or an override; `config` is an experiment given as
    `--config`."""
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


def taking_several(flag: str) -> type[TyperCommand]:
    """Return a command that takes several values after one of this flag."""

    class SeveralCommand(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            spread: list[str] = []
            for previous, word in zip(["", *args], args, strict=False):
                follows = spread[-2:-1] == [flag] and previous != flag
                spread += [flag, word] if follows and not word.startswith("-") else [word]
            parsed: list[str] = super().parse_args(ctx, spread)
            return parsed

    return SeveralCommand
