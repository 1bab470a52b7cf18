"""`toolhone config`: the JSON Schema of experiment files, and the experiment that a file and overrides resolve to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The experiment file: its schema, and what a file resolves to.", no_args_is_help=True, rich_markup_mode=None)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. training.steps=100")]


@app.command(
    epilog='Example: toolhone config schema > experiment.schema.json   and in a file: {"$schema": "./experiment.schema.json"}'
)
def schema() -> None:
    """Print the JSON Schema of an experiment file; editors complete and check from it."""
    from toolhone.config import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(epilog="Example: toolhone config show sft.json training.steps=100")
def show(
    experiment: Annotated[str | None, typer.Argument(metavar="[EXPERIMENT.json]", help="none: all defaults")] = None,
    overrides: Overrides = None,
) -> None:
    """Print the resolved experiment: the file with defaults filled in and overrides applied."""
    from toolhone.config import load_experiment

    path, keys = split_experiment(experiment, overrides)
    print(json.dumps(load_experiment(path, keys).model_dump(), indent=2))


def split_experiment(experiment: str | None, overrides: list[str] | None) -> tuple[Path | None, list[str]]:
    """The file, if one was given, and the overrides: the first argument may be either."""
    keys = list(overrides or [])
    if experiment is not None and "=" in experiment and not Path(experiment).exists():
        return None, [experiment, *keys]
    return (None if experiment is None else Path(experiment)), keys
