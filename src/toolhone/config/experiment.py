"""The experiment file: one JSON (or YAML) object that describes a run, read and checked.

    experiment = load_experiment(Path("sft.json"), ["training.steps=100", "model.name=pico"])
    experiment = load_experiment(Path("calculator"))          # a preset, by name

Overrides are `key=value` with dotted keys; the value is JSON, or else text. Paths in a file are
relative to that file, those in overrides to the working folder. Nothing here opens a model or a
data file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from toolhone.config.aliases import translate
from toolhone.config.fields import SHORT, Mark, field_types, map_marked, section_in, spell_out
from toolhone.config.presets import (
    ONLY_ADAPTERS,
    PICO,
    PICO_TRAINED,
    bfloat16_is_slow,
    differences,
    for_pico,
    preset_names,
    read_preset,
    without_recipe,
)
from toolhone.config.sections import Experiment
from toolhone.config.user_code import USER_CODE
from toolhone.errors import ConfigError, nearest
from toolhone.schema.json_input import packaged_json, parse_json, parse_yaml, plain_json

_OF_EPISODES = {
    *("curriculum", "episode", "inner_epochs", "mini_batch_size", "ptx", "sampler_refresh_every"),
    "track_kl",
}
_OF_RATIOS = {"epsilon", "epsilon_high"}
IDLE: Mapping[str, set[str]] = {
    "grpo": {"ppo", "dpo"},
    "ppo": {"grpo", "dpo"},
    "dpo": {"grpo", "ppo", *_OF_EPISODES, *_OF_RATIOS},
    "teacher_mode": {
        *("grpo", "ppo", "dpo", "beta", "inner_epochs", "mini_batch_size", "track_kl"),
        *("sampler_refresh_every", *_OF_RATIOS),
    },
    "distill": {
        *("grpo", "ppo", "dpo", "beta", "inner_epochs", "mini_batch_size", "track_kl", "ptx"),
        "two_phase_samples_per_group",
    },
}
"""Fields of `training.rl` that a method does not read. SFT reads only the rewards, which every
validation measures."""
GENERATED = ("strategy", "samples", "categories", "answered")
"""Fields of `data` of a preset that describe generated rows, which a file replaces."""
NO_EXPERIMENT = {
    **dict.fromkeys((".jsonl", ".csv", ".parquet", ".gz"), "it is data; name it with --data {}"),
    ".py": "it is Python; name tools of it with tools='[\"{}\"]'",
    ".gguf": "it is a model; name it with --model {}",
}
"""Ending of a file that is named in place of an experiment -> what is right."""
Tell = Callable[[str], None]


def to_stderr(note: str) -> None:
    """Print a note to standard error, beside the progress."""
    print(f"note: {note}", file=sys.stderr)


def load_experiment(
    path: str | Path | None, overrides: Sequence[str] = (), tell: Tell = to_stderr
) -> Experiment:
    """Read the experiment of a file or a preset (none: all defaults), with `key=value` overrides
    applied."""
    changes = [parse_override(override, tell) for override in overrides]
    if path is None:
        return _merge_and_check({}, changes, "the command line", tell)
    path = Path(path)
    if is_preset(path):
        values, where = _read_preset(str(path), changes, tell), f"the preset {path}"
    else:
        values = anchor(translate(read_values(path), str(path), tell), path.resolve().parent)
        where = str(path)
    is_for_pico = _model(values).get("name") in (PICO, PICO_TRAINED)
    if is_for_pico and not is_pico(str(_model(values, changes)["name"])):
        values, left_out = without_recipe(values)
        if left_out:
            keys = ", ".join(left_out)
            tell(f"{where} is for {PICO}; for another model without its recipe ({keys})")
    return _merge_and_check(values, changes, where, tell)


def is_pico(name: str) -> bool:
    """Tell whether a model is pico: by its name, or a folder whose model has pico's sizes."""
    file = Path(name) / "config.json"
    if name in (PICO, PICO_TRAINED) or not file.is_file():
        return name in (PICO, PICO_TRAINED)
    sizes = packaged_json("config/presets/pico.json")["config"]
    found = json.loads(file.read_text(encoding="utf-8"))
    return all(found.get(key) == value for key, value in sizes.items() if isinstance(value, int))


def _model(values: Mapping[str, Any], changes: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the `model` section with that of overrides put over it."""
    found: dict[str, Any] = {}
    for each in (values, *changes):
        if isinstance(each.get("model"), dict):
            found = merged(found, each["model"])
    return found


def _read_preset(name: str, changes: Sequence[Mapping[str, Any]], tell: Tell) -> dict[str, Any]:
    """Read a preset in the size and with the adapter settings that fit the model of overrides."""
    values = read_preset(name)
    model = _model(values, changes)
    start, adapted = Path(model.get("adapter") or ""), False
    if model.get("adapter"):  # a run of full training leaves training.lora as it is
        places = ("adapter_config.json", "checkpoints/*/adapter_config.json")
        adapted = any(next(start.glob(place), None) for place in places)
    if adapted and "lora" in values["training"]:
        tell("training.lora of the preset has no effect: model.adapter brings its own")
    own_sizes = values["model"]["name"] in (PICO, PICO_TRAINED)
    if not own_sizes and model["name"] in (PICO, PICO_TRAINED):
        own, values = values, for_pico(values, model.get("backend") in ONLY_ADAPTERS)
        tell(f"{name}, in the sizes of {PICO}: {'; '.join(differences(own, values))}")
    if adapted:
        values["training"].pop("lora", None)
    wanted = {values["model"].get("torch_dtype"), model.get("torch_dtype")}
    if wanted == {"bfloat16"} and bfloat16_is_slow(model.get("device_map", "auto")):
        values["model"]["torch_dtype"] = "float32"
        tell(f"{name}: model.torch_dtype float32, since this processor has no fast bfloat16")
    data = values.get("data", {})
    sections = [change.get("data") for change in changes]
    if any(isinstance(one, dict) and "path" in one for one in sections):  # in place of templates
        values["data"] = {key: data[key] for key in data if key not in GENERATED}
    return values


def experiment_of(
    values: Mapping[str, Any], where: str, overrides: Sequence[str] = (), tell: Tell = to_stderr
) -> Experiment:
    """Read an experiment from plain values, which may use the keys of other systems, with overrides
    applied."""
    plain = translate(values, where, tell)
    if isinstance(plain.get("tools"), str | list):
        plain["tools"] = read_tool_files(plain["tools"], Path.cwd())
    return _merge_and_check(plain, [parse_override(text, tell) for text in overrides], where, tell)


def overridden(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """Return the experiment with `key=value` overrides applied."""
    values: dict[str, Any] = experiment.model_dump(exclude_unset=True)
    for override in overrides:
        values = merged(values, parse_override(override, to_stderr))
    return make_experiment(values, "the command line")


def stored_experiment(values: Mapping[str, Any], where: str) -> Experiment:
    """Read what a run or checkpoint keeps, under the keys of its version.

    One without `data.split_seed` was split by its seed, and its `data.answered` 0 was no choice.
    """
    values = translate(values, where, to_stderr)
    data = dict(values.get("data", {}))
    if "split_seed" not in data:
        data["split_seed"] = values.get("seed", 0)
        data["answered"] = data.get("answered") or None
    return make_experiment({**values, "data": data}, where)


def make_experiment(values: Mapping[str, Any], where: str) -> Experiment:
    """Check plain values; `where` names their place in the error message."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_error_message(error, where)) from None


def _merge_and_check(
    values: dict[str, Any], changes: Sequence[Mapping[str, Any]], where: str, tell: Tell
) -> Experiment:
    for change in changes:
        values = merged(values, change)
    experiment = make_experiment(values, where)
    _note_unused(experiment, tell)
    return experiment


def is_preset(path: Path) -> bool:
    """Return whether this names a preset and not a file."""
    return str(path) in preset_names() and not path.is_file()


def run_folder(path: Path) -> Path:
    """Return the run that a folder belongs to: a run, a checkpoint or anything inside; the path
    itself where there is none."""
    place = path.resolve()
    for folder in (place, *place.parents):
        if (folder / "experiment.json").is_file():
            return folder
    return next((p.parent for p in place.parents if p.name == "checkpoints"), place)


def user_code_in(experiment: Experiment) -> list[tuple[str, str]]:
    """Return (key, text) of every place in an experiment that may name the user's own code, tools
    included."""
    found: list[tuple[str, str]] = []

    def note(key: str, mark: Mark, value: Any) -> Any:
        if mark is Mark.CODE:
            found.append((key, value))
        elif mark is Mark.TOOL:
            texts = [value.get("implementation"), value.get("function")]
            found.extend((key, text) for text in texts if isinstance(text, str))
        return value

    map_marked(experiment.model_dump(), Experiment, note)
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment file; editors complete from it."""
    schema = Experiment.model_json_schema()
    schema["properties"]["$schema"] = {
        "type": "string",
        "description": "where this schema is, for editors",
    }
    training = schema["$defs"]["TrainingSection"]["properties"]
    for key, field in SHORT.items():
        section = f"{key.capitalize()}Section"
        texts = schema["$defs"][section]["properties"][field]["enum"]
        either = [{"$ref": f"#/$defs/{section}"}, {"enum": texts}]
        training[key] = {"anyOf": either, "default": training[key]["default"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_values(path: Path) -> dict[str, Any]:
    """Return the plain values of an experiment file, in the keys of the system it was written for.

    The JSON may have comments and trailing commas; a file named .yaml or .yml is YAML."""
    if path.suffix in NO_EXPERIMENT and path.is_file():
        right = NO_EXPERIMENT[path.suffix].format(path)
        raise ConfigError(f"{path} is no experiment file (JSON or YAML): {right}")
    kind = "YAML" if path.suffix in (".yaml", ".yml") else "JSON"
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = parse_yaml(text) if kind == "YAML" else parse_json(plain_json(text))
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        near, presets = nearest(path.name, [*beside, *preset_names()]), ", ".join(preset_names())
        raise ConfigError(f"no experiment file {path}{near}; presets: {presets}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the experiment file {path} cannot be read: {error}") from None
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"{path} is not {kind} that can be read: {what}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        held = "keys that are no text" if isinstance(values, dict) else type(values).__name__
        raise ConfigError(f"{path} must hold an object with the keys of an experiment, not {held}")
    return {key: value for key, value in values.items() if key not in ("$schema", "$comment")}


def _note_unused(experiment: Experiment, tell: Tell) -> None:
    """Note settings of reinforcement learning that the method, or a switched-off section, does not
    read."""
    method, rl = experiment.training.method, experiment.training.rl
    given = rl.model_fields_set
    idle = given - {"reward"} if method == "sft" else given & IDLE.get(method, set())
    unused = []
    for field in idle:
        value = getattr(rl, field)
        below = value.model_fields_set if isinstance(value, BaseModel) else None
        unused += [field] if below is None else [f"{field}.{name}" for name in below]
    if method in ("sft", "dpo") and rl.reward.phases:
        unused.append("reward.phases")
    if unused:
        names = ", ".join(sorted(unused))
        tell(f"training.rl ({names}) has no effect with training.method {method!r}")
        return
    curriculum, ptx = rl.curriculum.model_fields_set, rl.ptx.model_fields_set
    if curriculum and "enabled" not in curriculum:
        names = ", ".join(f"curriculum.{name}" for name in sorted(curriculum))
        tell(f"training.rl ({names}) has no effect without training.rl.curriculum.enabled=true")
    elif ptx and "coef" not in ptx:
        tell("training.rl (ptx.batch_size) has no effect without training.rl.ptx.coef")


def anchor(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make relative paths absolute, those of code too."""

    def anchored(spec: str) -> str:
        code = USER_CODE.fullmatch(spec)
        if code is None or code["file"] is None:
            return spec
        file = (base / Path(code["file"]).expanduser()).resolve()
        return f"{file}:{code['name']}" if code["name"] else str(file)

    def change(_: str, mark: Mark, value: Any) -> Any:
        if mark is Mark.CODE:
            return anchored(value)
        if mark is Mark.PATH:
            return str((base / Path(value).expanduser()).resolve())
        if mark is Mark.FOLDER_OR_NAME:
            place = base / Path(value).expanduser()
            is_model = place.is_dir() or (value.endswith(".gguf") and place.is_file())
            return str(place.resolve()) if is_model else value
        tool = dict(value)
        if isinstance(tool.get("cwd"), str):
            tool["cwd"] = str((base / tool["cwd"]).resolve())
        for key in ("implementation", "function"):
            if isinstance(tool.get(key), str):
                tool[key] = anchored(tool[key])
        return tool

    result: dict[str, Any] = map_marked(values, Experiment, change)
    if isinstance(result.get("tools"), str | list):
        result["tools"] = read_tool_files(result["tools"], base)
    return result


def read_tool_files(specs: str | Sequence[Any], base: Path) -> list[Any]:
    """Return entries of `tools` with the objects of a file in place of its name ('tools.json': a
    list of objects with a schema, or {"tools": [...]}); paths in it are relative to it."""
    found: list[Any] = []
    for spec in [specs] if isinstance(specs, str) else specs:
        if not isinstance(spec, str) or not spec.endswith(".json"):
            found.append(spec)
            continue
        path = (base / Path(spec).expanduser()).resolve()
        try:
            held = parse_json(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"tools: the file {path} cannot be read: {error}") from None
        if isinstance(held, dict) and "paths" in held:
            right = f"toolhone data tools {spec} --to tools.json makes a list of its operations"
            raise ConfigError(f"tools: {path} is an OpenAPI document; {right}")
        held = held["result"] if isinstance(held, dict) and "result" in held else held
        tools = held.get("tools") if isinstance(held, dict) else held
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            right = 'a list of tools with name, description and parameters, or {"tools": [...]}'
            raise ConfigError(f"tools: {path} must hold {right}, it holds {str(held)[:60]}")
        found += anchor({"tools": tools}, path.parent)["tools"]
    return found


def parse_override(override: str, tell: Tell) -> dict[str, Any]:
    """Parse one `key=value` into nested values; a path in it is relative to the working folder."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(
            f"an override is key=value, for example training.steps=100; got {override!r}"
        )
    try:
        change = json.loads(text)
    except ValueError:
        change = text
    for part in reversed(key.split(".")):
        change = {part: change}
    return anchor(translate(change, "the command line", tell), Path.cwd())


def merged(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with those of `change` put over them, section by section."""
    result = dict(values)
    for key, value in change.items():
        before, value = spell_out(key, result.get(key)), spell_out(key, value)
        if isinstance(before, dict) and isinstance(value, dict):
            value = merged(before, value)
        result[key] = value
    return result


def _error_message(error: ValidationError, where: str) -> str:
    """Describe the first problem in one sentence: where, what was seen, what would be right."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        *parents, last = [str(part) for part in problem["loc"] if not isinstance(part, int)]
        section: type[BaseModel] = Experiment
        for name in parents:
            section = section_in(field_types(section).get(name)) or section
        known = list(section.model_fields)
        place = f"section {'.'.join(parents)!r} of {where}" if parents else where
        near = nearest(last, known)
        return f"unknown key {key!r} in {place}{near}; known: {', '.join(known)}"
    if problem["type"] == "value_error" and not key:
        return f"{where}: {message}"
    is_said = problem["type"] == "value_error" and isinstance(problem["input"], Mapping)
    got = "" if is_said else f", got {problem['input']!r:.80}"
    return f"{key} in {where}: {message[0].lower()}{message[1:]}{got}"
