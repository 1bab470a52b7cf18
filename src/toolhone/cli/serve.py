"""`toolhone serve`: an OpenAI-compatible server for a model. `toolhone export`: the model as a
folder for other programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.options import (
    AsJson,
    Checkpoint,
    Constrained,
    DialectName,
    ModelName,
    Overrides,
    with_options,
)

EXAMPLE = (
    "Examples: toolhone serve runs/sft   |   toolhone serve runs/sft --port 9000 --constrained"
)
EXPORT_EXAMPLE = (
    "Examples: toolhone export runs/sft --out my-model   |   "
    "toolhone export runs/sft --out my-adapter --to peft --json"
)


def serve(
    model: ModelName,
    overrides: Overrides = None,
    host: Annotated[
        str, Option(help="the address to listen on; there is no key: 0.0.0.0 lets everybody in")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes any free port")] = 8000,
    checkpoint: Checkpoint = None,
    dialect: DialectName = None,
    constrained: Constrained = False,
    max_new_tokens: Annotated[
        int | None,
        Option(min=1, help="tokens of a reply where a request has no limit [default: the run's]"),
    ] = None,
) -> None:
    """Answer OpenAI's chat requests, with tools and calls, until Ctrl-C.

    Stops before the first answer where tokenizer or template differ from those the model was
    trained with."""
    from toolhone.serve.app import address_of, check_installed, listen

    check_installed()
    sock = listen(host, port)

    from toolhone.api import open_model
    from toolhone.serve.app import serve as run

    with sock:
        keys = with_options(overrides, dialect, constrained)
        keys += [] if max_new_tokens is None else [f"evaluation.max_new_tokens={max_new_tokens}"]
        opened = open_model(model, checkpoint, keys)
        what = f"{opened.certificate.verdict}, dialect {opened.dialect.name}"
        if opened.experiment.evaluation.constrained:
            what += ", calls constrained to their schemas"
        print(f"{model} at {address_of(sock)}/v1 ({what}); Ctrl-C ends it", file=sys.stderr)
        run(opened, sock)


def export(
    run: Annotated[
        str, Argument(metavar="RUN", help="a run, a checkpoint, an adapter or a model folder")
    ],
    out: Annotated[Path, Option(help="the folder to write")],
    to: Annotated[
        str, Option(help="merged (a plain transformers folder) or peft (an adapter folder)")
    ] = "merged",
    checkpoint: Checkpoint = None,
    dialect: DialectName = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace an existing export")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the model for other programs, open what was written, and replay prompts through both.

    Stops before writing where tokenizer or template differ from those the model was trained with.
    Exit code 1: a replay differs."""
    from toolhone.export.merged import check_place, to_of

    form = to_of(to)
    check_place(out, run, overwrite)

    from toolhone.api import open_model
    from toolhone.export.merged import export as write

    opened = open_model(run, checkpoint, with_options(None, dialect))
    result = write(opened, out, form, overwrite)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        print(f"{result.folder}: {', '.join(result.files)}")
        print(f"format: {result.verdict}, dialect {opened.dialect.name}")
        for note in result.notes:
            print(f"  {note}")
        print(result.replay.sentence())
    if not result.replay.whole:
        raise typer.Exit(1)
