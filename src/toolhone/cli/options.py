"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

AsJson = Annotated[bool, Option("--json", help="print one JSON object and nothing else")]
Checkpoint = Annotated[
    str | None, Option(help="a checkpoint of the run, by name [default: final_checkpoint]")
]
Constrained = Annotated[
    bool, Option("--constrained", help="sample only calls that the tools' schemas allow")
]
DialectName = Annotated[
    str | None, Option(help="write calls in this dialect on purpose: native, json, calls, tagged")
]
ExperimentName = Annotated[
    str | None,
    Argument(metavar="[EXPERIMENT.json|PRESET]", help="a file or a preset; none: all defaults"),
]
ModelName = Annotated[
    str,
    Argument(
        metavar="MODEL_OR_RUN", help="a run, a checkpoint, a model folder, a hub name or 'pico'"
    ),
]
Overrides = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="e.g. model.dialect=json")
]
Out = Annotated[
    Path | None,
    Option(help="write the evaluation folder: metrics.json, samples.jsonl, samples.csv"),
]


def with_options(
    overrides: list[str] | None, dialect: str | None, constrained: bool = False
) -> list[str]:
    """Return the overrides with those that `--dialect` and `--constrained` stand for."""
    keys = list(overrides or [])
    keys += [] if dialect is None else [f"model.dialect={dialect}"]
    return keys + (["evaluation.constrained=true"] if constrained else [])
