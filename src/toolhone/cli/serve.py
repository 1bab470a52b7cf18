"""`toolhone serve`: an OpenAI-compatible server for a model. `toolhone export`: the model as a
folder for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.api import open_model
from toolhone.cli import flags
from toolhone.cli.console import print_note
from toolhone.export.merged import check_place, to_of
from toolhone.export.merged import export as write_export
from toolhone.serve.app import address_of, check_installed, listen
from toolhone.serve.app import serve as run_server

app = typer.Typer(rich_markup_mode=None)


@app.command(
    epilog="Examples: toolhone serve runs/sft   |   "
    "toolhone serve runs/sft --port 9000 --constrained"
)
def serve(
    model: flags.ModelName,
    overrides: flags.Overrides = None,
    host: Annotated[
        str, Option(help="the address to listen on; there is no key: 0.0.0.0 lets everybody in")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes any free port")] = 8000,
    checkpoint: flags.Checkpoint = None,
    dialect: flags.DialectName = None,
    constrained: flags.Constrained = False,
    max_new_tokens: Annotated[
        int | None,
        Option(min=1, help="tokens of a reply where a request has no limit [default: the run's]"),
    ] = None,
) -> None:
    """Answer OpenAI's chat requests, with tools and calls, until Ctrl-C.

    Stops before the first answer where tokenizer or template differ from those the model was
    trained with."""
    check_installed()
    with listen(host, port) as sock:
        keys = flags.with_options(overrides, dialect, constrained)
        keys += [] if max_new_tokens is None else [f"evaluation.max_new_tokens={max_new_tokens}"]
        opened = open_model(model, checkpoint, keys)
        what = f"{opened.certificate.verdict}, dialect {opened.dialect.name}"
        if opened.experiment.evaluation.constrained:
            what += ", calls constrained to their schemas"
        print_note(f"{model} at {address_of(sock)}/v1 ({what}); Ctrl-C ends it")
        run_server(opened, sock)


@app.command(
    epilog="Examples: toolhone export runs/sft --out my-model   |   "
    "toolhone export runs/sft --out my-adapter --to peft --json"
)
def export(
    run: Annotated[
        str, Argument(metavar="RUN", help="a run, a checkpoint, an adapter or a model folder")
    ],
    out: Annotated[Path, Option(help="the folder to write")],
    to: Annotated[
        str, Option(help="merged (a plain transformers folder) or peft (an adapter folder)")
    ] = "merged",
    checkpoint: flags.Checkpoint = None,
    dialect: flags.DialectName = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace an existing export")] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Write the model for other programs, open what was written, and replay prompts through both.

    Stops before writing where tokenizer or template differ from those the model was trained with.
    Exit code 1: a replay differs."""
    form = to_of(to)
    check_place(out, run, overwrite)
    opened = open_model(run, checkpoint, flags.with_options(None, dialect))
    result = write_export(opened, out, form, overwrite)
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
