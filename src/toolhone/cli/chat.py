"""`toolhone chat`: a conversation with a model and live tools, and its commands, which begin with
`/`.

`ChatREPL` knows no terminal (`Screen` shows things and reads lines) and no model (a `ChatSession`
has one)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from typer import Option

from toolhone.cli.options import (
    Checkpoint,
    Constrained,
    DialectName,
    ModelName,
    Overrides,
    with_options,
)
from toolhone.errors import UserError, nearest

if TYPE_CHECKING:
    from toolhone.cli.transcript_writer import TranscriptWriter
    from toolhone.episodes.chat_session import ChatSession, Event
    from toolhone.episodes.policy import Turn
    from toolhone.schema import Tool

EXAMPLE = (
    "Examples: toolhone chat runs/sft   |   "
    "toolhone chat runs/sft --prompt 'What is 12 * 7?' --save chat.jsonl"
)
COMMANDS = {
    "/help": "this list",
    "/tools": "the tools that the model may call",
    "/raw": "the model's last texts with all control tokens; /raw all: with its whole prompt",
    "/undo": "take the last exchange back",
    "/reset": "start a new conversation; the one so far is kept",
    "/save": "/save FILE: add this conversation to a file, to train on",
    "/quit": "end (so do Ctrl-D and an empty line)",
}


def chat(
    model: ModelName,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    dialect: DialectName = None,
    constrained: Constrained = False,
    prompt: Annotated[
        list[str] | None, Option(help="send this instead of asking; may be repeated")
    ] = None,
    save: Annotated[
        Path | None,
        Option(
            help="add the conversation to this file, to train on [default: RUN/chats/TIME.jsonl]"
        ),
    ] = None,
    no_save: Annotated[bool, Option("--no-save", help="keep nothing without /save")] = False,
) -> None:
    """Chat with a model; its calls and their results are shown as they happen. /help lists
    commands; Ctrl-D ends the chat."""
    from toolhone.api import open_model
    from toolhone.cli.console import Terminal
    from toolhone.cli.transcript_writer import TranscriptWriter
    from toolhone.episodes.chat_session import ChatSession

    opened = open_model(model, checkpoint, with_options(overrides, dialect, constrained))
    if save is None and (Path(model) / "experiment.json").is_file():
        save = Path(model) / "chats" / f"{time.strftime('%Y-%m-%d_%H%M%S')}.jsonl"
    tools, screen = opened.registry.tools, Terminal()
    writer = TranscriptWriter(None if no_save else save, tools)
    policy, turns = opened.policy(), opened.experiment.evaluation.max_turns

    def raw(turn: Turn, with_prompt: bool) -> str:
        return opened.tokenizer.decode([*(turn.prompt if with_prompt else ()), *turn.tokens])

    repl = ChatREPL(
        lambda: ChatSession(policy, opened.registry, turns, screen.thinking),
        *(tools, screen, writer, raw, screen.types),
    )
    if not prompt and screen.types:
        names = ", ".join(tool.name for tool in tools) or "none"
        where = f"{model} in dialect {opened.dialect.name}; tools: {names}"
        screen.note(f"{where}. /help lists commands, Ctrl-D ends the chat.")
    try:
        for text in prompt or ():
            screen.echo(text)
            repl.say(text)
        for line in () if prompt else screen.lines(tuple(COMMANDS)):
            if repl.take(line) is Next.END:
                break
    finally:
        for sentence in writer.close():
            print(sentence, file=sys.stderr)


class Next(Enum):
    """What follows a line."""

    CONTINUE = auto()
    END = auto()


class Screen(Protocol):
    """Where a chat is shown; `console.Terminal` is one."""

    def event(self, event: Event) -> None: ...
    def note(self, text: str) -> None: ...
    def show(self, text: str) -> None: ...
    def raw(self, text: str) -> None: ...


class ChatREPL:
    """A chat session with its commands. `raw` returns the exact text of a turn, with the prompt if
    asked.

    `interactive`: Ctrl-C and a mistake end the answer, not the chat.
    """

    def __init__(
        self,
        open_session: Callable[[], ChatSession],
        tools: Sequence[Tool],
        screen: Screen,
        writer: TranscriptWriter,
        raw: Callable[[Turn, bool], str] = lambda turn, _: turn.text,
        interactive: bool = False,
    ) -> None:
        self._open, self._tools, self._screen, self._writer = open_session, tools, screen, writer
        self._raw, self._interactive = raw, interactive
        self.session = open_session()

    def take(self, line: str) -> Next:
        """Handle a typed line: a command, or a message (`//` begins a text with a slash)."""
        text = line.strip()
        if not text or text.split()[0] == "/quit":
            return Next.END
        if text.startswith("/") and not text.startswith("//"):
            name, _, rest = text.partition(" ")
            self._command(name, rest.strip())
        else:
            self.say(text[1:] if text.startswith("//") else text)
        return Next.CONTINUE

    def say(self, text: str) -> None:
        """Send a message to the model and show what it does."""
        before = len(self.session.exchanges)
        why = None
        try:
            self._follow(text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            why = "stopped; your last message is taken back"
        except UserError as error:
            if not self._interactive:
                raise
            why = f"{error} (/reset starts a new conversation, /undo takes an exchange back)"
        if why is not None:
            # nothing to undo where the error came before the exchange began
            if len(self.session.exchanges) > before:
                self.session.undo()
            self._screen.note(why)
        self._keep()

    def _follow(self, text: str) -> None:
        from toolhone.episodes.chat_session import ChatEnd

        for event in self.session.say(text):
            self._screen.event(event)
        exchange = self.session.exchanges[-1]
        if exchange.ended is ChatEnd.TOO_MANY_TURNS:
            calls = f"the model called tools {len(exchange.turns)} times and did not answer"
            self._screen.note(f"{calls} (evaluation.max_turns)")
        elif exchange.ended is not ChatEnd.ANSWERED and self._interactive:
            self._screen.note("/raw shows what it wrote, /undo takes the exchange back")

    def _keep(self) -> None:
        try:
            self._writer.keep(self.session)
        except UserError as error:
            if not self._interactive:
                raise
            self._screen.note(str(error))

    def _command(self, name: str, rest: str) -> None:
        match name:
            case "/help":
                self._screen.show("\n".join(f"{word:8s} {help}" for word, help in COMMANDS.items()))
            case "/tools":
                self._screen.show("\n".join(map(_describe, self._tools)) or "there are no tools")
            case "/raw":
                self._show_raw(whole=rest == "all")
            case "/undo":
                message = self.session.undo()
                self._screen.note(
                    f"taken back: {message}" if message else "there is no message yet"
                )
                self._keep()
            case "/reset":
                self._writer.next_conversation()
                self.session = self._open()
                self._screen.note("a new conversation; the model does not see the one before")
            case "/save":
                self._save(rest)
            case _:
                self._screen.note(
                    f"there is no command {name}{nearest(name, COMMANDS)}; "
                    f"commands: {', '.join(COMMANDS)} (// sends a slash)"
                )

    def _show_raw(self, whole: bool) -> None:
        turns = self.session.exchanges[-1].turns if self.session.exchanges else []
        if not turns:
            self._screen.note("the model has not written anything yet")
        for turn in turns[-1:] if whole else turns:
            self._screen.raw(self._raw(turn, whole))

    def _save(self, name: str) -> None:
        """Write the conversation to a file that the person names, now."""
        if not name:
            self._screen.note("/save needs the name of a file, for example /save chat.jsonl")
            return
        try:
            transcript = self._writer.write(self.session, Path(name).expanduser())
        except UserError as error:
            self._screen.note(str(error))
            return
        result = f"nothing to save; {name} was not written"
        if transcript.conversation:
            count = len(transcript.conversation.messages)
            result = f"{count} message{'' if count == 1 else 's'} saved to {name}"
        self._screen.note("; ".join([result, *transcript.sentences()]))


def _describe(tool: Tool) -> str:
    first = tool.description.strip().partition("\n")[0]
    missing = "" if tool.function else "  (cannot be run here: it has no implementation)"
    return f"{tool.name}: {first}{missing}"
