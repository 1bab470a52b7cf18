"""`toolhone chat`: talk to a model with live tools.

What is typed and shown is in `screen`, what a line means in `talk`, what is kept in `keep`; here they meet a model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.api import Model
    from toolhone.cli.chat_repl import ChatREPL
    from toolhone.cli.console import Terminal
    from toolhone.cli.transcript_writer import TranscriptWriter
    from toolhone.episodes.policy import Turn

EXAMPLE = "Examples: toolhone chat runs/sft   |   toolhone chat runs/sft --prompt 'What is 12 * 7?' --save talk.jsonl"


def chat(
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
    checkpoint: Annotated[str | None, typer.Option(help="a checkpoint of the run, by name")] = None,
    dialect: Annotated[
        str | None,
        typer.Option(help="use another dialect than the model was trained in, on purpose"),
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained", help="sample only calls that the tools' schemas allow")
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="say this instead of asking; may be given several times"),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="add the talk to this file, as a conversation to train on [default: RUN/chats/TIME.jsonl]"
        ),
    ] = None,
    no_save: Annotated[
        bool, typer.Option("--no-save", help="keep nothing unless /save asks for it")
    ] = False,
) -> None:
    """Talk to a model; its calls and their results are shown as they happen. /help lists commands; Ctrl-D ends the talk."""
    from toolhone.api import open_model
    from toolhone.cli.chat_repl import COMMANDS, Next
    from toolhone.cli.console import Terminal
    from toolhone.cli.transcript_writer import TranscriptWriter

    wanted = [*(overrides or []), *([] if dialect is None else [f"model.dialect={dialect}"])]
    opened = open_model(
        model, checkpoint, [*wanted, *(["evaluation.constrained=true"] if constrained else [])]
    )
    screen = Terminal()
    keeper = TranscriptWriter(
        None if no_save else save or _default_file(Path(model)), opened.registry.tools
    )
    talk = open_talk(opened, screen, keeper)
    if not prompt and screen.types:
        names = ", ".join(tool.name for tool in opened.registry.tools) or "none"
        screen.note(
            f"{model} in dialect {opened.dialect.name}; tools: {names}. /help lists commands, Ctrl-D ends the talk."
        )
    try:
        for text in prompt or ():
            screen.echo(text)
            talk.say(text)
        for line in () if prompt else screen.lines(tuple(COMMANDS)):
            if talk.take(line) is Next.END:
                break
    finally:
        for sentence in keeper.close():
            print(sentence, file=sys.stderr)


def open_talk(model: Model, screen: Terminal, keeper: TranscriptWriter) -> ChatREPL:
    """A talk with an opened model."""
    from toolhone.cli.chat_repl import ChatREPL
    from toolhone.episodes.chat_session import ChatSession

    policy, turns = model.policy(), model.experiment.evaluation.max_turns

    def written(turn: Turn, whole: bool) -> str:
        return model.tokenizer.decode([*(turn.prompt if whole else ()), *turn.tokens])

    return ChatREPL(
        lambda: ChatSession(policy, model.registry, turns, screen.thinking),
        model.registry.tools,
        screen,
        keeper,
        written,
        screen.types,
    )


def _default_file(model: Path) -> Path | None:
    """A file in the run folder; None where the model is no run."""
    is_run = (model / "experiment.json").is_file()
    return model / "chats" / f"{time.strftime('%Y-%m-%d_%H%M%S')}.jsonl" if is_run else None
