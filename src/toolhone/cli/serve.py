"""`toolhone serve`: an OpenAI-compatible server for a model, on this machine alone unless another address is named."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

EXAMPLE = (
    "Examples: toolhone serve runs/sft   |   toolhone serve runs/sft --port 9000 --constrained"
)


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_RUN", help="a run, a checkpoint, a model folder, a hub name or 'pico'"
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="e.g. evaluation.temperature=0.7"),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="the address to listen on; there is no key: 0.0.0.0 lets everybody in"),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free")] = 8000,
    checkpoint: Annotated[str | None, typer.Option(help="a checkpoint of the run, by name")] = None,
    dialect: Annotated[
        str | None,
        typer.Option(help="use another dialect than the model was trained in, on purpose"),
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained", help="sample only calls that the tools' schemas allow")
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="tokens of a reply where a request does not say [default: the run's]"
        ),
    ] = None,
) -> None:
    """Answer OpenAI's chat requests, tools and calls included, until Ctrl-C.

    Stops before it answers anything where tokenizer or template are not those the model was trained with.
    """
    from toolhone.serve.app import address_of, check_installed, listen

    check_installed()
    sock = listen(host, port)

    from toolhone.api import open_model
    from toolhone.serve.app import serve as run

    with sock:
        wanted = [*(overrides or []), *([] if dialect is None else [f"model.dialect={dialect}"])]
        wanted += ["evaluation.constrained=true"] if constrained else []
        wanted += [] if max_new_tokens is None else [f"evaluation.max_new_tokens={max_new_tokens}"]
        opened = open_model(model, checkpoint, wanted)
        held = ", calls held to their schemas" if opened.experiment.evaluation.constrained else ""
        print(
            f"{model} at {address_of(sock)}/v1 ({opened.certificate.verdict}, dialect {opened.dialect.name}{held}); Ctrl-C ends it",
            file=sys.stderr,
        )
        run(opened, sock)
