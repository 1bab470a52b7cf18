"""`toolhone chat`: a conversation with a model and live tools, its commands, which begin with `/`,
and the JSON Lines file that keeps it, one conversation on a line, while the chat runs."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from toolhone.api import open_model
from toolhone.cli import flags
from toolhone.cli.console import Terminal, print_note
from toolhone.config.presets import PICO_TRAINED
from toolhone.episodes.chat_session import ChatEnd, ChatSession, Transcript, transcript_of
from toolhone.episodes.policy import Turn
from toolhone.errors import RunError, UserError, nearest
from toolhone.runs.run import write_text, writing
from toolhone.schema import Conversation, Tool
from toolhone.sources.source import fingerprint

app = typer.Typer(rich_markup_mode=None)
COMMANDS = {
    "/help": "this list",
    "/tools": "the tools that the model may call",
    "/raw": "the model's last texts with all control tokens; /raw all: with its whole prompt",
    "/undo": "take the last exchange back",
    "/reset": "start a new conversation; the one so far is kept",
    "/save": "/save FILE: add this conversation to a file, to train on",
    "/quit": "end (so do Ctrl-D and an empty line)",
}


@app.command(
    epilog="Examples: toolhone chat --prompt 'What is 48 * 17?'   |   toolhone chat runs/sft   |   "
    "toolhone chat runs/sft --prompt 'What is 12 * 7?' --save chat.jsonl"
)
def chat(
    model: flags.ModelName = PICO_TRAINED,
    overrides: flags.Overrides = None,
    checkpoint: flags.Checkpoint = None,
    dialect: flags.DialectName = None,
    constrained: flags.Constrained = False,
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
    """Chat with a model; its calls and their results are shown as they happen. Without a model,
    the small one that ships answers. /help lists commands; Ctrl-D ends the chat."""
    if "=" in model and not Path(model).exists():
        model, overrides = PICO_TRAINED, [model, *(overrides or [])]
    opened = open_model(model, checkpoint, flags.with_options(overrides, dialect, constrained))
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
            print_note(sentence)


class Next(Enum):
    """What follows a line."""

    CONTINUE = auto()
    END = auto()


class ChatREPL:
    """A chat session with its commands. `raw` returns the exact text of a turn, with the prompt if
    asked.

    `interactive`: Ctrl-C and a mistake end the answer, not the chat.
    """

    def __init__(
        self,
        open_session: Callable[[], ChatSession],
        tools: Sequence[Tool],
        screen: Terminal,
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
        try:
            for event in self.session.say(text):
                self._screen.event(event)
        except (KeyboardInterrupt, UserError) as error:
            if not self._interactive:
                raise
            # nothing to undo where the error came before the exchange began
            if len(self.session.exchanges) > before:
                self.session.undo()
            why = f"{error} (/reset starts a new conversation, /undo takes an exchange back)"
            stopped = isinstance(error, KeyboardInterrupt)
            self._screen.note("stopped; your last message is taken back" if stopped else why)
        else:
            exchange = self.session.exchanges[-1]
            if exchange.ended is ChatEnd.TOO_MANY_TURNS:
                calls = f"the model called tools {len(exchange.turns)} times and did not answer"
                self._screen.note(f"{calls} (evaluation.max_turns)")
            elif exchange.ended is not ChatEnd.ANSWERED and self._interactive:
                self._screen.note("/raw shows what it wrote, /undo takes the exchange back")
        self._keep()

    def _keep(self) -> None:
        try:
            self._writer.keep(self.session)
        except UserError as error:
            if not self._interactive:
                raise
            self._screen.note(str(error))

    def _command(self, name: str, rest: str) -> None:
        screen, exchanges = self._screen, self.session.exchanges
        match name:
            case "/help":
                screen.show("\n".join(f"{word:8s} {help}" for word, help in COMMANDS.items()))
            case "/tools":
                lines = []
                for tool in self._tools:
                    first, *_ = tool.description.strip().partition("\n")
                    missing = "  (cannot be run here: it has no implementation)"
                    lines.append(f"{tool.name}: {first}{'' if tool.function else missing}")
                screen.show("\n".join(lines) or "there are no tools")
            case "/raw":
                turns = exchanges[-1].turns if exchanges else []
                if not turns:
                    screen.note("the model has not written anything yet")
                for turn in turns[-1:] if rest == "all" else turns:
                    screen.raw(self._raw(turn, rest == "all"))
            case "/undo":
                message = self.session.undo()
                screen.note(f"taken back: {message}" if message else "there is no message yet")
                self._keep()
            case "/reset":
                self._writer.next_conversation()
                self.session = self._open()
                screen.note("a new conversation; the model does not see the one before")
            case "/save" if rest:
                try:
                    screen.note(self._writer.save(self.session, rest))
                except UserError as error:
                    screen.note(str(error))
            case "/save":
                screen.note("/save needs the name of a file, for example /save chat.jsonl")
            case _:
                hint = f"{nearest(name, COMMANDS)}; commands: {', '.join(COMMANDS)}"
                screen.note(f"there is no command {name}{hint} (// sends a slash)")


class TranscriptWriter:
    """Keeps the conversations of a chat in a JSON Lines file; lines that others wrote into it stay
    as they are. `path` is None where nothing is kept without `save`."""

    def __init__(self, path: Path | None, tools: Sequence[Tool]) -> None:
        self.path, self._tools = path, tools
        chat = f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._ids = (f"{chat}-{number}" for number in count(1))
        self._finished: list[Transcript] = []
        self._current, self._id = Transcript(None, {}), next(self._ids)

    def next_conversation(self) -> None:
        self._finished.append(self._current)
        self._current, self._id = Transcript(None, {}), next(self._ids)

    def keep(self, session: ChatSession) -> None:
        """Write the conversation as it is now; one that equals an earlier one of this chat is not
        written twice."""
        self._current = transcript_of(session, self._tools, self._id)
        if self.path is None:
            return
        conversation = self._current.conversation
        earlier = [each.conversation for each in self._finished if each.conversation]
        seen = [fingerprint(each.messages) for each in earlier]
        is_known = conversation is not None and fingerprint(conversation.messages) in seen
        _put(self.path, self._id, None if is_known else conversation)

    def save(self, session: ChatSession, name: str) -> str:
        """Write the conversation as it is now to a file that the person names; return sentences:
        what was saved and what was left out."""
        transcript = transcript_of(session, self._tools, self._id)
        _put(Path(name).expanduser(), self._id, transcript.conversation)
        result = f"nothing to save; {name} was not written"
        if transcript.conversation:
            number = len(transcript.conversation.messages)
            result = f"{number} message{'' if number == 1 else 's'} saved to {name}"
        return "; ".join([result, *transcript.sentences()])

    def close(self) -> list[str]:
        """Return sentences: where the conversations are, and what was left out."""
        if self.path is None:
            return []
        transcripts = [*self._finished, self._current]
        sentences = [sentence for each in transcripts for sentence in each.sentences()]
        kept = sum(each.conversation is not None for each in transcripts)
        if kept:
            what = "a conversation" if kept == 1 else f"{kept} conversations"
            sentences.append(f"saved as {what} to train on: {self.path}")
        return sentences


def _put(path: Path, name: str, conversation: Conversation | None) -> None:
    """Replace the conversation with the id `name` in a JSON Lines file; remove a file that becomes
    empty."""
    advice = "name a .jsonl file to keep conversations in"
    text = ""
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be added to: {error}; {advice}") from None
    elif path.exists():
        raise RunError(f"{path} is no ordinary file; {advice}")
    if text.lstrip().startswith("["):
        raise RunError(f"{path} holds one JSON list, and a conversation is one line; {advice}")
    before = [f"{line}\n" for line in text.split("\n") if line.strip()]
    after = [line for line in before if f'"id": "{name}"' not in line]
    if conversation is not None:
        after.append(json.dumps(conversation.to_dict(), ensure_ascii=False) + "\n")
    if after == before:
        return
    with writing(path):
        if not after:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(after))
