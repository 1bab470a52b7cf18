"""`toolhone chat`: talk to a model with live tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.episodes.dialogue import Dialogue
    from toolhone.schema import Tool

EXAMPLE = "Examples: toolhone chat runs/sft   |   toolhone chat runs/sft --prompt 'What is 12 * 7?'"


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="a run, a checkpoint, a model folder, a hub name or 'pico'")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. evaluation.temperature=0.7")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="a checkpoint of the run, by name")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="say this instead of asking; may be given several times")] = None,
    save: Annotated[Path | None, typer.Option(help="append the talk to this file, as a conversation to train on")] = None,
) -> None:
    """Talk to a model; its calls and their results are shown as they happen. An empty line or Ctrl-D ends the talk."""
    from toolhone.api import open_model
    from toolhone.cli.show import show_event
    from toolhone.episodes.dialogue import Dialogue

    opened = open_model(model, checkpoint, overrides or [])
    dialogue = Dialogue(opened.policy(), opened.registry, opened.experiment.evaluation.max_turns)
    if not prompt and sys.stdin.isatty():
        names = ", ".join(tool.name for tool in opened.registry.tools)
        print(f"{model} in dialect {opened.dialect.name}; tools: {names}. An empty line ends the talk.", file=sys.stderr)
    try:
        for text in prompt or _typed():
            if prompt:
                print(f"you        {text}")
            for event in dialogue.say(text):
                show_event(event)
    finally:
        if save is not None:
            _append(save, dialogue, opened.registry.tools)


def _typed() -> Iterator[str]:
    """What the person types, until an empty line or the end of input."""
    while True:
        try:
            text = input("you        " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not text.strip():
            return
        if not sys.stdin.isatty():
            print(f"you        {text}")
        yield text


def _append(path: Path, dialogue: Dialogue, tools: Sequence[Tool]) -> None:
    """Write the talk up to its last good turn, and say how much was left out."""
    import json

    from toolhone.run import writing
    from toolhone.schema import Conversation

    left_out = len(dialogue.messages) - dialogue.whole
    if left_out:
        print(f"{left_out} messages at the end are not saved: their turn was cut off or could not be read", file=sys.stderr)
    if not dialogue.whole:
        return
    conversation = Conversation(tuple(dialogue.messages[: dialogue.whole]), tuple(tools), source="chat")
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(conversation.to_dict(), ensure_ascii=False) + "\n")
