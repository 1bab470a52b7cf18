"""`toolhone migrate` prints a configuration file or a command line of one of four earlier systems
as an experiment file and a command of Toolhone.

    toolhone migrate calculator_config.json --out calculator.json
    toolhone migrate "python -m mlx_grpo.train --model pico --data rows.jsonl --group-size 8"

`config/presets/migrate.json` has their programs and names, `config/aliases.py` their keys,
`flags.py` their flags. Nothing is run: Python files and notebooks are only read."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer
import yaml  # type: ignore[import-untyped]
from pydantic import ValidationError
from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.cli.flags import AsJson, overrides_of, split_flags
from toolhone.config.aliases import MOVED, WITHOUT_MEANING, translate
from toolhone.config.experiment import (
    Tell,
    anchor,
    make_experiment,
    merged,
    parse_override,
    read_values,
)
from toolhone.config.presets import read_preset
from toolhone.config.sections import Experiment, TrainingSection
from toolhone.errors import ConfigError
from toolhone.runs.run import write_text, writing
from toolhone.schema.json_input import packaged_json, parse_yaml

app = typer.Typer(rich_markup_mode=None)
TABLE: Mapping[str, Any] = packaged_json("config/presets/migrate.json")
PROGRAMS, CONSTANTS, CALLS = TABLE["programs"], TABLE["constants"], TABLE["calls"]
SFT_RUN = PROGRAMS["rl.train"]["adapter"]
OUT_FLAGS = ("--out", "--output-dir", "--outdir", "--adapter-path")
EVAL_FLAGS = (
    *("--model-path", "--config", "--output", "--test-cases"),
    *("--num-samples", "--checkpoint", "--tasks", "--out"),
)
TRAINING_KEYS = {
    *(f"training.{name}" for name in TrainingSection.model_fields),
    *(f"training.{name}" for name in ("fp16", "bf16", "optim", "completion_only_loss")),
    *MOVED,
    *WITHOUT_MEANING,
}
UNKNOWN = "is not known here and was left out"
Values = dict[str, Any]


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Examples: toolhone migrate calculator_config.json --out calculator.json   |   "
    'toolhone migrate "python -m mlx_grpo.train --model pico --data rows.jsonl --iters 100"   |   '
    "toolhone migrate sft/config.py",
)
def migrate(
    source: Annotated[
        list[str],
        Argument(
            metavar="FILE_OR_COMMAND",
            help="a configuration (.json, .yaml, .py, .ipynb), or a command line in quotes",
        ),
    ],
    out: Annotated[Path | None, Option(help="write the experiment to this new file")] = None,
    as_json: AsJson = False,
) -> None:
    """Print another system's configuration or command line as an experiment and a command.

    What has no counterpart is named on standard error.
    """
    notes: list[str] = []
    path = Path(source[0])
    words = source
    if len(source) == 1 and not os.path.isfile(path):  # too long a name is no file
        words = split(source[0])
    if len(words) == 1 and path.suffix in READERS and program_in(words) is None:
        name, command, rest = path.stem, ["toolhone", "train"], list[str]()
        read = read_file(path, notes.append)
        is_mlx = path.suffix in (".yaml", ".yml")
        values: Values | None = with_scaled_adapters(read) if is_mlx else read
    else:
        name, values, command, rest = read_command(words, notes.append)
    if values is not None:
        values = known_part(values, name, notes.append)
        file = out or (path if path.suffix == ".json" and not rest else Path(f"{name}.json"))
        command = [*command, str(file), *rest]
        if out is not None and out.exists():
            raise ConfigError(f"{out} is there already; name a new file with --out")
        if out is not None:
            with writing(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                write_text(out, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    elif out is not None:
        raise ConfigError(f"{shlex.join(words)!r:.80} has no experiment to write to {out}")
    for note in notes:
        print_note(f"note: {note}")
    if as_json:
        print(json.dumps({"experiment": values, "command": shlex.join(command), "notes": notes}))
        return
    if values is not None and out is None:
        print(json.dumps(values, indent=2, ensure_ascii=False), end="\n\n")
    print(shlex.join(command))


def split(line: str) -> list[str]:
    """Return the words of a command line as a shell splits them."""
    try:
        return shlex.split(line.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"the command line cannot be split: {error}; got {line!r:.80}") from None


def known_part(values: Values, where: str, tell: Tell) -> Values:
    """Return the values without the keys that an experiment does not have; each is named."""
    try:
        Experiment.model_validate(values)
    except ValidationError as error:
        places = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        for place in places:
            section: Any = values
            for part in place[:-1]:
                section = section[part]
            value = json.dumps(section.pop(place[-1]), default=str)
            tell(f"{'.'.join(map(str, place))} = {value:.60} {UNKNOWN}")
        if places:
            return known_part(values, where, tell)
    make_experiment(values, where)
    return values


def read_file(path: Path, tell: Tell) -> Values:
    """Return the experiment of a configuration file, with absolute paths."""
    reader = READERS.get(path.suffix)
    if reader is None:
        right = f"{', '.join(READERS)}, or a command line"
        raise ConfigError(f"{path} is no configuration that can be read; give one of {right}")
    values: Values = reader(path, tell)
    base = path.resolve().parent if path.suffix == ".json" else Path.cwd()
    return anchor(translate(values, str(path), tell), base)


def read_json_file(path: Path, tell: Tell) -> Values:  # noqa: ARG001 (one form for all readers)
    return read_values(path)


def read_yaml(path: Path, tell: Tell) -> Values:
    """Return the values of a YAML file whose keys are the flags of MLX trainers."""
    try:
        found = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold keys with values, it holds {type(found).__name__}")
    lora = found.pop("lora_parameters", None) or {}
    if not isinstance(lora, dict):
        raise ConfigError(f"{path}: lora_parameters must hold keys with values, it holds {lora!r}")
    found |= {f"lora_{'alpha' if key == 'scale' else key}": lora[key] for key in lora}
    words: list[str] = []
    for key, value in found.items():
        texts = [
            json.dumps(each) if isinstance(each, bool) else str(each)
            for each in (value if isinstance(value, list) else [value])
        ]
        flag = f"--{str(key).replace('_', '-')}={','.join(texts)}"
        words += [flag] if value is not None else []
    return merged(PROGRAMS["mlx_*"]["values"], of_flags(words, tell))


def with_scaled_adapters(values: Values) -> Values:
    """Return the values with the scale of MLX's adapters, by which they are multiplied, as alpha:
    scale * rank."""
    lora = values["training"].get("lora") or {}
    rank, scale = lora.get("rank"), lora.get("alpha")
    if not isinstance(rank, int) or not isinstance(scale, int | float):
        return values  # no adapters, or what loading the experiment refuses
    return merged(values, {"training": {"lora": {"alpha": scale * rank}}})


def read_python(path: Path, tell: Tell) -> Values:
    """Return the values of constants and of the arguments of trainers' classes in Python code."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".ipynb":
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            lines = "\n".join("".join(cell["source"]) for cell in cells).split("\n")
            text = "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in lines)
        tree = ast.parse(text)
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as Python: {error}") from None
    names = dict(_assignments(tree))
    constants = {name: value for name, value in names.items() if name.isupper()}
    for name in [name for name, value in constants.items() if value is ...]:
        tell(f"{name} was left out: its value is computed, not written")
        del constants[name]
    is_rl = path.parent.name == "rl" or any(name.startswith("RL_") for name in constants)
    found: Values = {}
    for name, value in constants.items():
        key = CONSTANTS.get(name) or CONSTANTS.get(name.removeprefix("SFT_").removeprefix("RL_"))
        if is_rl and key == "training.lora.rank":
            tell(f"{name} has no effect: the adapter of the SFT run brings its own rank")
        elif key is None:
            tell(f"{name} = {value!r:.60} {UNKNOWN}")
        elif "://" in str(value):
            tell(f"{name} = {value!r:.60} was left out: {key} is a folder here")
        elif key == "model.adapter" and "/" not in str(value):
            found[key] = str(Path.cwd() / SFT_RUN / "checkpoints" / str(value))
        else:
            found[key] = value
    values = preset_values(PROGRAMS["rl.train" if is_rl else "sft.train"]) if found else {}
    for key, value in [*found.items(), *_arguments(tree, names, tell)]:
        values = merged(values, _nested(key, value))
    if not values:
        raise ConfigError(
            f"{path} sets nothing that is known here: {', '.join(CALLS)} or constants"
        )
    return values


def _assignments(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield each name that gets a value; `...` for one that is no literal."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    yield name.id, _literal(value, {})


def _arguments(tree: ast.AST, names: Mapping[str, Any], tell: Tell) -> Iterator[tuple[str, Any]]:
    """Yield the key and the value of each argument of the classes in `CALLS`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if re.fullmatch(r"AutoModel\w*\.from_pretrained", function) and node.args:
            value = _literal(node.args[0], names)
            if isinstance(value, str):
                yield "model.name", value
        name = function.rpartition(".")[2]
        for argument in node.keywords if name in CALLS else ():
            value, key = _literal(argument.value, names), CALLS[name].get(argument.arg)
            if key is None and f"training.{argument.arg}" in TRAINING_KEYS and name != "LoraConfig":
                key = f"training.{argument.arg}"
            if key is None or value is ...:
                tell(f"{name}({ast.unparse(argument):.60}) {UNKNOWN}")
            elif value != "all-linear":  # as here where nothing is said
                yield key, value


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of a literal or of a name that has one, else `...`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, ...)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def _nested(key: str, value: Any) -> Values:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


READERS = {
    ".json": read_json_file,
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".py": read_python,
    ".ipynb": read_python,
}


def program_in(words: Sequence[str]) -> tuple[int, Mapping[str, Any]] | None:
    """Return the place of a program of `PROGRAMS` in a command line, and its entry."""
    for place, word in enumerate(words):
        name = PurePath(word).name if word.endswith(".py") else word
        for pattern, entry in PROGRAMS.items():
            if fnmatch(name, pattern):
                return place, entry
    return None


def read_command(
    words: Sequence[str], tell: Tell
) -> tuple[str, Values | None, list[str], list[str]]:
    """Return a name, the experiment (None: there is none), and the command around its file."""
    found = program_in(words)
    if found is None:
        programs = ", ".join(PROGRAMS)
        raise ConfigError(
            f"{shlex.join(words):.80} is neither a configuration file nor a command of an earlier "
            f"system; programs: {programs}"
        )
    place, entry = found
    rest = [
        re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), w) for w in words[place + 1 :]
    ]
    if "command" in entry:
        name_unknown(rest, tell)
        return "", None, shlex.split(entry["command"]), []
    if entry.get("verb") == "eval":
        return "", None, eval_command(entry, rest, tell), []
    run = take(rest, OUT_FLAGS)
    config = take(rest, ("--config", "-c"))
    after = [word for word in ("--resume", "--debug") if word in rest]
    rest = [word for word in rest if word not in after]
    values: Values = dict(entry.get("values", {}))
    if "preset" in entry:
        values, run = preset_values(entry), run or f"runs/{entry['preset']}"
    if config is not None:
        values = merged(values, read_file(Path(config), tell))
    values = merged(values, of_flags(rest, tell))
    if entry is PROGRAMS["mlx_*"]:
        values = with_scaled_adapters(values)
    name = Path(config).stem if config else entry.get("preset", "experiment")
    return name, values, ["toolhone", "train"], [*(["--out", run] if run else []), *after]


def preset_values(entry: Mapping[str, Any]) -> Values:
    """Return the preset of an entry, with the data and the SFT run where that system keeps them."""
    values = {**read_preset(entry["preset"]), "data": {"path": entry["data"]}}
    if "adapter" in entry:
        values["model"] = {**values["model"], "adapter": entry["adapter"]}
    return anchor(values, Path.cwd())


def of_flags(words: list[str], tell: Tell) -> Values:
    """Return the values of flags of `toolhone train`; others are named."""
    given, others = split_flags(words)
    name_unknown(others, tell)
    values: Values = {}
    for override in overrides_of(given, guess_method=False):
        values = merged(values, parse_override(override, tell))
    return values


def eval_command(entry: Mapping[str, Any], rest: list[str], tell: Tell) -> list[str]:
    """Return the evaluation that does the same; a bare word is a checkpoint of the entry's run."""
    options: list[str] = []
    for name in EVAL_FLAGS:
        if (value := take(rest, (name,))) is not None:
            options += [name, value]
    run = [entry["run"]] if "run" in entry else []
    if run and rest and not rest[0].startswith("-"):
        options += ["--checkpoint", rest.pop(0)]
    name_unknown(rest, tell)
    return ["toolhone", "eval", *run, *options]


def take(words: list[str], names: Sequence[str]) -> str | None:
    """Remove an option from the words and return its value; None where it is not there."""
    for place, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name in names:
            if not sign and place + 1 == len(words):
                raise ConfigError(f"{name} needs a value")
            value = value if sign else words.pop(place + 1)
            del words[place]
            return value
    return None


def name_unknown(words: Sequence[str], tell: Tell) -> None:
    """Name each option that has no counterpart, with its values."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups:
            groups.append([])
        groups[-1].append(word)
    for group in groups:
        tell(f"{shlex.join(group)} {UNKNOWN}")
