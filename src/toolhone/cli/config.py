"""`toolhone config`: the JSON Schema of experiment files, what a file and overrides resolve to, and the presets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from toolhone.cli.flags import FlagCommand, overrides_of

app = typer.Typer(
    help="The experiment file: its schema, and what a file resolves to.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. training.steps=100")
]


@app.command(
    epilog='Example: toolhone config schema > experiment.schema.json   and in a file: {"$schema": "./experiment.schema.json"}'
)
def schema() -> None:
    """Print the JSON Schema of an experiment file; editors complete and check from it."""
    from toolhone.config.experiment import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(epilog="Example: toolhone config show sft.json training.steps=100", cls=FlagCommand)
def show(
    context: typer.Context,
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT.json|PRESET]", help="none: all defaults")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print the resolved experiment: the file with defaults filled in and overrides applied."""
    from toolhone.config.experiment import load_experiment
    from toolhone.config.user_code import is_user_code
    from toolhone.evaluation.legacy_metrics import known_metrics

    path, keys = experiment_and_keys(context, experiment, overrides)
    plan = load_experiment(path, keys)
    known_metrics([name for name in plan.evaluation.metrics or () if not is_user_code(name)])
    print(json.dumps(plan.model_dump(), indent=2))


@app.command(
    epilog="Example: toolhone config presets   and then: toolhone train calculator model.name=pico"
)
def presets(
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object: name to what it is for")
    ] = False,
) -> None:
    """List the presets: experiments that ship, to be used by name."""
    from toolhone.config.presets import preset_comment, preset_names

    comments = {name: preset_comment(name) for name in preset_names()}
    if as_json:
        print(json.dumps(comments))
        return
    width = max(map(len, comments))
    for name, comment in comments.items():
        print(f"{name:{width}}  {comment}")


def experiment_and_keys(
    context: typer.Context,
    experiment: str | None,
    overrides: list[str] | None,
    config: str | None = None,
) -> tuple[Path | None, list[str]]:
    """The file or preset, and all overrides: those of flags first, so that `key=value` wins."""
    path, keys = split_experiment(experiment, overrides, config)
    named = path is not None or any(key.startswith("training.method=") for key in keys)
    return path, [*overrides_of(context.meta.get("flags", {}), guess_method=not named), *keys]


def split_experiment(
    experiment: str | None, overrides: list[str] | None, config: str | None = None
) -> tuple[Path | None, list[str]]:
    """The file or preset, if one was given (also as `--config`), and the overrides: the first argument may be either."""
    from toolhone.errors import ConfigError

    keys = list(overrides or [])
    if experiment is not None and re.match(r"[\w.]+=", experiment):
        keys, experiment = [experiment, *keys], None
    if experiment is not None and config is not None:
        raise ConfigError(
            f"two experiments are given, {experiment} and --config {config}; keep one"
        )
    chosen = experiment if config is None else config
    return (None if chosen is None else Path(chosen)), keys
