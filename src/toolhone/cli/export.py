"""`toolhone export`: a trained model as a folder that other programs open, proved by replaying prompts through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Examples: toolhone export runs/sft --out my-model   |   toolhone export runs/sft --out my-adapter --to peft --json"


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run, a checkpoint, an adapter or a model folder")
    ],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    to: Annotated[
        str, typer.Option(help="merged (a plain transformers folder) or peft (an adapter folder)")
    ] = "merged",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="a checkpoint of the run, by name [default: final_checkpoint]"),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="certify another dialect than the model was trained in, on purpose: native, json, calls, tagged"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an export that is there")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object and nothing else")
    ] = False,
) -> None:
    """Write the model for other programs, open what was written, and replay prompts through both.

    Stops before writing where tokenizer or template are not those the model was trained with. Exit code 1: a replay differs.
    """
    from toolhone.export.merged import check_place, to_of

    form = to_of(to)
    check_place(out, run, overwrite)

    from toolhone.api import open_model
    from toolhone.export.merged import export as write

    opened = open_model(run, checkpoint, [] if dialect is None else [f"model.dialect={dialect}"])
    done = write(opened, out, form, overwrite)
    if as_json:
        print(json.dumps(done.to_dict()))
    else:
        print(f"{done.folder}: {', '.join(done.files)}")
        print(f"format: {done.verdict}, dialect {opened.dialect.name}")
        for note in done.notes:
            print(f"  {note}")
        print(done.replay.sentence())
    if not done.replay.whole:
        raise typer.Exit(1)
