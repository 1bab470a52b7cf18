"""The experiment file: one JSON object that describes a run, read and checked.

    experiment = load_experiment(Path("sft.json"), ["training.steps=100", "model.name=pico"])
    experiment = load_experiment(Path("calculator"))          # a preset, by name

Sections `model, tools, data, training, evaluation, tracking, seed` (`sections.py`). Overrides are `key=value` with dotted keys;
the value is JSON, or else text. Keys of other systems are understood (`aliases.py`); what has no effect is said in a note on
standard error. An unknown key stops with the nearest known name and the place. Paths in a file are relative to that file, those in
overrides to the working folder. Nothing here opens a model or a data file.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from toolhone.config.aliases import translated
from toolhone.config.presets import PICO, for_pico, preset_names, read_preset
from toolhone.config.sections import Experiment
from toolhone.config.user_code import anchored
from toolhone.errors import ConfigError, nearest

PATH_KEYS: tuple[tuple[str, ...], ...] = (
    *(
        ("data", "path"),
        ("data", "validation"),
        ("data", "examples"),
        ("evaluation", "tasks"),
        ("model", "adapter"),
    ),
    *(
        ("tool_results", "log"),
        ("tool_results", "cache"),
        ("tool_results", "replay"),
        ("tracking", "tensorboard", "log_dir"),
    ),
)
CODE_KEYS: tuple[tuple[str, ...], ...] = (
    *(
        ("model", "model_class"),
        ("data", "format"),
        ("training", "method"),
        ("evaluation", "metrics"),
    ),
    ("training", "rl", "reward", "functions"),
)
"""Keys whose text (or list of texts) may name code of the user's own."""
_OF_EPISODES = (
    "curriculum",
    "episode",
    "inner_epochs",
    "mini_batch_size",
    "ptx",
    "sampler_refresh_every",
)
_OF_RATIOS = ("epsilon", "epsilon_high", "loss", "scale_rewards")
IDLE: Mapping[str, frozenset[str]] = {
    "grpo": frozenset({"ppo", "dpo"}),
    "ppo": frozenset({"dpo", "loss", "scale_rewards"}),
    "dpo": frozenset({"ppo", *_OF_EPISODES, *_OF_RATIOS}),
}
"""Fields of `training.rl` that a method does not read. SFT reads none but the rewards, which are measured in every validation."""
Tell = Callable[[str], None]


def to_stderr(note: str) -> None:
    """Say a note where progress goes."""
    print(f"note: {note}", file=sys.stderr)


def load_experiment(
    path: Path | None, overrides: Sequence[str] = (), tell: Tell = to_stderr
) -> Experiment:
    """The experiment of a file or a preset (none: all defaults) with `key=value` overrides applied."""
    where = str(path or "the command line")
    changes = [_parsed(override, tell) for override in overrides]
    values: dict[str, Any] = {}
    if path is not None and is_preset(path):
        values, where = _for_adapter(read_preset(str(path)), changes, tell), f"the preset {path}"
        if values["model"]["name"] != PICO == _model_name(values, changes):
            values = _for_adapter(for_pico(values), changes, tell)
            tell(
                f"{path}: sizes and recipe are those for {PICO} (toolhone config show {path} model.name={PICO})"
            )
    elif path is not None:
        values = _anchored(_translated(_read(path), str(path), tell), path.resolve().parent)
    for change in changes:
        values = merged(values, change)
    experiment = make_experiment(values, where)
    _tell_unused(experiment, tell)
    return experiment


def _for_adapter(
    values: dict[str, Any], changes: Sequence[Mapping[str, Any]], tell: Tell
) -> dict[str, Any]:
    """A preset without LoRA settings of its own where an override names an adapter, which brings them."""
    adapters = [
        change["model"].get("adapter")
        for change in changes
        if isinstance(change.get("model"), dict)
    ]
    if not any(adapters) or "lora" not in values["training"]:
        return values
    tell("training.lora of the preset has no effect: model.adapter brings its own")
    return {
        **values,
        "training": {key: value for key, value in values["training"].items() if key != "lora"},
    }


def is_preset(path: Path) -> bool:
    """Whether this names a preset and not a file."""
    return str(path) in preset_names() and not path.is_file()


def make_experiment(values: Mapping[str, Any], where: str) -> Experiment:
    """An experiment from plain values; `where` names their place in the sentence that tells what is wrong."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, where)) from None


def experiment_of(
    values: Mapping[str, Any], where: str, overrides: Sequence[str] = (), tell: Tell = to_stderr
) -> Experiment:
    """An experiment from plain values that may use the keys of other systems, with `key=value` overrides applied."""
    plain = _translated(dict(values), where, tell)
    for override in overrides:
        plain = merged(plain, _parsed(override, tell))
    experiment = make_experiment(plain, where)
    _tell_unused(experiment, tell)
    return experiment


def overridden(
    experiment: Experiment, overrides: Sequence[str], tell: Tell = to_stderr
) -> Experiment:
    """The experiment with `key=value` overrides put over it."""
    values: dict[str, Any] = experiment.model_dump()
    for override in overrides:
        values = merged(values, _parsed(override, tell))
    return make_experiment(values, "the command line")


def own_code(experiment: Experiment) -> list[tuple[str, str]]:
    """(key, text) of every place in an experiment that names code of the user's own, tools included."""
    dumped = experiment.model_dump()
    found = []
    for keys in CODE_KEYS:
        value: Any = dumped
        for key in keys:
            value = value[key]
        found += [
            (".".join(keys), text)
            for text in (value if isinstance(value, list) else [value])
            if text is not None
        ]
    for phase in experiment.training.rl.reward.phases:
        found += [("training.rl.reward.phases", text) for text in phase.functions]
    for tool in experiment.tools:
        texts = (
            [tool] if isinstance(tool, str) else [tool.get("implementation"), tool.get("function")]
        )
        found += [("tools", text) for text in texts if isinstance(text, str)]
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file; editors complete from it."""
    schema = Experiment.model_json_schema()
    schema["properties"]["$schema"] = {
        "type": "string",
        "description": "where this schema lies, for editors",
    }
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
        beside = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        near = nearest(path.name, [*beside, *preset_names()])
        raise ConfigError(
            f"no experiment file {path}{near}; presets: {', '.join(preset_names())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the experiment file {path} cannot be read: {error}") from None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON that can be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object, it holds {type(values).__name__}")
    return {key: value for key, value in values.items() if key not in ("$schema", "$comment")}


def _translated(values: dict[str, Any], where: str, tell: Tell) -> dict[str, Any]:
    result, notes = translated(values, where)
    for note in notes:
        tell(note)
    return result


def _tell_unused(experiment: Experiment, tell: Tell) -> None:
    """Say that settings of reinforcement learning have no effect where there is none."""
    method, rl = experiment.training.method, experiment.training.rl
    idle = (
        rl.model_fields_set - {"reward"}
        if method == "sft"
        else rl.model_fields_set & IDLE.get(method, frozenset())
    )
    unused = [name for field in idle for name in _set_in(rl, field)]
    if method in ("sft", "dpo") and rl.reward.phases:
        unused.append("reward.phases")
    if unused:
        tell(
            f"training.rl ({', '.join(sorted(unused))}) has no effect with training.method {method!r}"
        )
    elif (
        rl.curriculum.model_fields_set
        and not rl.curriculum.enabled
        and "enabled" not in rl.curriculum.model_fields_set
    ):
        names = ", ".join(_set_in(rl, "curriculum"))
        tell(f"training.rl ({names}) has no effect without training.rl.curriculum.enabled=true")
    elif rl.ptx.model_fields_set and not rl.ptx.coef and "coef" not in rl.ptx.model_fields_set:
        tell("training.rl (ptx.batch_size) has no effect without training.rl.ptx.coef")


def _set_in(section: BaseModel, field: str) -> list[str]:
    """The field, or those that were set in it where it is a section itself."""
    value = getattr(section, field)
    return (
        [f"{field}.{name}" for name in sorted(value.model_fields_set)]
        if isinstance(value, BaseModel)
        else [field]
    )


def _model_name(values: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> str:
    models = [part.get("model") for part in (values, *changes)]
    named = [model["name"] for model in models if isinstance(model, dict) and "name" in model]
    return str(named[-1]) if named else PICO


def _anchored(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make relative paths absolute, those of code too; a model name stays a name unless such a folder lies beside the file."""
    for keys in PATH_KEYS:
        _change_at(values, keys, lambda text: str((base / Path(text).expanduser()).resolve()))
    for keys in CODE_KEYS:
        _change_at(values, keys, lambda text: anchored(text, base))
    for phase in _at(values, ("training", "rl", "reward", "phases")) or []:
        _change_at({"phase": phase}, ("phase", "functions"), lambda text: anchored(text, base))
    model = values.get("model")
    if (
        isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and (base / model["name"]).is_dir()
    ):
        model["name"] = str((base / model["name"]).resolve())
    if isinstance(values.get("tools"), list):
        values["tools"] = [_anchored_tool(tool, base) for tool in values["tools"]]
    return values


def _change_at(values: dict[str, Any], keys: Sequence[str], change: Callable[[str], str]) -> None:
    """Change the text, or each text of the list, that stands at a key; what is not there, or is something else, stays."""
    *parents, last = keys
    section = _at(values, parents)
    if not isinstance(section, dict):
        return
    value = section.get(last)
    if isinstance(value, str):
        section[last] = change(value)
    elif isinstance(value, list):
        section[last] = [change(text) if isinstance(text, str) else text for text in value]


def _at(values: Any, keys: Sequence[str]) -> Any:
    """What stands at these keys; None where nothing does."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _anchored_tool(tool: Any, base: Path) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("cwd"), str):
        tool = {**tool, "cwd": str((base / tool["cwd"]).resolve())}
    if isinstance(tool, dict):
        return {
            key: anchored(v, base)
            if key in ("implementation", "function") and isinstance(v, str)
            else v
            for key, v in tool.items()
        }
    return anchored(tool, base) if isinstance(tool, str) else tool


def _parsed(override: str, tell: Tell) -> dict[str, Any]:
    """One `key=value` as nested values; a path in it is relative to the working folder."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(
            f"an override is key=value, for example training.steps=100; got {override!r}"
        )
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *parents, last = key.split(".")
    change: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        change = {parent: change}
    return _anchored(_translated(change, "the command line", tell), Path.cwd())


def merged(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of `change` put over them, section by section."""
    result = dict(values)
    for key, value in change.items():
        before = result.get(key)
        if key == "schedule":
            before, value = (
                {"shape": text} if isinstance(text, str) else text for text in (before, value)
            )
        result[key] = (
            merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
        )
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
        place = (
            f"in section {'.'.join(map(str, parts[:-1]))!r} of {where}"
            if parts[:-1]
            else f"in {where}"
        )
        return f"unknown key {key!r} {place}{nearest(str(parts[-1]), known)}; known: {', '.join(known)}"
    said = problem["msg"].removeprefix("Value error, ")
    return f"{key} in {where}: {said[0].lower()}{said[1:]}, got {problem['input']!r:.80}"


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
