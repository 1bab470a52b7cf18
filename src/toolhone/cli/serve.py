"""`toolhone serve`: an OpenAI-compatible server for a model. `toolhone export`: the model as a
folder for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.agents.gateway import address_of, check_installed, listen
from toolhone.api import open_model
from toolhone.cli import flags
from toolhone.cli.console import print_note
from toolhone.errors import ConfigError
from toolhone.export.merged import ExportFormat, check_place, precision_of_weights, to_of
from toolhone.export.merged import export as write_export
from toolhone.rewards.reward_registry import Reward, load_rewards
from toolhone.serve.app import ModelService
from toolhone.serve.app import serve as run_server
from toolhone.serve.record import RecordingService
from toolhone.serve.tinker_server import (
    TinkerOptions,
    check_tinker_installed,
    open_service,
    serve_tinker,
)

app = typer.Typer(rich_markup_mode=None)


@app.command(
    epilog="Examples: toolhone serve runs/sft   |   "
    "toolhone serve runs/sft --port 9000 --constrained   |   "
    "toolhone serve runs/sft --record recorded   |   toolhone serve --tinker pico --port 8787"
)
def serve(  # noqa: PLR0913 (the options of a command)
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
    record: Annotated[
        Path | None, Option(help="write the sessions of agents into this new folder")
    ] = None,
    reward: Annotated[
        list[str] | None,
        Option(help="with --record: a reward of each session: a name or file.py:function"),
    ] = None,
    tinker: Annotated[
        bool, Option("--tinker", help="speak the Tinker protocol: train and sample with its SDK")
    ] = False,
    out: Annotated[
        Path, Option(help="with --tinker: the folder of its checkpoints")
    ] = TinkerOptions.folder,
    memory: Annotated[
        float | None,
        Option(min=0, help="with --tinker: GB for models and samplers [default: half of the rest]"),
    ] = None,
    key: Annotated[
        str, Option(help="with --tinker: the API key that clients send")
    ] = TinkerOptions.key,
    custom_losses: Annotated[
        bool, Option("--custom-losses", help="with --tinker: run the losses that clients upload")
    ] = False,
) -> None:
    """Answer OpenAI's chat requests, with tools and calls, until Ctrl-C.

    Stops before the first answer where tokenizer or template differ from those the model was
    trained with. With --record: each session, named by its API key or x-session-id, becomes an
    episode with its token ids (docs/agents.md). With --tinker: the protocol of the Tinker SDK, so
    that programs written for it train and sample here."""
    check_installed()
    if tinker:
        refuse_chat_options(dialect, constrained, max_new_tokens, record)
        limit = None if memory is None else int(memory * 1e9)
        options = TinkerOptions(out, limit, key, custom_losses)
        serve_sdk(model, overrides, (host, port), checkpoint, options)
        return
    recording = None if record is None else (record, load_rewards(reward or []))
    if reward and record is None:
        raise ConfigError("--reward scores recorded sessions; add --record FOLDER")
    keys = flags.with_options(overrides, dialect, constrained)
    keys += [] if max_new_tokens is None else [f"evaluation.max_new_tokens={max_new_tokens}"]
    serve_chat(model, keys, (host, port), checkpoint, recording)


def serve_chat(
    model: str,
    keys: list[str],
    address: tuple[str, int],
    checkpoint: str | None,
    recording: tuple[Path, list[Reward]] | None,
) -> None:
    """Serve OpenAI's forms; `recording` is the folder of its sessions, and their rewards."""
    with listen(*address) as sock:
        opened = open_model(model, checkpoint, keys)
        what = f"{opened.certificate.verdict}, dialect {opened.dialect.name}"
        if opened.experiment.evaluation.constrained:
            what += ", calls constrained to their schemas"
        service = ModelService(opened)
        if recording is not None:
            service = RecordingService(opened, *recording)
            what += f", sessions recorded in {recording[0]}"
        print_note(f"{model} at {address_of(sock)}/v1 ({what}); Ctrl-C ends it")
        run_server(service, sock)


def refuse_chat_options(
    dialect: str | None, constrained: bool, max_tokens: int | None, record: Path | None
) -> None:
    """Refuse what only has a meaning for chat requests."""
    given = {"--dialect": dialect, "--constrained": constrained, "--max-new-tokens": max_tokens}
    given |= {"--record": str(record)} if record else {}
    if names := [name for name, value in given.items() if value]:
        raise ConfigError(f"--tinker serves token ids; leave out {', '.join(names)}")


def serve_sdk(
    model: str,
    overrides: list[str] | None,
    address: tuple[str, int],
    checkpoint: str | None,
    options: TinkerOptions,
) -> None:
    """Serve the Tinker protocol and print what a client must export."""
    check_tinker_installed()
    with listen(*address) as sock:
        service = open_service(model, options, checkpoint, overrides)
        print(f"export TINKER_BASE_URL={address_of(sock)}")
        print(f"export TINKER_API_KEY={options.key}", flush=True)
        names = ", ".join(service.models.bases)
        print_note(f"base_model is {names}; checkpoints go to {options.folder}; Ctrl-C ends it")
        serve_tinker(service, sock, options.key)


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
    precision = precision_of_weights(run, checkpoint) if form is ExportFormat.MERGED else []
    opened = open_model(run, checkpoint, flags.with_options(precision, dialect))
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
