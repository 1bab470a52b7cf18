"""The experiment file: one JSON object that describes a run, with defaults that are right for a beginner.

    experiment = load_experiment(Path("sft.json"), ["training.steps=100", "model.name=pico"])

Sections `model, tools, data, training, evaluation, tracking, seed`. Overrides are `key=value` with dotted keys; the value is JSON,
or else text. An unknown key stops with the nearest known name and the place. Paths in a file are relative to that file, paths in
overrides to the working folder. Nothing here opens a model or a data file.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from toolhone.errors import ConfigError, nearest

PATH_KEYS = (("data", "path"), ("data", "validation"), ("evaluation", "tasks"), ("model", "adapter"))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which model, in which precision, writing calls in which dialect."""

    name: str = Field("pico", description="'pico' (embedded, no network), a model folder, or a name on the hub")
    adapter: str | None = Field(None, description="start from this LoRA folder (a checkpoint of a run, or any PEFT folder)")
    torch_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of arithmetic; weights that learn are float32"
    )
    device_map: str | dict[str, Any] = Field(
        "auto", description="'auto', a device such as 'cpu' or 'cuda:1', or a map for accelerate"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    dialect: str = Field("auto", description="how calls are written: auto (the model's own way), json, calls or tagged")
    markup: str = Field("auto", description="the chat markup around json, calls, tagged: auto, template, chatml or plain")
    micro_batch_tokens: int = Field(8192, gt=0, description="padded tokens in one forward pass; lower it when memory runs out")


class DataSection(Section):
    """What to train on, and what to hold out."""

    path: str | None = Field(None, description="training file; none: conversations are made from templates")
    format: str = Field("auto", description="auto, messages, gsm8k or seal_tools")
    samples: int = Field(4000, gt=0, description="how many conversations to make when there is no file")
    max_samples: int | None = Field(None, gt=0, description="use at most this many conversations of the file")
    validation: str | None = Field(
        None, description="validation file in the same format; none: a part of the training file is held out"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training file that is held out")
    split: Literal["hash", "tools"] = Field("hash", description="hold out by hash, or so that no held-out tool is ever trained on")
    style: Literal["calls", "short"] | None = Field(
        None, description="gsm8k: keep the text beside a call (calls), or drop it (short)"
    )
    distractors: int | None = Field(None, ge=0, description="seal_tools: how many other tools to offer [4]")
    too_long: Literal["drop", "error"] = Field("drop", description="rows longer than training.max_length: drop and count, or stop")


class LoraSection(Section):
    """Low-rank adapters; `training.lora: null` trains every weight."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    last_layers: int = Field(0, ge=0, description="only the last N decoder layers; 0 means all")
    target_modules: list[str] = Field(default_factory=list, description="names of linear layers; empty means all but the head")


class MuonSection(Section):
    """Numbers of Muon, used on matrices when `training.optimizer` is muon."""

    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)


class ScheduleSection(Section):
    """The course of the learning rate: warm-up, then constant until the last `decay_share` of the steps, then down to 0."""

    shape: Literal["linear", "cosine", "constant"] = Field("linear", description="form of the decay")
    warmup_steps: int = Field(10, ge=0)
    decay_share: float = Field(1.0, ge=0, le=1, description="share of the steps after warm-up in which the rate falls")


def _shape_alone(value: Any) -> Any:
    return {"shape": value} if isinstance(value, str) else value


class TrainingSection(Section):
    """How to train. Intervals are in optimiser steps; 0 switches one off."""

    method: Literal["sft"] = "sft"
    steps: int | None = Field(None, gt=0, description="optimiser steps; none: as many as `epochs` need")
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(8, gt=0, description="conversations in a batch")
    gradient_accumulation_steps: int = Field(1, gt=0, description="batches in an optimiser step")
    learning_rate: float | None = Field(None, gt=0, description="none: 2e-4 with LoRA, 2e-5 without")
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon: MuonSection = MuonSection()
    weight_decay: float = Field(0.0, ge=0)
    schedule: Annotated[ScheduleSection, BeforeValidator(_shape_alone)] = ScheduleSection()
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient to this norm; 0 is off")
    loss_on: Literal["completion", "all"] = Field("completion", description="train what the assistant says, or every token")
    max_length: int = Field(1024, gt=1, description="longest row in tokens")
    log_every: int = Field(10, ge=0)
    validate_every: int = Field(100, ge=0, description="generate on held-out tasks and score them")
    validation_samples: int = Field(50, ge=0)
    save_every: int = Field(100, ge=0)
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, slower")
    lora: LoraSection | None = LoraSection()


class EvaluationSection(Section):
    """How replies are generated and scored, in validation and in `toolhone eval`."""

    tasks: str | None = Field(None, description="task file; none: tasks made from the held-out conversations")
    num_samples: int = Field(200, gt=0, description="evaluate at most this many tasks at the end of training")
    max_new_tokens: int = Field(256, gt=0)
    max_turns: int = Field(4, gt=0, description="most assistant turns until a final answer")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="sample from the k most probable tokens; 0 is off")
    at_end: bool = Field(True, description="evaluate when training ends")


class TrackingSection(Section):
    """What is shown while training runs; everything is in the run folder whatever is chosen here."""

    progress: Literal["auto", "rich", "plain", "off"] = Field(
        "auto", description="auto: a live display on a terminal, plain lines elsewhere"
    )
    samples: int = Field(3, ge=0, description="sample predictions to print after an evaluation")


class Experiment(Section):
    """An experiment file."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Toolhone experiment")

    model: ModelSection = ModelSection()
    tools: list[str | dict[str, Any]] = Field(
        default_factory=lambda: list[str | dict[str, Any]](["calculator", "python", "weather", "search"]),
        description="tools that can run: names of built-in ones, or 'file.py:function'",
    )
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _fill_by_rule(self) -> Experiment:
        """Refuse settings that contradict each other, and fill in the learning rate."""
        if self.data.path is None and (self.data.validation or self.data.max_samples or self.data.format != "auto"):
            raise ValueError("data.validation, data.max_samples and data.format speak of a file, but there is no data.path")
        if self.model.adapter is not None and self.training.lora != LoraSection():
            raise ValueError("model.adapter brings its own LoRA settings; leave training.lora out")
        if self.training.learning_rate is not None:
            return self
        rate = 2e-4 if self.training.lora else 2e-5
        object.__setattr__(self, "training", self.training.model_copy(update={"learning_rate": rate}))
        return self


def load_experiment(path: Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a file (none: all defaults) with `key=value` overrides applied."""
    values: dict[str, Any] = {}
    if path is not None:
        values = _anchored(_read(path), path.resolve().parent)
    for override in overrides:
        values = _applied(values, override)
    return make_experiment(values, str(path or "the command line"))


def make_experiment(values: Mapping[str, Any], where: str) -> Experiment:
    """An experiment from plain values; `where` names their place in the sentence that tells what is wrong."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, where)) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file; editors complete from it."""
    schema = Experiment.model_json_schema()
    schema["properties"]["$schema"] = {"type": "string", "description": "where this schema lies, for editors"}
    training = schema["$defs"]["TrainingSection"]["properties"]
    shapes = schema["$defs"]["ScheduleSection"]["properties"]["shape"]["enum"]
    training["schedule"] = {
        "anyOf": [{"$ref": "#/$defs/ScheduleSection"}, {"enum": shapes}],
        "default": training["schedule"]["default"],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.json")]) if path.parent.is_dir() else ""
        raise ConfigError(f"no experiment file {path}{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the experiment file {path} cannot be read: {error}") from None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object, it holds {type(values).__name__}")
    values.pop("$schema", None)
    return values


def _anchored(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the file's relative paths absolute; a model name stays a name unless such a folder lies beside the file."""
    for section, key in PATH_KEYS:
        part = values.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            part[key] = str((base / Path(part[key]).expanduser()).resolve())
    model = values.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str) and (base / model["name"]).is_dir():
        model["name"] = str((base / model["name"]).resolve())
    if isinstance(values.get("tools"), list):
        values["tools"] = [_anchored_tool(tool, base) for tool in values["tools"]]
    return values


def _anchored_tool(tool: Any, base: Path) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("implementation"), str):
        return {**tool, "implementation": _anchored_tool(tool["implementation"], base)}
    return str((base / tool).resolve()) if isinstance(tool, str) and ".py" in tool else tool


def _applied(values: dict[str, Any], override: str) -> dict[str, Any]:
    """The values with one `key=value` applied; a path in it is relative to the working folder."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"an override is key=value, for example training.steps=100; got {override!r}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *parents, last = key.split(".")
    change: Any = {last: value}
    for parent in reversed(parents):
        change = {parent: change}
    return _merged(values, _anchored(change, Path.cwd()))


def _merged(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in change.items():
        before = _shape_alone(result.get(key)) if key == "schedule" else result.get(key)
        result[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _sentence(error: ValidationError, where: str) -> str:
    """The first problem in one sentence: where, what was seen, what would be right."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    parts = [part for part in problem["loc"] if not isinstance(part, int)]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "value_error" and not key:
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(parts[:-1])
        place = f"in section {'.'.join(map(str, parts[:-1]))!r} of {where}" if parts[:-1] else f"in {where}"
        return f"unknown key {key!r} {place}{nearest(str(parts[-1]), known)}; known: {', '.join(known)}"
    return f"{key} in {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r:.80}"


def _known_keys(path: Sequence[Any]) -> list[str]:
    model: type[BaseModel] = Experiment
    for part in path:
        found = model.model_fields.get(str(part))
        below = _section_in(found.annotation) if found else None
        if below is None:
            break
        model = below
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
