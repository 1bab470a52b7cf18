"""`toolhone config`: the JSON Schema of experiment files, the resolved experiment, and the
presets."""

from __future__ import annotations

import json

import typer

from toolhone.cli.flags import FlagCommand, experiment_and_keys
from toolhone.cli.options import AsJson, ExperimentName, Overrides

app = typer.Typer(
    help="The experiment file: its schema, and what a file resolves to.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog="Example: toolhone config schema > experiment.schema.json   and in a file: "
    '{"$schema": "./experiment.schema.json"}'
)
def schema() -> None:
    """Print the JSON Schema of an experiment file; editors complete and check from it."""
    from toolhone.config.experiment import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(epilog="Example: toolhone config show sft.json training.steps=100", cls=FlagCommand)
def show(
    context: typer.Context, experiment: ExperimentName = None, overrides: Overrides = None
) -> None:
    """Print the resolved experiment: the file with defaults filled in and overrides applied."""
    from toolhone.config.experiment import load_experiment
    from toolhone.config.user_code import USER_CODE
    from toolhone.evaluation.legacy_metrics import known_metrics

    path, keys = experiment_and_keys(context, experiment, overrides)
    plan = load_experiment(path, keys)
    known_metrics([name for name in plan.evaluation.metrics or () if not USER_CODE.fullmatch(name)])
    print(json.dumps(plan.model_dump(), indent=2))


@app.command(
    epilog="Example: toolhone config presets   and then: toolhone train calculator model.name=pico"
)
def presets(as_json: AsJson = False) -> None:
    """List the presets: experiments that ship, to be used by name."""
    from toolhone.config.presets import preset_comment, preset_names

    comments = {name: preset_comment(name) for name in preset_names()}
    if as_json:
        print(json.dumps(comments))
        return
    width = max(map(len, comments))
    for name, comment in comments.items():
        print(f"{name:{width}}  {comment}")
